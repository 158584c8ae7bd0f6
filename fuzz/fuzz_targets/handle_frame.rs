//! Sequences of frames, repaired or not, at their own pace: no panic, nothing unaccounted for, and
//! nothing leaves that is not whole and honest.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "each user of it needs a part")]
mod support;

use support::mutate::{repair, seeds};
use support::validity::{check_frame, check_step};
use support::{IN, OUT, Router, VIP, config};
use tapvs::config::{Forward, Masquerade};
use tapvs::time::Duration;

const STEPS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let mut config = config();
    config.router.forward = Forward::ServersOut;
    config.masquerades =
        vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: VIP.into() }];
    config.networks[1].mss_clamp = Some(1200);
    let mut router = Router::sized(config, 8);
    let seeds = seeds();
    let mut input = input;
    for _ in 0..STEPS {
        let [kind, time, high, low, rest @ ..] = input else { break };
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, next) = rest.split_at(len);
        input = next;
        let (link, mut frame) = if kind & 4 == 0 {
            (if kind & 1 == 0 { OUT } else { IN }, bytes.to_vec())
        } else {
            let (link, mut frame) = seeds[usize::from(*time) % seeds.len()].clone();
            // The bytes change the good frame from the EtherType on.
            for (at, byte) in (12..).zip(bytes) {
                match frame.get_mut(at) {
                    Some(place) => *place ^= byte,
                    None => frame.push(*byte),
                }
            }
            (link, frame)
        };
        if kind & 2 != 0 {
            repair(link, &mut frame);
        }
        router.answers_arp = kind & 8 != 0;
        let step = router.feed(link, &frame);
        check_step(&frame, &step);
        if kind & 0x10 != 0 {
            let millis = 1 << (time & 0x0f);
            for (link, frame) in router.advance(Duration::from_millis(millis)) {
                check_frame(link, &frame).unwrap();
            }
        }
    }
});

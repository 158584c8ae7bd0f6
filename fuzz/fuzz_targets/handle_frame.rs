//! Sequences of frames, repaired or not, at their own pace: no panic, nothing unaccounted for, and
//! nothing leaves that is not whole and honest.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "steps.rs"]
mod steps;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "each user of it needs a part")]
mod support;

use support::mutate::seeds;
use support::validity::{check_frame, check_step};
use support::{IN, OUT, Router, VIP, config};
use tapvs::config::{Forward, Masquerade};

fuzz_target!(|input: &[u8]| {
    let mut config = config();
    config.router.forward = Forward::ServersOut;
    config.masquerades =
        vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: VIP.into() }];
    config.networks[1].mss_clamp = Some(1200);
    let mut router = Router::sized(config, 8);
    let check = |_, cause: &[u8], step: &_| check_step(cause, step);
    let said = |link, frame: &[u8]| check_frame(link, frame).unwrap();
    steps::take(input, &mut router, (&seeds(), &[OUT, IN]), None, check, said);
});

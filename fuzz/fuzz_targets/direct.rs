//! As `handle_frame`, with direct routing: two networks, one network of one link, and three links with
//! the router as the bridge between them, by the first byte. What passes between others is untouched,
//! and nobody but the router speaks for the virtual IP.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "steps.rs"]
mod steps;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "each user of it needs a part")]
mod support;

use support::mutate::{direct_seeds, seeds};
use support::validity::{check_direct_step, check_frame, check_said, check_step};
use support::{FAR_IN, IN, OUT, ROUTER_OUT, Router, bridged, bridged_owner, config, direct};
use tapvs::config::{Defend, Unserved};

const FLOWS: usize = 8;

fuzz_target!(|input: &[u8]| {
    let [kind, input @ ..] = input else { return };
    if kind & 3 == 0 {
        let mut router = Router::sized(direct(config()), FLOWS);
        let check = |_, cause: &[u8], step: &_| check_step(cause, step);
        let said = |link, frame: &[u8]| {
            // Asked who else has the virtual IP, in nobody's name.
            let probe = frame[12..14] == [8, 6] && frame[28..32] == [0; 4];
            if probe { check_said(frame) } else { check_frame(link, frame) }.unwrap();
        };
        return steps::take(input, &mut router, (&seeds(), &[OUT, IN]), None, check, said);
    }
    let mut config = bridged();
    if kind & 4 != 0 {
        config.virtual_ips[0].defend = Some(Defend::Broadcast);
    }
    if kind & 8 != 0 {
        config.router.unserved = Unserved::Icmp;
    }
    let [network] = &mut config.networks[..] else { unreachable!() };
    network.bridge.broadcast_limit = 10;
    let links = if kind & 3 == 1 { &[OUT][..] } else { &[OUT, IN, FAR_IN] };
    network.links.truncate(links.len());
    let mut router = Router::cold(config, FLOWS);
    if links.len() == 1 {
        router.owner = |_, address| {
            let mut links = [OUT, IN, FAR_IN].into_iter();
            links.find_map(|link| bridged_owner(link, address))
        };
    }
    router.advance(tapvs::time::Duration::from_secs(5));
    let said = |_, frame: &[u8]| {
        assert_eq!(frame[6..12], ROUTER_OUT.0);
        check_said(frame).unwrap();
    };
    steps::take(input, &mut router, (&direct_seeds(), links), Some(OUT), check_direct_step, said);
});

//! What one router alone is missing takes its role along: a gateway, the cable of an attached NIC,
//! servers that are up.

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::{say, trial};
use netns_tests::pair::{Pair, Plugs, Terms, all_work};
use netns_tests::{CLIENT, Outcome, ensure, eventually};

use crate::takeover::on_pair;

/// The observer is the first router's gateway.
const OBSERVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(203, 0, 113, 101);
const CONNECTIONS: usize = 8;
/// An address that has answered is asked again after 30 s, and three times more.
const UNTIL_NOTICED: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_gateway_that_fails_takes_the_role_along", gateway_fails),
        trial("a_pulled_cable_takes_the_role_along", cable_pulled),
        trial("servers_that_one_router_misses_take_the_role_along", servers_missed),
        trial("servers_that_both_routers_miss_change_nothing", servers_missed_by_both),
    ]
}

fn is_active(pair: &Pair, number: usize) -> bool {
    pair.role(number).is_ok_and(|role| role == "active")
}

/// Waits until the first router has the role, and the second has not, or the other way round.
fn role_goes_to(pair: &Pair, number: usize, limit: Duration) -> Outcome {
    let has_gone = || is_active(pair, number) && !is_active(pair, 1 - number);
    ensure!(eventually(limit, has_gone), "router {number} is not the active one");
    Ok(())
}

fn says(pair: &Pair, number: usize, words: &str) -> Outcome {
    let status = pair.status(number)?;
    ensure!(status.contains(words), "no `{words}` in {status}");
    Ok(())
}

fn gateway_fails() -> Outcome {
    let terms = Terms { gateways: Some([OBSERVER, CLIENT]), ..Terms::USUAL };
    on_pair(terms, |pair| {
        let mut connections = pair.connections(CONNECTIONS)?;
        pair.set_port("observer", false)?;
        role_goes_to(pair, 1, UNTIL_NOTICED)?;
        says(pair, 0, "the gateway of internet does not answer")?;
        all_work(&mut connections)?;
        pair.connections(2)?;
        // It answers again, and the better router is well.
        pair.set_port("observer", true)?;
        role_goes_to(pair, 0, UNTIL_NOTICED)?;
        all_work(&mut connections)
    })
}

fn cable_pulled() -> Outcome {
    let terms = Terms { plugs: Plugs::Nics, ..Terms::USUAL };
    on_pair(terms, |pair| {
        let mut connections = pair.connections(CONNECTIONS)?;
        for port in ["in-0", "out-0"] {
            let (gaps, ()) = pair.probed(Duration::from_millis(500), |pair| {
                pair.set_port(port, false)?;
                role_goes_to(pair, 1, Duration::from_secs(10))
            })?;
            say(format_args!("{port} is pulled: {gaps:?}"));
            let network = if port == "in-0" { "servers" } else { "internet" };
            says(pair, 0, &format!("a link of {network} is down"))?;
            all_work(&mut connections)?;
            pair.set_port(port, true)?;
            role_goes_to(pair, 0, Duration::from_secs(20))?;
            all_work(&mut connections)?;
        }
        Ok(())
    })
}

const CHECKED: &str =
    "health = { kind = \"tcp\", interval = \"200ms\", timeout = \"100ms\", fall = 2, rise = 1 }";

/// Only the first router wants all of them up.
fn servers_missed() -> Outcome {
    let terms = Terms {
        service: CHECKED,
        service_of: ["min_healthy = 3", "min_healthy = 1"],
        ..Terms::USUAL
    };
    on_pair(terms, |pair| {
        let before = pair.router(1)?.log().len();
        pair.set_port("s2", false)?;
        role_goes_to(pair, 1, Duration::from_secs(10))?;
        says(pair, 0, "fewer servers up")?;
        // Its own checks find that out a little later.
        pair.router(1)?.wait_for(before, &["server is down", "server=s2"])?;
        all_work(&mut pair.connections(4)?)?;
        pair.set_port("s2", true)?;
        role_goes_to(pair, 0, Duration::from_secs(20))?;
        all_work(&mut pair.connections(4)?)
    })
}

/// Whoever has the role goes on, because nobody else would do better.
fn servers_missed_by_both() -> Outcome {
    let terms = Terms { service: CHECKED, service_of: ["min_healthy = 3"; 2], ..Terms::USUAL };
    on_pair(terms, |pair| {
        pair.set_port("s2", false)?;
        let faulty = |number: usize| {
            pair.status(number).is_ok_and(|status| status.contains("fewer servers up"))
        };
        ensure!(eventually(Duration::from_secs(5), || faulty(0) && faulty(1)), "nobody noticed");
        thread::sleep(Duration::from_secs(1));
        ensure!(is_active(pair, 0) != is_active(pair, 1), "not exactly one is active");
        pair.connections(4)?;
        pair.set_port("s2", true)?;
        role_goes_to(pair, 0, Duration::from_secs(20))
    })
}

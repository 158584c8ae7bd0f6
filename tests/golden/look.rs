//! Lists in parts: nothing that is there all the time is missed or told twice, whatever comes and
//! goes meanwhile.

use std::collections::BTreeMap;

use tapvs::time::Duration;

use super::*;

const PART: usize = 1_024;

fn open(router: &mut Router, clients: std::ops::Range<u32>) {
    for n in clients {
        let [_, a, b, c] = n.to_be_bytes();
        let client = format!("100.{a}.{b}.{c}:6000");
        router.feed(OUT, &tcp(&client, "203.0.113.10:80", SYN, 1000, 0, b"").frame());
    }
}

#[test]
fn a_listing_in_parts_has_every_lasting_flow_once() {
    let mut router = Router::sized(config(), 20_000);
    open(&mut router, 0..3_000);
    // Half of what is there when the walk begins will be gone before it ends.
    router.now += Duration::from_secs(40);
    open(&mut router, 3_000..6_000);
    let (mut from, mut seen, mut next) = (0, BTreeMap::new(), 6_000);
    while from < router.dataplane.flow_places() {
        let to = router.dataplane.flow_places().min(from + PART);
        for (flow, left) in router.dataplane.flows_in(from..to, router.now) {
            assert!(left <= Duration::from_secs(60), "{left} left of {flow:?}");
            *seen.entry(flow.original.source).or_insert(0) += 1;
        }
        from = to;
        router.now += Duration::from_secs(7);
        let Router { dataplane, table, now, .. } = &mut router;
        while dataplane.poll_timeout().is_some_and(|due| due <= *now) {
            dataplane.handle_timeout(table, *now);
        }
        open(&mut router, next..next + 500);
        next += 500;
    }
    assert!(router.flows().len() < next as usize - 2_000, "some have gone");
    for n in 3_000..6_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let client = std::net::Ipv4Addr::new(100, a, b, c);
        assert_eq!(seen.get(&client), Some(&1), "{client}");
    }
    assert!(seen.values().all(|times| *times == 1), "told twice");
    assert_eq!(router.dataplane.flows_in(usize::MAX - 1..usize::MAX, router.now).count(), 0);
}

use proptest::prelude::*;

use super::*;

/// Few of each, so that they meet.
const NETWORKS: u16 = 2;
const ADDRESSES: u8 = 12;
const MACS: u8 = 5;
/// Less than there are addresses: the cache forgets those in need of nobody.
const ROOM: usize = 9;

#[derive(Clone, Debug)]
enum Step {
    /// Frames go to a neighbour.
    Use(u16, u8),
    /// ARP about one, from a MAC; solicited or not.
    Heard(u16, u8, u8, bool),
    /// Another configuration pins these addresses of each network.
    Reload(Vec<u8>),
    /// So many milliseconds pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let heard = (0..NETWORKS, 0..ADDRESSES, 0..MACS, any::<bool>());
    prop_oneof![
        3 => (0..NETWORKS, 0..ADDRESSES).prop_map(|(network, n)| Step::Use(network, n)),
        6 => heard.prop_map(|(network, n, mac, solicited)| Step::Heard(network, n, mac, solicited)),
        1 => prop::collection::vec(0..ADDRESSES, 0..4).prop_map(Step::Reload),
        3 => (0_u64..40_000).prop_map(Step::Pass),
    ]
}

fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

/// Takes the step, doing what falls due on the way.
fn take(neighbours: &mut Neighbours, step: &Step, now: &mut Instant) {
    match step {
        Step::Use(network, n) => {
            let id = neighbours.find_or_add(NetworkId(*network), address(*n), *now);
            if let Some(id) = id {
                neighbours.mark_used(id, *now);
                neighbours.ask_now(id, *now);
            }
        }
        Step::Heard(network, n, from, solicited) => {
            let from = (mac(*from), LinkId(0));
            if let Some(id) = neighbours.find(NetworkId(*network), address(*n)) {
                neighbours.heard(id, from, *solicited, *now);
            }
        }
        Step::Reload(pinned) => {
            for (network, n) in (0..NETWORKS).flat_map(|on| (0..ADDRESSES).map(move |n| (on, n))) {
                if !pinned.contains(&n) {
                    neighbours.unpin(NetworkId(network), address(n));
                }
            }
            for network in (0..NETWORKS).map(NetworkId) {
                pinned.iter().for_each(|n| neighbours.pin(network, address(*n), *now));
            }
        }
        Step::Pass(millis) => {
            let end = *now + Duration::from_millis(*millis);
            while let Some(due) = neighbours.next_deadline().filter(|due| *due <= end) {
                *now = due.max(*now);
                while neighbours.next_due(*now).is_some() {}
            }
            *now = end;
        }
    }
}

proptest! {
    /// Looking a MAC up finds what reading the whole cache finds, and nobody who is not configured.
    #[test]
    fn configured_at_agrees_with_a_search(
        steps in prop::collection::vec(step(), 1..200),
        grows_at in 0_usize..300,
    ) {
        let mut now = Instant::from_secs(1_000);
        let mut neighbours = Neighbours::new(0, &[7; 16], now);
        neighbours.capacity = ROOM;
        for (at, step) in steps.into_iter().enumerate() {
            if at == grows_at {
                neighbours.reserve(1);
            }
            take(&mut neighbours, &step, &mut now);
            for network in (0..NETWORKS).map(NetworkId) {
                for mac in (0..MACS).map(mac) {
                    let is_here = |n: &&Neighbour| {
                        n.pinned && n.network == network && n.mac == mac
                    };
                    let mut here: Vec<_> = neighbours.iter().filter(is_here).collect();
                    here.sort_by_key(|neighbour| neighbour.address);
                    let here: Vec<_> = here.iter().map(|neighbour| neighbour.address).collect();
                    let hash = neighbours.hash_mac(network, mac);
                    let any = neighbours.configured_at(network, mac, hash, |_| true);
                    prop_assert_eq!(any.is_some(), !here.is_empty(), "after {:?}", step);
                    prop_assert!(any.is_none_or(|found| here.contains(&found)));
                    for n in 0..ADDRESSES {
                        let is_it = |it| it == address(n);
                        let found = neighbours.configured_at(network, mac, hash, is_it);
                        prop_assert_eq!(found.is_some(), here.contains(&address(n)), "{:?}", step);
                    }
                }
                for n in 0..ADDRESSES {
                    let is_it = |known: &Neighbour| {
                        (known.network, known.address) == (network, address(n))
                    };
                    let known = neighbours.iter().filter(|known| is_it(known)).count();
                    let found = neighbours.find(network, address(n));
                    prop_assert!(known <= 1, "twice in the cache");
                    prop_assert_eq!(found.is_some(), known == 1);
                    prop_assert!(found.is_none_or(|id| is_it(neighbours.get(id))));
                }
            }
            prop_assert!(neighbours.places() <= neighbours.capacity);
        }
        // What is not looked up any more is not left behind either.
        let filed = neighbours.iter().filter(|n| n.pinned && n.mac != MacAddr::ZERO).count();
        prop_assert_eq!(neighbours.by_mac.len(), filed);
        prop_assert_eq!(neighbours.index.len(), neighbours.iter().count());
    }
}

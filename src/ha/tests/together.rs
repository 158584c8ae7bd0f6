//! Two of them on two networks that carry everything at once, or not.

use super::*;

struct Pair {
    routers: [Ha; 2],
    /// Whether the first hears the second and the second the first, outside and inside.
    carries: [[bool; 2]; 2],
    now: Instant,
    told: [Vec<Event>; 2],
    /// Packets that were sent.
    sent: usize,
}

impl Pair {
    fn new(first: Settings, second: Settings) -> Self {
        Self {
            routers: [Ha::new(first, 1, at(0)), Ha::new(second, 2, at(0))],
            carries: [[true; 2]; 2],
            now: at(0),
            told: [Vec::new(), Vec::new()],
            sent: 0,
        }
    }

    fn exchange(&mut self) {
        let mut out = Vec::new();
        loop {
            let mut is_quiet = true;
            for from in 0..2 {
                self.told[from].extend(events(&mut self.routers[from]));
                while let Some(network) = self.routers[from].poll_transmit(&mut out) {
                    is_quiet = false;
                    self.sent += 1;
                    if self.carries[network.index()][1 - from] {
                        self.routers[1 - from].handle_packet(network, &out, self.now);
                    }
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn run(&mut self, until: Instant) {
        loop {
            self.exchange();
            let due = self.routers.iter().filter_map(Ha::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            for router in &mut self.routers {
                router.handle_timeout(self.now);
            }
        }
        self.now = until;
    }

    fn roles(&self) -> [Role; 2] {
        [self.routers[0].role(), self.routers[1].role()]
    }
}

const FIRST_IS: [Role; 2] = [Role::Active, Role::Backup];
const SECOND_IS: [Role; 2] = [Role::Backup, Role::Active];
const BOTH_ARE: [Role; 2] = [Role::Active, Role::Active];

#[test]
fn the_higher_priority_is_active_and_hands_over_within_the_skew() {
    let mut pair = Pair::new(settings(2, 200), settings(3, 199));
    pair.run(at(2_000));
    assert_eq!(pair.roles(), FIRST_IS);
    let now = pair.now;
    pair.routers[0].shut_down(now);
    pair.run(at(2_022));
    assert_eq!(pair.roles(), [Role::Backup; 2]);
    pair.run(at(2_023));
    assert_eq!(pair.roles(), SECOND_IS);
    assert_eq!(pair.routers[0].counters().sent_resigning, 2);
    let report = pair.routers[1].report();
    assert_eq!(report.reason, Reason::PeerResigned(Ipv4Addr::new(203, 0, 113, 2)));
    assert_eq!(report.since, Instant::from_micros(2_022_265));
    assert_eq!(report.history.len(), 2);
}

/// One network alone being cut changes nothing; when both were, one advert decides.
#[test]
fn two_that_were_cut_apart_settle_with_the_first_advert() {
    for (first, second, settled) in [(200, 100, FIRST_IS), (100, 100, SECOND_IS)] {
        let mut pair = Pair::new(settings(2, first), settings(3, second));
        pair.run(at(2_000));
        assert_eq!(pair.roles(), settled);
        for network in 0..2 {
            pair.carries[network] = [false; 2];
            pair.run(pair.now + INTERVAL * 10);
            let expected = if network == 0 { settled } else { BOTH_ARE };
            assert_eq!(pair.roles(), expected);
        }
        pair.told = [Vec::new(), Vec::new()];
        pair.carries[1] = [true; 2];
        pair.run(pair.now + INTERVAL * 10);
        assert_eq!(pair.roles(), BOTH_ARE, "the first network decides");
        pair.carries[0] = [true; 2];
        let sent = pair.sent;
        pair.run(pair.now + INTERVAL);
        assert_eq!(pair.roles(), settled);
        assert!(pair.sent - sent <= 8, "{} packets", pair.sent - sent);
        pair.run(pair.now + INTERVAL * 30);
        let survivor = usize::from(settled == SECOND_IS);
        assert_eq!(pair.told[survivor].last(), Some(&Event::ContentionEnded));
    }
}

/// A one-way cut leaves two active for as long as it lasts, without a storm.
#[test]
fn whoever_is_deaf_makes_no_storm() {
    let mut pair = Pair::new(settings(2, 200), settings(3, 100));
    pair.run(at(2_000));
    for network in 0..2 {
        pair.carries[network][1] = false;
    }
    pair.run(at(4_000));
    assert_eq!(pair.roles(), BOTH_ARE);
    let sent = pair.sent;
    pair.run(at(14_000));
    // 100 intervals, two networks, two routers, and an answer to each advert at most.
    assert!(pair.sent - sent <= 600, "{}", pair.sent - sent);
    for network in 0..2 {
        pair.carries[network][1] = true;
    }
    pair.run(at(14_200));
    assert_eq!(pair.roles(), FIRST_IS);
}

#[test]
fn a_link_that_fails_moves_everything_and_its_return_brings_it_back() {
    let mut pair = Pair::new(settings(2, 200), settings(3, 100));
    pair.run(at(2_000));
    pair.routers[0].handle_link(INSIDE, false, at(2_000));
    pair.run(at(2_061));
    assert_eq!(pair.roles(), SECOND_IS);
    assert_eq!(pair.routers[0].report().networks[1].state, PathState::Down);
    pair.routers[0].handle_link(INSIDE, true, at(2_061));
    pair.run(at(3_000));
    assert_eq!(pair.roles(), FIRST_IS);
}

#[test]
fn yielding_moves_the_role_and_resuming_moves_it_back() {
    let mut pair = Pair::new(settings(2, 200), settings(3, 100));
    pair.run(at(2_000));
    pair.routers[0].yield_role(at(2_000));
    pair.run(at(10_000));
    assert_eq!(pair.roles(), SECOND_IS);
    assert_eq!(pair.routers[0].report().priority, 1);
    pair.routers[0].resume(at(10_000));
    pair.run(at(11_000));
    assert_eq!(pair.roles(), FIRST_IS);
}

/// Without preempting the role stays where it is, whoever comes back.
#[test]
fn whoever_does_not_preempt_leaves_the_role() {
    let peaceful = |host, priority| Settings { preempt: false, ..settings(host, priority) };
    let mut pair = Pair::new(peaceful(2, 200), peaceful(3, 100));
    pair.run(at(2_000));
    pair.routers[0].yield_role(at(2_000));
    pair.run(at(3_000));
    pair.routers[0].resume(at(3_000));
    pair.run(at(10_000));
    assert_eq!(pair.roles(), SECOND_IS);
}

#[test]
fn both_with_a_fault_still_serve() {
    let mut pair = Pair::new(settings(2, 200), settings(3, 100));
    pair.run(at(2_000));
    for router in &mut pair.routers {
        router.handle_fault(Fault::Gateway(OUTSIDE), true, at(2_000));
    }
    pair.run(at(10_000));
    assert_eq!(pair.roles(), SECOND_IS);
    assert_eq!(pair.told[1].len(), 2 - 1, "it moved once: {:?}", pair.told[1]);
    for router in &mut pair.routers {
        router.handle_fault(Fault::Gateway(OUTSIDE), false, at(10_000));
    }
    pair.run(at(11_000));
    assert_eq!(pair.roles(), FIRST_IS);
}

#[test]
fn a_reload_changes_what_is_said_and_not_who_is_active() {
    let mut pair = Pair::new(settings(2, 200), settings(3, 100));
    pair.run(at(2_000));
    let mut more = settings(2, 200);
    more.networks[0].virtual_ips.push(Ipv4Addr::new(203, 0, 113, 11));
    pair.routers[0].configure(more, at(2_010));
    pair.now = at(2_010);
    pair.run(at(2_010));
    assert!(pair.told[1].contains(&Event::AddressesMismatch {
        network: OUTSIDE,
        from: Ipv4Addr::new(203, 0, 113, 2),
    }));
    pair.run(at(5_000));
    assert_eq!(pair.roles(), FIRST_IS);
    assert_eq!(pair.routers[0].report().history.len(), 2, "started, active");
}

//! What happens to a network of switches besides bad wires, and when.

use tapvs::time::Duration;

use crate::station::Station;
use crate::support::random::Random;
use crate::support::{VIP, is_at, who_has};

/// Something that happens at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// A server is plugged in somewhere else, and may say so.
    Move { server: usize, link: usize, says_so: bool },
    /// Nothing passes between the router and the switch of a link, in these directions.
    Cut { link: usize, to_router: bool, from_router: bool },
    /// The link is whole again.
    Mend(usize),
    /// A cable between the switches of the servers' links.
    Cable(bool),
    /// Another configuration is taken into use.
    Reload,
    /// A server says something about the virtual IP.
    Leak { server: usize, leak: Leak },
}

/// How a server speaks for the virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leak {
    Announces,
    AnnouncesAsReply,
    /// Looks for somebody, by number, in its name.
    Asks(usize),
    /// Answers somebody who has not asked, by number.
    Answers(usize),
    /// Makes sure that nobody else has it (RFC 5227).
    Probes,
}

impl Leak {
    /// What a server that leaks to `host` sends.
    pub(crate) fn frame(self, server: &Station, hosts: &[Station]) -> Vec<u8> {
        let mac = server.mac;
        match self {
            Self::Announces => who_has(VIP, VIP, mac),
            Self::AnnouncesAsReply => who_has(VIP, VIP, mac).with(|arp| arp.operation = 2),
            Self::Asks(host) => who_has(hosts[host].address(), VIP, mac),
            Self::Answers(host) => is_at(VIP, mac, hosts[host].mac, hosts[host].address()),
            Self::Probes => who_has(VIP, "0.0.0.0".parse().unwrap(), mac),
        }
        .frame()
    }

    fn any(random: &mut Random, stations: usize) -> Self {
        match random.below(5) {
            0 => Self::Announces,
            1 => Self::AnnouncesAsReply,
            2 => Self::Asks(random.below(stations)),
            3 => Self::Answers(random.below(stations)),
            _ => Self::Probes,
        }
    }
}

/// What happens when, soonest first, in a network of `servers` stations that are servers and
/// `stations` in all.
pub(crate) fn of(seed: u64, servers: usize, stations: usize) -> Vec<(Duration, Trouble)> {
    let mut random = Random::new(seed ^ 0x7b0b);
    let mut plan = Vec::new();
    let mut at = 1_500;
    while at < 22_000 {
        let lasts = 50 + random.below(4_000);
        at += random.below(3_000);
        let link = random.below(3);
        match random.below(7) {
            0 => {
                let (server, link) = (random.below(servers), 1 + random.below(2));
                let says_so = random.percent(50);
                plan.push((at, Trouble::Move { server, link, says_so }));
            }
            1 | 2 => {
                let (to_router, from_router) =
                    *random.pick(&[(true, true), (true, false), (false, true)]);
                plan.push((at, Trouble::Cut { link, to_router, from_router }));
                at += lasts;
                plan.push((at, Trouble::Mend(link)));
            }
            3 if seed % 3 == 1 => {
                plan.push((at, Trouble::Cable(true)));
                at += lasts;
                plan.push((at, Trouble::Cable(false)));
            }
            _ => plan.push((at, Trouble::Reload)),
        }
        if seed.is_multiple_of(10) {
            // Nothing but servers that talk.
            plan.clear();
        }
    }
    let mut said = 1_000;
    while said < 40_000 {
        let (server, leak) = (random.below(servers), Leak::any(&mut random, stations));
        plan.push((said, Trouble::Leak { server, leak }));
        said += 50 + random.below(1_500);
    }
    plan.sort_by_key(|(at, _)| *at);
    plan.into_iter().map(|(at, trouble)| (Duration::from_millis(at as u64), trouble)).collect()
}

/// Leaks alone, so far apart that the hosts they mislead may be told about each of them.
pub(crate) fn leaks(seed: u64, servers: usize, stations: usize) -> Vec<(Duration, Trouble)> {
    let mut random = Random::new(seed ^ 0x1eac);
    let mut plan = Vec::new();
    let mut at = 12_000;
    while at < 120_000 {
        let (server, leak) = (random.below(servers), Leak::any(&mut random, stations));
        plan.push((Duration::from_millis(at as u64), Trouble::Leak { server, leak }));
        at += 10_500 + random.below(8_000);
    }
    plan
}

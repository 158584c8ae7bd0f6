//! The pair by its packets: who is listened to, who is believed, and two of them together.

mod believed;
mod listened;
mod together;

use std::net::Ipv4Addr;

use super::*;
use crate::config::VrrpVersion;
use crate::time::Duration;

const INSIDE: NetworkId = NetworkId(1);
const OUTSIDE: NetworkId = NetworkId(0);
const INTERVAL: Duration = Duration::from_millis(100);

fn at(millis: i64) -> Instant {
    Instant::from_millis(millis)
}

/// 203.0.113.`host` outside with id 51, 10.0.0.`host` inside with id 52.
fn settings(host: u8, priority: u8) -> Settings {
    let member = |network, prefix: [u8; 3], virtual_router_id, shared: u8| {
        let [a, b, c] = prefix;
        Member {
            network,
            address: Ipv4Addr::new(a, b, c, host),
            virtual_router_id,
            virtual_ips: vec![Ipv4Addr::new(a, b, c, shared)],
            peers: Vec::new(),
        }
    };
    Settings {
        version: VrrpVersion::V3,
        priority,
        advert_interval: INTERVAL,
        preempt: true,
        preempt_delay: Duration::ZERO,
        checksum: AdvertChecksum::PseudoHeader,
        networks: vec![member(OUTSIDE, [203, 0, 113], 51, 10), member(INSIDE, [10, 0, 0], 52, 1)],
        key: None,
        waits_for_sync: None,
    }
}

/// Everything that is to be sent.
fn sent(ha: &mut Ha) -> Vec<(NetworkId, Vec<u8>)> {
    let mut out = Vec::new();
    std::iter::from_fn(|| ha.poll_transmit(&mut out).map(|network| (network, out.clone())))
        .collect()
}

fn events(ha: &mut Ha) -> Vec<Event> {
    std::iter::from_fn(|| ha.poll_event()).collect()
}

/// One that is active at `now`, having taken what it sends then.
fn active(settings: Settings, seed: u64, now: Instant) -> (Ha, Vec<(NetworkId, Vec<u8>)>) {
    let mut ha = Ha::new(settings, seed, now - Duration::from_secs(60));
    while ha.role() == Role::Backup {
        let due = ha.poll_timeout().unwrap();
        ha.handle_timeout(due);
    }
    sent(&mut ha);
    events(&mut ha);
    ha.handle_timeout(now);
    let adverts = sent(&mut ha);
    while ha.poll_timeout().is_some_and(|due| due <= now + INTERVAL / 2) {
        ha.handle_timeout(now + INTERVAL / 2);
    }
    events(&mut ha);
    (ha, adverts)
}

/// What `settings` would send on `network`, with priority and interval of its own.
fn advert(settings: &Settings, network: NetworkId) -> Vec<u8> {
    let member = settings.networks.iter().find(|member| member.network == network).unwrap();
    let mut out = Vec::new();
    let draft = Draft {
        version: settings.version,
        checksum: settings.checksum,
        source: member.address,
        virtual_router_id: member.virtual_router_id,
        priority: settings.priority,
        interval: settings.advert_interval,
        addresses: &member.virtual_ips,
    };
    draft.write(0, &mut out);
    out
}

//! `[failover]`: which routers share the virtual IPs, how they talk about it, and where flows are
//! copied to.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::addressing::Addressing;
use super::duration;
use super::mistake::quote;
use super::model::{Attach, AttachMode, Network, VirtualIp};
use super::section::{At, Place, Section, Value, one_of};
use crate::addr::MacAddr;
use crate::time::Duration;

/// `[failover]`: one role for the whole router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Which adverts are sent and believed.
    pub version: VrrpVersion,
    /// 1 to 255; the higher one is active. 255 takes over without waiting.
    pub priority: u8,
    /// From one advert to the next: 10 ms to 40.95 s; by version 2, 1 s to 255 s in whole seconds.
    pub advert_interval: Duration,
    /// Whether it takes over from an active router of lower priority.
    pub preempt: bool,
    /// How long it has to have been well before it does: 0 to 1 h.
    pub preempt_delay: Duration,
    /// What the checksum of an advert by version 3 that is sent covers; either is accepted.
    pub checksum: AdvertChecksum,
    /// In file order, at least one; adverts on the first one break ties.
    pub networks: Vec<FailoverNetwork>,
    /// `[failover.sync]`; `None`: flows are not copied, and end in a failover.
    pub sync: Option<FlowSync>,
}

/// `[[failover.network]]`: adverts run on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverNetwork {
    /// Position of the network.
    pub network: usize,
    /// 1 to 255: the routers that share the virtual IPs of this network.
    pub virtual_router_id: u8,
    /// The role is given up while the network's gateway does not answer.
    pub track_gateway: bool,
    /// The other routers' own addresses there, whose adverts alone are believed; none: whoever sends
    /// some is.
    pub peers: Vec<Ipv4Addr>,
}

/// `[failover.sync]`: where flows are copied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSync {
    /// Position of the network that they are copied over.
    pub network: usize,
    /// The other router's own address there.
    pub peer: Ipv4Addr,
    /// The UDP port of both.
    pub port: u16,
    /// What both prove to each other that they know.
    pub key: SyncKey,
    /// How long a takeover from a living peer waits for its flows: 0 to 1 h.
    pub sync_timeout: Duration,
    /// Adverts too are signed with the key, and believed only then.
    pub authenticate_adverts: bool,
}

/// Which VRRP adverts are sent and believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpVersion {
    /// RFC 3768.
    V2,
    /// RFC 9568.
    V3,
}

/// What the checksum of an IPv4 advert by version 3 covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdvertChecksum {
    /// A pseudo-header too, as keepalived has it.
    PseudoHeader,
    /// The message alone (RFC 9568 section 5.2.8).
    Message,
}

/// 32 secret bytes, or the file that has them. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum SyncKey {
    /// `key`.
    Bytes([u8; 32]),
    /// `key_file`: 64 hex digits.
    File(PathBuf),
}

impl fmt::Debug for SyncKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(_) => f.write_str("Bytes(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl SyncKey {
    /// Reads 64 hex digits, as in `key` and in a `key_file`; `None` when it is anything else.
    pub fn parse(text: &str) -> Option<[u8; 32]> {
        let digits = text.as_bytes();
        let mut key = [0; 32];
        if digits.len() != 2 * key.len() {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(key)
    }
}

/// The MAC that the routers with this id share (RFC 9568 section 7.3).
pub const fn virtual_mac(virtual_router_id: u8) -> MacAddr {
    MacAddr([0, 0, 0x5e, 0, 1, virtual_router_id])
}

/// Reads `[failover]`, if it is there.
pub(super) fn read(
    root: &mut Section<'_>,
    networks: &[Network],
    virtual_ips: &[VirtualIp],
    known: &Addressing,
) -> Option<Failover> {
    let mut section = root.get("failover")?.section()?;
    let place = section.place.clone();
    let version = section.get("version").and_then(version).unwrap_or(VrrpVersion::V3);
    let priority = section.get("priority").and_then(|value| value.integer(1..=255));
    let interval = section.get("advert_interval").and_then(|value| interval(value, version));
    let preempt = section.get("preempt").and_then(Value::boolean);
    let delay = section.get("preempt_delay").and_then(|value| value.parse(DELAY, delay));
    let checksum = section.get("checksum").and_then(|value| {
        let value = value.choice(&CHECKSUMS, &[])?;
        value.check(|_| match version {
            VrrpVersion::V3 => Ok(()),
            VrrpVersion::V2 => Err("is for version 3; version 2 has one form; leave it out".into()),
        })
    });
    let parts = section.sections("network");
    if parts.is_empty() {
        section.missing("network", "a [[failover.network]] section, at least one");
    }
    let mut taken = Taken::default();
    let mut lost = parts.is_empty();
    let mut members = Vec::new();
    for part in parts {
        match network(part, networks, known, &mut taken) {
            Some(member) => members.push(member),
            None => lost = true,
        }
    }
    if !lost {
        covers(&place, &members, networks, virtual_ips);
    }
    let sync = section.get("sync").and_then(Value::section);
    let sync = sync.map(|section| flow_sync(section, networks, known));
    section.finish();
    let default = match version {
        VrrpVersion::V2 => Duration::from_secs(1),
        VrrpVersion::V3 => Duration::from_millis(100),
    };
    Some(Failover {
        version,
        priority: priority.map_or(100, |at| at.value),
        advert_interval: interval.unwrap_or(default),
        preempt: preempt.is_none_or(|at| at.value),
        preempt_delay: delay.map_or(Duration::ZERO, |at| at.value),
        checksum: checksum.map_or(AdvertChecksum::PseudoHeader, |at| at.value),
        networks: members,
        sync: sync.flatten(),
    })
}

/// A virtual IP without adverts beside it would stay behind when the others move.
fn covers(
    place: &Place<'_>,
    members: &[FailoverNetwork],
    networks: &[Network],
    virtual_ips: &[VirtualIp],
) {
    for (position, network) in networks.iter().enumerate() {
        let left_out = !members.iter().any(|member| member.network == position);
        let first = virtual_ips.iter().find(|vip| vip.network == position);
        if let Some(vip) = first.filter(|_| left_out) {
            place.wrong(format_args!(
                "{} floats on the network {}, which has no [[failover.network]]; add one",
                vip.address,
                quote(&network.name)
            ));
        }
    }
}

fn version(value: Value<'_>) -> Option<VrrpVersion> {
    let number = value.integer::<u8>(2..=3)?;
    Some(if number.value == 2 { VrrpVersion::V2 } else { VrrpVersion::V3 })
}

const CHECKSUMS: [(&str, AdvertChecksum); 2] =
    [("pseudo-header", AdvertChecksum::PseudoHeader), ("message", AdvertChecksum::Message)];

/// Version 3 counts hundredths of a second in 12 bits, version 2 seconds in 8.
fn interval(value: Value<'_>, version: VrrpVersion) -> Option<Duration> {
    let (form, least, most, step) = match version {
        VrrpVersion::V3 => ("10ms to 40950ms in steps of 10ms, such as \"100ms\"", 10, 40_950, 10),
        VrrpVersion::V2 => (
            "1s to 255s in whole seconds, which is all that version 2 can say",
            1_000,
            255_000,
            1_000,
        ),
    };
    let interval = value.parse(form, |text| {
        duration::parse(text).filter(|interval| {
            let millis = interval.total_millis();
            (least..=most).contains(&millis) && millis.is_multiple_of(step)
        })
    });
    interval.map(|at| at.value)
}

const DELAY: &str = "0ms to 1h, as a whole number with the unit ms, s, m or h, such as \"60s\"";

fn delay(text: &str) -> Option<Duration> {
    duration::parse(text).filter(|delay| *delay <= Duration::from_secs(3_600))
}

/// What only one `[[failover.network]]` may have.
#[derive(Default)]
struct Taken {
    networks: HashSet<usize>,
}

fn network(
    mut section: Section<'_>,
    networks: &[Network],
    known: &Addressing,
    taken: &mut Taken,
) -> Option<FailoverNetwork> {
    let network = named(&mut section, "the name of a network that adverts run on", networks, known);
    let id = section
        .require("virtual_router_id", "a number from 1 to 255 that both routers have")
        .and_then(|value| value.integer(1..=255));
    let track = section.get("track_gateway").and_then(Value::boolean);
    let track = track.and_then(|track| {
        let position = network.as_ref().map(|at| at.value);
        track.check(|track| {
            let has = position.and_then(|position| networks.get(position));
            match has {
                Some(network) if *track && network.gateway.is_none() => Err(format!(
                    "the network {} has no gateway; give it one or leave this out",
                    quote(&network.name)
                )),
                _ => Ok(()),
            }
        })
    });
    let within = network.as_ref().and_then(|at| networks.get(at.value));
    let peers = section.get("peers").and_then(|value| peers(value, within, known));
    section.finish();
    let network = network?.check(|position| {
        if !taken.networks.insert(*position) {
            return Err("is listed twice; list each network once".into());
        }
        // Virtual IPs have a MAC address of their own in a pair.
        let mut links = networks.get(*position).into_iter().flat_map(|network| &network.links);
        let macvtap = |attach: &Attach| attach.mode == AttachMode::Macvtap;
        if links.any(|link| link.attach.as_ref().is_some_and(macvtap)) {
            return Err(
                "has a link with macvtap, which passes no MAC but the NIC's; a pair needs \
                        mode = \"bridge\""
                    .into(),
            );
        }
        Ok(())
    });
    Some(FailoverNetwork {
        network: network?.value,
        virtual_router_id: id?.value,
        track_gateway: track.is_some_and(|at| at.value),
        peers: peers.unwrap_or_default(),
    })
}

/// Every other router of the virtual router: one that is left out is not heard.
fn peers(value: Value<'_>, within: Option<&Network>, known: &Addressing) -> Option<Vec<Ipv4Addr>> {
    let place = value.place.clone();
    let values = value.list("a list of addresses, such as [\"203.0.113.3\"]")?;
    if values.is_empty() {
        place.wrong("is empty; name the other router's own address, or leave this out");
    }
    let peer = |value| another_router(value, within, known).map(|at| at.value);
    Some(values.into_iter().filter_map(peer).collect())
}

/// The other router's own address in the network `within`.
fn another_router<'a>(
    value: Value<'a>,
    within: Option<&Network>,
    known: &Addressing,
) -> Option<At<'a, Ipv4Addr>> {
    value.host_address("peers")?.check(|peer| {
        known.is_someone_else(*peer)?;
        known.is_host(*peer)?;
        let Some(network) = within else { return Ok(()) };
        if network.addresses.iter().any(|own| own.contains((*peer).into())) {
            return Ok(());
        }
        Err(format!(
            "{peer} lies outside the prefixes of the network {}; name the other router's own address there",
            quote(&network.name)
        ))
    })
}

/// The position of the network that the key `network` names.
fn named<'a>(
    section: &mut Section<'a>,
    what: &str,
    networks: &[Network],
    known: &Addressing,
) -> Option<At<'a, usize>> {
    let name = section.require("network", what)?.text("the name of a network")?;
    let position = networks.iter().position(|network| network.name == name.value);
    if position.is_none() && !known.lost_network {
        const SHOWN: usize = 10;
        let names = networks.iter().map(|network| network.name.as_str()).take(SHOWN);
        let found = quote(name.value);
        name.place.wrong(format_args!("{found} is not a network; expected {}", one_of(names)));
    }
    Some(At { value: position?, place: name.place })
}

fn flow_sync(
    mut section: Section<'_>,
    networks: &[Network],
    known: &Addressing,
) -> Option<FlowSync> {
    let network =
        named(&mut section, "the name of a network that both routers are in", networks, known);
    let peer = section
        .require("peer", "the other router's own address there, such as \"10.0.0.3\"")
        .and_then(|value| {
            let within = network.as_ref().and_then(|at| networks.get(at.value));
            another_router(value, within, known)
        });
    let port = section.get("port").and_then(|value| value.integer(1..=65_535));
    let key = key(&mut section);
    let timeout = section.get("sync_timeout").and_then(|value| value.parse(DELAY, delay));
    let authenticate = section.get("authenticate_adverts").and_then(Value::boolean);
    section.finish();
    Some(FlowSync {
        network: network?.value,
        peer: peer?.value,
        port: port.map_or(PORT, |at| at.value),
        key: key?,
        sync_timeout: timeout.map_or(Duration::from_secs(30), |at| at.value),
        authenticate_adverts: authenticate.is_some_and(|at| at.value),
    })
}

/// The port that IPVS copies its connections by.
const PORT: u16 = 8_848;

fn key(section: &mut Section<'_>) -> Option<SyncKey> {
    let inline = section.get("key");
    let file = section.get("key_file");
    match (inline, file) {
        (Some(_), Some(file)) => {
            file.place.wrong("comes beside key; keep one of the two");
            None
        }
        (Some(value), None) => {
            // What was found is a secret, or nearly: it is not repeated.
            let key = value.as_text().and_then(SyncKey::parse);
            if key.is_none() {
                value.place.wrong(
                    "is not a key; expected 64 hex digits, such as `openssl rand -hex 32` prints",
                );
            }
            key.map(SyncKey::Bytes)
        }
        (None, Some(value)) => {
            let form = "an absolute path, such as \"/etc/tapvs/sync.key\"";
            let path = value.parse(form, |text| {
                let names_a_file =
                    text.starts_with('/') && !text.ends_with('/') && !text.contains('\0');
                names_a_file.then(|| PathBuf::from(text))
            });
            path.map(|at| SyncKey::File(at.value))
        }
        (None, None) => {
            section.missing("key", "64 hex digits that both routers have, or key_file");
            None
        }
    }
}

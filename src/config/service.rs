//! `[[service]]` and `[[service.server]]`: what is balanced, how, and between whom.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::addressing::Addressing;
use super::front::{Front, Identity, Taken};
use super::lifecycle::{self, Kind};
use super::model::{
    FlowLimits, Group, Health, Member, Method, OnDown, Scheduler, Server, Service, Timeouts,
};
use super::section::{At, Place, Section, Value};
use super::{LABEL, balance, health, label, take};
use crate::addr::{Endpoint, Proto};
use crate::time::Duration;

/// Reads every `[[service]]`. What they do not say of timeouts is as `router` has it.
pub(super) fn read(root: &mut Section<'_>, known: &Addressing, router: Timeouts) -> Vec<Service> {
    let mut reader = Reader {
        known,
        router,
        names: HashSet::new(),
        taken: Taken::default(),
        intervals: BTreeSet::new(),
        groups: HashMap::new(),
        services: Vec::new(),
        one_packet: Vec::new(),
    };
    for section in root.sections("service") {
        reader.section(section);
    }
    for (at, place) in reader.one_packet {
        let mut fronts = reader.services[at].fronts();
        if fronts.all(|(protocol, ..)| protocol != Proto::Udp) {
            place.wrong("is for UDP: a TCP connection is more than one packet; leave it out");
        }
    }
    reader.services
}

struct Reader<'k, 'a> {
    known: &'k Addressing,
    router: Timeouts,
    names: HashSet<String>,
    taken: Taken,
    /// From one health check to the next, of all services.
    intervals: BTreeSet<Duration>,
    /// By what they are called.
    groups: HashMap<String, Leader>,
    services: Vec<Service>,
    /// Services by position, with where they ask for it.
    one_packet: Vec<(usize, Place<'a>)>,
}

/// The first service of a group.
#[derive(Clone, Copy, Debug)]
struct Leader {
    /// Its position; `None` where it is wrong.
    position: Option<usize>,
    is_persistent: bool,
    /// Whether its flows may be given to another server.
    may_reschedule: bool,
}

impl<'a> Reader<'_, 'a> {
    fn section(&mut self, mut section: Section<'a>) {
        let front = Front::read(&mut section, self.known);
        let group = section.get("group").map(|value| value.parse(LABEL, label));
        // A name that is wrong makes nobody a leader.
        let group = match group {
            None => None,
            Some(None) => return section.abandon(),
            Some(Some(group)) => Some(group.value),
        };
        match group.as_ref().and_then(|name| self.groups.get(name)).copied() {
            Some(leader) => self.member(section, &front, leader),
            None => self.service(section, front, group),
        }
    }

    /// A service that is one with another one before.
    fn member(&mut self, mut section: Section<'a>, front: &Front<'a>, leader: Leader) {
        for key in OF_LEADER {
            section.stray(key, "is said by the first service of the group, for all of them");
        }
        if let Some(ports) = &front.ports
            && ports.value.is_all()
            && !leader.is_persistent
        {
            ports.place.wrong(
                "0 stands for all ports, which takes persistence: add it to the first service of the \
                 group, or name a port or a range",
            );
        }
        if let Some(protocol) = &front.protocol
            && protocol.value == Proto::Tcp
            && leader.may_reschedule
        {
            protocol.place.wrong(
                "the group's on_down is \"reschedule\", which is for UDP; give the TCP service servers \
                 of its own",
            );
        }
        let place = section.place.clone();
        section.finish();
        let Some(identity) = front.identity() else { return };
        let Some(name) = self.identify(front, identity, place) else { return };
        let Identity { protocol, ports, .. } = identity;
        let service = leader.position.and_then(|at| self.services.get_mut(at));
        if let Some(group) = service.and_then(|service| service.group.as_mut()) {
            let address = identity.address();
            group.members.push(Member { name, protocol, address, ports });
        }
    }

    /// The name of what is found by `identity`, which nobody else has.
    fn identify(
        &mut self,
        front: &Front<'a>,
        identity: Identity,
        place: Place<'a>,
    ) -> Option<String> {
        if !self.taken.take(identity, &place) {
            return None;
        }
        let name = match &front.name {
            Some(name) => name.clone()?,
            None => At { value: identity.label(), place },
        };
        Some(name.check(|name| take(&mut self.names, name, UNIQUE))?.value)
    }

    fn service(&mut self, mut section: Section<'a>, front: Front<'a>, group: Option<String>) {
        let position = self.services.len();
        let read = balance::read(&mut section, &front, self.router);
        let is_persistent = read.balance.persistence.is_some();
        let name = group.clone();
        let service = self.whole_service(section, &front, read, group, position);
        if let Some(name) = name {
            let may_reschedule =
                service.as_ref().is_some_and(|s| s.lifecycle.on_down == OnDown::Reschedule);
            let position = service.is_some().then_some(position);
            self.groups.insert(name, Leader { position, is_persistent, may_reschedule });
        }
        self.services.extend(service);
    }

    fn whole_service(
        &mut self,
        mut section: Section<'a>,
        front: &Front<'a>,
        read: balance::Read<'a>,
        group: Option<String>,
        position: usize,
    ) -> Option<Service> {
        let balance::Read { scheduler, balance, one_packet } = read;
        let method = section.get("method").and_then(|value| value.choice(&METHODS, &["tunnel"]));
        let method = method.map_or(Method::Nat, |method| method.value);
        let protocol = front.protocol.as_ref().map(|at| at.value);
        let health = section.get("health").map(|value| {
            let socket =
                |Identity { address, ports, .. }| SocketAddr::new(address.into(), ports.first);
            let asked = health::Service { protocol, address: front.identity().map(socket), method };
            self.health(value, asked)
        });
        let kind = Kind { protocol, method, scheduler, is_checked: health.is_some() };
        let lifecycle = lifecycle::read(&mut section, kind);
        // The port that servers listen at unless they say otherwise.
        let port = front.ports.as_ref().map(|ports| ports.value);
        let port =
            port.map(|ports| if group.is_none() && ports.is_one() { ports.first } else { 0 });
        let mut servers =
            Servers { known: self.known, method, names: HashSet::new(), taken: HashSet::new() };
        let listed: Vec<_> = section.sections("server");
        if scheduler == Scheduler::Maglev && listed.len() > MOST_OF_MAGLEV {
            section.place.wrong(format_args!(
                "has {} servers; \"mh\" shares clients out among {MOST_OF_MAGLEV} at most: use another \
                 scheduler",
                listed.len()
            ));
        }
        let listed =
            listed.into_iter().filter_map(|section| servers.server(section, port)).collect();
        let fallback = section
            .get("fallback")
            .and_then(Value::section)
            .and_then(|section| servers.fallback(section, port));
        let place = section.place.clone();
        section.finish();

        let identity = front.identity()?;
        let name = self.identify(front, identity, place)?;
        let Identity { protocol, ports, .. } = identity;
        self.one_packet.extend(one_packet.map(|place| (position, place)));
        Some(Service {
            name,
            protocol,
            address: identity.address(),
            port: ports.first,
            last_port: (!ports.is_one() && !ports.is_all()).then_some(ports.last),
            group: group.map(|name| Group { name, members: Vec::new() }),
            method,
            scheduler,
            balance,
            health: health.flatten().map(Arc::new),
            servers: listed,
            fallback,
            lifecycle,
        })
    }

    fn health(&mut self, value: Value<'_>, service: health::Service) -> Option<Health> {
        const MOST: usize = health::MOST_INTERVALS;
        let place = value.place.clone();
        let health = health::read(value, service)?;
        if self.intervals.len() == MOST && !self.intervals.contains(&health.interval) {
            place.wrong(format_args!(
                "has one interval more than the {MOST} of the services before; use one of theirs"
            ));
            return None;
        }
        self.intervals.insert(health.interval);
        Some(health)
    }
}

/// What a server is known by. A name that was given may have been wrong.
struct Written<'a> {
    #[expect(clippy::option_option, reason = "not given is no mistake")]
    name: Option<Option<At<'a, String>>>,
    endpoint: Option<At<'a, Endpoint>>,
}

/// The servers of one service.
struct Servers<'k> {
    known: &'k Addressing,
    method: Method,
    names: HashSet<String>,
    taken: HashSet<Endpoint>,
}

impl Servers<'_> {
    fn server(&mut self, mut section: Section<'_>, service_port: Option<u16>) -> Option<Server> {
        let read = self.identity(&mut section, service_port);
        let weight = section.get("weight").and_then(|value| value.integer(0..=65_535));
        let limits = limits(&mut section);
        self.conclude(section, read, weight.map_or(1, |at| at.value), limits)
    }

    /// It shares nothing with anybody, so it has no weight to be told.
    fn fallback(&mut self, mut section: Section<'_>, service_port: Option<u16>) -> Option<Server> {
        let read = self.identity(&mut section, service_port);
        self.conclude(section, read, 1, FlowLimits::default())
    }

    fn identity<'a>(&self, section: &mut Section<'a>, service_port: Option<u16>) -> Written<'a> {
        let name = section.get("name").map(|value| value.parse(LABEL, label));
        let address = section
            .require("address", "the real server's address")
            .and_then(|value| value.host_address("servers"))
            .and_then(|address| address.check(|address| self.is_real_server(*address)));
        let port = match section.get("port") {
            Some(value) => port(value)
                .and_then(|port| port.check(|port| self.is_possible(*port, service_port)))
                .map(|port| port.value),
            None => service_port,
        };
        let endpoint = address.zip(port).map(|(address, port)| At {
            value: Endpoint { address: address.value.into(), port },
            place: address.place,
        });
        Written { name, endpoint }
    }

    fn conclude(
        &mut self,
        section: Section<'_>,
        Written { name, endpoint }: Written<'_>,
        weight: u16,
        limits: FlowLimits,
    ) -> Option<Server> {
        let place = section.place.clone();
        section.finish();
        let endpoint = endpoint.map(|endpoint| {
            endpoint.check(|endpoint| match self.taken.insert(*endpoint) {
                true => Ok(()),
                false => Err(format!("{endpoint} is a server of this service already; keep one")),
            })
        });
        let name = match name {
            Some(name) => name?,
            None => At { value: endpoint_label(endpoint.clone()??.value), place },
        };
        let name = name.check(|name| take(&mut self.names, name, UNIQUE))?.value;
        Some(Server { name, endpoint: endpoint??.value, weight, limits })
    }

    fn is_real_server(&self, address: Ipv4Addr) -> Result<(), String> {
        self.known.is_host(address)?;
        self.known.is_someone_else(address)?;
        if self.known.lost_route {
            return Ok(());
        }
        if self.method == Method::Direct && self.known.network_of(address).is_none() {
            return Err(format!(
                "{address} is in no connected network; direct routing reaches a server by its MAC: \
                 put it inside a network's prefix, or use method = \"nat\""
            ));
        }
        if self.known.is_reachable(address) {
            return Ok(());
        }
        Err(format!(
            "{address} cannot be reached; put it inside a network's prefix, or add a [[route]] to it"
        ))
    }

    /// Direct routing leaves the packet as the client sent it.
    fn is_possible(&self, port: u16, service_port: Option<u16>) -> Result<(), String> {
        match service_port {
            Some(0) if self.method == Method::Direct => Err(
                "direct routing leaves the packet as the client sent it; leave the port out, or use \
                 method = \"nat\""
                    .to_owned(),
            ),
            Some(service) if self.method == Method::Direct && port != service => Err(format!(
                "{port} is not the service's port {service}; direct routing does not change ports: \
                 leave it out, or use method = \"nat\""
            )),
            _ => Ok(()),
        }
    }
}

fn port(value: Value<'_>) -> Option<At<'_, u16>> {
    value.integer(1..=65_535)
}

/// What a server is called where nobody says.
fn endpoint_label(endpoint: Endpoint) -> String {
    match endpoint.port {
        0 => endpoint.address.to_string(),
        _ => endpoint.to_string(),
    }
}

fn limits(section: &mut Section<'_>) -> FlowLimits {
    let max = section.get("max_flows").and_then(|value| value.integer(0..=MOST_FLOWS));
    let min = section.get("min_flows").and_then(|value| value.integer::<u32>(0..=MOST_FLOWS));
    let max = max.map_or(0, |at| at.value);
    let min = min.and_then(|at| {
        at.check(|min| match (*min, max) {
            (0, _) => Ok(()),
            (_, 0) => {
                Err("says when a server that was full takes flows again; add max_flows".into())
            }
            (min, max) if min > max => Err(format!(
                "{min} is more than max_flows, {max}; it is where flows are taken again"
            )),
            _ => Ok(()),
        })
    });
    FlowLimits { max, min: min.map_or(0, |at| at.value) }
}

const UNIQUE: &str = "use a name that no other one has";

const METHODS: [(&str, Method); 2] = [("nat", Method::Nat), ("direct", Method::Direct)];

/// As many flows as a table can hold.
const MOST_FLOWS: i64 = 16_000_000;

/// One slot of the table for each (`ip_vs_mh.c`).
const MOST_OF_MAGLEV: usize = 4_093;

/// What the first service of a group says for all of them.
const OF_LEADER: [&str; 18] = [
    "method",
    "scheduler",
    "scheduler_flags",
    "persistence",
    "expire_quiescent",
    "one_packet",
    "timeouts",
    "udp_timeout",
    "helper",
    "health",
    "on_remove",
    "drain_timeout",
    "on_down",
    "slow_start",
    "passive_health",
    "min_healthy",
    "server",
    "fallback",
];

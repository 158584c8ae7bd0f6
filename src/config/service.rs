//! `[[service]]` and `[[service.server]]`: what is balanced, how, and between whom.

use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::addressing::Addressing;
use super::lifecycle::{self, Kind};
use super::model::{Health, Method, Scheduler, Server, Service};
use super::section::{At, Section, Value};
use super::{LABEL, health, label, take};
use crate::addr::{Endpoint, Proto};
use crate::time::Duration;

/// Reads every `[[service]]`.
pub(super) fn read(root: &mut Section<'_>, known: &Addressing) -> Vec<Service> {
    let (names, taken) = (HashSet::new(), HashSet::new());
    let mut reader = Reader { known, names, taken, intervals: BTreeSet::new() };
    let services = root.sections("service").into_iter();
    services.filter_map(|section| reader.service(section)).collect()
}

struct Reader<'k> {
    known: &'k Addressing,
    names: HashSet<String>,
    taken: HashSet<(Proto, Endpoint)>,
    /// From one health check to the next, of all services.
    intervals: BTreeSet<Duration>,
}

impl Reader<'_> {
    fn service(&mut self, mut section: Section<'_>) -> Option<Service> {
        let name = section.get("name").map(|value| value.parse(LABEL, label));
        let protocol = section
            .require("protocol", "\"tcp\" or \"udp\"")
            .and_then(|value| value.choice(&PROTOCOLS, &[]));
        let address = section
            .require("address", "the virtual IP that clients use")
            .and_then(|value| value.host_address("services"));
        if let Some(address) = &address {
            let _ = address.clone().check(|address| self.is_virtual_ip(*address));
        }
        let port = section.require("port", "the port that clients use").and_then(port);
        let method = section.get("method").and_then(|value| value.choice(&METHODS, &["tunnel"]));
        let method = method.map_or(Method::Nat, |method| method.value);
        let scheduler =
            section.get("scheduler").and_then(|value| value.choice(&SCHEDULERS, &LATER_SCHEDULERS));
        if let Some(value) = section.get("scheduler_flags") {
            scheduler_flags(value);
        }
        let health = section.get("health").map(|value| {
            let asked = health::Service {
                protocol: protocol.as_ref().map(|at| at.value),
                address: address
                    .as_ref()
                    .zip(port.as_ref())
                    .map(|(address, port)| SocketAddr::new(address.value.into(), port.value)),
                method,
            };
            self.health(value, asked)
        });
        for (key, what) in LATER {
            section.later(key, what);
        }
        let scheduler = scheduler.map_or(Scheduler::WeightedLeastConnection, |at| at.value);
        let (protocol_value, is_checked) = (protocol.as_ref().map(|at| at.value), health.is_some());
        let kind = Kind { protocol: protocol_value, method, scheduler, is_checked };
        let lifecycle = lifecycle::read(&mut section, kind);
        let port_value = port.as_ref().map(|port| port.value);
        let mut servers =
            Servers { known: self.known, method, names: HashSet::new(), taken: HashSet::new() };
        let listed = section
            .sections("server")
            .into_iter()
            .filter_map(|section| servers.server(section, port_value))
            .collect();
        let fallback = section
            .get("fallback")
            .and_then(Value::section)
            .and_then(|section| servers.fallback(section, port_value));
        let place = section.place.clone();
        section.finish();

        let identity = protocol.zip(address).zip(port);
        let identity = identity.map(|((protocol, address), port)| {
            let address = address.value.into();
            (protocol.value, Endpoint { address, port: port.value })
        });
        if let Some((protocol, endpoint)) = identity
            && !self.taken.insert((protocol, endpoint))
        {
            place.wrong(format_args!(
                "there is a service for {protocol}:{endpoint} already; add the servers to that one"
            ));
            return None;
        }
        let name = match name {
            Some(name) => name?,
            None => {
                let (protocol, endpoint) = identity?;
                At { value: format!("{protocol}:{endpoint}"), place }
            }
        };
        let name = name.check(|name| take(&mut self.names, name, UNIQUE))?.value;
        let (protocol, Endpoint { address, port }) = identity?;
        Some(Service {
            name,
            protocol,
            address,
            port,
            method,
            scheduler,
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

    fn is_virtual_ip(&self, address: Ipv4Addr) -> Result<(), String> {
        if self.known.lost_virtual_ip || self.known.virtual_ips.contains(&address) {
            return Ok(());
        }
        Err(format!("{address} is not a virtual IP; add a [[virtual_ip]] with this address"))
    }
}

/// What a server is known by. A name that was given may have been wrong.
struct Identity<'a> {
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
        self.conclude(section, read, weight.map_or(1, |at| at.value))
    }

    /// It shares nothing with anybody, so it has no weight to be told.
    fn fallback(&mut self, mut section: Section<'_>, service_port: Option<u16>) -> Option<Server> {
        let read = self.identity(&mut section, service_port);
        self.conclude(section, read, 1)
    }

    fn identity<'a>(&self, section: &mut Section<'a>, service_port: Option<u16>) -> Identity<'a> {
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
        Identity { name, endpoint }
    }

    fn conclude(
        &mut self,
        section: Section<'_>,
        Identity { name, endpoint }: Identity<'_>,
        weight: u16,
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
            None => At { value: endpoint.clone()??.value.to_string(), place },
        };
        let name = name.check(|name| take(&mut self.names, name, UNIQUE))?.value;
        Some(Server { name, endpoint: endpoint??.value, weight })
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

fn scheduler_flags(value: Value<'_>) {
    let place = value.place.clone();
    if let Some(flags) = value.list("a list of words")
        && !flags.is_empty()
    {
        place.wrong("scheduler flags are not supported yet; leave the list empty");
    }
}

const UNIQUE: &str = "use a name that no other one has";

const PROTOCOLS: [(&str, Proto); 2] = [("tcp", Proto::Tcp), ("udp", Proto::Udp)];

const METHODS: [(&str, Method); 2] = [("nat", Method::Nat), ("direct", Method::Direct)];

const SCHEDULERS: [(&str, Scheduler); 4] = [
    ("rr", Scheduler::RoundRobin),
    ("wrr", Scheduler::WeightedRoundRobin),
    ("lc", Scheduler::LeastConnection),
    ("wlc", Scheduler::WeightedLeastConnection),
];

const LATER_SCHEDULERS: [&str; 10] =
    ["sed", "nq", "sh", "dh", "mh", "fo", "ovf", "lblc", "lblcr", "twos"];

const LATER: [(&str, &str); 1] = [("persistence", "persistence is")];

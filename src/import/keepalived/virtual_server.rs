//! `virtual_server` and `virtual_server_group`: one service for each address of theirs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checker::{self, Timing};
use super::lose;
use super::tree::Statement;
use crate::import::MOST_SERVERS;
use crate::import::draft::{Draft, Health, Host, Method, Persistence, Server, Service, Target};
use crate::import::ipvsadm::prefix;
use crate::import::remark::{Notes, Place, quote};

/// The groups of a file, each with its targets.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<String, Vec<(Place, Target)>>);

impl Groups {
    pub(super) fn of(statements: &[Statement], notes: &mut Notes) -> Self {
        let mut groups = Self::default();
        let mut count = 0;
        for block in statements.iter().filter(|s| s.keyword() == "virtual_server_group") {
            let mut targets = Vec::new();
            for statement in block.statements() {
                match group_targets(statement) {
                    Some(found) if found.len() + count > MOST_SERVERS => {
                        notes.lost(
                            statement.place,
                            format_args!("{}: too many addresses", statement.shown()),
                        );
                    }
                    Some(found) => {
                        count += found.len();
                        targets.extend(found.into_iter().map(|t| (statement.place, t)));
                    }
                    None => notes.lost(statement.place, statement.shown()),
                }
            }
            if groups.0.insert(block.word(1).to_owned(), targets).is_some() {
                notes.lost(
                    block.place,
                    format_args!("a group {} before this one", quote(block.word(1))),
                );
            }
        }
        groups
    }
}

/// `ADDRESS [PORT]`, `FIRST-LAST [PORT]`, `ADDRESS/LENGTH [PORT]` or `fwmark MARK`.
fn group_targets(statement: &Statement) -> Option<Vec<Target>> {
    if statement.keyword() == "fwmark" {
        return Some(vec![Target::Mark(statement.word(1).parse().ok()?)]);
    }
    let port = match statement.word(1) {
        "" => 0,
        text => text.parse().ok()?,
    };
    let text = statement.keyword();
    if let Ok(address) = text.parse() {
        return Some(vec![Target::Address(address, port)]);
    }
    if text.contains(':') {
        return ipv6_range(text, port);
    }
    let (first, last) = if let Some((address, length)) = text.split_once('/') {
        let address: Ipv4Addr = address.parse().ok()?;
        let length: u32 = length.parse().ok().filter(|length| (16..=32).contains(length))?;
        let first = address.to_bits();
        (first, first | u32::MAX.checked_shr(length).unwrap_or(0))
    } else {
        let (first, last) = text.split_once('-')?;
        let first: Ipv4Addr = first.parse().ok()?;
        let last = match last.parse::<Ipv4Addr>() {
            Ok(last) => last.to_bits(),
            Err(_) => first.to_bits() & !0xff | u32::from(last.parse::<u8>().ok()?),
        };
        (first.to_bits(), last)
    };
    let count = last.checked_sub(first)?;
    let addresses =
        (first..=last).map(|bits| Target::Address(Ipv4Addr::from_bits(bits).into(), port));
    (usize::try_from(count).ok()? < MOST_SERVERS).then(|| addresses.collect())
}

/// IPv6 is only named, not spelled out.
fn ipv6_range(text: &str, port: u16) -> Option<Vec<Target>> {
    let first = text.split(['-', '/']).next()?;
    let _: Ipv6Addr = first.parse().ok()?;
    Some(vec![Target::Unknown(text.to_owned(), port)])
}

/// Adds the services of one block; `size` counts services and servers of all.
pub(super) fn read(block: &Statement, groups: &Groups, draft: &mut Draft, size: &mut usize) {
    let Some(targets) = targets(block, groups, &mut draft.notes) else { return };
    let mut reader = Reader::new(block);
    for statement in block.statements().iter().filter(|s| s.keyword() != "real_server") {
        reader.statement(statement);
    }
    for statement in block.statements().iter().filter(|s| s.keyword() == "real_server") {
        reader.server(statement);
    }
    let service = reader.finish();
    let each = service.servers.len() + 1;
    let room = MOST_SERVERS.saturating_sub(*size) / each;
    *size += each * targets.len().min(room);
    if targets.len() > room {
        draft.notes.lost(
            block.place,
            format_args!(
                "{} of its addresses: the file has too many real servers",
                targets.len() - room
            ),
        );
    }
    for (place, target) in targets.iter().take(room) {
        let mut service = service.clone();
        (service.place, service.target) = (*place, target.clone());
        match (&service.target, block.word(1)) {
            (Target::Mark(mark), _) => service.name = Some(format!("fwmark-{mark}")),
            (Target::Unknown(name, _), _) if name.contains(':') => {
                service.off = Some(IPV6.to_owned())
            }
            (Target::Unknown(name, _), _) => {
                service.off = Some(format!("{} is no address", quote(name)));
            }
            (Target::Address(IpAddr::V6(_), _), _) => service.off = Some(IPV6.to_owned()),
            (Target::Address(IpAddr::V4(_), _), _) => {}
        }
        draft.services.push(service);
    }
}

const IPV6: &str = "IPv6 is not there yet";

/// What the words after `virtual_server` mean.
fn targets<'g>(
    block: &Statement,
    groups: &'g Groups,
    notes: &mut Notes,
) -> Option<Cow<'g, [(Place, Target)]>> {
    let (first, second) = (block.word(1), block.word(2));
    match first {
        "group" => {
            let found = groups.0.get(second);
            if found.is_none() {
                notes.lost(block.place, format_args!("{}: there is no such group", block.shown()));
            }
            found.map(|targets| Cow::Borrowed(targets.as_slice()))
        }
        "fwmark" => match second.parse() {
            Ok(mark) if mark > 0 => Some(Cow::Owned(vec![(block.place, Target::Mark(mark))])),
            _ => {
                notes.lost(block.place, block.shown());
                None
            }
        },
        _ => {
            let port = if second.is_empty() { Some(0) } else { second.parse().ok() };
            let Some(port) = port else {
                notes.lost(block.place, block.shown());
                return None;
            };
            let target = match first.parse() {
                Ok(address) => Target::Address(address, port),
                Err(_) => Target::Unknown(first.to_owned(), port),
            };
            Some(Cow::Owned(vec![(block.place, target)]))
        }
    }
}

struct Reader {
    service: Service,
    timing: Timing,
    checks: Vec<Vec<(Place, Health)>>,
    fallback_method: Option<Method>,
}

impl Reader {
    fn new(block: &Statement) -> Self {
        let service = Service {
            place: block.place,
            name: None,
            protocol: "tcp".to_owned(),
            target: Target::Unknown(String::new(), 0),
            mark: None,
            scheduler: "wlc".to_owned(),
            flags: Vec::new(),
            persistence: None,
            one_packet: false,
            method: Method::Nat,
            health: None,
            fallback: None,
            servers: Vec::new(),
            notes: Notes::default(),
            off: None,
        };
        Self { service, timing: Timing::default(), checks: Vec::new(), fallback_method: None }
    }

    fn statement(&mut self, statement: &Statement) {
        let service = &mut self.service;
        let (word, place) = (statement.word(1), statement.place);
        if self.timing.take(statement, &mut service.notes) {
            return;
        }
        match statement.keyword() {
            "lvs_sched" | "lb_algo" => word.clone_into(&mut service.scheduler),
            "lvs_method" | "lb_kind" => match method(statement) {
                Some(method) => service.method = method,
                None => service.notes.lost(place, statement.shown()),
            },
            "sh-port" | "sh-fallback" | "mh-port" | "mh-fallback" => {
                service.flags.push(statement.keyword().to_owned());
            }
            "flag-1" | "flag-2" | "flag-3" => service.flags.push(statement.keyword().to_owned()),
            "ops" => service.one_packet = true,
            "protocol" => service.protocol = word.to_lowercase(),
            "persistence_timeout" => {
                let timeout = if word.is_empty() { Some(360) } else { word.parse().ok() };
                match timeout {
                    Some(0) => {}
                    Some(timeout) => {
                        let prefix = service.persistence.map_or(32, |old| old.prefix);
                        service.persistence = Some(Persistence { timeout, prefix });
                    }
                    None => service.notes.lost(place, statement.shown()),
                }
            }
            "persistence_granularity" => match prefix(word) {
                Ok(prefix) => {
                    let timeout = service.persistence.map_or(360, |old| old.timeout);
                    service.persistence = Some(Persistence { timeout, prefix });
                }
                Err(why) => service.notes.lost(place, format_args!("{}: {why}", statement.shown())),
            },
            "sorry_server" => self.sorry_server(statement),
            "sorry_server_lvs_method" => match method(statement) {
                Some(method) => self.fallback_method = Some(method),
                None => service.notes.lost(place, statement.shown()),
            },
            "quorum" if word == "1" => {}
            "hysteresis" if word == "0" => {}
            "quorum" | "hysteresis" => service.notes.lost(
                place,
                format_args!("{}: the fallback serves when no server can", statement.shown()),
            ),
            "inhibit_on_failure" | "sorry_server_inhibit" => service.notes.note(place, INHIBIT),
            "ip_family" if word == "inet" => {}
            "ip_family" => service.off = Some(IPV6.to_owned()),
            "ha_suspend" => {
                service.notes.lost(place, "ha_suspend: servers are checked in either role")
            }
            "persistence_engine" => {
                service.notes.lost(place, format_args!("{}: by address alone", statement.shown()));
            }
            "omega" => service.notes.lost(place, "omega: no scripts are run, at the end neither"),
            _ => lose(&mut service.notes, statement),
        }
    }

    fn sorry_server(&mut self, statement: &Statement) {
        let service = &mut self.service;
        let address = statement.word(1).parse::<IpAddr>();
        let port = statement.word(2);
        let port = if port.is_empty() { Ok(None) } else { port.parse().map(Some) };
        let (Ok(address), Ok(port)) = (address, port) else {
            return service.notes.lost(statement.place, statement.shown());
        };
        let mut server = Server::new(statement.place, Host::Address(address), port, Method::Nat);
        if address.is_ipv6() {
            server.off = Some(IPV6.to_owned());
        }
        service.fallback = Some(server);
    }

    fn server(&mut self, block: &Statement) {
        let place = block.place;
        let (address, port) = (block.word(1), block.word(2));
        let port = if port.is_empty() { Ok(None) } else { port.parse::<u16>().map(Some) };
        let Ok(port) = port else {
            return self.service.notes.lost(place, block.shown());
        };
        let host =
            address.parse().map_or_else(|_| Host::Unknown(address.to_owned()), Host::Address);
        let mut server = Server::new(place, host, port, self.service.method);
        match &server.host {
            Host::Unknown(_) => server.off = Some(format!("{} is no address", quote(address))),
            Host::Address(IpAddr::V6(_)) => server.off = Some(IPV6.to_owned()),
            Host::Address(IpAddr::V4(_)) => {}
        }
        let mut timing = Timing::default();
        let mut checkers = Vec::new();
        for statement in block.statements() {
            if checker::is_checker(statement.keyword()) {
                checkers.push(statement);
            } else if !timing.take(statement, &mut server.notes) {
                server_statement(&mut server, statement);
            }
        }
        let timing = timing.or(&self.timing);
        let own = (address, port);
        let checks = checkers
            .into_iter()
            .filter_map(|checker| checker::read(checker, &timing, own, &mut server.notes))
            .map(|(place, mut health)| {
                // Where the server listens anyway needs no saying.
                health.port = health.port.filter(|asked| Some(*asked) != port);
                (place, health)
            })
            .collect();
        self.checks.push(checks);
        self.service.servers.push(server);
    }

    /// One check for all servers: the first that is found.
    fn finish(mut self) -> Service {
        let first = self.checks.iter().flatten().next().map(|(_, health)| health.clone());
        for (server, checks) in self.service.servers.iter_mut().zip(&self.checks) {
            let mut has_it = false;
            for (place, health) in checks {
                if first.as_ref() == Some(health) && !has_it {
                    has_it = true;
                    continue;
                }
                server.notes.lost(
                    *place,
                    "this check: a service has one for all of its servers, and this one is different",
                );
            }
            if first.is_some() && checks.is_empty() {
                server.notes.note(server.place, "it had no check; now it has that of the others");
            }
        }
        self.service.health = first;
        if let Some(fallback) = &mut self.service.fallback {
            fallback.method = self.fallback_method.unwrap_or(self.service.method);
        }
        // As ipvsadm: flag-1 of sh is sh-fallback, flag-2 sh-port; so for mh.
        let scheduler = self.service.scheduler.clone();
        for flag in &mut self.service.flags {
            match (flag.as_str(), scheduler.as_str()) {
                ("flag-1", "sh" | "mh") => *flag = format!("{scheduler}-fallback"),
                ("flag-2", "sh" | "mh") => *flag = format!("{scheduler}-port"),
                _ => {}
            }
        }
        if self.service.protocol == "sctp" {
            self.service.off = Some("SCTP is not balanced; tcp and udp are".to_owned());
        }
        self.service
    }
}

const INHIBIT: &str = "inhibit_on_failure: connections of a server that is down go on unless `on_down` says otherwise";

fn server_statement(server: &mut Server, statement: &Statement) {
    let (word, place) = (statement.word(1), statement.place);
    let number = word.parse::<u64>();
    match (statement.keyword(), number) {
        ("weight", Ok(weight)) => server.weight = weight,
        ("uthreshold", Ok(most)) => server.most = most,
        ("lthreshold", Ok(least)) => server.least = least,
        ("lvs_method" | "lb_kind", _) => match method(statement) {
            Some(method) => server.method = method,
            None => server.notes.lost(place, statement.shown()),
        },
        ("inhibit_on_failure", _) => server.notes.note(place, INHIBIT),
        _ => lose(&mut server.notes, statement),
    }
}

fn method(statement: &Statement) -> Option<Method> {
    match statement.word(1) {
        "NAT" => Some(Method::Nat),
        "DR" => Some(Method::Direct),
        "TUN" => Some(Method::Tunnel),
        _ => None,
    }
}

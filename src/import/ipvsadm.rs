//! `ipvsadm-save` output, or any lines that `ipvsadm --restore` takes, with or without `ipvsadm` before
//! them: each is carried out on the draft.

mod options;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::options::{Arguments, Command, Flag, parse};
use super::draft::{Draft, Host, Method, Persistence, Server, Service, Target};
use super::remark::{Notes, Place, quote};
use super::{ImportError, MOST_SERVERS, MOST_STATEMENTS, Surroundings};

/// Whether a line is one of its commands.
pub(super) fn is_command(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else { return false };
    let first = if is_program(first) { words.next().unwrap_or_default() } else { first };
    let long = ["--add-service", "--add-server", "--clear", "--set", "--start-daemon"];
    long.contains(&first)
        || first.strip_prefix('-').is_some_and(|rest| rest.starts_with(['A', 'a', 'C', 'E', 'D']))
}

fn is_program(word: &str) -> bool {
    word.rsplit('/').next() == Some("ipvsadm")
}

pub(super) fn read(text: &str, surroundings: &mut dyn Surroundings) -> Result<Draft, ImportError> {
    let mut reader = Reader {
        draft: Draft::default(),
        known: HashMap::new(),
        servers: HashSet::new(),
        names: Names { surroundings, hosts: HashMap::new() },
    };
    for (number, line) in text.lines().enumerate() {
        if number >= MOST_STATEMENTS {
            return Err(ImportError::TooMany { most: MOST_STATEMENTS });
        }
        let place = Place { file: 0, line: u32::try_from(number + 1).unwrap_or(u32::MAX) };
        reader.line(line, place);
    }
    Ok(reader.draft)
}

struct Reader<'s> {
    draft: Draft,
    /// Positions of the services by protocol and target.
    known: HashMap<String, usize>,
    /// Servers, each with the position of its service.
    servers: HashSet<(usize, Host, Option<u16>)>,
    names: Names<'s>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str, place: Place) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let words = match options::words(line) {
            Ok(words) => words,
            Err(why) => {
                return self.draft.notes.lost(place, format_args!("{why}: {}", quote(line)));
            }
        };
        let words = match words.split_first() {
            Some((first, rest)) if is_program(first) => rest,
            _ => &words,
        };
        let (command, arguments) = match parse(words) {
            Ok(parsed) => parsed,
            Err(why) => {
                return self.draft.notes.lost(place, format_args!("{why}: {}", quote(line)));
            }
        };
        let mut notes = Notes::default();
        let done = self.carry_out(command, &arguments, place, &mut notes);
        self.draft.notes.append(notes);
        if let Err(why) = done {
            self.draft.notes.lost(place, format_args!("{why}: {}", quote(line)));
        }
    }

    fn carry_out(
        &mut self,
        command: Command,
        arguments: &Arguments,
        place: Place,
        notes: &mut Notes,
    ) -> Result<(), String> {
        match command {
            Command::AddService => self.add_service(arguments, place),
            Command::EditService => self.edit_service(arguments, place),
            Command::DeleteService => {
                let (at, _) = self.service(arguments)?;
                // Positions stay as they are: what is deleted is only emptied.
                self.known.retain(|_, position| *position != at);
                let service = &mut self.draft.services[at];
                service.off = Some(format!("deleted again in line {}", place.line));
                Ok(())
            }
            Command::Clear => {
                let deleted = self.draft.services.len();
                self.draft.services.clear();
                self.known.clear();
                self.servers.clear();
                if deleted > 0 {
                    notes
                        .lost(place, format_args!("{deleted} services before it are cleared here"));
                }
                Ok(())
            }
            Command::AddServer => self.add_server(arguments, place),
            Command::EditServer => self.edit_server(arguments, place),
            Command::DeleteServer => {
                let (at, port) = self.service(arguments)?;
                let (host, port) = self.names.server(arguments, port)?;
                if !self.servers.remove(&(at, host.clone(), port)) {
                    return Err("there is no such server".to_owned());
                }
                let servers = &mut self.draft.services[at].servers;
                servers.retain(|server| server.host != host || server.port != port);
                Ok(())
            }
            Command::Set => self.timeouts(arguments, place, notes),
            Command::StartDaemon => {
                notes.lost(
                    place,
                    "the synchronisation daemon: tapvs copies connections by its own protocol; see [failover.sync]",
                );
                Ok(())
            }
            Command::Other(word) => Err(format!("{word} changes nothing that a file could hold")),
        }
    }

    fn add_service(&mut self, arguments: &Arguments, place: Place) -> Result<(), String> {
        let (key, protocol, target) = self.names.target(arguments)?;
        if self.known.contains_key(&key) {
            return Err("there is such a service already".to_owned());
        }
        let mut service = Service {
            place,
            name: None,
            protocol: protocol.to_owned(),
            target,
            mark: None,
            scheduler: "wlc".to_owned(),
            flags: Vec::new(),
            persistence: None,
            one_packet: false,
            method: Method::Direct,
            health: None,
            fallback: None,
            servers: Vec::new(),
            notes: Notes::default(),
            off: None,
        };
        match &service.target {
            Target::Unknown(name, _) => {
                service.off = Some(format!("{} has no address that could be found", quote(name)));
            }
            Target::Address(IpAddr::V6(_), _) => service.off = Some(IPV6.to_owned()),
            Target::Mark(_) if arguments.has("-6") => service.off = Some(IPV6.to_owned()),
            Target::Mark(_) | Target::Address(IpAddr::V4(_), _) => {}
        }
        if protocol == "sctp" {
            service.off = Some("SCTP is not balanced; tcp and udp are".to_owned());
        }
        describe(&mut service, arguments, place)?;
        self.known.insert(key, self.draft.services.len());
        self.draft.services.push(service);
        Ok(())
    }

    fn edit_service(&mut self, arguments: &Arguments, place: Place) -> Result<(), String> {
        let (at, _) = self.service(arguments)?;
        let service = &mut self.draft.services[at];
        // ipvsadm sets all of it anew, with its defaults for what is not given.
        service.flags.clear();
        (service.persistence, service.one_packet) = (None, false);
        "wlc".clone_into(&mut service.scheduler);
        describe(service, arguments, place)
    }

    fn add_server(&mut self, arguments: &Arguments, place: Place) -> Result<(), String> {
        let (at, port) = self.service(arguments)?;
        let (host, port) = self.names.server(arguments, port)?;
        let mut server = Server::new(place, host, port, Method::Direct);
        if self.servers.len() >= MOST_SERVERS {
            return Err(format!("{MOST_SERVERS} servers are the most"));
        }
        adjust(&mut server, arguments, place)?;
        if !self.servers.insert((at, server.host.clone(), port)) {
            return Err("the service has this server already".to_owned());
        }
        self.draft.services[at].servers.push(server);
        Ok(())
    }

    fn edit_server(&mut self, arguments: &Arguments, place: Place) -> Result<(), String> {
        let (at, port) = self.service(arguments)?;
        let (host, port) = self.names.server(arguments, port)?;
        let mut servers = self.draft.services[at].servers.iter_mut();
        let server = servers
            .find(|server| server.host == host && server.port == port)
            .ok_or_else(|| "there is no such server".to_owned())?;
        (server.method, server.weight, server.most, server.least) = (Method::Direct, 1, 0, 0);
        adjust(server, arguments, place)
    }

    /// The service that a line names: its position and port.
    fn service(&mut self, arguments: &Arguments) -> Result<(usize, Option<u16>), String> {
        let (key, _, target) = self.names.target(arguments)?;
        let at = *self.known.get(&key).ok_or_else(|| "there is no such service".to_owned())?;
        let port = match target {
            Target::Address(_, port) | Target::Unknown(_, port) => Some(port),
            Target::Mark(_) => None,
        };
        Ok((at, port))
    }

    fn timeouts(
        &mut self,
        arguments: &Arguments,
        place: Place,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let [tcp, fin, udp] = arguments.values.as_slice() else {
            return Err("--set takes three timeouts: tcp tcpfin udp".to_owned());
        };
        for (key, text) in [("established", tcp), ("fin_wait", fin), ("udp", udp)] {
            let seconds = number(text, "a timeout in seconds")?;
            // 0 leaves the timeout as it is; more than tapvs can hold is as good as its most.
            let kept = seconds.min(24 * 60 * 60);
            if kept != seconds {
                notes.lost(place, format_args!("a timeout of {seconds} s: 24 h is the most"));
            }
            if kept > 0 {
                self.draft.timeouts.retain(|(known, _)| *known != key);
                self.draft.timeouts.push((key, kept));
            }
        }
        Ok(())
    }
}

const IPV6: &str = "IPv6 is not there yet";

/// What a line says about a service.
fn describe(service: &mut Service, arguments: &Arguments, place: Place) -> Result<(), String> {
    let mut mask = None;
    for flag in &arguments.flags {
        match flag {
            Flag { name: "-s", value: Some(word) } => service.scheduler.clone_from(word),
            Flag { name: "-p", value } => {
                let timeout = value.as_deref().map(|text| number(text, "a timeout in seconds"));
                let timeout = timeout.transpose()?.unwrap_or(300);
                service.persistence = Some(Persistence { timeout, prefix: 32 });
            }
            Flag { name: "-M", value: Some(text) } => mask = Some(prefix(text)?),
            Flag { name: "-b", value: Some(words) } => {
                service.flags = words.split(',').map(str::to_owned).collect();
            }
            Flag { name: "-o", .. } => service.one_packet = true,
            Flag { name: "--pe", value: Some(engine) } => service.notes.lost(
                place,
                format_args!("persistence engine {}: by address alone", quote(engine)),
            ),
            Flag { name: "-t" | "-u" | "-f" | "--sctp-service" | "-6" | "-n", .. } => {}
            Flag { name, .. } => {
                service.notes.lost(place, format_args!("{name} does not belong to a service"));
            }
        }
    }
    match (&mut service.persistence, mask) {
        (Some(persistence), Some(prefix)) => persistence.prefix = prefix,
        (None, Some(_)) => service.notes.lost(place, "a netmask (-M) without persistence (-p)"),
        (_, None) => {}
    }
    // The kernel's names of the flags depend on the scheduler: flag-1 of sh is sh-fallback.
    let scheduler = service.scheduler.clone();
    for word in &mut service.flags {
        if let ("flag-1", "sh" | "mh") = (word.as_str(), scheduler.as_str()) {
            *word = format!("{scheduler}-fallback");
        } else if let ("flag-2", "sh" | "mh") = (word.as_str(), scheduler.as_str()) {
            *word = format!("{scheduler}-port");
        }
    }
    Ok(())
}

/// What a line says about a server.
fn adjust(server: &mut Server, arguments: &Arguments, place: Place) -> Result<(), String> {
    for flag in &arguments.flags {
        match flag {
            Flag { name: "-g", .. } => server.method = Method::Direct,
            Flag { name: "-m", .. } => server.method = Method::Nat,
            Flag { name: "-i", .. } => server.method = Method::Tunnel,
            Flag { name: "-w", value: Some(text) } => server.weight = number(text, "a weight")?,
            Flag { name: "-x", value: Some(text) } => server.most = number(text, "a threshold")?,
            Flag { name: "-y", value: Some(text) } => server.least = number(text, "a threshold")?,
            Flag { name: "-r" | "-t" | "-u" | "-f" | "--sctp-service" | "-6" | "-n", .. } => {}
            Flag { name, value } => server.notes.lost(
                place,
                match value {
                    Some(value) => format!("{name} {value}: not there"),
                    None => format!("{name}: not there"),
                },
            ),
        }
    }
    match &server.host {
        Host::Unknown(name) => {
            server.off = Some(format!("{} has no address that could be found", quote(name)));
        }
        Host::Address(IpAddr::V6(_)) => server.off = Some(IPV6.to_owned()),
        Host::Address(IpAddr::V4(_)) => {}
    }
    Ok(())
}

/// Looks names up, each once.
struct Names<'s> {
    surroundings: &'s mut dyn Surroundings,
    hosts: HashMap<String, Option<Ipv4Addr>>,
}

impl Names<'_> {
    /// The service of a line: a key that tells services apart, its protocol and what clients use.
    fn target(&mut self, arguments: &Arguments) -> Result<(String, &'static str, Target), String> {
        let services = ["-t", "-u", "-f", "--sctp-service"];
        let mut found = arguments.flags.iter().filter(|flag| services.contains(&flag.name));
        let (Some(Flag { name, value: Some(text) }), None) = (found.next(), found.next()) else {
            return Err(
                "one service is needed: -t, -u or --sctp-service HOST:PORT, or -f MARK".to_owned()
            );
        };
        if *name == "-f" {
            let mark: u32 = text.parse().ok().filter(|mark| *mark > 0).ok_or_else(|| {
                format!("{} is no firewall mark, a number from 1 on", quote(text))
            })?;
            let family = if arguments.has("-6") { 6 } else { 4 };
            return Ok((format!("mark {mark} {family}"), "tcp", Target::Mark(mark)));
        }
        let protocol = match *name {
            "-t" => "tcp",
            "-u" => "udp",
            _ => "sctp",
        };
        let (host, port) = self.endpoint(text)?;
        let port = port.unwrap_or(0);
        let target = match host {
            Host::Address(address) => Target::Address(address, port),
            Host::Unknown(name) => Target::Unknown(name, port),
        };
        Ok((format!("{protocol} {target:?}"), protocol, target))
    }

    /// The real server of a line; without a port it has the service's.
    fn server(
        &mut self,
        arguments: &Arguments,
        service: Option<u16>,
    ) -> Result<(Host, Option<u16>), String> {
        let text = arguments.value("-r").ok_or_else(|| "a server is needed: -r HOST".to_owned())?;
        let (host, port) = self.endpoint(text)?;
        Ok((host, port.filter(|port| *port != 0).or(service)))
    }

    fn endpoint(&mut self, text: &str) -> Result<(Host, Option<u16>), String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) =
                    rest.split_once(']').ok_or_else(|| format!("{} has no ]", quote(text)))?;
                (host, after.strip_prefix(':'))
            }
            // An IPv6 address without brackets has no port.
            None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map(|port| self.port(port)).transpose()?;
        let host = match host.parse::<IpAddr>() {
            Ok(address) => Host::Address(address),
            Err(_) => self.host(host),
        };
        Ok((host, port))
    }

    fn port(&mut self, text: &str) -> Result<u16, String> {
        let known = text.parse().ok().or_else(|| self.surroundings.port(text));
        known.ok_or_else(|| format!("{} is no port that is known here", quote(text)))
    }

    fn host(&mut self, name: &str) -> Host {
        /// A file of nothing but names must not become a burst of questions.
        const MOST: usize = 1_000;
        let address = match self.hosts.get(name) {
            Some(known) => *known,
            None if self.hosts.len() >= MOST => None,
            None => {
                let address = self.surroundings.host(name);
                self.hosts.insert(name.to_owned(), address);
                address
            }
        };
        address
            .map_or_else(|| Host::Unknown(name.to_owned()), |address| Host::Address(address.into()))
    }
}

fn number(text: &str, what: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{} is not {what}", quote(text)))
}

/// A netmask such as 255.255.255.0, or the length of a prefix.
pub(super) fn prefix(text: &str) -> Result<u8, String> {
    let wrong = || format!("{} is no netmask", quote(text));
    if let Ok(length) = text.parse::<u8>() {
        return if (1..=128).contains(&length) { Ok(length) } else { Err(wrong()) };
    }
    let mask = text.parse::<Ipv4Addr>().map_err(|_| wrong())?.to_bits();
    let length = mask.leading_ones();
    if length == 0 || mask.checked_shl(length).unwrap_or(0) != 0 {
        return Err(wrong());
    }
    u8::try_from(length).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks_are_prefix_lengths() {
        for (text, length) in [
            ("255.255.255.255", 32),
            ("255.255.255.0", 24),
            ("255.254.0.0", 15),
            ("128.0.0.0", 1),
            ("64", 64),
        ] {
            assert_eq!(prefix(text), Ok(length), "{text}");
        }
        for text in ["0.0.0.0", "255.0.255.0", "0", "129", "24.1", ""] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }
}

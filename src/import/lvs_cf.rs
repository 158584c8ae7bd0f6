//! Piranha's lvs.cf, the file of Red Hat's cluster manager `pulse`: `KEY = VALUE` lines and two kinds of
//! blocks, `virtual` and in it `server`.

use std::net::{IpAddr, Ipv4Addr};

use super::draft::{
    Draft, Failover, Health, Host, Method, Persistence, Prefix, Question, Server, Service, Target,
    VirtualIp,
};
use super::ipvsadm::prefix;
use super::remark::{Notes, Place, quote};
use super::{ImportError, MOST_STATEMENTS, START};

/// Keys that begin such a file and no other.
const FIRST: [&str; 6] =
    ["serial_no", "primary", "rsh_command", "backup_active", "heartbeat", "service"];

pub(super) fn is_first_word(word: &str, line: &str) -> bool {
    FIRST.contains(&word) && line.contains('=') || word == "virtual" && line.contains('{')
}

pub(super) fn read(text: &str) -> Result<Draft, ImportError> {
    let mut reader = Reader::default();
    for (number, line) in text.lines().enumerate() {
        if number >= MOST_STATEMENTS {
            return Err(ImportError::TooMany { most: MOST_STATEMENTS });
        }
        let place = Place { file: 0, line: u32::try_from(number + 1).unwrap_or(u32::MAX) };
        reader.line(line.trim(), place);
    }
    Ok(reader.finish())
}

/// A key with its value and where it stands.
type Entry = (String, String, Place);

/// A block's own keys, and its servers.
#[derive(Default)]
struct Block {
    name: String,
    place: Option<Place>,
    entries: Vec<Entry>,
    servers: Vec<Self>,
}

#[derive(Default)]
struct Reader {
    notes: Notes,
    top: Vec<Entry>,
    services: Vec<Block>,
    /// The blocks that are open, outermost first.
    open: Vec<Block>,
    /// How many blocks of an unknown kind are open.
    skipping: u32,
}

impl Reader {
    fn line(&mut self, line: &str, place: Place) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        if let Some(head) = line.strip_suffix('{') {
            return self.begin(head.trim(), line, place);
        }
        if line == "}" {
            return self.end(place);
        }
        let Some((key, value)) = line.split_once('=').filter(|_| self.skipping == 0) else {
            return self.notes.lost(place, quote(line));
        };
        let entry = (key.trim().to_owned(), unquote(value.trim()), place);
        self.open.last_mut().map_or(&mut self.top, |block| &mut block.entries).push(entry);
    }

    fn begin(&mut self, head: &str, line: &str, place: Place) {
        let (word, name) = head.split_once(char::is_whitespace).unwrap_or((head, ""));
        let fits = match word {
            "virtual" => self.open.is_empty(),
            "server" => self.open.len() == 1,
            _ => false,
        };
        if !fits || self.skipping > 0 {
            let what = if word == "failover" { ": failover services other than LVS" } else { "" };
            self.notes.lost(place, format_args!("{}{what}", quote(line)));
            self.skipping = self.skipping.saturating_add(1);
            return;
        }
        let name = unquote(name.trim());
        self.open.push(Block { name, place: Some(place), ..Block::default() });
    }

    fn end(&mut self, place: Place) {
        if self.skipping > 0 {
            self.skipping -= 1;
            return;
        }
        let Some(block) = self.open.pop() else {
            return self.notes.lost(place, "a } without its {");
        };
        match self.open.last_mut() {
            Some(service) => service.servers.push(block),
            None => self.services.push(block),
        }
    }

    fn finish(mut self) -> Draft {
        while let Some(block) = self.open.last() {
            let place = block.place.unwrap_or(START);
            self.notes.lost(place, format_args!("the block {} is not closed", quote(&block.name)));
            self.end(place);
        }
        let mut draft = Draft::default();
        draft.notes.append(self.notes);
        let top = top(self.top, &mut draft);
        for block in self.services {
            let service = service(block, &top, &mut draft);
            draft.services.push(service);
        }
        for (address, place) in top.own {
            own(address, place, &mut draft);
        }
        draft
    }
}

/// An address of the router itself lies in the network of a virtual one.
fn own(address: Ipv4Addr, place: Place, draft: &mut Draft) {
    for interface in &mut draft.interfaces {
        let around = interface.prefixes.iter().find(|prefix| prefix.contains(address));
        if let Some(length) = around.map(|prefix| prefix.length).filter(|length| *length < 31) {
            interface.own.push(Prefix::new(address, length));
            return;
        }
    }
    draft.notes.lost(
        place,
        format_args!("the router's own address {address} lies in no network that is known"),
    );
}

/// What holds for every service.
struct Top {
    method: Method,
    /// The router's own addresses.
    own: Vec<(Ipv4Addr, Place)>,
}

fn top(entries: Vec<Entry>, draft: &mut Draft) -> Top {
    let mut top = Top { method: Method::Direct, own: Vec::new() };
    let mut gateway: Option<(Ipv4Addr, Option<String>, Place)> = None;
    let (mut gateway_mask, mut backup, mut is_pair) = (24, None, None);
    let mut keepalive = None;
    for (key, value, place) in entries {
        match key.as_str() {
            "network" => match value.as_str() {
                "nat" => top.method = Method::Nat,
                "direct" => top.method = Method::Direct,
                "tunnel" => top.method = Method::Tunnel,
                _ => draft.notes.lost(place, format_args!("network = {}", quote(&value))),
            },
            "nat_router" => match address(&value) {
                Some((address, device)) => gateway = Some((address, device, place)),
                None => draft.notes.lost(place, format_args!("nat_router = {}", quote(&value))),
            },
            "nat_nmask" => match prefix(&value) {
                Ok(length) => gateway_mask = length,
                Err(why) => draft.notes.lost(place, why),
            },
            "primary" | "primary_private" => match value.parse() {
                Ok(address) => top.own.push((address, place)),
                Err(_) => draft.notes.lost(place, format_args!("{key} = {}", quote(&value))),
            },
            "backup_private" => draft.notes.note(
                place,
                format_args!("{key} = {value}: the other router's own address, for its own file"),
            ),
            "backup" => backup = address(&value).map(|(address, _)| (address, place)),
            "backup_active" => is_pair = (value == "1").then_some(place),
            "keepalive" => keepalive = value.parse::<u64>().ok().map(|seconds| (seconds, place)),
            "tcp_timeout" | "tcpfin_timeout" | "udp_timeout" => {
                let key = match key.as_str() {
                    "tcp_timeout" => "established",
                    "tcpfin_timeout" => "fin_wait",
                    _ => "udp",
                };
                match value.parse::<u64>() {
                    Ok(0) => {}
                    Ok(seconds) => draft.timeouts.push((key, seconds)),
                    Err(_) => draft.notes.lost(place, format_args!("{key} = {}", quote(&value))),
                }
            }
            // The file's own number, and what the daemon is for.
            "serial_no" => {}
            "service" if value == "lvs" => {}
            "heartbeat" if value == "1" => {}
            "debug_level" if value == "NONE" => {}
            "monitor_links" => draft.notes.note(place, "links are always watched"),
            "deadtime" => draft
                .notes
                .lost(place, format_args!("deadtime = {value}: a router is dead after three adverts")),
            "heartbeat_port" => draft
                .notes
                .lost(place, format_args!("heartbeat_port = {value}: VRRP is IP protocol 112, without ports")),
            "syncdaemon" | "syncd_iface" | "syncd_id" => draft.notes.lost(
                place,
                format_args!("{key} = {value}: tapvs copies connections by its own protocol; see [failover.sync]"),
            ),
            _ => draft.notes.lost(place, quote(&format!("{key} = {value}"))),
        }
    }
    if let Some((address, device, place)) = gateway {
        let interface = device.unwrap_or_else(|| "servers".to_owned());
        if let Some(known) = draft.interface(&interface, place) {
            known.prefixes.push(Prefix::new(address, gateway_mask));
        }
        draft.add_virtual_ip(VirtualIp { address, interface: Some(interface), place });
    }
    if let Some(place) = is_pair {
        let mut notes = Notes::default();
        notes.note(
            place,
            "pulse's heartbeat: tapvs speaks VRRP, with one virtual router id for each network; the backup \
             gets a lower priority",
        );
        if let Some((seconds, place)) = keepalive {
            notes.note(place, format_args!("keepalive = {seconds}: adverts are sent every 100 ms"));
        }
        draft.failover = Some(Failover {
            place,
            version: 3,
            priority: None,
            advert_interval: 100,
            preempt: true,
            preempt_delay: 0,
            routers: Vec::new(),
            sync: backup.map(|(peer, place)| (None, Some(peer), place)),
            notes,
        });
    } else {
        if let Some((peer, place)) = backup {
            draft.notes.lost(place, format_args!("backup = {peer}: backup_active is not 1"));
        }
        if let Some((seconds, place)) = keepalive {
            draft.notes.lost(place, format_args!("keepalive = {seconds}: backup_active is not 1"));
        }
    }
    top
}

fn service(block: Block, top: &Top, draft: &mut Draft) -> Service {
    let place = block.place.unwrap_or(START);
    let mut service = Service {
        place,
        name: None,
        protocol: "tcp".to_owned(),
        target: Target::Unknown(String::new(), 80),
        mark: None,
        scheduler: "wlc".to_owned(),
        flags: Vec::new(),
        persistence: None,
        one_packet: false,
        method: top.method,
        health: None,
        fallback: None,
        servers: Vec::new(),
        notes: Notes::default(),
        off: None,
    };
    if !block.name.is_empty() {
        service.name = Some(block.name);
    }
    let (mut vip, mut port, mut mark, mut mask, mut vip_mask) = (None, 80, None, None, 32);
    let mut check = Check::default();
    for (key, value, place) in block.entries {
        let notes = &mut service.notes;
        let mut lost =
            |why: &str| notes.lost(place, format_args!("{key} = {}{why}", quote(&value)));
        match key.as_str() {
            "address" => match address(&value) {
                Some(found) => vip = Some((found, place)),
                None => lost(""),
            },
            "vip_nmask" => match prefix(&value) {
                Ok(length) => vip_mask = length,
                Err(_) => lost(""),
            },
            "port" => match value.parse() {
                Ok(number) => port = number,
                Err(_) => lost(""),
            },
            "fwmark" => match value.parse::<u32>() {
                Ok(0) => {}
                Ok(number) => mark = Some(number),
                Err(_) => lost(""),
            },
            "active" => match value.as_str() {
                "1" => {}
                _ => service.off = Some("not active".to_owned()),
            },
            "protocol" => service.protocol = value.to_lowercase(),
            "scheduler" => service.scheduler = value,
            "persistent" => match value.parse::<u64>() {
                Ok(0) => {}
                Ok(timeout) => service.persistence = Some(Persistence { timeout, prefix: 32 }),
                Err(_) => lost(""),
            },
            "pmask" => match prefix(&value) {
                Ok(length) => mask = Some((length, place)),
                Err(_) => lost(""),
            },
            "quiesce_server" if value == "0" => {}
            "quiesce_server" => lost(": tapvs starts a server slowly with `slow_start`"),
            "load_monitor" if value == "none" => {}
            "use_regex" if value == "0" => {}
            "use_regex" => {
                check.is_regex = true;
                lost(": regular expressions are not there");
            }
            "send" => check.send = Some((value, place)),
            "expect" => check.expect = Some((value, place)),
            "timeout" => match value.parse::<u64>() {
                Ok(seconds) => check.timeout = Some(seconds),
                Err(_) => lost(""),
            },
            "reentry" => match value.parse::<u64>() {
                Ok(seconds) => check.reentry = Some(seconds),
                Err(_) => lost(""),
            },
            "sorry_server" => match address(&value) {
                Some((address, _)) => {
                    let host = Host::Address(address.into());
                    service.fallback = Some(Server::new(place, host, None, top.method));
                }
                None => lost(""),
            },
            "send_program" | "expect_program" => lost(": programs are not run as checks"),
            _ => lost(""),
        }
    }
    service.mark = mark;
    match (&vip, mark) {
        (Some(((address, _), _)), _) => {
            service.target = Target::Address(IpAddr::V4(*address), port)
        }
        (None, Some(mark)) => service.target = Target::Mark(mark),
        (None, None) => service.off = Some("it has no address".to_owned()),
    }
    if let Some(((address, device), place)) = vip {
        if let Some(device) = &device
            && let Some(known) = draft.interface(device, place)
        {
            known.prefixes.push(Prefix::new(address, vip_mask));
        }
        draft.add_virtual_ip(VirtualIp { address, interface: device, place });
    }
    match (&mut service.persistence, mask) {
        (Some(persistence), Some((length, _))) => persistence.prefix = length,
        (None, Some((_, place))) => service.notes.lost(place, "pmask without persistent"),
        (_, None) => {}
    }
    service.servers = block.servers.into_iter().map(|block| server(block, port, top)).collect();
    service.health = Some(check.health(&service.protocol, port, &mut service.notes));
    service
}

fn server(block: Block, port: u16, top: &Top) -> Server {
    let place = block.place.unwrap_or(START);
    let mut server = Server::new(place, Host::Unknown(String::new()), Some(port), top.method);
    if !block.name.is_empty() {
        server.name = Some(block.name);
    }
    for (key, value, place) in block.entries {
        let notes = &mut server.notes;
        let mut lost = || notes.lost(place, format_args!("{key} = {}", quote(&value)));
        match key.as_str() {
            "address" => match address(&value) {
                Some((address, _)) => server.host = Host::Address(address.into()),
                None => lost(),
            },
            "active" if value == "1" => {}
            "active" => server.off = Some("not active".to_owned()),
            "port" => match value.parse() {
                Ok(port) => server.port = Some(port),
                Err(_) => lost(),
            },
            "weight" => match value.parse() {
                Ok(weight) => server.weight = weight,
                Err(_) => lost(),
            },
            _ => lost(),
        }
    }
    if server.host == Host::Unknown(String::new()) && server.off.is_none() {
        server.off = Some("it has no address".to_owned());
    }
    server
}

/// What nanny, the checker, is told.
#[derive(Debug, Default)]
struct Check {
    send: Option<(String, Place)>,
    expect: Option<(String, Place)>,
    is_regex: bool,
    timeout: Option<u64>,
    reentry: Option<u64>,
}

impl Check {
    /// nanny connects every `reentry` seconds, and takes a server out after `timeout` seconds without answer.
    fn health(self, protocol: &str, port: u16, notes: &mut Notes) -> Health {
        let interval = self.reentry.unwrap_or(15).clamp(1, 3_600);
        let timeout = self.timeout.unwrap_or(6).clamp(1, 60).min(interval);
        let question = self.question(protocol, notes);
        Health {
            question,
            port: (port == 0).then_some(80),
            interval: interval * 1_000,
            timeout: timeout * 1_000,
            fall: 1,
            rise: 1,
            initially_down: false,
        }
    }

    fn question(&self, protocol: &str, notes: &mut Notes) -> Question {
        let send = self.send.as_ref().map(|(text, _)| text.as_str());
        let expect = self.expect.as_ref().filter(|_| !self.is_regex).map(|(text, _)| text.as_str());
        if protocol == "udp" {
            return match send {
                Some(send) => Question::Udp {
                    payload: send.as_bytes().to_vec(),
                    answer: expect.map(|text| text.as_bytes().to_vec()),
                },
                None => Question::Ping,
            };
        }
        let path = send.and_then(|send| {
            let mut words = send.split_whitespace();
            (words.next() == Some("GET")).then(|| words.next()).flatten()
        });
        let Some(path) = path.filter(|path| path.starts_with('/')) else {
            let texts = [("send", &self.send), ("expect", &self.expect)];
            for (key, place) in texts.iter().filter_map(|(key, text)| Some((key, text.as_ref()?.1)))
            {
                notes.lost(
                    place,
                    format_args!("{key}: the check only connects; HTTP is what it can speak"),
                );
            }
            return Question::Tcp;
        };
        let is_status_line = expect.is_none_or(|text| text.starts_with("HTTP"));
        if let (Some((_, place)), true) = (&self.expect, is_status_line) {
            notes.note(*place, "expect: any answer with status 200 to 399 is right");
        }
        let body = expect.filter(|_| !is_status_line).map(str::to_owned);
        Question::Http { path: path.to_owned(), host: None, status: None, body }
    }
}

/// `ADDRESS [DEVICE]`, the device without the number of its alias.
fn address(text: &str) -> Option<(Ipv4Addr, Option<String>)> {
    let mut words = text.split_whitespace();
    let address = words.next()?.parse().ok()?;
    let device = words.next().map(|device| device.split(':').next().unwrap_or(device).to_owned());
    Some((address, device))
}

/// Without the quotes around it, with the signs that \r, \n and the like stand for.
fn unquote(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

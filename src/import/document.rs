//! A draft as the tables and keys of a file of tapvs, each with what is to be said about it. Which
//! words tapvs has for what a source means is decided here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::draft::{
    Draft, Failover, Health, Host, Method, Persistence, Question, Route, Server, Service, Target,
};
use super::layout::{Layout, Network};
use super::remark::{Files, Notes, Place, Remark};
use super::{Options, START};

/// A file of tapvs.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// What the file says about itself.
    pub(super) head: Vec<String>,
    pub(super) notes: Notes,
    pub(super) items: Vec<Item>,
}

/// A table with its keys.
#[derive(Debug)]
pub(super) struct Item {
    /// As in the file, such as `[[service]]`.
    pub(super) header: &'static str,
    pub(super) place: Place,
    pub(super) notes: Notes,
    pub(super) settings: Vec<Setting>,
    pub(super) children: Vec<Self>,
    /// Written as a comment, with all that belongs to it.
    pub(super) is_off: bool,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    /// In TOML.
    pub(super) value: String,
    pub(super) comment: Option<String>,
    /// Without it the whole table makes no sense.
    pub(super) is_required: bool,
    /// Written as a comment.
    pub(super) is_off: bool,
}

impl Item {
    fn new(header: &'static str, place: Place) -> Self {
        let (notes, settings, children) = (Notes::default(), Vec::new(), Vec::new());
        Self { header, place, notes, settings, children, is_off: false }
    }

    fn required(&mut self, key: &'static str, value: impl Into<String>) {
        self.set(key, value);
        if let Some(setting) = self.settings.last_mut() {
            setting.is_required = true;
        }
    }

    fn set(&mut self, key: &'static str, value: impl Into<String>) {
        let (value, comment) = (value.into(), None);
        self.settings.push(Setting { key, value, comment, is_required: false, is_off: false });
    }

    /// A comment beside the last key.
    fn say(&mut self, comment: impl Into<String>) {
        if let Some(setting) = self.settings.last_mut() {
            setting.comment = Some(comment.into());
        }
    }

    /// Turns the whole table into a comment.
    pub(super) fn turn_off(&mut self, why: &str) {
        self.notes.lost(self.place, why);
        self.is_off = true;
    }

    /// Turns one key into a comment, or the table if it needs it.
    pub(super) fn turn_off_key(&mut self, key: &str, why: &str) {
        match self.settings.iter_mut().find(|setting| setting.key == key && !setting.is_off) {
            Some(setting) if !setting.is_required => {
                setting.is_off = true;
                self.notes.lost(self.place, format_args!("{key} = {}: {why}", setting.value));
            }
            _ => self.turn_off(why),
        }
    }

    fn collect(&self, files: &Files, into: &mut Vec<(Place, Remark)>) {
        into.extend(self.notes.remarks(files));
        for child in &self.children {
            child.collect(files, into);
        }
    }
}

impl Document {
    /// Every remark of it.
    pub(super) fn remarks(&self, files: &Files) -> Vec<(Place, Remark)> {
        let mut remarks: Vec<_> = self.notes.remarks(files).collect();
        for item in &self.items {
            item.collect(files, &mut remarks);
        }
        remarks
    }
}

/// What a value is marked with that the source does not have.
const CHANGE: &str = "CHANGE:";

pub(super) fn compose(draft: Draft, mut layout: Layout, options: &Options) -> Document {
    let head = vec![
        format!("Made by `tapvs import` from {}, read as {}.", options.file, options.kind),
        format!(
            "What is marked `{CHANGE}` is not in the source and was guessed. Then: tapvs check THIS-FILE"
        ),
    ];
    let mut document = Document { head, notes: draft.notes, items: Vec::new() };
    document.notes.append(std::mem::take(&mut layout.notes));
    let taps = Taps::new(&layout.networks);
    document.items.push(router(draft.name, &draft.timeouts));
    for (network, tap) in layout.networks.iter().zip(&taps.0) {
        document.items.push(network_item(network, tap));
    }
    document.items.extend(draft.routes.iter().map(route));
    let places: HashMap<_, _> =
        draft.virtual_ips.iter().map(|vip| (vip.address, vip.place)).collect();
    for (address, position) in &layout.virtual_ips {
        let place = places.get(address).copied().unwrap_or(START);
        let mut item = Item::new("[[virtual_ip]]", place);
        item.required("address", quoted(&address.to_string()));
        if layout.marks.values().any(|mark| mark == address) {
            item.say(format!("{CHANGE} stands for what netfilter marks"));
        }
        let network = layout.networks.get(*position).map_or("", |network| &network.name);
        item.required("network", quoted(network));
        document.items.push(item);
    }
    if let Some(failover) = draft.failover {
        document.items.extend(role(failover, &layout));
    }
    document
        .items
        .extend(draft.services.into_iter().map(|service| self::service(service, &layout)));
    document
}

/// The TAP devices' names, one for each network.
struct Taps(Vec<String>);

impl Taps {
    /// Not one of the NICs: a source may have a `tapvs0` too.
    fn new(networks: &[Network]) -> Self {
        let is_nic =
            |name: &str| networks.iter().any(|network| network.nic.as_deref() == Some(name));
        let names = (0_u32..).map(|number| format!("tapvs{number}")).filter(|name| !is_nic(name));
        Self(names.take(networks.len()).collect())
    }
}

fn router(name: Option<(String, Place)>, timeouts: &[(&'static str, u64)]) -> Item {
    let place = name.as_ref().map_or(START, |(_, place)| *place);
    let mut item = Item::new("[router]", place);
    match name {
        Some((name, place)) => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let changed: String =
                name.chars().take(64).map(|c| if allowed(c) { c } else { '-' }).collect();
            if changed != name {
                item.notes
                    .note(place, format_args!("the name {name:?} has signs that tapvs's has not"));
            }
            item.set("name", quoted(&changed));
        }
        None => {
            item.set("name", quoted("lvs1"));
            item.say(format!("{CHANGE} each router has its own"));
        }
    }
    if !timeouts.is_empty() {
        let values = timeouts.iter().map(|(key, seconds)| format!("{key} = \"{seconds}s\""));
        item.set("timeouts", format!("{{ {} }}", values.collect::<Vec<_>>().join(", ")));
    }
    item
}

fn network_item(network: &Network, tap: &str) -> Item {
    let mut item = Item::new("[[network]]", START);
    item.required("name", quoted(&network.name));
    match &network.nic {
        Some(nic) => {
            item.required(
                "links",
                format!("[{{ tap = {}, attach = {} }}]", quoted(tap), quoted(nic)),
            );
            item.say(
                "joins the TAP device and the NIC; the NIC must not carry addresses of the host",
            );
        }
        None => {
            item.required("links", format!("[{}]", quoted(tap)));
            item.say(format!(
                "{CHANGE} how this network is reached, such as [{{ tap = {}, attach = \"eth0\" }}]",
                quoted(tap)
            ));
        }
    }
    let text =
        |own: &super::layout::Own| quoted(&format!("{}/{}", own.prefix.address, own.prefix.length));
    let addresses: Vec<_> = network.addresses.iter().map(text).collect();
    item.required("addresses", format!("[{}]", addresses.join(", ")));
    if network.addresses.iter().any(|own| !own.known) {
        item.say(format!("{CHANGE} the router's own, which nobody else has"));
    }
    item
}

fn route(route: &Route) -> Item {
    let mut item = Item::new("[[route]]", route.place);
    item.required("to", quoted(&format!("{}/{}", route.to.network(), route.to.length)));
    item.required("via", quoted(&route.via.to_string()));
    item
}

/// `[failover]` and what belongs to it.
fn role(failover: Failover, layout: &Layout) -> Vec<Item> {
    let mut item = Item::new("[failover]", failover.place);
    item.notes = failover.notes;
    let version = if failover.version == 2 { 2 } else { 3 };
    item.set("version", version.to_string());
    if version == 2 {
        item.say("once both routers are tapvs: 3, with advert_interval = \"100ms\"");
    }
    item.set("priority", failover.priority.unwrap_or(100).to_string());
    if failover.priority.is_none() {
        item.say("the default of VRRP");
    }
    let step = if version == 2 { 1_000 } else { 10 };
    let interval = failover.advert_interval.div_ceil(step).max(1).saturating_mul(step);
    if interval != failover.advert_interval {
        item.notes.note(
            failover.place,
            format_args!(
                "an advert every {} ms: version {version} counts in steps of {step} ms",
                failover.advert_interval
            ),
        );
    }
    item.set("advert_interval", quoted(&milliseconds(interval)));
    item.set("preempt", failover.preempt.to_string());
    if failover.preempt_delay > 0 {
        item.set("preempt_delay", quoted(&milliseconds(failover.preempt_delay)));
    }
    let mut members: Vec<(usize, Option<u8>, Place)> = Vec::new();
    for (interface, id, place) in &failover.routers {
        let by_nic = |network: &Network| network.nic.as_deref() == Some(interface);
        if let Some(position) = layout.networks.iter().position(by_nic) {
            members.push((position, Some(*id), *place));
        }
    }
    for (_, position) in &layout.virtual_ips {
        if !members.iter().any(|(known, ..)| known == position) {
            members.push((*position, None, failover.place));
        }
    }
    let mut ids =
        (1..=255).rev().filter(|id| !failover.routers.iter().any(|(_, used, _)| used == id));
    let mut items = Vec::new();
    for (position, id, place) in members {
        let mut member = Item::new("[[failover.network]]", place);
        let name = layout.networks.get(position).map_or("", |network| &network.name);
        member.required("network", quoted(name));
        match id {
            Some(id) => member.required("virtual_router_id", id.to_string()),
            None => {
                let id = ids.next().unwrap_or(255);
                member.required("virtual_router_id", id.to_string());
                member.say(format!("{CHANGE} one that nobody else has there"));
            }
        }
        items.push(member);
    }
    if let Some((interface, peer, place)) = failover.sync {
        items.push(sync(interface.as_deref(), peer, place, layout));
    }
    items.insert(0, item);
    items
}

/// Written as a comment: the key that both routers share is not for a file to make up.
fn sync(interface: Option<&str>, peer: Option<Ipv4Addr>, place: Place, layout: &Layout) -> Item {
    let mut item = Item::new("[failover.sync]", place);
    let by_nic = |network: &&Network| interface.is_some() && network.nic.as_deref() == interface;
    let by_peer = |network: &&Network| {
        let mut own = network.addresses.iter();
        peer.is_some_and(|peer| own.any(|own| own.prefix.contains(peer)))
    };
    let mut networks = layout.networks.iter();
    let network = networks.clone().find(by_nic).or_else(|| networks.clone().find(by_peer));
    let network = network.or_else(|| networks.next());
    item.set("network", quoted(network.map_or("", |network| &network.name)));
    let peer = peer.map_or_else(|| "ADDRESS".to_owned(), |peer| peer.to_string());
    item.set("peer", quoted(&peer));
    item.say(format!("{CHANGE} the other router's own address in that network"));
    item.set("key", quoted("64 HEX DIGITS"));
    item.say(format!("{CHANGE} made by: openssl rand -hex 32"));
    item.turn_off(
        "connections are copied by tapvs's own protocol, to a tapvs, with a key: fill in peer and key",
    );
    item
}

fn service(mut service: Service, layout: &Layout) -> Item {
    let mut item = Item::new("[[service]]", service.place);
    choose_method(&mut service);
    if let Some(name) = &service.name {
        item.set("name", quoted(name));
    }
    item.required("protocol", quoted(&service.protocol));
    let port = address(&mut item, &service, layout);
    item.set("method", quoted(service.method.word()));
    item.set("scheduler", quoted(&service.scheduler));
    if !service.flags.is_empty() {
        let flags: Vec<_> = service.flags.iter().map(|flag| quoted(flag)).collect();
        item.set("scheduler_flags", format!("[{}]", flags.join(", ")));
    }
    if let Some(Persistence { timeout, prefix }) = service.persistence {
        let prefix = if prefix == 32 { String::new() } else { format!(", prefix = {prefix}") };
        item.set("persistence", format!("{{ timeout = \"{timeout}s\"{prefix} }}"));
    }
    if service.one_packet {
        item.set("one_packet", "true");
    }
    if is_ftp(&service) {
        item.set("helper", quoted("ftp"));
        item.say("what the kernel's ip_vs_ftp does");
    }
    if let Some(check) = &service.health {
        item.set("health", health(check));
    }
    if let Some(fallback) = service.fallback.take() {
        item.notes.append(fallback.notes.clone());
        fallback_key(&mut item, &fallback, &service);
    }
    item.notes.append(std::mem::take(&mut service.notes));
    if let Some(why) = service.off.take() {
        item.turn_off(&why);
    }
    item.children =
        service.servers.iter().map(|server| self::server(server, &service, port)).collect();
    item
}

/// The control port of FTP, by NAT: ip_vs_ftp would help.
fn is_ftp(service: &Service) -> bool {
    let port = matches!(service.target, Target::Address(_, 21));
    port && service.protocol == "tcp" && service.method == Method::Nat
}

/// A service of tapvs has one method for all of its servers.
fn choose_method(service: &mut Service) {
    let methods = || service.servers.iter().map(|server| server.method);
    let usable = methods().find(|method| *method != Method::Tunnel);
    match usable {
        Some(method) => service.method = method,
        None if methods().next().is_some() => service.method = Method::Tunnel,
        None => {}
    }
    if service.method == Method::Tunnel && service.off.is_none() {
        service.off = Some("tunnelling: not there; give it another method".to_owned());
    }
    let chosen = service.method;
    for server in &mut service.servers {
        if server.method != chosen && server.off.is_none() {
            server.off = Some(format!(
                "method {}: a service has one for all of its servers, here {}",
                server.method.word(),
                chosen.word()
            ));
        }
    }
}

/// Writes what clients connect to; gives the port.
fn address(item: &mut Item, service: &Service, layout: &Layout) -> u16 {
    match &service.target {
        Target::Address(address, port) => {
            item.required("address", quoted(&address.to_string()));
            item.required("port", port.to_string());
            if *port == 0 {
                item.say("every port");
            }
            if let Some(mark) = service.mark {
                group(item, service, mark);
            }
            *port
        }
        Target::Unknown(name, port) => {
            item.required("address", quoted(name));
            item.required("port", port.to_string());
            *port
        }
        Target::Mark(mark) => {
            let checked = service.health.as_ref().and_then(|health| health.port);
            let served = || service.servers.iter().find_map(|server| server.port);
            let port = checked.or_else(served).filter(|port| *port != 0).unwrap_or(80);
            let address = layout.marks.get(mark).copied().unwrap_or(Ipv4Addr::new(192, 0, 2, 254));
            item.required("address", quoted(&address.to_string()));
            item.say(format!("{CHANGE} and protocol, port: what netfilter marks with {mark}"));
            item.required("port", port.to_string());
            group(item, service, *mark);
            port
        }
    }
}

/// Many addresses, protocols or ports as one service: what people use marks for.
fn group(item: &mut Item, service: &Service, mark: u32) {
    item.set("group", quoted(&format!("fwmark-{mark}")));
    item.say("one more [[service]] with this group for each further address, protocol or port");
    item.notes.lost(
        service.place,
        format_args!(
            "firewall mark {mark}: marks are made by netfilter, which has the addresses, protocols and ports; \
             write them here (iptables -t mangle -S or nft list ruleset shows them)"
        ),
    );
}

fn server(server: &Server, service: &Service, port: u16) -> Item {
    let mut item = Item::new("[[service.server]]", server.place);
    if let Some(name) = &server.name {
        item.set("name", quoted(name));
    }
    item.required("address", quoted(&host(&server.host)));
    match (service.method, server.port.filter(|port| *port != 0)) {
        (Method::Nat, Some(its)) if its != port => item.set("port", its.to_string()),
        (Method::Direct | Method::Tunnel, Some(its)) if its != port && port != 0 => {
            item.notes.note(
                server.place,
                format_args!("port {its}: only NAT changes the port; the service's is used"),
            );
        }
        _ => {}
    }
    let weight = server.weight.min(u64::from(u16::MAX));
    if weight != server.weight {
        item.notes.lost(server.place, format_args!("weight {}: 65535 is the most", server.weight));
    }
    item.set("weight", weight.to_string());
    if server.most > 0 {
        item.set("max_flows", server.most.to_string());
    }
    if server.least > 0 {
        item.set("min_flows", server.least.to_string());
    }
    item.notes.append(server.notes.clone());
    if let Some(why) = &server.off {
        item.turn_off(why);
    }
    item
}

fn fallback_key(item: &mut Item, fallback: &Server, service: &Service) {
    let mut value = format!("{{ address = {}", quoted(&host(&fallback.host)));
    if let (Method::Nat, Some(port)) = (service.method, fallback.port.filter(|port| *port != 0)) {
        value += &format!(", port = {port}");
    }
    item.set("fallback", value + " }");
    let why = match fallback.method {
        method if method == service.method => fallback.off.as_deref(),
        _ => Some("its method is not the service's"),
    };
    if let Some(why) = why {
        item.turn_off_key("fallback", why);
    }
}

fn host(host: &Host) -> String {
    match host {
        Host::Address(IpAddr::V4(address)) => address.to_string(),
        Host::Address(IpAddr::V6(address)) => address.to_string(),
        Host::Unknown(name) => name.clone(),
    }
}

/// `{ kind = "tcp", interval = "6s", ... }`
fn health(health: &Health) -> String {
    let mut parts = Vec::new();
    let mut add = |key: &str, value: String| parts.push(format!("{key} = {value}"));
    match &health.question {
        Question::Tcp => add("kind", quoted("tcp")),
        Question::Ping => add("kind", quoted("ping")),
        Question::Http { path, host, status, body } => {
            add("kind", quoted("http"));
            add("path", quoted(path));
            let texts = [("host", host), ("status", status), ("body", body)];
            for (key, text) in texts {
                if let Some(text) = text {
                    add(key, quoted(text));
                }
            }
        }
        Question::Udp { payload, answer } => {
            add("kind", quoted("udp"));
            if !payload.is_empty() {
                add("payload", bytes(payload));
            }
            if let Some(answer) = answer {
                add("answer", bytes(answer));
            }
        }
    }
    if let (Some(port), false) = (health.port, health.question == Question::Ping) {
        add("port", port.to_string());
    }
    add("interval", quoted(&milliseconds(health.interval)));
    add("timeout", quoted(&milliseconds(health.timeout)));
    add("fall", health.fall.to_string());
    add("rise", health.rise.to_string());
    if health.initially_down {
        add("initial", quoted("down"));
    }
    format!("{{ {} }}", parts.join(", "))
}

/// As text where it is one.
fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() || "\r\n\t".contains(c)) => quoted(text),
        _ => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{{ hex = {} }}", quoted(&digits))
        }
    }
}

fn milliseconds(millis: u64) -> String {
    if millis.is_multiple_of(1_000) {
        format!("{}s", millis / 1_000)
    } else {
        format!("{millis}ms")
    }
}

/// A string of TOML on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_they_were() {
        for text in
            ["", "a\"b\\c", "GET / HTTP/1.0\r\n\r\n", "\u{0}\u{7f}\u{85}é", "'''", "\\u0041"]
        {
            let line = format!("x = {}", quoted(text));
            let table: toml::Table = line.parse().unwrap();
            assert_eq!(table["x"].as_str(), Some(text), "{line}");
        }
    }
}

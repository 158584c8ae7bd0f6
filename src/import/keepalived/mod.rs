//! keepalived.conf, with the keywords of keepalived 2.2.7. docs/keepalived-compatibility.md has a line for
//! each that is about virtual servers or VRRP.

mod checker;
mod text;
mod tree;
mod virtual_server;
mod vrrp;

use std::net::Ipv4Addr;

use self::tree::Statement;
use super::draft::{Draft, Prefix, Route, VirtualIp};
use super::remark::{Files, Notes, Place, quote};
use super::{ImportError, Surroundings};

/// Words that a statement of the whole file begins with.
const TOP: [&str; 26] = [
    "global_defs",
    "virtual_server",
    "virtual_server_group",
    "vrrp_instance",
    "vrrp_sync_group",
    "vrrp_script",
    "vrrp_track_process",
    "vrrp_track_file",
    "track_file",
    "track_process",
    "bfd_instance",
    "static_ipaddress",
    "static_routes",
    "static_rules",
    "static_track_group",
    "linkbeat_interfaces",
    "linkbeat_use_polling",
    "interface_up_down_delays",
    "garp_group",
    "SSL",
    "net_namespace",
    "net_namespace_ipvs",
    "instance",
    "use_pid_dir",
    "include",
    "namespace_with_ipsets",
];

pub(super) fn is_top_word(word: &str) -> bool {
    TOP.contains(&word) || word.starts_with('@') || word.starts_with('$')
}

pub(super) fn read(
    text: &str,
    config_id: Option<&str>,
    files: &mut Files,
    surroundings: &mut dyn Surroundings,
) -> Result<Draft, ImportError> {
    let mut draft = Draft::default();
    let lines = text::lines(text, config_id, files, surroundings, &mut draft.notes)?;
    let statements = tree::build(lines, &mut draft.notes);
    let globals = Globals::of(&statements);
    let mut vrrp = vrrp::Reader::new(&globals);
    let groups = virtual_server::Groups::of(&statements, &mut draft.notes);
    let mut size = 0;
    for statement in &statements {
        match statement.keyword() {
            "global_defs" => global_defs(statement, &mut draft),
            "virtual_server" => virtual_server::read(statement, &groups, &mut draft, &mut size),
            "virtual_server_group" => {}
            "vrrp_instance" => vrrp.instance(statement, &mut draft),
            "vrrp_sync_group" => vrrp.group(statement, &mut draft.notes),
            "static_ipaddress" => static_addresses(statement, &globals, &mut draft),
            "static_routes" => {
                for route in statement.statements() {
                    self::route(route, &globals, &mut draft);
                }
            }
            _ => lose(&mut draft.notes, statement),
        }
    }
    vrrp.finish(&mut draft);
    Ok(draft)
}

/// What holds for the whole file and is needed while it is read.
struct Globals {
    interface: String,
    version: u8,
}

impl Globals {
    fn of(statements: &[Statement]) -> Self {
        let mut globals = Self { interface: "eth0".to_owned(), version: 2 };
        let definitions = statements.iter().filter(|s| s.keyword() == "global_defs");
        for statement in definitions.flat_map(Statement::statements) {
            match statement.keyword() {
                "default_interface" => statement.word(1).clone_into(&mut globals.interface),
                "vrrp_version" => globals.version = statement.word(1).parse().unwrap_or(2),
                _ => {}
            }
        }
        globals
    }
}

fn global_defs(block: &Statement, draft: &mut Draft) {
    for statement in block.statements() {
        let place = statement.place;
        match statement.keyword() {
            "router_id" => draft.name = Some((statement.word(1).to_owned(), place)),
            "default_interface" => {}
            "vrrp_version" if matches!(statement.word(1), "2" | "3") => {}
            "lvs_timeouts" => timeouts(statement, draft),
            "lvs_sync_daemon" => draft.notes.lost(
                place,
                format_args!(
                    "{}: tapvs copies connections by its own protocol; see [failover.sync]",
                    statement.shown()
                ),
            ),
            _ => lose(&mut draft.notes, statement),
        }
    }
}

/// `lvs_timeouts [tcp N] [tcpfin N] [udp N]`
fn timeouts(statement: &Statement, draft: &mut Draft) {
    for pair in statement.rest().chunks(2) {
        let [name, value] = pair else {
            draft.notes.lost(statement.place, statement.shown());
            continue;
        };
        let key = match name.as_str() {
            "tcp" => "established",
            "tcpfin" => "fin_wait",
            "udp" => "udp",
            _ => "",
        };
        match value.parse::<u64>() {
            Ok(seconds) if !key.is_empty() => {
                let kept = seconds.clamp(1, 24 * 60 * 60);
                if kept != seconds {
                    draft.notes.lost(
                        statement.place,
                        format_args!("a timeout of {seconds} s: 1 s to 24 h"),
                    );
                }
                draft.timeouts.retain(|(known, _)| *known != key);
                draft.timeouts.push((key, kept));
            }
            _ => draft.notes.lost(statement.place, quote(&pair.join(" "))),
        }
    }
}

/// Notes that a statement is not in the result, and why if that is known.
fn lose(notes: &mut Notes, statement: &Statement) {
    let shown = statement.shown();
    match reason(statement.keyword()) {
        Some(why) => notes.lost(statement.place, format_args!("{shown}: {why}")),
        None => notes.lost(statement.place, shown),
    }
}

/// Why a keyword has no counterpart.
fn reason(keyword: &str) -> Option<&'static str> {
    const REASONS: [(&str, &str); 40] = [
        ("notification_email", "no mail is sent; the log and the metrics tell"),
        ("smtp_", "no mail is sent; the log and the metrics tell"),
        ("no_email_faults", "no mail is sent"),
        ("no_checker_emails", "no mail is sent"),
        ("email_", "no mail is sent"),
        ("notify", "no scripts are run; the log, `tapvs status` and the metrics tell"),
        ("vrrp_notify_", "no scripts are run"),
        ("lvs_notify_", "no scripts are run"),
        ("fifo_", "no scripts are run"),
        ("quorum_up", "no scripts are run; the log, `tapvs status` and the metrics tell"),
        ("quorum_down", "no scripts are run; the log, `tapvs status` and the metrics tell"),
        ("script", "no scripts are run"),
        ("enable_script_security", "no scripts are run"),
        ("startup_script", "no scripts are run"),
        ("shutdown_script", "no scripts are run"),
        (
            "vrrp_script",
            "no scripts are run; `min_healthy` and `track_gateway` are what gives up the role",
        ),
        (
            "track_script",
            "no scripts are run; `min_healthy` and `track_gateway` are what gives up the role",
        ),
        ("vrrp_track_", "files and processes are not watched"),
        ("track_file", "files are not watched"),
        ("track_process", "processes are not watched"),
        ("track_bfd", "BFD is not spoken; adverts 10 ms apart find as fast"),
        ("bfd_", "BFD is not spoken; adverts 10 ms apart find as fast"),
        ("snmp_", "there is no SNMP; metrics are on the status page"),
        ("enable_snmp", "there is no SNMP; metrics are on the status page"),
        ("enable_traps", "there is no SNMP"),
        ("enable_dbus", "there is no D-Bus interface; the control socket answers"),
        ("dbus_", "there is no D-Bus interface"),
        ("vrrp_garp", "announcements have their own times"),
        ("vrrp_gna", "IPv6 is not there yet"),
        ("vrrp_min_garp", "announcements have their own times"),
        ("garp_", "announcements have their own times"),
        ("vrrp_mcast_group", "adverts go to 224.0.0.18"),
        ("static_rules", "routing goes by destination alone"),
        ("virtual_rules", "routing goes by destination alone"),
        ("nftables", "no netfilter is used"),
        ("vrrp_iptables", "no netfilter is used"),
        ("vrrp_ipsets", "no netfilter is used"),
        ("net_namespace", "start tapvs in the namespace"),
        ("SSL", "checks do not speak TLS"),
        ("interface_up_down_delays", "a link that fails counts at once"),
    ];
    /// Settings of keepalived's own processes: nothing to carry over, but said all the same.
    const OWN: [&str; 19] = [
        "use_pid_dir",
        "instance",
        "child_wait_time",
        "process_name",
        "bfd_",
        "checker_",
        "vrrp_priority",
        "vrrp_no_swap",
        "vrrp_rlimit",
        "vrrp_rt_",
        "vrrp_cpu_",
        "vrrp_netlink",
        "vrrp_rx_bufs",
        "lvs_netlink",
        "max_auto_priority",
        "min_auto_priority",
        "reload_",
        "tmp_config",
        "config_save",
    ];
    let found = REASONS.iter().find(|(start, _)| keyword.starts_with(start)).map(|(_, why)| *why);
    found.or_else(|| {
        let is_own = OWN.iter().any(|start| keyword.starts_with(start));
        is_own.then_some("a setting of keepalived's own processes")
    })
}

/// An address as keepalived writes one: the address, its prefix length if given, and the device.
struct Addressed {
    address: Ipv4Addr,
    length: Option<u8>,
    device: Option<String>,
}

/// `ADDRESS[/LENGTH] [dev NAME] ...`; says what else there is.
fn addressed(statement: &Statement, notes: &mut Notes) -> Option<Addressed> {
    let text = statement.keyword();
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => {
            (address, Some(length.parse().ok().filter(|length| *length <= 32)))
        }
        None => (text, None),
    };
    let (Ok(address), Some(length)) = (address.parse(), length.map_or(Some(None), |l| l.map(Some)))
    else {
        let why = if text.contains(':') { ": IPv6 is not there yet" } else { "" };
        notes.lost(statement.place, format_args!("{}{why}", statement.shown()));
        return None;
    };
    let mut device = None;
    let mut words = statement.rest().iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "dev" => device = words.next().cloned(),
            // The kernel's own notes on an address.
            "brd" | "label" | "scope" | "broadcast" => {
                let value = words.next().map_or("", String::as_str);
                notes.note(
                    statement.place,
                    format_args!("{word} {value}: an address has none here"),
                );
            }
            _ => notes
                .lost(statement.place, format_args!("{} of {}", quote(word), statement.shown())),
        }
    }
    Some(Addressed { address, length, device })
}

fn static_addresses(block: &Statement, globals: &Globals, draft: &mut Draft) {
    for statement in block.statements() {
        let mut notes = Notes::default();
        if let Some(Addressed { address, length, device }) = addressed(statement, &mut notes) {
            let device = device.unwrap_or_else(|| globals.interface.clone());
            let prefix = Prefix::new(address, length.filter(|length| *length < 31).unwrap_or(24));
            if let Some(known) = draft.interface(&device, statement.place) {
                known.own.push(prefix);
            }
        }
        draft.notes.append(notes);
    }
}

/// A line of `static_routes` or `virtual_routes`.
fn route(statement: &Statement, globals: &Globals, draft: &mut Draft) {
    let place = statement.place;
    let (mut to, mut via, mut device, mut is_partial) = (None, None, None, Vec::new());
    let mut words = statement.words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "to" => {}
            "via" | "gw" if via.is_none() => via = words.next(),
            "dev" => device = words.next(),
            "default" if to.is_none() => to = Some("0.0.0.0/0"),
            _ if to.is_none() && word.starts_with(|c: char| c.is_ascii_digit()) => to = Some(word),
            _ => is_partial.push(word),
        }
    }
    // A source address is followed by one, which is not the destination.
    if let Some(at) = is_partial.iter().position(|word| *word == "src") {
        let source = to.take();
        is_partial.insert(at + 1, source.unwrap_or_default());
        let rest =
            statement.words.iter().map(String::as_str).skip_while(|word| *word != "src").skip(2);
        to = rest.clone().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        is_partial.retain(|word| Some(*word) != to);
    }
    let prefix = to.and_then(|to| {
        let (address, length) = to.split_once('/').unwrap_or((to, "32"));
        let length = length.parse::<u8>().ok().filter(|length| *length <= 32)?;
        Some(Prefix::new(address.parse::<Ipv4Addr>().ok()?, length))
    });
    let never =
        ["blackhole", "unreachable", "prohibit", "throw", "table", "nexthop", "inet6", "vrf"];
    let refused = is_partial.iter().find(|word| never.contains(word));
    let (Some(prefix), None) = (prefix, refused) else {
        let why = refused.map_or("", |_| ": only a plain route by one next hop can be written");
        return draft.notes.lost(place, format_args!("{}{why}", statement.shown()));
    };
    if !is_partial.is_empty() {
        let words = quote(&is_partial.join(" "));
        draft.notes.lost(place, format_args!("{words} of {}", statement.shown()));
    }
    match (via.map(str::parse), device) {
        (Some(Ok(via)), _) => draft.routes.push(Route { to: prefix, via, place }),
        // A prefix that lies on a link is a network of its own.
        (None, Some(device)) if (8..=30).contains(&prefix.length) => {
            if let Some(known) = draft.interface(device, place) {
                known.prefixes.push(prefix);
            }
            draft.notes.note(
                place,
                format_args!("{}: the router needs an address of its own there", statement.shown()),
            );
        }
        _ => draft.notes.lost(
            place,
            format_args!(
                "{}: a route needs a next hop (default device {})",
                statement.shown(),
                globals.interface
            ),
        ),
    }
}

/// Adds a virtual address, and what it tells about its interface.
fn virtual_address(found: Addressed, interface: &str, place: Place, draft: &mut Draft) {
    let device = found.device.as_deref().unwrap_or(interface);
    if let Some(known) = draft.interface(device, place)
        && let Some(length) = found.length.filter(|length| *length < 31)
    {
        known.prefixes.push(Prefix::new(found.address, length));
    }
    let (address, interface) = (found.address, Some(device.to_owned()));
    if !draft.add_virtual_ip(VirtualIp { address, interface, place }) {
        draft.notes.lost(place, format_args!("{address} is given twice"));
    }
}

//! `[[service]]` and its servers.

use std::net::{IpAddr, Ipv4Addr};

use super::{CHANGE, health};
use crate::import::document::{Item, quoted};
use crate::import::draft::{Host, Method, Persistence, Server, Service, Target};
use crate::import::layout::Layout;

pub(super) fn compose(mut service: Service, layout: &Layout) -> Item {
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
        item.set("health", health::value(check));
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

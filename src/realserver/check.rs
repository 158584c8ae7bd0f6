//! `check`: what is there, what is missing and what is in the way, one finding per line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use super::error::Error;
use super::kernel::{Kernel, answers_arp};
use super::listeners::listener;
use super::method::Method;
use super::needs;
use super::plan::{Plan, Request, Service};
use super::record::Folder;
use super::step::{Key, Step};
use super::{Found, Machine};
use crate::addr::Proto;
use crate::links::check_net_admin;

/// What `check` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The method that it was measured by; none if none is in place.
    pub method: Option<Method>,
    /// The interface that ARP was looked at on.
    pub interface: String,
    /// One per line.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub state: State,
    /// What it is.
    pub what: String,
    /// What is there instead, or would help; may be empty.
    pub detail: String,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    There,
    /// Not there.
    Missing,
    /// There, and should not be.
    InTheWay,
}

impl Report {
    /// Whether all is as it should be.
    pub fn is_right(&self) -> bool {
        self.findings.iter().all(|finding| finding.state == State::There)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::There => "there",
            Self::Missing => "missing",
            Self::InTheWay => "in the way",
        })
    }
}

/// Looks at this machine, in the calling thread's network namespace. Without a method: the one that
/// is recorded, else the first that is in place.
pub fn check(method: Option<Method>, request: &Request, folder: &Folder) -> Result<Report, Error> {
    let kernel = Kernel::new()?;
    let report =
        |method, findings| Report { method, interface: request.interface.clone(), findings };
    if let Some(method) = method {
        let plan = needs::resolve(&kernel, method, request)?;
        return Ok(report(Some(method), findings(&kernel, &plan)?));
    }
    let records = folder.load_all()?;
    let recorded = Method::ALL.map(|method| records.iter().any(|r| r.method == method));
    for (method, recorded) in Method::ALL.into_iter().zip(recorded) {
        // Redirect cannot be looked for without a port.
        if method == Method::Redirect && request.ports.is_empty() {
            continue;
        }
        let plan = needs::resolve(&kernel, method, request)?;
        if recorded || is_in_place(&kernel, &plan)? {
            return Ok(report(Some(method), findings(&kernel, &plan)?));
        }
    }
    Ok(report(None, without_method(&kernel, request)?))
}

/// Whether the method's own steps are all there.
fn is_in_place(kernel: &Kernel, plan: &Plan) -> Result<bool, Error> {
    if needs::installed(plan.method).is_err() {
        return Ok(false);
    }
    Ok(steps(kernel, plan)?.iter().all(|finding| finding.state == State::There))
}

fn findings(kernel: &Kernel, plan: &Plan) -> Result<Vec<Finding>, Error> {
    let mut findings = match needs::installed(plan.method) {
        Ok(()) => steps(kernel, plan)?,
        Err(_) => {
            let name = plan.method.program().unwrap_or_default();
            vec![missing(format!("the program {name}"), "not installed")]
        }
    };
    for obstacle in needs::obstacles(kernel, plan)? {
        findings.push(in_the_way(obstacle.what, obstacle.remedy));
    }
    if kernel.link(&plan.interface)?.is_some_and(|link| !link.up) {
        findings.push(missing(format!("{} up", plan.interface), "it is down"));
    }
    findings.extend(reverse_path(kernel, &plan.interface)?);
    findings.extend(plan.services.iter().map(|service| listening(plan, *service)));
    Ok(findings)
}

fn steps(kernel: &Kernel, plan: &Plan) -> Result<Vec<Finding>, Error> {
    if plan.method.program().is_some() {
        check_net_admin()?;
    }
    let mut findings = Vec::new();
    if plan.method == Method::Sysctl {
        for key in Key::ALL {
            findings.push(effective(kernel, key, &plan.interface)?);
        }
    }
    for step in plan.steps.iter().filter(|step| !matches!(step, Step::Sysctl { .. })) {
        findings.push(match kernel.find(step)? {
            Found::There => there(step, ""),
            Found::Missing(how) => missing(step, how),
            Found::Different(how) => in_the_way(step, how),
        });
    }
    Ok(findings)
}

/// A sysctl as the kernel takes it: the larger of `all` and the interface.
fn effective(kernel: &Kernel, key: Key, interface: &str) -> Result<Finding, Error> {
    let value = |of| kernel.sysctl(&key.path(of)).map(|value| value.unwrap_or_else(|| "0".into()));
    let (all, own) = (value("all")?, value(interface)?);
    let larger = larger(&all, &own);
    let what = format!("{} = {}", key.name(), key.value());
    let detail = format!("{larger} on {interface}: the larger of all ({all}) and its own ({own})");
    Ok(if key.suffices(&larger) { there(what, detail) } else { missing(what, detail) })
}

fn larger(all: &str, own: &str) -> String {
    let number = |text: &str| text.parse::<i32>().unwrap_or(0);
    number(all).max(number(own)).to_string()
}

/// Requests that come in by an interface which answers do not leave by: strict filtering drops them.
fn reverse_path(kernel: &Kernel, interface: &str) -> Result<Option<Finding>, Error> {
    let path = |of| format!("net/ipv4/conf/{of}/rp_filter");
    let value = |of| kernel.sysctl(&path(of)).map(|value| value.unwrap_or_else(|| "0".into()));
    let larger = larger(&value("all")?, &value(interface)?);
    let routes = kernel.default_routes()?;
    if larger != "1" || routes.is_empty() || routes.iter().any(|route| route == interface) {
        return Ok(None);
    }
    let others = routes.join(", ");
    let detail = format!(
        "strict, and the default route leaves by {others}: clients behind it are dropped; \
         sysctl -w {}=2",
        if interface.contains('.') { path(interface) } else { path(interface).replace('/', ".") }
    );
    Ok(Some(in_the_way(format!("rp_filter = 1 on {interface}"), detail)))
}

/// Whether somebody waits for the service's packets, at the address they have when they are handed
/// up.
fn listening(plan: &Plan, service: Service) -> Finding {
    let Service { vip, protocol, port } = service;
    let address = if plan.method.holds_vip() { vip } else { plan.address };
    let what = format!("a listener for {service}");
    match listener(protocol, address, port) {
        None => missing(what, format!("nobody listens at {address} port {port}")),
        Some(at) => there(what, at_address(at, protocol, plan.method)),
    }
}

fn at_address(at: IpAddr, protocol: Proto, method: Method) -> String {
    if !at.is_unspecified() {
        return format!("at {at}");
    }
    // A UDP socket at every address answers from whatever the route says, unless it asks.
    match protocol {
        Proto::Udp if method.holds_vip() => {
            format!("at {at}: it must answer from the address that was asked (IP_PKTINFO)")
        }
        Proto::Udp | Proto::Tcp => format!("at {at}"),
    }
}

/// No method is in place: where the virtual IPs are, and what that means.
fn without_method(kernel: &Kernel, request: &Request) -> Result<Vec<Finding>, Error> {
    let finding = |vip: &Ipv4Addr| {
        let holders = kernel.holders(*vip)?;
        let Some(link) = holders.iter().find(|link| answers_arp(link)).or_else(|| holders.first())
        else {
            let detail = "on no interface, and no redirect was found";
            return Ok(missing(vip, detail));
        };
        let detail = "no method is in place: this server answers ARP for it";
        Ok(in_the_way(format!("{vip} on {}", link.name), detail))
    };
    request.vips.iter().map(finding).collect()
}

fn there(what: impl fmt::Display, detail: impl Into<String>) -> Finding {
    Finding { state: State::There, what: what.to_string(), detail: detail.into() }
}

fn missing(what: impl fmt::Display, detail: impl Into<String>) -> Finding {
    Finding { state: State::Missing, what: what.to_string(), detail: detail.into() }
}

fn in_the_way(what: impl fmt::Display, detail: impl Into<String>) -> Finding {
    Finding { state: State::InTheWay, what: what.to_string(), detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_value_counts_and_not_every_large_one_is_silent() {
        assert_eq!(larger("0", "1"), "1");
        assert_eq!(larger("2", "1"), "2");
        for (value, quiet) in [("0", false), ("1", true), ("2", true), ("3", false), ("8", true)] {
            assert_eq!(Key::ArpIgnore.suffices(value), quiet, "arp_ignore {value}");
        }
        for (value, quiet) in [("0", false), ("1", false), ("2", true), ("3", false)] {
            assert_eq!(Key::ArpAnnounce.suffices(value), quiet, "arp_announce {value}");
        }
    }

    #[test]
    fn a_udp_socket_at_every_address_is_warned_of_where_it_matters() {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let warned = |at, proto, method| at_address(at, proto, method).contains("IP_PKTINFO");
        assert!(warned(any, Proto::Udp, Method::Sysctl));
        assert!(!warned(any, Proto::Udp, Method::Redirect));
        assert!(!warned(any, Proto::Tcp, Method::Sysctl));
        assert!(!warned(Ipv4Addr::new(203, 0, 113, 10).into(), Proto::Udp, Method::Nft));
    }
}

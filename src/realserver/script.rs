//! `print`: the same steps as a script, to paste or to pipe into a shell on a server without tapvs.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use clap::ValueEnum;

use super::error::Error;
use super::kernel::Kernel;
use super::method::Method;
use super::plan::{Plan, Request};
use super::program::quoted;
use super::step::Step;

/// Which half is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The commands that prepare the server
    Apply,
    /// The commands that take it back
    Undo,
}

/// The commands of a method; both halves if `part` names none. Nothing of this machine is looked at
/// but the server's own address, where the commands need it and it is not given.
pub fn print(method: Method, request: &Request, part: Option<Part>) -> Result<String, Error> {
    request.validate()?;
    let address = match request.address {
        Some(address) => address,
        None if method.names_address() => own_address(request)?,
        None => Ipv4Addr::UNSPECIFIED, // no step names it
    };
    Ok(script(&Plan::new(method, request, address)?, part))
}

fn own_address(request: &Request) -> Result<Ipv4Addr, Error> {
    let kernel = Kernel::new()?;
    let interface = &request.interface;
    let all = match kernel.link(interface)? {
        Some(_) => kernel.addresses(interface)?,
        None => Vec::new(),
    };
    all.into_iter().find(|address| !request.vips.contains(address)).ok_or_else(|| {
        Error::Usage(format!(
            "the commands name the server's own address, and this machine has none on {interface}; \
             --address ADDRESS"
        ))
    })
}

fn script(plan: &Plan, part: Option<Part>) -> String {
    let mut text = String::new();
    if part != Some(Part::Undo) {
        apply(&mut text, plan);
    }
    if part.is_none() {
        text.push('\n');
    }
    if part != Some(Part::Apply) {
        undo(&mut text, plan);
    }
    text
}

fn apply(text: &mut String, plan: &Plan) {
    heading(text, plan, "apply");
    if let Some(sysctls) = sysctls(plan) {
        let file = memory(plan);
        line(text, "# What is there now, so that undo restores it.");
        line(text, &format!("[ -e {file} ] || sysctl {sysctls} >{file}"));
    }
    let mut why = "";
    for step in &plan.steps {
        if step.why() != why {
            why = step.why();
            line(text, &format!("# {why}"));
        }
        line(text, &step.command().to_string());
    }
}

fn undo(text: &mut String, plan: &Plan) {
    heading(text, plan, "undo");
    let table = plan.steps.iter().any(|step| step.table_rules().is_some());
    let steps = plan.steps.iter().rev().filter(|step| !(table && step.goes_with_its_table()));
    for command in steps.filter_map(Step::undo) {
        line(text, &command.to_string());
    }
    if sysctls(plan).is_some() {
        let file = memory(plan);
        line(text, &format!("sysctl -q -p {file} && rm {file}"));
    }
}

fn heading(text: &mut String, plan: &Plan, what: &str) {
    let vips: Vec<_> = plan.vips.iter().map(ToString::to_string).collect();
    let (method, interface, vips) = (plan.method, &plan.interface, vips.join(", "));
    line(text, &format!("# {what}: {method} on {interface} for {vips}"));
}

/// The sysctls that the plan writes, as arguments of one command.
fn sysctls(plan: &Plan) -> Option<String> {
    let names = plan.steps.iter().filter_map(|step| match step {
        Step::Sysctl { key, of } => Some(quoted(&key.dotted(of))),
        _ => None,
    });
    let names = names.collect::<Vec<_>>().join(" ");
    (!names.is_empty()).then_some(names)
}

/// Where a shell remembers them.
fn memory(plan: &Plan) -> String {
    quoted(&format!("/run/tapvs-realserver-{}.sysctl", plan.interface))
}

fn line(text: &mut String, line: &str) {
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Proto;

    fn printed(method: Method, interface: &str) -> String {
        let request = Request {
            vips: vec![Ipv4Addr::new(203, 0, 113, 10)],
            protocols: vec![Proto::Tcp],
            ports: vec![80],
            interface: interface.into(),
            address: Some(Ipv4Addr::new(10, 0, 0, 11)),
        };
        print(method, &request, None).unwrap()
    }

    #[test]
    fn sysctl_remembers_before_it_writes_and_adds_the_address_last() {
        assert_eq!(
            printed(Method::Sysctl, "eth0"),
            "\
# apply: sysctl on eth0 for 203.0.113.10
# What is there now, so that undo restores it.
[ -e /run/tapvs-realserver-eth0.sysctl ] || sysctl net.ipv4.conf.all.arp_ignore \
net.ipv4.conf.eth0.arp_ignore net.ipv4.conf.all.arp_announce net.ipv4.conf.eth0.arp_announce \
>/run/tapvs-realserver-eth0.sysctl
# Answer ARP only for addresses of the interface that the question came in by.
sysctl -w net.ipv4.conf.all.arp_ignore=1
sysctl -w net.ipv4.conf.eth0.arp_ignore=1
# Ask with an address of the interface that the question leaves by, never with the virtual IP.
sysctl -w net.ipv4.conf.all.arp_announce=2
sysctl -w net.ipv4.conf.eth0.arp_announce=2
# The virtual IP, now that nobody will hear of it.
ip address add 203.0.113.10/32 dev lo

# undo: sysctl on eth0 for 203.0.113.10
ip address del 203.0.113.10/32 dev lo
sysctl -q -p /run/tapvs-realserver-eth0.sysctl && rm /run/tapvs-realserver-eth0.sysctl
"
        );
        let vlan = printed(Method::Sysctl, "eth0.100");
        assert!(vlan.contains("sysctl -w net/ipv4/conf/eth0.100/arp_ignore=1"), "{vlan}");
    }

    #[test]
    fn arptables_filters_before_the_address_is_there() {
        assert_eq!(
            printed(Method::Arptables, "eth0"),
            "\
# apply: arptables on eth0 for 203.0.113.10
# Do not hear questions for the virtual IP.
arptables -I INPUT -d 203.0.113.10 -j DROP
# Do not speak as the virtual IP: questions and answers name the server itself.
arptables -I OUTPUT -s 203.0.113.10 -j mangle --mangle-ip-s 10.0.0.11
# The virtual IP, now that nobody will hear of it.
ip address add 203.0.113.10/32 dev eth0

# undo: arptables on eth0 for 203.0.113.10
ip address del 203.0.113.10/32 dev eth0
arptables -D OUTPUT -s 203.0.113.10 -j mangle --mangle-ip-s 10.0.0.11
arptables -D INPUT -d 203.0.113.10 -j DROP
"
        );
    }

    #[test]
    fn a_table_goes_as_a_whole() {
        let nft = printed(Method::Nft, "eth0");
        assert!(nft.contains("arp saddr ip @vips arp saddr ip set 10.0.0.11\n"), "{nft}");
        assert!(nft.contains("\nnft add element arp tapvs_realserver vips '{ 203.0.113.10 }'\n"));
        let undo = nft.split_once("# undo").unwrap().1;
        assert_eq!(
            undo.lines().skip(1).collect::<Vec<_>>(),
            ["ip address del 203.0.113.10/32 dev eth0", "nft delete table arp tapvs_realserver"]
        );
        let redirect = printed(Method::Redirect, "eth0");
        assert!(redirect.contains("services '{ 203.0.113.10 . tcp . 80 }'\n"), "{redirect}");
        assert!(!redirect.contains("ip address"), "{redirect}");
        assert!(redirect.ends_with("\nnft delete table ip tapvs_realserver\n"), "{redirect}");
    }
}

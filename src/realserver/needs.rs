//! What a method needs of the machine, asked before anything is changed.

use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::path::Path;

use super::error::Error;
use super::kernel::{Kernel, answers_arp};
use super::method::Method;
use super::plan::{Plan, Request};
use super::program::{self, Command};
use super::step::Step;
use crate::links::{Namespace, check_net_admin};

/// The plan for this machine: with its interface, and the address that it has there.
pub(super) fn resolve(kernel: &Kernel, method: Method, request: &Request) -> Result<Plan, Error> {
    request.validate()?;
    let interface = &request.interface;
    if interface == "lo" {
        let words = "--interface lo: the interface towards the router is meant";
        return Err(Error::Usage(words.into()));
    }
    if kernel.link(interface)?.is_none() {
        let there = kernel.links()?.join(", ");
        let words =
            format!("there is no interface {interface} here, but {there}; --interface NAME");
        return Err(Error::Lacks(words));
    }
    let address = own_address(kernel, request)?;
    Plan::new(method, request, address)
}

/// The server's own address on the interface: arp_announce and `redirect` need one as well, or the
/// kernel takes another one, which may be the virtual IP.
fn own_address(kernel: &Kernel, request: &Request) -> Result<Ipv4Addr, Error> {
    let interface = &request.interface;
    let mut all = kernel.addresses(interface)?;
    all.retain(|address| !request.vips.contains(address));
    let Some(asked) = request.address else {
        return all.first().copied().ok_or_else(|| {
            let words = "has no IPv4 address of its own, which it must speak from";
            Error::Lacks(format!("{interface} {words}"))
        });
    };
    if all.contains(&asked) {
        return Ok(asked);
    }
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    let there =
        if all.is_empty() { "has none".to_owned() } else { format!("has {}", all.join(", ")) };
    Err(Error::Lacks(format!("--address {asked} is no address of {interface}, which {there}")))
}

/// Whether the plan can be carried out here, as far as can be told without doing it.
pub(super) fn ready(kernel: &Kernel, plan: &Plan) -> Result<(), Error> {
    check_net_admin()?;
    if let Some(obstacle) = obstacles(kernel, plan)?.into_iter().next() {
        return Err(Error::InTheWay(format!("{}: {}", obstacle.what, obstacle.remedy)));
    }
    installed(plan.method)?;
    match plan.method {
        Method::Sysctl => plan.steps.iter().try_for_each(writable),
        Method::Arptables => rehearse(plan),
        Method::Nft | Method::Redirect => try_table(plan),
    }
}

/// Whether the method's program is installed.
pub(super) fn installed(method: Method) -> Result<(), Error> {
    match method.program() {
        Some(name) if program::find(name).is_none() => {
            let package = if name == "nft" { "nftables" } else { name };
            let words = format!("{method} needs the program `{name}`, which is not installed");
            Err(Error::Lacks(format!("{words}; its package is usually called {package}")))
        }
        _ => Ok(()),
    }
}

/// An address in a place where the method cannot keep it quiet.
#[derive(Debug)]
pub(super) struct Obstacle {
    pub(super) what: String,
    pub(super) remedy: String,
}

/// Virtual IPs that the method cannot keep quiet where they are.
pub(super) fn obstacles(kernel: &Kernel, plan: &Plan) -> Result<Vec<Obstacle>, Error> {
    let mut obstacles = Vec::new();
    for vip in &plan.vips {
        for link in kernel.holders(*vip)? {
            let why = match plan.method {
                Method::Sysctl if answers_arp(&link) => "it is answered for there",
                Method::Redirect => "redirect wants it on no interface",
                Method::Sysctl | Method::Arptables | Method::Nft => continue,
            };
            let (what, name) = (format!("{vip} on {}", link.name), &link.name);
            let remedy = format!("{why}; take it away: ip address del {vip}/PREFIX dev {name}");
            obstacles.push(Obstacle { what, remedy });
        }
    }
    Ok(obstacles)
}

/// In a container `/proc/sys` may be there to read only.
fn writable(step: &Step) -> Result<(), Error> {
    let Step::Sysctl { key, of } = step else { return Ok(()) };
    let file = Path::new("/proc/sys").join(key.path(of));
    match OpenOptions::new().write(true).open(&file) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Lacks(format!("{} cannot be written: {error}", file.display()))),
    }
}

/// Puts the rules into a namespace that goes at once: only a rule tells whether its kernel module is
/// there. Where no namespace can be made, the table at least is looked at.
fn rehearse(plan: &Plan) -> Result<(), Error> {
    let rules = plan.steps.iter().filter(|step| step.look().is_some());
    try_command(plan, &Command::new("arptables", ["-L", "INPUT", "-n"]), None)?;
    let Ok(elsewhere) = Namespace::new() else { return Ok(()) };
    rules.map(Step::command).try_for_each(|rule| try_command(plan, &rule, Some(&elsewhere)))
}

/// Has nft and the kernel judge the tables without making them.
fn try_table(plan: &Plan) -> Result<(), Error> {
    let tables = plan.steps.iter().filter(|step| step.table_rules().is_some());
    tables
        .map(|step| step.command().with_option("-c"))
        .try_for_each(|command| try_command(plan, &command, None))
}

fn try_command(plan: &Plan, command: &Command, there: Option<&Namespace>) -> Result<(), Error> {
    let said = command.run(there)?;
    if said.success {
        return Ok(());
    }
    let (method, words) = (plan.method, said.words);
    Err(Error::Lacks(format!("{method} does not work on this machine: `{command}`: {words}")))
}

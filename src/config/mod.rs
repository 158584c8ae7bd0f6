//! TOML text to a [`Config`] that cannot be wrong. Reads no files and hides no defaults:
//! `configs/nat.toml` shows each of them.
//!
//! `section` walks the TOML tree and refuses keys that nobody asked for; `router`, `network`,
//! `virtual_ip`, `route`, `service`, `status_page` and `failover` each read their part and hold its rules; `addressing` is what
//! the parts must know of one another. Nobody stops at the first mistake.

mod addressing;
mod balance;
mod duration;
mod failover;
mod front;
mod health;
mod lifecycle;
mod masquerade;
mod mistake;
mod model;
mod network;
mod route;
mod router;
mod section;
mod service;
mod status_page;
mod suggest;
mod syntax;
mod timeouts;
mod virtual_ip;
mod words;

pub use failover::{
    AdvertChecksum, Failover, FailoverNetwork, FlowSync, SyncKey, VrrpVersion, virtual_mac,
};
pub(crate) use mistake::quote;
pub use mistake::{Mistake, Mistakes};
pub use model::{
    Attach, AttachMode, Balance, Bridge, Config, Defend, FlowLimits, Forward, Group, Health,
    Helper, HttpCheck, Inquiry, Io, Lifecycle, Link, Masquerade, Member, Method, Network, Nic,
    OnDown, OnRemove, PassiveHealth, Persistence, Route, Router, Scheduler, SchedulerFlags, Server,
    Service, StatusCodes, StatusPage, Timeouts, UdpCheck, Unserved, VirtualIp,
};

use std::collections::HashSet;

use addressing::Addressing;
use mistake::Notes;
use section::Section;

/// The longest text that is read, in bytes. 10,000 services with ten servers each take half of it.
pub const LONGEST: usize = 16 << 20;

/// Reads a configuration, or says everything that is wrong with it.
pub fn parse(text: &str) -> Result<Config, Mistakes> {
    if text.len() > LONGEST {
        return Err(Mistakes::whole_file(format!(
            "has {} bytes; a configuration has at most {LONGEST}",
            text.len()
        )));
    }
    let notes = Notes::default();
    let table = syntax::parse(text, &notes);
    let config = read(Section::root(&notes, table.get_ref()));
    notes.conclude(text, config)
}

/// Every part in the order in which they need one another. After a mistake the result is a
/// placeholder that nobody gets to see.
fn read(mut root: Section<'_>) -> Config {
    // What is not TOML may have been any of these.
    let lost = root.place.is_broken();
    let mut known = Addressing::new(lost);
    let router = router::read(root.section("router"));
    let (networks, gateways) = network::read(&mut root, &mut known);
    let virtual_ips = virtual_ip::read(&mut root, &networks, &mut known);
    let routes = route::read(&mut root, &gateways, &mut known);
    let masquerades = masquerade::read(&mut root, &known);
    let services = service::read(&mut root, &known, router.timeouts);
    let status_page = status_page::read(&mut root, &known);
    let failover = failover::read(&mut root, &networks, &virtual_ips, &known);
    root.finish();
    Config { router, networks, routes, virtual_ips, masquerades, services, status_page, failover }
}

/// A label: what people call something in commands and logs.
fn label(text: &str) -> Option<String> {
    const LONGEST: usize = 64;
    let fits = (1..=LONGEST).contains(&text.chars().count());
    let clean = text.trim() == text && !text.chars().any(char::is_control);
    (fits && clean).then(|| text.to_owned())
}

/// What is expected of a label.
const LABEL: &str = "a name of 1 to 64 characters, without space at its ends";

/// Refuses what is in `taken`, which `name` joins; `rule` says what would be right.
fn take(taken: &mut HashSet<String>, name: &str, rule: &str) -> Result<(), String> {
    if taken.insert(name.to_owned()) {
        Ok(())
    } else {
        Err(format!("{} is taken; {rule}", quote(name)))
    }
}

#[cfg(test)]
mod tests;

//! This machine, in the network namespace of the calling thread: what is there, and changing it.

use std::net::{IpAddr, Ipv4Addr};

use super::error::Error;
use super::step::{Change, Key, Step};
use super::{Found, Machine};
use crate::addr::Cidr;
use crate::links::netlink::Link;
use crate::links::{LinkError, Netlink, namespace};

/// The kernel's side of a real server.
#[derive(Debug)]
pub(super) struct Kernel {
    netlink: Netlink,
}

/// What became of a change that was to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reverted {
    Done,
    /// Somebody has taken it back already.
    Gone,
    /// Somebody has changed it since: it is theirs now. Says to what.
    Left(String),
}

impl Kernel {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { netlink: Netlink::new()? })
    }

    /// The interface; `None` when there is none of that name.
    pub(super) fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        match self.netlink.link(name) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of all interfaces.
    pub(super) fn links(&self) -> Result<Vec<String>, Error> {
        Ok(self.netlink.links()?.into_iter().map(|link| link.name).collect())
    }

    /// The IPv4 addresses of an interface, in the kernel's order.
    pub(super) fn addresses(&self, interface: &str) -> Result<Vec<Ipv4Addr>, Error> {
        let all = self.netlink.addresses(interface)?.into_iter().map(Cidr::address);
        let ipv4 = all.filter_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        Ok(ipv4.collect())
    }

    /// The interfaces that hold an address.
    pub(super) fn holders(&self, address: Ipv4Addr) -> Result<Vec<Link>, Error> {
        let mut holders = Vec::new();
        for link in self.netlink.links()? {
            if self.addresses(&link.name)?.contains(&address) {
                holders.push(link);
            }
        }
        Ok(holders)
    }

    /// The interfaces that default routes leave by.
    pub(super) fn default_routes(&self) -> Result<Vec<String>, Error> {
        Ok(self.netlink.default_route_links()?)
    }

    /// A sysctl's value; `None` where there is no such sysctl.
    pub(super) fn sysctl(&self, path: &str) -> Result<Option<String>, Error> {
        match namespace::read_sysctl(path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Failed(error.to_string())),
        }
    }

    fn write(&self, key: Key, of: &str, value: &str) -> Result<(), Error> {
        namespace::write_sysctl(&key.path(of), value)
            .map_err(|error| Error::Failed(error.to_string()))
    }

    fn find_address(&self, vip: Ipv4Addr, interface: &str) -> Result<Found, Error> {
        let holders = self.holders(vip)?;
        // Behind a filter any interface will do; on lo it has to be lo, or a dummy like it.
        let there = if interface == "lo" {
            holders.iter().any(|link| !answers_arp(link))
        } else {
            !holders.is_empty()
        };
        Ok(if there { Found::There } else { Found::Missing("not there".into()) })
    }

    fn revert_sysctl(&self, key: Key, of: &str, before: &str) -> Result<Reverted, Error> {
        match self.sysctl(&key.path(of))? {
            None => Ok(Reverted::Gone),
            Some(value) if value == key.value() => {
                self.write(key, of, before).map(|()| Reverted::Done)
            }
            Some(value) if value == before => Ok(Reverted::Gone),
            Some(value) => Ok(Reverted::Left(format!("it is {value} now"))),
        }
    }
}

impl Machine for Kernel {
    fn find(&self, step: &Step) -> Result<Found, Error> {
        match step {
            Step::Sysctl { key, of } => Ok(match self.sysctl(&key.path(of))? {
                Some(value) if key.suffices(&value) => Found::There,
                Some(value) => Found::Missing(value),
                None => Found::Different("no such interface".into()),
            }),
            Step::Address { vip, interface } => self.find_address(*vip, interface),
            Step::DropArp { .. }
            | Step::MangleArp { .. }
            | Step::ArpTable { .. }
            | Step::ArpVip { .. }
            | Step::NatTable
            | Step::NatService(_) => find_rules(step),
        }
    }

    fn carry_out(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Sysctl { key, of } => self.write(*key, of, key.value()),
            Step::Address { vip, interface } => {
                Ok(self.netlink.add_address(interface, host(*vip))?)
            }
            Step::DropArp { .. }
            | Step::MangleArp { .. }
            | Step::ArpTable { .. }
            | Step::ArpVip { .. }
            | Step::NatTable
            | Step::NatService(_) => {
                let said = step.command().run(None)?;
                if said.success { Ok(()) } else { Err(Error::Failed(said.words)) }
            }
        }
    }

    fn revert(&self, change: &Change) -> Result<Reverted, Error> {
        match &change.step {
            Step::Sysctl { key, of } => {
                self.revert_sysctl(*key, of, change.before.as_deref().unwrap_or("0"))
            }
            Step::Address { vip, interface } => {
                match self.netlink.delete_address(interface, host(*vip)) {
                    Ok(()) => Ok(Reverted::Done),
                    Err(error) if is_gone(&error) => Ok(Reverted::Gone),
                    Err(error) => Err(error.into()),
                }
            }
            step => {
                if !matches!(self.find(step)?, Found::There | Found::Different(_)) {
                    return Ok(Reverted::Gone);
                }
                let Some(command) = step.undo() else { return Ok(Reverted::Gone) };
                let said = command.run(None)?;
                if said.success { Ok(Reverted::Done) } else { Err(Error::Failed(said.words)) }
            }
        }
    }
}

/// Whether the kernel answers ARP for the addresses of the interface that was asked.
pub(super) fn answers_arp(link: &Link) -> bool {
    link.name != "lo" && link.kind != "dummy"
}

/// The interface has gone, or its address.
fn is_gone(error: &LinkError) -> bool {
    error.is_missing() || error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

fn host(vip: Ipv4Addr) -> Cidr {
    Cidr::new(vip.into(), 32).unwrap_or(Cidr::EVERY_IPV4)
}

/// A table, a set's element or a rule, as its program tells.
fn find_rules(step: &Step) -> Result<Found, Error> {
    let missing = || Found::Missing("not there".into());
    let Some(look) = step.look() else { return Ok(missing()) };
    let said = look.run(None)?;
    Ok(match step {
        Step::DropArp { .. } | Step::MangleArp { .. } if !said.success => {
            return Err(Error::Failed(format!("`{look}`: {}", said.words)));
        }
        Step::DropArp { .. } | Step::MangleArp { .. } => {
            if said.output.lines().any(|line| is_rule(line, &step.rule())) {
                Found::There
            } else {
                missing()
            }
        }
        _ if said.success => match lacking_line(step, &said.output) {
            None => Found::There,
            Some(line) => Found::Different(format!("it has no rule `{line}`")),
        },
        // nft names what is not there; anything else is a refusal.
        _ if said.words.contains("No such file or directory") => missing(),
        _ => return Err(Error::Failed(format!("`{look}`: {}", said.words))),
    })
}

/// Whether a line of `arptables -L` is a rule of exactly these options, in whatever order.
fn is_rule(line: &str, rule: &[[String; 2]]) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let wanted = |pair: &[&str]| rule.iter().any(|[option, value]| pair == [option, value]);
    words.len() == rule.len() * 2 && words.chunks(2).all(wanted)
}

/// The first rule of the table that the listing of the one that is there does not have.
fn lacking_line(step: &Step, listing: &str) -> Option<String> {
    let wanted = step.table_rules()?;
    wanted.into_iter().find(|rule| !listing.lines().any(|line| line.trim() == rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_known_in_the_words_of_both_arptables() {
        let vip = Ipv4Addr::new(203, 0, 113, 10);
        let address = Ipv4Addr::new(10, 0, 0, 11);
        let drop = Step::DropArp { vip }.rule();
        let mangle = Step::MangleArp { vip, address }.rule();
        assert!(is_rule("-j DROP -d 203.0.113.10 ", &drop));
        assert!(is_rule("-d 203.0.113.10 -j DROP", &drop));
        assert!(is_rule("-j mangle -s 203.0.113.10 --mangle-ip-s 10.0.0.11 ", &mangle));
        for other in [
            "",
            "Chain INPUT (policy ACCEPT)",
            "-j DROP -d 203.0.113.11",
            "-j DROP -d 203.0.113.10 -i eth1",
            "-j ACCEPT -d 203.0.113.10",
            "-j DROP",
        ] {
            assert!(!is_rule(other, &drop), "{other}");
        }
    }

    #[test]
    fn a_table_with_another_rule_is_another() {
        let listing = "table arp tapvs_realserver {\n\tchain input {\n\t\tarp daddr ip @vips drop\n\
                       \t}\n\tchain output {\n\t\tarp saddr ip @vips arp saddr ip set 10.0.0.11\n";
        let table = |last| Step::ArpTable { address: Ipv4Addr::new(10, 0, 0, last) };
        assert_eq!(lacking_line(&table(11), listing), None);
        let lacking = lacking_line(&table(12), listing).unwrap();
        assert!(lacking.ends_with("set 10.0.0.12"), "{lacking}");
        assert!(lacking_line(&Step::NatTable, listing).is_some());
    }
}

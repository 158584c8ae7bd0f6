//! `vrrp_instance` and `vrrp_sync_group`: keepalived has a role for each instance, tapvs one for the whole
//! router, over all of its networks.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::checker::seconds;
use super::tree::Statement;
use super::{Globals, addressed, lose, route, virtual_address};
use crate::import::draft::{Draft, Failover, Prefix};
use crate::import::remark::{Notes, Place, quote};

/// Reads the instances of a file, one after the other.
pub(super) struct Reader<'g> {
    globals: &'g Globals,
    instances: Vec<Instance>,
    /// Instances that a group holds together; the largest group.
    together: HashSet<String>,
    peer: Option<(Option<String>, Option<Ipv4Addr>, Place)>,
    own: Vec<(String, Ipv4Addr, Place)>,
    notes: Notes,
}

#[derive(Debug)]
struct Instance {
    name: String,
    place: Place,
    interface: String,
    id: Option<u8>,
    priority: Option<u8>,
    version: u8,
    advert_interval: u64,
    preempts: bool,
    preempt_delay: u64,
    has_addresses: bool,
}

impl<'g> Reader<'g> {
    pub(super) fn new(globals: &'g Globals) -> Self {
        let (instances, together, own) = (Vec::new(), HashSet::new(), Vec::new());
        Self { globals, instances, together, peer: None, own, notes: Notes::default() }
    }

    pub(super) fn group(&mut self, block: &Statement, notes: &mut Notes) {
        let mut members = HashSet::new();
        for statement in block.statements() {
            match statement.keyword() {
                "group" => {
                    members.extend(statement.statements().iter().map(|s| s.keyword().to_owned()))
                }
                "sync_group_tracking_weight" | "global_tracking" => notes.note(
                    statement.place,
                    format_args!("{}: there is one role, whatever is watched", statement.shown()),
                ),
                // Before version 1.2 the names stood there by themselves.
                _ if statement.words.len() == 1 && statement.keyword().starts_with("VI") => {
                    members.insert(statement.keyword().to_owned());
                }
                _ => lose(notes, statement),
            }
        }
        if members.len() > self.together.len() {
            self.together = members;
        }
    }

    pub(super) fn instance(&mut self, block: &Statement, draft: &mut Draft) {
        let interface = block.statements().iter().find(|s| s.keyword() == "interface");
        let interface = interface.map_or(self.globals.interface.as_str(), |s| s.word(1)).to_owned();
        let mut instance = Instance {
            name: block.word(1).to_owned(),
            place: block.place,
            interface,
            id: None,
            priority: None,
            version: self.globals.version,
            advert_interval: 1_000,
            preempts: true,
            preempt_delay: 0,
            has_addresses: false,
        };
        for statement in block.statements() {
            self.statement(statement, &mut instance, draft);
        }
        self.instances.push(instance);
    }

    fn statement(&mut self, statement: &Statement, instance: &mut Instance, draft: &mut Draft) {
        let (word, place, notes) = (statement.word(1), statement.place, &mut self.notes);
        let number = word.parse::<u8>();
        match (statement.keyword(), number) {
            // Where a router starts from: priority alone decides.
            ("interface" | "state", _) => {}
            ("virtual_router_id", Ok(id)) => instance.id = Some(id),
            ("priority", Ok(priority)) => instance.priority = Some(priority),
            ("version", Ok(version @ 2..=3)) => instance.version = version,
            ("advert_int", _) => {
                if let Some(interval) = seconds(statement, notes) {
                    instance.advert_interval = interval;
                }
            }
            ("nopreempt", _) => instance.preempts = false,
            ("preempt", _) => instance.preempts = true,
            ("preempt_delay", _) => {
                if let Some(delay) = seconds(statement, notes) {
                    instance.preempt_delay = delay;
                }
            }
            ("virtual_ipaddress" | "virtual_ipaddress_excluded", _) => {
                for address in statement.statements() {
                    if let Some(found) = addressed(address, notes) {
                        instance.has_addresses = true;
                        virtual_address(found, &instance.interface, address.place, draft);
                    }
                }
            }
            ("virtual_routes", _) => {
                for line in statement.statements() {
                    notes.note(line.place, format_args!("{}: there in either role", line.shown()));
                    route(line, self.globals, draft);
                }
            }
            ("use_vmac", _) => {
                notes.note(place, "use_vmac: virtual IPs always have the virtual MAC, without a device for it");
            }
            ("accept", _) => {}
            ("track_interface", _) => self.track_interface(statement, instance),
            ("unicast_src_ip" | "mcast_src_ip", _) => match word.parse() {
                Ok(address) => self.own.push((instance.interface.clone(), address, place)),
                Err(_) => notes.lost(place, statement.shown()),
            },
            ("unicast_peer", _) => {
                let peer = statement.statements().iter().find_map(|s| s.keyword().parse().ok());
                self.peer.get_or_insert_with(|| (Some(instance.interface.clone()), peer, place));
                notes.lost(place, format_args!("{}: adverts are multicast", statement.shown()));
            }
            ("lvs_sync_daemon_interface" | "lvs_sync_daemon_inteface", _) => {
                self.peer.get_or_insert_with(|| (Some(word.to_owned()), None, place));
            }
            ("authentication", _) => notes.lost(
                place,
                "authentication: passwords of VRRPv2 are not there; take it away from the other router too, or \
                 sign adverts with authenticate_adverts of [failover.sync]",
            ),
            ("no_accept" | "strict_mode", _) => notes.lost(
                place,
                format_args!("{}: services need their virtual IPs answered for", statement.shown()),
            ),
            _ => lose(notes, statement),
        }
    }

    fn track_interface(&mut self, block: &Statement, instance: &Instance) {
        for statement in block.statements() {
            let has_weight = statement.words.len() > 1;
            if statement.keyword() == instance.interface && !has_weight {
                continue;
            }
            self.notes.lost(
                statement.place,
                format_args!(
                    "track_interface {}: the links of networks are watched, and a failed one ends the role; \
                     weights are not there",
                    quote(&statement.words.join(" "))
                ),
            );
        }
    }

    /// Makes one role of all instances.
    pub(super) fn finish(mut self, draft: &mut Draft) {
        let without = |instance: &Instance| !instance.has_addresses;
        for instance in self.instances.extract_if(.., |instance| without(instance)) {
            self.notes.lost(
                instance.place,
                format_args!(
                    "vrrp_instance {}: it has no IPv4 address that moves",
                    quote(&instance.name)
                ),
            );
        }
        self.own_addresses(draft);
        let Some(first) = self.instances.first() else {
            draft.notes.append(self.notes);
            return;
        };
        let mut failover = Failover {
            place: first.place,
            version: first.version,
            priority: first.priority,
            advert_interval: first.advert_interval,
            preempt: first.preempts,
            preempt_delay: first.preempt_delay,
            routers: Vec::new(),
            sync: self.peer,
            notes: self.notes,
        };
        let notes = &mut failover.notes;
        let mut interfaces: HashSet<&str> = HashSet::new();
        for instance in &self.instances {
            let (place, name) = (instance.place, quote(&instance.name));
            match instance.id {
                Some(0) | None => notes.lost(place, format_args!("vrrp_instance {name} has no virtual_router_id")),
                Some(id) if interfaces.insert(&instance.interface) => {
                    failover.routers.push((instance.interface.clone(), id, place));
                }
                Some(id) => notes.lost(
                    place,
                    format_args!(
                        "virtual_router_id {id} of {name}: a network has one; the addresses move with those of the \
                         first instance on {}",
                        instance.interface
                    ),
                ),
            }
            differences(instance, first, notes);
        }
        let is_apart = |instance: &Instance| !self.together.contains(&instance.name);
        if self.instances.len() > 1 && self.instances.iter().any(is_apart) {
            notes.note(
                first.place,
                "the instances are not all in one vrrp_sync_group: tapvs has one role for the whole router, and \
                 all addresses move together",
            );
        }
        draft.failover = Some(failover);
    }

    /// The router's own addresses lie in the prefixes that virtual ones were given with.
    fn own_addresses(&mut self, draft: &mut Draft) {
        for (interface, address, place) in std::mem::take(&mut self.own) {
            let Some(known) = draft.interface(&interface, place) else { continue };
            if known.own.iter().any(|own| own.address == address) {
                continue;
            }
            let around = known.prefixes.iter().find(|prefix| prefix.contains(address));
            let length = around.map_or(24, |prefix| prefix.length);
            known.own.push(Prefix::new(address, length));
        }
    }
}

/// What an instance has that the role of the first has not.
fn differences(instance: &Instance, first: &Instance, notes: &mut Notes) {
    let (place, name) = (instance.place, quote(&instance.name));
    let mut one = |what: String| {
        notes.lost(
            place,
            format_args!(
                "{what} of {name}: the router has one role, with that of the first instance"
            ),
        );
    };
    if instance.priority != first.priority {
        one(format!("priority {}", instance.priority.unwrap_or(100)));
    }
    if instance.version != first.version {
        one(format!("version {}", instance.version));
    }
    if instance.advert_interval != first.advert_interval {
        one(format!("an advert every {} ms", instance.advert_interval));
    }
    if instance.preempts != first.preempts {
        one((if instance.preempts { "preempt" } else { "nopreempt" }).to_owned());
    }
    if instance.preempt_delay != first.preempt_delay {
        one(format!("preempt_delay of {} ms", instance.preempt_delay));
    }
}

//! Stations: the ARP of a stock Linux host, between one or more IP hosts and a switch.
//!
//! It answers for every address that it has on any interface, and asks with the source address of the
//! packet that waits (arp_ignore and arp_announce 0), everybody or, about an old entry, the MAC that it
//! knows: on a real server all of that betrays the virtual IP.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tapvs::addr::MacAddr;
use tapvs::time::{Duration, Instant};

use crate::host::Host;
use crate::support::{Read, is_at, who_has};

/// Packets that wait for a MAC.
const WAITING: usize = 3;
const ASK_AGAIN: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;

pub(crate) struct Station {
    pub(crate) mac: MacAddr,
    /// The link whose switch it is plugged into.
    pub(crate) link: usize,
    pub(crate) hosts: Vec<Host>,
    /// What it answers ARP for; the first is its own.
    addresses: Vec<Ipv4Addr>,
    /// Which of `hosts` has an address.
    homes: Vec<(Ipv4Addr, usize)>,
    gateway: Option<Ipv4Addr>,
    /// The /24 networks that it reaches without a gateway.
    pub(crate) near: &'static [[u8; 3]],
    habits: Habits,
    cache: BTreeMap<Ipv4Addr, Entry>,
    sent: Vec<Vec<u8>>,
}

/// How a station keeps its cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How long an entry is used without being confirmed.
    pub(crate) age: Duration,
    /// How long an answer holds against another one.
    pub(crate) lock: Duration,
    /// Whether the MAC of an old entry is used and asked on, as Linux does, or forgotten.
    pub(crate) asks_on: bool,
}

enum Entry {
    Asked { question: Question, waiting: Vec<Vec<u8>> },
    Known { mac: MacAddr, since: Instant, question: Option<Question> },
}

/// In whose name, how often yet, and when again.
#[derive(Clone, Copy)]
struct Question {
    by: Ipv4Addr,
    times: u8,
    next: Instant,
}

impl Station {
    pub(crate) fn new(
        (mac, link): (MacAddr, usize),
        addresses: &[Ipv4Addr],
        gateway: Option<Ipv4Addr>,
        hosts: Vec<(Vec<Ipv4Addr>, Host)>,
        habits: Habits,
    ) -> Self {
        let homes = hosts.iter().enumerate();
        let homes = homes.flat_map(|(at, (of, _))| of.iter().map(move |address| (*address, at)));
        Self {
            mac,
            link,
            addresses: addresses.to_vec(),
            homes: homes.collect(),
            gateway,
            near: &[[203, 0, 113], [10, 0, 0]],
            habits,
            cache: BTreeMap::new(),
            sent: Vec::new(),
            hosts: hosts.into_iter().map(|(_, host)| host).collect(),
        }
    }

    /// Its own address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.addresses[0]
    }

    /// Whether it has `address`.
    pub(crate) fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }

    /// The MAC that it sends to for `address`.
    pub(crate) fn cached(&self, address: Ipv4Addr, now: Instant) -> Option<MacAddr> {
        match self.cache.get(&address)? {
            Entry::Known { mac, since, .. } => {
                (self.habits.asks_on || now < *since + self.habits.age).then_some(*mac)
            }
            Entry::Asked { .. } => None,
        }
    }

    /// Takes a frame that its NIC lets through; whether it did.
    pub(crate) fn receive(&mut self, frame: &[u8], now: Instant) -> bool {
        let to = MacAddr::from_slice(frame);
        if to != self.mac && !to.is_multicast() {
            return false;
        }
        match frame[12..14] {
            [8, 6] if frame.len() >= 42 && frame[14..20] == [0, 1, 8, 0, 6, 4] => {
                self.hear(frame, now);
            }
            [8, 0] if frame.len() >= 34 => {
                let destination = address(frame, 30);
                if let Some((_, host)) = self.homes.iter().find(|(of, _)| *of == destination) {
                    self.hosts[*host].nic.received.push_back(frame[14..].to_vec());
                }
            }
            _ => {}
        }
        true
    }

    /// Lets the hosts work; what leaves.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        for at in 0..self.hosts.len() {
            self.hosts[at].poll(now);
            for packet in std::mem::take(&mut self.hosts[at].nic.sent) {
                self.send(packet, now);
            }
        }
        self.ask_again(now);
        std::mem::take(&mut self.sent)
    }

    pub(crate) fn next_poll(&mut self, now: Instant) -> Option<Instant> {
        let hosts = self.hosts.iter_mut().filter_map(|host| host.next_poll(now));
        let questions = self.cache.values().filter_map(|entry| match entry {
            Entry::Asked { question, .. } => Some(question.next),
            Entry::Known { question, .. } => question.map(|question| question.next),
        });
        hosts.chain(questions).min()
    }

    fn send(&mut self, packet: Vec<u8>, now: Instant) {
        let read = Read::packet(&packet).unwrap();
        let [a, b, c, _] = read.destination.octets();
        let on_link = self.near.contains(&[a, b, c]);
        let hop = if on_link { Some(read.destination) } else { self.gateway };
        let Some(hop) = hop else { return };
        let by = if self.has(read.source) { read.source } else { self.address() };
        let question = Question { by, times: 1, next: now + ASK_AGAIN };
        if let Some(mac) = self.cached(hop, now) {
            self.sent.push(frame(mac, self.mac, &packet));
            return self.doubt(hop, question, now);
        }
        if let Some(Entry::Asked { waiting, .. }) = self.cache.get_mut(&hop) {
            if waiting.len() < WAITING {
                waiting.push(packet);
            }
            return;
        }
        self.sent.push(who_has(hop, by, self.mac).frame());
        self.cache.insert(hop, Entry::Asked { question, waiting: vec![packet] });
    }

    /// An entry that is old is used, and the MAC that it names asked whether it still is right.
    fn doubt(&mut self, hop: Ipv4Addr, first: Question, now: Instant) {
        let Some(Entry::Known { mac, since, question }) = self.cache.get_mut(&hop) else { return };
        if now >= *since + self.habits.age && question.is_none() {
            *question = Some(first);
            let asks = who_has(hop, first.by, self.mac).with(|arp| arp.to = *mac);
            self.sent.push(asks.frame());
        }
    }

    /// Asks again what was not answered, a few times; what never is, is forgotten.
    fn ask_again(&mut self, now: Instant) {
        let mac = self.mac;
        let sent = &mut self.sent;
        self.cache.retain(|target, entry| {
            let (question, to) = match entry {
                Entry::Asked { question, .. } => (question, MacAddr::BROADCAST),
                Entry::Known { mac, question: Some(question), .. } => (question, *mac),
                Entry::Known { question: None, .. } => return true,
            };
            if now < question.next {
                return true;
            }
            (question.times, question.next) = (question.times + 1, now + ASK_AGAIN);
            if question.times <= TRIES {
                sent.push(who_has(*target, question.by, mac).with(|arp| arp.to = to).frame());
            }
            question.times <= TRIES
        });
    }

    /// What Linux does with ARP.
    fn hear(&mut self, frame: &[u8], now: Instant) {
        let (sender, target) = (address(frame, 28), address(frame, 38));
        let mac = MacAddr::from_slice(&frame[22..]);
        let asks = frame[21] == 1;
        if self.has(sender) || mac.is_multicast() {
            return;
        }
        if asks && self.has(target) {
            if !sender.is_unspecified() {
                self.learn(sender, mac, now);
            }
            return self.sent.push(is_at(target, self.mac, mac, sender).frame());
        }
        let locked = match self.cache.get(&sender) {
            Some(Entry::Known { since, mac: known, .. }) => {
                *known != mac && now < *since + self.habits.lock && sender != target
            }
            Some(Entry::Asked { .. }) => false,
            None => return,
        };
        if !locked {
            self.learn(sender, mac, now);
        }
    }

    fn learn(&mut self, address: Ipv4Addr, mac: MacAddr, now: Instant) {
        let known = Entry::Known { mac, since: now, question: None };
        if let Some(Entry::Asked { waiting, .. }) = self.cache.insert(address, known) {
            self.sent.extend(waiting.iter().map(|packet| frame(mac, self.mac, packet)));
        }
    }
}

fn address(frame: &[u8], at: usize) -> Ipv4Addr {
    <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into()
}

fn frame(to: MacAddr, from: MacAddr, packet: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[8, 0], packet].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

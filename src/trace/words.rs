//! A packet in the words that tcpdump made familiar.

use crate::addr::MacAddr;
use crate::frame::{Arp, Carries, Ethernet, Glance, GlanceIpv4, Icmp, Operation, Quoted};

/// A packet in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// `tcp`, `udp`, `icmp`, `arp`, `ipv6`, `ip` and a number, `ether` and an EtherType, or `runt`.
    pub protocol: String,
    /// Who sends it, with port.
    pub source: Option<String>,
    /// For whom it is, with port.
    pub destination: Option<String>,
    /// All of it, its length in bytes excepted.
    pub text: String,
}

/// The frame of which `bytes` are the beginning, in words.
pub fn words(bytes: &[u8]) -> Described {
    let Some(ethernet) = Ethernet::parse(bytes) else {
        let text = if bytes.is_empty() { "no packet: no room to make one" } else { "runt" };
        return Described { protocol: "runt".into(), text: text.into(), ..Described::default() };
    };
    match Glance::at(bytes) {
        Glance::Arp(message) => arp(&message),
        Glance::Ipv4(packet) => ipv4(&packet),
        Glance::Ipv6 { source, destination, next } => {
            let (source, destination) = (source.to_string(), destination.to_string());
            let text = format!("{source} > {destination} ipv6 next-header {next}");
            described("ipv6".into(), source, destination, text)
        }
        Glance::Runt | Glance::Other(_) => other(&ethernet),
    }
}

fn described(protocol: String, source: String, destination: String, text: String) -> Described {
    Described { protocol, source: Some(source), destination: Some(destination), text }
}

fn arp(message: &Arp) -> Described {
    let Arp { operation, sender_mac, sender, target, target_mac } = message;
    let text = match operation {
        Operation::Request if sender == target => {
            format!("arp announcement {sender} is-at {sender_mac}")
        }
        Operation::Request if sender.is_unspecified() => {
            format!("arp probe who-has {target} from {sender_mac}")
        }
        Operation::Request => format!("arp who-has {target} tell {sender} ({sender_mac})"),
        Operation::Reply => {
            format!("arp reply {sender} is-at {sender_mac} to {target} ({target_mac})")
        }
    };
    described("arp".into(), sender.to_string(), target.to_string(), text)
}

fn ipv4(packet: &GlanceIpv4) -> Described {
    let GlanceIpv4 { source, destination, protocol, fragment_offset, more_fragments, .. } = *packet;
    let name = protocol_name(protocol);
    let [from, to] = match packet.ports() {
        Some([from, to]) => [format!("{source}:{from}"), format!("{destination}:{to}")],
        None => [source.to_string(), destination.to_string()],
    };
    let mut text = format!("{from} > {to} {name}");
    match packet.carries {
        Carries::Tcp { sequence, acknowledgement, flags, window, payload, .. } => {
            text.push_str(&format!(" [{}] seq {sequence}", tcp_flags(flags)));
            if flags & 0x10 != 0 {
                text.push_str(&format!(" ack {acknowledgement}"));
            }
            text.push_str(&format!(" win {window} data {payload}"));
        }
        Carries::Udp { payload, .. } => text.push_str(&format!(" data {payload}")),
        Carries::Icmp { icmp, sequence, quoted } => {
            text.push(' ');
            text.push_str(&icmp_words(icmp, sequence));
            if let Some(Quoted { source, destination, protocol, ports: [from, to] }) = quoted {
                let name = protocol_name(protocol);
                text.push_str(&format!(" about {source}:{from} > {destination}:{to} {name}"));
            }
        }
        Carries::Other => {}
    }
    if fragment_offset > 0 || more_fragments {
        let more = if more_fragments { "+" } else { "" };
        text.push_str(&format!(" fragment at {fragment_offset}{more}"));
    }
    if packet.ttl <= 1 {
        text.push_str(&format!(" ttl {}", packet.ttl));
    }
    described(name, from, to, text)
}

fn other(ethernet: &Ethernet) -> Described {
    let Ethernet { source, destination, ether_type } = *ethernet;
    let what = match ether_type {
        0..0x0600 => format!("llc length {ether_type}"),
        0x8100 | 0x88a8 | 0x9100 => format!("vlan 0x{ether_type:04x}"),
        0x0800 => "ip, unreadable".to_owned(),
        0x0806 => "arp, unreadable".to_owned(),
        _ => format!("ether 0x{ether_type:04x}"),
    };
    let text = format!("{source} > {} {what}", station(destination));
    described(
        format!("ether 0x{ether_type:04x}"),
        source.to_string(),
        destination.to_string(),
        text,
    )
}

fn station(mac: MacAddr) -> String {
    if mac == MacAddr::BROADCAST { "broadcast".to_owned() } else { mac.to_string() }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        number => format!("ip {number}"),
    }
}

/// As tcpdump writes them: `S.` is a SYN with ACK.
fn tcp_flags(flags: u8) -> String {
    let names = [(0x02, 'S'), (0x01, 'F'), (0x04, 'R'), (0x08, 'P'), (0x20, 'U'), (0x10, '.')];
    let set: String =
        names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "none".to_owned() } else { set }
}

fn icmp_words(icmp: Icmp, sequence: u16) -> String {
    let Icmp { kind, code, identifier } = icmp;
    match (kind, code) {
        (Icmp::ECHO_REQUEST, _) => format!("echo request id {identifier} seq {sequence}"),
        (Icmp::ECHO_REPLY, _) => format!("echo reply id {identifier} seq {sequence}"),
        (3, 0) => "network unreachable".to_owned(),
        (3, 1) => "host unreachable".to_owned(),
        (3, 2) => "protocol unreachable".to_owned(),
        (3, 3) => "port unreachable".to_owned(),
        (3, 4) => format!("fragmentation needed, mtu {sequence}"),
        (3, _) => format!("unreachable, code {code}"),
        (5, _) => "redirect".to_owned(),
        (11, _) => "time exceeded".to_owned(),
        _ => format!("type {kind} code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ether_type: u16, packet: &[u8]) -> Vec<u8> {
        let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        [&macs[..], &ether_type.to_be_bytes(), packet].concat()
    }

    #[test]
    fn every_kind_of_frame_has_words() {
        let ip = |protocol: u8, payload: &[u8]| {
            let length = u8::try_from(20 + payload.len()).unwrap();
            let header =
                [0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            [&header[..], payload].concat()
        };
        let tcp = [0, 80, 1, 0, 0, 0, 0, 9, 0, 0, 0, 8, 0x50, 0x12, 2, 0, 0, 0, 0, 0];
        let udp = [0, 53, 0, 9, 0, 10, 0, 0, 1, 2];
        let quoted = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &ip(17, &udp)].concat();
        let arp =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
        for (frame, text) in [
            (
                frame(0x0800, &ip(6, &tcp)),
                "10.0.0.1:80 > 10.0.0.2:256 tcp [S.] seq 9 ack 8 win 512 data 0",
            ),
            (frame(0x0800, &ip(17, &udp)), "10.0.0.1:53 > 10.0.0.2:9 udp data 2"),
            (
                frame(0x0800, &ip(1, &[8, 0, 0, 0, 0, 7, 0, 1])),
                "10.0.0.1 > 10.0.0.2 icmp echo request id 7 seq 1",
            ),
            (
                frame(0x0800, &ip(1, &quoted)),
                "10.0.0.1 > 10.0.0.2 icmp port unreachable about 10.0.0.1:53 > 10.0.0.2:9 udp",
            ),
            (frame(0x0800, &ip(47, &[])), "10.0.0.1 > 10.0.0.2 ip 47"),
            (frame(0x0800, &ip(6, &[0, 80])), "10.0.0.1 > 10.0.0.2 tcp"),
            (frame(0x0800, &[0x45]), "02:00:00:00:00:02 > 02:00:00:00:00:01 ip, unreadable"),
            (frame(0x0806, &arp), "arp who-has 10.0.0.2 tell 10.0.0.1 (02:00:00:00:00:02)"),
            (frame(0x86dd, &[0; 40]), ":: > :: ipv6 next-header 0"),
            (frame(0x88cc, &[]), "02:00:00:00:00:02 > 02:00:00:00:00:01 ether 0x88cc"),
            (frame(0x0026, &[]), "02:00:00:00:00:02 > 02:00:00:00:00:01 llc length 38"),
            (frame(0x8100, &[]), "02:00:00:00:00:02 > 02:00:00:00:00:01 vlan 0x8100"),
            (vec![1, 2, 3], "runt"),
        ] {
            assert_eq!(words(&frame).text, text);
        }
    }

    #[test]
    fn a_cut_off_frame_is_read_as_far_as_it_goes() {
        let header = [0x45, 0, 0, 60, 0, 0, 0x20, 0, 1, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let whole = frame(0x0800, &[&header[..], &[0, 53, 0, 9, 0, 40, 0, 0]].concat());
        let expected = "10.0.0.1:53 > 10.0.0.2:9 udp data 32 fragment at 0+ ttl 1";
        assert_eq!(words(&whole).text, expected);
        for length in 0..whole.len() {
            assert!(!words(&whole[..length]).text.is_empty());
        }
    }
}

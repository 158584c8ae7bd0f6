//! Frames that somebody made worse: good ones bent at random, and repaired just enough to be read.

use tapvs::addr::LinkId;

use super::network::*;
use super::packet::*;
use super::random::Random;

const CLIENT: &str = "198.51.100.7:40000";
const WEB: &str = "203.0.113.10:80";
const DNS: &str = "203.0.113.10:53";

/// Good frames of every kind, to start from.
pub fn seeds() -> Vec<(LinkId, Vec<u8>)> {
    let mut seeds = Vec::new();
    for arp in [
        gateway_asks(VIP),
        gateway_asks(OWN_OUT),
        who_has(VIP, "0.0.0.0".parse().unwrap(), STRANGER),
        who_has(VIP, VIP, STRANGER),
        who_has(GATEWAY_IP, GATEWAY_IP, GATEWAY),
        is_at(GATEWAY_IP, GATEWAY, ROUTER_OUT, OWN_OUT),
        is_at(NEAR_IP, NEAR, ROUTER_OUT, OWN_OUT),
    ] {
        seeds.push((OUT, arp.frame()));
    }
    for n in 11..=13 {
        seeds.push((IN, is_at(server_ip(n), server_mac(n), ROUTER_IN, OWN_IN).frame()));
        seeds.push((IN, who_has(INNER_VIP, server_ip(n), server_mac(n)).frame()));
    }
    for flags in [SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, 0] {
        for data in [&b""[..], b"GET / HTTP/1.0\r\n\r\n"] {
            seeds.push((OUT, tcp(CLIENT, WEB, flags, 1001, 501, data).frame()));
            for n in 11..=13 {
                let server = format!("10.0.0.{n}:8080");
                seeds.push((IN, tcp(&server, CLIENT, flags, 501, 1002, data).frame()));
            }
        }
    }
    for client in [CLIENT, "203.0.113.50:9", "198.51.100.7:53", "198.51.100.8:1"] {
        seeds.push((OUT, udp(client, DNS, b"who?").frame()));
        seeds.push((OUT, udp(client, DNS, b"who?").with(|ip| ip.body[6..8].fill(0)).frame()));
        seeds.push((IN, udp("10.0.0.11:53", client, b"me").frame()));
        seeds.push((IN, udp("10.0.0.12:53", client, b"me").frame()));
        seeds.push((IN, udp("10.0.0.11:5000", client, b"hello").frame()));
        seeds.push((IN, tcp("10.0.0.13:5000", client, SYN, 1, 0, b"").frame()));
    }
    seeds.push((OUT, udp(CLIENT, DNS, &[7; 1400]).frame()));
    seeds.push((IN, udp("10.0.0.11:53", CLIENT, &[7; 1400]).frame()));
    seeds.push((IN, tcp("10.0.0.12:9", WEB, SYN, 1, 0, b"").frame()));
    for target in ["203.0.113.10", "203.0.113.2"] {
        seeds.push((OUT, icmp("198.51.100.7", target, (8, 0), [0, 7, 0, 1], b"ping").frame()));
    }
    let ping = icmp("10.0.0.11", "198.51.100.7", (8, 0), [0, 7, 0, 1], b"ping");
    seeds.push((IN, ping.frame()));
    seeds.push((OUT, icmp("198.51.100.7", "203.0.113.10", (0, 0), [0, 7, 0, 1], b"ping").frame()));
    for kind in [(3, 1), (3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)] {
        let quote = tcp("203.0.113.10:80", CLIENT, ACK, 1, 1, b"x").packet();
        seeds.push((OUT, icmp("198.51.100.1", "203.0.113.10", kind, [0, 0, 2, 0], &quote).frame()));
        let quote = udp(CLIENT, "10.0.0.11:53", b"who?").packet();
        seeds.push((IN, icmp("10.0.0.11", "198.51.100.7", kind, [0, 0, 2, 0], &quote).frame()));
        let quote = icmp("203.0.113.10", "198.51.100.7", (8, 0), [0, 7, 0, 1], b"").packet();
        seeds.push((OUT, icmp("198.51.100.1", "203.0.113.10", kind, [0; 4], &quote).frame()));
    }
    let whole = udp(CLIENT, DNS, b"abcdefghijklmnopqrstuvwxyz012345");
    for (from, to, fragment) in [(0, 16, MF), (16, 32, 2 | MF), (32, 40, 4), (8, 24, 1 | MF)] {
        let piece = whole.clone().with(|ip| {
            ip.body = whole.body[from..to].to_vec();
            ip.fragment = fragment;
        });
        seeds.push((OUT, piece.frame()));
    }
    for options in [
        vec![7, 7, 4, 0, 0, 0, 0, 0],
        vec![68, 8, 5, 0, 0, 0, 0, 0],
        vec![1; 40],
        vec![131, 3, 4, 0],
    ] {
        seeds
            .push((OUT, udp(CLIENT, DNS, b"who?").with(|ip| ip.options = options.clone()).frame()));
        seeds.push((OUT, tcp(CLIENT, WEB, SYN, 1, 0, b"").with(|ip| ip.options = options).frame()));
    }
    let mut tagged = tcp(CLIENT, WEB, SYN, 1, 0, b"").frame();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    seeds.push((OUT, tagged));
    for kind in [0x86dd_u16, 0x8808, 0x0026, 0x88cc] {
        let mut other = udp(CLIENT, DNS, b"who?").frame();
        other[12..14].copy_from_slice(&kind.to_be_bytes());
        seeds.push((OUT, other));
    }
    seeds
}

/// The same for networks of direct routing, where the router has but one MAC: with servers that hold
/// the virtual IP and say so.
pub fn direct_seeds() -> Vec<(LinkId, Vec<u8>)> {
    let mut seeds = seeds();
    for (operation, target) in [(1, VIP), (1, GATEWAY_IP), (1, NEAR_IP), (2, VIP), (2, NEAR_IP)] {
        let arp = who_has(target, VIP, server_mac(11)).with(|arp| arp.operation = operation);
        seeds.push((IN, arp.frame()));
        seeds.push((IN, arp.with(|arp| arp.to = NEAR).frame()));
    }
    for flags in [SYN | ACK, ACK, FIN | ACK, RST] {
        for (client, mac) in [(CLIENT, GATEWAY), ("203.0.113.50:9", NEAR)] {
            let answer = tcp(WEB, client, flags, 501, 1002, b"");
            let from_server = |ip: &mut Ip| (ip.from, ip.to) = (server_mac(11), mac);
            seeds.push((IN, answer.with(from_server).frame()));
        }
    }
    for (_, frame) in &mut seeds {
        if frame[..6] == ROUTER_IN.0 {
            frame[..6].copy_from_slice(&ROUTER_OUT.0);
        }
    }
    seeds
}

/// Bends `frame` in one to six places.
pub fn mutate(frame: &mut Vec<u8>, others: &[(LinkId, Vec<u8>)], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(frame.len());
        match random.below(12) {
            0..=2 if !frame.is_empty() => frame[at] ^= 1 << random.below(8),
            3 if !frame.is_empty() => frame[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            4 if !frame.is_empty() => frame[at] = random.byte(),
            5 => frame.truncate(at.max(12)),
            6 => {
                let extra = random.below(40);
                frame.extend(random.bytes(extra));
            }
            7 if frame.len() > 34 => {
                // One of the IP header's own fields: TOS, id, fragment, TTL, protocol.
                let field = *random.pick(&[15, 18, 19, 20, 21, 22, 23, 23]);
                frame[field] = *random.pick(&[0, 1, 2, 6, 17, 47, 0x20, 0x40, 64, 255]);
            }
            8 if frame.len() > 34 => {
                let address = *random.pick(&[
                    VIP,
                    OWN_OUT,
                    OWN_IN,
                    INNER_VIP,
                    NEAR_IP,
                    GATEWAY_IP,
                    server_ip(11),
                    server_ip(255),
                ]);
                let at = *random.pick(&[26, 30]);
                frame[at..at + 4].copy_from_slice(&address.octets());
            }
            9 if frame.len() > 42 => {
                let port = random.pick(&[80_u16, 53, 8080, 40000, 0, 20, 5000]).to_be_bytes();
                let at = *random.pick(&[34, 36]);
                frame[at..at + 2].copy_from_slice(&port);
            }
            10 => {
                let other = &random.pick(others).1;
                let from = random.below(other.len());
                frame.truncate(at.max(14));
                frame.extend(&other[from..]);
            }
            _ if frame.len() > 48 => frame[47] = random.byte(),
            _ => {}
        }
    }
}

/// Makes lengths, MACs and checksums agree again, so that the parser finds nothing wrong with them.
pub fn repair(link: LinkId, frame: &mut Vec<u8>) {
    if frame.len() < 42 {
        frame.resize(42, 0);
    }
    frame.truncate(14 + 1500);
    let (router, station) =
        if link == OUT { (ROUTER_OUT, GATEWAY) } else { (ROUTER_IN, server_mac(11)) };
    if frame[..6] != [0xff; 6] {
        frame[..6].copy_from_slice(&router.0);
    }
    frame[6..12].copy_from_slice(&station.0);
    if frame[12..14] == [8, 6] {
        frame[14..20].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        frame[20] = 0;
        frame[21] = 1 + (frame[21] & 1);
        return;
    }
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[..6].copy_from_slice(&router.0);
    let ip = &mut frame[14..];
    let words = usize::from(ip[0] & 15).clamp(5, ip.len() / 4);
    if words > 5 {
        // Options that nobody objects to, if these are not some.
        let options = &mut ip[20..words * 4];
        if !matches!(options[..2], [7 | 68, 3..=8] | [1, 1]) {
            options.fill(1);
        }
    }
    ip[0] = 0x40 | u8::try_from(words).unwrap();
    let total = u16::try_from(ip.len()).unwrap();
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[10..12].fill(0);
    let header_sum = !sum(&[&ip[..words * 4]]);
    ip[10..12].copy_from_slice(&header_sum.to_be_bytes());
    repair_transport(ip, words * 4);
}

fn repair_transport(ip: &mut [u8], header: usize) {
    let later = (u16::from(ip[6]) << 8 | u16::from(ip[7])) & 0x1fff != 0;
    let protocol = ip[9];
    let (head, body) = ip.split_at_mut(header);
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let at = match protocol {
        _ if later => return,
        6 if body.len() >= 20 => {
            let words = usize::from(body[12] >> 4).clamp(5, body.len() / 4);
            body[12] = u8::try_from(words).unwrap() << 4;
            16
        }
        17 if body.len() >= 8 => {
            body[4..6].copy_from_slice(&length);
            if body[6..8] == [0, 0] {
                return;
            }
            6
        }
        1 if body.len() >= 8 => {
            body[2..4].fill(0);
            let sum = !sum(&[body]);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
            return;
        }
        _ => return,
    };
    body[at..at + 2].fill(0);
    let sum = !sum(&[&head[12..20], &[0, protocol, length[0], length[1]], body]);
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

//! What the scenarios build around the rig: files with other words, networks behind it, packets
//! that no kernel would make.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use netns_tests::raw::internet_checksum;
use netns_tests::tcp::EchoServer;
use netns_tests::udp::UdpEchoServer;
use netns_tests::{
    Context as _, Failure, Outcome, Rig, Service, VIP, config, ensure, server_address,
};
use tapvs::addr::Cidr;
use tapvs::links::{LinkError, Namespace, Netlink};

/// The servers' own connections are seen to come from the virtual IP.
pub(crate) const MASQUERADE: &str = r#"
[[masquerade]]
from = "10.0.0.0/24"
to = "203.0.113.10"
"#;

/// The rig's file with other words in it, and more at its end.
pub(crate) fn file(
    folder: &Path,
    services: &[Service],
    changes: &[(&str, &str)],
    more: &str,
) -> String {
    let mut text = config(folder, services);
    for (old, new) in changes {
        assert!(text.contains(old), "no `{old}` in the file");
        text = text.replacen(old, new, 1);
    }
    text + more
}

/// Takes another file over while the router runs.
pub(crate) fn reload(
    rig: &Rig,
    services: &[Service],
    changes: &[(&str, &str)],
    more: &str,
) -> Outcome {
    rig.write_config(&file(rig.scratch.path(), services, changes, more))?;
    rig.router.reload()
}

/// A service with one server, written out.
pub(crate) fn service(protocol: &str, vip: (&str, u16), server: (&str, u16)) -> String {
    let ((vip, port), (server, server_port)) = (vip, server);
    let mut text = String::new();
    let _infallible = write!(
        text,
        r#"
[[service]]
protocol = "{protocol}"
address = "{vip}"
port = {port}
method = "nat"

[[service.server]]
address = "{server}"
port = {server_port}
"#
    );
    text
}

/// Another virtual IP, for [`virtual_ip`].
pub(crate) const OTHER_VIP: &str = "203.0.113.11";

/// One more address outside.
pub(crate) fn virtual_ip(address: &str) -> String {
    format!("\n[[virtual_ip]]\naddress = \"{address}\"\nnetwork = \"internet\"\n")
}

/// A way to what lies behind `via`.
pub(crate) fn route(to: &str, via: Ipv4Addr) -> String {
    format!("\n[[route]]\nto = \"{to}\"\nvia = \"{via}\"\n")
}

pub(crate) fn cidr(text: &str) -> Cidr {
    text.parse().expect("an address with its prefix length")
}

/// One end of a cable: where, what it is called, its address with prefix length.
pub(crate) type End<'n> = (&'n Namespace, &'static str, &'static str);

/// Connects two namespaces.
pub(crate) fn cable(one: End<'_>, other: End<'_>, mtu: u32) -> Outcome {
    one.0.run(|| Netlink::new()?.create_veth(one.1, other.1, Some(other.0.fd())))?;
    for (namespace, name, address) in [one, other] {
        namespace.run(|| {
            let netlink = Netlink::new()?;
            netlink.set_mtu(name, mtu)?;
            netlink.set_up(name)?;
            netlink.add_address(name, cidr(address))
        })?;
    }
    Ok(())
}

pub(crate) fn add_route(namespace: &Namespace, to: &str, via: &str) -> Outcome {
    let via: Ipv4Addr = via.parse()?;
    let added: Result<(), LinkError> =
        namespace.run(|| Netlink::new()?.add_route(cidr(to), via.into()));
    added.context(format_args!("no route to {to} via {via}"))
}

/// Makes a namespace a router that tells nobody of better ones.
pub(crate) fn make_router(namespace: &Namespace) -> Outcome {
    namespace.write_sysctl("net/ipv4/ip_forward", "1")?;
    for scope in ["all", "default", "eth0"] {
        let sysctl = format!("net/ipv4/conf/{scope}/send_redirects");
        match namespace.write_sysctl(&sysctl, "0") {
            // Not every namespace has a device of that name.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A UDP echo server in a server's namespace, named by the server's number.
pub(crate) fn udp_server(rig: &Rig, number: usize, port: u16) -> Outcome<UdpEchoServer> {
    let address = (server_address(number), port);
    UdpEchoServer::start(&rig.servers[number], address, &number.to_string())
}

/// A TCP echo server in a server's namespace, named by the server's number.
pub(crate) fn tcp_server(rig: &Rig, number: usize, port: u16) -> Outcome<EchoServer> {
    let address = (server_address(number), port);
    EchoServer::start(&rig.servers[number], address, &number.to_string())
}

/// The parts of a UDP echo server's answer: its name, whom it saw, the message.
pub(crate) fn parts(answer: &str) -> Outcome<(&str, SocketAddr, &str)> {
    let mut words = answer.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(name), Some(seen_as), Some(message)) => Ok((name, seen_as.parse()?, message)),
        _ => Err(Failure::new(format!("`{answer}` is no answer"))),
    }
}

/// An IPv4 packet, for a raw socket that takes its header too.
pub(crate) fn packet(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    (protocol, id, fragment): (u8, u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = internet_checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An ICMP message with its checksum: type and code, the second word, the rest.
pub(crate) fn icmp((kind, code): (u8, u8), word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word);
    message.extend(rest);
    let sum = internet_checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ICMP error as it arrived, with what it quotes.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) from: Ipv4Addr,
    pub(crate) kind: (u8, u8),
    pub(crate) mtu: u16,
    pub(crate) quoted_from: Ipv4Addr,
    pub(crate) quoted_to: Ipv4Addr,
    /// The first eight bytes behind the quoted IP header, as 16-bit words.
    pub(crate) quoted_words: [u16; 4],
    pub(crate) length: usize,
}

impl Complaint {
    /// From an ICMP packet; all three checksums in it must be right.
    pub(crate) fn read(packet: &netns_tests::raw::Packet) -> Outcome<Self> {
        let message = packet.payload();
        ensure!(message.len() >= 36, "an error of {} bytes quotes too little", message.len());
        ensure!(internet_checksum(&packet.bytes()[..20]) == 0, "the outer IP checksum is wrong");
        ensure!(internet_checksum(message) == 0, "the ICMP checksum is wrong");
        let quote = &message[8..];
        ensure!(quote[0] == 0x45, "the quote begins with {:#04x}", quote[0]);
        ensure!(internet_checksum(&quote[..20]) == 0, "the quoted IP checksum is wrong");
        let address =
            |at: usize| Ipv4Addr::new(quote[at], quote[at + 1], quote[at + 2], quote[at + 3]);
        let word = |at: usize| u16::from_be_bytes([quote[at], quote[at + 1]]);
        Ok(Self {
            from: packet.source(),
            kind: (message[0], message[1]),
            mtu: packet.payload_u16(6),
            quoted_from: address(12),
            quoted_to: address(16),
            quoted_words: [word(20), word(22), word(24), word(26)],
            length: packet.bytes().len(),
        })
    }
}

/// The virtual IP as text.
pub(crate) fn vip() -> String {
    VIP.to_string()
}

//! What servers do of their own accord (N5, N18), policy, segment clamps, and resets that may be
//! forged (S6, O22-O27 for a router that keeps no sequence window).

use tapvs::config::Forward;
use tapvs::dataplane::State;
use tapvs::time::Duration;

use super::*;

const SERVER12: &str = "10.0.0.12:8080";
const CALLER: &str = "10.0.0.11:40000";

/// Server 11 calls the service that it is itself a server of; the first client had server 11.
fn call() -> Ip {
    tcp(CALLER, WEB, SYN, 7, 0, b"")
}

/// The call as server 12 sees it.
fn as_server_sees() -> Ip {
    tcp("10.0.0.1:40000", SERVER12, SYN, 7, 0, b"").ttl(63)
}

/// The service's answer as the client sees it.
fn answer() -> Ip {
    tcp(WEB, CLIENT, SYN | ACK, 500, 1001, b"").ttl(62)
}

fn everything(config: &mut Config) {
    config.router.forward = Forward::All;
}

fn with_mss(mss: u16) -> Ip {
    // MSS behind a padding byte: at an odd offset, where the checksum is easily got wrong.
    let [high, low] = mss.to_be_bytes();
    tcp_with_options(syn(), &[1, 2, 4, high, low, 1, 1, 1])
}

/// Gives a segment without options some.
fn tcp_with_options(segment: Ip, options: &[u8]) -> Ip {
    let (source, destination) = (segment.source, segment.destination);
    segment.with(|ip| {
        ip.body[12] = 0x50 + u8::try_from(options.len() / 4 * 16).unwrap();
        ip.body.splice(20..20, options.iter().copied());
        ip.body[16..18].fill(0);
        let length = u16::try_from(ip.body.len()).unwrap().to_be_bytes();
        let pseudo = [&[0, 6][..], &length].concat();
        let parts = [&source.octets()[..], &destination.octets(), &pseudo, &ip.body];
        let sum = !sum(&parts);
        ip.body[16..18].copy_from_slice(&sum.to_be_bytes());
    })
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case(
            "N5 a server calls its own service: its answer must come back through the router",
            IN,
            call(),
            "forward in
             in: router.in > server12 10.0.0.1 > 10.0.0.12 ttl 63 id 1 tcp 40000 > 8080 S seq 7 ack 0 win 8192 data 0",
        )
        .after(OUT, syn()),
        case(
            "N5 the answer to a server's call",
            IN,
            tcp(SERVER12, "10.0.0.1:40000", SYN | ACK, 9, 8, b""),
            "forward in
             in: router.in > server11 203.0.113.10 > 10.0.0.11 ttl 63 id 1 tcp 80 > 40000 SA seq 9 ack 8 win 8192 data 0",
        )
        .after(OUT, syn())
        .after(IN, call()),
        case(
            "N18 an error about a server's call",
            IN,
            icmp("10.0.0.12", "10.0.0.1", (3, 3), [0; 4], &as_server_sees().packet()),
            "forward in
             in: router.in > server11 203.0.113.10 > 10.0.0.11 ttl 63 id 1 icmp 3/3 00000000 about [10.0.0.11 > 203.0.113.10 ttl 63 id 1 tcp 40000 > 80 S seq 7 ack 0 win 8192 data 0 BAD SUM]",
        )
        .after(OUT, syn())
        .after(IN, call()),
        case("forward all: routed as it is", OUT, udp(CLIENT, "10.0.0.77:9", b"x"), "held
             in: router.in > server77 198.51.100.7 > 10.0.0.77 ttl 63 id 1 udp 40000 > 9 data 1")
            .configured(everything),
        case(
            "forward all: no route is no way",
            IN,
            udp("10.0.0.11:9", "198.51.100.7:9", b"x"),
            "drop no_route",
        )
        .configured(|config| {
            everything(config);
            config.networks[0].gateway = None;
        }),
        case(
            "S8 an error from outside in a server's name",
            OUT,
            icmp("10.0.0.12", "203.0.113.10", (3, 3), [0; 4], &answer().packet())
                .with(|ip| (ip.from, ip.to) = (GATEWAY, ROUTER_OUT)),
            "drop reverse_path",
        )
        .after(OUT, syn()),
        case(
            "S8 an error from outside in the router's name",
            OUT,
            icmp("10.0.0.2", "203.0.113.10", (3, 3), [0; 4], &answer().packet())
                .with(|ip| (ip.from, ip.to) = (GATEWAY, ROUTER_OUT)),
            "drop martian_source",
        )
        .after(OUT, syn()),
        case(
            "O8 a ping of the virtual IP is not the answer to a server's ping",
            OUT,
            icmp("198.51.100.7", "203.0.113.10", (8, 0), [0, 0, 0, 1], b"x"),
            "reply
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 64 id 1 icmp 0/0 00000001 data 1",
        )
        .configured(icmp_cases::masquerading)
        .after(IN, icmp("10.0.0.11", "198.51.100.7", (8, 0), [0; 4], b"x")),
        case(
            "O25 a stale challenge ACK passes to the client",
            IN,
            tcp(SERVER11, CLIENT, ACK, 77, 55, b""),
            "forward out
             out: router.out > gateway 203.0.113.10 > 198.51.100.7 ttl 63 id 1 tcp 80 > 40000 A seq 77 ack 55 win 8192 data 0",
        )
        .after(OUT, syn()),
        case(
            "O25 the client's reset of it passes to the server",
            OUT,
            tcp(CLIENT, WEB, RST, 55, 0, b""),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 R seq 55 ack 0 win 8192 data 0",
        )
        .after(OUT, syn())
        .after(IN, tcp(SERVER11, CLIENT, ACK, 77, 55, b"")),
        case(
            "O27 a new SYN on an established flow passes to the same server",
            OUT,
            tcp(CLIENT, WEB, SYN, 90_000, 0, b""),
            "forward in
             in: router.in > server11 198.51.100.7 > 10.0.0.11 ttl 63 id 1 tcp 40000 > 8080 S seq 90000 ack 0 win 8192 data 0",
        )
        .after(OUT, syn())
        .after(IN, tcp(SERVER11, CLIENT, SYN | ACK, 500, 1001, b""))
        .after(OUT, tcp(CLIENT, WEB, ACK, 1001, 501, b"")),
    ]
}

#[test]
fn a_syn_announces_no_more_than_the_clamp() {
    for (clamps, announced, passed) in [
        ([Some(1300), None], 1460, 1300),
        ([None, Some(1300)], 1460, 1300),
        ([Some(1400), Some(1300)], 1460, 1300),
        ([Some(1300), None], 1200, 1200),
        ([None, None], 1460, 1460),
    ] {
        let mut config = config();
        for (network, clamp) in config.networks.iter_mut().zip(clamps) {
            network.mss_clamp = clamp;
        }
        let mut router = Router::new(config);
        let step = router.feed(OUT, &with_mss(announced).frame());
        let out = step.only();
        assert_eq!(Read::frame(out).unwrap().transport_ok(), Some(true), "{}", step.text());
        let [high, low] = u16::to_be_bytes(passed);
        assert_eq!(out[54..62], [1, 2, 4, high, low, 1, 1, 1], "{clamps:?}");
    }
}

/// S6: a reset ends nothing at once, and data from the side that it claimed to be undoes it.
#[test]
fn data_undoes_a_forged_reset() {
    for forged_as in [OUT, IN] {
        let mut router = Router::new(config());
        router.feed(OUT, &syn().frame());
        router.feed(IN, &tcp(SERVER11, CLIENT, SYN | ACK, 500, 1001, b"").frame());
        router.feed(OUT, &tcp(CLIENT, WEB, ACK, 1001, 501, b"").frame());
        let data = |link| {
            if link == OUT {
                tcp(CLIENT, WEB, ACK | PSH, 1001, 501, b"question")
            } else {
                tcp(SERVER11, CLIENT, ACK | PSH, 501, 1001, b"answer")
            }
        };
        let forged = if forged_as == OUT {
            tcp(CLIENT, WEB, RST, 1, 0, b"")
        } else {
            tcp(SERVER11, CLIENT, RST, 1, 0, b"")
        };
        router.feed(forged_as, &forged.frame());
        assert_eq!(router.state(40000), Some(State::Close));
        // Who has reset a connection may still be sent data by the other side.
        let other = if forged_as == OUT { IN } else { OUT };
        router.feed(other, &data(other).frame());
        assert_eq!(router.state(40000), Some(State::Close));
        router.feed(forged_as, &data(forged_as).frame());
        assert_eq!(router.state(40000), Some(State::Established));
        // A reset that was meant stays one: the flow lives ten more seconds.
        router.feed(forged_as, &forged.frame());
        router.advance(Duration::from_secs(12));
        assert_eq!(router.flows().len(), 0);
    }
}

/// O10: a client that talks to a server through the service and directly, from one port.
#[test]
fn o10_what_goes_to_a_server_directly_is_told_apart() {
    let mut config = config();
    everything(&mut config);
    let mut router = Router::new(config);
    router.feed(OUT, &query().frame());
    let step = router.feed(OUT, &udp(CLIENT, "10.0.0.11:53", b"you?").frame());
    let (port, _) = Read::frame(step.only()).unwrap().ports().unwrap();
    assert_ne!(port, 40000, "{}", step.text());
    let to = |port: u16| format!("198.51.100.7:{port}");
    let text = router.feed(IN, &udp("10.0.0.11:53", &to(port), b"me").frame()).text();
    assert!(text.contains("10.0.0.11 > 198.51.100.7") && text.contains("53 > 40000"), "{text}");
    let text = router.feed(IN, &udp("10.0.0.11:53", &to(40000), b"me").frame()).text();
    assert!(text.contains("203.0.113.10 > 198.51.100.7"), "{text}");
}

/// A route that a reload moves to another network takes its flows along.
#[test]
fn flows_follow_a_route_to_another_network() {
    let by = |network: usize, via: &str| {
        let mut config = config();
        let (to, via) = ("10.5.0.0/24".parse().unwrap(), via.parse().unwrap());
        config.routes = vec![tapvs::config::Route { to, via, network }];
        let endpoint = tapvs::addr::Endpoint { address: "10.5.0.9".parse().unwrap(), port: 8080 };
        config.services[0].servers = vec![tapvs::config::Server::new("far".into(), endpoint, 1)];
        config
    };
    let mut router = Router::new(by(1, "10.0.0.20"));
    assert!(router.feed(OUT, &syn().frame()).text().starts_with("forward in"));
    router.reload(by(0, "203.0.113.50"));
    router.advance(Duration::from_secs(1));
    let answer = tcp("10.5.0.9:8080", CLIENT, SYN | ACK, 500, 1001, b"")
        .with(|ip| (ip.from, ip.to) = (NEAR, ROUTER_OUT));
    assert!(router.feed(OUT, &answer.frame()).text().starts_with("forward out"));
    let ack = tcp(CLIENT, WEB, ACK, 1001, 501, b"");
    assert!(router.feed(OUT, &ack.frame()).text().starts_with("forward out"));
    assert_eq!(router.state(40000), Some(State::Established));
}

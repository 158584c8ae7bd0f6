//! Flows that come, change and go at random at one router: whenever all was told, the other has the
//! same ones in the same states.

use tapvs::addr::{LinkId, Role};
use tapvs::config::OnRemove;
use tapvs::dataplane::{Direction, FlowInfo, Tuple};
use tapvs::time::Duration;

use crate::pair::Pair;
use crate::support::random::Random;
use crate::support::*;
use crate::{everything, server};

const SEEDS: u64 = 60;
const STEPS: usize = 250;

#[test]
fn both_routers_have_the_same_flows_whenever_all_was_told() {
    let (mut full, mut flows, mut records) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut config = everything();
        config.services[0].lifecycle.on_remove = OnRemove::Reset;
        // As many changes as flows are kept, at least 64.
        let max_flows = *random.pick(&[40, 100, 1_000]);
        let one = Router::sized(config.clone(), max_flows);
        // What is told of all flows comes before what is gone is swept: there is room for both.
        let mut pair = Pair::of(one, Router::sized(config.clone(), 2 * max_flows + 64));
        let Router { dataplane, table, now, .. } = &mut pair.other;
        dataplane.handle_role(table, Role::Backup, *now);
        // How often the peer is told, in percent of the steps.
        let told = *random.pick(&[100, 30, 3]);
        for _ in 0..STEPS {
            act(&mut pair, &mut random);
            if random.percent(told) {
                pair.copy();
                pair.assert_same();
                flows += pair.other.flows().len();
            }
            pair.other.check();
        }
        pair.copy();
        pair.assert_same();
        records += pair.other.report().copies.copied_in;
        full += pair.full_copies;
        for _ in 0..65 {
            pair.both().map(|router| router.advance(Duration::from_secs(20)));
            pair.copy();
        }
        assert_eq!(pair.one.flows(), [], "seed {seed}");
        assert_eq!(pair.other.flows(), [], "seed {seed}");
        let report = pair.other.report();
        assert!(report.services.iter().all(|service| service.load == Default::default()));
    }
    // What the seeds are for did happen.
    assert!(full > 2 * u32::try_from(SEEDS).unwrap(), "{full} full copies");
    assert!(flows > 50_000 && records > 5_000, "{flows} flows compared, {records} records");
}

fn act(pair: &mut Pair, random: &mut Random) {
    match random.below(100) {
        0..30 => open(pair, random),
        30..85 => go_on(pair, random),
        85..90 => burst(pair, random),
        90..98 => {
            // Longer than any grace when nobody is told meanwhile.
            let by = Duration::from_secs(*random.pick(&[1, 1, 3, 20, 130]));
            pair.both().map(|router| router.advance(by));
        }
        _ => reload(pair, random),
    }
}

fn client(random: &mut Random) -> String {
    format!("198.51.100.{}:{}", random.below(3) + 7, random.below(60) + 1)
}

/// A first packet, from a client or a server.
fn open(pair: &mut Pair, random: &mut Random) {
    let from = client(random);
    let (link, frame) = match random.below(5) {
        0 => (OUT, udp(&from, "203.0.113.10:53", b"who?")),
        1 => (OUT, tcp(&from, "203.0.113.10:81", SYN, 1000, 0, b"")),
        2 => {
            let from = format!("10.0.0.{}:{}", random.below(2) + 12, random.below(9) + 5000);
            (IN, tcp(&from, "198.51.100.9:25", SYN, 1000, 0, b""))
        }
        _ => (OUT, tcp(&from, "203.0.113.10:80", SYN, 1000, 0, b"")),
    };
    pair.one.feed(link, &frame.frame());
}

/// More changes than are kept: connections that are set up and reset.
fn burst(pair: &mut Pair, random: &mut Random) {
    for _ in 0..80 {
        let (client, web) = (client(random), "203.0.113.10:80");
        let step = pair.one.feed(OUT, &tcp(&client, web, SYN, 1000, 0, b"").frame());
        let Some(server) = step.out.first().and_then(|(_, frame)| Read::frame(frame)) else {
            continue;
        };
        let server = format!("{}:8080", server.destination);
        pair.one.feed(IN, &tcp(&server, &client, SYN | ACK, 500, 1001, b"").frame());
        pair.one.feed(OUT, &tcp(&client, web, ACK, 1001, 501, b"").frame());
        pair.one.feed(OUT, &tcp(&client, web, RST, 1001, 501, b"").frame());
    }
}

/// Some packet of some flow.
fn go_on(pair: &mut Pair, random: &mut Random) {
    let flows = pair.one.flows();
    if flows.is_empty() {
        return;
    }
    let flow = random.pick(&flows).clone();
    let direction = match random.below(2) {
        1 if !flow.direct => Direction::Reply,
        _ => Direction::Original,
    };
    let (link, frame) = packet(&flow, direction, random);
    pair.one.feed(link, &frame.frame());
}

fn packet(flow: &FlowInfo, direction: Direction, random: &mut Random) -> (LinkId, Ip) {
    let tuple = match direction {
        Direction::Original => flow.original,
        Direction::Reply => flow.reply,
    };
    let from_inside = tuple.source.octets()[0] == 10;
    let link = if from_inside { IN } else { OUT };
    let Tuple { source, destination, source_port, destination_port, protocol } = tuple;
    let (from, to) =
        (format!("{source}:{source_port}"), format!("{destination}:{destination_port}"));
    if protocol == 17 {
        return (link, udp(&from, &to, b"data"));
    }
    let shakes = flow.state.name() == "SYN_RECV" || random.percent(70);
    let frame = match direction {
        Direction::Reply if shakes => tcp(&from, &to, SYN | ACK, 500, 1001, b""),
        Direction::Original if shakes => tcp(&from, &to, ACK, 1001, 501, b""),
        _ => {
            let flags = *random.pick(&[ACK, PSH | ACK, FIN | ACK, FIN | ACK, RST, SYN]);
            tcp(&from, &to, flags, 1001, 501, if flags & PSH != 0 { b"data" } else { b"" })
        }
    };
    (link, frame)
}

/// A server goes or comes, at one of the two or at both.
fn reload(pair: &mut Pair, random: &mut Random) {
    let (at, which) = (*random.pick(&[0, 1, 2]), random.below(3));
    let side = random.below(3);
    for (position, router) in pair.both().into_iter().enumerate() {
        if position != side {
            router.change(|config| {
                let servers = &mut config.services[at].servers;
                if servers.len() > 1 {
                    servers.remove(which % servers.len());
                } else {
                    let port = servers[0].endpoint.port;
                    *servers = (11..=13).map(|n| server(n, port, 1)).collect();
                }
            });
        }
    }
}

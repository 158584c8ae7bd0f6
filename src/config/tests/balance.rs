//! The rules of the keys that say how new flows are given to servers: groups, ranges of ports,
//! persistence, scheduler flags, thresholds, timeouts.

use super::*;
use crate::addr::Ports;

fn with(lines: &str) -> String {
    changed("port = 80\n", &format!("port = 80\n{lines}\n"))
}

fn service(text: &str) -> Service {
    parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).services.remove(0)
}

#[test]
fn every_key_works_as_written() {
    let all = "scheduler = \"mh\"\nscheduler_flags = [\"mh-port\", \"mh-fallback\"]\n\
               persistence = { timeout = \"60s\", prefix = 24 }\nexpire_quiescent = true\n\
               timeouts = { established = \"1h\" }\nudp_timeout = \"10ms\"";
    let balance = service(&with(all)).balance;
    assert_eq!(balance.flags, SchedulerFlags { port: true, fallback: true });
    let minute = Duration::from_secs(60);
    assert_eq!(balance.persistence, Some(Persistence { timeout: minute, prefix: 24 }));
    assert!(balance.expire_quiescent && !balance.one_packet);
    let timeouts = balance.timeouts.unwrap();
    assert_eq!(timeouts.established, Duration::from_secs(3_600));
    assert_eq!(timeouts.udp, Duration::from_millis(10));
    assert_eq!(timeouts.close, Timeouts::IPVS.close);
    assert_eq!(service(&with("")).balance, Balance::default());
    let plain = service(&with("persistence = {}")).balance.persistence;
    assert_eq!(plain, Some(Persistence::default()));
    // A service's values stand over the router's.
    let text = with("timeouts = { close = \"3s\" }");
    let text = text.replacen("[router]\n", "[router]\ntimeouts = \"rfc\"\n", 1);
    let timeouts = service(&text).balance.timeouts.unwrap();
    assert_eq!(timeouts, Timeouts { close: Duration::from_secs(3), ..Timeouts::RFC });
    let udp = changed("protocol = \"tcp\"", "protocol = \"udp\"\none_packet = true");
    assert!(service(&udp).balance.one_packet);
}

#[test]
fn ports_and_the_servers_port() {
    for (port, ports, said) in [
        ("port = 80\n", Ports { first: 80, last: 80 }, "203.0.113.10:80"),
        ("port = \"8000-8100\"\n", Ports { first: 8_000, last: 8_100 }, "203.0.113.10:8000-8100"),
        ("port = 0\npersistence = {}\n", Ports::ALL, "203.0.113.10:0"),
    ] {
        let service = service(&changed("port = 80\n", port));
        assert_eq!((service.ports(), service.listen().as_str()), (ports, said));
        let own = if ports.is_one() { 80 } else { 0 };
        assert_eq!(service.servers[0].endpoint.port, own, "{port}");
        assert_eq!(service.servers[1].endpoint.port, 8080, "{port}");
        let name = if ports.is_one() { "10.0.0.11:80" } else { "10.0.0.11" };
        assert_eq!(service.servers[0].name, name);
    }
    let direct = changed("port = 80\n", "port = \"80-90\"\nmethod = \"direct\"\n");
    assert_eq!(
        wrong(&direct),
        [
            "service[0].server[1].port: direct routing leaves the packet as the client sent it; leave the port out, or use method = \"nat\""
        ]
    );
}

#[test]
fn groups() {
    let more = "group = \"site\"\npersistence = {}\n";
    let member = |lines: &str| {
        format!(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"203.0.113.10\"\ngroup = \"site\"\n{lines}\n"
        )
    };
    let text =
        with(more) + &member("port = 443") + &member("port = \"8000-8100\"\nname = \"wide\"");
    let config = parse(&text).unwrap();
    assert_eq!(config.services.len(), 1);
    let service = &config.services[0];
    let group = service.group.as_ref().unwrap();
    let names: Vec<_> = group.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!((group.name.as_str(), names), ("site", vec!["tcp:203.0.113.10:443", "wide"]));
    assert_eq!(service.servers[0].endpoint.port, 0, "the packet's own");
    assert_eq!(service.fronts().count(), 3);
    for (lines, message) in [
        (
            "port = 443\nscheduler = \"rr\"",
            "service[1].scheduler: is said by the first service of the group, for all of them; leave it out",
        ),
        (
            "port = 443\nserver = [{ address = \"10.0.0.11\" }]",
            "service[1].server: is said by the first service of the group, for all of them; leave it out",
        ),
        (
            "port = 80",
            "service[1]: there is a service for tcp:203.0.113.10:80 already; add the servers to that one",
        ),
    ] {
        assert_eq!(wrong(&(with(more) + &member(lines))), [message], "{lines}");
    }
    assert_eq!(
        wrong(&(with("group = \"site\"\n") + &member("port = 0"))),
        [
            "service[1].port: 0 stands for all ports, which takes persistence: add it to the first service of the group, or name a port or a range"
        ]
    );
    // A group of TCP and UDP may schedule datagrams one by one.
    let mixed = member("port = 53").replace("\"tcp\"", "\"udp\"");
    let one_packet = with("group = \"site\"\none_packet = true\n");
    assert!(parse(&(one_packet.clone() + &mixed)).is_ok());
    assert_eq!(
        wrong(&one_packet),
        [
            "service[0].one_packet: is for UDP: a TCP connection is more than one packet; leave it out"
        ]
    );
}

#[test]
fn contradictions_are_named() {
    for (lines, message) in [
        (
            "persistence = { timeout = \"0s\" }",
            "service[0].persistence.timeout: found \"0s\"; expected 1s to 168h as a whole number with a unit, such as \"300s\"",
        ),
        (
            "persistence = { prefix = 33 }",
            "service[0].persistence.prefix: found 33; expected a whole number from 1 to 32",
        ),
        (
            "persistence = { netmask = 24 }",
            "service[0].persistence.netmask: unknown key; known here: timeout, prefix",
        ),
        (
            "expire_quiescent = true",
            "service[0].expire_quiescent: says when persistence does not hold; add persistence, or leave it out",
        ),
        (
            "timeouts = { udp = \"1s\" }",
            "service[0].timeouts.udp: a service says it with udp_timeout; leave it out",
        ),
        (
            "udp_timeout = \"9ms\"",
            "service[0].udp_timeout: found \"9ms\"; expected 10ms to 24h, as a whole number with the unit ms, s, m or h, such as \"300s\"",
        ),
        (
            "scheduler = \"sh\"\nscheduler_flags = [\"sh_port\"]",
            "service[0].scheduler_flags[0]: found \"sh_port\"; expected \"sh-port\", \"sh-fallback\", \"mh-port\" or \"mh-fallback\"",
        ),
        (
            "health = { kind = \"tcp\", port = 80 }\npersistence = 300",
            "service[0].persistence: found 300; expected a table",
        ),
    ] {
        assert_eq!(wrong(&with(lines)), [message], "{lines}");
    }
    each(&[
        (
            "weight = 0\n",
            "max_flows = 3\nmin_flows = 4\n",
            "service[0].server[1].min_flows: 4 is more than max_flows, 3; it is where flows are taken again",
        ),
        (
            "weight = 0\n",
            "min_flows = 4\n",
            "service[0].server[1].min_flows: says when a server that was full takes flows again; add max_flows",
        ),
        (
            "port = 80\n",
            "port = 0\npersistence = {}\nhealth = { kind = \"http\" }\n",
            "service[0].health.port: is missing; add the port to ask at: the service has all of them",
        ),
        (
            "port = 80\n",
            "port = \"8000-8100\"\n[[service]]\nprotocol = \"tcp\"\naddress = \"203.0.113.10\"\nport = \"8050-8150\"\n",
            "service[1]: ports 8050-8150 overlap 8000-8100 of a service before, and neither range is the smaller one, which would win; make one of them smaller",
        ),
    ]);
    let limits =
        service(&changed("weight = 0\n", "max_flows = 9\nmin_flows = 4\n")).servers[1].limits;
    assert_eq!(limits, FlowLimits { max: 9, min: 4 });
}

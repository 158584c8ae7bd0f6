//! The rules of gateways, `[[route]]`, `[[virtual_ip]]`, `[[service]]` and its servers.

use super::*;

#[test]
fn gateways_and_routes() {
    let gateway = "gateway = \"203.0.113.1\"";
    let (to, via) = ("to = \"198.51.100.0/24\"", "via = \"10.0.0.9\"");
    each(&[
        (
            gateway,
            "gateway = \"10.0.0.1\"",
            "network[0].gateway: 10.0.0.1 is not in this network; use a host inside one of its prefixes",
        ),
        (
            gateway,
            "gateway = \"192.0.2.1\"",
            "network[0].gateway: 192.0.2.1 is not in this network; use a host inside one of its prefixes",
        ),
        (
            gateway,
            "gateway = \"203.0.113.2\"",
            "network[0].gateway: 203.0.113.2 is the router's own address; name another host",
        ),
        (
            gateway,
            "gateway = \"203.0.113.10\"",
            "network[0].gateway: 203.0.113.10 is a virtual IP; name another host",
        ),
        (
            gateway,
            "gateway = \"203.0.113.255\"",
            "network[0].gateway: 203.0.113.255 is the broadcast address of 203.0.113.0/24; use a host address",
        ),
        (
            gateway,
            "gateway = \"2001:db8::1\"",
            "network[0].gateway: IPv6 gateways are not supported yet; use an IPv4 address",
        ),
        (
            "links = [\"tapvs1\"]",
            "links = [\"tapvs1\"]\ngateway = \"10.0.0.9\"",
            "network[1].gateway: is a second default route; keep one gateway in the whole file",
        ),
        (
            to,
            "to = \"0.0.0.0/0\"",
            "route[0].to: is a second default route; keep one in the whole file",
        ),
        (
            to,
            "to = \"198.51.100.1/24\"",
            "route[0].to: 198.51.100.1/24 has host bits; a route goes to 198.51.100.0/24",
        ),
        (
            to,
            "to = \"10.0.0.0/24\"",
            "route[0].to: 10.0.0.0/24 is a connected network; a route goes beyond those",
        ),
        (
            to,
            "to = \"224.0.0.0/4\"",
            "route[0].to: 224.0.0.0/4 is not unicast; a route goes to unicast addresses",
        ),
        (to, "to = \"2001:db8::/64\"", "route[0].to: IPv6 routes are not supported yet; use IPv4"),
        (
            via,
            "via = \"198.51.100.1\"",
            "route[0].via: 198.51.100.1 is on no connected network; use a host inside the prefix of an own address",
        ),
        (
            via,
            "via = \"10.0.0.2\"",
            "route[0].via: 10.0.0.2 is the router's own address; name another host",
        ),
        (
            via,
            "via = \"203.0.113.10\"",
            "route[0].via: 203.0.113.10 is a virtual IP; name another host",
        ),
        (via, "", "route[0].via: is missing; add the next hop, a host of a connected network"),
        (
            via,
            "via = \"10.0.0.9\"\n[[route]]\nto = \"198.51.100.0/24\"\nvia = \"10.0.0.8\"",
            "route[1].to: there is a route to 198.51.100.0/24 already; keep one of them",
        ),
    ]);
    let by_route = changed(gateway, "").replace("198.51.100.0/24", "0.0.0.0/0");
    assert!(parse(&by_route).is_ok());
}

#[test]
fn virtual_ips() {
    let (address, network) = ("address = \"192.0.2.10\"\n", "network = \"internet\"");
    each(&[
        (
            address,
            "address = \"10.0.0.2\"\n",
            "virtual_ip[1].address: 10.0.0.2 lies in 10.0.0.0/24; answer for it there, with network = \"servers\"",
        ),
        (
            address,
            "address = \"203.0.113.2\"\n",
            "virtual_ip[1].address: 203.0.113.2 is the router's own address; a virtual IP is an address beside it",
        ),
        (
            address,
            "address = \"203.0.113.10\"\n",
            "virtual_ip[1].address: 203.0.113.10 is given twice; keep one [[virtual_ip]] for it",
        ),
        (
            address,
            "address = \"203.0.113.0\"\n",
            "virtual_ip[1].address: 203.0.113.0 is the network address of 203.0.113.0/24; use a host address",
        ),
        (
            address,
            "address = \"224.0.0.18\"\n",
            "virtual_ip[1].address: 224.0.0.18 is a multicast address; use a unicast address",
        ),
        (
            address,
            "address = \"192.0.2.10/32\"\n",
            "virtual_ip[1].address: found \"192.0.2.10/32\"; expected an address such as \"192.0.2.1\"",
        ),
        (
            address,
            "address = \"2001:db8::10\"\n",
            "virtual_ip[1].address: IPv6 virtual IPs are not supported yet; use an IPv4 address",
        ),
        (
            address,
            "address = \"192.0.2.10\"\ndefend = true\n",
            "virtual_ip[1].defend: found true; expected \"unicast\" or \"broadcast\"",
        ),
        (
            address,
            "address = \"192.0.2.10\"\nprobe_interval = \"500ms\"\n",
            "virtual_ip[1].probe_interval: found \"500ms\"; expected \"off\", or 1s to 1h as a whole number with a unit, such as \"10s\"",
        ),
        (
            network,
            "network = \"inside\"",
            "virtual_ip[0].network: \"inside\" is not a network; expected \"internet\" or \"servers\"",
        ),
        (
            network,
            "",
            "virtual_ip[0].network: is missing; add the name of the network where it is answered for",
        ),
    ]);
}

#[test]
fn services() {
    let (protocol, address, port) =
        ("protocol = \"tcp\"", "address = \"203.0.113.10\"\nport", "port = 80\n");
    each(&[
        (
            protocol,
            "protocol = \"sctp\"",
            "service[0].protocol: found \"sctp\"; expected \"tcp\" or \"udp\"",
        ),
        (protocol, "", "service[0].protocol: is missing; add \"tcp\" or \"udp\""),
        (
            address,
            "address = \"203.0.113.11\"\nport",
            "service[0].address: 203.0.113.11 is not a virtual IP; add a [[virtual_ip]] with this address",
        ),
        (
            address,
            "address = \"2001:db8::10\"\nport",
            "service[0].address: IPv6 services are not supported yet; use an IPv4 address",
        ),
        (
            port,
            "port = 0\n",
            "service[0].port: 0 stands for all ports, which takes persistence: add persistence = { timeout = \"300s\" }, or name a port or a range",
        ),
        (
            port,
            "port = \"8100-8000\"\n",
            "service[0].port: found \"8100-8000\"; expected a port from 1 to 65535, a range such as \"8000-8100\", or 0 for all ports",
        ),
        (
            port,
            "port = 65536\n",
            "service[0].port: found 65536; expected a port from 1 to 65535, a range such as \"8000-8100\", or 0 for all ports",
        ),
        (port, "", "service[0].port: is missing; add the port that clients use"),
        (
            port,
            "port = 80\nname = \"\"\n",
            "service[0].name: found \"\"; expected a name of 1 to 64 characters, without space at its ends",
        ),
        (
            port,
            "port = 80\nmethod = \"tunnel\"\n",
            "service[0].method: \"tunnel\" is not supported yet; expected \"nat\" or \"direct\"",
        ),
        (
            port,
            "port = 80\nmethod = \"masq\"\n",
            "service[0].method: found \"masq\"; expected \"nat\" or \"direct\"",
        ),
        (
            port,
            "port = 80\nscheduler = \"wlcc\"\n",
            "service[0].scheduler: found \"wlcc\"; expected \"rr\", \"wrr\", \"lc\", \"wlc\", \"sed\", \"nq\", \"sh\", \"dh\", \"mh\", \"fo\", \"ovf\", \"lblc\", \"lblcr\" or \"twos\"",
        ),
        (
            port,
            "port = 80\nscheduler_flags = [\"sh-port\"]\n",
            "service[0].scheduler_flags[0]: is for scheduler = \"sh\", not for \"wlc\"; leave it out",
        ),
        (
            port,
            "port = 80\nwait = 1\n",
            "service[0].wait: unknown key; known here: name, protocol, address, port, group, scheduler, scheduler_flags, persistence, expire_quiescent, one_packet, timeouts, udp_timeout, method, health, on_remove, drain_timeout, on_down, slow_start, passive_health, min_healthy, helper, server, fallback",
        ),
        (
            port,
            "port = 80\n[[service]]\nprotocol = \"tcp\"\naddress = \"203.0.113.10\"\nport = 80\n",
            "service[1]: there is a service for tcp:203.0.113.10:80 already; add the servers to that one",
        ),
        (
            port,
            "port = 80\n[[service]]\nname = \"tcp:203.0.113.10:80\"\nprotocol = \"udp\"\naddress = \"203.0.113.10\"\nport = 80\n",
            "service[1].name: \"tcp:203.0.113.10:80\" is taken; use a name that no other one has",
        ),
        ("[[service]]", "[service]", "service: is a table; write [[service]]"),
    ]);
    for (word, scheduler) in [
        ("rr", Scheduler::RoundRobin),
        ("wrr", Scheduler::WeightedRoundRobin),
        ("lc", Scheduler::LeastConnection),
        ("wlc", Scheduler::WeightedLeastConnection),
        ("sed", Scheduler::ShortestExpectedDelay),
        ("nq", Scheduler::NeverQueue),
        ("sh", Scheduler::SourceHash),
        ("dh", Scheduler::DestinationHash),
        ("mh", Scheduler::Maglev),
        ("fo", Scheduler::Failover),
        ("ovf", Scheduler::Overflow),
        ("lblc", Scheduler::Locality),
        ("lblcr", Scheduler::LocalityReplicated),
        ("twos", Scheduler::PowerOfTwo),
    ] {
        assert_eq!(scheduler.to_string(), word);
        let text =
            changed(port, &format!("port = 80\nscheduler = \"{word}\"\nscheduler_flags = []\n"));
        assert_eq!(parse(&text).unwrap().services[0].scheduler, scheduler);
    }
}

#[test]
fn direct_routing() {
    let direct = |second: &str| {
        let text = changed("port = 80\n", "port = 80\nmethod = \"direct\"\n");
        text.replacen("address = \"10.0.0.12\"\nport = 8080", second, 1)
    };
    for right in ["address = \"10.0.0.12\"", "address = \"203.0.113.12\"\nport = 80"] {
        assert_eq!(parse(&direct(right)).unwrap().services[0].method, Method::Direct);
    }
    for (wrong_server, message) in [
        (
            "address = \"10.0.0.12\"\nport = 8080",
            "service[0].server[1].port: 8080 is not the service's port 80; direct routing does not change ports: leave it out, or use method = \"nat\"",
        ),
        (
            "address = \"198.51.100.12\"",
            "service[0].server[1].address: 198.51.100.12 is in no connected network; direct routing reaches a server by its MAC: put it inside a network's prefix, or use method = \"nat\"",
        ),
    ] {
        assert_eq!(wrong(&direct(wrong_server)), [message]);
    }
}

#[test]
fn lifecycle() {
    let with = |lines: &str| changed("port = 80\n", &format!("port = 80\n{lines}\n"));
    let of = |lines: &str| parse(&with(lines)).unwrap().services.remove(0);
    assert_eq!(of("").lifecycle, Lifecycle::default());
    let all = "on_remove = \"reset\"\ndrain_timeout = \"10m\"\non_down = \"reset\"\n\
               slow_start = \"30s\"\npassive_health = { unanswered = 3, retry = \"5s\" }\n\
               min_healthy = 2\nhealth = { kind = \"tcp\" }\nhelper = \"ftp\"";
    assert_eq!(
        of(all).lifecycle,
        Lifecycle {
            helper: Some(Helper::Ftp),
            on_remove: OnRemove::Reset,
            drain_timeout: Some(Duration::from_secs(600)),
            on_down: OnDown::Reset,
            slow_start: Some(Duration::from_secs(30)),
            passive_health: Some(PassiveHealth { unanswered: 3, retry: Duration::from_secs(5) }),
            min_healthy: Some(2),
        }
    );
    let passive = of("passive_health = {}").lifecycle.passive_health;
    assert_eq!(passive, Some(PassiveHealth::default()), "on, with defaults");
    for (lines, message) in [
        ("helper = \"sip\"", "service[0].helper: found \"sip\"; expected \"ftp\""),
        (
            "on_remove = \"drop\"",
            "service[0].on_remove: found \"drop\"; expected \"drain\" or \"reset\"",
        ),
        (
            "drain_timeout = \"25h\"",
            "service[0].drain_timeout: found \"25h\"; expected 1s to 24h, as a whole number with the unit ms, s, m or h, such as \"300s\"",
        ),
        (
            "on_down = \"drain\"",
            "service[0].on_down: found \"drain\"; expected \"keep\", \"reset\" or \"reschedule\"",
        ),
        (
            "on_down = \"reschedule\"",
            "service[0].on_down: \"reschedule\" is for UDP: no other server knows of a TCP connection; use \"reset\", after which clients connect again, or \"keep\"",
        ),
        (
            "scheduler = \"wrr\"\nslow_start = \"30s\"",
            "service[0].slow_start: wrr gives a new server no more than its share anyway; leave slow_start out, or use scheduler = \"lc\", \"wlc\" or \"sed\"",
        ),
        (
            "slow_start = \"500ms\"",
            "service[0].slow_start: found \"500ms\"; expected 1s to 1h, as a whole number with the unit ms, s, m or h, such as \"300s\"",
        ),
        (
            "passive_health = { unanswered = 17 }",
            "service[0].passive_health.unanswered: found 17; expected a whole number from 1 to 16",
        ),
        (
            "passive_health = { retries = 3 }",
            "service[0].passive_health.retries: unknown key; known here: unanswered, retry",
        ),
        ("passive_health = true", "service[0].passive_health: found true; expected a table"),
        (
            "min_healthy = 1",
            "service[0].min_healthy: nobody asks how its servers are; add health, or leave min_healthy out",
        ),
    ] {
        assert_eq!(wrong(&with(lines)), [message], "{lines}");
    }
    let udp = |line| with(line).replace("\"tcp\"", "\"udp\"");
    let reschedule = parse(&udp("on_down = \"reschedule\"")).unwrap();
    assert_eq!(reschedule.services[0].lifecycle.on_down, OnDown::Reschedule);
    assert_eq!(
        wrong(&udp("passive_health = {}")),
        [
            "service[0].passive_health: nothing obliges a UDP server to answer; leave passive_health out"
        ]
    );
    let direct = with("method = \"direct\"\npassive_health = {}");
    assert_eq!(
        wrong(&direct.replace("port = 8080\n", "")),
        [
            "service[0].passive_health: the router does not see the answers of method = \"direct\"; leave passive_health out"
        ]
    );
}

#[test]
fn fallbacks() {
    let with =
        |keys: &str| changed("port = 80\n", &format!("port = 80\nfallback = {{ {keys} }}\n"));
    let of = |keys: &str| parse(&with(keys)).unwrap().services.remove(0).fallback.unwrap();
    let plain = of("address = \"10.0.0.99\"");
    assert_eq!((plain.name.as_str(), plain.weight), ("10.0.0.99:80", 1));
    let named = of("name = \"sorry\", address = \"10.0.0.11\", port = 81");
    assert_eq!((named.name.as_str(), named.endpoint.port), ("sorry", 81));
    for (keys, message) in [
        ("port = 81", "service[0].fallback.address: is missing; add the real server's address"),
        (
            "address = \"10.0.0.11\"",
            "service[0].fallback.address: 10.0.0.11:80 is a server of this service already; keep one",
        ),
        (
            "address = \"10.0.0.99\", weight = 2",
            "service[0].fallback.weight: unknown key; known here: name, address, port",
        ),
        (
            "address = \"203.0.113.10\"",
            "service[0].fallback.address: 203.0.113.10 is a virtual IP; name another host",
        ),
    ] {
        assert_eq!(wrong(&with(keys)), [message], "{keys}");
    }
    let direct = with("address = \"10.0.0.99\", port = 81").replace("port = 8080\n", "");
    assert_eq!(
        wrong(&direct.replace("fallback", "method = \"direct\"\nfallback")),
        [
            "service[0].fallback.port: 81 is not the service's port 80; direct routing does not change ports: leave it out, or use method = \"nat\""
        ]
    );
}

#[test]
fn servers() {
    let server = "address = \"10.0.0.12\"\nport = 8080\nweight = 0";
    each(&[
        (
            server,
            "address = \"10.0.0.11\"\nport = 80",
            "service[0].server[1].address: 10.0.0.11:80 is a server of this service already; keep one",
        ),
        (
            server,
            "address = \"203.0.113.10\"",
            "service[0].server[1].address: 203.0.113.10 is a virtual IP; name another host",
        ),
        (
            server,
            "address = \"10.0.0.2\"",
            "service[0].server[1].address: 10.0.0.2 is the router's own address; name another host",
        ),
        (
            server,
            "address = \"10.0.0.255\"",
            "service[0].server[1].address: 10.0.0.255 is the broadcast address of 10.0.0.0/24; use a host address",
        ),
        (
            server,
            "address = \"127.0.0.1\"",
            "service[0].server[1].address: 127.0.0.1 is a loopback address; use a unicast address",
        ),
        (
            server,
            "address = \"2001:db8::11\"",
            "service[0].server[1].address: IPv6 servers are not supported yet; use an IPv4 address",
        ),
        (
            server,
            "address = \"web2\"",
            "service[0].server[1].address: found \"web2\"; expected an address such as \"192.0.2.1\"",
        ),
        (server, "", "service[0].server[1].address: is missing; add the real server's address"),
        (
            server,
            "address = \"10.0.0.12\"\nport = -1",
            "service[0].server[1].port: found -1; expected a whole number from 1 to 65535",
        ),
        (
            server,
            "address = \"10.0.0.12\"\nweight = 65536",
            "service[0].server[1].weight: found 65536; expected a whole number from 0 to 65535",
        ),
        (
            server,
            "address = \"10.0.0.12\"\nname = \"10.0.0.11:80\"",
            "service[0].server[1].name: \"10.0.0.11:80\" is taken; use a name that no other one has",
        ),
    ]);
    let without_gateway = RIGHT.replace("gateway = \"203.0.113.1\"", "");
    assert!(parse(&without_gateway.replace("10.0.0.12", "198.51.100.7")).is_ok(), "by the route");
    assert!(parse(&RIGHT.replace("10.0.0.12", "8.8.8.8")).is_ok(), "by the gateway");
    assert_eq!(
        wrong(&without_gateway.replace("10.0.0.12", "8.8.8.8")),
        [
            "service[0].server[1].address: 8.8.8.8 cannot be reached; put it inside a network's prefix, or add a [[route]] to it"
        ]
    );
}

//! The rules of `[router]` and `[[network]]`.

use super::*;

#[test]
fn the_router() {
    let name = "name = \"lvs1\"";
    each(&[
        (
            name,
            "name = \"\"",
            "router.name: found \"\"; expected 1 to 64 letters, digits, \"-\", \"_\" or \".\"",
        ),
        (
            name,
            "name = \"a/b\"",
            "router.name: found \"a/b\"; expected 1 to 64 letters, digits, \"-\", \"_\" or \".\"",
        ),
        (
            name,
            "control_socket = \"x.sock\"",
            "router.control_socket: found \"x.sock\"; expected \"none\" or an absolute path of at most 107 bytes, such as \"/run/tapvs/tapvs.sock\"",
        ),
        (
            name,
            "max_flows = 999",
            "router.max_flows: found 999; expected a whole number from 1000 to 16000000",
        ),
        (
            name,
            "max_flows = 1e6",
            "router.max_flows: found 1e6; expected a whole number from 1000 to 16000000",
        ),
        (
            name,
            "max_flows = 99999999999999999999",
            "router.max_flows: found 99999999999999999999; expected a whole number from 1000 to 16000000",
        ),
        (
            name,
            "forward = \"server-out\"",
            "router.forward: found \"server-out\"; expected \"none\", \"servers-out\" or \"all\"",
        ),
        (
            name,
            "unserved = true",
            "router.unserved: found true; expected \"reset\", \"icmp\" or \"drop\"",
        ),
        (name, "watch = \"yes\"", "router.watch: found \"yes\"; expected true or false"),
        (
            name,
            "timeouts = \"linux\"",
            "router.timeouts: found \"linux\"; expected \"ipvs\", \"rfc\" or a table such as { established = \"900s\" }",
        ),
        (
            name,
            "timeouts = { udp = 300 }",
            "router.timeouts.udp: found 300; expected 10ms to 24h, as a whole number with the unit ms, s, m or h, such as \"300s\"",
        ),
        (
            name,
            "timeouts = { udp = \"9ms\" }",
            "router.timeouts.udp: found \"9ms\"; expected 10ms to 24h, as a whole number with the unit ms, s, m or h, such as \"300s\"",
        ),
        (
            name,
            "timeouts = { closed = \"1s\" }",
            "router.timeouts.closed: unknown key; did you mean `close`?",
        ),
        ("[router]", "[[router]]", "router: found an array; expected a table"),
    ]);
    let socket =
        |bytes: usize| changed(name, &format!("control_socket = \"/{}\"", "s".repeat(bytes - 1)));
    assert!(parse(&socket(107)).is_ok());
    assert_eq!(wrong(&socket(108)).len(), 1);
}

#[test]
fn timeouts_by_name_and_one_by_one() {
    let timeouts = |text: &str| {
        let setting = format!("timeouts = {text}");
        parse(&changed("name = \"lvs1\"", &setting)).unwrap().router.timeouts
    };
    assert_eq!(timeouts("\"ipvs\""), Timeouts::IPVS);
    assert_eq!(timeouts("\"rfc\""), Timeouts::RFC);
    let seconds = Duration::from_secs;
    assert_eq!(
        timeouts("{ established = \"24h\", udp = \"1000ms\" }"),
        Timeouts { established: seconds(86_400), udp: seconds(1), ..Timeouts::IPVS }
    );
}

#[test]
fn networks_and_links() {
    let links = "links = [\"tapvs1\"]";
    let interface = "an interface name: 1 to 15 ASCII letters, digits or signs, without space, \"/\", \":\" or \"%\"";
    let not_tap = |tap: &str| format!("network[1].links[0]: found {tap:?}; expected {interface}");
    for tap in ["", "sixteen-byte-tap", "a b", "a/b", "tap%d", "..", "täp", "a:b"] {
        each(&[(links, &format!("links = [{tap:?}]"), &not_tap(tap))]);
    }
    each(&[
        (links, "", "network[1].links: is missing; add its TAP device, such as [\"tapvs0\"]"),
        (links, "links = []", "network[1].links: is empty; add a TAP device, such as [\"tapvs0\"]"),
        (
            links,
            "links = \"tapvs1\"",
            "network[1].links: found \"tapvs1\"; expected a list of TAP devices, such as [\"tapvs0\"]",
        ),
        (
            links,
            "links = [1]",
            "network[1].links[0]: found 1; expected the name of a TAP device or a table such as { tap = \"tapvs0\" }",
        ),
        (
            links,
            "links = [\"a\", \"a\"]",
            "network[1].links[1]: \"a\" is taken; a TAP device or NIC belongs to one network, once",
        ),
        (
            links,
            "links = [\"a\"]\nmac_ageing = \"300s\"",
            "network[1].mac_ageing: is for a network of several links; add links or leave it out",
        ),
        (
            links,
            "links = [\"a\", \"b\"]\nmac_ageing = \"59s\"",
            "network[1].mac_ageing: found \"59s\"; expected 60s to 24h, as a whole number with the unit ms, s, m or h, such as \"300s\"",
        ),
        (
            links,
            "links = [\"a\", \"b\"]\nbroadcast_limit = 0",
            "network[1].broadcast_limit: found 0; expected a whole number from 1 to 1000000",
        ),
        (
            links,
            "links = [\"tapvs0\"]",
            "network[1].links[0]: \"tapvs0\" is taken; a TAP device or NIC belongs to one network, once",
        ),
        (
            links,
            "links = [{ tap = \"a\", attach = \"tapvs0\" }]",
            "network[1].links[0].attach: \"tapvs0\" is taken; a TAP device or NIC belongs to one network, once",
        ),
        (
            links,
            "links = [{ attach = \"eth1\" }]",
            "network[1].links[0].tap: is missing; add the name of the TAP device, such as \"tapvs0\"",
        ),
        (
            links,
            "links = [{ tap = \"a\", attach = 1 }]",
            "network[1].links[0].attach: found 1; expected the name of a NIC or a table such as { nic = \"eth1\" }",
        ),
        (
            links,
            "links = [{ tap = \"a\", attach = {} }]",
            "network[1].links[0].attach.nic: is missing; add the name of the NIC, such as \"eth1\"",
        ),
        (
            links,
            "links = [{ tap = \"a\", attach = { nic = \"e\", mode = \"veth\" } }]",
            "network[1].links[0].attach.mode: found \"veth\"; expected \"bridge\" or \"macvtap\"",
        ),
        (
            links,
            "links = [{ tap = \"a\", attach = \"0000:00:03\" }]",
            "network[1].links[0].attach: found \"0000:00:03\"; expected a NIC: its interface name, its MAC address or its PCI address such as \"0000:00:03.0\"",
        ),
        (
            links,
            "links = [{ tap = \"a\", attach = { nic = \"e\", mode = \"macvtap\" } }]\nmac = \"02:00:00:00:00:01\"",
            "network[1].mac: is the NIC's own with macvtap; leave it out",
        ),
        (
            links,
            "links = [\"b\", { tap = \"a\", attach = { nic = \"e\", mode = \"macvtap\" } }]",
            "network[1].links: has a link with macvtap, which passes no other MAC; it must be the only one",
        ),
        (
            links,
            "links = [{ tap = \"a\", attach = { nic = \"e\", force = 1 } }]",
            "network[1].links[0].attach.force: found 1; expected true or false",
        ),
        (
            "name = \"servers\"",
            "name = \"internet\"",
            "network[1].name: \"internet\" is taken; use a name that no other network has",
        ),
        (
            "name = \"servers\"",
            "name = \" \"",
            "network[1].name: found \" \"; expected a name of 1 to 64 characters, without space at its ends",
        ),
        (
            "name = \"servers\"",
            "",
            "network[1].name: is missing; add a name for this network, such as \"internet\"",
        ),
        (
            links,
            "links = [\"a\"]\nmtu = 575",
            "network[1].mtu: found 575; expected a whole number from 576 to 9000",
        ),
        (
            links,
            "links = [\"a\"]\nmac = \"ff:ff:ff:ff:ff:ff\"",
            "network[1].mac: found \"ff:ff:ff:ff:ff:ff\"; expected a unicast MAC address such as \"02:00:5e:10:00:01\" (its first byte is even)",
        ),
    ]);
    let attached = |link: &str| {
        let config = parse(&changed(links, &format!("links = [{link}]"))).unwrap();
        config.networks[1].links[0].attach.clone()
    };
    let nic = Nic::Name("eth1".to_owned());
    let bridge = AttachMode::Bridge;
    assert_eq!(attached("{ tap = \"a\" }"), None);
    assert_eq!(
        attached("{ tap = \"a\", attach = \"eth1\" }"),
        Some(Attach { nic: nic.clone(), mode: bridge, force: false })
    );
    assert_eq!(
        attached("{ tap = \"a\", attach = { nic = \"eth1\", mode = \"bridge\", force = true } }"),
        Some(Attach { nic, mode: bridge, force: true })
    );
    let mac = Nic::Mac("52:54:00:12:34:56".parse().unwrap());
    assert_eq!(
        attached("{ tap = \"a\", attach = { nic = \"52:54:00:12:34:56\", mode = \"macvtap\" } }"),
        Some(Attach { nic: mac, mode: AttachMode::Macvtap, force: false })
    );
    assert_eq!(
        attached("{ tap = \"a\", attach = \"0000:00:1A.0\" }"),
        Some(Attach { nic: Nic::Pci("0000:00:1a.0".into()), mode: bridge, force: false })
    );
}

#[test]
fn own_addresses() {
    let own = "\"10.0.0.2/24\"";
    each(&[
        (
            own,
            "",
            "network[1].addresses: is empty; add the router's own address, such as \"192.0.2.2/24\"",
        ),
        (
            own,
            "\"10.0.0.2\"",
            "network[1].addresses[0]: found \"10.0.0.2\"; expected an address with a prefix length such as \"192.0.2.1/24\"",
        ),
        (
            own,
            "\"10.0.0.2/33\"",
            "network[1].addresses[0]: found \"10.0.0.2/33\"; expected an address with a prefix length such as \"192.0.2.1/24\"",
        ),
        (
            own,
            "\"10.0.0.0/24\"",
            "network[1].addresses[0]: 10.0.0.0 is the network address of 10.0.0.0/24; use a host address",
        ),
        (
            own,
            "\"10.0.0.255/24\"",
            "network[1].addresses[0]: 10.0.0.255 is the broadcast address of 10.0.0.0/24; use a host address",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"10.0.0.2/24\"",
            "network[1].addresses[1]: 10.0.0.2 is given twice; keep one of them",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"127.0.0.1/8\"",
            "network[1].addresses[1]: 127.0.0.1 is a loopback address; use a unicast address",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"224.0.0.1/8\"",
            "network[1].addresses[1]: 224.0.0.1 is a multicast address; use a unicast address",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"0.0.0.0/8\"",
            "network[1].addresses[1]: 0.0.0.0 is the unspecified address; use a unicast address",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"10.0.1.1/0\"",
            "network[1].addresses[1]: 10.0.1.1/0 spans every address; use a prefix length from 1 to 32",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"203.0.113.130/25\"",
            "network[1].addresses[1]: 203.0.113.128/25 overlaps 203.0.113.0/24 of network[0]; a prefix lies in one network",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"2001:db8::2/64\"",
            "network[1].addresses[1]: IPv6 addresses of the router are not supported yet; use IPv4",
        ),
        (
            own,
            "\"10.0.0.2/24\", \"10.0.0.127/25\"",
            "network[1].addresses[1]: 10.0.0.127 is the broadcast address of 10.0.0.0/25; use a host address",
        ),
    ]);
    for good in ["\"10.0.0.2/24\", \"10.0.0.3/24\"", "\"10.0.0.8/31\", \"10.0.0.11/24\""] {
        let good = changed(own, good).replace("address = \"10.0.0.11\"", "address = \"10.0.0.13\"");
        assert!(parse(&good).is_ok(), "{good}");
    }
    let many: Vec<_> = (2..=60).map(|n| format!("\"10.0.0.{}/24\"", 98 + n)).collect();
    assert!(parse(&changed(own, &many.join(", "))).is_ok());
}

#[test]
fn segment_clamp() {
    let clamped = |value| {
        changed("name = \"internet\"", &format!("name = \"internet\"\nmss_clamp = {value}"))
    };
    assert_eq!(parse(&clamped("1400")).unwrap().networks[0].mss_clamp, Some(1400));
    assert_eq!(parse(RIGHT).unwrap().networks[0].mss_clamp, None);
    assert_eq!(wrong(&clamped("87")).len(), 1);
}

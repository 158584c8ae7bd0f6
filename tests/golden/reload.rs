//! A new table while traffic flows: what is the same stays, what is gone drains.

use super::*;
use tapvs::dataplane::Event;
use tapvs::time::Duration;

fn visit(router: &mut Router, port: u16) -> String {
    let frame = tcp(&format!("198.51.100.7:{port}"), WEB, SYN, 1000, 0, b"").frame();
    let text = router.feed(OUT, &frame).text();
    assert!(text.starts_with("forward"), "{text}");
    let at = text.find("server").unwrap();
    text[at..at + 8].to_string()
}

#[test]
fn an_unchanged_reload_changes_nothing() {
    let mut router = Router::new(config());
    assert_eq!(visit(&mut router, 1), "server11");
    let (flows, report) = (router.flows(), router.report());
    router.change(|_| {});
    assert_eq!(router.flows(), flows);
    let after = router.report();
    assert_eq!(format!("{:?}", after.services), format!("{:?}", report.services));
    assert_eq!(after.counters, report.counters);
    assert_eq!(router.advance(Duration::from_secs(3)), [], "nothing to announce");
    assert_eq!(visit(&mut router, 2), "server12", "the walk goes on");
    assert_eq!(visit(&mut router, 1), "server11", "the flow stays where it is");
    assert_eq!(router.flows().len(), 2);
}

#[test]
fn an_unchanged_service_is_the_same_service() {
    let mut router = Router::new(config());
    let before: Vec<_> = router.table.services().to_vec();
    router.change(|config| config.services[1].servers[0].weight = 7);
    let after = router.table.services();
    assert!(std::sync::Arc::ptr_eq(&before[0], &after[0]), "shared, not copied");
    assert_eq!(before[1].id, after[1].id);
    assert_eq!(before[1].servers[0].id, after[1].servers[0].id);
}

#[test]
fn a_removed_server_drains_and_its_id_comes_back() {
    let mut router = Router::new(config());
    for (port, server) in [(1, "server11"), (2, "server12"), (3, "server13")] {
        assert_eq!(visit(&mut router, port), server);
    }
    let gone = router.table.services()[0].servers[1].id;
    router.change(|config| {
        config.services[0].servers.remove(1);
    });
    assert_eq!(visit(&mut router, 2), "server12", "its flow goes on");
    let back =
        router.feed(IN, &tcp("10.0.0.12:8080", "198.51.100.7:2", SYN | ACK, 5, 1001, b"").frame());
    assert!(back.text().contains("203.0.113.10 > 198.51.100.7"), "{}", back.text());
    for port in 10..20 {
        assert_ne!(visit(&mut router, port), "server12", "nothing new goes there");
    }
    assert!(router.events.is_empty());
    router.advance(Duration::from_secs(200));
    assert_eq!(router.flows(), []);
    assert_eq!(router.events, [Event::ServerRetired(gone)], "told once its last flow is gone");
    router.change(|config| config.services[0].servers.push(server(14, 8080, 1)));
    let new = router.table.services()[0].servers[2].clone();
    assert_eq!(new.id, gone, "the id is used again");
    let report = router.report();
    assert_eq!(report.services[0].servers[2].traffic.packets_in, 0, "and starts from zero");
}

#[test]
fn a_server_without_flows_retires_at_once() {
    let mut router = Router::new(config());
    let (service, gone) = (router.table.services()[1].id, router.table.services()[1].clone());
    router.change(|config| {
        config.services.remove(1);
    });
    let mut ids: Vec<_> =
        gone.servers.iter().map(|server| Event::ServerRetired(server.id)).collect();
    ids.push(Event::ServiceRetired(service));
    for event in ids {
        assert!(router.events.contains(&event), "{event:?} in {:?}", router.events);
    }
    assert!(router.feed(OUT, &query().frame()).text().starts_with("drop unserved"));
}

#[test]
fn a_server_that_comes_back_while_it_drains_is_the_one_it_was() {
    let mut router = Router::new(config());
    assert_eq!(visit(&mut router, 1), "server11");
    let whole = router.config.clone();
    router.change(|config| {
        config.services[0].servers.remove(0);
    });
    let before = router.flows();
    router.reload(whole);
    assert_eq!(visit(&mut router, 1), "server11");
    assert_eq!(router.flows()[0].owner, before[0].owner);
    assert_eq!(router.report().services[0].servers[0].traffic.flows, 1);
    router.advance(Duration::from_secs(200));
    assert_eq!(router.flows(), []);
    let retired = |event: &&Event| matches!(event, Event::ServerRetired(_));
    assert_eq!(router.events.iter().filter(retired).count(), 0, "it is configured");
}

#[test]
fn weights_touch_new_flows_only() {
    let mut router = Router::new(config());
    assert_eq!(visit(&mut router, 1), "server11");
    router.change(|config| config.services[0].servers[0].weight = 0);
    assert_eq!(visit(&mut router, 1), "server11");
    for port in 2..8 {
        assert_ne!(visit(&mut router, port), "server11");
    }
}

#[test]
fn virtual_ips_come_and_go() {
    let new = "203.0.113.20".parse().unwrap();
    let mut router = Router::new(config());
    assert_eq!(router.feed(OUT, &gateway_asks(new).frame()).text(), "consumed neighbour");
    router.change(|config| {
        config.virtual_ips.push(tapvs::config::VirtualIp::new(std::net::IpAddr::V4(new), 0));
    });
    let out: Vec<_> = router.transmits().iter().map(|(_, frame)| line(frame)).collect();
    assert_eq!(
        out,
        [
            "router.out > all arp request from router.out 203.0.113.20 to nobody 203.0.113.20, 60 bytes"
        ]
    );
    assert!(router.feed(OUT, &gateway_asks(new).frame()).text().starts_with("reply"));
    router.change(|config| {
        config.virtual_ips.pop();
    });
    assert_eq!(
        router.feed(OUT, &gateway_asks(new).frame()).text(),
        "consumed neighbour",
        "not answered"
    );
    assert_eq!(router.advance(Duration::from_secs(5)), [], "not announced any more");
    let ping = icmp("198.51.100.7", "203.0.113.20", (8, 0), [0; 4], b"");
    assert_eq!(router.feed(OUT, &ping.frame()).text(), "drop not_forwarded");
}

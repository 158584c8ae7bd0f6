//! What the tests of this room share, and the tests of the line between loop and thread.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::*;
use crate::config::{
    Balance, Bridge, Config, Forward, Health, Inquiry, Io, Lifecycle, Link, Masquerade, Method,
    Network, Route, Router, Scheduler, Server, Service, Timeouts, Unserved, VirtualIp,
};

/// Something for the log.
#[derive(Debug)]
pub(super) enum Word {
    /// Happened; its text is its cause.
    Event(&'static str),
    /// Was asked for.
    Asked(&'static str),
}

impl Notice for Word {
    type Cause = &'static str;

    fn cause(&self) -> Option<&'static str> {
        match self {
            Self::Event(text) => Some(text),
            Self::Asked(_) => None,
        }
    }

    fn level(&self) -> log::Level {
        log::Level::Info
    }

    fn entries(&self) -> Vec<Entry> {
        let (Self::Event(text) | Self::Asked(text)) = self;
        vec![Entry { text, fields: Vec::new() }]
    }
}

#[test]
fn a_full_line_loses_notices_that_nobody_asked_for_but_nothing_else() {
    let (sender, inbox) = sync_channel(2);
    let mut line = Line::new(sender);
    for n in 0..5 {
        line.tell(Message::Notice(Word::Event("conflict")));
        line.tell(Message::ServerGone(ServerId(n)));
    }
    line.tell(Message::Notice(Word::Asked("report")));
    assert!(line.flush(), "something to read");
    let mut seen = vec![];
    loop {
        seen.extend(inbox.try_iter().map(|message| format!("{message:?}")));
        if !line.flush() {
            break;
        }
    }
    let expected = [
        "Notice(Event(\"conflict\"))",
        "ServerGone(ServerId(0))",
        "ServerGone(ServerId(1))",
        "ServerGone(ServerId(2))",
        "ServerGone(ServerId(3))",
        "ServerGone(ServerId(4))",
        "Notice(Asked(\"report\"))",
        "Lost(4)",
    ];
    assert_eq!(seen, expected);
    assert!(!line.flush(), "nothing new");
}

#[test]
fn it_is_behind_until_all_is_sent() {
    let (sender, inbox) = sync_channel(1);
    let mut line = Line::<Word>::new(sender);
    line.tell(Message::Applied(1));
    assert!(!line.is_behind());
    line.tell(Message::Applied(2));
    line.tell(Message::Notice(Word::Event("conflict")));
    line.flush();
    assert!(line.is_behind(), "one waits and one is lost");
    assert!(inbox.try_recv().is_ok());
    line.flush();
    assert!(line.is_behind(), "nobody knows yet of the lost one");
    assert!(inbox.try_recv().is_ok());
    line.flush();
    assert!(!line.is_behind());
}

#[test]
fn the_last_words_reach_a_reader_that_sleeps_again() {
    let (sender, inbox) = sync_channel(2);
    let (wake, woken) = channel();
    let (done, is_done) = channel();
    let mut line = Line::<Word>::new(sender);
    (0..3000).for_each(|n| line.tell(Message::ServerGone(ServerId(n))));
    // As the control thread does: once woken it reads what is there, and not what comes later.
    let reader =
        thread::spawn(move || woken.iter().map(|()| inbox.try_iter().count()).sum::<usize>());
    thread::spawn(move || {
        line.finish(|| wake.send(()).map_err(io::Error::other)).unwrap();
        wake.send(()).unwrap();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("the reader sleeps, the writer waits");
    assert_eq!(reader.join().unwrap(), 3000);
}

#[test]
fn a_dead_control_thread_costs_no_memory() {
    let (sender, inbox) = sync_channel(1);
    let mut line = Line::new(sender);
    drop(inbox);
    for n in 0..100 {
        line.tell(Message::<Word>::Applied(n));
        line.flush();
    }
    assert!(line.backlog.is_empty());
    line.finish(|| Ok(())).unwrap();
}

/// A small valid configuration: two networks, one service with two servers.
pub(super) fn config() -> Config {
    let network = |name: &str, tap: &str, address: &str| Network {
        name: name.to_owned(),
        links: vec![Link { tap: tap.to_owned(), offload: None, attach: None }],
        addresses: vec![address.parse().unwrap()],
        gateway: None,
        mtu: 1500,
        mss_clamp: None,
        mac: None,
        bridge: Bridge::default(),
    };
    let server = |name: &str, endpoint: &str| {
        let socket: std::net::SocketAddr = endpoint.parse().unwrap();
        let endpoint = crate::addr::Endpoint { address: socket.ip(), port: socket.port() };
        Server::new(name.to_owned(), endpoint, 1)
    };
    let mut internet = network("internet", "tapvs0", "203.0.113.2/24");
    internet.gateway = Some("203.0.113.1".parse().unwrap());
    let vip = "203.0.113.10".parse().unwrap();
    Config {
        router: Router {
            name: "lvs1".to_owned(),
            control_socket: Some("/run/tapvs/lvs1.sock".into()),
            watch: false,
            max_flows: None,
            forward: Forward::ServersOut,
            unserved: Unserved::Reset,
            timeouts: Timeouts::IPVS,
            io: Io::Auto,
            offload: true,
        },
        networks: vec![internet, network("servers", "tapvs1", "10.0.0.2/24")],
        routes: vec![Route {
            to: "198.51.100.0/24".parse().unwrap(),
            via: "10.0.0.9".parse().unwrap(),
            network: 1,
        }],
        virtual_ips: vec![VirtualIp::new(vip, 0)],
        masquerades: vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: vip }],
        status_page: None,
        failover: None,
        services: vec![Service {
            name: "web".to_owned(),
            protocol: crate::addr::Proto::Tcp,
            address: vip,
            port: 80,
            last_port: None,
            group: None,
            method: Method::Nat,
            scheduler: Scheduler::WeightedLeastConnection,
            balance: Balance::default(),
            health: None,
            servers: vec![server("web1", "10.0.0.11:8080"), server("web2", "10.0.0.12:8080")],
            fallback: None,
            lifecycle: Lifecycle::default(),
        }],
    }
}

/// A TCP check with every other key at its default.
pub(super) fn health() -> Arc<Health> {
    Arc::new(Health {
        inquiry: Inquiry::Tcp,
        interval: crate::time::Duration::from_secs(2),
        timeout: crate::time::Duration::from_secs(1),
        fall: 3,
        rise: 2,
        initially_up: true,
        port: None,
    })
}

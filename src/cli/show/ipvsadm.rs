//! `tapvs services --ipvsadm`: what `ipvsadm -Ln` prints, to the byte, for scripts that read it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use crate::cli::ask::Router;
use crate::cli::operate::{Failed, Output};
use crate::control::protocol::{Answer, Estimate, Figures, Request, Server, Service};

use super::services::{Row, sampled};

/// Which of ipvsadm's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Listing {
    /// `-Ln`
    Plain,
    /// `-Ln --stats`
    Stats,
    /// `-Ln --rate`
    Rate,
}

pub(in crate::cli) fn show(
    router: &mut Router,
    listing: Listing,
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let Answer::Status(status) = router.ask(&Request::Status {})? else {
        return Err(router.unexpected().into());
    };
    let rows = sampled(router, 0)?;
    Ok(output.text(&text(listing, status.now.max_flows, rows))?)
}

/// `size`: how many flows fit. Services and servers are sorted, as ipvsadm sorts them.
fn text(listing: Listing, size: usize, mut rows: Vec<Row>) -> String {
    let mut text = format!("IP Virtual Server version 1.2.1 (size={size})\n");
    let columns = match listing {
        Listing::Plain => None,
        Listing::Stats => Some(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Listing::Rate => Some(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
    };
    // Writing into memory does not fail.
    let _ = match columns {
        None => writeln!(
            text,
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
        ),
        Some([a, b, c, d, e]) => {
            let head = "Prot LocalAddress:Port";
            writeln!(text, "{head:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n  -> RemoteAddress:Port")
        }
    };
    rows.sort_by(|a, b| place(a).cmp(&place(b)));
    for Row { service, .. } in &rows {
        let name = format!("{:<4} {}", service.protocol.to_uppercase(), service.address);
        match listing {
            Listing::Plain => {
                let _ = writeln!(text, "{name} {}{}", service.scheduler, flags(service));
            }
            Listing::Stats => numbers(&mut text, &format!("{name:<33}"), totals(&service.figures)),
            Listing::Rate => {
                numbers(&mut text, &format!("{name:<33}"), estimate(&service.figures));
            }
        }
        let mut listed: Vec<_> = service.servers.iter().collect();
        listed.retain(|server| !server.fallback || serves(service, server));
        listed.sort_by(|a, b| order(&a.address).cmp(&order(&b.address)));
        for server in listed {
            let name = format!("  -> {:<28}", server.address);
            match listing {
                Listing::Plain => {
                    let Figures { active, inactive, .. } = server.figures;
                    let (forward, weight) = (forward(&service.method), weight(server));
                    let _ = writeln!(
                        text,
                        "{name} {forward:<7} {weight:<6} {active:<10} {inactive:<10}"
                    );
                }
                Listing::Stats => numbers(&mut text, &name, totals(&server.figures)),
                Listing::Rate => numbers(&mut text, &name, estimate(&server.figures)),
            }
        }
    }
    text
}

/// By protocol, then by address.
fn place(row: &Row) -> (bool, (Ipv4Addr, u16, &str)) {
    (row.service.protocol != "tcp", order(&row.service.address))
}

/// Addresses by their numbers, then ports.
fn order(address: &str) -> (Ipv4Addr, u16, &str) {
    let socket = address.parse::<SocketAddr>().ok();
    let host = address.rsplit_once(':').and_then(|(host, _)| host.parse().ok());
    (host.unwrap_or(Ipv4Addr::UNSPECIFIED), socket.map_or(0, |socket| socket.port()), address)
}

/// What stands after the scheduler.
fn flags(service: &Service) -> String {
    let mut text = String::new();
    if !service.scheduler_flags.is_empty() {
        text += &format!(" ({})", service.scheduler_flags.join(","));
    }
    if let Some(persistence) = &service.persistence {
        text += &format!(" persistent {}", persistence.timeout_ms / 1_000);
        if persistence.prefix < 32 {
            let mask = u32::MAX.checked_shl(32 - u32::from(persistence.prefix)).unwrap_or(0);
            text += &format!(" mask {}", Ipv4Addr::from_bits(mask));
        }
    }
    if service.one_packet {
        text += " ops";
    }
    text
}

fn forward(method: &str) -> &'static str {
    match method {
        "direct" => "Route",
        "tunnel" => "Tunnel",
        _ => "Masq",
    }
}

/// A server that is down has weight 0, as with keepalived's `inhibit_on_failure`.
fn weight(server: &Server) -> u16 {
    let is_up = server.health.as_ref().is_none_or(|health| health.up);
    if is_up && !server.drained { server.weight } else { 0 }
}

/// Whether a fallback is in use: keepalived would have put it into the table.
fn serves(service: &Service, fallback: &Server) -> bool {
    let mut others = service.servers.iter().filter(|server| !server.fallback);
    others.all(|server| weight(server) == 0)
        || fallback.figures.active > 0
        || fallback.figures.inactive > 0
}

const fn totals(figures: &Figures) -> [u64; 5] {
    let Figures { connections, packets_in, packets_out, bytes_in, bytes_out, .. } = *figures;
    [connections, packets_in, packets_out, bytes_in, bytes_out]
}

const fn estimate(figures: &Figures) -> [u64; 5] {
    let Estimate { connections, packets_in, packets_out, bytes_in, bytes_out } = figures.estimate;
    [connections, packets_in, packets_out, bytes_in, bytes_out]
}

fn numbers(text: &mut String, name: &str, numbers: [u64; 5]) {
    text.push_str(name);
    for number in numbers {
        text.push_str(&large(number));
    }
    text.push('\n');
}

/// Nine columns: numbers of more than eight digits in thousands, millions and so on, as
/// ipvsadm 1.31 chooses them.
fn large(number: u64) -> String {
    let (unit, sign) = match number {
        0..100_000_000 => return format!("{number:>9}"),
        100_000_000..1_000_000_000 => (1_000, "K"),
        1_000_000_000..100_000_000_000 => (1_000_000, "M"),
        100_000_000_000..100_000_000_000_000 => (1_000_000_000, "G"),
        100_000_000_000_000.. => (1_000_000_000_000, "T"),
    };
    format!("{:>8}{sign}", number / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::show::services::Sample;
    use crate::control::protocol::{Health, Persistence};

    fn server(address: &str, weight: u16, active: u32, inactive: u32) -> Server {
        Server {
            name: address.to_owned(),
            address: address.to_owned(),
            weight,
            configured_weight: weight,
            drained: false,
            max_flows: 0,
            min_flows: 0,
            overloaded: false,
            fallback: false,
            health: None,
            figures: Figures {
                active,
                inactive,
                connections: 1_234,
                packets_in: 12_345,
                packets_out: 99_999_999,
                bytes_in: 100_000_000,
                bytes_out: 12_345_678_901_234,
                persistent: 0,
                estimate: Estimate::default(),
            },
        }
    }

    fn service(protocol: &str, address: &str, method: &str, servers: Vec<Server>) -> Service {
        Service {
            name: "web".to_owned(),
            protocol: protocol.to_owned(),
            address: address.to_owned(),
            method: method.to_owned(),
            scheduler: "wlc".to_owned(),
            scheduler_flags: Vec::new(),
            persistence: None,
            one_packet: false,
            group: None,
            figures: Figures { connections: 7, ..Figures::default() },
            servers,
        }
    }

    fn rows() -> Vec<Row> {
        let mut ops =
            service("udp", "203.0.113.10:53", "direct", vec![server("10.0.0.9:53", 1, 0, 3)]);
        (ops.one_packet, ops.scheduler) = (true, "rr".to_owned());
        let mut sticky = service(
            "tcp",
            "203.0.113.10:443",
            "nat",
            vec![server("10.0.0.12:8443", 3, 10, 2), server("10.0.0.2:8443", 1, 0, 0)],
        );
        sticky.persistence =
            Some(Persistence { timeout_ms: 300_000, prefix: 24, expire_quiescent: false });
        (sticky.scheduler, sticky.scheduler_flags) =
            ("sh".to_owned(), vec!["sh-fallback".to_owned(), "sh-port".to_owned()]);
        let plain = service("tcp", "203.0.113.9:80", "nat", Vec::new());
        Sample(vec![(1, ops), (1, sticky), (1, plain)]).since(&Sample::default())
    }

    /// As ipvsadm 1.31 prints the same table; the trailing spaces are its own.
    #[test]
    fn plain_is_ipvsadms() {
        let expected = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  203.0.113.9:80 wlc
TCP  203.0.113.10:443 sh (sh-fallback,sh-port) persistent 300 mask 255.255.255.0
  -> 10.0.0.2:8443                Masq    1      0          0         \n  \
  -> 10.0.0.12:8443               Masq    3      10         2         \n\
UDP  203.0.113.10:53 rr ops
  -> 10.0.0.9:53                  Route   1      0          3         \n";
        assert_eq!(text(Listing::Plain, 4096, rows()), expected);
    }

    #[test]
    fn stats_are_ipvsadms() {
        let expected = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  203.0.113.9:80                      7        0        0        0        0
TCP  203.0.113.10:443                    7        0        0        0        0
  -> 10.0.0.2:8443                    1234    12345 99999999  100000K   12345G
  -> 10.0.0.12:8443                   1234    12345 99999999  100000K   12345G
UDP  203.0.113.10:53                     7        0        0        0        0
  -> 10.0.0.9:53                      1234    12345 99999999  100000K   12345G
";
        assert_eq!(text(Listing::Stats, 4096, rows()), expected);
    }

    /// As its `print_largenum` has it.
    #[test]
    fn large_numbers_are_ipvsadms() {
        for (number, expected) in [
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (999_999_999, "  999999K"),
            (1_000_000_000, "    1000M"),
            (99_999_999_999, "   99999M"),
            (100_000_000_000, "     100G"),
            (99_999_999_999_999, "   99999G"),
            (100_000_000_000_000, "     100T"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(large(number), expected, "{number}");
        }
    }

    #[test]
    fn rates_are_the_routers_estimate() {
        let mut one = service("tcp", "203.0.113.9:80", "nat", vec![server("10.0.0.2:80", 1, 0, 0)]);
        one.servers[0].figures.estimate = Estimate { connections: 20, ..Estimate::default() };
        let rows = Sample(vec![(3_000_000, one)]).since(&Sample::default());
        let expected = "\
IP Virtual Server version 1.2.1 (size=1000)
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  203.0.113.9:80                      0        0        0        0        0
  -> 10.0.0.2:80                        20        0        0        0        0
";
        assert_eq!(text(Listing::Rate, 1_000, rows), expected);
    }

    #[test]
    fn who_takes_nothing_weighs_nothing() {
        let mut down = server("10.0.0.2:80", 5, 1, 0);
        down.health =
            Some(Health { up: false, checking: false, since_ms: 1, reason: None, last: None });
        let mut drained = server("10.0.0.3:80", 5, 0, 0);
        drained.drained = true;
        let fallback = Server { fallback: true, ..server("10.0.0.99:80", 1, 0, 0) };
        let mut one = service("tcp", "203.0.113.9:80", "nat", vec![down, drained, fallback]);
        let listed = |service: &Service| {
            let rows = Sample(vec![(1, service.clone())]).since(&Sample::default());
            text(Listing::Plain, 1, rows).lines().skip(4).map(str::to_owned).collect::<Vec<_>>()
        };
        let lines = listed(&one);
        assert!(
            lines[0].contains("Masq    0      1 ") && lines[1].contains("Masq    0 "),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 3, "the fallback serves");
        one.servers[1].drained = false;
        assert_eq!(listed(&one).len(), 2, "it does not");
    }
}

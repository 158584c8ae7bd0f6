//! What a new table costs the loop: `cargo bench --bench reload`.
//!
//! 1,000 services with ten servers each, 10,000 distinct hosts, the loop's share of a
//! reload is one `handle_table` and the turns after it until nothing is left to do, in processor time.
//! All else is the control thread's.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails loudly"
)]

use std::fmt::Write as _;

use rustix::time::{ClockId, clock_gettime};
use tapvs::config::{self, Config};
use tapvs::dataplane::{Dataplane, Event};
use tapvs::table::{Ids, Standing, Table};
use tapvs::time::{Duration, Instant};

const SERVICES: usize = 1_000;
const SERVERS: usize = 10;
const ROUNDS: usize = 50;

fn main() {
    let base = parse();
    type Change = fn(&mut Config, usize);
    let changes: [(&str, Change); 5] = [
        ("one weight", |config, round| weight(config, 0, round)),
        ("all weights", |config, round| (0..SERVICES).for_each(|at| weight(config, at, round))),
        ("one service gone, one new", |config, round| {
            config.services[0].port = 20_000 + u16::try_from(round).unwrap();
        }),
        ("half of all services", |config, round| {
            for (at, service) in config
                .services
                .iter_mut()
                .enumerate()
                .skip(round % 2 * SERVICES / 2)
                .take(SERVICES / 2)
            {
                service.port = u16::try_from(20_000 + at).unwrap();
            }
        }),
        ("nothing but a policy", |config, round| {
            config.router.unserved =
                if round % 2 == 0 { config::Unserved::Icmp } else { config::Unserved::Reset };
        }),
    ];
    println!(
        "{SERVICES} services x {SERVERS} servers, {ROUNDS} reloads of each kind; one turn of the loop:\n"
    );
    println!("{:<28} {:>12} {:>12} {:>14}", "change", "median", "longest", "compile");
    for (name, change) in changes {
        let mut ids = Ids::default();
        let mut table = Table::compile(&base, None, &mut ids, |_, _| Standing::GOOD);
        let mut now = Instant::ZERO;
        let mut dataplane = Dataplane::new(&table, [7; 16], 200_000, now);
        let (mut turns, mut compiles) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let mut config = base.clone();
            change(&mut config, round);
            let begin = cpu_time();
            let next = Table::compile(&config, Some(&table), &mut ids, |_, _| Standing::GOOD);
            compiles.push(cpu_time() - begin);
            now += Duration::from_secs(1);
            let begin = cpu_time();
            dataplane.handle_table(&table, &next, now);
            turns.push(cpu_time() - begin);
            table = next;
            while !dataplane.is_settled() {
                let begin = cpu_time();
                dataplane.handle_timeout(&table, now);
                turns.push(cpu_time() - begin);
            }
            while let Some(event) = dataplane.poll_event() {
                match event {
                    Event::ServiceRetired(id) => ids.free_service(id),
                    Event::ServerRetired(id) => ids.free_server(id),
                    _ => {}
                }
            }
        }
        turns.sort_unstable();
        compiles.sort_unstable();
        println!(
            "{name:<28} {:>12} {:>12} {:>12} {:>14}",
            turns.len().div_ceil(ROUNDS),
            micros(turns[turns.len() / 2]),
            micros(turns[turns.len() - 1]),
            micros(compiles[ROUNDS / 2])
        );
    }
}

/// Of this thread: other programs on the machine do not count.
fn cpu_time() -> Instant {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Instant::from_micros(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000)
}

fn micros(duration: Duration) -> String {
    format!("{} us", duration.total_micros())
}

fn weight(config: &mut Config, service: usize, round: usize) {
    config.services[service].servers[0].weight = 1 + u16::try_from(round % 7).unwrap();
}

fn parse() -> Config {
    let mut text = String::from(
        r#"
[[network]]
name = "internet"
links = ["tapvs0"]
addresses = ["203.0.113.2/24"]

[[network]]
name = "servers"
links = ["tapvs1"]
addresses = ["10.0.255.254/16"]

[[virtual_ip]]
address = "203.0.113.10"
network = "internet"
"#,
    );
    for service in 0..SERVICES {
        write!(
            text,
            "\n[[service]]\nprotocol = \"tcp\"\naddress = \"203.0.113.10\"\nport = {}\n",
            1_000 + service
        )
        .unwrap();
        for server in 0..SERVERS {
            let host = 1 + service * SERVERS + server;
            let (high, low) = (host / 250, 1 + host % 250);
            write!(text, "\n[[service.server]]\naddress = \"10.0.{high}.{low}\"\nport = 80\n")
                .unwrap();
        }
    }
    config::parse(&text).unwrap_or_else(|mistakes| panic!("{}", mistakes.display("generated")))
}

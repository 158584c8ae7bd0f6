//! What it takes to choose a server: `cargo bench --bench schedule`.
//!
//! Each scheduler with 10 and with 1,000 servers of mixed weights that carry 20,000 flows among them; the
//! look-up of the service is part of it. Then what it takes to compile a table, off the frame thread.
//! Processor time, medians of rounds that take turns.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails loudly"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;

use rustix::time::{ClockId, clock_gettime};
use tapvs::config::{self, Config};
use tapvs::dataplane::{Dataplane, FLOW_RECORD, Tuple};
use tapvs::table::{Ids, Standing, Table};
use tapvs::time::Instant;

const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "fo", "ovf", "lblc", "lblcr", "twos"];
const SIZES: [usize; 2] = [10, 1_000];
const FLOWS: u32 = 20_000;
const ROUNDS: usize = 31;
const CHOICES: u32 = 20_000;

fn main() {
    println!("ns per choice, {CHOICES} choices a round, medians of {ROUNDS} rounds\n");
    println!(
        "{:<10} {:>12} {:>14} {:>20}",
        "scheduler", "10 servers", "1,000 servers", "compile 1,000"
    );
    let mut rows: Vec<_> = SCHEDULERS
        .iter()
        .map(|scheduler| {
            (
                *scheduler,
                SIZES.map(|servers| Rig::new(scheduler, servers)),
                [const { Vec::new() }; 2],
            )
        })
        .collect();
    for _ in 0..ROUNDS {
        for (_, rigs, taken) in &mut rows {
            for (rig, taken) in rigs.iter_mut().zip(taken) {
                taken.push(rig.choose());
            }
        }
    }
    for (scheduler, rigs, mut taken) in rows {
        let [few, many] = [0, 1].map(|at| {
            taken[at].sort_unstable();
            taken[at][ROUNDS / 2]
        });
        let compile = format!("{} us", rigs[1].compile());
        println!("{scheduler:<10} {few:>12} {many:>14} {compile:>20}");
    }
}

struct Rig {
    config: Config,
    table: Table,
    dataplane: Dataplane,
    port: u16,
}

impl Rig {
    fn new(scheduler: &str, servers: usize) -> Self {
        let config = parse(scheduler, servers);
        let table = Table::compile(&config, None, &mut Ids::default(), |_, _| Standing::GOOD);
        let now = Instant::ZERO;
        let mut dataplane = Dataplane::new(&table, [7; 16], 200_000, now);
        for flow in 0..FLOWS {
            let server = flow.wrapping_mul(0x9e37_79b9) as usize % servers;
            dataplane.import_flow(&table, &record(flow, server), now).unwrap();
        }
        Self { config, table, dataplane, port: 0 }
    }

    /// Nanoseconds each.
    fn choose(&mut self) -> u64 {
        let begin = nanos();
        for n in 0..CHOICES {
            self.port = self.port.wrapping_add(1);
            let original = Tuple {
                source: Ipv4Addr::from_bits(0xc633_6400 + n),
                destination: Ipv4Addr::new(203, 0, 113, 10),
                source_port: self.port,
                destination_port: 80,
                protocol: 6,
            };
            black_box(self.dataplane.schedule(&self.table, original, Instant::ZERO));
        }
        (nanos() - begin) / u64::from(CHOICES)
    }

    /// Microseconds, the median of a few.
    fn compile(&self) -> u64 {
        let mut taken: Vec<_> = (0..9)
            .map(|_| {
                let begin = nanos();
                let mut ids = Ids::default();
                black_box(Table::compile(&self.config, None, &mut ids, |_, _| Standing::GOOD));
                (nanos() - begin) / 1_000
            })
            .collect();
        taken.sort_unstable();
        taken[taken.len() / 2]
    }
}

fn nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

fn address(server: usize) -> Ipv4Addr {
    let host = u8::try_from(1 + server % 250).unwrap();
    Ipv4Addr::new(10, 0, u8::try_from(server / 250).unwrap(), host)
}

/// An established flow of the service's, as the other router of a pair tells it.
fn record(flow: u32, server: usize) -> [u8; FLOW_RECORD] {
    let mut record = [0; FLOW_RECORD];
    let client = Ipv4Addr::from_bits(0x0b00_0000 + flow).octets();
    record[..6].copy_from_slice(&[1, 1, 6, 1, 1, 1]);
    record[8..12].copy_from_slice(&client);
    record[12..16].copy_from_slice(&[203, 0, 113, 10]);
    record[16..20].copy_from_slice(&[40, 0, 0, 80]);
    record[20..24].copy_from_slice(&address(server).octets());
    record[24..28].copy_from_slice(&client);
    record[28..32].copy_from_slice(&[0, 80, 40, 0]);
    record[32..36].copy_from_slice(&600_000_u32.to_be_bytes());
    record
}

fn parse(scheduler: &str, servers: usize) -> Config {
    let mut text = format!(
        r#"
[[network]]
name = "internet"
links = ["tapvs0"]
addresses = ["203.0.113.2/24"]
gateway = "203.0.113.1"

[[network]]
name = "servers"
links = ["tapvs1"]
addresses = ["10.0.255.254/16"]

[[virtual_ip]]
address = "203.0.113.10"
network = "internet"

[[service]]
protocol = "tcp"
address = "203.0.113.10"
port = 80
scheduler = "{scheduler}"
"#
    );
    for server in 0..servers {
        let (address, weight) = (address(server), 1 + server % 7);
        write!(text, "\n[[service.server]]\naddress = \"{address}\"\nweight = {weight}\n").unwrap();
    }
    config::parse(&text).unwrap_or_else(|mistakes| panic!("{}", mistakes.display("generated")))
}

//! `tapvs services`: what `ipvsadm -Ln --stats --rate` shows.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::ask::{AskError, Next, Router};
use crate::cli::operate::{Failed, Output};
use crate::cli::paint::Tone;
use crate::cli::units::{bytes, count, duration, per_second};
use crate::control::protocol::{Answer, Figures, Health, Request, Server, Service};
use crate::lab::grid::{Grid, Side};

pub(in crate::cli) fn show(
    router: &mut Router,
    interval: u64,
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let rows = sampled(router, interval)?;
    if output.json {
        return Ok(rows.iter().try_for_each(|row| output.json(&row.to_json()))?);
    }
    if rows.is_empty() {
        return Ok(output.text("no services\n")?);
    }
    let lines: Vec<Line<'_>> = rows.iter().flat_map(Row::lines).collect();
    let tones: Vec<_> = lines.iter().map(Line::tone).collect();
    output.text(&output.paint.table(&who(&lines).lines(), &tones))?;
    output.text("\n")?;
    output.text(&output.paint.table(&totals(&lines).lines(), &tones))?;
    if let Some(micros) = rows.iter().find_map(|row| row.rates.map(|rates| rates.micros)) {
        let seconds = micros / 1_000_000;
        let tenths = micros / 100_000 % 10;
        output.text(&format!("\nper second, over {seconds}.{tenths} s\n"))?;
        output.text(&output.paint.table(&rates(&lines).lines(), &tones))?;
    }
    Ok(())
}

/// All services, with rates over `interval` seconds; 0 for none.
pub(super) fn sampled(router: &mut Router, interval: u64) -> Result<Vec<Row>, AskError> {
    let before = match interval {
        0 => Sample::default(),
        seconds => {
            let first = Sample::take(router)?;
            wait(Duration::from_secs(seconds));
            first
        }
    };
    Ok(Sample::take(router)?.since(&before))
}

#[expect(clippy::disallowed_methods, reason = "two samples need time between them")]
fn wait(interval: Duration) {
    std::thread::sleep(interval);
}

/// All services at a time; each page has its own.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Sample(pub(in crate::cli) Vec<(u64, Service)>);

impl Sample {
    pub(in crate::cli) fn take(router: &mut Router) -> Result<Self, AskError> {
        let mut all = Vec::new();
        router.pages(
            |from| Request::Services { from },
            |answer| match answer {
                Answer::Services(page) => Some(page),
                _ => None,
            },
            |page| {
                all.extend(page.rows.into_iter().map(|service| (page.uptime_us, service)));
                Next::Go
            },
        )?;
        Ok(Self(all))
    }

    /// With rates, for whatever was there before.
    pub(in crate::cli) fn since(self, before: &Self) -> Vec<Row> {
        let key = |service: &Service| (service.protocol.clone(), service.address.clone());
        let known: HashMap<_, _> = before.0.iter().map(|row| (key(&row.1), row)).collect();
        let rated = |(at, service): (u64, Service)| {
            let earlier = known.get(&key(&service)).filter(|(then, _)| *then < at);
            let Some((then, earlier)) = earlier else {
                let servers = vec![None; service.servers.len()];
                return Row { service, rates: None, servers };
            };
            let rates = |old, new| Rates { micros: at - then, figures: difference(old, new) };
            let servers = service.servers.iter().map(|server| {
                let old = earlier.servers.iter().find(|old| old.address == server.address)?;
                Some(rates(&old.figures, &server.figures))
            });
            Row {
                servers: servers.collect(),
                rates: Some(rates(&earlier.figures, &service.figures)),
                service,
            }
        };
        self.0.into_iter().map(rated).collect()
    }
}

/// A service that was removed and added again has begun anew.
fn difference(old: &Figures, new: &Figures) -> Figures {
    Figures {
        active: new.active,
        inactive: new.inactive,
        persistent: new.persistent,
        connections: new.connections.saturating_sub(old.connections),
        packets_in: new.packets_in.saturating_sub(old.packets_in),
        packets_out: new.packets_out.saturating_sub(old.packets_out),
        bytes_in: new.bytes_in.saturating_sub(old.bytes_in),
        bytes_out: new.bytes_out.saturating_sub(old.bytes_out),
        estimate: new.estimate,
    }
}

/// What was added within some time.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Rates {
    micros: u64,
    figures: Figures,
}

impl Rates {
    /// How many of something were added per second.
    pub(in crate::cli) fn per_second(self, of: fn(&Figures) -> u64) -> u64 {
        self.of(of(&self.figures))
    }

    fn of(self, count: u64) -> u64 {
        per_second(count, self.micros)
    }

    fn to_json(self) -> Value {
        let Figures { connections, packets_in, packets_out, bytes_in, bytes_out, .. } =
            self.figures;
        json!({
            "interval_us": self.micros,
            "connections": self.of(connections),
            "packets_in": self.of(packets_in),
            "packets_out": self.of(packets_out),
            "bytes_in": self.of(bytes_in),
            "bytes_out": self.of(bytes_out),
        })
    }
}

/// A service with its rates and its servers'.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Row {
    pub(in crate::cli) service: Service,
    pub(in crate::cli) rates: Option<Rates>,
    pub(in crate::cli) servers: Vec<Option<Rates>>,
}

impl Row {
    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let service = Line { of: Of::Service(&self.service), rates: self.rates };
        let servers = self.service.servers.iter().zip(&self.servers);
        let servers = servers.map(|(server, rates)| Line { of: Of::Server(server), rates: *rates });
        std::iter::once(service).chain(servers)
    }

    fn to_json(&self) -> Value {
        let mut value = json!(self.service);
        if let Some(rates) = self.rates {
            value["per_second"] = rates.to_json();
        }
        for (at, rates) in self.servers.iter().enumerate() {
            if let Some(rates) = rates {
                value["servers"][at]["per_second"] = rates.to_json();
            }
        }
        value
    }
}

#[derive(Clone, Copy)]
enum Of<'r> {
    Service(&'r Service),
    Server(&'r Server),
}

/// A line of a table.
struct Line<'r> {
    of: Of<'r>,
    rates: Option<Rates>,
}

impl Line<'_> {
    fn name(&self) -> String {
        match self.of {
            Of::Service(service) => service.name.clone(),
            Of::Server(server) => format!("  {}", server.name),
        }
    }

    const fn figures(&self) -> &Figures {
        match self.of {
            Of::Service(service) => &service.figures,
            Of::Server(server) => &server.figures,
        }
    }

    fn tone(&self) -> Tone {
        match self.of {
            Of::Server(Server { health: Some(health), .. }) if !health.up => Tone::Alarm,
            Of::Server(Server { drained, weight, configured_weight, overloaded, .. })
                if *drained || *overloaded || weight != configured_weight =>
            {
                Tone::Notice
            }
            Of::Server(_) | Of::Service(_) => Tone::Plain,
        }
    }
}

fn who(lines: &[Line<'_>]) -> Grid<9> {
    let (left, right) = (|name| (name, Side::Left), |name| (name, Side::Right));
    let mut grid = Grid::new([
        left("SERVICE"),
        left("ADDRESS"),
        left("METHOD"),
        left("SCHEDULER"),
        right("WEIGHT"),
        left("HEALTH"),
        right("ACTIVE"),
        right("INACTIVE"),
        left(""),
    ]);
    for line in lines {
        let Figures { active, inactive, .. } = *line.figures();
        let [active, inactive] = [active, inactive].map(|flows| count(flows.into()));
        let blank = String::new;
        let (address, method, scheduler, weight, health, note) = match line.of {
            Of::Service(service @ Service { protocol, address, method, scheduler, .. }) => {
                let address = format!("{protocol} {address}");
                let (method, scheduler) = (method.clone(), scheduler.clone());
                (address, method, scheduler, blank(), how_many(service), manner(service))
            }
            Of::Server(server @ Server { address, weight, health, .. }) => {
                let health = health.as_ref().map_or_else(|| "-".to_owned(), standing);
                (address.clone(), blank(), blank(), weight.to_string(), health, note(server))
            }
        };
        let name = line.name();
        grid.row([name, address, method, scheduler, weight, health, active, inactive, note]);
    }
    grid
}

/// What the scheduler's name does not say.
fn manner(service: &Service) -> String {
    let Service { scheduler_flags, persistence, one_packet, group, figures, .. } = service;
    let mut words = scheduler_flags.clone();
    if let Some(persistence) = persistence {
        let prefix = match persistence.prefix {
            32 => String::new(),
            prefix => format!(" by /{prefix}"),
        };
        let timeout = duration(persistence.timeout_ms.saturating_mul(1_000));
        words.push(format!(
            "persistent {timeout}{prefix}: {} clients",
            count(figures.persistent.into())
        ));
    }
    if *one_packet {
        words.push("one packet".to_owned());
    }
    if let Some(group) = group {
        let members = group.members.iter();
        let members: Vec<_> = members.map(|m| format!("{} {}", m.protocol, m.address)).collect();
        words.push(format!("group {} with {}", group.name, members.join(", ")));
    }
    words.join("; ")
}

/// `2 of 3 up`, where anything is known of that.
fn how_many(service: &Service) -> String {
    let counted = || service.servers.iter().filter(|server| !server.fallback);
    if counted().all(|server| server.health.is_none()) {
        return "-".to_owned();
    }
    let up = counted().filter(|server| server.health.as_ref().is_none_or(|health| health.up));
    format!("{} of {} up", up.count(), counted().count())
}

/// `up 1 h 2 m`, `down 3.4 s` or `checking`.
fn standing(health: &Health) -> String {
    if health.checking {
        return "checking".to_owned();
    }
    let since = duration(health.since_ms.saturating_mul(1_000));
    format!("{} {since}", if health.up { "up" } else { "down" })
}

fn note(server: &Server) -> String {
    let notes = [health_note(server), full_note(server), hand_note(server)];
    notes.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join("; ")
}

fn full_note(server: &Server) -> String {
    match server.overloaded {
        true => format!("overloaded, max_flows {}", count(server.max_flows.into())),
        false => String::new(),
    }
}

/// Why a server is down, or may soon be.
fn health_note(server: &Server) -> String {
    let Some(Health { up, reason, last, .. }) = &server.health else { return String::new() };
    let failure = last.as_ref().and_then(|last| last.failure.as_ref());
    match (up, reason, failure) {
        (false, Some(reason), _) => reason.clone(),
        (true, _, Some(failure)) => format!("last check: {failure}"),
        (false, None, _) | (true, _, None) => String::new(),
    }
}

fn hand_note(server: &Server) -> String {
    let Server { weight, configured_weight, drained, .. } = server;
    if server.fallback {
        return "fallback".to_owned();
    }
    match (drained, weight == configured_weight) {
        (true, _) => format!("drained; the file says {configured_weight}"),
        (false, false) => format!("by hand; the file says {configured_weight}"),
        (false, true) => String::new(),
    }
}

const TRAFFIC: [&str; 5] = ["CONNECTIONS", "PACKETS IN", "PACKETS OUT", "BYTES IN", "BYTES OUT"];

fn traffic_grid(first: &str) -> Grid<6> {
    let [a, b, c, d, e] = TRAFFIC.map(|name| (name, Side::Right));
    Grid::new([(first, Side::Left), a, b, c, d, e])
}

fn totals(lines: &[Line<'_>]) -> Grid<6> {
    let mut grid = traffic_grid("IN TOTAL");
    for line in lines {
        let figures = line.figures();
        grid.row([
            line.name(),
            count(figures.connections),
            count(figures.packets_in),
            count(figures.packets_out),
            bytes(figures.bytes_in),
            bytes(figures.bytes_out),
        ]);
    }
    grid
}

fn rates(lines: &[Line<'_>]) -> Grid<6> {
    let mut grid = traffic_grid("RATE");
    for line in lines {
        let row = line.rates.map(|rates| {
            let figures = rates.figures;
            let counts = [figures.connections, figures.packets_in, figures.packets_out];
            let [a, b, c] = counts.map(|number| format!("{}/s", count(rates.of(number))));
            let [d, e] = [figures.bytes_in, figures.bytes_out]
                .map(|number| format!("{}/s", bytes(rates.of(number))));
            [a, b, c, d, e]
        });
        let [a, b, c, d, e] = row.unwrap_or_else(|| std::array::from_fn(|_| "-".to_owned()));
        grid.row([line.name(), a, b, c, d, e]);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::LastCheck;

    fn service(connections: u64, bytes_in: u64, weight: u16) -> Service {
        let figures = Figures { active: 1, connections, bytes_in, ..Figures::default() };
        let server = |name: &str, address: &str, weight, drained| Server {
            health: None,
            name: name.to_owned(),
            address: address.to_owned(),
            weight,
            configured_weight: 2,
            drained,
            max_flows: 0,
            min_flows: 0,
            overloaded: false,
            fallback: false,
            figures,
        };
        Service {
            name: "web".to_owned(),
            protocol: "tcp".to_owned(),
            address: "203.0.113.10:80".to_owned(),
            method: "nat".to_owned(),
            scheduler: "wrr".to_owned(),
            scheduler_flags: Vec::new(),
            persistence: None,
            one_packet: false,
            group: None,
            figures,
            servers: vec![
                server("web1", "10.0.0.11:8080", 2, false),
                server("web2", "10.0.0.12:8080", weight, weight == 0),
            ],
        }
    }

    fn rows() -> Vec<Row> {
        let before = Sample(vec![(1_000_000, service(10, 1_000, 2))]);
        Sample(vec![(3_000_000, service(30, 51_000, 0))]).since(&before)
    }

    #[test]
    fn three_tables_line_up() {
        let rows = rows();
        let lines: Vec<_> = rows.iter().flat_map(Row::lines).collect();
        let tones: Vec<_> = lines.iter().map(Line::tone).collect();
        assert_eq!(tones, [Tone::Plain, Tone::Plain, Tone::Notice]);
        let expected = "\
SERVICE  ADDRESS              METHOD  SCHEDULER  WEIGHT  HEALTH  ACTIVE  INACTIVE
web      tcp 203.0.113.10:80  nat     wrr                -            1         0
  web1   10.0.0.11:8080                               2  -            1         0
  web2   10.0.0.12:8080                               0  -            1         0  drained; the file says 2";
        assert_eq!(who(&lines).lines().join("\n"), expected);
        let expected = "\
IN TOTAL  CONNECTIONS  PACKETS IN  PACKETS OUT  BYTES IN  BYTES OUT
web                30           0            0   51.0 kB        0 B
  web1             30           0            0   51.0 kB        0 B
  web2             30           0            0   51.0 kB        0 B";
        assert_eq!(totals(&lines).lines().join("\n"), expected);
        let expected = "\
RATE    CONNECTIONS  PACKETS IN  PACKETS OUT   BYTES IN  BYTES OUT
web            10/s         0/s          0/s  25.0 kB/s      0 B/s
  web1         10/s         0/s          0/s  25.0 kB/s      0 B/s
  web2         10/s         0/s          0/s  25.0 kB/s      0 B/s";
        assert_eq!(rates(&lines).lines().join("\n"), expected);
    }

    #[test]
    fn health_says_since_when_and_why() {
        let health = |up: bool, reason: Option<&str>, failure: Option<&str>| {
            let failure = failure.map(str::to_owned);
            let last = Some(LastCheck { ago_ms: 500, took_us: 300, failure });
            let reason = reason.map(str::to_owned);
            Some(Health { up, checking: false, since_ms: 65_000, reason, last })
        };
        let mut service = service(1, 1, 0);
        service.servers[0].health = health(true, None, None);
        service.servers[1].health = health(false, Some("connect: refused"), Some("no matter"));
        let mut third = service.servers[0].clone();
        (third.name, third.health) = ("web3".into(), health(true, None, Some("connect: refused")));
        let mut fourth = service.servers[0].clone();
        fourth.name = "web4".into();
        fourth.health = Some(Health { checking: true, last: None, ..fourth.health.unwrap() });
        let mut fallback = service.servers[0].clone();
        (fallback.name, fallback.fallback, fallback.health) = ("sorry".into(), true, None);
        service.servers.extend([third, fourth, fallback]);
        let rows = Sample(vec![(5, service)]).since(&Sample::default());
        let lines: Vec<_> = rows.iter().flat_map(Row::lines).collect();
        let told: Vec<_> = who(&lines).lines().iter().map(|line| line[49..].to_owned()).collect();
        let expected = [
            "WEIGHT  HEALTH        ACTIVE  INACTIVE",
            "        3 of 4 up          1         0",
            "     2  up 1 m 5 s         1         0",
            "     0  down 1 m 5 s       1         0  connect: refused; drained; the file says 2",
            "     2  up 1 m 5 s         1         0  last check: connect: refused",
            "     2  checking           1         0",
            "     2  -                  1         0  fallback",
        ];
        assert_eq!(told, expected);
        assert_eq!(lines[2].tone(), Tone::Alarm);
    }

    #[test]
    fn a_fallback_is_called_one() {
        let mut service = service(1, 1, 2);
        service.servers[1].fallback = true;
        assert_eq!(service.servers.iter().map(note).collect::<Vec<_>>(), ["", "fallback"]);
    }

    #[test]
    fn what_was_not_there_before_has_no_rate() {
        let rows = Sample(vec![(5, service(1, 1, 2))]).since(&Sample::default());
        assert!(rows[0].rates.is_none() && rows[0].servers.iter().all(Option::is_none));
        assert!(rows[0].to_json().get("per_second").is_none());
        let same_time = Sample(vec![(5, service(1, 1, 2))]);
        let rows = Sample(vec![(5, service(1, 1, 2))]).since(&same_time);
        assert!(rows[0].rates.is_none(), "no time has passed");
    }

    #[test]
    fn json_has_totals_and_rates_beside_each_other() {
        let value = rows()[0].to_json();
        assert_eq!(value["connections"], 30);
        assert_eq!(value["per_second"]["connections"], 10);
        assert_eq!(value["servers"][1]["drained"], true);
        assert_eq!(value["servers"][1]["per_second"]["bytes_in"], 25_000);
        assert_eq!(value["per_second"]["interval_us"], 2_000_000);
    }
}

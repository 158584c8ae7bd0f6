//! What happens in the lab, in order: build, send, stop a server, start it again, clean up; and what
//! must come of each step.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::args::LabArgs;
use super::client::{Failure, Load, Outcome};
use super::crew::{Crew, Stop, Stream, Who};
use super::deadline::Deadline;
use super::grid::{Grid, Side, grouped};
use super::plan::{Plan, RealServer};
use super::screen::Screen;
use super::tally::{Latencies, Tally};
use super::topology::{self, BRIDGE, SERVER_NIC, Topology};

/// How long a child may take to say that it is up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many ports a stock client has, and so connections that it can close in a minute.
const STOCK_PORTS: u32 = 28_232;

/// One showing.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) args: &'a LabArgs,
    pub(super) plan: &'a Plan,
    pub(super) screen: &'a Screen,
    /// Whether the lab runs in a user namespace of its own: looking inside then takes that too.
    pub(super) own_users: bool,
}

impl Story<'_> {
    /// Everything, cleaning up included, whatever happens in between.
    pub(super) fn tell(&self, crew: &mut Crew) -> Result<(), Stop> {
        self.screen.heading(format_args!(
            "tapvs lab {}: one client, the router, {} real servers, on this machine",
            self.args.kind,
            self.plan.servers.len()
        ));
        let topology = Topology::new(self.plan)?;
        let told = self.acts(&topology, crew);
        match &told {
            Err(Stop::Interrupted) => self.screen.bad("interrupted"),
            Err(Stop::Failed(_)) => self.screen.bad("this is not as it must be, see below"),
            Ok(()) => {}
        }
        let cleaned = self.clean_up(topology, crew);
        told.and(cleaned)
    }

    fn acts(&self, topology: &Topology, crew: &mut Crew) -> Result<(), Stop> {
        self.build(topology, crew)?;
        self.first_contact(crew)?;

        let requests = self.args.requests;
        self.screen.heading(format_args!(
            "{} requests to http://{}/, at most {} at a time, weighted round robin",
            grouped(requests as usize),
            self.plan.service,
            self.args.concurrency
        ));
        self.run(requests, None, crew)?;

        let Some((position, last)) = self.plan.servers.iter().enumerate().next_back() else {
            return Ok(());
        };
        self.screen.heading(format_args!("Stopping {} (killed, as a crash would)", last.name));
        crew.kill(Who::Server(position))?;
        self.screen.step("there are no health checks yet: the router goes on choosing it");
        self.run(requests / 2, Some(last), crew)?;

        self.screen.heading(format_args!("Starting {} again", last.name));
        self.start_server(position, topology, crew)?;
        self.run(requests / 10, None, crew)?;

        if self.args.hold { self.hold(crew) } else { Ok(()) }
    }

    fn build(&self, topology: &Topology, crew: &mut Crew) -> Result<(), Stop> {
        let Self { plan, screen, .. } = self;
        let names: Vec<_> = plan.servers.iter().map(|server| server.name).collect();
        screen.step(format_args!("namespaces  client, router, {}", names.join(", ")));
        topology.cable_servers(plan)?;
        crew.catch_up(screen)?;
        screen.step(format_args!(
            "cables      a bridge and {} veths, gateway {}",
            names.len(),
            plan.gateway
        ));

        for position in 0..plan.servers.len() {
            self.start_server(position, topology, crew)?;
        }

        screen.progress("router      starting");
        let file = configuration_file(&plan.toml())?;
        let arguments = ["run".to_owned(), "/proc/self/fd/0".to_owned()];
        crew.start(Who::Router, &topology.router, &arguments, file.into())?;
        crew.wait_for_word(Who::Router, "ready", PATIENCE, screen)?;
        topology.cable_router(plan)?;
        screen.step(format_args!(
            "router      tapvs run: {} and {}, VIP {}",
            plan.router_outside, plan.router_inside, plan.service
        ));

        if self.args.requests > STOCK_PORTS / 2 {
            topology.widen_client_ports()?;
        }
        let target = plan.service.to_string();
        let arguments = ["lab-client".to_owned(), "--target".to_owned(), target];
        crew.start(Who::Client, &topology.client, &arguments, Stdio::piped())?;
        screen.step(format_args!("client      {}, its NIC is the router's TAP", plan.client));
        Ok(())
    }

    fn start_server(
        &self,
        position: usize,
        topology: &Topology,
        crew: &mut Crew,
    ) -> Result<(), Stop> {
        let server = &self.plan.servers[position];
        let (name, listen) = (server.name.to_owned(), server.endpoint().to_string());
        let arguments = ["lab-server", "--name", &name, "--listen", &listen].map(str::to_owned);
        let who = Who::Server(position);
        crew.start(who, &topology.servers[position], &arguments, Stdio::null())?;
        crew.wait_for_word(who, "listening", PATIENCE, self.screen)?;
        self.screen
            .step(format_args!("server      {name} answers on {listen}, weight {}", server.weight));
        Ok(())
    }

    /// One round of the scheduler, one request at a time: nobody knows anybody's MAC address yet, and
    /// what finding out costs would be lost in a crowd.
    fn first_contact(&self, crew: &mut Crew) -> Result<(), Stop> {
        let requests = u32::try_from(self.plan.round()).unwrap_or(u32::MAX);
        let tally = self.send(Load { requests, concurrency: 1 }, crew)?;
        no_complaint(complaints(self.plan, &tally, None))?;
        self.screen.step(format_args!(
            "first       {requests} requests, one by one, while ARP finds everybody: the slowest {}",
            Millis(tally.answered().percentile(100))
        ));
        Ok(())
    }

    /// Sends requests, prints what came of them and holds it against what must come.
    fn run(&self, requests: u32, down: Option<&RealServer>, crew: &mut Crew) -> Result<(), Stop> {
        let start = super::now();
        let load = Load { requests, concurrency: self.args.concurrency };
        let tally = self.send(load, crew)?;
        let took = (super::now() - start).total_micros().max(1);
        let rate = u64::from(requests) * 1_000_000 / took;

        self.screen.step(format_args!(
            "{} requests in {:.2} s, {} per second",
            grouped(requests as usize),
            Duration::from_micros(took).as_secs_f64(),
            grouped(usize::try_from(rate).unwrap_or(usize::MAX)),
        ));
        self.screen.table(&self.servers_table(&tally));
        let failed = tally.failed().count();
        if failed > 0 {
            self.screen.lines([""]);
            self.screen.table(&failures_table(&tally));
        }
        no_complaint(complaints(self.plan, &tally, down))?;
        match down {
            None => self.screen.good("every request answered, shared out by weight"),
            Some(down) => self.screen.good(format_args!(
                "{} of {} clients were refused: the share of {}; nobody else noticed",
                grouped(failed),
                grouped(tally.ended()),
                down.name
            )),
        }
        Ok(())
    }

    fn send(&self, load: Load, crew: &mut Crew) -> Result<Tally, Stop> {
        let requests = load.requests;
        crew.tell(Who::Client, &serde_json::to_string(&load)?)?;
        let mut tally = Tally::default();
        while tally.ended() < requests as usize {
            let Some(line) = crew.next(Deadline::after(PATIENCE), self.screen)? else {
                let (ended, seconds) = (tally.ended(), PATIENCE.as_secs());
                return Err(Stop::Failed(format!(
                    "{ended} of {requests} requests have ended, and in the last {seconds} s none"
                )));
            };
            if (line.who, line.from) == (Who::Client, Stream::Output) {
                tally.record(&serde_json::from_str::<Outcome>(&line.text)?);
                if tally.ended().is_multiple_of(50) {
                    self.screen.progress(format_args!("{} requests", grouped(tally.ended())));
                }
            }
        }
        Ok(tally)
    }

    fn servers_table(&self, tally: &Tally) -> Vec<String> {
        let mut grid = Grid::new([
            ("server", Side::Left),
            ("address", Side::Left),
            ("weight", Side::Right),
            ("requests", Side::Right),
            ("share", Side::Right),
            ("p50", Side::Right),
            ("p99", Side::Right),
        ]);
        let none = Latencies::default();
        for server in &self.plan.servers {
            let [requests, share, p50, p99] =
                measured(tally.of(server.name).unwrap_or(&none), tally.ended());
            let (name, address) = (server.name.to_owned(), server.endpoint().to_string());
            grid.row([name, address, server.weight.to_string(), requests, share, p50, p99]);
        }
        let [requests, share, p50, p99] = measured(&tally.answered(), tally.ended());
        let weight = self.plan.round().to_string();
        grid.row(["answered".to_owned(), String::new(), weight, requests, share, p50, p99]);
        grid.lines()
    }

    fn hold(&self, crew: &mut Crew) -> Result<(), Stop> {
        let enter = |who| {
            let pid = crew.pid(who).unwrap_or_default();
            let users = if self.own_users { " -U --preserve-credentials" } else { "" };
            format!("nsenter -t {pid}{users} -n")
        };
        self.screen
            .heading("The network stays up until Ctrl-C. Look inside from another terminal:");
        let (client, router) = (enter(Who::Client), enter(Who::Router));
        let server = enter(Who::Server(0));
        self.screen.lines([
            format!("client  {client} curl http://{}/", self.plan.service),
            format!("router  {router} tcpdump -ni {BRIDGE}"),
            format!("s1      {server} tcpdump -ni {SERVER_NIC}"),
        ]);
        match crew.wait_for_signal(self.screen) {
            // What was waited for.
            Stop::Interrupted => Ok(()),
            failed @ Stop::Failed(_) => Err(failed),
        }
    }

    fn clean_up(&self, topology: Topology, crew: &mut Crew) -> Result<(), Stop> {
        let (processes, namespaces) = (crew.count(), topology.count());
        self.screen.heading("Cleaning up");
        let farewell = crew.dismiss(self.screen);
        // While their fds are open the kernel cannot give the names to anybody else's namespaces.
        let left = topology::inhabitants(&topology.names());
        drop(topology);
        if !left.is_empty() {
            return Err(Stop::Failed(format!("processes are still in the network: {left:?}")));
        }
        self.screen.good(format_args!(
            "processes ended: {processes}, namespaces gone with all devices: {namespaces}; nothing \
             left behind"
        ));
        farewell
    }
}

/// What is not as it must be; nothing when all is well.
fn complaints(plan: &Plan, tally: &Tally, down: Option<&RealServer>) -> Vec<String> {
    let mut complaints = Vec::new();
    // A run may begin and end anywhere in the scheduler's round.
    let slack = plan.round();
    let total = tally.ended();
    for server in &plan.servers {
        let due = plan.due(server, total);
        let (count, what) = if down.is_some_and(|down| down.name == server.name) {
            (tally.failed().count(), "cost clients")
        } else {
            (tally.of(server.name).map_or(0, Latencies::count), "answered")
        };
        if count.abs_diff(due) > slack {
            let name = server.name;
            complaints.push(format!("{name} {what} {count} requests, {due} were its share"));
        }
    }
    for stranger in tally.servers() {
        let up = |server: &RealServer| {
            server.name == stranger && down.is_none_or(|down| down.name != stranger)
        };
        if !plan.servers.iter().any(up) {
            complaints.push(format!("`{stranger}` answered, which is no running server"));
        }
    }
    for (failure, latencies) in tally.failures() {
        if down.is_none() || failure != Failure::Refused {
            complaints.push(format!("{failure}: {} requests", latencies.count()));
        }
    }
    if let (false, Some(detail)) = (complaints.is_empty(), tally.detail()) {
        complaints.push(format!("the first of them was {detail}"));
    }
    complaints
}

fn no_complaint(complaints: Vec<String>) -> Result<(), Stop> {
    if complaints.is_empty() { Ok(()) } else { Err(Stop::Failed(complaints.join("; "))) }
}

fn failures_table(tally: &Tally) -> Vec<String> {
    let mut grid = Grid::new([
        ("clients saw", Side::Left),
        ("requests", Side::Right),
        ("share", Side::Right),
        ("p50", Side::Right),
        ("p99", Side::Right),
    ]);
    for (failure, latencies) in tally.failures() {
        let [requests, share, p50, p99] = measured(latencies, tally.ended());
        grid.row([failure.to_string(), requests, share, p50, p99]);
    }
    grid.lines()
}

/// Requests, share, p50, p99.
fn measured(latencies: &Latencies, total: usize) -> [String; 4] {
    let total = total.max(1);
    let share = (latencies.count() * 1_000 + total / 2) / total;
    [
        grouped(latencies.count()),
        format!("{}.{} %", share / 10, share % 10),
        Millis(latencies.percentile(50)).to_string(),
        Millis(latencies.percentile(99)).to_string(),
    ]
}

/// A time in milliseconds, `-` for none: one unit for all, so that a column can be compared.
struct Millis(Option<Duration>);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => write!(f, "{:.2} ms", time.as_secs_f64() * 1_000.0),
            None => f.write_str("-"),
        }
    }
}

/// A file without a name: it is gone with the last process that holds it.
fn configuration_file(text: &str) -> io::Result<File> {
    let folder = std::env::temp_dir();
    let open = || {
        let mut file = nameless_file(&folder)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    open().map_err(|error: io::Error| {
        let place = folder.display();
        io::Error::new(error.kind(), format!("cannot write a file in {place}: {error}"))
    })
}

fn nameless_file(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let nameless = options.clone().custom_flags(libc::O_TMPFILE).open(folder);
    if nameless.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported) {
        // Not every file system can: then it has a name for a moment.
        let path = folder.join(format!("tapvs-lab-{}.toml", std::process::id()));
        let file = options.create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        return Ok(file);
    }
    nameless
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn tally(answered: [usize; 3], failures: &[(Failure, usize)]) -> Tally {
        let mut tally = Tally::default();
        for (server, count) in ["s1", "s2", "s3"].into_iter().zip(answered) {
            for _ in 0..count {
                tally.record(&Outcome::Answered { server: server.to_owned(), micros: 700 });
            }
        }
        for (failure, count) in failures {
            for _ in 0..*count {
                let detail = String::new();
                tally.record(&Outcome::Failed { failure: *failure, micros: 300, detail });
            }
        }
        tally
    }

    #[test]
    fn a_good_run_is_not_complained_about() {
        let plan = Plan::nat();
        let good = tally([101, 198, 301], &[]);
        assert_eq!(complaints(&plan, &good, None), [""; 0]);
        let down = tally([100, 200, 0], &[(Failure::Refused, 300)]);
        assert_eq!(complaints(&plan, &down, Some(&plan.servers[2])), [""; 0]);
    }

    #[test]
    fn a_bad_run_is_complained_about() {
        let plan = Plan::nat();
        let down = Some(&plan.servers[2]);
        for (tally, down, words) in [
            (tally([200, 200, 200], &[]), None, "s1 answered 200 requests, 100"),
            (tally([100, 200, 299], &[(Failure::Refused, 1)]), None, "connection refused: 1"),
            (tally([0, 0, 0], &[(Failure::TimedOut, 600)]), None, "s3 answered 0"),
            (tally([100, 200, 0], &[(Failure::TimedOut, 300)]), down, "timed out: 300"),
            (tally([100, 200, 300], &[]), down, "`s3` answered, which is no running server"),
            (tally([20, 80, 0], &[(Failure::Refused, 500)]), down, "s3 cost clients 500"),
        ] {
            let all = complaints(&plan, &tally, down).join("; ");
            assert!(all.contains(words), "{words}: {all}");
        }
    }

    #[test]
    fn times_and_shares_have_their_units() {
        let [requests, share, p50, p99] = measured(&tally([1_234, 0, 0], &[]).answered(), 2_468);
        assert_eq!([&*requests, &*share, &*p50, &*p99], ["1,234", "50.0 %", "0.70 ms", "0.70 ms"]);
        let nothing = measured(&Latencies::default(), 0);
        assert_eq!(nothing, ["0", "0.0 %", "-", "-"]);
    }

    #[test]
    fn the_configuration_file_can_be_read_again_and_has_no_name() {
        let file = configuration_file("[router]\n").unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        for _ in 0..2 {
            let mut text = String::new();
            File::open(&path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "[router]\n");
        }
        assert!(fs::read_link(&path).unwrap().to_string_lossy().ends_with(" (deleted)"));
    }
}

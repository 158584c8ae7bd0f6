//! What happens in the lab, in order: build, send, stop a server, start it again, clean up; and what
//! must come of each step.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use super::args::LabArgs;
use super::client::{Load, Outcome};
use super::crew::{Crew, Stop, Stream, Who};
use super::deadline::Deadline;
use super::file::{configuration_file, control_socket, path_of, without_name};
use super::grid::grouped;
use super::plan::{CLIENT_TAP, Method, Plan, ROUTER_MAC, RealServer, SERVERS_TAP, Socket};
use super::screen::Screen;
use super::shares::{self, Millis};
use super::tally::Tally;
use super::topology::{self, BRIDGE, SERVER_NIC, Topology};

/// How long a child may take to say that it is up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many ports a stock client has, and so connections that it can close in a minute.
const STOCK_PORTS: u32 = 28_232;
/// How often the client is made to ask anew whose the virtual IP is.
const QUESTIONS: u32 = 20;

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
            self.plan.method,
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
        let control = self.build(topology, crew)?;
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
        self.notice(last, "down", crew)?;
        self.run(requests / 2, Some(last), crew)?;

        self.screen.heading(format_args!("Starting {} again", last.name));
        self.start_server(position, topology, crew)?;
        self.notice(last, "up", crew)?;
        self.run(requests / 10, None, crew)?;

        if let Method::Direct = self.plan.method {
            self.whose_address(topology, crew)?;
        }
        match control {
            Some(control) => self.hold(&control, crew),
            None => Ok(()),
        }
    }

    /// Everything up to where the client can ask. Returns the control socket, if the lab is held.
    fn build(&self, topology: &Topology, crew: &mut Crew) -> Result<Option<File>, Stop> {
        let Self { plan, screen, .. } = self;
        let names: Vec<_> = plan.servers.iter().map(|server| server.name).collect();
        screen.step(format_args!("namespaces  client, router, {}", names.join(", ")));
        topology.cable_servers(plan)?;
        crew.catch_up(screen)?;
        let cables = format!("cables      a bridge and {} veths", names.len());
        screen.step(match plan.method {
            Method::Nat { gateway, .. } => format!("{cables}, gateway {gateway}"),
            Method::Direct => {
                let vip = plan.service.address;
                format!("{cables}; each server holds {vip} too, and is left as it is")
            }
        });

        for position in 0..plan.servers.len() {
            self.start_server(position, topology, crew)?;
        }

        screen.progress("router      starting");
        // Only who stays can ask; and a file that a killed lab left behind would be nobody's.
        let path = self.args.hold.then(control_socket);
        let socket = path.as_deref().map_or(Socket::None, Socket::At);
        let file = configuration_file(&plan.toml(socket))?;
        let arguments = ["run".to_owned(), "/proc/self/fd/0".to_owned()];
        crew.start(Who::Router, &topology.router, &arguments, file.into())?;
        crew.wait_for_words(Who::Router, &["ready"], PATIENCE, screen)?;
        let control = path.as_deref().map(without_name).transpose()?;
        topology.cable_router(plan)?;
        let inside = match plan.method {
            Method::Nat { router_inside, .. } => format!("and {router_inside}"),
            Method::Direct => format!("bridges {CLIENT_TAP} and {SERVERS_TAP}"),
        };
        let (router, vip) = (plan.router, plan.service);
        screen.step(format_args!("router      tapvs run: {router} {inside}, VIP {vip}"));
        screen.progress("router      checks the servers");
        for _ in &plan.servers {
            crew.wait_for_words(Who::Router, &["server", "up"], PATIENCE, screen)?;
        }
        screen.step(format_args!("router      finds the servers up: {}", names.join(", ")));

        if self.args.requests > STOCK_PORTS / 2 {
            topology.widen_client_ports()?;
        }
        let target = plan.service.to_string();
        let arguments = ["lab-client".to_owned(), "--target".to_owned(), target];
        crew.start(Who::Client, &topology.client, &arguments, Stdio::piped())?;
        screen.step(format_args!("client      {}, its NIC is the router's TAP", plan.client));
        Ok(control)
    }

    fn start_server(
        &self,
        position: usize,
        topology: &Topology,
        crew: &mut Crew,
    ) -> Result<(), Stop> {
        let server = &self.plan.servers[position];
        let (name, listen) = (server.name.to_owned(), self.plan.listen(server).to_string());
        let arguments = ["lab-server", "--name", &name, "--listen", &listen].map(str::to_owned);
        let who = Who::Server(position);
        crew.start(who, &topology.servers[position], &arguments, Stdio::null())?;
        crew.wait_for_words(who, &["listening"], PATIENCE, self.screen)?;
        let itself = match self.plan.method {
            Method::Nat { .. } => String::new(),
            Method::Direct => format!(", is {}", server.address.address()),
        };
        let weight = server.weight;
        self.screen
            .step(format_args!("server      {name} answers on {listen}{itself}, weight {weight}"));
        Ok(())
    }

    /// One round of the scheduler, one request at a time: nobody knows anybody's MAC address yet, and
    /// what finding out costs would be lost in a crowd.
    fn first_contact(&self, crew: &mut Crew) -> Result<(), Stop> {
        let requests = u32::try_from(self.plan.round()).unwrap_or(u32::MAX);
        let tally = self.send(Load { requests, concurrency: 1 }, crew)?;
        shares::check(self.plan, &tally, None)?;
        self.screen.step(format_args!(
            "first       {requests} requests, one by one, while ARP finds everybody: the slowest {}",
            Millis(tally.answered().percentile(100))
        ));
        Ok(())
    }

    /// Waits until the router's health checks have found out.
    fn notice(&self, server: &RealServer, state: &str, crew: &mut Crew) -> Result<(), Stop> {
        let start = super::now();
        self.screen.progress(format_args!("router      checks {}", server.name));
        crew.wait_for_words(Who::Router, &[server.name, state], PATIENCE, self.screen)?;
        let took = (super::now() - start).total_millis();
        let name = server.name;
        self.screen.step(format_args!("router      finds after {took} ms that {name} is {state}"));
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
        self.screen.table(&shares::servers_table(self.plan, &tally));
        let failed = tally.failed().count();
        if failed > 0 {
            self.screen.lines([""]);
            self.screen.table(&shares::failures_table(&tally));
        }
        shares::check(self.plan, &tally, down)?;
        match down {
            None => self.screen.good("every request answered, shared out by weight"),
            Some(down) => self.screen.good(format_args!(
                "every request answered, the share of {} by the others",
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

    /// Every server holds the virtual IP, and none has been told not to say so: still the client
    /// learns the router's MAC address, however often it asks.
    fn whose_address(&self, topology: &Topology, crew: &mut Crew) -> Result<(), Stop> {
        let vip = self.plan.service.address;
        self.screen.heading(format_args!("Whose is {vip}? The client's neighbour table"));
        let entry = || {
            topology
                .client_neighbour(vip)?
                .ok_or_else(|| Stop::Failed(format!("the client has no neighbour entry for {vip}")))
        };
        self.screen.lines([format!("{vip} dev {CLIENT_TAP} {}", entry()?)]);
        self.screen.lines([format!("the router's MAC address is {ROUTER_MAC}")]);
        for (server, mac) in self.plan.servers.iter().zip(topology.server_macs()?) {
            self.screen.lines([format!("{} has {mac}, and {vip} on {SERVER_NIC}", server.name)]);
        }
        for question in 0..=QUESTIONS {
            if question > 0 {
                topology.make_client_forget(vip)?;
                let tally = self.send(Load { requests: 1, concurrency: 1 }, crew)?;
                shares::check(self.plan, &tally, None)?;
            }
            let learned = entry()?;
            if learned.mac != Some(ROUTER_MAC) {
                return Err(Stop::Failed(format!(
                    "the client takes another for the router, asked {question} times: {learned}"
                )));
            }
        }
        self.screen.good(format_args!(
            "forgotten and asked again {QUESTIONS} times: the router's every time"
        ));
        self.past_the_router(crew)
    }

    /// The answers were addressed to the client, and from the virtual IP: nobody's to rewrite.
    fn past_the_router(&self, crew: &mut Crew) -> Result<(), Stop> {
        let line = crew.line_of_report("report: service ", self.screen)?;
        let figure = |key| number(&line, key);
        let (Some(packets_in), Some(packets_out)) = (figure("packets_in"), figure("packets_out"))
        else {
            return Err(Stop::Failed(format!("no packets in the line of the service: {line}")));
        };
        let told = format!(
            "the router passed {} packets on to the servers, and rewrote {} of their answers",
            grouped(packets_in),
            grouped(packets_out)
        );
        if packets_in == 0 || packets_out > 0 {
            return Err(Stop::Failed(told));
        }
        self.screen.good(told);
        Ok(())
    }

    fn hold(&self, control: &File, crew: &mut Crew) -> Result<(), Stop> {
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
            format!("router  tapvs services --socket {}", path_of(control).display()),
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

/// The number in `key=N`.
fn number(line: &str, key: &str) -> Option<usize> {
    let value = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_its_whole_keys() {
        let line = "[INFO] report: service flows=3 packets_in=20 bytes_in=1 packets_out=0";
        assert_eq!(number(line, "packets_in"), Some(20));
        assert_eq!(number(line, "packets_out"), Some(0));
        assert_eq!((number(line, "packets"), number(line, "in")), (None, None));
    }
}

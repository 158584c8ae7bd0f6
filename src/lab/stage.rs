//! What every story of the lab is told with: servers that start, requests that are counted and held
//! against what must come of them, and cleaning up.

use std::process::Stdio;
use std::time::Duration;

use super::args::LabArgs;
use super::client::{Load, Outcome};
use super::crew::{Crew, Stop, Stream, Who};
use super::deadline::Deadline;
use super::grid::grouped;
use super::plan::{Method, Plan, RealServer};
use super::screen::Screen;
use super::shares::{self, Millis};
use super::tally::Tally;
use super::topology::{self, SERVER_NIC};
use crate::links::Namespace;

/// How long a child may take to say that it is up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How many ports a stock client has, and so connections that it can close in a minute.
const STOCK_PORTS: u32 = 28_232;

/// Where a story is told, and how it was asked for.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) args: &'a LabArgs,
    pub(super) plan: &'a Plan,
    pub(super) screen: &'a Screen,
    /// Whether the lab runs in a user namespace of its own: looking inside then takes that too.
    pub(super) own_users: bool,
}

impl Stage<'_> {
    pub(super) fn start_server(
        &self,
        position: usize,
        namespace: &Namespace,
        crew: &mut Crew,
    ) -> Result<(), Stop> {
        let server = &self.plan.servers[position];
        let (name, listen) = (server.name.to_owned(), self.plan.listen(server).to_string());
        let arguments = ["lab-server", "--name", &name, "--listen", &listen].map(str::to_owned);
        let who = Who::Server(position);
        crew.start(who, namespace, &arguments, Stdio::null())?;
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

    pub(super) fn start_client(&self, namespace: &Namespace, crew: &mut Crew) -> Result<(), Stop> {
        if self.args.requests > STOCK_PORTS / 2 {
            topology::widen_ports(namespace)?;
        }
        let target = self.plan.service.to_string();
        let arguments = ["lab-client".to_owned(), "--target".to_owned(), target];
        Ok(crew.start(Who::Client, namespace, &arguments, Stdio::piped())?)
    }

    /// One round of the scheduler, one request at a time: nobody knows anybody's MAC address yet, and
    /// what finding out costs would be lost in a crowd.
    pub(super) fn first_contact(&self, crew: &mut Crew) -> Result<(), Stop> {
        let requests = u32::try_from(self.plan.round()).unwrap_or(u32::MAX);
        let tally = self.send(Load { requests, concurrency: 1 }, crew)?;
        shares::check(self.plan, &tally, None)?;
        self.screen.step(format_args!(
            "first       {requests} requests, one by one, while ARP finds everybody: the slowest {}",
            Millis(tally.answered().percentile(100))
        ));
        Ok(())
    }

    /// Sends the first run of requests, under a heading of its own.
    pub(super) fn first_run(&self, crew: &mut Crew) -> Result<(), Stop> {
        let requests = self.args.requests;
        self.screen.heading(format_args!(
            "{} requests to http://{}/, at most {} at a time, weighted round robin",
            grouped(requests as usize),
            self.plan.service,
            self.args.concurrency
        ));
        self.run(requests, None, crew)
    }

    /// Sends requests, prints what came of them and holds it against what must come.
    pub(super) fn run(
        &self,
        requests: u32,
        down: Option<&RealServer>,
        crew: &mut Crew,
    ) -> Result<(), Stop> {
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

    pub(super) fn send(&self, load: Load, crew: &mut Crew) -> Result<Tally, Stop> {
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

    /// The words that begin a command of a shell elsewhere which is to run where `who` runs.
    pub(super) fn enter(&self, who: Who, crew: &Crew) -> String {
        let pid = crew.pid(who).unwrap_or_default();
        let users = if self.own_users { " -U --preserve-credentials" } else { "" };
        format!("nsenter -t {pid}{users} -n")
    }

    /// Says how to look inside, line by line, and waits until nobody wants to any more.
    pub(super) fn hold(
        &self,
        lines: impl IntoIterator<Item = String>,
        crew: &mut Crew,
    ) -> Result<(), Stop> {
        self.screen
            .heading("The network stays up until Ctrl-C. Look inside from another terminal:");
        let client = self.enter(Who::Client, crew);
        let server = self.enter(Who::Server(0), crew);
        self.screen.lines([format!("client  {client} curl http://{}/", self.plan.service)]);
        self.screen.lines(lines);
        self.screen.lines([format!("s1      {server} tcpdump -ni {SERVER_NIC}")]);
        match crew.wait_for_signal(self.screen) {
            // What was waited for.
            Stop::Interrupted => Ok(()),
            failed @ Stop::Failed(_) => Err(failed),
        }
    }

    /// Ends what `told` is the story of, however it went, and says so.
    pub(super) fn clean_up(
        &self,
        told: Result<(), Stop>,
        namespaces: Vec<Namespace>,
        crew: &mut Crew,
    ) -> Result<(), Stop> {
        match &told {
            Err(Stop::Interrupted) => self.screen.bad("interrupted"),
            Err(Stop::Failed(_)) => self.screen.bad("this is not as it must be, see below"),
            Ok(()) => {}
        }
        let (processes, count) = (crew.count(), namespaces.len());
        self.screen.heading("Cleaning up");
        let farewell = crew.dismiss(self.screen);
        // While their fds are open the kernel cannot give the names to anybody else's namespaces.
        let left = topology::inhabitants(&namespaces);
        drop(namespaces);
        if !left.is_empty() {
            let left = Stop::Failed(format!("processes are still in the network: {left:?}"));
            return told.and(Err(left));
        }
        self.screen.good(format_args!(
            "processes ended: {processes}, namespaces gone with all devices: {count}; nothing \
             left behind"
        ));
        told.and(farewell)
    }
}

//! `tapvs lab pair`: two routers, of which the active one is killed and comes back while a client
//! downloads, keeps connections open and opens new ones.

mod download;
mod idle;
mod plan;
mod prober;
mod timeline;
mod topology;
mod witness;

use std::fs::File;
use std::ops::Deref;
use std::time::Duration;

use self::plan::OUTSIDE_NIC;
pub(super) use self::plan::PairPlan;
use self::topology::Topology;
use self::witness::{IDLE, Witness};
use super::crew::{Crew, Stop, Who};
use super::deadline::Deadline;
use super::file::{configuration_file, control_socket, path_of, without_name};
use super::plan::Socket;
use super::shares::Millis;
use super::stage::{PATIENCE, Stage};
use crate::time::Instant;

/// For how long everything is well before a router is killed.
const BEFORE: Duration = Duration::from_millis(1_500);
/// From one look at what is waited for to the next.
const LOOK: Duration = Duration::from_millis(50);
/// A log line that says that a router has become active.
const ACTIVE: [&str; 2] = ["role", "active"];
/// A log line that says that a router has a copy of every flow.
const COPIED: [&str; 3] = ["all", "flows", "here"];

/// One showing.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) stage: Stage<'a>,
    pub(super) pair: &'a PairPlan,
}

impl<'a> Deref for Story<'a> {
    type Target = Stage<'a>;

    fn deref(&self) -> &Stage<'a> {
        &self.stage
    }
}

impl Story<'_> {
    /// Everything, cleaning up included, whatever happens in between.
    pub(super) fn tell(&self, crew: &mut Crew) -> Result<(), Stop> {
        self.screen.heading(format_args!(
            "tapvs lab pair: one client, two routers, {} real servers, on this machine",
            self.plan.servers.len()
        ));
        let topology = Topology::new(self.pair)?;
        let told = self.acts(&topology, crew);
        self.clean_up(told, topology.into_namespaces(), crew)
    }

    fn acts(&self, topology: &Topology, crew: &mut Crew) -> Result<(), Stop> {
        let mut controls = self.build(topology, crew)?;
        self.first_contact(crew)?;
        self.first_run(crew)?;

        let [first, second] = self.pair.routers;
        self.screen.heading(format_args!(
            "Killing {}, the active router, during a download (SIGKILL: its TAPs go with it)",
            first.name
        ));
        let target = self.plan.service;
        let target = (target.address, target.port).into();
        let witness = topology.client.run(|| Witness::start(target))?;
        self.screen.step(format_args!(
            "client      downloads at 2 MiB/s, has {IDLE} idle connections, opens a new one every 10 ms"
        ));
        let deadline = Deadline::after(BEFORE);
        while crew.next(deadline, self.screen)?.is_some() {}
        let killed = super::now();
        crew.kill(Who::PairRouter(0))?;
        let line = crew.wait_for_words(Who::PairRouter(1), &ACTIVE, PATIENCE, self.screen)?;
        let took = (super::now() - killed).total_millis();
        let (name, reason) = (second.name, reason(&line));
        self.screen.step(format_args!("{name}        is active after {took} ms: {reason}"));
        self.give_account(&witness, killed, crew)?;

        self.screen.heading(format_args!("Starting {} again, whose the role is", first.name));
        let started = super::now();
        controls[0] = self.start_router(0, topology, crew)?;
        let since = || (super::now() - started).total_millis();
        crew.wait_for_words(Who::PairRouter(0), &COPIED, PATIENCE, self.screen)?;
        let name = first.name;
        self.screen.step(format_args!("{name}        has all flows after {} ms", since()));
        self.screen.progress(format_args!("{name}        looks around before it takes over"));
        let line = crew.wait_for_words(Who::PairRouter(0), &ACTIVE, PATIENCE, self.screen)?;
        let reason = self::reason(&line);
        self.screen.step(format_args!("{name}        is active after {} ms: {reason}", since()));
        self.give_account(&witness, started, crew)?;
        self.finish(witness, crew)?;
        self.run(self.args.requests / 10, None, crew)?;
        self.look_inside(&controls, crew)
    }

    /// Everything up to where the client can ask. Returns the control sockets, if the lab is held.
    fn build(&self, topology: &Topology, crew: &mut Crew) -> Result<[Option<File>; 2], Stop> {
        let Stage { plan, screen, .. } = self.stage;
        let names: Vec<_> = plan.servers.iter().map(|server| server.name).collect();
        let names = names.join(", ");
        let [first, second] = self.pair.routers.map(|router| router.name);
        screen.step(format_args!("namespaces  client, switch, {first}, {second}, {names}"));
        topology.cable(self.pair)?;
        crew.catch_up(screen)?;
        let gateway = self.pair.gateway().map(|gateway| gateway.to_string()).unwrap_or_default();
        screen.step(format_args!(
            "cables      2 bridges and {} veths, gateway {gateway}",
            topology.cables()
        ));
        for (position, namespace) in topology.servers.iter().enumerate() {
            self.start_server(position, namespace, crew)?;
        }
        let active = self.start_router(0, topology, crew)?;
        self.wait_for_servers(0, &ACTIVE, crew)?;
        screen.step(format_args!("{first}        is active, finds the servers up: {names}"));
        let backup = self.start_router(1, topology, crew)?;
        self.wait_for_servers(1, &COPIED, crew)?;
        screen.step(format_args!("{second}        stands by, finds the servers up, has all flows"));
        self.start_client(&topology.client, crew)?;
        screen.step(format_args!("client      {}", plan.client));
        Ok([active, backup])
    }

    /// Waits until a router has found all servers, and has said these words.
    fn wait_for_servers(&self, router: usize, words: &[&str], crew: &mut Crew) -> Result<(), Stop> {
        let name = self.pair.routers[router].name;
        self.screen.progress(format_args!("{name}        looks around"));
        let servers: Vec<_> = self.plan.servers.iter().map(|server| [server.name, "up"]).collect();
        let mut lines: Vec<&[&str]> = servers.iter().map(<[&str; 2]>::as_slice).collect();
        lines.push(words);
        crew.wait_for_lines(Who::PairRouter(router), lines, PATIENCE, self.screen).map(drop)
    }

    /// Starts the router at that position, up to where it is ready. Returns its control socket, if
    /// the lab is held.
    fn start_router(
        &self,
        position: usize,
        topology: &Topology,
        crew: &mut Crew,
    ) -> Result<Option<File>, Stop> {
        let router = &self.pair.routers[position];
        self.screen.progress(format_args!("{}        starting", router.name));
        // Only who stays can ask; and a file that a killed lab left behind would be nobody's.
        let path = self.args.hold.then(|| control_socket(router.name));
        let socket = path.as_deref().map_or(Socket::None, Socket::At);
        let file = configuration_file(&self.pair.toml(position, socket))?;
        let arguments = ["run".to_owned(), "/proc/self/fd/0".to_owned()];
        let who = Who::PairRouter(position);
        crew.start(who, &topology.routers[position], &arguments, file.into())?;
        crew.wait_for_words(who, &["ready"], PATIENCE, self.screen)?;
        let control = path.as_deref().map(without_name).transpose()?;
        self.screen.step(format_args!(
            "{}        tapvs run: {} and {}, priority {}",
            router.name, router.outside, router.inside, router.priority
        ));
        Ok(control)
    }

    /// Waits until the client has seen enough of what came after `since`, prints it and holds it
    /// against what must come.
    fn give_account(&self, witness: &Witness, since: Instant, crew: &mut Crew) -> Result<(), Stop> {
        let now = super::now();
        self.wait_until("client      goes on", crew, || witness.has_seen(now))?;
        let account = witness.account(since);
        self.screen.table(&account.table());
        let gap = account.check()?;
        self.screen.good(format_args!(
            "new connections after {}, no connection broken",
            Millis(Some(gap))
        ));
        Ok(())
    }

    /// The rest of the download, at once.
    fn finish(&self, witness: Witness, crew: &mut Crew) -> Result<(), Stop> {
        // The prober would take its share of the requests to come.
        let download = witness.download;
        download.hurry()?;
        let rest = "client      downloads the rest";
        self.wait_until(rest, crew, || download.end().is_some())?;
        let bytes = download.bytes();
        match download.end() {
            Some(Ok(())) => {}
            Some(Err(why)) => {
                return Err(Stop::Failed(format!("the download broke after {bytes} bytes: {why}")));
            }
            None => {
                return Err(Stop::Failed(format!("the download stands still at {bytes} bytes")));
            }
        }
        self.screen.good(format_args!(
            "the download is whole: {} MiB on one connection, every byte right",
            bytes / (1024 * 1024)
        ));
        Ok(())
    }

    /// Waits for something that no child says; for as long as [`PATIENCE`] allows.
    fn wait_until(
        &self,
        what: &str,
        crew: &mut Crew,
        is_so: impl Fn() -> bool,
    ) -> Result<(), Stop> {
        self.screen.progress(what);
        let patience = Deadline::after(PATIENCE);
        while !is_so() && patience.remaining().is_ok() {
            let look = Deadline::after(LOOK);
            while crew.next(look, self.screen)?.is_some() {}
        }
        Ok(())
    }

    fn look_inside(&self, controls: &[Option<File>; 2], crew: &mut Crew) -> Result<(), Stop> {
        let mut lines = Vec::new();
        for (position, control) in controls.iter().enumerate() {
            let Some(control) = control else { return Ok(()) };
            let (name, socket) = (self.pair.routers[position].name, path_of(control));
            let enter = self.enter(Who::PairRouter(position), crew);
            lines.push(format!("{name}    {enter} tcpdump -ni {OUTSIDE_NIC} vrrp"));
            lines.push(format!("{name}    tapvs status --socket {}", socket.display()));
        }
        self.hold(lines, crew)
    }
}

/// The reason that a line of the log gives.
fn reason(line: &str) -> &str {
    let Some((_, reason)) = line.split_once("reason=") else { return "no reason given" };
    match reason.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or(quoted),
        None => reason.split(' ').next().unwrap_or(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_with_and_without_quotes() {
        assert_eq!(
            reason("active: x role=active reason=\"no advert came\" more=1"),
            "no advert came"
        );
        assert_eq!(reason("active: x role=active reason=started more=1"), "started");
        assert_eq!(reason("active"), "no reason given");
    }
}

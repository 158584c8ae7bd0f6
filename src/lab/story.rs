//! What happens in the lab, in order: build, send, stop a server, start it again, clean up; and what
//! must come of each step.

use std::fs::File;
use std::ops::Deref;

use super::client::Load;
use super::crew::{Crew, Stop, Who};
use super::file::{configuration_file, control_socket, path_of, without_name};
use super::grid::grouped;
use super::plan::{CLIENT_TAP, Method, ROUTER_MAC, RealServer, SERVERS_TAP, Socket};
use super::shares;
use super::stage::{PATIENCE, Stage};
use super::topology::{BRIDGE, SERVER_NIC, Topology};

/// How often the client is made to ask anew whose the virtual IP is.
const QUESTIONS: u32 = 20;

/// One showing.
#[derive(Debug)]
pub(super) struct Story<'a>(pub(super) Stage<'a>);

impl<'a> Deref for Story<'a> {
    type Target = Stage<'a>;

    fn deref(&self) -> &Stage<'a> {
        &self.0
    }
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
        self.clean_up(told, topology.into_namespaces(), crew)
    }

    fn acts(&self, topology: &Topology, crew: &mut Crew) -> Result<(), Stop> {
        let control = self.build(topology, crew)?;
        self.first_contact(crew)?;

        self.first_run(crew)?;

        let Some((position, last)) = self.plan.servers.iter().enumerate().next_back() else {
            return Ok(());
        };
        self.screen.heading(format_args!("Stopping {} (killed, as a crash would)", last.name));
        crew.kill(Who::Server(position))?;
        self.notice(last, "down", crew)?;
        self.run(self.args.requests / 2, Some(last), crew)?;

        self.screen.heading(format_args!("Starting {} again", last.name));
        self.start_server(position, &topology.servers[position], crew)?;
        self.notice(last, "up", crew)?;
        self.run(self.args.requests / 10, None, crew)?;

        if let Method::Direct = self.plan.method {
            self.whose_address(topology, crew)?;
        }
        match control {
            Some(control) => self.look_inside(&control, crew),
            None => Ok(()),
        }
    }

    /// Everything up to where the client can ask. Returns the control socket, if the lab is held.
    fn build(&self, topology: &Topology, crew: &mut Crew) -> Result<Option<File>, Stop> {
        let Stage { plan, screen, .. } = **self;
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
            self.start_server(position, &topology.servers[position], crew)?;
        }

        screen.progress("router      starting");
        // Only who stays can ask; and a file that a killed lab left behind would be nobody's.
        let path = self.args.hold.then(|| control_socket("lab"));
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

        self.start_client(&topology.client, crew)?;
        screen.step(format_args!("client      {}, its NIC is the router's TAP", plan.client));
        Ok(control)
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

    fn look_inside(&self, control: &File, crew: &mut Crew) -> Result<(), Stop> {
        let router = self.enter(Who::Router, crew);
        let lines = [
            format!("router  {router} tcpdump -ni {BRIDGE}"),
            format!("router  tapvs services --socket {}", path_of(control).display()),
        ];
        self.hold(lines, crew)
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

//! Clients behind the kernel's stateful firewall, which lets in nothing but what belongs to connections
//! that they have opened: they, too, learn that their server was taken away.

use std::io::{ErrorKind, Read as _};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::direct::{Direct, Servers, Topology};
use netns_tests::harness::built_trial;
use netns_tests::tcp::{Client, EchoServer};
use netns_tests::{Outcome, Rig, Service, VIP, config, ensure, server_address};

use crate::kernel::load;

const RULES: &str = "
table ip firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established accept
    }
}
";
const RESET: &str = "on_remove = \"reset\"";

/// How the server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Translated.
    Nat,
    /// As it is.
    Direct,
}

/// Takes away the server of a client that says nothing.
pub(crate) fn trial(name: &'static str, way: Way) -> Trial {
    let build = move || match way {
        Way::Nat => Rig::new(&[Service::tcp(80).with(RESET).server(0, 8080, 1)]),
        Way::Direct => {
            let two = Direct { topology: Topology::TwoNetworks, servers: Servers::Silent };
            two.build(&[Service::tcp(80).with(RESET).server(0, 80, 1)])
        }
    };
    built_trial(name, build, move |rig| idle(rig, way))
}

fn idle(rig: &mut Rig, way: Way) -> Outcome {
    load(&rig.client, RULES)?;
    let listen = if way == Way::Nat { (server_address(0), 8080) } else { (VIP, 80) };
    let _server = EchoServer::start(&rig.servers[0], listen, "0")?;
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    client.echo(b"and then nothing")?;
    // Not even a late acknowledgement.
    thread::sleep(Duration::from_millis(300));
    let (folder, empty) = (rig.scratch.path(), [Service::tcp(80).with(RESET)]);
    rig.write_config(&match way {
        Way::Nat => config(folder, &empty),
        Way::Direct => Topology::TwoNetworks.config(folder, &empty),
    })?;
    let since = Instant::now();
    rig.router.reload()?;
    let end = client.stream.read(&mut [0; 16]).map_err(|error| error.kind());
    ensure!(end == Err(ErrorKind::ConnectionReset), "the connection ended with {end:?}");
    let took = since.elapsed();
    ensure!(took < Duration::from_secs(2), "the client learned it after {took:?}");
    Ok(())
}

//! SIGHUP: a new table under load, and a wrong file that changes nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::harness::rig_trial;
use netns_tests::tcp::{Client, noise};
use netns_tests::{Failure, Outcome, Rig, Service, VIP, config, ensure};
use rustix::process::Signal;

use crate::nat::echo_servers;

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    vec![
        rig_trial("servers_are_swapped_under_load_and_no_connection_breaks", web, under_load),
        rig_trial("a_service_comes_and_goes", web, comes_and_goes),
        rig_trial("a_wrong_file_changes_nothing", web, wrong_file),
    ]
}

fn under_load(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let rig = &*rig;
    let mut lasting =
        (0..12).map(|_| Client::connect(&rig.client, (VIP, 80))).collect::<Outcome<Vec<_>>>()?;
    let (end, connections) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let loads: Vec<_> = (0..2_u64)
            .map(|seed| {
                let (end, connections) = (&end, &connections);
                scope.spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        let mut client = Client::connect(&rig.client, (VIP, 80))?;
                        client.echo(&noise(5_000, seed))?;
                        client.close()?;
                        connections.fetch_add(1, Ordering::Relaxed);
                    }
                    Outcome::Ok(())
                })
            })
            .collect();
        let swapped = swap(rig, &mut lasting);
        end.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().map_err(|_| Failure::new("a client panicked"))??;
        }
        swapped
    })?;
    let connections = connections.into_inner();
    ensure!(connections > 100, "only {connections} connections were made meanwhile");
    for mut client in lasting {
        client.echo(b"all through it")?;
        client.close()?;
    }
    Ok(())
}

fn swap(rig: &Rig, lasting: &mut [Client]) -> Outcome {
    for round in 0..12 {
        let (one, other) = (round % 3, (round + 1) % 3);
        rig.reload(&[Service::tcp(80).server(one, 8080, 1).server(other, 8080, 1)])?;
        thread::sleep(Duration::from_millis(50));
        for client in &mut *lasting {
            client.echo(b"meanwhile")?;
        }
        // The server that is left out gets no new connection.
        for _ in 0..4 {
            let server = Client::connect(&rig.client, (VIP, 80))?.server;
            let allowed = [one.to_string(), other.to_string()];
            ensure!(allowed.contains(&server), "server {server} is out, {allowed:?} are in");
        }
    }
    Ok(())
}

fn comes_and_goes(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let refused = |rig: &Rig| Client::connect(&rig.client, (VIP, 8000)).is_err();
    ensure!(refused(rig), "a port without a service is open");
    rig.reload(&[Service::tcp(80).three(8080), Service::tcp(8000).server(1, 8080, 1)])?;
    let mut lasting = Client::connect(&rig.client, (VIP, 8000))?;
    ensure!(lasting.server == "1", "the new service has one server, not {}", lasting.server);
    rig.reload(&[Service::tcp(80).three(8080)])?;
    ensure!(refused(rig), "a service that was taken out is still open");
    lasting.echo(b"a connection outlives its service")?;
    Client::connect(&rig.client, (VIP, 80))?.close()
}

fn wrong_file(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut lasting = Client::connect(&rig.client, (VIP, 80))?;
    let right = config(rig.scratch.path(), &[Service::tcp(80).server(0, 8080, 1)]);
    let wrong = [
        "this is no TOML".to_owned(),
        String::new(),
        right.replace("scheduler = \"rr\"", "scheduler = \"best\""),
        right.replace("[[service]]", "[[services]]"),
    ];
    for text in &wrong {
        rig.write_config(text)?;
        rig.router.signal_and_wait(Signal::HUP, &["reload: ", "refused"])?;
        lasting.echo(b"nothing has changed")?;
        let servers = (0..3)
            .map(|_| Client::connect(&rig.client, (VIP, 80)).map(|client| client.server))
            .collect::<Outcome<std::collections::BTreeSet<_>>>()?;
        ensure!(servers.len() == 3, "three connections went to {servers:?} only");
    }
    std::fs::remove_file(rig.router.file())?;
    let file = format!(" file={} generation=", rig.router.file().display());
    rig.router.signal_and_wait(Signal::HUP, &["reload: ", "refused", &file, " mistakes=1"])?;
    rig.reload(&[Service::tcp(80).server(0, 8080, 1)])?;
    for _ in 0..3 {
        let server = Client::connect(&rig.client, (VIP, 80))?.server;
        ensure!(server == "0", "the right file names server 0, not {server}");
    }
    Ok(())
}

//! The control socket and the commands that use it: what they show, what they change, and what
//! bad company does to them.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::{rig_trial, trial};
use netns_tests::tcp::Client;
use netns_tests::{
    CLIENT, Context as _, Failure, Outcome, Rig, Router, Scratch, Service, VIP, config, ensure,
    eventually, tapvs, udp,
};
use rustix::process::Signal;
use serde_json::Value;
use tapvs::links::Namespace;

use crate::nat::echo_servers;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    let web = || vec![Service::tcp(80).three(8080)];
    let dns = || vec![Service::udp(53).three(5353)];
    vec![
        rig_trial("commands_show_what_clients_do", web, shows),
        rig_trial("a_drained_server_gets_nothing_new_also_after_a_reload", web, drains),
        rig_trial("a_reload_names_what_changed_or_every_mistake", web, reloads),
        rig_trial("flows_come_in_pages_and_filtered", dns, pages),
        rig_trial("a_watched_file_is_reloaded_however_it_is_replaced", web, watches),
        rig_trial("a_hundred_signals_are_a_few_readings", web, storm),
        rig_trial("bad_company_harms_nobody", web, bad_company),
        trial("the_socket_is_the_owners_and_one_routers", one_socket),
    ]
}

/// What a command printed and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn socket(rig: &Rig) -> PathBuf {
    rig.scratch.path().join("lvs1.sock")
}

fn command(socket: &std::path::Path, arguments: &[&str]) -> Outcome<Said> {
    let output = Command::new(tapvs())
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .env_remove("RUST_LOG")
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// A command that must succeed.
pub(crate) fn ask(rig: &Rig, arguments: &[&str]) -> Outcome<String> {
    let said = command(&socket(rig), arguments)?;
    ensure!(said.code == Some(0), "{arguments:?}: {said:?}");
    Ok(said.out)
}

/// The same, line by line as JSON.
pub(crate) fn ask_json(rig: &Rig, arguments: &[&str]) -> Outcome<Vec<Value>> {
    let text = ask(rig, &[arguments, &["--json"]].concat())?;
    text.lines().map(|line| serde_json::from_str(line).context(line)).collect()
}

fn shows(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for _ in 0..6 {
        Client::connect(&rig.client, (VIP, 80))?.close()?;
    }
    let mut open = Client::connect(&rig.client, (VIP, 80))?;
    open.echo(b"still here")?;

    let services = ask_json(rig, &["services", "--interval", "0"])?;
    let [web] = &services[..] else { return Err(Failure::new(format!("{services:?}"))) };
    ensure!(web["connections"] == 7 && web["active"] == 1 && web["inactive"] == 6, "{web}");
    let servers = web["servers"].as_array().map_or(&[][..], Vec::as_slice);
    let connections: Vec<_> = servers.iter().filter_map(|s| s["connections"].as_u64()).collect();
    ensure!(connections == [3, 2, 2], "round robin gave {connections:?}");
    let sum: u64 = servers.iter().filter_map(|s| s["packets_in"].as_u64()).sum();
    ensure!(web["packets_in"] == sum && sum > 0, "{web}");
    ensure!(web.get("per_second").is_none(), "a rate of one sample: {web}");

    // A known load while it samples: at least 10 echoes of 1,000 bytes, each acknowledged.
    let rated = thread::scope(|scope| {
        let rated = scope.spawn(|| ask_json(rig, &["services", "--interval", "1"]));
        let end = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < end {
            open.echo(&[7; 1_000])?;
            thread::sleep(Duration::from_millis(20));
        }
        rated.join().map_err(|_| Failure::new("the command panicked"))?
    })?;
    let rate = &rated[0]["per_second"];
    let (bytes, packets) = (rate["bytes_in"].as_u64(), rate["packets_in"].as_u64());
    ensure!(bytes.is_some_and(|b| (10_000..200_000).contains(&b)), "{rate}");
    ensure!(packets.is_some_and(|p| (10..200).contains(&p)), "{rate}");
    let silent = rated[0]["servers"].as_array().into_iter().flatten();
    let rates: Vec<_> = silent.filter_map(|s| s["per_second"]["bytes_in"].as_u64()).collect();
    ensure!(rates.iter().filter(|rate| **rate > 0).count() == 1, "one server is busy: {rates:?}");

    let flows = ask_json(rig, &["flows", "--state", "established"])?;
    let port = open.stream.local_addr()?.port();
    ensure!(flows.len() == 1 && flows[0]["client"] == format!("{CLIENT}:{port}"), "{flows:?}");
    ensure!(
        flows[0]["assured"] == true && flows[0]["destination"] == format!("{VIP}:80"),
        "{flows:?}"
    );
    let expires = flows[0]["expires_ms"].as_u64();
    ensure!(expires.is_some_and(|ms| (800_000..=900_000).contains(&ms)), "{flows:?}");

    let neighbours = ask_json(rig, &["neighbours"])?;
    let reachable = |name: &str| {
        let mut all = neighbours.iter().filter(|n| n["state"] == "reachable");
        all.any(|n| n["address"] == name)
    };
    ensure!(reachable("10.0.0.11") && reachable(&CLIENT.to_string()), "{neighbours:?}");

    let refused = Client::connect(&rig.client, (VIP, 81)).is_err();
    ensure!(refused, "a port without a service is open");
    let drops = ask_json(rig, &["drops"])?;
    let unserved = drops.iter().find(|row| row["reason"] == "unserved");
    ensure!(unserved.is_some_and(|row| row["count"] == 1), "{unserved:?}");
    ensure!(ask(rig, &["drops"])?.contains("No service at this port"), "the reason has no meaning");

    let status = &ask_json(rig, &["status"])?[0];
    ensure!(
        status["name"] == "lvs1" && status["generation"] == 1 && status["flows"] == 7,
        "{status}"
    );
    let count = |key: &str| status["frames"][key].as_u64().unwrap_or(0);
    let known = count("received") + count("originated") + count("copies");
    let gone: u64 = ["sent", "to_host", "to_ha", "split", "consumed", "dropped", "held"]
        .map(count)
        .iter()
        .sum();
    ensure!(known == gone && known > 100, "the frames do not balance: {status}");
    ensure!(status["turns"]["count"].as_u64() > Some(10), "{status}");
    for shown in ["status", "services", "flows", "neighbours", "drops"] {
        let text = ask(rig, &[shown])?;
        ensure!(!text.contains('\u{1b}'), "{shown} is coloured although it is no terminal");
        ensure!(text.lines().all(|line| line == line.trim_end()), "{shown} has loose ends: {text}");
    }
    open.close()
}

fn drains(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut lasting =
        (0..3).map(|_| Client::connect(&rig.client, (VIP, 80))).collect::<Outcome<Vec<_>>>()?;
    let service = &format!("tcp:{VIP}:80");
    let gone = "10.0.0.12:8080";
    let text = ask(rig, &["drain", service, gone])?;
    ensure!(text.contains("drained, no new flows; the file says 1"), "{text}");
    nothing_new_for(rig, "1", 9)?;
    for client in &mut lasting {
        client.echo(b"those that are there go on")?;
    }
    let weight = command(&socket(rig), &["weight", service, gone, "5"])?;
    ensure!(weight.code == Some(64) && weight.err.contains("is drained"), "{weight:?}");

    // The file says nothing of it, and another weight; the operator's wish holds.
    rig.reload(&[Service::tcp(80).server(0, 8080, 1).server(1, 8080, 3).server(2, 8080, 1)])?;
    nothing_new_for(rig, "1", 9)?;
    let web = &ask_json(rig, &["services", "--interval", "0"])?[0];
    let server = &web["servers"][1];
    ensure!(server["drained"] == true && server["weight"] == 0, "{server}");
    ensure!(server["configured_weight"] == 3 && server["active"] == 1, "{server}");
    ensure!(ask_json(rig, &["status"])?[0]["overridden"] == 1, "status does not mention it");

    ask(rig, &["undrain", service, gone])?;
    let web = &ask_json(rig, &["services", "--interval", "0"])?[0];
    ensure!(web["servers"][1]["weight"] == 3 && web["servers"][1]["drained"] == false, "{web}");
    let back = (0..3).map(|_| Client::connect(&rig.client, (VIP, 80)).map(|client| client.server));
    let back = back.collect::<Outcome<Vec<_>>>()?;
    ensure!(back.contains(&"1".to_owned()), "three connections went to {back:?}");

    ask(rig, &["weight", service, gone, "0"])?;
    nothing_new_for(rig, "1", 6)?;
    for (wrong, why) in [
        (["drain", "nowhere", gone], "unknown service nowhere"),
        (["drain", service, "nobody"], "10.0.0.11:8080, 10.0.0.12:8080"),
    ] {
        let said = command(&socket(rig), &wrong)?;
        ensure!(said.code == Some(64) && said.err.contains(why), "{said:?}");
    }
    Ok(())
}

fn nothing_new_for(rig: &Rig, server: &str, connections: usize) -> Outcome {
    for _ in 0..connections {
        let client = Client::connect(&rig.client, (VIP, 80))?;
        ensure!(client.server != server, "server {server} was given a new connection");
    }
    Ok(())
}

fn reloads(rig: &mut Rig) -> Outcome {
    let same = ask(rig, &["reload"])?;
    ensure!(same.contains("says what is running; generation 1 stays"), "{same}");
    let services = [Service::tcp(80).server(0, 8080, 2), Service::udp(53).three(5353)];
    let right = config(rig.scratch.path(), &services);
    let vip = "\n[[virtual_ip]]\naddress = \"203.0.113.11\"\nnetwork = \"internet\"\n";
    rig.write_config(&format!("{right}{vip}"))?;
    let reloaded = &ask_json(rig, &["reload"])?[0];
    let changes = reloaded["changes"].to_string();
    for change in [
        "virtual IP 203.0.113.11 on internet added",
        "service udp:203.0.113.10:53 added with 3 servers",
        "server 10.0.0.12:8080 removed",
        "server 10.0.0.11:8080: weight: 2, was 1",
    ] {
        ensure!(changes.contains(change), "no {change:?} in {changes}");
    }
    ensure!(reloaded["generation"] == 2 && reloaded["changed"] == true, "{reloaded}");
    // The answer comes when the loop works with it, so there is nothing to wait for.
    let status = &ask_json(rig, &["status"])?[0];
    ensure!(status["generation"] == 2 && status["services"] == 2, "{status}");

    rig.write_config(&right.replace("scheduler", "sheduler").replace("weight = 2", "weight = -2"))?;
    let wrong = command(&socket(rig), &["reload"])?;
    ensure!(wrong.code == Some(64) && wrong.out.is_empty(), "{wrong:?}");
    let place = format!("{}:", rig.router.file().display());
    let lines: Vec<_> = wrong.err.lines().collect();
    ensure!(lines.len() == 3, "two services with a wrong key and a wrong weight: {wrong:?}");
    ensure!(lines.iter().all(|line| line.starts_with(&place)), "{wrong:?}");
    ensure!(ask_json(rig, &["status"])?[0]["generation"] == 2, "a wrong file changed something");
    Ok(())
}

fn pages(rig: &mut Rig) -> Outcome {
    const FLOWS: usize = 3_000;
    // More than three frames would not wait for a server's MAC.
    let known = eventually(PATIENCE, || {
        let neighbours = ask_json(rig, &["neighbours"]).unwrap_or_default();
        let servers = neighbours.iter().filter(|neighbour| neighbour["configured"] == true);
        servers.filter(|server| server["state"] == "reachable").count() == 3
    });
    ensure!(known, "the router does not find its servers");
    let sockets = (0..FLOWS)
        .map(|_| {
            let socket = udp::client(&rig.client, CLIENT, (VIP, 53))?;
            // Nobody listens there: what the server says about that is of no interest.
            drop(socket.send(b"x"));
            Ok(socket)
        })
        .collect::<Outcome<Vec<_>>>()?;
    let all = || ask_json(rig, &["flows", "--limit", "0"]);
    let mut seen = Vec::new();
    let complete = eventually(PATIENCE, || {
        seen = all().unwrap_or_default();
        seen.len() >= FLOWS
    });
    ensure!(complete, "{} flows are listed, {FLOWS} were opened", seen.len());
    let mut clients: Vec<_> = seen.iter().map(|flow| flow["client"].to_string()).collect();
    clients.sort();
    clients.dedup();
    ensure!(clients.len() == seen.len(), "{} of {} are listed once", clients.len(), seen.len());
    for socket in &sockets {
        let client = format!("\"{}\"", socket.local_addr()?);
        ensure!(clients.binary_search(&client).is_ok(), "{client} is not listed");
    }
    let of_one = ask_json(rig, &["flows", "--limit", "0", "--server", "10.0.0.12"])?;
    ensure!(of_one.len() == FLOWS / 3, "round robin, but {} of {FLOWS}", of_one.len());
    ensure!(of_one.iter().all(|flow| flow["server"] == "10.0.0.12:5353"), "not only that server's");
    for (filter, count) in [
        (["--client", "203.0.113.0/24"], FLOWS),
        (["--client", "203.0.114.0/24"], 0),
        (["--state", "udp"], FLOWS),
        (["--state", "established"], 0),
        (["--service", "udp:203.0.113.10:53"], FLOWS),
    ] {
        let found = ask_json(rig, &[&["flows", "--limit", "0"][..], &filter].concat())?.len();
        ensure!(found == count, "{filter:?}: {found} flows, not {count}");
    }
    let some = command(&socket(rig), &["flows", "--limit", "10"])?;
    ensure!(some.out.lines().count() == 11, "a head and ten lines: {}", some.out);
    ensure!(some.err.contains("--limit 0 shows all"), "{some:?}");
    let nowhere = command(&socket(rig), &["flows", "--service", "web"])?;
    ensure!(nowhere.code == Some(64), "{nowhere:?}");
    Ok(())
}

fn watches(rig: &mut Rig) -> Outcome {
    let text = |server| {
        let text = config(rig.scratch.path(), &[Service::tcp(80).server(server, 8080, 1)]);
        text.replace("max_flows", "watch = true\nmax_flows")
    };
    let file = rig.router.file();
    rig.write_config(&text(0))?;
    // It watches only from here on.
    ask(rig, &["reload"])?;
    let follows = |what: &str, server: usize| {
        let address = format!("10.0.0.1{}:8080", server + 1);
        let followed = eventually(PATIENCE, || {
            let services = ask_json(rig, &["services", "--interval", "0"]).unwrap_or_default();
            services.first().is_some_and(|web| web["servers"][0]["address"] == address)
        });
        ensure!(followed, "{what}: it has not been read");
        Outcome::Ok(())
    };
    fs::write(file, text(1))?;
    follows("written", 1)?;
    let new = file.with_extension("new");
    fs::write(&new, text(2))?;
    fs::rename(&new, file)?;
    follows("replaced by rename", 2)?;
    let data = rig.scratch.path().join("data");
    for (version, server) in [("v1", 0), ("v2", 1)] {
        fs::create_dir(rig.scratch.path().join(version))?;
        fs::write(rig.scratch.path().join(version).join("tapvs.toml"), text(server))?;
    }
    symlink("v1", &data)?;
    symlink("data/tapvs.toml", &new)?;
    fs::rename(&new, file)?;
    follows("replaced by a link", 0)?;
    symlink("v2", rig.scratch.path().join("next"))?;
    fs::rename(rig.scratch.path().join("next"), &data)?;
    follows("its directory swapped", 1)?;

    let before = rig.router.log().len();
    fs::write(rig.scratch.path().join("v2/tapvs.toml"), "no = ")?;
    rig.router.wait_for(before, &["reload: ", "refused"])?;
    follows("a wrong file", 1)?;
    fs::write(rig.scratch.path().join("v2/tapvs.toml"), text(2).replace("watch = true\n", ""))?;
    follows("mended", 2)?;
    let before = rig.router.log().len();
    fs::write(rig.scratch.path().join("v2/tapvs.toml"), text(0))?;
    thread::sleep(Duration::from_secs(1));
    let log = rig.router.log().split_off(before);
    ensure!(log.is_empty(), "it watches no more, and said {log:?}");
    Ok(())
}

fn storm(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    let before = rig.router.log().len();
    for number in 0..100_u16 {
        let weight = number % 7 + 1;
        rig.write_config(&config(rig.scratch.path(), &[Service::tcp(80).server(0, 8080, weight)]))?;
        rig.router.signal(Signal::HUP)?;
        thread::sleep(Duration::from_millis(10));
    }
    client.echo(b"through the storm")?;
    let last = 99 % 7 + 1;
    let settled = eventually(PATIENCE, || {
        let services = ask_json(rig, &["services", "--interval", "0"]).unwrap_or_default();
        services.first().is_some_and(|web| web["servers"][0]["weight"] == last)
    });
    ensure!(settled, "the last file is not in use");
    let log = rig.router.log().split_off(before);
    let readings =
        log.iter().filter(|line| line.contains("reload: ") && line.contains("generation"));
    let readings = readings.count();
    ensure!((2..=25).contains(&readings), "the file was read {readings} times");
    Ok(())
}

fn bad_company(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    let mut client = Client::connect(&rig.client, (VIP, 80))?;
    let connect = || {
        let stream = UnixStream::connect(socket(rig)).context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Outcome::Ok(stream)
    };
    let mut good = connect()?;
    let mut answers_well = |when: &str| {
        good.write_all(b"{\"command\":\"drops\"}\n")?;
        let mut answer = String::new();
        BufReader::new(&good).read_line(&mut answer).context(when)?;
        ensure!(answer.starts_with("{\"drops\""), "{when}: {answer}");
        Outcome::Ok(())
    };
    answers_well("alone")?;

    let mut half = connect()?;
    half.write_all(b"{\"command\":\"sta")?;
    answers_well("beside half a line")?;

    let mut garbage = connect()?;
    garbage.write_all(b"\x00\xff{[\xfe\nGET / HTTP/1.1\r\n{\"command\":\"reboot\"}\n")?;
    let refused: Vec<_> = BufReader::new(&garbage).lines().take(3).collect::<Result<_, _>>()?;
    ensure!(refused.iter().all(|line| line.contains("\"reason\":\"request\"")), "{refused:?}");
    answers_well("beside garbage")?;

    let mut endless = connect()?;
    let long = vec![b'x'; 10 << 20];
    let written = endless.write_all(&long);
    let mut told = Vec::new();
    match endless.read_to_end(&mut told) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error.into()),
        Ok(_) | Err(_) => {}
    }
    let told = String::from_utf8_lossy(&told);
    ensure!(written.is_err() || told.contains("at most"), "10 MiB were taken: {told}");
    ensure!(told.is_empty() || told.contains("\"error\""), "{told}");
    answers_well("after a line without end")?;

    // Asks for much and reads nothing.
    let slow = connect()?;
    slow.set_nonblocking(true)?;
    let requests = b"{\"command\":\"status\"}\n".repeat(20_000);
    let mut sent = 0;
    while sent < requests.len() {
        match (&slow).write(&requests[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(sent < requests.len(), "20,000 requests were taken from somebody who reads nothing");
    answers_well("beside a slow reader")?;

    let crowd = (0..1_000).map(|_| connect()).collect::<Outcome<Vec<_>>>()?;
    answers_well("in a crowd of a thousand")?;
    client.echo(b"and packets pass")?;
    let turned_away = command(&socket(rig), &["status"])?;
    ensure!(turned_away.code == Some(1), "{turned_away:?}");
    ensure!(turned_away.err.contains("64 clients are connected already"), "{turned_away:?}");
    drop(crowd);
    let free = eventually(PATIENCE, || ask(rig, &["status"]).is_ok());
    ensure!(free, "there is no room although the crowd is gone");
    half.write_all(b"tus\"}\n")?;
    let mut answer = String::new();
    BufReader::new(&half).read_line(&mut answer)?;
    ensure!(answer.starts_with("{\"status\""), "the half line became a whole one: {answer}");
    drop(slow);
    Ok(())
}

fn one_socket() -> Outcome {
    let scratch = Scratch::new()?;
    let path = scratch.path().join("run/lvs1.sock");
    let socket = path.as_path();
    let file = scratch.path().join("tapvs.toml");
    let text = config(scratch.path(), &[Service::tcp(80).three(8080)]);
    fs::write(&file, text.replace("/lvs1.sock", "/run/lvs1.sock"))?;
    let absent = command(socket, &["status"])?;
    ensure!(absent.code == Some(69) && absent.err.contains("no router"), "{absent:?}");

    let (here, elsewhere) = (Namespace::new()?, Namespace::new()?);
    let mut first = Router::start(&here, &file)?;
    let mode = fs::metadata(socket)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the socket's mode is {mode:o}");
    ensure!(command(socket, &["status"])?.code == Some(0), "its directory was made");

    let mut second = Router::spawn(&elsewhere, &file)?;
    let status = second.wait()?;
    let log = second.log().join("\n");
    ensure!(status.code() == Some(1) && log.contains("another router listens there"), "{log}");
    ensure!(command(socket, &["status"])?.code == Some(0), "the second one took the socket away");

    // A crash leaves the file behind; the next start replaces it.
    first.signal(Signal::KILL)?;
    first.wait()?;
    ensure!(socket.exists(), "a killed router cannot clean up");
    let dead = command(socket, &["drops"])?;
    ensure!(dead.code == Some(69), "{dead:?}");
    let mut third = Router::start(&here, &file)?;
    ensure!(command(socket, &["status"])?.code == Some(0), "the dead one's socket was in the way");
    third.stop()?;
    ensure!(!socket.exists(), "a router that was stopped leaves its socket behind");
    Ok(())
}

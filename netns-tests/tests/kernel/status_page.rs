//! The status page: where it is served, who may change something, and what bad company does to it.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::built_trial;
use netns_tests::tcp::{self, Client};
use netns_tests::{
    Failure, Outcome, ROUTER_INSIDE, ROUTER_OUTSIDE, Rig, Service, VIP, config, ensure, eventually,
};
use serde_json::Value;

use crate::nat::echo_servers;

const PORT: u16 = 9180;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        built_trial("the_status_page_shows_what_clients_do", rig, shows),
        built_trial("the_status_page_changes_what_its_token_allows", rig, changes),
        built_trial("a_port_scan_finds_what_is_configured", rig, scan),
        built_trial("a_reload_moves_the_status_page", rig, moves),
        built_trial("the_status_page_survives_bad_company", rig, bad_company),
    ]
}

fn rig() -> Outcome<Rig> {
    Rig::configured(|folder| {
        let token = folder.join("token");
        // Should it fail, the router says so.
        drop(fs::write(&token, TOKEN));
        let page = format!("listen = \"{ROUTER_OUTSIDE}:{PORT}\"\ntoken_file = {token:?}");
        with_page(&config(folder, &[Service::tcp(80).three(8080)]), &page)
    })
}

fn with_page(config: &str, page: &str) -> String {
    format!("{config}\n[status]\n{page}\n")
}

/// No answer soon is none: resets are limited in number.
fn dial(rig: &Rig, to: (Ipv4Addr, u16)) -> io::Result<TcpStream> {
    tcp::connect(&rig.client, to, Duration::from_millis(300))
}

/// Sends bytes, and reads until the router has nothing more to say.
fn exchange(rig: &Rig, bytes: &[u8]) -> Outcome<String> {
    let mut stream = dial(rig, (ROUTER_OUTSIDE, PORT))?;
    stream.write_all(bytes)?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        Ok(_) | Err(_) => Ok(text),
    }
}

fn get(rig: &Rig, path: &str) -> Outcome<String> {
    let text = exchange(rig, format!("GET {path} HTTP/1.1\r\nHost: lvs1\r\n\r\n").as_bytes())?;
    let Some(("HTTP/1.1 200 OK", rest)) = text.split_once("\r\n") else {
        return Err(Failure::new(format!("{path}: {text}")));
    };
    Ok(rest.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

fn post(rig: &Rig, path: &str, token: &str, body: &str) -> Outcome<String> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: lvs1\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
    );
    exchange(rig, [head.as_bytes(), body.as_bytes()].concat().as_slice())
}

/// One value of `/metrics`.
fn metric(rig: &Rig, name: &str) -> Outcome<f64> {
    let text = get(rig, "/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.ok_or_else(|| Failure::new(format!("no {name} in\n{text}")))
}

fn shows(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for _ in 0..6 {
        Client::connect(&rig.client, (VIP, 80))?.close()?;
    }
    let opened = format!(
        "tapvs_service_flows_opened_total{{service=\"tcp:{VIP}:80\",protocol=\"tcp\",address=\"{VIP}:80\"}}"
    );
    let found = metric(rig, &opened)?;
    ensure!(found == 6.0, "{found} flows");
    ensure!(metric(rig, "tapvs_drops_total{reason=\"no_flow\"}")? >= 0.0, "no drops");
    ensure!(get(rig, "/healthz")? == "ok\n", "not well");
    let json: Value = serde_json::from_str(&get(rig, "/api/status")?)?;
    ensure!(json["services"][0]["connections"] == 6, "{json}");
    ensure!(json["status"]["name"] == "lvs1", "{json}");
    // As often as a monitoring system would in an hour: places are given back.
    for _ in 0..240 {
        ensure!(get(rig, "/healthz")? == "ok\n", "not well");
    }
    Ok(())
}

fn changes(rig: &mut Rig) -> Outcome {
    let web = format!(
        "{{\"service\":\"tcp:{VIP}:80\",\"server\":\"{}:8080\"}}",
        netns_tests::server_address(0)
    );
    let answer = post(rig, "/api/drain", "wrong", &web)?;
    ensure!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let answer = post(rig, "/api/drain", TOKEN, &web)?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"drained\":true"), "{answer}");
    let json: Value = serde_json::from_str(&get(rig, "/api/status")?)?;
    ensure!(json["services"][0]["servers"][0]["weight"] == 0, "{json}");
    let answer = post(rig, "/api/undrain", TOKEN, &web)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let answer = post(rig, "/api/reload", TOKEN, "")?;
    ensure!(answer.contains("\"changed\":false"), "{answer}");
    let file = fs::read_to_string(rig.router.file())?;
    rig.write_config(&file.replacen("forward = \"servers-out\"", "forward = \"everything\"", 1))?;
    let answer = post(rig, "/api/reload", TOKEN, "")?;
    ensure!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("router.forward"), "{answer}");

    for _ in 0..5 {
        post(rig, "/api/reload", "0123456789abcdef0123456789abcdeF", "")?;
    }
    let answer = post(rig, "/api/reload", TOKEN, "")?;
    ensure!(answer.starts_with("HTTP/1.1 429 "), "guessing is not limited: {answer}");
    Ok(())
}

fn scan(rig: &mut Rig) -> Outcome {
    let is_open = |address: Ipv4Addr, port| dial(rig, (address, port)).is_ok();
    let ports = (1..=1_024).chain([PORT - 1, PORT, PORT + 1, 65_535]);
    let open: Vec<_> = ports.filter(|port| is_open(ROUTER_OUTSIDE, *port)).collect();
    ensure!(open == [PORT], "open on the router's address: {open:?}");
    for (address, port) in [(VIP, PORT), (ROUTER_INSIDE, PORT)] {
        ensure!(!is_open(address, port), "{address}:{port} is open");
    }
    Ok(())
}

fn moves(rig: &mut Rig) -> Outcome {
    let waiting = dial(rig, (ROUTER_OUTSIDE, PORT))?;
    let services = [Service::tcp(80).three(8080)];
    let file = config(rig.scratch.path(), &services);
    rig.write_config(&with_page(&file, &format!("listen = \"{ROUTER_OUTSIDE}:80\"")))?;
    rig.router.reload()?;
    let is_open = |rig: &Rig, port| dial(rig, (ROUTER_OUTSIDE, port)).is_ok();
    // The log tells of the file before the loop has turned; `tapvs reload` waits for that.
    let moved = eventually(Duration::from_secs(2), || is_open(rig, 80) && !is_open(rig, PORT));
    ensure!(moved, "it did not move");
    let ended = (&waiting).read(&mut [0; 1]).map_err(|error| error.kind());
    ensure!(ended == Err(ErrorKind::ConnectionReset), "the old connection: {ended:?}");
    rig.reload(&services)?;
    ensure!(!is_open(rig, 80), "it is still there");
    Ok(())
}

fn bad_company(rig: &mut Rig) -> Outcome {
    let _servers = echo_servers(rig, 8080)?;
    for (bytes, expected) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "HTTP/1.1 400 "),
        (b"GET\r\n\r\n", "HTTP/1.1 400 "),
        (b"BREW / HTTP/1.1\r\n\r\n", "HTTP/1.1 501 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 10485760\r\n\r\n", "HTTP/1.1 413 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 411 "),
        (&[&b"GET / HTTP/1.1\r\nA: "[..], &[b'x'; 9_000]].concat(), "HTTP/1.1 431 "),
    ] {
        let answer = exchange(rig, bytes)?;
        let said = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        ensure!(answer.starts_with(expected), "{said:?}: {answer:?}");
    }
    // All places are taken by those who say nothing, or a little at a time.
    let begin = Instant::now();
    let mut silent: Vec<TcpStream> = Vec::new();
    for number in 0..100 {
        let Ok(mut stream) = dial(rig, (ROUTER_OUTSIDE, PORT)) else { continue };
        if number % 2 == 0 {
            drop(stream.write_all(b"GET / HT"));
        }
        silent.push(stream);
    }
    ensure!((10..=16).contains(&silent.len()), "{} of 100 were let in", silent.len());
    Client::connect(&rig.client, (VIP, 80))?.close()?;
    let served = eventually(PATIENCE, || get(rig, "/healthz").is_ok());
    ensure!(served, "nobody is served after {:?}", begin.elapsed());
    drop(silent);
    // A client that takes nothing of a long answer.
    let mut slow = dial(rig, (ROUTER_OUTSIDE, PORT))?;
    slow.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
    ensure!(get(rig, "/healthz")? == "ok\n", "a slow reader is in the way");
    let slow_turns = metric(rig, "tapvs_loop_slow_turns_total")?;
    let turns = metric(rig, "tapvs_loop_turns_total")?;
    ensure!(slow_turns * 100.0 <= turns, "{slow_turns} of {turns} turns were slow");
    Ok(())
}

//! tapvs between programs that were not written for it: nginx, curl and wrk.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use netns_tests::direct::{
    Direct, Servers,
    Topology::{Bridged, OneNetwork, TwoNetworks},
};
use netns_tests::harness::{self, built_trial, file_trial, rig_trial, say};
use netns_tests::tcp::{connect, noise};
use netns_tests::{
    Context as _, Failure, Outcome, ROUTER_OUTSIDE, Rig, Service, VIP, config, ensure, eventually,
    server_address,
};
use tapvs::links::Namespace;

/// What the project promises to carry without an error.
const REQUESTS: u64 = 200_000;
const ROUND: &str = "10s";
const ROUNDS: u32 = 15;

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--list") {
        for (program, argument) in [("nginx", "-v"), ("curl", "--version"), ("wrk", "-v")] {
            match version(program, argument) {
                Ok(version) => say(format_args!("{program}: {version}")),
                Err(error) => {
                    say(format_args!("{error}; `cargo xtask test` installs it"));
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    let weighted = || {
        let servers = Service::tcp(80).server(0, 8080, 1).server(1, 8080, 2).server(2, 8080, 3);
        vec![servers.scheduler("wrr")]
    };
    let even = || vec![Service::tcp(80).three(8080).scheduler("wlc")];
    let behind = || Direct::stock(Bridged).build(&[Service::tcp(80).three(80)]);
    let mut trials = vec![
        rig_trial("curl_is_spread_over_nginx_by_weight", weighted, by_weight),
        rig_trial("curl_moves_32_mib_down_and_up_unchanged", even, |rig| bulk(rig, NAT)),
        built_trial("curl_moves_32_mib_past_the_router", behind, |rig| bulk(rig, DIRECT)),
        file_trial(
            "wrk_makes_200000_connections_without_an_error",
            include_str!("../../configs/nat.toml"),
            |rig| many_connections(rig, NAT),
        ),
    ];
    trials.push(built_trial("curl_scrapes_the_status_page", watched, scrape));
    // The promise is made for the examples as they stand.
    for (name, topology, servers, text) in [
        (
            "wrk_makes_200000_connections_on_one_network",
            OneNetwork,
            Servers::Silent,
            include_str!("../../configs/direct-one-network.toml"),
        ),
        (
            "wrk_makes_200000_connections_on_two_networks",
            TwoNetworks,
            Servers::Silent,
            include_str!("../../configs/direct-two-networks.toml"),
        ),
        (
            "wrk_makes_200000_connections_bridged_to_stock_servers",
            Bridged,
            Servers::Stock,
            include_str!("../../configs/direct-bridged.toml"),
        ),
    ] {
        let rig = move || Direct { topology, servers }.configured(|_| text.to_owned());
        trials.push(built_trial(name, rig, |rig| many_connections(rig, DIRECT)));
    }
    harness::main(trials)
}

/// A router with a status page.
fn watched() -> Outcome<Rig> {
    Rig::configured(|folder| {
        let page = format!("\n[status]\nlisten = \"{ROUTER_OUTSIDE}:9180\"\n");
        config(folder, &[Service::tcp(80).three(8080)]) + &page
    })
}

/// As Prometheus would, and a load balancer in front, and an operator without the program.
fn scrape(rig: &mut Rig) -> Outcome {
    let _servers = Nginx::three(rig, NAT)?;
    for _ in 0..3 {
        at_client(rig, curl().arg(url("who")))?;
    }
    let page = |path: &str| format!("http://{ROUTER_OUTSIDE}:9180{path}");
    let metrics = at_client(rig, curl().arg("--include").arg(page("/metrics")))?;
    ensure!(metrics.contains("Content-Type: text/plain; version=0.0.4"), "{metrics}");
    let opened = "tapvs_service_flows_opened_total{";
    let opened = metrics.lines().find(|line| line.starts_with(opened));
    ensure!(opened.is_some_and(|line| line.ends_with(" 3")), "{opened:?}");
    let json = at_client(rig, curl().arg(page("/api/status")))?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(json["services"][0]["connections"] == 3, "{json}");
    ensure!(at_client(rig, curl().arg(page("/healthz")))? == "ok\n", "not well");
    let head = at_client(rig, curl().arg("--head").arg(page("/metrics")))?;
    ensure!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    for (path, method, status) in
        [("/", "GET", "200"), ("/x", "GET", "404"), ("/api/reload", "POST", "403")]
    {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", method]);
        let found = at_client(rig, curl.arg(page(path)))?;
        ensure!(found == status, "{method} {path}: {found}, not {status}");
    }
    Ok(())
}

/// Where a server listens, by its number.
type Listen = fn(usize) -> (Ipv4Addr, u16);
const NAT: Listen = |number| (server_address(number), 8080);
const DIRECT: Listen = |_| (VIP, 80);

fn version(program: &str, argument: &str) -> Outcome<String> {
    let output =
        Command::new(program).arg(argument).output().context(format_args!("no {program}"))?;
    // nginx and wrk say it on standard error, wrk with an exit code of 1.
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

/// One nginx per server namespace, killed when dropped.
struct Nginx {
    child: Child,
    www: PathBuf,
}

impl Nginx {
    fn start(
        namespace: &Namespace,
        folder: &Path,
        number: usize,
        listen: (Ipv4Addr, u16),
    ) -> Outcome<Self> {
        let folder = folder.join(format!("nginx{number}"));
        let www = folder.join("www");
        fs::create_dir_all(&www)?;
        let file = folder.join("nginx.conf");
        fs::write(&file, nginx_config(&folder, listen, number))?;
        let log = fs::File::create(folder.join("error.log"))?;
        let child = namespace.spawn(
            Command::new("nginx")
                .arg("-p")
                .arg(&folder)
                .arg("-c")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let mut nginx = Self { child, www };
        let up = eventually(Duration::from_secs(10), || {
            connect(namespace, listen, Duration::from_secs(1)).is_ok()
                || nginx.child.try_wait().is_ok_and(|status| status.is_some())
        });
        let running = matches!(nginx.child.try_wait(), Ok(None));
        ensure!(
            up && running,
            "nginx does not run: {}",
            fs::read_to_string(folder.join("error.log")).unwrap_or_default()
        );
        Ok(nginx)
    }

    /// One in each of the rig's namespaces.
    fn three(rig: &Rig, listen: Listen) -> Outcome<Vec<Self>> {
        let servers = rig.servers.iter().enumerate();
        servers
            .map(|(number, namespace)| {
                Self::start(namespace, rig.scratch.path(), number, listen(number))
            })
            .collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn nginx_config(folder: &Path, (address, port): (Ipv4Addr, u16), number: usize) -> String {
    let folder = folder.display();
    format!(
        // In a user namespace there is nobody else whom nginx could give its folders to.
        r#"user root root;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    client_max_body_size 64m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address}:{port} backlog=4096;
        root {folder}/www;
        location = /who {{
            return 200 "{number} $remote_addr\n";
        }}
        location / {{
            dav_methods PUT;
        }}
    }}
}}
"#
    )
}

/// Runs a program at the client's and returns what it printed.
fn at_client(rig: &Rig, command: &mut Command) -> Outcome<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = rig.client.spawn(command)?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{name}: {}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "60"]);
    curl
}

fn url(path: &str) -> String {
    format!("http://{VIP}/{path}")
}

fn by_weight(rig: &mut Rig) -> Outcome {
    let _servers = Nginx::three(rig, NAT)?;
    let mut visits = BTreeMap::new();
    for _ in 0..60 {
        *visits.entry(at_client(rig, curl().arg(url("who")))?).or_insert(0) += 1;
    }
    let expected = [("0", 10), ("1", 20), ("2", 30)]
        .map(|(server, count)| (format!("{server} {}\n", netns_tests::CLIENT), count))
        .into();
    ensure!(visits == expected, "60 requests with weights 1:2:3 went {visits:?}");
    Ok(())
}

fn bulk(rig: &mut Rig, listen: Listen) -> Outcome {
    let servers = Nginx::three(rig, listen)?;
    let (down, up) = (noise(32 << 20, 3), noise(32 << 20, 5));
    for nginx in &servers {
        fs::write(nginx.www.join("down"), &down)?;
    }
    let (received, sent) = (rig.scratch.path().join("received"), rig.scratch.path().join("sent"));
    fs::write(&sent, &up)?;
    at_client(rig, curl().arg("--output").arg(&received).arg(url("down")))?;
    ensure!(fs::read(&received)? == down, "32 MiB down arrived changed");
    at_client(rig, curl().arg("--upload-file").arg(&sent).arg(url("up")))?;
    let arrived: Vec<_> = servers.iter().filter(|nginx| nginx.www.join("up").exists()).collect();
    let [nginx] = arrived[..] else {
        return Err(Failure::new(format!("{} servers have the upload", arrived.len())));
    };
    ensure!(fs::read(nginx.www.join("up"))? == up, "32 MiB up arrived changed");
    Ok(())
}

/// What wrk counted.
#[derive(Debug, Default)]
struct Wrk {
    requests: u64,
    wrong: Vec<String>,
}

impl Wrk {
    fn read(text: &str) -> Self {
        let mut wrk = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some((count, _)) = line.split_once(" requests in ") {
                wrk.requests = count.parse().unwrap_or(0);
            } else if line.starts_with("Socket errors:") || line.starts_with("Non-2xx") {
                wrk.wrong.push(line.to_owned());
            }
        }
        wrk
    }
}

fn many_connections(rig: &mut Rig, listen: Listen) -> Outcome {
    let _servers = Nginx::three(rig, listen)?;
    rig.client.write_sysctl("net/ipv4/ip_local_port_range", "1024 65535")?;
    rig.client.write_sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    let mut requests = 0;
    for round in 1..=ROUNDS {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t", "2", "-c", "64", "-d", ROUND, "--timeout", "5s"]);
        wrk.args(["-H", "Connection: close"]).arg(url("who"));
        let text = at_client(rig, &mut wrk)?;
        let counted = Wrk::read(&text);
        ensure!(counted.wrong.is_empty(), "round {round}: {counted:?}");
        ensure!(counted.requests > 0, "round {round}: wrk made no request:\n{text}");
        requests += counted.requests;
        say(format_args!("wrk, round {round}: {} requests, {requests} in all", counted.requests));
        if requests >= REQUESTS {
            return Ok(());
        }
    }
    Err(Failure::new(format!("{requests} of {REQUESTS} requests in {ROUNDS} rounds of {ROUND}")))
}

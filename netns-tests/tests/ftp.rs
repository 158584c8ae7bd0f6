//! `helper = "ftp"` between programs that were not written for it: vsftpd and curl.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use netns_tests::harness::{self, rig_trial, say, trial};
use netns_tests::pair::{Pair, Terms};
use netns_tests::tcp::{connect, noise};
use netns_tests::{
    Context as _, Failure, Outcome, Rig, Service, VIP, ensure, eventually, server_address,
};
use tapvs::links::Namespace;

/// The ways a data connection comes about, by curl's options.
const MODES: [(&str, &[&str]); 4] = [
    ("EPSV", &[]),
    ("PASV", &["--disable-epsv", "--no-ftp-skip-pasv-ip"]),
    ("EPRT", &["--ftp-port", "-"]),
    ("PORT", &["--ftp-port", "-", "--disable-eprt"]),
];

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--list") {
        for program in ["vsftpd", "curl"] {
            if find(program).is_none() {
                say(format_args!("no {program}; `cargo xtask test` installs it"));
                return ExitCode::FAILURE;
            }
        }
    }
    harness::main(vec![
        rig_trial("every_way_leads_to_the_server_of_the_control_connection", helped, every_way),
        rig_trial("large_files_go_up_and_down_unchanged", helped, large),
        rig_trial("many_sessions_at_once", helped, many),
        trial("a_session_outlives_its_router", outlives),
        rig_trial(
            "without_the_helper_data_finds_no_way",
            || vec![Service::tcp(21).three(21)],
            unhelped,
        ),
    ])
}

fn helped() -> Vec<Service> {
    vec![Service::tcp(21).three(21).scheduler("rr").with("helper = \"ftp\"")]
}

/// `PATH` is a user's; daemons are elsewhere.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// One vsftpd per server namespace, killed when dropped.
struct Vsftpd {
    child: Child,
    public: PathBuf,
}

impl Vsftpd {
    fn start(namespace: &Namespace, folder: &Path, number: usize) -> Outcome<Self> {
        let folder = folder.join(format!("vsftpd{number}"));
        let (public, empty) = (folder.join("public"), folder.join("empty"));
        fs::create_dir_all(&public)?;
        fs::create_dir_all(&empty)?;
        fs::write(public.join("who"), format!("{number}\n"))?;
        let file = folder.join("vsftpd.conf");
        let address = server_address(number);
        // In a user namespace there is nobody but root whom it could become.
        let text = format!(
            "listen=YES\nlisten_address={address}\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\n\
             no_anon_password=YES\nanon_root={}\nftp_username=root\nnopriv_user=root\n\
             run_as_launching_user=YES\nsecure_chroot_dir={}\nallow_writeable_chroot=YES\nwrite_enable=YES\n\
             anon_upload_enable=YES\nanon_umask=022\nseccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\n\
             connect_from_port_20=YES\n",
            public.display(),
            empty.display()
        );
        fs::write(&file, text)?;
        let program = find("vsftpd").ok_or_else(|| Failure::new("no vsftpd"))?;
        let log = fs::File::create(folder.join("log"))?;
        let child = namespace.spawn(
            Command::new(program)
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let mut vsftpd = Self { child, public };
        let up = eventually(Duration::from_secs(10), || {
            connect(namespace, (address, 21), Duration::from_secs(1)).is_ok()
                || vsftpd.child.try_wait().is_ok_and(|status| status.is_some())
        });
        let running = matches!(vsftpd.child.try_wait(), Ok(None));
        let said = fs::read_to_string(folder.join("log")).unwrap_or_default();
        ensure!(up && running, "vsftpd does not run: {said}");
        Ok(vsftpd)
    }

    fn three(rig: &Rig) -> Outcome<Vec<Self>> {
        let servers = rig.servers.iter().enumerate();
        servers
            .map(|(number, namespace)| Self::start(namespace, rig.scratch.path(), number))
            .collect()
    }
}

impl Drop for Vsftpd {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn curl(options: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]).args(options);
    curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    curl
}

fn url(path: &str) -> String {
    format!("ftp://{VIP}/{path}")
}

fn finish(child: Child, what: &str) -> Outcome<String> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}: {said}{wrong}", output.status);
    Ok(said)
}

fn every_way(rig: &mut Rig) -> Outcome {
    let _servers = Vsftpd::three(rig)?;
    for (mode, options) in MODES {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut curl = curl(options);
            // Two transfers in one session: each has a data connection of its own.
            curl.arg(url("who")).arg(url("who"));
            let text = finish(rig.client.spawn(&mut curl)?, mode)?;
            let lines: Vec<_> = text.lines().collect();
            ensure!(lines.len() == 2 && lines[0] == lines[1], "{mode}: {text:?}");
            seen.push(lines[0].to_owned());
        }
        seen.sort();
        ensure!(seen == ["0", "1", "2"], "{mode}: rr gave {seen:?}");
    }
    Ok(())
}

fn large(rig: &mut Rig) -> Outcome {
    let servers = Vsftpd::three(rig)?;
    let (down, up) = (noise(16 << 20, 3), noise(16 << 20, 5));
    let (received, sent) = (rig.scratch.path().join("received"), rig.scratch.path().join("sent"));
    fs::write(&sent, &up)?;
    for server in &servers {
        fs::write(server.public.join("down"), &down)?;
    }
    for (mode, options) in MODES {
        let mut get = curl(options);
        get.arg("--output").arg(&received).arg(url("down"));
        finish(rig.client.spawn(&mut get)?, mode)?;
        ensure!(fs::read(&received)? == down, "{mode}: 16 MiB down arrived changed");
        let mut put = curl(options);
        put.arg("--upload-file").arg(&sent).arg(url(&format!("up-{mode}")));
        finish(rig.client.spawn(&mut put)?, mode)?;
        let name = format!("up-{mode}");
        let arrived = servers.iter().map(|server| server.public.join(&name));
        let arrived: Vec<_> = arrived.filter(|path| path.exists()).collect();
        let [path] = arrived.as_slice() else {
            return Err(Failure::new(format!("{mode}: {} servers have the upload", arrived.len())));
        };
        ensure!(fs::read(path)? == up, "{mode}: 16 MiB up arrived changed");
    }
    Ok(())
}

fn many(rig: &mut Rig) -> Outcome {
    let _servers = Vsftpd::three(rig)?;
    const AT_ONCE: usize = 24;
    let mut running = Vec::new();
    for number in 0..AT_ONCE {
        let (mode, options) = MODES[number % MODES.len()];
        let mut curl = curl(options);
        for _ in 0..5 {
            curl.arg(url("who"));
        }
        running.push((mode, rig.client.spawn(&mut curl)?));
    }
    for (mode, child) in running {
        let text = finish(child, mode)?;
        let lines: Vec<_> = text.lines().collect();
        ensure!(lines.len() == 5 && lines.iter().all(|line| *line == lines[0]), "{mode}: {text:?}");
    }
    Ok(())
}

/// What the helper is for: the same without it fails.
fn unhelped(rig: &mut Rig) -> Outcome {
    let _servers = Vsftpd::three(rig)?;
    for (mode, options) in MODES {
        let mut curl = curl(options);
        let output = rig.client.spawn(curl.args(["--max-time", "4"]).arg(url("who")))?;
        ensure!(finish(output, mode).is_err(), "{mode} works without the helper");
    }
    Ok(())
}

/// Twice what the routers may take to tell each other of a change.
const TOLD: Duration = Duration::from_millis(100);

/// A control connection with somebody who types.
struct Session<'n> {
    client: &'n Namespace,
    lines: BufReader<TcpStream>,
}

impl<'n> Session<'n> {
    fn open(client: &'n Namespace) -> Outcome<Self> {
        let stream = connect(client, (VIP, 21), Duration::from_secs(5))?;
        let mut session = Self { client, lines: BufReader::new(stream) };
        session.answer("220")?;
        // No password is asked for.
        session.say("USER anonymous", "230")?;
        session.say("TYPE I", "200")?;
        Ok(session)
    }

    /// One line that begins with `code`.
    fn answer(&mut self, code: &str) -> Outcome<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        ensure!(line.starts_with(code), "{line:?} where {code} was expected");
        Ok(line)
    }

    fn say(&mut self, command: &str, code: &str) -> Outcome<String> {
        self.lines.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        self.answer(code)
    }

    /// Where the server awaits a connection, which must be the virtual IP.
    fn passive(&mut self) -> Outcome<(Ipv4Addr, u16)> {
        let line = self.say("PASV", "227")?;
        let numbers: Vec<u8> =
            line[4..].split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        let [a, b, c, d, high, low] = numbers[..] else {
            return Err(Failure::new(format!("{line:?} has not six numbers")));
        };
        let place = (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]));
        ensure!(place.0 == VIP, "{line:?} does not name the virtual IP");
        Ok(place)
    }

    fn retrieve(&mut self, place: (Ipv4Addr, u16), name: &str) -> Outcome<TcpStream> {
        let data = connect(self.client, place, Duration::from_secs(5))?;
        self.say(&format!("RETR {name}"), "150")?;
        Ok(data)
    }

    fn finish(&mut self, mut data: TcpStream) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        data.read_to_end(&mut bytes)?;
        self.answer("226")?;
        Ok(bytes)
    }

    fn fetch(&mut self, name: &str) -> Outcome<Vec<u8>> {
        let place = self.passive()?;
        let data = self.retrieve(place, name)?;
        self.finish(data)
    }
}

/// The active router dies in the middle of three sessions: one between two commands, one that has been told
/// where to connect, one whose data is flowing. All of them go on, with the same server, and once more when
/// the first router has come back.
fn outlives() -> Outcome {
    let terms = Terms { more_services: helped, ..Terms::USUAL };
    let mut pair = Pair::new(terms)?;
    let told = pair.client.clone();
    outlive(&mut pair, terms, &told)
        .map_err(|failure| Failure::new(format!("{failure}\n{}", pair.logs())))
}

fn outlive(pair: &mut Pair, terms: Terms, client: &Namespace) -> Outcome {
    let down = noise(8 << 20, 9);
    let mut servers = Vec::new();
    for (number, namespace) in pair.servers.iter().enumerate() {
        let server = Vsftpd::start(namespace, pair.scratch.path(), number)?;
        fs::write(server.public.join("down"), &down)?;
        servers.push(server);
    }
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let mut session = Session::open(client)?;
        let who = session.fetch("who")?;
        // Each of these makes the server's text longer.
        for _ in 0..10 {
            ensure!(session.fetch("who")? == who, "another server");
        }
        sessions.push((session, who));
    }
    for round in 0..2 {
        let [(idle, idles), (told, tolds), (busy, _)] = &mut sessions[..] else {
            return Err(Failure::new("three sessions"));
        };
        let awaited = told.passive()?;
        let place = busy.passive()?;
        let mut data = busy.retrieve(place, "down")?;
        let mut begun = vec![0; 1 << 20];
        data.read_exact(&mut begun)?;
        thread::sleep(TOLD);
        let before = pair.router(1)?.log().len();
        pair.kill(0);
        pair.wait_until_active(1, before).context(format_args!("round {round}"))?;
        let data_of_told = told.retrieve(awaited, "who")?;
        ensure!(told.finish(data_of_told)? == *tolds, "what was announced led elsewhere");
        idle.say("NOOP", "200")?;
        ensure!(idle.fetch("who")? == *idles, "another server after the takeover");
        let rest = busy.finish(data)?;
        ensure!([begun, rest].concat() == down, "8 MiB arrived changed");
        for (session, who) in &mut sessions {
            for _ in 0..3 {
                ensure!(session.fetch("who")? == *who, "another server");
            }
        }
        // It takes over again by itself, once it has been told of everything.
        pair.start(0, terms)?;
        pair.wait_until_active(0, 0)?;
        for (session, who) in &mut sessions {
            ensure!(session.fetch("who")? == *who, "another server after it came back");
        }
    }
    say("3 sessions lived on through two kills and two returns");
    Ok(())
}

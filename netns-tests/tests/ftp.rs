//! `helper = "ftp"` between programs that were not written for it: vsftpd and curl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use netns_tests::harness::{self, rig_trial, say};
use netns_tests::tcp::{connect, noise};
use netns_tests::{Failure, Outcome, Rig, Service, VIP, ensure, eventually, server_address};
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
    let helped = || vec![Service::tcp(21).three(21).scheduler("rr").with("helper = \"ftp\"")];
    harness::main(vec![
        rig_trial("every_way_leads_to_the_server_of_the_control_connection", helped, every_way),
        rig_trial("large_files_go_up_and_down_unchanged", helped, large),
        rig_trial("many_sessions_at_once", helped, many),
        rig_trial(
            "without_the_helper_data_finds_no_way",
            || vec![Service::tcp(21).three(21)],
            unhelped,
        ),
    ])
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

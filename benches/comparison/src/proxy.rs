//! The others: nftables rules, HAProxy, nginx, and what is missing of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netns_tests::tcp::connect;
use netns_tests::{Context as _, Failure, Outcome, ensure, eventually};
use tapvs::links::Namespace;

use crate::contestant::Kind;
use crate::stage::{FAR_SERVER, VIP, port};

/// Where daemons are installed; not on every user's `PATH`.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Where distributions keep nginx's stream module, unless it is built in.
const STREAM_MODULES: [&str; 3] = [
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
    "/usr/share/nginx/modules/ngx_stream_module.so",
];
const PATIENCE: Duration = Duration::from_secs(10);
const LOG: &str = "proxy.log";

/// What is missing to run it, with the command that installs it on Debian.
pub(crate) fn missing(kind: Kind) -> Option<(String, String)> {
    let (program, packages) = match kind {
        Kind::Raw(..) | Kind::Tapvs(..) => return None,
        Kind::Kernel => ("nft", "nftables"),
        Kind::Haproxy => ("haproxy", "haproxy"),
        Kind::Nginx => ("nginx", "nginx-core libnginx-mod-stream"),
    };
    let install = format!("apt-get install --yes --no-install-recommends {packages}");
    if find(program).is_none() {
        return Some((format!("`{program}` is not installed"), install));
    }
    if kind == Kind::Nginx && stream_module().is_none() && !has_built_in_stream() {
        return Some(("nginx has no stream module".into(), install));
    }
    None
}

/// The first line that a program says about its version.
pub(crate) fn version(kind: Kind) -> Option<String> {
    let (program, argument) = match kind {
        Kind::Raw(..) | Kind::Tapvs(..) => return None,
        Kind::Kernel => ("nft", "--version"),
        Kind::Haproxy => ("haproxy", "-v"),
        Kind::Nginx => ("nginx", "-v"),
    };
    let output = Command::new(find(program)?).arg(argument).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&said).lines().next()?.trim().to_owned();
    Some(line.split(" - ").next().unwrap_or_default().to_owned())
}

/// Translates what goes to the virtual IP, with connection tracking, as one would.
pub(crate) fn load_nft(middle: &Namespace, folder: &Path) -> Outcome {
    let file = folder.join("rules.nft");
    fs::write(&file, nft_rules())?;
    let mut command = Command::new(program("nft"));
    command.arg("-f").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = middle.spawn(&mut command).context("nft")?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft refused the rules: {said}");
    // Ended connections make room for new ones before the table is full: its size is the host's.
    middle
        .write_sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5")
        .context("connection tracking")
}

fn nft_rules() -> String {
    let list = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let (udp, tcp) = (list(&port::UDP), list(&port::TCP));
    format!(
        "table ip bench {{\n\
         \tchain prerouting {{\n\
         \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
         \t\tip daddr {VIP} udp dport {{ {udp} }} dnat to {FAR_SERVER}\n\
         \t\tip daddr {VIP} tcp dport {{ {tcp} }} dnat to {FAR_SERVER}\n\
         \t}}\n\
         }}\n"
    )
}

/// HAProxy in TCP mode, in one process that stays in the foreground.
pub(crate) fn haproxy(middle: &Namespace, folder: &Path) -> Outcome<Child> {
    let file = folder.join("haproxy.cfg");
    fs::write(&file, haproxy_config())?;
    let mut command = Command::new(program("haproxy"));
    command.args(["-db", "-f"]).arg(&file);
    middle.spawn(logging(&mut command, folder)?).context("haproxy")
}

fn haproxy_config() -> String {
    let mut text = String::from(
        "global\n    maxconn 1000\n\ndefaults\n    mode tcp\n    timeout connect 5s\n    \
         timeout client 60s\n    timeout server 60s\n",
    );
    for port in port::TCP {
        text += &format!(
            "\nlisten port{port}\n    bind {VIP}:{port}\n    server s1 {FAR_SERVER}:{port}\n"
        );
    }
    text
}

/// nginx's stream proxy, in one process.
pub(crate) fn nginx(middle: &Namespace, folder: &Path) -> Outcome<Child> {
    let file = folder.join("nginx.conf");
    fs::write(&file, nginx_config(folder, stream_module()))?;
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&file);
    middle.spawn(logging(&mut command, folder)?).context("nginx")
}

fn nginx_config(folder: &Path, module: Option<&str>) -> String {
    let folder = folder.display();
    let load = module.map_or_else(String::new, |module| format!("load_module {module};\n"));
    let mut text = format!(
        "{load}daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n\
         error_log {folder}/error.log;\n\n\
         events {{ worker_connections 4000; }}\nstream {{\n"
    );
    for port in port::TCP {
        text += &format!("    server {{ listen {VIP}:{port}; proxy_pass {FAR_SERVER}:{port}; }}\n");
    }
    text + "}\n"
}

/// Until a connection to each service is taken, whatever becomes of it. The folder is the proxy's.
pub(crate) fn wait_until_it_listens(client: &Namespace, folder: &Path) -> Outcome {
    for port in port::TCP {
        let listens = || {
            let limit = Duration::from_millis(500);
            connect(client, (VIP, port), limit).is_ok()
        };
        if !eventually(PATIENCE, listens) {
            let said = fs::read_to_string(folder.join(LOG)).unwrap_or_default();
            return Err(Failure::new(format!(
                "it does not listen on {VIP}:{port}; it said:\n{said}"
            )));
        }
    }
    Ok(())
}

/// What it says is kept for whoever wants to know why it does not run.
fn logging<'c>(command: &'c mut Command, folder: &Path) -> Outcome<&'c mut Command> {
    let log = fs::File::create(folder.join(LOG))?;
    Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))
}

fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| name.into())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn stream_module() -> Option<&'static str> {
    STREAM_MODULES.into_iter().find(|module| Path::new(module).is_file())
}

fn has_built_in_stream() -> bool {
    let output = Command::new(program("nginx")).arg("-V").output();
    output.is_ok_and(|output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.split_whitespace().any(|word| word == "--with-stream")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_in_every_file() {
        let (nft, haproxy) = (nft_rules(), haproxy_config());
        let nginx = nginx_config(Path::new("/tmp/x"), None);
        for port in port::TCP {
            let port = port.to_string();
            assert!(nft.contains(&port) && haproxy.contains(&port) && nginx.contains(&port));
        }
        assert!(port::UDP.iter().all(|port| nft.contains(&port.to_string())));
        assert!(!nginx.contains("load_module"));
        assert!(nginx_config(Path::new("/x"), Some("/m.so")).starts_with("load_module /m.so;\n"));
    }
}

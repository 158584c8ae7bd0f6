//! The command line as a user meets it: what is printed where, and the exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GOOD: &str = r#"
[router]
name = "lvs1"

[[network]]
name = "internet"
links = ["tapvs0"]
addresses = ["203.0.113.2/24"]
gateway = "203.0.113.1"

[[network]]
name = "servers"
links = ["tapvs1"]
addresses = ["10.0.0.2/24"]

[[virtual_ip]]
address = "203.0.113.10"
network = "internet"

[[service]]
name = "web"
protocol = "tcp"
address = "203.0.113.10"
port = 80
method = "nat"
scheduler = "wlc"

[[service.server]]
name = "web1"
address = "10.0.0.11"
port = 8080
weight = 3

[[service.server]]
address = "10.0.0.12"
port = 8080
"#;

#[test]
fn check_prints_what_a_valid_file_means() {
    let file = file("good.toml", GOOD);
    let output = tapvs(&["check", path(&file)]);
    let expected = format!(
        "{}: valid\n{}",
        path(&file),
        "\
router lvs1: a quarter of memory for flows, at most 1000000; forward servers-out, unserved reset

NETWORK   LINKS   ADDRESSES       GATEWAY      MTU
internet  tapvs0  203.0.113.2/24  203.0.113.1  1500
servers   tapvs1  10.0.0.2/24     -            1500

VIRTUAL IP    NETWORK
203.0.113.10  internet

SERVICE           ADDRESS              METHOD  SCHEDULER  WEIGHT
web               tcp 203.0.113.10:80  nat     wlc
  web1            10.0.0.11:8080                          3
  10.0.0.12:8080  10.0.0.12:8080                          1
"
    );
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn check_says_where_the_status_page_is() {
    for (token, changes) in [
        ("", "no changes"),
        ("token_file = \"/etc/tapvs/token\"\n", "changes with the token in /etc/tapvs/token"),
    ] {
        let good = format!("{GOOD}\n[status]\nlisten = \"10.0.0.2:9180\"\n{token}");
        let output = tapvs(&["check", path(&file("page.toml", &good))]);
        let line = format!("status page 10.0.0.2:9180: {changes}");
        let checked = text(&output.stdout);
        assert_eq!(checked.lines().nth(2), Some(line.as_str()), "{checked}");
    }
}

#[test]
fn check_sums_up_the_health_checks() {
    let health = "scheduler = \"wlc\"\nhealth = { kind = \"http\", interval = \"500ms\" }";
    let good = GOOD.replace("scheduler = \"wlc\"", health);
    let output = tapvs(&["check", path(&file("health.toml", &good))]);
    let checked = text(&output.stdout);
    let expected = "
HEALTH OF  SERVERS  CHECK
web        2        http / of 203.0.113.10, status 200-399, every 500ms, timeout 500ms, fall 3, rise 2, initial up
2 checks, 4.0 a second
";
    assert!(checked.ends_with(expected), "{checked}");
    let many: String = (20..120)
        .map(|n| format!("\n[[service.server]]\naddress = \"10.0.0.{n}\"\nport = 8080\n"))
        .collect();
    let output = tapvs(&["check", path(&file("many.toml", &(good + &many)))]);
    let checked = text(&output.stdout);
    let expected = "
102 checks, 204.0 a second
if none of these servers answered, 102 checks would have to wait at once; at most 64 do, and the others would be late
";
    assert!(checked.ends_with(expected), "{checked}");
}

#[test]
fn every_mistake_is_listed_with_its_place() {
    let wrong = GOOD.replace("port = 80\n", "prot = 80\n").replace("10.0.0.11", "10.0.0.300");
    let file = file("wrong.toml", &wrong);
    for command in ["check", "run"] {
        let output = tapvs(&[command, path(&file)]);
        let stderr = text(&output.stderr);
        let line_of = |part: &str| wrong.lines().position(|line| line.contains(part)).unwrap() + 1;
        for part in ["prot = 80", "10.0.0.300"] {
            let place = format!("{}:{}:", path(&file), line_of(part));
            assert!(stderr.lines().any(|line| line.starts_with(&place)), "{place}\n{stderr}");
        }
        assert_eq!(text(&output.stdout), "");
        assert_eq!(output.status.code(), Some(64), "{command}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for command in ["check", "run"] {
        let output = tapvs(&[command, "no/such/file.toml"]);
        let stderr = text(&output.stderr);
        assert!(
            stderr.starts_with("no/such/file.toml: cannot read the configuration:"),
            "{stderr}"
        );
        assert_eq!(output.status.code(), Some(64), "{command}");
    }
    let binary = file("binary.toml", "");
    std::fs::write(&binary, b"[router]\nname = \"\xff\"\n").unwrap();
    let output = tapvs(&["check", path(&binary)]);
    assert!(text(&output.stderr).contains("not UTF-8 at byte 17"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn bad_usage_is_64_and_help_is_not() {
    for arguments in
        [&["frobnicate"][..], &[], &["run"], &["check", "a", "b"], &["-q", "-v", "check", "a"]]
    {
        let output = tapvs(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(text(&output.stderr).contains("Usage: tapvs"), "{arguments:?}");
    }
    for arguments in [&["--help"][..], &["run", "--help"]] {
        let output = tapvs(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("Usage: tapvs"), "{arguments:?}");
    }
}

#[test]
fn without_a_router_there_is_nobody_to_ask() {
    let socket = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nobody.sock");
    for arguments in [
        &["status"][..],
        &["services", "--json"],
        &["flows", "--client", "10.0.0.0/8"],
        &["neighbours"],
        &["drops"],
        &["reload"],
        &["drain", "web", "web1"],
        &["undrain", "web", "web1"],
        &["weight", "web", "web1", "3"],
    ] {
        let output = tapvs(&[arguments, &["--socket", path(&socket)]].concat());
        assert_eq!(output.status.code(), Some(69), "{arguments:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(&format!("{}: no router to ask", path(&socket))), "{stderr}");
        assert_eq!(text(&output.stdout), "");
    }
    for wrong in
        [&["weight", "web", "web1", "65536"][..], &["drain", "web"], &["flows", "--state", "open"]]
    {
        assert_eq!(tapvs(wrong).status.code(), Some(64), "{wrong:?}");
    }
}

#[test]
fn completions_and_man_pages_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tapvs(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = text(&output.stdout);
        assert!(["undrain", "neighbours"].iter().all(|word| script.contains(word)), "{shell}");
    }
    let page = tapvs(&["man"]);
    assert!(text(&page.stdout).starts_with(".ie \\n(.g .ds Aq"), "{}", text(&page.stdout));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    std::fs::create_dir_all(&directory).unwrap();
    assert_eq!(tapvs(&["man", path(&directory)]).status.code(), Some(0));
    let drain = std::fs::read_to_string(directory.join("tapvs-drain.1")).unwrap();
    assert!(drain.contains("Give a server no new flows"), "{drain}");
}

#[test]
fn the_version_is_the_packages() {
    let output = tapvs(&["--version"]);
    assert_eq!(text(&output.stdout), format!("tapvs {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(output.status.code(), Some(0));
}

fn tapvs(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapvs"));
    command.args(arguments).env_remove("RUST_LOG").output().unwrap()
}

/// A file of this test run, in cargo's directory for them.
fn file(name: &str, content: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn top_wants_a_terminal() {
    let output = tapvs(&["top"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("top needs a terminal; ") && output.stdout.is_empty(), "{said}");
}

#[test]
fn a_wrong_filter_needs_no_router_to_be_refused() {
    for command in [&["trace", "colour=red"][..], &["capture", "-", "colour=red"]] {
        let output = tapvs(command);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("filter: unknown key `colour`; keys are client, "), "{said}");
    }
}

const SAVED: &str = "\
-A -t 203.0.113.10:80 -s wrr
-a -t 203.0.113.10:80 -r 10.0.0.11:8080 -m -w 3
-a -t 203.0.113.10:80 -r 10.0.0.12:8080 -m -w 1
";

#[test]
fn import_writes_a_file_that_check_accepts() {
    let source = file("saved.ipvsadm", SAVED);
    let target = file("imported.toml", "");
    std::fs::remove_file(&target).unwrap();
    let output = tapvs(&["import", path(&source), "--output", path(&target)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
    let checked = tapvs(&["check", path(&target)]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(text(&checked.stdout).contains("tcp 203.0.113.10:80"));
    // Once more: what is there stays.
    let before = std::fs::read(&target).unwrap();
    let again = tapvs(&["import", path(&source), "--output", path(&target)]);
    assert_eq!(again.status.code(), Some(64));
    assert!(text(&again.stderr).ends_with("is there already; name a new file\n"), "{again:?}");
    assert_eq!(std::fs::read(&target).unwrap(), before);
    // Without a file to write, the same on standard output.
    let shown = tapvs(&["import", path(&source)]);
    assert_eq!(shown.stdout, before);
}

#[test]
fn import_says_by_line_what_is_lost() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("included");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, port) in [("b.conf", 81), ("a.conf", 80), (".hidden.conf", 82), ("c.conf.old", 83)] {
        let server = format!("real_server 10.0.0.1 {port} {{\n  weight x\n }}\n");
        let text = format!("virtual_server 203.0.113.10 {port} {{\n {server}}}\n");
        std::fs::write(folder.join(name), text).unwrap();
    }
    let source = file("main.keepalived", "include included/*.conf\n@here surprise 1\n");
    let output = tapvs(&["import", path(&source), "--config-id", "here"]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let place = path(&folder);
    let expected = format!(
        "{}:2: not carried over: `surprise 1`\n{place}/a.conf:3: not carried over: `weight x`\n\
         {place}/b.conf:3: not carried over: `weight x`\n",
        path(&source)
    );
    assert_eq!(text(&output.stderr), expected);
    let toml = text(&output.stdout);
    assert!(toml.contains("# line 2: not carried over: `surprise 1`"), "{toml}");
    assert_eq!(toml.matches("\n[[service]]").count(), 2, "{toml}");
}

#[test]
fn import_reads_standard_input() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapvs"));
    let command = command.args(["import", "-", "--kind", "ipvsadm", "--kernel-order"]);
    let pipe = std::process::Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), SAVED.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let toml = text(&output.stdout);
    assert!(toml.starts_with("# Made by `tapvs import` from standard input, read as ipvsadm.\n"));
    assert!(toml.find("10.0.0.12").unwrap() < toml.find("10.0.0.11").unwrap(), "{toml}");
}

#[test]
fn import_refuses_what_it_cannot_tell() {
    let source = file("prose.txt", "dear reader\n");
    let output = tapvs(&["import", path(&source)]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("say which with --kind"), "{output:?}");
    assert_eq!(tapvs(&["import", "/no/such/file"]).status.code(), Some(64));
    assert_eq!(tapvs(&["import", path(&source), "--kind", "haproxy"]).status.code(), Some(64));
    // Told what it is, every line of it is said to be lost.
    let output = tapvs(&["import", path(&source), "--kind", "keepalived"]);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(text(&output.stderr).ends_with("prose.txt:1: not carried over: `dear reader`\n"));
}

#[test]
fn ipvsadms_options_need_its_format() {
    for wrong in [
        &["services", "--stats"][..],
        &["services", "--rate"],
        &["services", "--ipvsadm", "--json"],
        &["services", "--ipvsadm", "--stats", "--rate"],
    ] {
        assert_eq!(tapvs(wrong).status.code(), Some(64), "{wrong:?}");
    }
}

//! `configs/tapvs.service` fits the program: its commands exist, and systemd understands the rest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "/usr/bin/tapvs";

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tapvs.service");
    fs::read_to_string(path).unwrap()
}

/// The values of `key`, in order.
fn values<'u>(unit: &'u str, key: &str) -> Vec<&'u str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(name, _)| *name == key).map(|(_, value)| value).collect()
}

#[test]
fn every_command_of_the_unit_is_one_of_the_program() {
    let unit = unit();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // As the unit has them, with a file that is there.
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/nat.toml");
    let commands: Vec<_> = ["ExecStartPre", "ExecStart", "ExecReload"]
        .into_iter()
        .flat_map(|key| values(&unit, key))
        .filter_map(|command| command.strip_prefix(PROGRAM))
        .collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        let words: Vec<_> = command.split_whitespace().collect();
        let [verb @ ("run" | "check"), "/etc/tapvs/tapvs.toml"] = words[..] else {
            panic!("{command:?}")
        };
        // `run` would want privileges: whether it understands its arguments is in its help.
        let file = if verb == "check" { good.as_os_str() } else { "--help".as_ref() };
        let mut program = Command::new(env!("CARGO_BIN_EXE_tapvs"));
        let status = program.arg(verb).arg(file).current_dir(folder).output().unwrap().status;
        assert!(status.success(), "{command}: {status}");
    }
    assert!(values(&unit, "ExecReload").contains(&"/bin/kill -HUP $MAINPID"));
}

/// What the program needs, and its exit codes (docs/operations.md).
#[test]
fn the_unit_gives_what_is_needed_and_no_more() {
    let unit = unit();
    for (key, value) in [
        ("Type", "notify"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "64 77"),
        // The default of `control_socket` is /run/tapvs/NAME.sock.
        ("RuntimeDirectory", "tapvs"),
        ("AmbientCapabilities", "CAP_NET_ADMIN"),
        ("CapabilityBoundingSet", "CAP_NET_ADMIN"),
        ("DeviceAllow", "/dev/net/tun rw"),
        ("NoNewPrivileges", "yes"),
    ] {
        assert_eq!(values(&unit, key), [value], "{key}");
    }
    assert!(values(&unit, "ProtectKernelTunables").is_empty(), "it writes to /proc/sys");
    let families: Vec<_> = values(&unit, "RestrictAddressFamilies")[0].split(' ').collect();
    assert!(families.contains(&"AF_UNIX") && families.contains(&"AF_NETLINK"), "{families:?}");
}

/// systemd's own word, where it is installed; it need not run.
#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unit");
    fs::create_dir_all(&folder).unwrap();
    let verify = |name: &str, text: String| -> Option<String> {
        let path: PathBuf = folder.join(name);
        fs::write(&path, text.replace(PROGRAM, env!("CARGO_BIN_EXE_tapvs"))).unwrap();
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output();
        // Other units of this machine are none of our business.
        let said = String::from_utf8_lossy(&output.ok()?.stderr).into_owned();
        Some(said.lines().filter(|line| line.contains(name)).collect::<Vec<_>>().join("\n"))
    };
    let Some(said) = verify("tapvs.service", unit()) else {
        eprintln!("there is no systemd-analyze here: the unit was only read by this test");
        return;
    };
    assert_eq!(said, "");
    // And it would have said so.
    let said = verify("wrong.service", unit().replace("DynamicUser=", "DynamikUser=")).unwrap();
    assert!(said.contains("DynamikUser"), "{said}");
}

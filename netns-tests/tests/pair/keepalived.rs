//! The other router is keepalived: who is active is agreed on by either version, whoever dies.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use netns_tests::cable::{plug, within};
use netns_tests::harness::trial;
use netns_tests::pair::{INSIDE, OUTSIDE, Pair, Terms};
use netns_tests::{Context as _, Failure, GATEWAY, Outcome, VIP, ensure, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tapvs::links::{LinkError, Netlink};

/// Debian's place for it, which is on no ordinary user's `PATH`.
pub(crate) const PROGRAM: &str = "/usr/sbin/keepalived";

/// For keepalived to start, or to notice by version 2, whose adverts are a second apart.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("keepalived_v3_is_backup_and_takes_over", || backup(3)),
        trial("keepalived_v2_is_backup_and_takes_over", || backup(2)),
        trial("keepalived_v3_is_active_and_is_replaced", || active(3)),
        trial("keepalived_v2_is_active_and_is_replaced", || active(2)),
        trial("keepalived_at_ten_milliseconds", sub_second),
    ]
}

/// Both sides' interval.
const fn interval(version: u8) -> (&'static str, &'static str) {
    if version == 2 { ("1s", "1") } else { ("100ms", "0.1") }
}

fn terms(version: u8, interval: &str, priority: u8) -> Terms {
    // Trials live as long as the process.
    let lines = format!("version = {version}\nadvert_interval = \"{interval}\"");
    Terms { failover: lines.leak(), priorities: [priority, 1], sync: false, ..Terms::USUAL }
}

/// A running keepalived, in the second router's place. Ended with all its children when dropped.
struct Keepalived {
    child: Child,
    log: PathBuf,
    pids: [PathBuf; 2],
}

impl Keepalived {
    fn start(pair: &Pair, version: u8, interval: &str, priority: u8) -> Outcome<Self> {
        let home = &pair.homes[1];
        let folder = pair.scratch.path();
        let has_nics =
            home.run(|| Netlink::new().is_ok_and(|netlink| netlink.link("eth0").is_ok()));
        if !has_nics {
            let place = |last| within(last, 24);
            let outside = (home, "eth0", place([203, 0, 113, 3].into()));
            plug((&pair.middle, OUTSIDE, "kout"), outside)?;
            plug((&pair.middle, INSIDE, "kin"), (home, "eth1", place([10, 0, 0, 3].into())))?;
        }
        let instance = |name: &str, nic: &str, id: u8, address: String| {
            format!(
                "vrrp_instance {name} {{\n state BACKUP\n interface {nic}\n virtual_router_id {id}\n \
                 priority {priority}\n advert_int {interval}\n virtual_ipaddress {{ {address}/24 }}\n}}\n"
            )
        };
        let text = format!(
            "global_defs {{\n router_id tapvs\n vrrp_version {version}\n}}\n\
             vrrp_sync_group both {{ group {{ outside inside }} }}\n{}{}",
            instance("outside", "eth0", 51, VIP.to_string()),
            instance("inside", "eth1", 52, GATEWAY.to_string())
        );
        let (file, log) = (folder.join("keepalived.conf"), folder.join("keepalived.log"));
        fs::write(&file, text)?;
        let out = fs::File::create(&log)?;
        let mut command = Command::new(PROGRAM);
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]);
        let pids = ["keepalived.pid", "vrrp.pid"].map(|name| folder.join(name));
        command.arg(file).arg("--pid").arg(&pids[0]).arg("--vrrp_pid").arg(&pids[1]);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = home.spawn(&mut command).context("cannot start keepalived")?;
        Ok(Self { child, log, pids })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said this so often.
    fn wait_for(&self, words: &str, times: usize) -> Outcome {
        let said = || self.said().matches(words).count() >= times;
        ensure!(
            eventually(PATIENCE, said),
            "keepalived did not say `{words}` {times} times:\n{}",
            self.said()
        );
        Ok(())
    }

    /// Kills it with all that it started, before either can say goodbye or start the other anew.
    fn kill(&mut self) -> Outcome {
        self.signal(Signal::STOP)?;
        for pid in children_of(self.child.id()) {
            kill_process(pid, Signal::KILL)?;
        }
        self.child.kill()?;
        self.child.wait()?;
        for file in &self.pids {
            drop(fs::remove_file(file));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Outcome {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal keepalived")
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        // In order, so that its own child goes too.
        drop(self.signal(Signal::TERM));
        let ended =
            eventually(Duration::from_secs(5), || !matches!(self.child.try_wait(), Ok(None)));
        if !ended {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

/// Runs `run`; a failure comes with every log.
fn beside(
    version: u8,
    (ours, theirs): (u8, u8),
    (interval, advert_int): (&str, &str),
    run: impl FnOnce(&mut Pair, &mut Keepalived, Terms) -> Outcome,
) -> Outcome {
    let mut pair = Pair::without_routers()?;
    let terms = terms(version, interval, ours);
    let mut keepalived = Keepalived::start(&pair, version, advert_int, theirs)?;
    run(&mut pair, &mut keepalived, terms).map_err(|failure| {
        let (logs, said) = (pair.logs(), keepalived.said());
        Failure::new(format!("{failure}\n{logs}--- keepalived ---\n{said}"))
    })
}

const MASTER: &str = "(outside) Entering MASTER STATE";
const BACKUP: &str = "(outside) Entering BACKUP STATE";

fn role_is(pair: &Pair, role: &str) -> bool {
    pair.role(0).is_ok_and(|found| found == role)
}

/// keepalived has the lower priority.
fn backup(version: u8) -> Outcome {
    beside(version, (200, 100), interval(version), |pair, keepalived, terms| {
        // Alone, it is master.
        keepalived.wait_for(MASTER, 1)?;
        pair.start(0, terms)?;
        pair.wait_until_active(0, 0)?;
        keepalived.wait_for(BACKUP, 2)?;
        let mut connection = pair.connections(1)?;
        netns_tests::pair::all_work(&mut connection)?;
        for kill in 0..2 {
            pair.kill(0);
            keepalived.wait_for(MASTER, 2 + 2 * kill)?;
            pair.start(0, terms)?;
            pair.wait_until_active(0, 0)?;
            // Its announcements brought the hosts back.
            netns_tests::pair::all_work(&mut pair.connections(1)?)?;
            // It says at once that it goes, and keepalived does not wait for it.
            pair.stop(0)?;
            keepalived.wait_for(MASTER, 3 + 2 * kill)?;
            pair.start(0, terms)?;
            pair.wait_until_active(0, 0)?;
            keepalived.wait_for(BACKUP, 4 + 2 * kill)?;
        }
        well_understood(pair, version)
    })
}

/// keepalived has the higher priority.
fn active(version: u8) -> Outcome {
    beside(version, (100, 200), interval(version), |pair, keepalived, terms| {
        keepalived.wait_for(MASTER, 1)?;
        pair.start(0, terms)?;
        let hears = || pair.status(0).is_ok_and(|status| status.contains("203.0.113.3"));
        ensure!(eventually(PATIENCE, hears), "it does not hear keepalived");
        ensure!(role_is(pair, "backup"), "both are active");
        well_understood(pair, version)?;
        let before = pair.router(0)?.log().len();
        keepalived.kill()?;
        pair.wait_until_active(0, before)?;
        take_addresses(pair)?;
        netns_tests::pair::all_work(&mut pair.connections(2)?)?;
        // It comes back and preempts.
        let before = pair.router(0)?.log().len();
        *keepalived = Keepalived::start(pair, version, interval(version).1, 200)?;
        pair.router(0)?.wait_for(before, &["role=backup"])?;
        keepalived.wait_for(MASTER, 1)?;
        // And leaves in order.
        let before = pair.router(0)?.log().len();
        keepalived.signal(Signal::TERM)?;
        let line = pair.wait_until_active(0, before)?;
        ensure!(line.contains("gave up the role"), "it does not say why: {line}");
        netns_tests::pair::all_work(&mut pair.connections(2)?)
    })
}

fn sub_second() -> Outcome {
    beside(3, (200, 100), ("10ms", "0.01"), |pair, keepalived, terms| {
        keepalived.wait_for(MASTER, 1)?;
        pair.start(0, terms)?;
        pair.wait_until_active(0, 0)?;
        keepalived.wait_for(BACKUP, 2)?;
        pair.kill(0);
        keepalived.wait_for(MASTER, 2)
    })
}

/// A dead keepalived leaves its addresses on the NICs, where its machine would have gone with them.
fn take_addresses(pair: &Pair) -> Outcome {
    let done: Result<(), LinkError> = pair.middle.run(|| {
        let netlink = Netlink::new()?;
        for port in ["kout", "kin"] {
            netlink.delete_link(port)?;
        }
        Ok(())
    });
    done.context("cannot unplug keepalived")
}

/// No advert of keepalived's was refused, and its checksum was seen for what it is.
fn well_understood(pair: &Pair, version: u8) -> Outcome {
    let status: serde_json::Value = serde_json::from_str(&pair.status(0)?)?;
    let adverts = &status["failover"]["adverts"];
    let discarded = adverts["discarded"].as_array().ok_or_else(|| Failure::new("no reasons"))?;
    for reason in discarded {
        let is_own = reason["reason"] == "own";
        ensure!(is_own || reason["count"] == 0, "discarded: {reason}");
    }
    let (received, pseudo) =
        (adverts["received"].as_u64(), adverts["pseudo_header_checksums"].as_u64());
    ensure!(received > Some(0), "none of its adverts was believed: {adverts}");
    ensure!(version == 2 || pseudo == received, "another checksum than expected: {adverts}");
    Ok(())
}

/// Its children, from `/proc`.
fn children_of(parent: u32) -> Vec<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

//! The machine the run was made on, and its clocks and counters in `/proc`.

use std::collections::BTreeMap;
use std::fs;

use netns_tests::{Context as _, Failure, Outcome};
use serde::{Deserialize, Serialize};
use tapvs::links::Namespace;

use crate::contestant::Io;

/// What a reader has to know to place the numbers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    /// How busy it was with other things when the run began: the average number of running programs in the
    /// minute before.
    pub(crate) load: String,
    pub(crate) virtual_machine: bool,
    /// What `io = "auto"` comes to here, as in a configuration.
    #[serde(default)]
    pub(crate) io: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let info = read("/proc/cpuinfo");
        let value = |key: &str| {
            let line = info.lines().find(|line| line.starts_with(key));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = read("/proc/meminfo");
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = memory.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            processor: value("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("Linux {}", kernel.trim()),
            memory_mib: kib.unwrap_or(0) / 1_024,
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            virtual_machine: value("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            io: tapvs::links::usual_io().into(),
        }
    }

    /// How tapvs moves frames here unless it is told.
    pub(crate) fn usual_io(&self) -> Io {
        if self.io == "syscall" { Io::Syscall } else { Io::Uring }
    }

    /// One sentence.
    pub(crate) fn described(&self) -> String {
        let virtual_machine = if self.virtual_machine { " of a virtual machine" } else { "" };
        let cores = if self.cores == 1 { "core" } else { "cores" };
        format!(
            "{} {cores}{virtual_machine} ({}), {:.0} GiB of memory, {}, where `io = \"auto\"` is {}",
            self.cores,
            self.processor,
            self.memory_mib as f64 / 1_024.0,
            self.kernel,
            self.usual_io()
        )
    }
}

/// Processor time so far, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTime {
    forwarder: Option<f64>,
    machine: f64,
}

impl CpuTime {
    /// Of a process and of the whole machine.
    pub(crate) fn now(pid: Option<u32>) -> Outcome<Self> {
        let forwarder = match pid {
            Some(pid) => {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
                Some(process_ticks(&stat.context("the forwarder ended")?)? / TICKS)
            }
            None => None,
        };
        Ok(Self { forwarder, machine: machine_ticks(&read("/proc/stat"))? / TICKS })
    }

    /// What was used since: of the forwarder, of the machine.
    pub(crate) fn since(self, before: Self) -> (Option<f64>, f64) {
        let forwarder = self.forwarder.zip(before.forwarder).map(|(now, before)| now - before);
        (forwarder, self.machine - before.machine)
    }
}

/// `USER_HZ`, which is part of Linux's interface.
const TICKS: f64 = 100.0;

/// User and system time of a process with all its threads, of `/proc/PID/stat` (proc(5)).
fn process_ticks(stat: &str) -> Outcome<f64> {
    // The second field is the name, which may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
    let mut fields =
        fields.ok_or_else(|| Failure::new("/proc/PID/stat cannot be read"))?.skip(14 - 3);
    match (fields.next().map(str::parse::<f64>), fields.next().map(str::parse::<f64>)) {
        (Some(Ok(user)), Some(Ok(system))) => Ok(user + system),
        _ => Err(Failure::new("/proc/PID/stat cannot be read")),
    }
}

/// Everything but idling, waiting for disks, and what a hypervisor took away, of `/proc/stat`.
fn machine_ticks(stat: &str) -> Outcome<f64> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields: Vec<f64> =
        line.unwrap_or_default().split_whitespace().map_while(|field| field.parse().ok()).collect();
    match fields[..] {
        [user, nice, system, _idle, _iowait, irq, softirq, ..] => {
            Ok(user + nice + system + irq + softirq)
        }
        _ => Err(Failure::new("/proc/stat cannot be read")),
    }
}

/// Counters of a namespace's IP stack, such as `Udp.InCsumErrors`.
#[derive(Clone, Debug)]
pub(crate) struct Stack(BTreeMap<String, u64>);

impl Stack {
    pub(crate) fn of(namespace: &Namespace) -> Self {
        Self(parse_snmp(&namespace.run(|| read("/proc/thread-self/net/snmp"))))
    }

    /// How far a counter has come since.
    pub(crate) fn since(&self, before: &Self, counter: &str) -> u64 {
        let at = |stack: &Self| stack.0.get(counter).copied().unwrap_or(0);
        at(self).saturating_sub(at(before))
    }
}

/// Pairs of lines: names, values.
fn parse_snmp(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let mut counters = BTreeMap::new();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((_, values))) =
            (pair[0].split_once(':'), pair[1].split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // Some are -1, which is no count.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}.{name}"), value);
            }
        }
    }
    counters
}

/// A limit of connection tracking, where it is there.
pub(crate) fn conntrack_max() -> Option<u64> {
    read("/proc/sys/net/netfilter/nf_conntrack_max").trim().parse().ok()
}

/// Empty when it is not there.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_time_is_user_and_system_whatever_its_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 100 0 0";
        assert!((process_ticks(stat).unwrap() - 300.0).abs() < f64::EPSILON);
        assert!(process_ticks("7 (x) S 1").is_err() && process_ticks("").is_err());
    }

    #[test]
    fn idling_is_no_work() {
        let stat = "cpu  100 10 200 99999 7777 3 4 5000 0 0\ncpu0 1 1 1 1\n";
        assert!((machine_ticks(stat).unwrap() - 317.0).abs() < f64::EPSILON);
        assert!(machine_ticks("intr 1").is_err());
    }

    #[test]
    fn this_machine_can_be_read() {
        let begin = CpuTime::now(Some(std::process::id())).unwrap();
        let (own, all) = CpuTime::now(Some(std::process::id())).unwrap().since(begin);
        assert!(own.is_some_and(|own| own >= 0.0) && all >= 0.0);
        assert!(netns_tests::resident(std::process::id()).unwrap() > 100_000);
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && machine.kernel.len() > 6);
    }

    #[test]
    fn counters_have_the_name_of_their_group() {
        let text = "Tcp: MaxConn RetransSegs\nTcp: -1 5\nUdp: InDatagrams NoPorts\nUdp: 7 2\n";
        let (before, after) = (Stack(BTreeMap::new()), Stack(parse_snmp(text)));
        assert_eq!(after.since(&before, "Tcp.RetransSegs"), 5);
        assert_eq!(after.since(&before, "Udp.NoPorts"), 2);
        assert_eq!(after.since(&before, "Tcp.MaxConn"), 0);
    }
}

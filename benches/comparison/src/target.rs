//! What the numbers must be, and whether they are.

use std::fmt;

use crate::contestant::{Io, Kind, Method, Mode};
use crate::load::{Unit, Workload};
use crate::outcome::{Report, Row, Sample};
use crate::statistics::{difference, median, ratio};

/// A raw forwarder that is not that much faster than the kernel's NAT was kept from running by something else.
const VALID: f64 = 1.2;
/// No workload of tapvs may be further below the raw forwarder.
const FLOOR: f64 = 0.85;

/// One promise, and how it went.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) promise: String,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// With the number that was measured.
    Met(String),
    /// With the number, and by how much.
    Missed(String, String),
    NotMeasured(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Met(value) => write!(f, "met: {value}"),
            Self::Missed(value, by) => write!(f, "missed by {by}: {value}"),
            Self::NotMeasured(why) => write!(f, "not measured: {why}"),
        }
    }
}

/// Whether the machine let anybody run as fast as it can.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Validity {
    /// With the ratio of the best raw forwarder and the kernel.
    Valid(f64),
    Invalid(f64),
    /// Raw or kernel did not run.
    Unknown,
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid(ratio) => write!(
                f,
                "valid: on small frames the raw forwarder is {ratio:.2} × the kernel's NAT ({VALID} at least)"
            ),
            Self::Invalid(ratio) => write!(
                f,
                "INVALID: on small frames the raw forwarder is {ratio:.2} × the kernel's NAT only, {VALID} is \
                 the least of a machine that has nothing else to do"
            ),
            Self::Unknown => f.write_str(
                "not known to be valid: small frames were not measured with the raw forwarder and the kernel",
            ),
        }
    }
}

/// By the best raw batched forwarder.
pub(crate) fn validity(report: &Report) -> Validity {
    let best = [Mode::Plain, Mode::Vnet]
        .into_iter()
        .filter_map(|mode| rate(report, Workload::Small, Kind::Raw(mode, Io::Uring), Kind::Kernel))
        .max_by(f64::total_cmp);
    match best {
        Some(ratio) if ratio >= VALID => Validity::Valid(ratio),
        Some(ratio) => Validity::Invalid(ratio),
        None => Validity::Unknown,
    }
}

/// Every promise.
pub(crate) fn judge(report: &Report) -> Vec<Judged> {
    let mut all = Vec::new();
    // tapvs as it sets itself up, raw batched in any case.
    let io = report.machine.usual_io();
    for method in [Method::Nat, Method::Direct] {
        for mode in [Mode::Plain, Mode::Vnet] {
            let own = Kind::Tapvs(method, mode, io);
            let raw = Kind::Raw(mode, Io::Uring);
            all.push(at_least(report, Workload::Small, own, raw, 0.95));
            all.push(at_least(report, Workload::Small, own, Kind::Kernel, 1.25));
        }
    }
    for method in [Method::Nat, Method::Direct] {
        let own = Kind::Tapvs(method, Mode::Vnet, io);
        let raw = Kind::Raw(Mode::Vnet, Io::Uring);
        all.push(at_least(report, Workload::Bulk1, own, raw, 0.95));
        all.push(at_least(report, Workload::Bulk1, own, Kind::Haproxy, 1.6));
        all.push(at_least(report, Workload::Bulk1, own, Kind::Kernel, 0.85));
        all.push(at_least(report, Workload::Http, own, Kind::Kernel, 1.2));
        all.push(at_least(report, Workload::Http, own, Kind::Haproxy, 1.5));
    }
    for method in [Method::Nat, Method::Direct] {
        for mode in [Mode::Plain, Mode::Vnet] {
            all.extend(latency(report, Kind::Tapvs(method, mode, io)));
        }
    }
    all.push(memory(report));
    all.push(floor(report));
    all
}

/// The median of the ratios of two forwarders' rates.
pub(crate) fn rate(report: &Report, workload: Workload, of: Kind, to: Kind) -> Option<f64> {
    let value = |sample: &Sample| Some(sample.value);
    let (of, to) = (series(report, workload, of, value)?, series(report, workload, to, value)?);
    ratio(&of, &to)
}

/// A forwarder's row, found by its name.
pub(crate) fn row<'r>(report: &'r Report, workload: Workload, name: &str) -> Option<&'r Row> {
    let measured = report.workloads.iter().find(|measured| measured.workload == workload.name())?;
    measured.rows.iter().find(|row| row.forwarder == name)
}

fn series(
    report: &Report,
    workload: Workload,
    kind: Kind,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Option<Vec<Option<f64>>> {
    let row = row(report, workload, &kind.to_string())?;
    Some(row.samples.iter().map(|sample| sample.as_ref().and_then(&value)).collect())
}

fn at_least(report: &Report, workload: Workload, of: Kind, to: Kind, least: f64) -> Judged {
    let promise = format!("{}: {of} at least {least:.2} × {to}", workload.short());
    let verdict = match rate(report, workload, of, to) {
        Some(ratio) if ratio >= least => Verdict::Met(format!("{ratio:.2} ×")),
        Some(ratio) => {
            let by = format!("{:.0} %", ((1.0 - ratio / least) * 100.0).max(1.0));
            Verdict::Missed(format!("{ratio:.2} ×"), by)
        }
        None => absent(report, workload, &[of, to]),
    };
    Judged { promise, verdict }
}

/// A router that was idle answers nearly as soon as the raw forwarder, and takes no processor time for it.
fn latency(report: &Report, own: Kind) -> Vec<Judged> {
    let raw = own.reference().unwrap_or(own);
    let at = |kind, value: fn(&Sample) -> Option<f64>| series(report, Workload::Ping, kind, value);
    let value: fn(&Sample) -> Option<f64> = |sample| Some(sample.value);
    let p99: fn(&Sample) -> Option<f64> = |sample| sample.p99;
    let idle: fn(&Sample) -> Option<f64> = |sample| sample.idle_cpu;
    let both = |of: fn(&Sample) -> Option<f64>| Some((at(own, of)?, at(raw, of)?));
    let missing = || absent(report, Workload::Ping, &[own, raw]);
    let added = both(value).and_then(|(of, to)| difference(&of, &to));
    let slow = both(p99).and_then(|(of, to)| ratio(&of, &to));
    let idle =
        at(own, idle).and_then(|idle| median(&idle.into_iter().flatten().collect::<Vec<_>>()));
    let judged = |promise: String, verdict: Option<Verdict>| Judged {
        promise,
        verdict: verdict.unwrap_or_else(missing),
    };
    vec![
        judged(
            format!("ping: {own} adds at most 5 µs to the median of the raw forwarder"),
            added.map(|added| at_most(added, 5.0, |n| format!("{n:.1} µs"))),
        ),
        judged(
            format!("ping: the slowest of 100 with {own} at most 1.50 × the raw forwarder's"),
            slow.map(|slow| at_most(slow, 1.5, |n| format!("{n:.2} ×"))),
        ),
        judged(
            format!("no processor time while nothing comes: {own}"),
            // A tick of the clock that tells it may fall in, which is 3 % of the shortest pause.
            idle.map(|idle| at_most(idle, 0.001, |n| format!("{:.1} %", n * 100.0))),
        ),
    ]
}

fn memory(report: &Report) -> Judged {
    let per_flow = |sample: &Sample| Some(sample.memory? as f64 / sample.flows? as f64);
    let worst = crate::contestant::CONTESTANTS
        .iter()
        .filter_map(|row| series(report, Workload::Million, row.kind, per_flow))
        .flatten()
        .flatten()
        .max_by(f64::total_cmp);
    let verdict = match worst {
        Some(bytes) => at_most(bytes, 160.0, |n| format!("{n:.0} bytes")),
        None => Verdict::NotMeasured("no forwarder had a million flows".into()),
    };
    let promise = "memory that a million flows add to the process, per flow, at most 160 bytes";
    Judged { promise: promise.into(), verdict }
}

/// The worst of all workloads in the modes that tapvs chooses.
fn floor(report: &Report) -> Judged {
    let usual = report.machine.usual_io();
    let rates = Workload::ALL.into_iter().filter(|workload| workload.unit() != Unit::Micros);
    let worst = rates
        .flat_map(|workload| crate::contestant::CONTESTANTS.map(|row| (workload, row.kind)))
        .filter_map(|(workload, kind)| {
            let Kind::Tapvs(_, _, io) = kind else { return None };
            if io != usual {
                return None;
            }
            let ratio = rate(report, workload, kind, kind.reference()?)?;
            Some((ratio, format!("{ratio:.2} ×, {kind}, {}", workload.short())))
        })
        .min_by(|one, other| one.0.total_cmp(&other.0));
    let verdict = match worst {
        Some((ratio, what)) if ratio >= FLOOR => Verdict::Met(what),
        Some((ratio, what)) => {
            Verdict::Missed(what, format!("{:.0} %", ((1.0 - ratio / FLOOR) * 100.0).max(1.0)))
        }
        None => Verdict::NotMeasured("no mode that tapvs chooses ran".into()),
    };
    let promise =
        format!("nothing of tapvs, {usual}, below {FLOOR:.2} × the raw forwarder, the worst");
    Judged { promise, verdict }
}

fn at_most(value: f64, most: f64, words: impl Fn(f64) -> String) -> Verdict {
    if value <= most {
        Verdict::Met(words(value))
    } else {
        Verdict::Missed(words(value), words(value - most))
    }
}

fn absent(report: &Report, workload: Workload, kinds: &[Kind]) -> Verdict {
    let measured = |kind: &&Kind| {
        let row = row(report, workload, &kind.to_string());
        row.is_some_and(|row| row.samples.iter().any(Option::is_some))
    };
    let without: Vec<String> =
        kinds.iter().filter(|kind| !measured(kind)).map(ToString::to_string).collect();
    Verdict::NotMeasured(format!("no figures of {}", without.join(" and ")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::outcome::{Forwarder, Measured};

    /// Every forwarder and workload, each with the same value in two rounds.
    pub(crate) fn report(value: impl Fn(Workload, Kind) -> Option<f64>) -> Report {
        let forwarders = crate::contestant::CONTESTANTS.map(|row| Forwarder {
            name: row.kind.to_string(),
            reference: row.kind.reference().map(|reference| reference.to_string()),
            version: None,
        });
        let workloads = Workload::ALL.map(|workload| Measured {
            workload: workload.name().into(),
            rows: crate::contestant::CONTESTANTS
                .iter()
                .filter(|row| workload.suits(row.kind))
                .filter_map(|row| {
                    let sample = Sample {
                        value: value(workload, row.kind)?,
                        seconds: 2.0,
                        amount: 1e6,
                        forwarder_cpu: (row.kind != Kind::Kernel).then_some(1.5),
                        machine_cpu: 3.5,
                        p99: Some(100.0),
                        idle_cpu: Some(0.0),
                        memory: Some(120_000_000),
                        flows: Some(1_000_000),
                        retransmits: Some(0),
                    };
                    let samples = vec![Some(sample.clone()), Some(sample)];
                    let forwarder = row.kind.to_string();
                    Some(Row { forwarder, samples, failures: Vec::new() })
                })
                .collect(),
        });
        Report {
            started: 1_790_000_000,
            command: "tapvs-bench".into(),
            tapvs: "0.1.0".into(),
            machine: Machine::this(),
            congestion: "cubic".into(),
            rounds: 2,
            seconds: 2.0,
            forwarders: forwarders.into(),
            missing: Vec::new(),
            workloads: workloads.into(),
        }
    }

    fn verdict(report: &Report, promise: &str) -> Verdict {
        let all = judge(report);
        let found: Vec<_> = all.iter().filter(|judged| judged.promise.contains(promise)).collect();
        assert_eq!(found.len(), 1, "{promise}");
        found[0].verdict.clone()
    }

    #[test]
    fn equals_meet_what_is_held_against_raw_only() {
        let report = report(|_, _| Some(100.0));
        assert_eq!(validity(&report), Validity::Invalid(1.0));
        let nat = "small frames: tapvs NAT, plain, io_uring at least";
        let raw = format!("{nat} 0.95 × raw");
        assert_eq!(verdict(&report, &raw), Verdict::Met("1.00 ×".into()));
        let kernel = format!("{nat} 1.25 × kernel");
        let missed = Verdict::Missed("1.00 ×".into(), "20 %".into());
        assert_eq!(verdict(&report, &kernel), missed);
        assert!(matches!(verdict(&report, "the worst"), Verdict::Met(_)));
        assert_eq!(verdict(&report, "memory"), Verdict::Met("120 bytes".into()));
    }

    #[test]
    fn the_worst_is_found() {
        let slow = Kind::Tapvs(Method::Direct, Mode::Plain, Io::Uring);
        let report = report(|workload, kind| {
            Some(if (workload, kind) == (Workload::KeepAlive, slow) { 80.0 } else { 100.0 })
        });
        let Verdict::Missed(what, by) = verdict(&report, "the worst") else { panic!("met") };
        assert!(what.contains("0.80 ×, tapvs direct, plain") && by == "6 %", "{what}, {by}");
    }

    #[test]
    fn less_is_better_for_pings() {
        let own = Kind::Tapvs(Method::Nat, Mode::Vnet, Io::Uring);
        let report = report(|_, kind| Some(if kind == own { 107.0 } else { 100.0 }));
        let promise = "NAT, vnet_hdr, io_uring adds";
        let missed = Verdict::Missed("7.0 µs".into(), "2.0 µs".into());
        assert_eq!(verdict(&report, promise), missed);
        let direct = "tapvs direct, vnet_hdr, io_uring adds";
        assert_eq!(verdict(&report, direct), Verdict::Met("0.0 µs".into()));
    }

    #[test]
    fn what_did_not_run_is_named() {
        let report = report(|_, kind| (kind != Kind::Kernel).then_some(100.0));
        assert_eq!(validity(&report), Validity::Unknown);
        let promise = "new HTTP: tapvs NAT, vnet_hdr, io_uring at least 1.20";
        let absent = Verdict::NotMeasured("no figures of kernel nftables DNAT".into());
        assert_eq!(verdict(&report, promise), absent);
    }

    #[test]
    fn a_raw_forwarder_that_beats_the_kernel_makes_a_run_valid() {
        let report = report(|_, kind| Some(if kind == Kind::Kernel { 100.0 } else { 121.0 }));
        assert_eq!(validity(&report), Validity::Valid(1.21));
    }
}

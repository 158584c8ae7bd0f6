//! Tables: one for each workload, and the verdicts.

use std::fmt::Write as _;

use crate::contestant::{Io, Kind, Mode};
use crate::load::{Unit, Workload};
use crate::outcome::{Report, Row, Sample};
use crate::statistics::{median, range, ratio};
use crate::target::{self, Verdict};

use super::units::{cost, per, value};

/// Everything.
pub(super) fn whole(report: &Report) -> String {
    let mut text = String::from("# tapvs: how fast\n\n");
    let _infallible = writeln!(text, "{}\n", facts(report));
    text += "Rates are medians over the rounds, ratios medians of the rounds' ratios. \"Own\" is the processor time of the \
             forwarder's process, which for TAPs includes the receiver's network stack (it runs inside the write); \
             \"machine\" that of everything, load generators included: the only figure there is for the kernel, whose \
             work cannot be told from its neighbours'.\n\n";
    text += &figures(report);
    text += "## Targets\n\n";
    text += &verdicts(report);
    if !report.missing.is_empty() {
        text += "\n## Not measured\n\n";
        for missing in &report.missing {
            let remedy = missing.remedy.as_ref();
            let remedy = remedy.map_or_else(String::new, |remedy| format!(": `{remedy}`"));
            let _infallible = writeln!(text, "- {}: {}{remedy}", missing.what, missing.why);
        }
    }
    text
}

/// Where, when and how, and whether it counts.
pub(super) fn facts(report: &Report) -> String {
    let versions: Vec<&str> =
        report.forwarders.iter().filter_map(|one| one.version.as_deref()).collect();
    let versions =
        if versions.is_empty() { String::new() } else { format!(", {}", versions.join(", ")) };
    let tcp = match report.congestion.as_str() {
        "" => String::new(),
        congestion => format!("; TCP with {congestion}"),
    };
    format!(
        "{}; load before the run {}; tapvs {}{versions}{tcp}; {}; {} rounds of {} s, interleaved; `{}`. The run is {}.",
        report.machine.described(),
        report.machine.load,
        report.tapvs,
        date(report.started),
        report.rounds,
        report.seconds,
        report.command,
        target::validity(report)
    )
}

/// A table for each workload.
pub(crate) fn figures(report: &Report) -> String {
    let mut text = String::new();
    for workload in Workload::ALL {
        let found = report.workloads.iter().find(|one| one.workload == workload.name());
        if let Some(measured) = found {
            let _infallible = writeln!(text, "## {}\n", workload.title());
            text += &aligned(&table(report, workload, &measured.rows));
            text.push('\n');
            for row in &measured.rows {
                for failure in &row.failures {
                    let first = failure.lines().next().unwrap_or_default();
                    let _infallible = writeln!(text, "FAILED: {}: {first}\n", row.forwarder);
                }
            }
        }
    }
    text
}

fn table(report: &Report, workload: Workload, rows: &[Row]) -> Vec<Vec<String>> {
    let unit = workload.unit();
    let mut head = vec!["forwarder".to_owned(), "median".into(), "lowest to highest".into()];
    head.extend(["× raw".to_owned(), "× kernel".into(), "× HAProxy".into()]);
    if unit == Unit::Micros {
        head.push("p99".into());
        head.push("idle".into());
    }
    head.push(format!("own, {}", per(unit)));
    head.push("machine".into());
    match workload {
        Workload::Bulk1 | Workload::Bulk16 => head.push("sent again".into()),
        Workload::Million => head.push("bytes per flow".into()),
        _ => {}
    }
    let mut table = vec![head];
    for row in rows {
        let samples: Vec<&Sample> = row.samples.iter().flatten().collect();
        let of = |figure: &dyn Fn(&Sample) -> Option<f64>| {
            median(&samples.iter().filter_map(|sample| figure(sample)).collect::<Vec<_>>())
        };
        let words = |number: Option<f64>, words: &dyn Fn(f64) -> String| {
            number.map_or_else(|| "-".to_owned(), words)
        };
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let mut line = vec![row.forwarder.clone()];
        line.push(words(median(&values), &|number| value(unit, number)));
        line.push(range(&values).map_or_else(
            || "-".into(),
            |(low, high)| format!("{} to {}", value(unit, low), value(unit, high)),
        ));
        let reference = report.forwarders.iter().find(|one| one.name == row.forwarder);
        // What has no TAP is held against the fastest there is of TAPs.
        let raw = reference
            .and_then(|one| one.reference.clone())
            .unwrap_or_else(|| Kind::Raw(Mode::Vnet, Io::Uring).to_string());
        for other in [raw, Kind::Kernel.to_string(), Kind::Haproxy.to_string()] {
            let other = rows.iter().find(|row| row.forwarder == other);
            let ratio = other.and_then(|other| ratio(&series(row), &series(other)));
            line.push(words(ratio, &|ratio| format!("{ratio:.2}")));
        }
        if unit == Unit::Micros {
            line.push(words(of(&|sample| sample.p99), &|number| value(unit, number)));
            let idle = of(&|sample| sample.idle_cpu);
            line.push(words(idle, &|share| format!("{:.1} %", share * 100.0)));
        }
        let own = of(&|sample| Some(cost(unit, sample.forwarder_cpu?, sample)));
        line.push(words(own, &|cost| format!("{cost:.2}")));
        let all = of(&|sample| Some(cost(unit, sample.machine_cpu, sample)));
        line.push(words(all, &|cost| format!("{cost:.2}")));
        match workload {
            Workload::Bulk1 | Workload::Bulk16 => {
                let again = of(&|sample| sample.retransmits.map(|count| count as f64));
                line.push(words(again, &|count| format!("{count:.0}")));
            }
            Workload::Million => {
                let each = |sample: &Sample| Some(sample.memory? as f64 / sample.flows? as f64);
                line.push(words(of(&each), &|bytes| format!("{bytes:.0}")));
            }
            _ => {}
        }
        table.push(line);
    }
    table
}

/// Values by round.
pub(super) fn series(row: &Row) -> Vec<Option<f64>> {
    row.samples.iter().map(|sample| sample.as_ref().map(|sample| sample.value)).collect()
}

/// What was promised, and how it went.
pub(crate) fn verdicts(report: &Report) -> String {
    let mut table = vec![vec!["target".to_owned(), "verdict".into(), "measured".into()]];
    for judged in target::judge(report) {
        let (verdict, measured) = match judged.verdict {
            Verdict::Met(value) => ("met".to_owned(), value),
            Verdict::Missed(value, by) => (format!("missed by {by}"), value),
            Verdict::NotMeasured(why) => ("not measured".into(), why),
        };
        table.push(vec![judged.promise, verdict, measured]);
    }
    aligned(&table)
}

/// A table that can be read as text too: every column as wide as its widest cell.
pub(crate) fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in table.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // The first column is words, the others numbers.
            let _infallible = if column == 0 {
                write!(text, "| {cell:width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (dashes, right) = ("-".repeat(width + 1), column > 0);
                let _infallible = write!(text, "|{dashes}{}", if right { ":" } else { "-" });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// The day, in UTC, of seconds since 1970 (days from civil, the other way round).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Missing;
    use crate::target::tests::report;

    #[test]
    fn a_day_is_the_right_one() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_798_675_199), "2026-12-30");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = [vec!["a".to_owned(), "µs".into()], vec!["long one".into(), "1234".into()]];
        let text = aligned(&table);
        assert_eq!(text, "| a        |   µs |\n|----------|-----:|\n| long one | 1234 |\n");
    }

    #[test]
    fn every_row_is_there_with_its_ratios() {
        let text = whole(&report(|_, kind| Some(if kind == Kind::Kernel { 1e5 } else { 2e5 })));
        let rows: Vec<&str> =
            text.lines().filter(|line| line.starts_with("| tapvs NAT, plain, io_uring ")).collect();
        assert_eq!(rows.len(), Workload::ALL.len());
        let cells: Vec<&str> = rows[0].split('|').map(str::trim).collect();
        assert_eq!(cells[2..7], ["200 k/s", "200 k/s to 200 k/s", "1.00", "2.00", "-"]);
        // 1.5 s for a million frames, 3.5 of the whole machine.
        assert_eq!(cells[7..9], ["1.50", "3.50"]);
        let kernel = text.lines().find(|line| line.starts_with("| kernel ")).unwrap();
        let cells: Vec<&str> = kernel.split('|').map(str::trim).collect();
        assert_eq!(cells[7..9], ["-", "3.50"], "nobody knows its own");
    }

    #[test]
    fn what_failed_or_is_missing_is_said() {
        let mut broken = report(|_, _| Some(1.0));
        let row = &mut broken.workloads[0].rows[0];
        row.samples = vec![None, None];
        row.failures = vec!["nothing arrived in 300 ms\nlog".into()];
        broken.missing.push(Missing {
            what: "nginx stream".into(),
            why: "`nginx` is not installed".into(),
            remedy: Some("apt-get install nginx".into()),
        });
        let text = whole(&broken);
        assert!(text.contains("FAILED: raw, plain, read/write: nothing arrived in 300 ms\n"));
        assert!(text.contains("- nginx stream: `nginx` is not installed: `apt-get install nginx`"));
        assert!(text.contains("INVALID"));
    }
}

//! The README's section: one table over everything, the plots, the verdicts.

use std::fmt::Write as _;

use crate::load::Workload;
use crate::outcome::Report;
use crate::statistics::median;
use crate::target;

use super::markdown::{aligned, facts, series, verdicts};
use super::units::value;

/// Where report and plots are kept in the project.
pub(super) const FOLDER: &str = "docs/benchmark";
const BEGIN: &str =
    "<!-- benchmark: written by `cargo run --release -p tapvs-bench -- --readme` -->";
const END: &str = "<!-- end of benchmark -->";

/// The text with another section between the two marks.
pub(super) fn replaced(text: &str, section: &str) -> Result<String, String> {
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        return Err(format!("it has no lines `{BEGIN}` and `{END}` to put the table between"));
    };
    let begin = begin + BEGIN.len();
    if end < begin {
        return Err(format!("`{END}` comes before `{BEGIN}`"));
    }
    Ok(format!("{}\n\n{}\n{}", &text[..begin], section.trim_end(), &text[end..]))
}

/// What stands between them.
pub(super) fn section(report: &Report) -> String {
    let workloads: Vec<Workload> = Workload::ALL
        .into_iter()
        .filter(|workload| report.workloads.iter().any(|one| one.workload == workload.name()))
        .collect();
    let mut head = vec!["forwarder".to_owned()];
    head.extend(workloads.iter().map(|workload| workload.short().to_owned()));
    let mut table = vec![head];
    for forwarder in &report.forwarders {
        let mut line = vec![forwarder.name.clone()];
        for workload in &workloads {
            let row = target::row(report, *workload, &forwarder.name);
            let middle =
                row.and_then(|row| median(&series(row).into_iter().flatten().collect::<Vec<_>>()));
            line.push(middle.map_or_else(|| "-".into(), |it| value(workload.unit(), it)));
        }
        table.push(line);
    }
    let mut text = format!("{}\n\n{}\n", facts(report), aligned(&table));
    for workload in workloads {
        let name = workload.name();
        let _infallible = writeln!(text, "![{}]({FOLDER}/{name}.svg)", workload.title());
    }
    let _infallible = write!(
        text,
        "\n{}\nRatios, spread and processor time of each: [{FOLDER}/report.md]({FOLDER}/report.md).\n",
        verdicts(report)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::report;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("# a\n\n{BEGIN}\nold\n{END}\n\n## b\n");
        let once = replaced(&text, "new\n").unwrap();
        assert_eq!(once, format!("# a\n\n{BEGIN}\n\nnew\n{END}\n\n## b\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
        assert!(replaced("# a\n", "new").is_err());
        assert!(replaced(&format!("{END}\n{BEGIN}"), "new").is_err());
    }

    #[test]
    fn the_projects_readme_has_a_place_for_it() {
        let text = include_str!("../../../../README.md");
        assert!(replaced(text, "new").is_ok());
    }

    #[test]
    fn every_forwarder_has_a_line_and_every_workload_a_column() {
        let report = report(|_, _| Some(1e5));
        let text = section(&report);
        for forwarder in &report.forwarders {
            assert!(text.contains(&format!("\n| {} ", forwarder.name)), "{}", forwarder.name);
        }
        let head = text.lines().find(|line| line.starts_with("| forwarder")).unwrap();
        assert_eq!(head.matches('|').count(), Workload::ALL.len() + 2);
        assert_eq!(text.matches(".svg)").count(), Workload::ALL.len());
    }
}

//! What is written of a run: tables, plots, the section of the README.

mod markdown;
mod plot;
mod readme;
mod units;

use std::fs;
use std::path::{Path, PathBuf};

use netns_tests::{Context as _, Outcome};

pub(crate) use markdown::{aligned, figures, verdicts};
pub(crate) use units::value;

use crate::load::Workload;
use crate::outcome::Report;

const JSON: &str = "report.json";

/// Writes everything into a folder; returns what was written.
pub(crate) fn write(report: &Report, folder: &Path) -> Outcome<Vec<PathBuf>> {
    fs::create_dir_all(folder).context(folder.display())?;
    let json = serde_json::to_string_pretty(report)? + "\n";
    let mut files = vec![(JSON.to_owned(), json)];
    files.push(("report.md".into(), markdown::whole(report)));
    files.extend(plots(report));
    let mut written = Vec::new();
    for (name, text) in files {
        let file = folder.join(name);
        fs::write(&file, text).context(file.display())?;
        written.push(file);
    }
    Ok(written)
}

/// Reads what [`write`] wrote.
pub(crate) fn read(file: &Path) -> Outcome<Report> {
    let text = fs::read_to_string(file).context(file.display())?;
    serde_json::from_str(&text).context(format_args!("{} is no report", file.display()))
}

/// Puts table and plots into the project: README.md and `docs/benchmark/`.
pub(crate) fn write_readme(report: &Report, project: &Path) -> Outcome<Vec<PathBuf>> {
    let file = project.join("README.md");
    let text = fs::read_to_string(&file).context(file.display())?;
    let text = readme::replaced(&text, &readme::section(report)).context(file.display())?;
    // The README must be able to take it before anything is written.
    let mut written = write(report, &project.join(readme::FOLDER))?;
    fs::write(&file, text).context(file.display())?;
    written.push(file);
    Ok(written)
}

/// A plot for each workload that was measured, with its file's name.
fn plots(report: &Report) -> Vec<(String, String)> {
    let measured = |workload: &Workload| {
        report.workloads.iter().any(|measured| measured.workload == workload.name())
    };
    let plot =
        |workload: Workload| (format!("{}.svg", workload.name()), plot::bars(report, workload));
    Workload::ALL.into_iter().filter(measured).map(plot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::report;

    #[test]
    fn what_is_written_can_be_read_again() {
        let scratch = netns_tests::Scratch::new().unwrap();
        let first = report(|_, _| Some(1_234.5));
        let written = write(&first, scratch.path()).unwrap();
        assert_eq!(written.len(), 2 + Workload::ALL.len());
        let again = read(&scratch.path().join(JSON)).unwrap();
        assert_eq!(markdown::whole(&again), markdown::whole(&first));
        assert!(read(&scratch.path().join("report.md")).is_err());
    }

    #[test]
    fn a_readme_without_a_place_is_left_alone() {
        let scratch = netns_tests::Scratch::new().unwrap();
        fs::write(scratch.path().join("README.md"), "# x\n").unwrap();
        assert!(write_readme(&report(|_, _| Some(1.0)), scratch.path()).is_err());
        assert!(!scratch.path().join(readme::FOLDER).exists());
    }
}

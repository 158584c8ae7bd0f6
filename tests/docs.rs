//! The pages in `docs/` name what exists: drop reasons, configuration keys, tests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tapvs::config;
use tapvs::dataplane::DropReason;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The cells of the table rows of a page.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
}

#[test]
fn every_example_is_valid() {
    let examples = fs::read_dir(root().join("configs")).unwrap();
    let paths = examples.map(|entry| entry.unwrap().path());
    let paths: Vec<_> = paths.filter(|path| path.extension() == Some("toml".as_ref())).collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        config::parse(&text).unwrap_or_else(|wrong| panic!("{}", wrong.display(path.display())));
    }
    // The tour's own file.
    let readme = read("README.md");
    let toml = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    config::parse(toml).unwrap_or_else(|wrong| panic!("{}", wrong.display("README.md")));
}

#[test]
fn every_key_of_the_examples_is_explained() {
    let page = read("docs/configuration.md");
    let examples = fs::read_dir(root().join("configs")).unwrap();
    let paths = examples.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension() == Some("toml".as_ref()));
    let examples: Vec<_> = paths.map(|path| fs::read_to_string(path).unwrap()).collect();
    // A key whose default cannot be written as a value is commented out without a space.
    let lines = examples.iter().flat_map(|example| example.lines());
    let lines = lines.map(|line| line.strip_prefix('#').unwrap_or(line));
    let keys: BTreeSet<&str> = lines
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
        .filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(keys.len() > 20, "only {keys:?}");
    let explained = |key: &&str| !page.contains(&format!("| `{key}`"));
    let missing: Vec<_> = keys.into_iter().filter(explained).collect();
    assert!(missing.is_empty(), "docs/configuration.md has no row for {missing:?}");
}

#[test]
fn every_drop_reason_is_explained_once() {
    let page = read("docs/operations.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Drop reasons")).unwrap();
    let explained: Vec<&str> =
        rows(section).filter_map(|cells| cells[0].strip_prefix('`')?.strip_suffix('`')).collect();
    for reason in DropReason::ALL {
        let times = explained.iter().filter(|name| **name == reason.name()).count();
        assert_eq!(times, 1, "docs/operations.md has {times} rows for `{reason}`");
    }
    let names: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let unknown: Vec<_> = explained.iter().filter(|name| !names.contains(*name)).collect();
    assert!(unknown.is_empty(), "docs/operations.md explains what does not exist: {unknown:?}");
}

const RESULTS: [&str; 6] =
    ["passes", "partly", "differs", "later", "not tested yet", "does not apply"];

#[test]
fn every_requirement_is_listed_once_and_every_test_named_exists() {
    let page = read("docs/conformance.md");
    let sources = sources();
    let mut wrong = Vec::new();
    let expected = [("N", 21), ("A", 8), ("R", 8), ("S", 14), ("O", 35)]
        .into_iter()
        .flat_map(|(letter, last)| (1..=last).map(move |number| format!("{letter}{number}")));
    for id in expected {
        let results: Vec<_> = rows(&page)
            .filter(|cells| cells[0] == id)
            .map(|cells| *cells.last().unwrap())
            .collect();
        let [result] = results[..] else {
            wrong.push(format!("{id} has {} rows", results.len()));
            continue;
        };
        if !RESULTS.contains(&result) {
            wrong.push(format!("{id}: {result:?} is not one of {RESULTS:?}"));
        }
        let tests = tests_of(&page, &id);
        let needed = matches!(result, "passes" | "partly" | "differs");
        if needed && tests.is_empty() {
            wrong.push(format!("{id} {result} without a test"));
        }
        let missing = tests.into_iter().filter(|test| !exists(test, &sources));
        wrong.extend(missing.map(|test| format!("{id}: there is no test {test:?}")));
    }
    assert!(wrong.is_empty(), "docs/conformance.md:\n{}", wrong.join("\n"));
}

/// The names behind "Tests:" in the note about a row.
fn tests_of(page: &str, id: &str) -> Vec<String> {
    let Some((_, note)) = page.split_once(&format!("\n- **{id}** ")) else { return Vec::new() };
    let lines =
        note.lines().enumerate().take_while(|(at, line)| *at == 0 || line.starts_with("  "));
    let note: Vec<_> = lines.map(|(_, line)| line.trim()).collect();
    let note = note.join(" ");
    let Some((_, tests)) = note.split_once("Tests: ") else { return Vec::new() };
    tests.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A test function, or the name of a case or trial.
fn exists(test: &str, sources: &str) -> bool {
    sources.contains(&format!("fn {test}(")) || sources.contains(&format!("\"{test}\""))
}

fn sources() -> String {
    let mut text = String::new();
    for folder in ["src", "tests", "netns-tests/src", "netns-tests/tests"] {
        collect(&root().join(folder), &mut text);
    }
    text
}

fn collect(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

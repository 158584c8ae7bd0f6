//! What is built is small, and the same wherever it is built.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::qemu::trial;
use libtest_mimic::Trial;
use netns_tests::{Context as _, Outcome, Scratch, ensure};
use tapvs_image::build::{MOST_BYTES, Plan, build};
use tapvs_image::manifest::sha256;

use crate::qemu::image;

const OUTPUTS: [&str; 4] = ["tapvs.raw", "tapvs.qcow2", "vmlinuz", "initramfs"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("same::the_image_is_small_and_the_manifest_says_what_it_is", small),
        trial("same::equal_manifests_are_equal_bytes_offline_too", twice),
    ]
}

fn small() -> Outcome {
    let manifest = fs::read_to_string(image("manifest.txt"))?;
    for name in OUTPUTS {
        let bytes = fs::read(image(name))?;
        ensure!(bytes.len() as u64 <= MOST_BYTES, "{name} has {} bytes", bytes.len());
        let hash = sha256(&bytes);
        let told = manifest.lines().any(|line| line.starts_with(&hash) && line.contains(name));
        ensure!(told, "the manifest does not know this {name}");
    }
    Ok(())
}

/// Everything once more, from a copy of the sources that lies elsewhere and a copy of the cache, without
/// asking anybody.
fn twice() -> Outcome {
    let scratch = Scratch::new().context("cannot make a temporary directory")?;
    let plan = Plan::default();
    let elsewhere = scratch.path().join("some/other/place");
    let other = Plan {
        root: elsewhere.join("sources"),
        output: elsewhere.join("image"),
        cache: elsewhere.join("cache"),
        target: elsewhere.join("programs"),
        programs: None,
        offline: true,
    };
    copy(&plan.root, &other.root, &|name| name != "target" && name != ".git")?;
    copy(&plan.cache.join("debs"), &other.cache.join("debs"), &|_| true)?;
    fs::copy(plan.cache.join("packages"), other.cache.join("packages"))?;
    build(&other).context("the second build")?;
    let first = fs::read_to_string(image("manifest.txt"))?;
    let second = fs::read_to_string(other.output.join("manifest.txt"))?;
    ensure!(first == second, "the manifests differ:\n{first}\n---\n{second}");
    for name in OUTPUTS {
        let same = fs::read(image(name))? == fs::read(other.output.join(name))?;
        ensure!(same, "{name} differs, though the manifests are equal");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&OsStr) -> bool) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() && wanted(&entry.file_name()) {
            copy(&entry.path(), &target, wanted)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

//! How much memory there is to plan with, and how large its pages are.
#![expect(unsafe_code, reason = "sysconf and madvise have no safe wrapper in std")]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fs, ptr};

const CGROUPS: &str = "/sys/fs/cgroup";
/// The largest page size in common use, which is a multiple of all others.
const PAGE: usize = 65_536;
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of memory this process may use: the machine's, or its control group's limit if lower.
pub fn total() -> u64 {
    let text = |path: &Path| fs::read_to_string(path).ok();
    installed().min(cgroup_limit(text).unwrap_or(u64::MAX))
}

/// Bytes of the machine's memory that could be had now without harm to anybody, as the kernel
/// estimates.
pub fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available_in(&text).unwrap_or(u64::MAX)
}

fn available_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

/// Asks for huge pages where memory of this process lies at `addresses`: a table that is searched
/// all over finds its place without a walk through page tables. A kernel without them says no, and
/// nothing else changes.
pub fn prefer_huge_pages(addresses: Range<usize>) {
    // Pages at the edges belong to others, too; the rest is what the kernel asks for.
    let start = addresses.start.next_multiple_of(PAGE);
    let length = (addresses.end & !(PAGE - 1)).saturating_sub(start);
    if length < HUGE_PAGE {
        return;
    }
    // SAFETY: this advice changes neither content nor access of any page, wherever it is.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), length, libc::MADV_HUGEPAGE) };
}

fn installed() -> u64 {
    // SAFETY: sysconf takes a number, returns a number and touches no memory of ours.
    let (pages, size) =
        unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(size).unwrap_or(0))
}

/// The tightest limit from the process's group up to the root; version 2, else version 1.
fn cgroup_limit(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let (root, file) = if controllers.is_empty() {
            (PathBuf::from(CGROUPS), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (Path::new(CGROUPS).join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        let group = root.join(group.trim_start_matches('/'));
        // In a container the named group may lie outside what is mounted; the root still is.
        let above = group.ancestors().take_while(|path| path.starts_with(&root));
        // "max" is no limit and no number.
        above.filter_map(|path| read(&path.join(file))?.trim().parse::<u64>().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_available_is_the_kernels_estimate() {
        let text = "MemTotal:  93788 kB\nMemFree:  1 kB\nMemAvailable:      2 kB\n";
        assert_eq!(available_in(text), Some(2_048));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
        assert!(available() > 0);
    }

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        cgroup_limit(|path| files.get(path.to_str()?).map(|text| (*text).to_owned()))
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(total() > 16 << 20, "{}", total());
    }

    #[test]
    fn the_tightest_group_counts() {
        let group = ("/proc/self/cgroup", "0::/system.slice/tapvs.service\n");
        let outer = ("/sys/fs/cgroup/system.slice/memory.max", "1000000\n");
        let inner = |text| ("/sys/fs/cgroup/system.slice/tapvs.service/memory.max", text);
        assert_eq!(limit(&[group, outer, inner("max\n")]), Some(1_000_000));
        assert_eq!(limit(&[group, outer, inner("4096\n")]), Some(4_096));
        assert_eq!(limit(&[group]), None);
        assert_eq!(limit(&[]), None);
    }

    #[test]
    fn version_one_and_a_container_root_are_understood() {
        let groups = ("/proc/self/cgroup", "12:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n");
        let root = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(limit(&[groups, root]), Some(512 << 20));
    }
}

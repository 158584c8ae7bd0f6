//! Which of the kernel's modules are in the image, and the index that PID 1 loads them by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::elf;

/// Loaded whatever the devices are.
const ALWAYS: [&str; 3] = ["tun", "bridge", "macvtap"];

/// Not needed for forwarding, so loaded when the router does, for all that devices ask for them before.
const LATER: [&str; 9] = [
    "button",
    "evdev",
    "hyperv_keyboard",
    "hv_utils",
    "i6300esb",
    "softdog",
    "virtio_balloon",
    "virtio_console",
    "virtio_rng",
];

/// Controllers that wait for their disks: they are not waited for where there is a disk already.
const SLOW: [&str; 5] = ["ahci", "ata_piix", "hv_storvsc", "virtio_scsi", "vmw_pvscsi"];

/// Loaded when a device asks for them, or PID 1 does by name.
const ON_DEMAND: [&str; 33] = [
    // Virtual machines of the virtio kind, also without PCI.
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    // VMware.
    "vmxnet3",
    "vmw_pvscsi",
    // Hyper-V and Azure.
    "hv_vmbus",
    "hv_netvsc",
    "hv_storvsc",
    "hv_utils",
    "hyperv_keyboard",
    "pci_hyperv",
    // Amazon, Google, Xen.
    "ena",
    "gve",
    "xen_netfront",
    "xen_blkfront",
    // Disks and discs, and file systems on them; FAT's with what its defaults say about names.
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "isofs",
    "nvme",
    "sd_mod",
    "sr_mod",
    "ata_piix",
    "ahci",
    // The power button, input, watchdogs.
    "button",
    "evdev",
    "softdog",
    "i6300esb",
];

/// One module.
struct Module {
    bytes: Vec<u8>,
    needs: Vec<String>,
    aliases: Vec<String>,
}

/// The chosen modules of a kernel.
pub(crate) struct Chosen {
    /// Name and content, those of the index.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// For PID 1; `appliance/src/modules.rs` reads it.
    pub(crate) index: String,
    /// Built into this kernel.
    pub(crate) built_in: Vec<&'static str>,
    /// Not in this kernel at all.
    pub(crate) missing: Vec<&'static str>,
}

/// Chooses among the modules below `folder` (`lib/modules/VERSION`).
pub(crate) fn choose(folder: &Path) -> Result<Chosen, String> {
    let all = find(folder)?;
    let built_in_list = folder.join("modules.builtin");
    let built_in_text = fs::read_to_string(&built_in_list)
        .map_err(|error| format!("{}: {error}", built_in_list.display()))?;
    let built_in: BTreeSet<String> =
        built_in_text.lines().map(|line| name(Path::new(line))).collect();
    let mut modules = BTreeMap::new();
    let mut chosen = Chosen {
        files: BTreeMap::new(),
        index: String::new(),
        built_in: Vec::new(),
        missing: Vec::new(),
    };
    for wanted in ALWAYS.into_iter().chain(ON_DEMAND) {
        if all.contains_key(&normal(wanted)) {
            add(&normal(wanted), &all, &built_in, &mut modules)?;
        } else if built_in.contains(&normal(wanted)) {
            chosen.built_in.push(wanted);
        } else {
            chosen.missing.push(wanted);
        }
    }
    for (name, Module { needs, aliases, .. }) in &modules {
        let line = format!("module {name} {}", needs.join(","));
        let _ = writeln!(chosen.index, "{}", line.trim_end());
        for alias in aliases {
            let _ = writeln!(chosen.index, "alias {name} {alias}");
        }
    }
    for (when, names) in [("always", &ALWAYS[..]), ("later", &LATER), ("slow", &SLOW)] {
        let names = names.iter().map(|name| normal(name));
        for name in names.filter(|name| modules.contains_key(name)) {
            let _ = writeln!(chosen.index, "{when} {name}");
        }
    }
    chosen.files = modules.into_iter().map(|(name, module)| (name, module.bytes)).collect();
    Ok(chosen)
}

/// A module, and before it all that it needs.
fn add(
    name: &str,
    all: &BTreeMap<String, PathBuf>,
    built_in: &BTreeSet<String>,
    modules: &mut BTreeMap<String, Module>,
) -> Result<(), String> {
    if modules.contains_key(name) {
        return Ok(());
    }
    let path =
        all.get(name).ok_or_else(|| format!("the module `{name}` is needed and not there"))?;
    let mut module = read(path)?;
    module.needs.retain(|needed| !built_in.contains(needed));
    let needs = module.needs.clone();
    modules.insert(name.to_owned(), module);
    for needed in needs {
        add(&needed, all, built_in, modules)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Module, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let info = elf::section(&bytes, ".modinfo")
        .ok_or_else(|| format!("{}: no kernel module: it has no .modinfo", path.display()))?;
    let (mut needs, mut aliases) = (Vec::new(), Vec::new());
    for field in info.split(|byte| *byte == 0) {
        match String::from_utf8_lossy(field).split_once('=') {
            Some(("depends", list)) => {
                needs.extend(list.split(',').filter(|name| !name.is_empty()).map(normal));
            }
            // Aliases of other kinds are for whoever asks by name.
            Some(("alias", alias)) if alias.contains(':') && !alias.contains(' ') => {
                aliases.push(alias.to_owned());
            }
            _ => {}
        }
    }
    aliases.sort();
    Ok(Module { bytes, needs, aliases })
}

/// Every module below a folder, by name.
fn find(folder: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let path = entry.path();
            if entry.file_type().map_err(wrong)?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                found.insert(name(&path), path);
            }
        }
    }
    Ok(found)
}

/// `kernel/net/802/stp.ko` is the module `stp`.
fn name(path: &Path) -> String {
    normal(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// To the kernel a dash in a module's name is an underscore.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_the_file_in_the_kernels_spelling() {
        assert_eq!(name(Path::new("kernel/drivers/net/xen-netfront.ko")), "xen_netfront");
        assert_eq!(normal("nls_iso8859-1"), "nls_iso8859_1");
    }

    #[test]
    fn what_is_chosen_is_chosen_once() {
        let all: BTreeSet<_> = ALWAYS.into_iter().chain(ON_DEMAND).collect();
        assert_eq!(all.len(), ALWAYS.len() + ON_DEMAND.len());
        let timed = LATER.iter().chain(&SLOW);
        assert!(timed.clone().all(|name| ON_DEMAND.contains(name)), "loaded by somebody");
        assert_eq!(timed.collect::<BTreeSet<_>>().len(), LATER.len() + SLOW.len());
    }
}

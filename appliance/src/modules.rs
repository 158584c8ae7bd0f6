//! Kernel modules: which a device wants, what they need first, loading them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::{files, glob};

/// The watchdog in software fires after half a minute; a disk controller that is loaded has found its disks.
const PARAMETERS: &[(&str, &CStr)] = &[("softdog", c"soft_margin=30"), ("scsi_mod", c"scan=sync")];

/// `MODULE_INIT_IGNORE_MODVERSIONS` of `linux/module.h`: neither the module's signature is verified nor
/// that its kernel is this one. It came in the same file as the kernel and as this program, which nobody
/// has verified either, and an RSA signature takes longer than all the rest of loading.
const UNVERIFIED: i32 = 1;

/// What `image/build` wrote down about the modules in the image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    needs: BTreeMap<String, Vec<String>>,
    aliases: Vec<(String, String)>,
    always: Vec<String>,
    later: BTreeSet<String>,
    slow: BTreeSet<String>,
}

impl Index {
    /// Lines of `module NAME [NEEDED,...]`, `alias NAME PATTERN`, and `always NAME`, `later NAME` or
    /// `slow NAME`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut index = Self::default();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["module", name] => drop(index.needs.insert(name.into(), Vec::new())),
                ["module", name, needs] => {
                    let needs = needs.split(',').map(str::to_owned).collect();
                    index.needs.insert(name.into(), needs);
                }
                ["alias", name, pattern] => index.aliases.push((pattern.into(), name.into())),
                ["always", name] => index.always.push(name.into()),
                ["later", name] => drop(index.later.insert(name.into())),
                ["slow", name] => drop(index.slow.insert(name.into())),
                _ => {}
            }
        }
        index
    }

    /// The modules that a device with this alias wants.
    fn wanted<'i>(&'i self, modalias: &str) -> impl Iterator<Item = &'i str> {
        let found =
            self.aliases.iter().filter(move |(pattern, _)| glob::matches(pattern, modalias));
        found.map(|(_, name)| name.as_str())
    }

    /// The module and all it needs, those that are needed first; without what is in `loaded`.
    fn order<'i>(&'i self, name: &'i str, loaded: &BTreeSet<String>) -> Vec<&'i str> {
        let mut order = Vec::new();
        self.visit(name, loaded, &mut BTreeSet::new(), &mut order);
        order
    }

    fn visit<'i>(
        &'i self,
        name: &'i str,
        loaded: &BTreeSet<String>,
        seen: &mut BTreeSet<&'i str>,
        order: &mut Vec<&'i str>,
    ) {
        if loaded.contains(name) || !seen.insert(name) {
            return;
        }
        for needed in self.needs.get(name).into_iter().flatten() {
            self.visit(needed, loaded, seen, order);
        }
        order.push(name);
    }
}

/// The modules of this machine.
#[derive(Debug)]
pub(crate) struct Modules {
    index: Index,
    /// Or about to be, in the background.
    loaded: BTreeSet<String>,
    /// What devices want and nobody waits for, until its time has come.
    later: Option<BTreeSet<String>>,
    /// Controllers that take their time to find disks.
    slow: Option<BTreeSet<String>>,
    background: Option<JoinHandle<Vec<String>>>,
    /// What could not be loaded, and why.
    pub(crate) failures: Vec<String>,
}

impl Modules {
    pub(crate) fn new() -> Self {
        let text = fs::read_to_string(files::MODULE_INDEX);
        let failures = match &text {
            Ok(_) => Vec::new(),
            Err(error) => vec![format!("{}: {error}", files::MODULE_INDEX)],
        };
        let index = Index::parse(&text.unwrap_or_default());
        Self {
            index,
            loaded: BTreeSet::new(),
            later: Some(BTreeSet::new()),
            slow: Some(BTreeSet::new()),
            background: None,
            failures,
        }
    }

    /// Those that no device asks for.
    pub(crate) fn load_always(&mut self) {
        for name in self.index.always.clone() {
            self.load(&name);
        }
    }

    /// Drivers for one device; whether any was not there before.
    pub(crate) fn load_for(&mut self, modalias: &str) -> bool {
        let before = self.loaded.len();
        for name in self.wanted(modalias) {
            self.load(&name);
        }
        self.loaded.len() > before
    }

    /// All that could wait; from now on nothing does.
    pub(crate) fn load_the_rest(&mut self) {
        for name in self.later.take().unwrap_or_default() {
            self.load(&name);
        }
    }

    /// Slow ones are loaded while the machine goes on; those that come later are not.
    pub(crate) fn load_slow(&mut self) {
        let mut order = Vec::new();
        for name in self.slow.take().unwrap_or_default() {
            let more = self.order(&name);
            self.loaded.extend(more.iter().cloned());
            order.extend(more);
        }
        if !order.is_empty() {
            self.background = Some(thread::spawn(move || insert_all(&order)));
        }
    }

    /// A module with all that it needs.
    pub(crate) fn load(&mut self, name: &str) {
        let order = self.order(name);
        if order.is_empty() {
            return;
        }
        // What it needs may be among what is being loaded.
        self.finish();
        self.failures.extend(insert_all(&order));
        self.loaded.extend(order);
    }

    /// Whether some are being loaded in the background.
    pub(crate) fn is_busy(&self) -> bool {
        self.background.as_ref().is_some_and(|background| !background.is_finished())
    }

    /// What a device with this alias wants now.
    fn wanted(&mut self, modalias: &str) -> Vec<String> {
        let mut wanted: Vec<String> = self.index.wanted(modalias).map(str::to_owned).collect();
        let kinds = [(&mut self.later, &self.index.later), (&mut self.slow, &self.index.slow)];
        for (kept, kind) in kinds {
            if let Some(kept) = kept {
                kept.extend(wanted.extract_if(.., |name| kind.contains(name)));
            }
        }
        wanted
    }

    fn order(&self, name: &str) -> Vec<String> {
        self.index.order(name, &self.loaded).into_iter().map(str::to_owned).collect()
    }

    /// Waits for the background.
    fn finish(&mut self) {
        if let Some(background) = self.background.take() {
            self.failures.extend(background.join().unwrap_or_default());
        }
    }
}

/// In this order; one that fails does not keep the others from being tried. What failed, and why.
fn insert_all(names: &[String]) -> Vec<String> {
    let mut failures = Vec::new();
    for name in names {
        if let Err(error) = insert(name) {
            failures.push(format!("module {name}: {error}"));
        }
        // The file is in memory as well, and not needed again.
        drop(fs::remove_file(path(name)));
    }
    failures
}

fn insert(name: &str) -> io::Result<()> {
    let file = File::open(path(name))?;
    let parameters =
        PARAMETERS.iter().find(|(of, _)| *of == name).map_or(c"", |(_, parameters)| parameters);
    let inserted = match finit_module(&file, parameters, UNVERIFIED) {
        // A kernel that insists, because of secure boot or its command line.
        Err(Errno::PERM | Errno::KEYREJECTED | Errno::NOEXEC) => finit_module(&file, parameters, 0),
        inserted => inserted,
    };
    match inserted {
        // EEXIST: it is there. ENODEV: it found nothing to do.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(files::MODULES).join(format!("{name}.ko"))
}

/// What the devices that there are want drivers by; of those that drivers bring in turn there is news.
pub(crate) fn wanted_by_devices() -> BTreeSet<String> {
    modaliases(Path::new("/sys/bus"))
}

/// The aliases of all devices on all buses: whatever wants a driver is on one, and the way through the
/// whole tree of devices takes many times as long.
fn modaliases(buses: &Path) -> BTreeSet<String> {
    let list = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let devices = list(buses.into()).flat_map(|bus| list(bus.path().join("devices")));
    // A device may go while it is looked at, and some have none.
    let texts =
        devices.filter_map(|device| fs::read_to_string(device.path().join("modalias")).ok());
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "module virtio\nmodule virtio_ring virtio\nmodule failover\n\
                        module net_failover failover\nmodule virtio_net virtio_ring,virtio,net_failover\n\
                        alias virtio_net virtio:d00000001v*\nalways tun\nmodule tun\n# nothing\n\
                        module virtio_rng virtio\nalias virtio_rng virtio:d00000004v*\nlater virtio_rng\n\
                        slow ata_piix\n";

    #[test]
    fn a_device_gets_its_driver_after_all_that_it_needs() {
        let index = Index::parse(TEXT);
        let wanted: Vec<_> = index.wanted("virtio:d00000001v00001AF4").collect();
        assert_eq!(wanted, ["virtio_net"]);
        assert_eq!(index.wanted("virtio:d00000002v00001AF4").count(), 0);
        let order = index.order("virtio_net", &BTreeSet::new());
        assert_eq!(order, ["virtio", "virtio_ring", "failover", "net_failover", "virtio_net"]);
        let loaded = ["virtio", "virtio_ring"].map(str::to_owned).into();
        assert_eq!(index.order("virtio_net", &loaded), ["failover", "net_failover", "virtio_net"]);
        assert_eq!(index.always, ["tun"]);
        assert_eq!(index.slow, ["ata_piix".to_owned()].into());
    }

    #[test]
    fn what_nobody_waits_for_is_kept_until_its_time() {
        let mut modules = Modules::new();
        modules.index = Index::parse(TEXT);
        assert_eq!(modules.wanted("virtio:d00000004v00001AF4"), [""; 0]);
        assert_eq!(modules.wanted("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(modules.later.take(), Some(["virtio_rng".to_owned()].into()));
        assert_eq!(
            modules.wanted("virtio:d00000004v00001AF4"),
            ["virtio_rng"],
            "its time has come"
        );
    }

    #[test]
    fn modules_that_need_each_other_end_nowhere() {
        let index = Index::parse("module a b\nmodule b a\n");
        assert_eq!(index.order("a", &BTreeSet::new()), ["b", "a"]);
    }
}

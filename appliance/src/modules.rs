//! Kernel modules: which a device wants, what they need first, loading them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::{files, glob};

/// The watchdog in software fires after half a minute.
const PARAMETERS: &[(&str, &CStr)] = &[("softdog", c"soft_margin=30")];

/// What `image/build` wrote down about the modules in the image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    needs: BTreeMap<String, Vec<String>>,
    aliases: Vec<(String, String)>,
    always: Vec<String>,
}

impl Index {
    /// Lines of `module NAME [NEEDED,...]`, `alias NAME PATTERN` and `always NAME`.
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
    loaded: BTreeSet<String>,
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
        Self { index, loaded: BTreeSet::new(), failures }
    }

    /// Those that no device asks for.
    pub(crate) fn load_always(&mut self) {
        for name in self.index.always.clone() {
            self.load(&name);
        }
    }

    /// Drivers for all devices there are, and for those that they bring in turn.
    pub(crate) fn load_for_devices(&mut self) {
        let mut seen = BTreeSet::new();
        loop {
            let before = self.loaded.len();
            for alias in modaliases(Path::new("/sys/bus")) {
                if !seen.contains(&alias) {
                    self.load_for(&alias);
                    seen.insert(alias);
                }
            }
            if self.loaded.len() == before {
                return;
            }
        }
    }

    /// Drivers for one device.
    pub(crate) fn load_for(&mut self, modalias: &str) {
        let wanted: Vec<String> = self.index.wanted(modalias).map(str::to_owned).collect();
        for name in wanted {
            self.load(&name);
        }
    }

    /// A module with all that it needs.
    pub(crate) fn load(&mut self, name: &str) {
        let order: Vec<String> =
            self.index.order(name, &self.loaded).into_iter().map(str::to_owned).collect();
        for name in order {
            if let Err(error) = insert(&name) {
                self.failures.push(format!("module {name}: {error}"));
            }
            // The file is in memory as well, and not needed again.
            drop(fs::remove_file(path(&name)));
            // One that failed will fail again.
            self.loaded.insert(name);
        }
    }
}

fn insert(name: &str) -> io::Result<()> {
    let file = File::open(path(name))?;
    let parameters =
        PARAMETERS.iter().find(|(of, _)| *of == name).map_or(c"", |(_, parameters)| parameters);
    match finit_module(&file, parameters, 0) {
        // EEXIST: it is there. ENODEV: it found nothing to do.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(files::MODULES).join(format!("{name}.ko"))
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
                        alias virtio_net virtio:d00000001v*\nalways tun\nmodule tun\n# nothing\n";

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
    }

    #[test]
    fn modules_that_need_each_other_end_nowhere() {
        let index = Index::parse("module a b\nmodule b a\n");
        assert_eq!(index.order("a", &BTreeSet::new()), ["b", "a"]);
    }
}

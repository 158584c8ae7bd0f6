//! Packages from the Debian servers that this host uses, without touching its own package state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::manifest::sha256;
use crate::progress::{run, say};

/// The package that names the newest kernel for clouds.
const KERNEL: &str = "linux-image-cloud-amd64";
const STUB: &str = "systemd-boot-efi";
const BUSYBOX: &str = "busybox-static";

/// A package, unpacked.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) size: u64,
    pub(crate) root: PathBuf,
}

/// What the image takes from Debian.
pub(crate) struct Packages {
    pub(crate) kernel: Package,
    pub(crate) stub: Package,
    pub(crate) busybox: Package,
}

impl Packages {
    pub(crate) fn all(&self) -> [&Package; 3] {
        [&self.kernel, &self.stub, &self.busybox]
    }
}

/// An apt of our own, below a folder.
struct Apt {
    root: PathBuf,
}

/// Brings the packages into `cache` and unpacks them. Offline, what is there has to do.
pub(crate) fn provide(cache: &Path, offline: bool) -> Result<Packages, String> {
    let apt = Apt::new(cache)?;
    let names = match if offline { Err("asked not to".into()) } else { apt.update() } {
        Ok(()) => {
            let names = apt.newest()?;
            apt.download(&names)?;
            let list = names.join("\n");
            fs::write(cache.join("packages"), list).map_err(|e| format!("the cache: {e}"))?;
            names
        }
        Err(why) => {
            let reason = why.lines().last().unwrap_or_default();
            say(&format!("  no package server asked ({reason}); using the packages of last time"));
            let list = fs::read_to_string(cache.join("packages")).map_err(|_| {
                format!("no packages in {} yet: build once with a network\n{why}", cache.display())
            })?;
            list.lines().map(str::to_owned).collect()
        }
    };
    let [kernel, stub, busybox] = names.as_slice() else {
        return Err(format!("{}: a list of {} packages; remove it", cache.display(), names.len()));
    };
    Ok(Packages {
        kernel: apt.unpack(kernel)?,
        stub: apt.unpack(stub)?,
        busybox: apt.unpack(busybox)?,
    })
}

impl Apt {
    fn new(cache: &Path) -> Result<Self, String> {
        fs::create_dir_all(cache).map_err(|error| format!("{}: {error}", cache.display()))?;
        let root = cache.canonicalize().map_err(|error| format!("{}: {error}", cache.display()))?;
        for folder in ["state/lists/partial", "archives/partial", "debs", "unpacked"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        // Nothing is installed, as far as this apt knows.
        let status = root.join("state/status");
        fs::write(&status, "").map_err(|error| format!("{}: {error}", status.display()))?;
        Ok(Self { root })
    }

    /// The host's sources and keys, all else of our own.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let root = self.root.display();
        let options = [
            format!("Dir::State={root}/state"),
            format!("Dir::State::status={root}/state/status"),
            format!("Dir::Cache={root}"),
            "Dir::Log=/dev/null".into(),
            "APT::Architecture=amd64".into(),
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
            // Hooks of the host are for the host.
            "APT::Update::Post-Invoke-Success=".into(),
        ];
        command.args(options.iter().flat_map(|option| ["-o", option.as_str()]));
        command.env("LC_ALL", "C").current_dir(self.root.join("debs"));
        command
    }

    fn update(&self) -> Result<(), String> {
        say("  package lists");
        // Without this a server that cannot be reached is a warning only.
        run(self.command("apt-get").args(["update", "--error-on=any"])).map(drop)
    }

    /// The newest version of each, as `NAME=VERSION`.
    fn newest(&self) -> Result<Vec<String>, String> {
        let text = run(self.command("apt-cache").args(["depends", "--important", KERNEL]))?;
        let kernel = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let kernel = kernel.ok_or_else(|| format!("{KERNEL} names no kernel:\n{text}"))?;
        [kernel, STUB, BUSYBOX].into_iter().map(|name| self.candidate(name)).collect()
    }

    fn candidate(&self, name: &str) -> Result<String, String> {
        let text = run(self.command("apt-cache").args(["policy", name]))?;
        let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        match version {
            Some(version) if version != "(none)" => Ok(format!("{name}={version}")),
            _ => Err(format!("the package `{name}` is not in this host's apt sources")),
        }
    }

    fn download(&self, names: &[String]) -> Result<(), String> {
        for name in names {
            if self.file(name).is_some() {
                say(&format!("  {name}: in the cache"));
            } else {
                say(&format!("  {name}: downloading"));
                run(self.command("apt-get").args(["download", name]))?;
            }
        }
        Ok(())
    }

    /// Where a package's file is; apt writes a colon as `%3a`.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let (name, version) = name.split_once('=')?;
        let file = format!("{name}_{}_amd64.deb", version.replace(':', "%3a"));
        let path = self.root.join("debs").join(file);
        path.exists().then_some(path)
    }

    fn unpack(&self, name: &str) -> Result<Package, String> {
        let file = self
            .file(name)
            .ok_or_else(|| format!("the file of {name} is not in {}/debs", self.root.display()))?;
        let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let hash = sha256(&bytes);
        let root = self.root.join("unpacked").join(&hash);
        if !root.exists() {
            say(&format!("  {name}: unpacking"));
            // One that was interrupted is not taken for a whole one.
            let partial = root.with_extension("partial");
            drop(fs::remove_dir_all(&partial));
            run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&partial))?;
            fs::rename(&partial, &root).map_err(|error| format!("{}: {error}", root.display()))?;
        }
        let (name, version) = name.split_once('=').unwrap_or((name, ""));
        Ok(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: hash,
            size: bytes.len() as u64,
            root,
        })
    }
}

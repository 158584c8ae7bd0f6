//! The whole build, step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::Archive;
use crate::debian::{self, Package, Packages};
use crate::manifest::Manifest;
use crate::modules::{self, Chosen};
use crate::programs::{self, Programs};
use crate::progress::{run, say, size};
use crate::{disk, needs, uki};

/// The kernel's command line: both consoles, no chatter, no IPv6 of the kernel's own on the wire; huge
/// pages only for who asks for them, and none of the thousands of files of tracefs, which take 9 MB that
/// a small machine does not have.
pub const COMMAND_LINE: &str = "console=tty0 console=ttyS0,115200 quiet loglevel=4 panic=10 ipv6.disable=1 \
     transparent_hugepage=madvise initcall_blacklist=tracer_init_tracefs";
/// The most that an image may take.
pub const MOST_BYTES: u64 = 24 << 20;
/// The highest that needs no more memory to unpack than its window.
const COMPRESSION: i32 = 19;
/// 1 MiB: a machine with 96 MiB has nothing to spare while it unpacks.
const WINDOW_LOG: u32 = 20;
const DEFAULT_TOML: &[u8] = include_bytes!("../files/default.toml");
const README: &[u8] = include_bytes!("../files/README.txt");

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The source tree.
    pub root: PathBuf,
    /// Where the image goes.
    pub output: PathBuf,
    /// Where packages are kept.
    pub cache: PathBuf,
    /// Where programs are compiled.
    pub target: PathBuf,
    /// Programs that were compiled elsewhere: a folder with `tapvs` and `appliance`.
    pub programs: Option<PathBuf>,
    /// Ask nobody.
    pub offline: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize().unwrap_or(root);
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| root.join("target"));
        Self {
            output: target.join("image"),
            cache: target.join("image-cache"),
            target: target.join("image-programs"),
            root,
            programs: None,
            offline: false,
        }
    }
}

/// Builds everything; the error says what is missing or went wrong.
pub fn build(plan: &Plan) -> Result<(), String> {
    say("1/5 what this needs");
    needs::check()?;
    say("2/5 packages");
    let packages = debian::provide(&plan.cache, plan.offline)?;
    say("3/5 programs");
    let programs = match &plan.programs {
        Some(folder) => Programs::read(folder)?,
        None => programs::compile(&plan.root, &plan.target, plan.offline)?,
    };
    say("4/5 image");
    let parts = Parts::make(plan, &packages, programs)?;
    say("5/5 what came out");
    parts.write(plan)
}

/// What is written at the end.
struct Parts {
    manifest: Manifest,
    programs: Programs,
    kernel: Vec<u8>,
    initramfs: Vec<u8>,
    raw: Vec<u8>,
}

impl Parts {
    fn make(plan: &Plan, packages: &Packages, programs: Programs) -> Result<Self, String> {
        let (version, kernel) = kernel(&packages.kernel)?;
        let chosen = modules::choose(&packages.kernel.root.join("lib/modules").join(&version))?;
        say(&format!("  kernel {version}, {} modules", chosen.files.len()));
        if !chosen.missing.is_empty() {
            say(&format!("  not in this kernel: {}", chosen.missing.join(", ")));
        }
        let busybox = packages.busybox.root.join("bin/busybox");
        let busybox = fs::read(&busybox).map_err(|e| format!("{}: {e}", busybox.display()))?;
        let archive = archive(&chosen, &programs, &busybox);
        let initramfs = compress(&archive)
            .map_err(|error| format!("the initramfs cannot be compressed: {error}"))?;
        let (before, after) = (size(archive.len() as u64), size(initramfs.len() as u64));
        say(&format!("  initramfs {before}, compressed {after}"));

        let folder = plan.output.join("parts");
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let stub = packages.stub.root.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub");
        let name = format!("NAME=tapvs\nVERSION_ID={}\n", env!("CARGO_PKG_VERSION"));
        let unified = uki::make(&folder, &stub, COMMAND_LINE, &kernel, &initramfs, &name)?;
        drop(fs::remove_dir_all(&folder));
        let raw = disk::bootable(&[
            ("EFI/BOOT/BOOTX64.EFI", &unified),
            ("tapvs.toml", DEFAULT_TOML),
            ("README.txt", README),
        ])?;

        let mut manifest = Manifest::default();
        manifest.part("packages");
        for Package { name, version, sha256, size, .. } in packages.all() {
            manifest.fact(name, &format!("{version} {size} {sha256}"));
        }
        manifest.part("tools");
        manifest.fact("rustc", &programs::compiler(&plan.root)?);
        for tool in ["objcopy", "qemu-img"] {
            let text = run(Command::new(tool).arg("--version"))?;
            manifest.fact(tool, text.lines().next().unwrap_or_default());
        }
        manifest.part("inputs");
        manifest.fact("command line", COMMAND_LINE);
        manifest.file("tapvs", &programs.tapvs, env!("CARGO_PKG_VERSION"));
        manifest.file("appliance", &programs.appliance, env!("CARGO_PKG_VERSION"));
        manifest.file("tapvs.toml", DEFAULT_TOML, "");
        manifest.file("README.txt", README, "");
        for (name, bytes) in &chosen.files {
            manifest.file(&format!("{name}.ko"), bytes, &version);
        }
        manifest.fact("built into the kernel", &chosen.built_in.join(" "));
        manifest.fact("not in this kernel", &chosen.missing.join(" "));
        manifest.part("outputs");
        manifest.file("vmlinuz", &kernel, &version);
        manifest.file("initramfs", &initramfs, "");
        manifest.file("BOOTX64.EFI", &unified, "");
        manifest.file("tapvs.raw", &raw, "");
        Ok(Self { manifest, programs, kernel, initramfs, raw })
    }

    fn write(mut self, plan: &Plan) -> Result<(), String> {
        let path = |name: &str| plan.output.join(name);
        let write = |name: &str, bytes: &[u8]| {
            fs::write(path(name), bytes).map_err(|e| format!("{}: {e}", path(name).display()))
        };
        write("vmlinuz", &self.kernel)?;
        write("initramfs", &self.initramfs)?;
        write("tapvs.raw", &self.raw)?;
        // What went in, for whoever builds the same again.
        let programs = path("programs");
        fs::create_dir_all(&programs).map_err(|e| format!("{}: {e}", programs.display()))?;
        write("programs/tapvs", &self.programs.tapvs)?;
        write("programs/appliance", &self.programs.appliance)?;
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
        run(convert.arg(path("tapvs.raw")).arg(path("tapvs.qcow2")))?;
        let qcow2 =
            fs::read(path("tapvs.qcow2")).map_err(|error| format!("tapvs.qcow2: {error}"))?;
        self.manifest.file("tapvs.qcow2", &qcow2, "");
        write("manifest.txt", self.manifest.text().as_bytes())?;
        let direct = self.kernel.len() + self.initramfs.len();
        for (name, bytes) in [
            ("tapvs.raw", self.raw.len()),
            ("tapvs.qcow2", qcow2.len()),
            ("vmlinuz and initramfs", direct),
        ] {
            say(&format!("  {name}: {}", size(bytes as u64)));
            if bytes as u64 > MOST_BYTES {
                return Err(format!("{name} is larger than {}", size(MOST_BYTES)));
            }
        }
        say(&format!("  in {}", plan.output.display()));
        Ok(())
    }
}

fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(COMPRESSION)?;
    compressor.set_parameter(zstd::zstd_safe::CParameter::WindowLog(WINDOW_LOG))?;
    compressor.compress(bytes)
}

/// Its version and the kernel itself.
fn kernel(package: &Package) -> Result<(String, Vec<u8>), String> {
    let version = package.name.strip_prefix("linux-image-").unwrap_or(&package.name).to_owned();
    let path = package.root.join("boot").join(format!("vmlinuz-{version}"));
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((version, bytes))
}

/// The root file system.
fn archive(chosen: &Chosen, programs: &Programs, busybox: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in [
        "bin",
        "dev",
        "etc",
        "lib",
        "lib/modules",
        "media",
        "proc",
        "rescue",
        "run",
        "sys",
        "tmp",
        "usr",
        "usr/share",
        "usr/share/tapvs",
    ] {
        archive.folder(folder);
    }
    // The kernel opens it for PID 1, before anything is mounted.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.file("init", 0o755, &programs.appliance);
    archive.file("bin/tapvs", 0o755, &programs.tapvs);
    archive.file("rescue/busybox", 0o755, busybox);
    archive.file("usr/share/tapvs/default.toml", 0o644, DEFAULT_TOML);
    archive.file("lib/modules/index", 0o644, chosen.index.as_bytes());
    for (name, bytes) in &chosen.files {
        archive.file(&format!("lib/modules/{name}.ko"), 0o644, bytes);
    }
    archive.finish()
}

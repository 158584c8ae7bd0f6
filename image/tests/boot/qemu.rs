//! One virtual machine: QEMU as a process, its serial console as a screen, its monitor.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netns_tests::harness::long_trial;
use netns_tests::{Context as _, Failure, Outcome, Scratch, ensure, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tapvs::links::Namespace;
use tapvs_image::build::Plan;

const QEMU: &str = "qemu-system-x86_64";
const FIRMWARE: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];
/// Emulated, beside others on a busy machine: a boot takes 5 to 10 s on a quiet one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// What OVMF needs beside the kernel, in MiB: it holds the file, the image and the unpacked kernel at once.
pub(crate) const UEFI_MEMORY: u32 = 256;
/// How many devices can be plugged into a `q35` machine.
const PORTS: usize = 2;
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// What an image consists of.
pub(crate) fn image(name: &str) -> PathBuf {
    Plan::default().output.join(name)
}

/// A trial with the patience that an emulated machine needs.
pub(crate) fn trial(name: &'static str, run: fn() -> Outcome) -> Trial {
    long_trial(name, 4 * PATIENCE, run)
}

/// Whether everything is here; what is not is named, and nothing is skipped for want of it.
pub(crate) fn provide() -> Outcome {
    let there = Command::new(QEMU).arg("--version").output().is_ok_and(|out| out.status.success());
    ensure!(
        there,
        "`{QEMU}` is not here, and without it nothing can be tested. Run as root: \
         apt-get install --no-install-recommends qemu-system-x86"
    );
    firmware()?;
    for name in ["tapvs.raw", "tapvs.qcow2", "vmlinuz", "initramfs", "manifest.txt"] {
        let path = image(name);
        ensure!(path.exists(), "there is no {}: run image/build first", path.display());
    }
    Ok(())
}

fn firmware() -> Outcome<(&'static str, &'static str)> {
    let found = FIRMWARE.into_iter().find(|(code, _)| Path::new(code).exists());
    found.ok_or_else(|| Failure::new("no UEFI firmware is here. Run as root: apt-get install ovmf"))
}

/// How a machine starts.
#[derive(Clone, Debug)]
pub(crate) enum Boot {
    /// Kernel and initramfs, and words for the kernel's command line.
    Direct(&'static str),
    /// The same with a clock that counts instructions, one a nanosecond: how busy the computer is does not
    /// show in it. On the kind of machine that the documentation recommends: the older kind describes its
    /// interrupts by a program, which the kernel interprets for each device.
    Counted,
    /// This disk, by UEFI. On the kind of machine that the documentation recommends, too.
    Uefi(PathBuf),
}

impl Boot {
    /// QEMU's name for the kind of machine.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Direct(_) => "pc",
            Self::Counted | Self::Uefi(_) => "q35",
        }
    }
}

/// A machine to be.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) boot: Boot,
    /// MiB.
    pub(crate) memory: u32,
    /// TAPs, which QEMU makes, and the MAC addresses of the NICs at their other ends.
    pub(crate) nics: Vec<(String, String)>,
    /// More disks, each a file.
    pub(crate) disks: Vec<PathBuf>,
}

/// A machine that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Vm {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Screen>>,
    monitor: BufReader<UnixStream>,
    started: Instant,
    folder: PathBuf,
    /// Where the next device can be plugged in, on a machine with such ports.
    ports: std::ops::RangeInclusive<usize>,
}

/// What came out of the serial port.
struct Screen {
    parser: vt100::Parser,
    all: String,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parser.screen().contents())
    }
}

impl Vm {
    /// Starts it in a namespace, with files of its own in `scratch`.
    pub(crate) fn start(namespace: &Namespace, scratch: &Scratch, plan: &Machine) -> Outcome<Self> {
        let name = plan.nics.first().map_or("vm", |(tap, _)| tap);
        let folder = scratch.path().join(name);
        fs::create_dir_all(&folder)?;
        let socket = folder.join("qmp");
        let mut command = Command::new(QEMU);
        let kind = plan.boot.kind();
        command.args(["-nodefaults", "-machine", kind, "-cpu", "max", "-smp", "1"]);
        // A root complex takes nothing while it runs; its ports take a device each.
        let ports = if kind == "q35" { PORTS } else { 0 };
        for port in 1..=ports {
            command.arg("-device").arg(format!("pcie-root-port,id=port{port},chassis={port}"));
        }
        command.args(["-accel", "tcg,tb-size=64", "-display", "none", "-vga", "std"]);
        command.args(["-serial", "stdio", "-m", &format!("{}M", plan.memory)]);
        command.args(["-device", "virtio-rng-pci", "-no-reboot"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        match &plan.boot {
            Boot::Direct(_) | Boot::Counted => {
                let words = if let Boot::Direct(words) = plan.boot { words } else { "" };
                if matches!(plan.boot, Boot::Counted) {
                    command.args(["-icount", "shift=0"]);
                }
                command.arg("-kernel").arg(image("vmlinuz"));
                command.arg("-initrd").arg(image("initramfs"));
                let line = format!("{} {words}", tapvs_image::build::COMMAND_LINE);
                command.arg("-append").arg(line);
            }
            Boot::Uefi(disk) => {
                let (code, variables) = firmware()?;
                let own = folder.join("variables");
                fs::copy(variables, &own).context(variables)?;
                let drive = |more: &str, file: &Path| {
                    format!("if=pflash,format=raw,{more}file={}", file.display())
                };
                command.arg("-drive").arg(drive("readonly=on,", Path::new(code)));
                command.arg("-drive").arg(drive("", &own));
                let format =
                    if disk.extension().is_some_and(|e| e == "qcow2") { "qcow2" } else { "raw" };
                let drive = format!("if=virtio,format={format},file={}", disk.display());
                command.arg("-drive").arg(drive);
            }
        }
        for disk in &plan.disks {
            command.arg("-drive");
            command.arg(format!("if=virtio,format=raw,readonly=on,file={}", disk.display()));
        }
        for (number, (tap, mac)) in plan.nics.iter().enumerate() {
            let back = format!("tap,id=n{number},ifname={tap},script=no,downscript=no");
            let front = format!("virtio-net-pci,netdev=n{number},mac={mac},romfile=");
            command.args(["-netdev", &back, "-device", &front]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = namespace.spawn(&mut command).context("cannot start QEMU")?;
        let lost = || Failure::new("QEMU has no pipes");
        let keys = child.stdin.take().ok_or_else(lost)?;
        let mut output = child.stdout.take().ok_or_else(lost)?;
        let screen = Arc::new(Mutex::new(Screen {
            parser: vt100::Parser::new(ROWS, COLUMNS, 0),
            all: String::new(),
        }));
        thread::spawn({
            let screen = Arc::clone(&screen);
            move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut bytes) {
                    let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
                    screen.parser.process(&bytes[..length]);
                    screen.all.push_str(&String::from_utf8_lossy(&bytes[..length]));
                }
            }
        });
        let mut stream = None;
        eventually(Duration::from_secs(20), || {
            stream = UnixStream::connect(&socket).ok();
            stream.is_some() || !matches!(child.try_wait(), Ok(None))
        });
        let Some(stream) = stream else {
            drop(child.kill());
            let mut said = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                drop(stderr.read_to_string(&mut said));
            }
            drop(child.wait());
            return Err(Failure::new(format!("QEMU does not run: {said}")));
        };
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let monitor = BufReader::new(stream);
        let mut vm = Self { child, keys, screen, monitor, started, folder, ports: 1..=ports };
        let mut hello = String::new();
        vm.monitor.read_line(&mut hello).context("QEMU's monitor")?;
        vm.order("qmp_capabilities", json!({}))?;
        Ok(vm)
    }

    /// A command of QEMU's monitor.
    pub(crate) fn order(&mut self, command: &str, arguments: Value) -> Outcome<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.monitor.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut line = String::new();
            let length = self.monitor.read_line(&mut line).context(command)?;
            ensure!(length > 0, "QEMU ended while it was asked to {command}");
            let answer: Value = serde_json::from_str(&line)?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            ensure!(answer.get("error").is_none(), "{command}: {line}");
        }
    }

    /// Plugs a disk in while it runs.
    pub(crate) fn plug(&mut self, name: &str, disk: &Path) -> Outcome {
        self.order(
            "blockdev-add",
            json!({"node-name": name, "driver": "raw", "read-only": true,
                   "file": {"driver": "file", "filename": disk}}),
        )?;
        let mut device =
            json!({"driver": "virtio-blk-pci", "drive": name, "id": format!("{name}-device")});
        if let Some(port) = self.ports.next() {
            device["bus"] = format!("port{port}").into();
        }
        self.order("device_add", device).map(drop)
    }

    /// What the VGA screen shows, as a picture in the image's folder.
    pub(crate) fn picture(&mut self, name: &str) -> Outcome<PathBuf> {
        let path = self.folder.join(name);
        self.order("screendump", json!({"filename": path}))?;
        Ok(path)
    }

    /// What the serial console shows.
    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).parser.screen().contents()
    }

    /// Everything that ever came out of the serial port.
    pub(crate) fn all(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    /// Waits until the serial console shows all of `words`.
    pub(crate) fn wait_for(&self, words: &[&str]) -> Outcome<String> {
        let mut screen = String::new();
        let seen = eventually(PATIENCE, || {
            screen = self.screen();
            words.iter().all(|word| screen.contains(word))
        });
        ensure!(
            seen,
            "no {words:?} on the console in {} s; it shows:\n{screen}\n--- and before that ---\n{}",
            PATIENCE.as_secs(),
            tail(&self.all())
        );
        Ok(screen)
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) -> Outcome {
        self.keys.write_all(format!("{line}\r").as_bytes()).context("cannot type")?;
        self.keys.flush().context("cannot type")
    }

    /// Waits until the router forwards.
    pub(crate) fn ready(&self) -> Outcome<String> {
        self.wait_for(&["router running", "ms after PID 1"])
    }

    /// Processor time used so far: unlike a clock it does not tell how busy the machine is.
    pub(crate) fn processor_time(&self) -> Outcome<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> =
            text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let ticks = ticks(11).zip(ticks(12)).map_or(0, |(user, system)| user + system);
        // Linux tells programs of a hundred a second, whatever it counts itself.
        Ok(Duration::from_millis(ticks * 10))
    }

    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for its end, which must be its own doing.
    pub(crate) fn wait_until_off(&mut self) -> Outcome {
        let mut status = None;
        eventually(Duration::from_secs(60), || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        let status = status.ok_or_else(|| {
            Failure::new(format!("it does not power off; it shows:\n{}", self.screen()))
        })?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    /// As if the power failed.
    pub(crate) fn kill(&mut self) -> Outcome {
        kill_process(Pid::from_child(&self.child), Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

//! The machine's life: set up, turn, end. Introduces the other modules to one another.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::journal::Journal;
use crate::modules::Modules;
use crate::power::{Buttons, End};
use crate::router::{Router, pause};
use crate::source::{Files, Found};
use crate::state::State;
use crate::supervisor::BackOff;
use crate::uevent::{Event, Events};
use crate::watchdog::Watchdog;
use crate::{clock, disk, files, mounts, nics, power, rescue, router, source, watchdog};

/// Devices come in swarms: the last of them is waited for.
const SETTLE: Duration = Duration::from_millis(200);
/// Disks may appear some time after their controller's driver.
const SLOWEST_DISK: Duration = Duration::from_secs(3);
/// A configuration that the router dies of so often, before it was ready, does not work.
const TRIES: u32 = 3;
/// A console that ended is there again after this.
const CONSOLE_PAUSE: Duration = Duration::from_secs(1);
/// What some hypervisors send instead of the power button.
const SIGPWR: i32 = Signal::POWER.as_raw();
/// The longest that the loop sleeps: what it looks at may change without an event.
const BEAT: Duration = Duration::from_secs(1);
/// How long, and how often, the first forwarded frame is waited for.
const WATCHED: Duration = Duration::from_secs(120);
const CLOSELY: Duration = Duration::from_secs(5);
const CLOSE: Duration = Duration::from_millis(20);

/// Runs until the machine ends.
pub(crate) fn run() -> ExitCode {
    let started = clock::now();
    let failures = mounts::all();
    let mut machine = Machine::new(started);
    for failure in failures {
        machine.journal.warn(&failure);
    }
    machine.set_up();
    let end = machine.turn();
    machine.end(end)
}

/// What signals have asked for.
#[derive(Debug, Default)]
struct Asked {
    off: Arc<AtomicBool>,
    reboot: Arc<AtomicBool>,
    configure: Arc<AtomicBool>,
}

/// The configuration that the router was given.
#[derive(Clone, Debug)]
struct Running {
    place: String,
    files: Files,
    summary: String,
}

#[derive(Debug)]
struct Console {
    tty: String,
    child: Option<Child>,
    start_at: Duration,
    /// Its next life is a rescue shell.
    rescue: bool,
}

struct Machine {
    journal: Journal,
    modules: Modules,
    buttons: Buttons,
    events: Option<Events>,
    wake: Option<UnixStream>,
    asked: Asked,
    watchdog: Option<Watchdog>,
    fed: Duration,
    consoles: Vec<Console>,
    router: Option<Router>,
    start_at: Option<Duration>,
    back_off: BackOff,
    running: Option<Running>,
    last_good: Option<Running>,
    failed_starts: u32,
    last_words: String,
    /// What turned out not to work: it is not tried again before something changes.
    refused: Option<Files>,
    scan_at: Option<Duration>,
    look_at: Duration,
    ready_at: Option<Duration>,
    state: State,
    written: Option<State>,
}

impl Machine {
    fn new(started: Duration) -> Self {
        Self {
            journal: Journal::default(),
            modules: Modules::new(),
            buttons: Buttons::default(),
            events: None,
            wake: None,
            asked: Asked::default(),
            watchdog: None,
            fed: Duration::ZERO,
            consoles: Vec::new(),
            router: None,
            start_at: None,
            back_off: BackOff::default(),
            running: None,
            last_good: None,
            failed_starts: 0,
            last_words: String::new(),
            refused: None,
            scan_at: None,
            look_at: Duration::ZERO,
            ready_at: None,
            state: State { started_ms: millis(started), ..State::default() },
            written: None,
        }
    }

    /// The way to the first frame comes first; all else can wait for it.
    fn set_up(&mut self) {
        power::take_ctrl_alt_del();
        self.take_signals();
        match Events::open() {
            Ok(events) => self.events = Some(events),
            Err(error) => self.journal.warn(&format!("no news of devices: {error}")),
        }
        self.modules.load_always();
        self.modules.load_for_devices();
        self.bring_nics_up();
        self.wait_for_disks();
        self.configure(true);
        self.start_if_due();
        self.tell_failures();
        self.modules.load("evdev");
        self.buttons.look();
        if !std::path::Path::new("/dev/watchdog").exists() {
            self.modules.load("softdog");
        }
        self.watchdog = Watchdog::open();
        self.open_consoles();
        // The screen is the consoles' from now on.
        drop(fs::write("/proc/sys/kernel/printk", "1"));
        self.tell_failures();
    }

    fn turn(&mut self) -> End {
        loop {
            let now = clock::now();
            if now.saturating_sub(self.fed) >= watchdog::INTERVAL
                && let Some(watchdog) = &mut self.watchdog
            {
                watchdog.feed();
                self.fed = now;
            }
            self.start_if_due();
            if self.scan_at.is_some_and(|at| at <= now) {
                self.scan_at = None;
                self.configure(false);
            }
            self.run_consoles();
            self.watch_first_frame();
            self.tell_failures();
            self.write_state();
            self.sleep();
            self.hear_router();
            self.hear_devices();
            self.reap();
            if self.asked.configure.swap(false, Ordering::Relaxed) {
                self.journal.say("the configuration is read again, as asked");
                self.configure(true);
            }
            if self.asked.reboot.load(Ordering::Relaxed) {
                return End::Reboot;
            }
            if self.asked.off.load(Ordering::Relaxed) || self.buttons.pressed() {
                return End::Off;
            }
        }
    }

    /// The router takes its leave first, so that a peer takes over at once.
    fn end(mut self, how: End) -> ExitCode {
        self.journal.say(match how {
            End::Off => "powering off",
            End::Reboot => "rebooting",
        });
        self.state.router = "stopping".into();
        self.write_state();
        if let Some(router) = self.router.take() {
            for line in router.stop() {
                self.journal.router(&line);
            }
        }
        for console in &mut self.consoles {
            if let Some(child) = &mut console.child {
                drop(child.kill());
                drop(child.wait());
            }
        }
        // For whoever keeps the serial console's output.
        drop(fs::write("/dev/console", "\r\ntapvs: the router has stopped; the machine ends\r\n"));
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.stop();
        }
        match power::end(how) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                drop(fs::write("/dev/console", format!("cannot end: {error}\r\n")));
                // PID 1 must not end by itself: the kernel would panic.
                loop {
                    pause(BEAT);
                }
            }
        }
    }

    fn take_signals(&mut self) {
        let Asked { off, reboot, configure } = &self.asked;
        let flags =
            [(SIGTERM, off), (SIGINT, off), (SIGPWR, off), (SIGUSR1, reboot), (SIGHUP, configure)];
        for (signal, flag) in flags {
            if let Err(error) = signal_hook::flag::register(signal, Arc::clone(flag)) {
                self.journal.warn(&format!("signal {signal}: {error}"));
            }
        }
        let Ok((read, write)) = UnixStream::pair() else { return };
        drop(read.set_nonblocking(true));
        for signal in [SIGTERM, SIGINT, SIGPWR, SIGUSR1, SIGHUP, SIGCHLD] {
            if let Ok(write) = write.try_clone()
                && let Err(error) = signal_hook::low_level::pipe::register(signal, write)
            {
                self.journal.warn(&format!("signal {signal}: {error}"));
            }
        }
        self.wake = Some(read);
    }

    fn bring_nics_up(&mut self) {
        self.state.nics = nics::list();
        for nic in &self.state.nics {
            if let Err(error) = nics::set_up(&nic.name) {
                self.journal.warn(&format!("{} does not come up: {error}", nic.name));
            }
        }
    }

    /// Only where there may be one that has not come yet.
    fn wait_for_disks(&mut self) {
        let end = clock::now() + SLOWEST_DISK;
        while clock::now() < end && disk::may_come() && !source::is_there() {
            pause(Duration::from_millis(20));
            self.hear_devices();
        }
    }

    /// Finds the configuration and makes the router run it. `again`: also one that did not work.
    fn configure(&mut self, again: bool) {
        let Found { place, files } = source::find();
        let files = match files {
            Ok(files) => files,
            Err(why) => {
                self.refuse(vec![format!("{place}: {why}")]);
                return self.run_something();
            }
        };
        if !again && self.refused.as_ref() == Some(&files) {
            return;
        }
        self.refused = None;
        if let Some(running) = &mut self.running
            && running.files == files
        {
            running.place = place;
            self.state.mistakes.clear();
            return;
        }
        if !self.try_files(place, files) {
            self.run_something();
        }
    }

    /// Installs and starts it, if it is right.
    fn try_files(&mut self, place: String, files: Files) -> bool {
        if let Err(error) = source::install(&files) {
            self.refuse(vec![format!("{place}: cannot be kept in memory: {error}")]);
            return false;
        }
        match router::check() {
            Ok(summary) => {
                self.journal.say(&format!("configuration: {place}"));
                self.state.mistakes.clear();
                self.running = Some(Running { place, files, summary });
                self.failed_starts = 0;
                self.apply();
                true
            }
            Err(said) => {
                self.refuse(source::mistakes(&said, &place));
                self.refused = Some(files);
                if let Err(error) = source::restore() {
                    self.journal.warn(&format!("the configuration before is lost: {error}"));
                }
                false
            }
        }
    }

    fn refuse(&mut self, mistakes: Vec<String>) {
        for mistake in &mistakes {
            self.journal.warn(mistake);
        }
        self.state.mistakes = mistakes;
    }

    /// When nothing runs yet, the default does.
    fn run_something(&mut self) {
        if self.running.is_some() {
            return;
        }
        let mistakes = self.state.mistakes.clone();
        let Found { place, files } = source::built_in();
        match files {
            Ok(files) => drop(self.try_files(place, files)),
            Err(why) => self.journal.warn(&why),
        }
        self.state.mistakes.splice(0..0, mistakes);
    }

    /// The router takes the installed configuration over, if need be by a new start.
    fn apply(&mut self) {
        self.back_off.reset();
        let now = clock::now();
        let Some(router) = self.router.take() else {
            self.start_at = Some(now);
            return;
        };
        if router.ready && router::reload() {
            self.router = Some(router);
            self.last_good = self.running.clone();
            return;
        }
        self.journal.say("the router is started anew for it");
        for line in router.stop() {
            self.journal.router(&line);
        }
        self.start_at = Some(now);
    }

    fn start_if_due(&mut self) {
        if self.router.is_some() || self.start_at.is_none_or(|at| at > clock::now()) {
            return;
        }
        self.start_at = None;
        match Router::start() {
            Ok(router) => self.router = Some(router),
            Err(error) => {
                let delay = self.back_off.after(Duration::ZERO);
                self.journal.warn(&format!("{}: {error}", files::TAPVS));
                self.start_at = Some(clock::now() + delay);
            }
        }
    }

    fn hear_router(&mut self) {
        let Some(router) = &mut self.router else { return };
        let was_ready = router.ready;
        let lines = router.lines();
        let is_ready = router.ready;
        for line in lines {
            self.journal.router(&line);
            self.last_words = line;
        }
        if is_ready && !was_ready {
            self.ready_at.get_or_insert_with(clock::now);
            self.last_good = self.running.clone();
            self.failed_starts = 0;
        }
    }

    fn reap(&mut self) {
        if let Some(wake) = &mut self.wake {
            let _ = wake.read(&mut [0; 64]);
        }
        if let Some(router) = &mut self.router
            && let Some(how) = router.ended()
        {
            self.hear_router();
            self.router_died(&how);
        }
        let now = clock::now();
        for console in &mut self.consoles {
            if let Some(child) = &mut console.child
                && !matches!(child.try_wait(), Ok(None))
            {
                console.child = None;
                console.start_at = now + CONSOLE_PAUSE;
            }
        }
        // Orphans that have become PID 1's.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }

    fn router_died(&mut self, how: &str) {
        let Some(router) = self.router.take() else { return };
        let delay = self.back_off.after(clock::now().saturating_sub(router.since));
        self.state.restarts += 1;
        let delay_ms = delay.as_millis();
        self.journal.warn(&format!("the router ended ({how}); it is started in {delay_ms} ms"));
        self.start_at = Some(clock::now() + delay);
        if router.ready {
            return;
        }
        self.failed_starts += 1;
        if self.failed_starts >= TRIES {
            self.go_back();
        }
    }

    /// From a configuration that is right but does not work here to the last one that did.
    fn go_back(&mut self) {
        self.failed_starts = 0;
        let Some(bad) = self.running.take() else { return };
        let words = self.last_words.split_once("] ").map_or(&*self.last_words, |(_, text)| text);
        self.refuse(vec![format!("{}: the router does not start with it: {words}", bad.place)]);
        let mistakes = self.state.mistakes.clone();
        let good = self.last_good.clone().filter(|good| good.files != bad.files);
        self.refused = Some(bad.files.clone());
        let gone_back = match good {
            Some(good) => self.try_files(good.place, good.files),
            None => match source::built_in().files {
                Ok(files) if files != bad.files => self.try_files(source::built_in().place, files),
                _ => false,
            },
        };
        if !gone_back {
            self.running = Some(bad);
        }
        self.state.mistakes = mistakes;
    }

    fn hear_devices(&mut self) {
        let Some(events) = &self.events else { return };
        let mut more_nics = false;
        for Event { action, subsystem, modalias } in events.read() {
            if let Some(modalias) = modalias
                && action == "add"
            {
                self.modules.load_for(&modalias);
            }
            match (action.as_str(), subsystem.as_str()) {
                ("add" | "change", "block" | "") => self.scan_at = Some(clock::now() + SETTLE),
                ("add" | "move", "net") => more_nics = true,
                ("add", "input") => self.buttons.look(),
                _ => {}
            }
        }
        // TAPs and bridges are network devices too.
        let known = self.state.nics.len();
        if more_nics && nics::list().len() != known {
            self.bring_nics_up();
            self.back_off.reset();
            if self.refused.take().is_some() {
                self.scan_at = Some(clock::now() + SETTLE);
            }
        }
    }

    fn open_consoles(&mut self) {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let rescue = rescue::wanted(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
        if !rescue {
            // Nobody can start it, and it takes memory.
            drop(fs::remove_file(files::BUSYBOX));
        }
        let ttys = consoles(&active);
        // The last one is where the kernel's own /dev/console goes.
        let last = ttys.last().cloned();
        for tty in ttys {
            let rescue = rescue && Some(&tty) == last.as_ref();
            self.consoles.push(Console { tty, child: None, start_at: Duration::ZERO, rescue });
        }
    }

    fn run_consoles(&mut self) {
        let now = clock::now();
        for console in &mut self.consoles {
            if console.child.is_some() || console.start_at > now {
                continue;
            }
            let verb = if std::mem::take(&mut console.rescue) { "rescue" } else { "console" };
            let child = Command::new(files::SELF)
                .args([verb, &console.tty])
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            match child {
                Ok(child) => console.child = Some(child),
                Err(error) => {
                    self.journal.warn(&format!("console {}: {error}", console.tty));
                    console.start_at = now + CONSOLE_PAUSE;
                }
            }
        }
    }

    fn watch_first_frame(&mut self) {
        let now = clock::now();
        let Some(ready_at) = self.ready_at else { return };
        if self.state.ready_ms.is_none() {
            self.state.ready_ms = Some(millis(ready_at));
            let since = millis(ready_at).saturating_sub(self.state.started_ms);
            self.journal.say(&format!("the router is ready, {since} ms after PID 1 began"));
        }
        if self.state.forwarded_ms.is_some() || now > ready_at + WATCHED || now < self.look_at {
            return;
        }
        self.look_at = now + if now < ready_at + CLOSELY { CLOSE } else { BEAT };
        if router::has_forwarded() == Some(true) {
            let at = millis(clock::now());
            self.state.forwarded_ms = Some(at);
            let since = at.saturating_sub(self.state.started_ms);
            self.journal
                .say(&format!("the first frame was forwarded {since} ms after PID 1 began"));
        }
    }

    fn tell_failures(&mut self) {
        for failure in std::mem::take(&mut self.modules.failures) {
            self.journal.warn(&failure);
        }
    }

    fn write_state(&mut self) {
        let state = &mut self.state;
        state.nics = nics::list();
        if let Some(Running { place, summary, .. }) = &self.running {
            state.source.clone_from(place);
            state.summary.clone_from(summary);
        }
        if state.router != "stopping" {
            state.router = match &self.router {
                Some(router) if router.ready => format!("running, pid {}", router.pid()),
                Some(_) => "starting".into(),
                None => "waiting to be started again".into(),
            };
        }
        state.watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.identity.clone());
        state.log = self.journal.last();
        if self.written.as_ref() != Some(state) && state.write().is_ok() {
            self.written = Some(state.clone());
        }
    }

    /// Until something happens or is due.
    fn sleep(&mut self) {
        let now = clock::now();
        let starts = self.consoles.iter().filter(|console| console.child.is_none());
        let look = self.state.forwarded_ms.is_none() && self.ready_at.is_some();
        let due = [self.start_at, self.scan_at, look.then_some(self.look_at)].into_iter().flatten();
        let due = due.chain(starts.map(|console| console.start_at));
        let wait = due.map(|at| at.saturating_sub(now)).chain([BEAT]).min().unwrap_or(BEAT);
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        let events = self.events.as_ref().map(|events| events.as_fd());
        let wake = self.wake.as_ref().map(|wake| wake.as_fd());
        let router = self.router.as_ref().and_then(Router::fd);
        let all = events.into_iter().chain(wake).chain(router).chain(self.buttons.fds());
        fds.extend(all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or_default(),
            tv_nsec: wait.subsec_nanos().into(),
        };
        // A signal ends it early.
        let _ = poll(&mut fds, Some(&wait));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The terminals behind the kernel's consoles: `tty0` is whichever screen is shown, `tty1` the first.
fn consoles(active: &str) -> Vec<String> {
    let names = active.split_whitespace();
    names.map(|name| if name == "tty0" { "tty1" } else { name }.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::consoles;

    #[test]
    fn every_console_of_the_kernel_is_one() {
        assert_eq!(consoles("tty0 ttyS0\n"), ["tty1", "ttyS0"]);
        assert_eq!(consoles("hvc0\n"), ["hvc0"]);
        assert_eq!(consoles(""), [""; 0]);
    }
}

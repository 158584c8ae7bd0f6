//! The machine's life: set up, turn, end. Introduces the other modules to one another.

mod configuration;
mod consoles;
mod devices;
mod routing;
mod state;

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use self::consoles::Console;
use crate::journal::Journal;
use crate::modules::Modules;
use crate::power::{Buttons, End};
use crate::router::{Router, pause};
use crate::source::Files;
use crate::state::State;
use crate::steps::Steps;
use crate::supervisor::BackOff;
use crate::uevent::Events;
use crate::watchdog::Watchdog;
use crate::{clock, mounts, power, watchdog};

/// What some hypervisors send instead of the power button.
const SIGPWR: i32 = Signal::POWER.as_raw();
/// The longest that the loop sleeps: what it looks at may change without an event.
const BEAT: Duration = Duration::from_secs(1);
/// How often something is looked at that is expected at any moment.
const CLOSE: Duration = Duration::from_millis(20);
/// A router that is ready and has forwarded nothing yet has nothing to forward.
const AFTER_READY: Duration = Duration::from_millis(300);
/// The longest that a machine is without consoles, watchdog and power button, where the router neither
/// gets ready nor dies.
const AFTER_START: Duration = Duration::from_secs(10);

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
    /// What `tapvs check` says of it, as soon as there is time to ask.
    summary: Option<String>,
}

struct Machine {
    started: Duration,
    steps: Steps,
    /// Consoles, watchdog and all else that no frame needs are there.
    is_complete: bool,
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
            started,
            steps: Steps::new(started),
            is_complete: false,
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

    /// The way to the first frame comes first.
    fn set_up(&mut self) {
        power::take_ctrl_alt_del();
        self.take_signals();
        match Events::open() {
            Ok(events) => self.events = Some(events),
            Err(error) => self.journal.warn(&format!("no news of devices: {error}")),
        }
        self.steps.done("file systems", clock::now());
        self.modules.load_always();
        self.steps.done("modules", clock::now());
        self.meet_devices();
        self.steps.done("drivers", clock::now());
        self.wait_for_disks();
        // Nothing of what has been heard so far is news any more.
        self.scan_at = None;
        self.steps.done("disks", clock::now());
        self.configure(true);
        self.start_if_due();
        self.steps.done("configuration", clock::now());
        self.tell_failures();
    }

    /// All else waits until the router forwards, or cannot.
    fn complete(&mut self) {
        if self.is_complete || !self.is_time_for_the_rest() {
            return;
        }
        self.is_complete = true;
        self.modules.load_the_rest();
        self.modules.load("evdev");
        self.buttons.look();
        if !std::path::Path::new("/dev/watchdog").exists() {
            self.modules.load("softdog");
        }
        self.watchdog = Watchdog::open();
        self.open_consoles();
        // The screen is the consoles' from now on.
        drop(fs::write("/proc/sys/kernel/printk", "1"));
        self.summarize();
    }

    fn is_time_for_the_rest(&self) -> bool {
        let now = clock::now();
        let is_known = self.state.forwarded_ms.is_some()
            || self.state.restarts > 0
            || self.ready_at.is_some_and(|at| now.saturating_sub(at) >= AFTER_READY);
        (is_known && !self.modules.is_busy()) || now.saturating_sub(self.started) >= AFTER_START
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
            self.watch_first_frame();
            self.complete();
            self.run_consoles();
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
        self.reap_consoles();
        // Orphans that have become PID 1's.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }

    fn tell_failures(&mut self) {
        for failure in std::mem::take(&mut self.modules.failures) {
            self.journal.warn(&failure);
        }
    }

    /// Until something happens or is due.
    fn sleep(&mut self) {
        let now = clock::now();
        let starts = self.consoles.iter().filter(|console| console.child.is_none());
        let look = self.state.forwarded_ms.is_none() && self.ready_at.is_some();
        let due = [self.start_at, self.scan_at, look.then_some(self.look_at)].into_iter().flatten();
        let rest = self.ready_at.map_or(self.started + AFTER_START, |at| at + AFTER_READY);
        // The modules in the background end without a word.
        let rest = if self.modules.is_busy() { rest.max(now + CLOSE) } else { rest };
        let due = due.chain((!self.is_complete).then_some(rest));
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

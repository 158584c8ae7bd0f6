//! The control thread: waits for signals, clients, the file and the loop's messages, and never makes
//! the loop wait.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use log::{error, info, warn};
use mio::{Events, Poll, Registry, Token, Waker};

use super::desk::Desk;
use super::healths::{Cause, Line};
use super::limit::{Limits, Losses};
use super::pages::Pages;
use super::publisher::Publisher;
use super::reloads::Reloads;
use super::socket::Socket;
use super::traces::Traces;
use super::{Message, Notice, Order};
use crate::links::clock::Clock;
use crate::links::signals::{Signal, Signals};
use crate::links::watch::Watch;
use crate::time::{Duration, Instant};

pub(super) const SIGNALS: Token = Token(0);
pub(super) const MESSAGES: Token = Token(1);
pub(super) const WATCH: Token = Token(2);
/// The socket's, and those above are its clients'.
pub(super) const SOCKET: Token = Token(3);

/// A terminal and a parent process may both ask to stop: that is one wish, not two.
const ONE_WISH: Duration = Duration::from_secs(1);

/// All that the control thread owns.
#[derive(Debug)]
pub(super) struct Thread<N: Notice> {
    pub(super) publisher: Publisher,
    pub(super) messages: Receiver<Message<N>>,
    /// A stop is the sender hanging up: it cannot get lost in a full queue.
    pub(super) orders: Option<SyncSender<Order>>,
    pub(super) limits: Limits<N::Cause>,
    pub(super) health_limits: Limits<Cause>,
    /// What is to be said of servers, once the table of this generation is in use.
    pub(super) news: VecDeque<(u32, Line)>,
    pub(super) losses: Losses,
    pub(super) stopping_since: Option<Instant>,
    pub(super) registry: Registry,
    pub(super) socket: Socket,
    pub(super) desk: Desk,
    pub(super) pages: Pages,
    pub(super) traces: Traces,
    pub(super) reloads: Reloads,
    pub(super) watch: Option<Watch>,
    /// Last, so that the loop is woken when all else is gone, and sees that nobody orders it.
    pub(super) frame_loop: WakeOnDrop,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    /// The loop has said its last word.
    Finished,
    /// Asked to stop again while stopping.
    Abort,
}

impl<N: Notice> Thread<N> {
    /// Runs until the loop hangs up.
    ///
    /// # Errors
    /// When it cannot wait for signals.
    pub(super) fn run(
        mut self,
        mut poll: Poll,
        mut signals: Signals,
        clock: Clock,
    ) -> io::Result<()> {
        let mut events = Events::with_capacity(128);
        self.follow_watch();
        loop {
            let due = [
                self.losses.due_at(),
                self.reloads.due_at(),
                self.socket.due_at(),
                self.publisher.health_due_at(),
                self.traces.due_at(),
            ];
            let timeout = due.into_iter().flatten().min().map(|due| {
                let now = clock.now();
                if due > now { (due - now).into() } else { std::time::Duration::ZERO }
            });
            match poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let now = clock.now();
            events.iter().for_each(|event| self.socket.note(event, now));
            // All are looked at, whichever woke: what comes twice is seen once, and nothing is lost.
            let next = self.handle_signals(signals.pending(), now);
            self.handle_file(now);
            self.handle_clients(now);
            let next = (next, self.handle_messages(now));
            self.handle_traces(&clock, now);
            match next {
                (Next::Abort, _) => {
                    let router = self.publisher.config().router.name.as_str();
                    error!(router; "asked to stop again: leaving at once");
                    // Not without the socket's file.
                    drop(self);
                    std::process::exit(1);
                }
                (_, Next::Finished) => return Ok(()),
                _ => self.follow_health(now),
            }
        }
    }

    fn handle_signals(&mut self, signals: impl Iterator<Item = Signal>, now: Instant) -> Next {
        for signal in signals {
            match signal {
                Signal::Reload => self.reloads.ask(None),
                // When the queue is full the same is ordered already.
                Signal::Report => drop(self.order(Order::Report)),
                Signal::Stop => match self.stopping_since {
                    None => {
                        let router = self.publisher.config().router.name.as_str();
                        let generation = self.publisher.generation();
                        info!(router, generation; "stopping");
                        self.stopping_since = Some(now);
                        self.orders = None;
                        self.frame_loop.wake();
                    }
                    Some(since) if now < since + ONE_WISH => {}
                    Some(_) => return Next::Abort,
                },
            }
        }
        Next::Wait
    }

    fn handle_messages(&mut self, now: Instant) -> Next {
        let next = loop {
            match self.messages.try_recv() {
                Ok(message) => self.handle_message(message, now),
                Err(TryRecvError::Empty) => break Next::Wait,
                Err(TryRecvError::Disconnected) => break Next::Finished,
            }
        };
        let lost = match next {
            Next::Finished => Some(self.losses.untold()).filter(|count| *count > 0),
            _ => self.losses.take_due(now),
        };
        if let Some(events) = lost {
            warn!(events; "events came too fast to be logged");
        }
        next
    }

    pub(super) fn handle_message(&mut self, message: Message<N>, now: Instant) {
        match message {
            Message::Applied(generation) => self.handle_applied(generation, now),
            Message::Reply(reply) => self.handle_reply(reply, now),
            Message::Health(change) => {
                let lines = self.publisher.changed(&change, now);
                self.keep_news(lines);
            }
            Message::Silent { server, is_asked } => {
                let lines = self.publisher.silent(server, is_asked, now);
                self.keep_news(lines);
            }
            Message::ChecksBehind => {
                let checks = self.publisher.published().load().checks().checks().len();
                self.log_health(&Line::behind(checks), now);
            }
            Message::Page(id, request) => self.handle_page(id, request, now),
            Message::TraceOver(tracer) => drop(tracer),
            Message::ServiceGone(id) => self.publisher.service_gone(id),
            Message::ServerGone(id) => self.publisher.server_gone(id),
            Message::Lost(count) => self.losses.add(count),
            Message::Notice(notice) => self.log(&notice, now),
        }
    }

    /// Publishes what has become of servers, if it is time to.
    fn follow_health(&mut self, now: Instant) {
        let lines = self.publisher.retry_silent(now);
        self.keep_news(lines);
        if self.publisher.follow_health(now) {
            self.frame_loop.wake();
        }
    }

    /// Said when it is so: the loop is to work with the next table first.
    fn keep_news(&mut self, lines: Vec<Line>) {
        let next = self.publisher.generation().wrapping_add(1);
        self.news.extend(lines.into_iter().map(|line| (next, line)));
    }

    /// The loop works with `generation`.
    pub(super) fn tell_news(&mut self, generation: u32, now: Instant) {
        // Generations wrap.
        let is_true = |next: u32| generation.wrapping_sub(next) < 1 << 31;
        while let Some((_, line)) = self.news.pop_front_if(|(next, _)| is_true(*next)) {
            self.log_health(&line, now);
        }
    }

    fn log_health(&mut self, Line { cause, entry }: &Line, now: Instant) {
        if may_log(&mut self.health_limits, *cause, now) {
            entry.write(cause.level());
        }
    }

    fn log(&mut self, notice: &N, now: Instant) {
        if let Some(cause) = notice.cause()
            && !may_log(&mut self.limits, cause, now)
        {
            return;
        }
        notice.entries().iter().for_each(|entry| entry.write(notice.level()));
    }

    /// Whether there was room for it.
    pub(super) fn order(&self, order: Order) -> bool {
        let Some(orders) = &self.orders else { return false };
        let sent = orders.try_send(order).is_ok();
        self.frame_loop.wake();
        sent
    }
}

/// Whether one more line of `cause` may be logged; says how many before it were not.
fn may_log<C: PartialEq>(limits: &mut Limits<C>, cause: C, now: Instant) -> bool {
    let (allowed, left_out) = limits.allow(cause, now);
    if left_out > 0 {
        warn!(count = left_out; "more lines like the next one were not logged");
    }
    allowed
}

/// Wakes the loop when dropped: it must notice that its control thread is gone.
#[derive(Debug)]
pub(super) struct WakeOnDrop(pub(super) Arc<Waker>);

impl WakeOnDrop {
    pub(super) fn wake(&self) {
        if let Err(error) = self.0.wake() {
            error!(error:%; "the loop cannot be woken");
        }
    }
}

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.wake();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::control::tests::{Word, config};
    use crate::links::listener::Listener;
    use crate::links::recorder::logged;
    use crate::links::scratch::Scratch;

    /// A thread whose file is not there, and the other ends of its queues.
    pub(in crate::control) fn thread(
        poll: &Poll,
    ) -> (Thread<Word>, SyncSender<Message<Word>>, Receiver<Order>) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let scratch = Scratch::new(&format!("thread-{number}"));
        // It goes with its directory, but that is nothing to this thread.
        let listener = Listener::open(&scratch.path().join("s")).unwrap();
        let registry = || poll.registry().try_clone().unwrap();
        let (sender, messages) = sync_channel(8);
        let (orders, ordered) = sync_channel(2);
        let waker = Waker::new(poll.registry(), Token(9)).unwrap();
        let thread = Thread {
            publisher: Publisher::new(Path::new("tests/no-such-file.toml"), config()),
            messages,
            orders: Some(orders),
            limits: Limits::default(),
            health_limits: Limits::default(),
            news: VecDeque::new(),
            losses: Losses::default(),
            stopping_since: None,
            registry: registry(),
            socket: Socket::new(Some(listener), registry(), SOCKET).unwrap(),
            desk: Desk::default(),
            pages: Pages::new(sync_channel(1).0),
            traces: Traces::new(sync_channel(2).0),
            reloads: Reloads::default(),
            watch: None,
            frame_loop: WakeOnDrop(Arc::new(waker)),
        };
        (thread, sender, ordered)
    }

    #[test]
    fn stop_hangs_up_and_a_later_stop_aborts() {
        let poll = Poll::new().unwrap();
        let (mut thread, _sender, ordered) = thread(&poll);
        let mut stop = |ms| {
            let now = Instant::from_millis(ms);
            thread.handle_signals([Signal::Stop, Signal::Stop].into_iter(), now)
        };
        let lines = logged(|| assert_eq!(stop(5000), Next::Wait));
        assert_eq!(lines, ["INFO stopping router=lvs1 generation=1"]);
        assert_eq!(ordered.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(stop(5999), Next::Wait, "a terminal and a parent");
        assert_eq!(stop(6000), Next::Abort);
    }

    #[test]
    fn what_was_not_logged_is_counted_in_a_field() {
        let poll = Poll::new().unwrap();
        let (mut thread, sender, _ordered) = thread(&poll);
        let mut conflicts = |count, ms| {
            logged(|| {
                for _ in 0..count {
                    thread.log(&Word::Event("conflict"), Instant::from_millis(ms));
                }
            })
        };
        assert_eq!(conflicts(15, 0), ["INFO conflict"; 10]);
        let left_out = "WARN more lines like the next one were not logged count=5";
        assert_eq!(conflicts(1, 10_000), [left_out, "INFO conflict"]);
        sender.send(Message::Lost(7)).unwrap();
        sender.send(Message::ChecksBehind).unwrap();
        let lines = logged(|| assert_eq!(thread.handle_messages(Instant::ZERO), Next::Wait));
        assert_eq!(
            lines,
            [
                "WARN health checks are late: too many servers do not answer; raise the interval or lower the \
                 timeout checks=0",
                "WARN events came too fast to be logged events=7"
            ]
        );
    }

    #[test]
    fn reports_coalesce_and_never_block() {
        let poll = Poll::new().unwrap();
        let (mut thread, _sender, ordered) = thread(&poll);
        thread.handle_signals([Signal::Report; 100].into_iter(), Instant::ZERO);
        assert_eq!(ordered.try_iter().collect::<Vec<_>>(), [Order::Report, Order::Report]);
    }

    #[test]
    fn a_file_that_cannot_be_watched_is_told_of() {
        let poll = Poll::new().unwrap();
        let (mut thread, _sender, _ordered) = thread(&poll);
        let mut config = config();
        config.router.watch = true;
        // An empty path leads nowhere.
        thread.publisher = Publisher::new(Path::new(""), config);
        let lines = logged(|| thread.follow_watch());
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let begin = "ERROR the file cannot be watched; SIGHUP reloads it file= error=\"";
        assert!(line.starts_with(begin), "{line}");
    }

    #[test]
    fn a_file_that_is_gone_changes_nothing() {
        let poll = Poll::new().unwrap();
        let (mut thread, _sender, ordered) = thread(&poll);
        assert_eq!(thread.handle_signals([Signal::Reload].into_iter(), Instant::ZERO), Next::Wait);
        thread.handle_file(Instant::ZERO);
        assert_eq!(thread.reloads.due_at(), None, "it was tried");
        assert_eq!(thread.publisher.published().load().generation(), 1);
        assert_eq!(ordered.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn it_ends_after_the_loops_last_word() {
        let poll = Poll::new().unwrap();
        let (mut thread, sender, _ordered) = thread(&poll);
        for _ in 0..8 {
            sender.send(Message::Notice(Word::Event("conflict"))).unwrap();
        }
        assert_eq!(thread.handle_messages(Instant::ZERO), Next::Wait);
        sender.send(Message::Applied(1)).unwrap();
        drop(sender);
        assert_eq!(thread.handle_messages(Instant::ZERO), Next::Finished);
        assert_eq!(thread.limits.allow("conflict", Instant::ZERO), (true, 0), "the ninth");
        assert_eq!(thread.limits.allow("conflict", Instant::ZERO), (true, 0), "the tenth");
        assert_eq!(thread.limits.allow("conflict", Instant::ZERO), (false, 0));
    }
}

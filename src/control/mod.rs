//! The control thread: the one writer of the table.
//!
//! It reads the configuration, compiles and publishes tables, obeys signals, serves the control socket,
//! says what is on the status page and writes what the loop has to tell to the log. It never touches
//! a packet: what the loop tells is, to this room, something with a text, a level and a cause, or the
//! reply to a [`Question`].

mod changes;
mod client;
mod desk;
mod file;
mod healths;
mod limit;
mod overrides;
mod pages;
pub mod protocol;
mod publisher;
pub mod question;
mod reloads;
mod requests;
mod secret;
mod socket;
#[cfg(test)]
mod tests;
mod thread;
mod traces;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::{fmt, io};

use arc_swap::ArcSwap;
use mio::{Interest, Poll, Waker};

use crate::addr::{ServerId, ServiceId};
use crate::health::Change;
use crate::http::{ConnectionId, Request, Response};
use crate::links::clock::Clock;
use crate::links::listener::Listener;
use crate::links::signals::Signals;
use crate::table::Table;
use crate::trace::{self, Aim, Tracer};

pub use self::file::{LoadError, load};
pub use self::publisher::Publisher;
pub use self::words::Words;

use self::desk::Desk;
use self::pages::Pages;
use self::question::{Question, Reply};
use self::reloads::Reloads;
use self::socket::Socket;
use self::traces::Traces;

/// Messages that wait for the control thread before notices are lost.
const MESSAGES: usize = 256;
/// Orders that wait for the loop; what is ordered twice is done once.
const ORDERS: usize = 4;
/// Answers of the status page that wait for the loop: more than there are connections.
const RESPONSES: usize = 64;
/// Tracers that wait to be started or told of another table.
const TRACINGS: usize = 2 * trace::MOST;

/// Something the loop wants in the log.
pub trait Notice: fmt::Display + Send + 'static {
    /// Notices of the same cause share one rate limit.
    type Cause: PartialEq + Send;

    /// What it is about; `None` was asked for, is always logged and never lost.
    fn cause(&self) -> Option<Self::Cause>;

    /// How loud it is.
    fn level(&self) -> log::Level;

    /// What it is about, field by field.
    fn fields(&self) -> &[(&'static str, String)] {
        &[]
    }
}

/// What the loop tells the control thread.
#[derive(Debug)]
pub enum Message<N> {
    /// The loop works with this generation and holds no older table.
    Applied(u32),
    /// A removed service has left no trace: its id is free.
    ServiceGone(ServiceId),
    /// The last flow of a removed server is gone: its id is free.
    ServerGone(ServerId),
    /// A server's checks have changed their mind.
    Health(Change),
    /// A server has left so many of its clients unanswered that it is taken for down. Whoever
    /// `is_asked` comes back when a [`Message::Health`] says so.
    Silent {
        /// Which server.
        server: ServerId,
        /// Whether it is checked.
        is_asked: bool,
    },
    /// Checks come later than the configuration says.
    ChecksBehind,
    /// What [`Order::Ask`] asked for.
    Reply(Reply),
    /// Somebody asks for a page; [`Control::response`] has the answer, soon.
    Page(ConnectionId, Request),
    /// The reader of a tracer has gone, and so does it.
    TraceOver(Tracer),
    /// Something for the log. With a cause, the only kind that is lost when the queue is full.
    Notice(N),
    /// So many notices were lost.
    Lost(u64),
}

/// What the control thread wants from the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A notice with all counters.
    Report,
    /// A [`Message::Reply`]. No further one comes until it was given.
    Ask(Question),
    /// The end. Comes for ever once the control thread has hung up.
    Stop,
}

/// What the control thread wants traced.
#[derive(Debug)]
pub enum Tracing {
    /// From now on.
    Start(Tracer),
    /// The tracer of this key is to look for this, which is the same in another table.
    Follow(u64, Box<Aim>),
}

/// The loop's end of the line to the control thread.
#[derive(Debug)]
pub struct Control<N: Notice> {
    table: Arc<ArcSwap<Table>>,
    orders: Receiver<Order>,
    responses: Receiver<(ConnectionId, Response)>,
    tracings: Receiver<Tracing>,
    line: Line<N>,
    waker: Waker,
    thread: JoinHandle<io::Result<()>>,
}

impl<N: Notice> Control<N> {
    /// Starts the thread. Without a listener there is no control socket. It wakes the loop through
    /// `frame_loop` when there is a new table or order.
    ///
    /// # Errors
    /// When the operating system refuses a thread or a poll.
    pub fn start(
        publisher: Publisher,
        mut signals: Signals,
        listener: Option<Listener>,
        clock: Clock,
        frame_loop: Arc<Waker>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut signals, thread::SIGNALS, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), thread::MESSAGES)?;
        let socket = Socket::new(listener, poll.registry().try_clone()?, thread::SOCKET)?;
        let table = Arc::clone(publisher.published());
        let (messages, inbox) = sync_channel(MESSAGES);
        let (sender, orders) = sync_channel(ORDERS);
        let (answering, responses) = sync_channel(RESPONSES);
        let (tracing_sender, tracings) = sync_channel(TRACINGS);
        let thread = thread::Thread {
            publisher,
            messages: inbox,
            orders: Some(sender),
            limits: limit::Limits::default(),
            health_limits: limit::Limits::default(),
            news: VecDeque::new(),
            losses: limit::Losses::default(),
            stopping_since: None,
            registry: poll.registry().try_clone()?,
            socket,
            desk: Desk::default(),
            pages: Pages::new(answering),
            traces: Traces::new(tracing_sender),
            reloads: Reloads::default(),
            watch: None,
            frame_loop: thread::WakeOnDrop(frame_loop),
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || thread.run(poll, signals, clock))?;
        Ok(Self { table, orders, responses, tracings, line: Line::new(messages), waker, thread })
    }

    /// The current table; load it once per turn.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// The next order.
    pub fn order(&self) -> Option<Order> {
        match self.orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Order::Stop),
        }
    }

    /// The next answer to a [`Message::Page`].
    pub fn response(&self) -> Option<(ConnectionId, Response)> {
        self.responses.try_recv().ok()
    }

    /// The next tracer, or news for one.
    pub fn tracing(&self) -> Option<Tracing> {
        self.tracings.try_recv().ok()
    }

    /// There is something on a tracer's reel: [`Control::flush`] says so.
    pub const fn nudge(&mut self) {
        self.line.unread = true;
    }

    /// Queues `message`; [`Control::flush`] sends it on its way.
    pub fn tell(&mut self, message: Message<N>) {
        self.line.tell(message);
    }

    /// Wakes the control thread if it was told anything. Once per turn.
    pub fn flush(&mut self) {
        // The waker's descriptor is the process's own; if it fails, the next turn tries again.
        if self.line.flush() && self.waker.wake().is_err() {
            self.line.unread = true;
        }
    }

    /// Whether something waits for room in the queue. Nobody tells when there is: flush again soon.
    pub fn is_behind(&self) -> bool {
        self.line.is_behind()
    }

    /// Hands over what is still queued, hangs up and waits for the thread to end.
    ///
    /// # Errors
    /// When the thread had failed.
    pub fn finish(self) -> io::Result<()> {
        self.line.finish(|| self.waker.wake())?;
        self.waker.wake()?;
        let died = |_| Err(io::Error::other("the control thread panicked"));
        self.thread.join().unwrap_or_else(died)
    }
}

/// The bounded queue to the control thread and what does not fit into it.
#[derive(Debug)]
struct Line<N> {
    messages: SyncSender<Message<N>>,
    /// What may not be lost waits here; as many as there are services and servers at the most, and
    /// what the control thread itself has asked for.
    backlog: VecDeque<Message<N>>,
    lost: u64,
    unread: bool,
}

impl<N: Notice> Line<N> {
    const fn new(messages: SyncSender<Message<N>>) -> Self {
        Self { messages, backlog: VecDeque::new(), lost: 0, unread: false }
    }

    fn tell(&mut self, message: Message<N>) {
        self.unread = true;
        if !self.backlog.is_empty() {
            self.keep(message);
        } else if let Err(TrySendError::Full(message)) = self.messages.try_send(message) {
            self.keep(message);
        }
    }

    fn keep(&mut self, message: Message<N>) {
        match message {
            Message::Notice(notice) if notice.cause().is_some() => self.lost += 1,
            message => self.backlog.push_back(message),
        }
    }

    /// Sends what waits as far as there is room; whether the other side has something to read.
    fn flush(&mut self) -> bool {
        while let Some(message) = self.backlog.pop_front() {
            match self.messages.try_send(message) {
                Ok(()) => self.unread = true,
                Err(TrySendError::Full(message)) => {
                    self.backlog.push_front(message);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => self.backlog.clear(),
            }
        }
        if self.lost > 0 && self.messages.try_send(Message::Lost(self.lost)).is_ok() {
            self.lost = 0;
            self.unread = true;
        }
        std::mem::take(&mut self.unread)
    }

    fn is_behind(&self) -> bool {
        !self.backlog.is_empty() || self.lost > 0
    }

    /// Sends all of it, waiting for room, until nobody listens any more.
    fn finish(self, wake: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let lost = (self.lost > 0).then_some(Message::Lost(self.lost));
        for message in self.backlog.into_iter().chain(lost) {
            match self.messages.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    // The reader may have emptied the queue and gone back to sleep since it was
                    // last woken; it would never make room.
                    wake()?;
                    if self.messages.send(message).is_err() {
                        break;
                    }
                }
                Err(TrySendError::Disconnected(_)) => break,
            }
        }
        Ok(())
    }
}

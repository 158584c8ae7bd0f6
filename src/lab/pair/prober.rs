//! Opens a new connection from a new port every 10 ms, whatever becomes of those before, and notes
//! when each was answered.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use super::timeline::Timeline;
use crate::lab::client;
use crate::time::Instant;

/// From one probe to the next.
pub(super) const EVERY: Duration = Duration::from_millis(10);
/// How long one may take: less than it takes TCP to send a lost SYN again, so that one whose SYN is
/// lost has failed.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);
/// As many as can be under way, and some that wait for their turn.
const WORKERS: u32 = 28;
const STACK: usize = 128 * 1024;

/// A running prober; dropping it stops it.
#[derive(Debug)]
pub(super) struct Prober {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_over: bool,
    next: u32,
    answered: Timeline,
    failed: Timeline,
}

impl Prober {
    /// Probes from the calling thread's network namespace.
    pub(super) fn start(target: SocketAddr) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let start = crate::lab::now();
        let mut prober = Self { shared: Arc::clone(&shared), workers: Vec::new() };
        for _ in 0..WORKERS {
            let shared = Arc::clone(&shared);
            let worker = move || while shared.probe(target, start) {};
            let named = thread::Builder::new().name("tapvs-prober".into());
            prober.workers.push(named.stack_size(STACK).spawn(worker)?);
        }
        Ok(prober)
    }

    /// When probes were answered, so far.
    pub(super) fn answered(&self) -> Timeline {
        self.shared.state().answered.clone()
    }

    /// When probes failed, so far.
    pub(super) fn failed(&self) -> Timeline {
        self.shared.state().failed.clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.stopped.notify_all();
        for worker in mem::take(&mut self.workers) {
            // Whoever panicked has said so.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Waits for the next turn and makes use of it; whether there will be another one.
    fn probe(&self, target: SocketAddr, start: Instant) -> bool {
        let mut state = self.state();
        let turn = start + crate::time::Duration::from(EVERY) * state.next;
        state.next += 1;
        while !state.is_over {
            let now = crate::lab::now();
            if now >= turn {
                break;
            }
            let wait = (turn - now).into();
            let waited = self.stopped.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.is_over {
            return false;
        }
        drop(state);
        let answer = client::fetch(target, PATIENCE);
        let now = crate::lab::now();
        let mut state = self.state();
        match answer {
            Ok(_) => state.answered.note(now),
            Err(_) => state.failed.note(now),
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::lab::responder::Responder;

    fn eventually(condition: impl Fn() -> bool) -> bool {
        (0..500).any(|_| {
            thread::park_timeout(EVERY);
            condition()
        })
    }

    #[test]
    fn probes_are_answered_one_by_one() {
        let responder = Responder::bind("s7", "127.0.0.1:0".parse().unwrap()).unwrap();
        let target = responder.address().unwrap();
        thread::spawn(move || responder.serve());
        let start = crate::lab::now();
        let prober = Prober::start(target).unwrap();
        assert!(eventually(|| prober.answered().count_after(Instant::ZERO) >= 20));
        // Twenty-one turns at the least have come by then.
        assert!(crate::lab::now() - start >= crate::time::Duration::from_millis(190));
        assert!(prober.answered().longest_pause(start).is_none());
    }

    #[test]
    fn a_server_that_says_nothing_is_no_answer_and_stops_nobody() {
        // The backlog takes the connections; nobody reads.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let prober = Prober::start(listener.local_addr().unwrap()).unwrap();
        assert!(eventually(|| prober.failed().count_after(Instant::ZERO) >= 2 * WORKERS as usize));
        assert_eq!(prober.answered().count_after(Instant::ZERO), 0);
    }
}

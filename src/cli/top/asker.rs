//! The thread that asks the router once a second, and again when it has gone.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::cli::ask::{AskError, Router};
use crate::cli::operate::expect;
use crate::cli::show::services::Sample;
use crate::control::protocol::{Answer, Drops, Request, Status};

const INTERVAL: Duration = Duration::from_secs(1);

/// Everything, as it was at one moment.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) status: Status,
    pub(super) services: Sample,
    pub(super) drops: Drops,
}

/// What came of asking.
#[derive(Debug)]
pub(super) enum Heard {
    Moment(Box<Moment>),
    /// No answer, and why.
    Lost(String),
}

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct Asker {
    heard: Receiver<Heard>,
    _end: Sender<()>,
}

impl Asker {
    /// Begins with `router`, and goes on with whoever is at its socket later.
    pub(super) fn begin(router: Router) -> Self {
        let (sender, heard) = channel();
        let (end, ended) = channel();
        thread::spawn(move || ask(router, &sender, &ended));
        Self { heard, _end: end }
    }

    /// The next thing heard.
    pub(super) fn heard(&self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }
}

fn ask(router: Router, sender: &Sender<Heard>, ended: &Receiver<()>) {
    let path = router.path().to_owned();
    let mut router = Some(router);
    loop {
        let heard = match again(&mut router, &path) {
            Ok(moment) => Heard::Moment(Box::new(moment)),
            Err(error) => {
                router = None;
                let reason = error.to_string();
                Heard::Lost(reason.lines().next().unwrap_or_default().to_owned())
            }
        };
        if sender.send(heard).is_err()
            || ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout)
        {
            return;
        }
    }
}

fn again(router: &mut Option<Router>, path: &Path) -> Result<Moment, AskError> {
    let router = match router {
        Some(router) => router,
        None => router.insert(Router::connect(Some(path))?),
    };
    let status = expect(router, &Request::Status {}, |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    })?;
    let drops = expect(router, &Request::Drops {}, |answer| match answer {
        Answer::Drops(drops) => Some(drops),
        _ => None,
    })?;
    Ok(Moment { status, services: Sample::take(router)?, drops })
}

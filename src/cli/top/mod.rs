//! `tapvs top`: a live view of services, servers, links and drops, for a terminal.
//!
//! One thread asks the router once a second, so that keys work also while it is slow to answer or gone;
//! this one draws what there is.

mod asker;
mod draw;
mod keys;
mod picture;
mod sort;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::asker::Asker;
use self::keys::Wish;
use self::picture::Picture;
use super::ask::Router;
use super::operate::Failed;

/// How soon something new, or a signal, is noticed.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The router's control socket; default: the only one in /run/tapvs
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn top(args: &TopArgs) -> Result<(), Failed> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failed::Usage(
            "top needs a terminal; for a file or a program there is `tapvs services --json`",
        ));
    }
    // Before the screen is taken: who has no router is told so in a line.
    let asker = Asker::begin(Router::connect(args.socket.as_deref())?);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // It is given back also by a panic.
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &asker, &stop);
    ratatui::try_restore()?;
    Ok(shown?)
}

fn show(terminal: &mut DefaultTerminal, asker: &Asker, stop: &AtomicBool) -> io::Result<()> {
    let mut picture = Picture::default();
    let mut stale = true;
    while !stop.load(Ordering::Relaxed) {
        while let Some(heard) = asker.heard() {
            picture.hear(heard);
            stale = true;
        }
        if std::mem::take(&mut stale) {
            terminal.draw(|frame| draw::draw(&mut picture, frame))?;
        }
        if !event::poll(LOOK)? {
            continue;
        }
        stale = true;
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match keys::wish(key) {
                Some(Wish::Quit) => return Ok(()),
                Some(wish) => picture.follow(wish),
                None => {}
            }
        }
    }
    Ok(())
}

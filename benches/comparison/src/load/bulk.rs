//! Bulk: TCP streams from client to server, counted by the server as it reads them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use netns_tests::tcp::{connect, noise};
use netns_tests::{Context as _, Failure, Outcome, ensure, eventually};

use super::PATIENCE;
use super::window::{Window, Witness};
use crate::outcome::Sample;
use crate::stage::{Stage, port};

/// What one read or write moves at most.
const CHUNK: usize = 256 * 1024;
/// Until a stream's window has grown to what the path carries.
const GROWTH: Duration = Duration::from_secs(1);
/// What is compared byte by byte before anything is measured.
const PROOF: usize = 4 << 20;

/// What the client sends is what the server gets.
pub(super) fn prove(stage: &Stage) -> Outcome {
    let listener = listen(stage)?;
    let sent = noise(PROOF, 17);
    let got = thread::scope(|scope| {
        let client = scope.spawn(|| -> Outcome {
            let mut stream = connect(&stage.client, (stage.target, port::BULK), PATIENCE)
                .context("the client cannot connect")?;
            stream.write_all(&sent).context("sending")?;
            stream.shutdown(Shutdown::Write)?;
            // The server's end says that it has read all.
            stream.read_to_end(&mut Vec::new()).context("the end of the stream")?;
            Ok(())
        });
        let got = accept(&listener).and_then(|mut stream| {
            let mut got = Vec::with_capacity(PROOF);
            stream.read_to_end(&mut got).context("receiving")?;
            Ok(got)
        });
        client.join().map_err(|_| Failure::new("the client panicked"))??;
        got
    })?;
    ensure!(got == sent, "{} bytes were sent and others, {}, came", sent.len(), got.len());
    Ok(())
}

pub(super) fn measure(stage: &Stage, streams: usize, length: Duration) -> Outcome<Sample> {
    let listener = listen(stage)?;
    let witness = Witness::begin(stage)?;
    let (received, ending) = (AtomicU64::new(0), AtomicBool::new(false));
    let (window, retransmits) = thread::scope(|scope| {
        let mut ending = Ending { flag: &ending, clients: Vec::new() };
        for _ in 0..streams {
            let to = (stage.target, port::BULK);
            let client = connect(&stage.client, to, PATIENCE).context("cannot connect")?;
            let server = accept(&listener)?;
            ending.clients.push(client.try_clone()?);
            let flag = ending.flag;
            scope.spawn(move || send(client, flag));
            scope.spawn(|| receive(server, &received));
        }
        thread::sleep(GROWTH);
        let window = Window::open(stage, length, || Ok(received.load(Ordering::Relaxed)));
        // While the streams run: what is cut off at the end is no loss.
        let retransmits = witness.end(stage);
        Ok::<_, Failure>((window?, retransmits?))
    })?;
    Ok(Sample { retransmits: Some(retransmits), ..window.sample(8.0) })
}

/// Ends every stream when dropped, however measuring went.
struct Ending<'e> {
    flag: &'e AtomicBool,
    clients: Vec<TcpStream>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Relaxed);
        for client in &self.clients {
            // A writer that is stuck wakes up.
            drop(client.shutdown(Shutdown::Both));
        }
    }
}

fn send(mut stream: TcpStream, ending: &AtomicBool) {
    let chunk = vec![0x5a; CHUNK];
    while !ending.load(Ordering::Relaxed) && stream.write_all(&chunk).is_ok() {}
}

fn receive(mut stream: TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn listen(stage: &Stage) -> Outcome<TcpListener> {
    let address = (stage.listen, port::BULK);
    let listener = stage.server.run(|| TcpListener::bind(address));
    let listener = listener.context("the server cannot listen")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The next connection.
fn accept(listener: &TcpListener) -> Outcome<TcpStream> {
    let mut accepted = None;
    eventually(PATIENCE, || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.ok_or_else(|| Failure::new("no connection reaches the server"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

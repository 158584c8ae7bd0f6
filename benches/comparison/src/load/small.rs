//! Small frames: 18-byte datagrams, as fast as one thread sends them, counted at the server's NIC.
//!
//! The sender offers more than any forwarder can carry; what it cannot is dropped in front of it. The server's
//! socket is not read while it counts: its stack takes each datagram, checks it and finds the queue full.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netns_tests::{Context as _, Outcome, ensure};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::PATIENCE;
use super::window::{Window, Witness};
use crate::outcome::Sample;
use crate::stage::{Stage, port};

const FLOWS: usize = 64;
/// Makes the smallest Ethernet frame that is not padded.
pub(super) const PAYLOAD: usize = 18;
/// Datagrams per system call.
const BURST: usize = 32;

/// Every flow reaches the server, with what was sent in it.
pub(super) fn prove(stage: &Stage) -> Outcome {
    let sink = sink(stage)?;
    sink.set_read_timeout(Some(Duration::from_millis(20)))?;
    let sockets = sockets(stage)?;
    let end = Instant::now() + PATIENCE;
    let mut seen = BTreeSet::new();
    while seen.len() < FLOWS {
        ensure!(Instant::now() < end, "only {} of {FLOWS} flows reach the server", seen.len());
        for (number, socket) in sockets.iter().enumerate() {
            // What is lost before everybody knows everybody is sent again.
            drop(socket.send(&payload(number)));
        }
        let mut buffer = [0; 64];
        while let Ok(length) = sink.recv(&mut buffer) {
            let number = (0..FLOWS).find(|number| buffer[..length] == payload(*number));
            ensure!(number.is_some(), "a datagram came that nobody sent");
            seen.extend(number);
        }
    }
    Ok(())
}

pub(super) fn measure(stage: &Stage, length: Duration) -> Outcome<Sample> {
    let (_sink, sockets) = (sink(stage)?, sockets(stage)?);
    let witness = Witness::begin(stage)?;
    let ending = AtomicBool::new(false);
    let window = thread::scope(|scope| {
        scope.spawn(|| flood(&sockets, &ending));
        let window = Window::open(stage, length, || Ok(stage.server_nic()?.rx_packets));
        ending.store(true, Ordering::Relaxed);
        window
    })?;
    witness.end(stage)?;
    Ok(window.sample(1.0))
}

fn flood(sockets: &[UdpSocket], ending: &AtomicBool) {
    let payload = [0; PAYLOAD];
    let pieces = [IoSlice::new(&payload)];
    while !ending.load(Ordering::Relaxed) {
        for socket in sockets {
            let mut controls: [_; BURST] =
                std::array::from_fn(|_| SendAncillaryBuffer::new(&mut []));
            let mut messages: Vec<_> =
                controls.iter_mut().map(|control| MMsgHdr::new(&pieces, control)).collect();
            // A full queue is what is wanted.
            let _ = sendmmsg(socket, &mut messages, SendFlags::empty());
        }
    }
}

pub(super) fn sink(stage: &Stage) -> Outcome<UdpSocket> {
    let address = (stage.listen, port::SMALL);
    stage.server.run(|| UdpSocket::bind(address)).context("the server cannot listen")
}

fn sockets(stage: &Stage) -> Outcome<Vec<UdpSocket>> {
    let to = (stage.target, port::SMALL);
    let all: std::io::Result<Vec<_>> = stage.client.run(|| {
        (0..FLOWS)
            .map(|_| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.connect(to)?;
                Ok(socket)
            })
            .collect()
    });
    all.context("the client cannot send")
}

fn payload(number: usize) -> [u8; PAYLOAD] {
    let mut payload = [0x5a; PAYLOAD];
    payload[..8].copy_from_slice(&(number as u64).to_be_bytes());
    payload
}

//! Pings: UDP echoes one at a time, with a pause between them in which the forwarder falls asleep.
//!
//! Not ICMP: tapvs would answer that itself.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netns_tests::{Context as _, Outcome, ensure};

use super::window::Witness;
use super::{PATIENCE, WARM_UP};
use crate::machine::CpuTime;
use crate::outcome::Sample;
use crate::stage::{Stage, port};
use crate::statistics::{median, quantile};

const PAUSE: Duration = Duration::from_micros(500);
/// What is lost is no slow answer.
const LOST: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(50);

/// An echo comes back.
pub(super) fn prove(stage: &Stage) -> Outcome {
    with_echo(stage, |client| {
        let end = Instant::now() + PATIENCE;
        client.set_read_timeout(Some(BEAT))?;
        while ping(client, 0).is_err() {
            ensure!(Instant::now() < end, "no answer to a ping");
        }
        Ok(())
    })
}

pub(super) fn measure(stage: &Stage, length: Duration) -> Outcome<Sample> {
    let witness = Witness::begin(stage)?;
    let idle = CpuTime::now(stage.pid())?;
    // Processor time is told in hundredths of a second.
    let pause = length.max(Duration::from_millis(300));
    thread::sleep(pause);
    let (idle, _) = CpuTime::now(stage.pid())?.since(idle);
    let sample = with_echo(stage, |client| {
        client.set_read_timeout(Some(LOST))?;
        let warm = Instant::now() + WARM_UP;
        while Instant::now() < warm {
            ping(client, 1)?;
        }
        let (begin, cpu) = (Instant::now(), CpuTime::now(stage.pid())?);
        let mut micros = Vec::new();
        for number in 2.. {
            if begin.elapsed() >= length {
                break;
            }
            thread::sleep(PAUSE);
            micros.push(ping(client, number)?.as_secs_f64() * 1e6);
        }
        let (forwarder_cpu, machine_cpu) = CpuTime::now(stage.pid())?.since(cpu);
        Ok(Sample {
            value: median(&micros).unwrap_or_default(),
            p99: quantile(&micros, 0.99),
            seconds: begin.elapsed().as_secs_f64(),
            amount: micros.len() as f64,
            forwarder_cpu,
            machine_cpu,
            idle_cpu: idle.map(|idle| idle / pause.as_secs_f64()),
            ..Sample::default()
        })
    })?;
    witness.end(stage)?;
    Ok(sample)
}

/// How long one takes.
fn ping(client: &UdpSocket, number: u64) -> Outcome<Duration> {
    let begin = Instant::now();
    client.send(&number.to_be_bytes()).context("cannot ping")?;
    let mut answer = [0; 64];
    loop {
        let length = client.recv(&mut answer).context("no answer to a ping")?;
        // An answer to an earlier one is too late.
        if answer[..length] == number.to_be_bytes() {
            return Ok(begin.elapsed());
        }
    }
}

/// With a server that sends everything back.
fn with_echo<T>(stage: &Stage, run: impl FnOnce(&UdpSocket) -> Outcome<T>) -> Outcome<T> {
    let address = (stage.listen, port::PING);
    let server = stage.server.run(|| UdpSocket::bind(address)).context("cannot listen")?;
    server.set_read_timeout(Some(BEAT))?;
    let to = (stage.target, port::PING);
    let client = stage.client.run(|| {
        let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        client.connect(to)?;
        Ok::<_, std::io::Error>(client)
    });
    let client = client.context("the client cannot send")?;
    let ending = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            while !ending.load(Ordering::Relaxed) {
                if let Ok((length, from)) = server.recv_from(&mut buffer) {
                    drop(server.send_to(&buffer[..length], from));
                }
            }
        });
        let result = run(&client);
        ending.store(true, Ordering::Relaxed);
        result
    })
}

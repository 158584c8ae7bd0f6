//! The stretch of time that counts: counters and processor time at its two ends.

use std::thread;
use std::time::{Duration, Instant};

use netns_tests::{Outcome, ensure};

use super::WARM_UP;
use crate::machine::{CpuTime, Stack};
use crate::outcome::Sample;
use crate::stage::{SERVER_NIC, Stage};

/// What happened between its ends; the load runs before and after.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) seconds: f64,
    pub(super) amount: f64,
    forwarder_cpu: Option<f64>,
    machine_cpu: f64,
}

impl Window {
    /// Waits for the load to be in full swing, then counts for `length`.
    pub(super) fn open(
        stage: &Stage,
        length: Duration,
        count: impl Fn() -> Outcome<u64>,
    ) -> Outcome<Self> {
        thread::sleep(WARM_UP);
        let cpu = CpuTime::now(stage.pid())?;
        let (before, start) = (count()?, Instant::now());
        thread::sleep(length);
        let (after, end) = (count()?, Instant::now());
        let (forwarder_cpu, machine_cpu) = CpuTime::now(stage.pid())?.since(cpu);
        ensure!(after > before, "nothing arrived in {} ms", length.as_millis());
        Ok(Self {
            seconds: (end - start).as_secs_f64(),
            amount: (after - before) as f64,
            forwarder_cpu,
            machine_cpu,
        })
    }

    /// As a sample whose value is `amount` times `factor` per second.
    pub(super) fn sample(&self, factor: f64) -> Sample {
        Sample {
            value: self.amount * factor / self.seconds,
            seconds: self.seconds,
            amount: self.amount,
            forwarder_cpu: self.forwarder_cpu,
            machine_cpu: self.machine_cpu,
            ..Sample::default()
        }
    }
}

/// What both stacks and the forwarder say of a load: whether all of it took the way it should, unharmed.
#[derive(Debug)]
pub(super) struct Witness {
    client: Stack,
    server: Stack,
    arrived: u64,
    forwarded: Option<u64>,
}

impl Witness {
    pub(super) fn begin(stage: &Stage) -> Outcome<Self> {
        Ok(Self {
            forwarded: forwarded(stage)?,
            client: Stack::of(&stage.client),
            server: Stack::of(&stage.server),
            arrived: stage.server_nic()?.rx_packets,
        })
    }

    /// Fails where a checksum was wrong, a packet came for nobody, or the router says that it did not forward
    /// what arrived. Returns how many segments the client sent again.
    pub(super) fn end(self, stage: &Stage) -> Outcome<u64> {
        let arrived = stage.server_nic()?.rx_packets - self.arrived;
        let (client, server) = (Stack::of(&stage.client), Stack::of(&stage.server));
        for (who, now, before) in
            [("client", &client, &self.client), ("server", &server, &self.server)]
        {
            for counter in ["Udp.InCsumErrors", "Tcp.InCsumErrors", "Udp.NoPorts", "Ip.InHdrErrors"]
            {
                let count = now.since(before, counter);
                ensure!(count == 0, "the {who} counts {counter} {count}");
            }
        }
        if let (Some(before), Some(after)) = (self.forwarded, forwarded(stage)?) {
            let forwarded = after - before;
            ensure!(
                forwarded + SLACK >= arrived,
                "{arrived} frames arrived, but the router forwarded {forwarded} only"
            );
        }
        Ok(client.since(&self.client, "Tcp.RetransSegs"))
    }
}

/// Frames that are under way when counters are read one after another.
const SLACK: u64 = 10_000;

/// What the router says it wrote to the server.
fn forwarded(stage: &Stage) -> Outcome<Option<u64>> {
    let Some(router) = stage.router() else { return Ok(None) };
    Ok(Some(router.report()?.link(SERVER_NIC)?.frames_out))
}

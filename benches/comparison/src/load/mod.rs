//! The workloads: what is sent, how it is counted, and the proof that it went through the forwarder unharmed.

mod bulk;
mod http;
mod million;
mod ping;
mod small;
mod window;

use std::time::Duration;

use clap::ValueEnum;
use netns_tests::Outcome;

use crate::contestant::Kind;
use crate::outcome::Sample;
use crate::stage::Stage;

/// How long a load runs before it counts.
const WARM_UP: Duration = Duration::from_millis(200);
/// For anything that should happen at once; a loaded machine may take its time.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 18-byte UDP datagrams of 64 flows
    Small,
    /// One TCP stream
    Bulk1,
    /// 16 TCP streams at once
    Bulk16,
    /// HTTP, a new connection for each request
    Http,
    /// HTTP, 32 connections that stay
    KeepAlive,
    /// UDP echo, one at a time, the forwarder idle in between
    Ping,
    /// Small datagrams of a million flows, all resident
    Million,
}

/// What a workload's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Frames per second.
    Frames,
    /// Bits per second of payload.
    Bits,
    /// Requests per second.
    Requests,
    /// Microseconds; less is better.
    Micros,
}

impl Workload {
    pub(crate) const ALL: [Self; 7] = [
        Self::Small,
        Self::Bulk1,
        Self::Bulk16,
        Self::Http,
        Self::KeepAlive,
        Self::Ping,
        Self::Million,
    ];

    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Bulk1 => "bulk1",
            Self::Bulk16 => "bulk16",
            Self::Http => "http",
            Self::KeepAlive => "keep-alive",
            Self::Ping => "ping",
            Self::Million => "million",
        }
    }

    /// As in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Small => "Small frames (18-byte UDP, 64 flows)",
            Self::Bulk1 => "One TCP stream",
            Self::Bulk16 => "16 TCP streams",
            Self::Http => "HTTP, a new connection for each request",
            Self::KeepAlive => "HTTP on 32 connections that stay",
            Self::Ping => "Round trip of a ping (UDP echo)",
            Self::Million => "Small frames over a million resident flows",
        }
    }

    /// In one or two words.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            Self::Small => "small frames",
            Self::Bulk1 => "1 TCP stream",
            Self::Bulk16 => "16 streams",
            Self::Http => "new HTTP",
            Self::KeepAlive => "kept HTTP",
            Self::Ping => "ping",
            Self::Million => "1 M flows",
        }
    }

    /// Whether it is part of `--quick`: the others take longer, or show what these show too.
    pub(crate) const fn is_quick(self) -> bool {
        !matches!(self, Self::Bulk16 | Self::Million)
    }

    pub(crate) const fn unit(self) -> Unit {
        match self {
            Self::Small | Self::Million => Unit::Frames,
            Self::Bulk1 | Self::Bulk16 => Unit::Bits,
            Self::Http | Self::KeepAlive => Unit::Requests,
            Self::Ping => Unit::Micros,
        }
    }

    /// Whether a forwarder takes part.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        match self {
            Self::Small | Self::Ping => !kind.is_proxy(),
            Self::Million => !kind.is_proxy() && kind != Kind::Kernel,
            Self::Bulk1 | Self::Bulk16 | Self::Http | Self::KeepAlive => true,
        }
    }

    /// The size of tapvs's flow table, where its default may not do.
    pub(crate) const fn max_flows(self) -> Option<u32> {
        match self {
            Self::Million => Some(1_200_000),
            _ => None,
        }
    }

    /// Proves that a forwarder that was just built carries this load, right to the last byte; the time it
    /// takes until everybody knows everybody is not measured.
    pub(crate) fn prepare(self, stage: &Stage) -> Outcome<Prepared> {
        match self {
            Self::Small => small::prove(stage).map(|()| Prepared::Nothing),
            Self::Bulk1 | Self::Bulk16 => bulk::prove(stage).map(|()| Prepared::Nothing),
            Self::Http | Self::KeepAlive => http::prove(stage).map(|()| Prepared::Nothing),
            Self::Ping => ping::prove(stage).map(|()| Prepared::Nothing),
            Self::Million => million::fill(stage).map(Prepared::Million),
        }
    }

    /// Measures for as long as told.
    pub(crate) fn measure(
        self,
        stage: &Stage,
        prepared: &mut Prepared,
        length: Duration,
    ) -> Outcome<Sample> {
        match (self, prepared) {
            (Self::Million, Prepared::Million(crowd)) => million::measure(stage, crowd, length),
            (Self::Small | Self::Million, _) => small::measure(stage, length),
            (Self::Bulk1, _) => bulk::measure(stage, 1, length),
            (Self::Bulk16, _) => bulk::measure(stage, 16, length),
            (Self::Http, _) => http::measure(stage, http::Connections::New, length),
            (Self::KeepAlive, _) => http::measure(stage, http::Connections::Kept, length),
            (Self::Ping, _) => ping::measure(stage, length),
        }
    }
}

/// What a workload keeps between rounds.
#[derive(Debug)]
pub(crate) enum Prepared {
    Nothing,
    Million(million::Crowd),
}

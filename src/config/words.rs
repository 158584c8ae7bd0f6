//! The words of the file, the way it spells them: for summaries and logs.

use std::fmt;

use super::duration;
use super::failover::{AdvertChecksum, VrrpVersion};
use super::mistake::quote;
use super::model::{
    Defend, Forward, Health, HttpCheck, Inquiry, Io, Method, OnDown, OnRemove, PassiveHealth,
    Persistence, Scheduler, StatusCodes, UdpCheck, Unserved,
};

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::ServersOut => "servers-out",
            Self::All => "all",
        })
    }
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reset => "reset",
            Self::Icmp => "icmp",
            Self::Drop => "drop",
        })
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Syscall => "syscall",
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
            Self::Direct => "direct",
        })
    }
}

impl fmt::Display for Defend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unicast => "unicast",
            Self::Broadcast => "broadcast",
        })
    }
}

impl fmt::Display for VrrpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V2 => "2",
            Self::V3 => "3",
        })
    }
}

impl fmt::Display for AdvertChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PseudoHeader => "pseudo-header",
            Self::Message => "message",
        })
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::SourceHash => "sh",
            Self::DestinationHash => "dh",
            Self::Maglev => "mh",
            Self::Failover => "fo",
            Self::Overflow => "ovf",
            Self::Locality => "lblc",
            Self::LocalityReplicated => "lblcr",
            Self::PowerOfTwo => "twos",
        })
    }
}

impl fmt::Display for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Http(_) => "http",
            Self::Ping => "ping",
            Self::Udp(_) => "udp",
            Self::VirtualIp => "virtual_ip",
        })
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inquiry, interval, timeout, fall, rise, initially_up, port } = self;
        write!(f, "{inquiry}")?;
        match inquiry {
            Inquiry::Tcp | Inquiry::Ping | Inquiry::VirtualIp => {}
            Inquiry::Http(HttpCheck { path, host, status, body }) => {
                write!(f, " {path} of {host}, status {status}")?;
                if let Some(body) = body {
                    write!(f, ", body {}", quote(body))?;
                }
            }
            Inquiry::Udp(UdpCheck { payload, answer }) => {
                write!(f, " {} bytes", payload.len())?;
                if let Some(answer) = answer {
                    write!(f, ", an answer that contains {} bytes", answer.len())?;
                }
            }
        }
        if let Some(port) = port {
            write!(f, ", port {port}")?;
        }
        let (interval, timeout) = (duration::text(*interval), duration::text(*timeout));
        let initial = if *initially_up { "up" } else { "down" };
        write!(
            f,
            ", every {interval}, timeout {timeout}, fall {fall}, rise {rise}, initial {initial}"
        )
    }
}

impl fmt::Display for StatusCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let (first, last) = (range.start(), range.end());
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for OnRemove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Drain => "drain",
            Self::Reset => "reset",
        })
    }
}

impl fmt::Display for OnDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
            Self::Reschedule => "reschedule",
        })
    }
}

impl fmt::Display for PassiveHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} unanswered, retry {}", self.unanswered, self.retry)
    }
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", duration::text(self.timeout))?;
        if self.prefix < 32 { write!(f, " by /{}", self.prefix) } else { Ok(()) }
    }
}

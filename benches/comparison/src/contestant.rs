//! Who is measured. A new mode of tapvs is a row here.

use std::fmt;

/// How a forwarder's TAPs carry frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Single frames.
    Plain,
    /// The kernel's own frames of up to 64 KiB, with the header of segmentation offload (`IFF_VNET_HDR`).
    Vnet,
}

/// How frames get in and out of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Io {
    /// A read and a write each.
    Syscall,
    /// Batches through io_uring.
    Uring,
}

/// What tapvs does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Nat,
    Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Frames pass as they are.
    Raw(Mode, Io),
    Tapvs(Method, Mode, Io),
    /// nftables DNAT over veth.
    Kernel,
    /// In TCP mode, over veth.
    Haproxy,
    /// Its stream module, over veth.
    Nginx,
}

/// One forwarder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contestant {
    pub(crate) kind: Kind,
    /// Part of `--quick`.
    pub(crate) quick: bool,
}

const fn row(kind: Kind) -> Contestant {
    Contestant { kind, quick: false }
}

const fn quick(kind: Kind) -> Contestant {
    Contestant { kind, quick: true }
}

use Io::{Syscall, Uring};
use Method::{Direct, Nat};
use Mode::{Plain, Vnet};

/// All of them, in the order of every table.
pub(crate) const CONTESTANTS: [Contestant; 15] = [
    row(Kind::Raw(Plain, Syscall)),
    quick(Kind::Raw(Plain, Uring)),
    row(Kind::Raw(Vnet, Syscall)),
    quick(Kind::Raw(Vnet, Uring)),
    quick(Kind::Tapvs(Nat, Plain, Syscall)),
    row(Kind::Tapvs(Nat, Plain, Uring)),
    row(Kind::Tapvs(Nat, Vnet, Syscall)),
    quick(Kind::Tapvs(Nat, Vnet, Uring)),
    quick(Kind::Tapvs(Direct, Plain, Syscall)),
    row(Kind::Tapvs(Direct, Plain, Uring)),
    row(Kind::Tapvs(Direct, Vnet, Syscall)),
    quick(Kind::Tapvs(Direct, Vnet, Uring)),
    quick(Kind::Kernel),
    quick(Kind::Haproxy),
    row(Kind::Nginx),
];

impl Kind {
    /// The raw forwarder it is held against: batched, in the same TAP mode; itself for a batched raw one.
    pub(crate) const fn reference(self) -> Option<Self> {
        match self {
            Self::Raw(mode, _) | Self::Tapvs(_, mode, _) => Some(Self::Raw(mode, Uring)),
            Self::Kernel | Self::Haproxy | Self::Nginx => None,
        }
    }

    /// Whether it looks at streams only.
    pub(crate) const fn is_proxy(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Vnet => "vnet_hdr",
        })
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Syscall => "read/write",
            Self::Uring => "io_uring",
        })
    }
}

/// What tables and reports call it; a report's rows are found by it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(mode, io) => write!(f, "raw, {mode}, {io}"),
            Self::Tapvs(Nat, mode, io) => write!(f, "tapvs NAT, {mode}, {io}"),
            Self::Tapvs(Direct, mode, io) => write!(f, "tapvs direct, {mode}, {io}"),
            Self::Kernel => f.write_str("kernel nftables DNAT"),
            Self::Haproxy => f.write_str("HAProxy, TCP mode"),
            Self::Nginx => f.write_str("nginx stream"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let names: BTreeSet<_> = CONTESTANTS.iter().map(|row| row.kind.to_string()).collect();
        assert_eq!(names.len(), CONTESTANTS.len());
    }

    #[test]
    fn whoever_is_held_against_another_finds_it_in_the_table() {
        for Contestant { kind, quick } in CONTESTANTS {
            let Some(reference) = kind.reference() else { continue };
            let found = CONTESTANTS.iter().find(|row| row.kind == reference);
            assert!(found.is_some_and(|found| found.quick || !quick), "{kind}");
        }
    }
}

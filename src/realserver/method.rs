//! The ways to keep a real server silent.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How a real server is kept from answering ARP for a virtual IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The virtual IP on lo, arp_ignore and arp_announce
    Sysctl,
    /// The virtual IP on the interface, ARP for it filtered by arptables
    Arptables,
    /// The same with a table of nft's arp family
    Nft,
    /// No virtual IP on the server: nft's nat redirects its packets to the server itself
    Redirect,
}

impl Method {
    /// All, in the order in which they are tried and named.
    pub const ALL: [Self; 4] = [Self::Sysctl, Self::Arptables, Self::Nft, Self::Redirect];

    /// The program that it runs.
    pub(super) const fn program(self) -> Option<&'static str> {
        match self {
            Self::Sysctl => None,
            Self::Arptables => Some("arptables"),
            Self::Nft | Self::Redirect => Some("nft"),
        }
    }

    /// Whether its commands name the server's own address.
    pub(super) const fn names_address(self) -> bool {
        matches!(self, Self::Arptables | Self::Nft)
    }

    /// Whether the server holds the virtual IP.
    pub(super) const fn holds_vip(self) -> bool {
        !matches!(self, Self::Redirect)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sysctl => "sysctl",
            Self::Arptables => "arptables",
            Self::Nft => "nft",
            Self::Redirect => "redirect",
        })
    }
}

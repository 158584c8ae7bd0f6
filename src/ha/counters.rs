//! What became of adverts, counted where it happens.

use crate::config::AdvertChecksum;

macro_rules! discards {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why an advert was not listened to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Discard {
            $($(#[$doc])* $name,)*
        }

        impl Discard {
            /// Every reason, in the order of [`Discard::index`].
            pub const ALL: &[Self] = &[$(Self::$name),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// A word for tables and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

discards! {
    /// Its IPv4 header is wrong, it is a fragment, or no VRRP.
    Malformed = "malformed",
    /// It may have come from another link.
    Ttl = "ttl",
    /// It was not sent to 224.0.0.18.
    Destination = "destination",
    /// It ends too early.
    Truncated = "truncated",
    /// It is of the version that is not configured.
    Version = "version",
    /// It is no advert.
    Kind = "type",
    /// No form of its checksum is right.
    Checksum = "checksum",
    /// By version 2, with authentication.
    Authentication = "authentication",
    /// It names no address.
    NoAddresses = "no-addresses",
    /// It says that the next one follows at once.
    NoInterval = "no-interval",
    /// It came from a network without adverts.
    UnlistedNetwork = "unlisted-network",
    /// It belongs to another network.
    WrongNetwork = "wrong-network",
    /// It is about virtual IPs that are not shared here.
    UnknownRouterId = "unknown-router-id",
    /// It is one of the router's own that came back.
    Own = "own",
    /// Its sender is not among those that are listed.
    UnlistedPeer = "unlisted-peer",
    /// It should be signed and is not, or not with the key.
    Signature = "signature",
    /// It was signed, but is not new.
    Replay = "replay",
}

impl Discard {
    /// As a position in a plain array.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Adverts by what became of them: `received = accepted + discards`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Adverts sent, on all networks together.
    pub sent: u64,
    /// Of these, those that give up the role.
    pub sent_resigning: u64,
    /// Packets handed in.
    pub received: u64,
    /// Adverts listened to whose checksum covers a pseudo-header.
    pub accepted_pseudo_header: u64,
    /// Adverts listened to whose checksum covers the message alone; every one by version 2.
    pub accepted_message: u64,
    /// Adverts not listened to, by reason.
    pub discards: [u64; Discard::COUNT],
    /// Events that nobody read in time.
    pub events_lost: u64,
}

impl Counters {
    /// Adverts not listened to for `reason`.
    pub const fn discarded(&self, reason: Discard) -> u64 {
        self.discards[reason.index()]
    }

    /// Adverts listened to.
    pub const fn accepted(&self) -> u64 {
        self.accepted_pseudo_header + self.accepted_message
    }

    /// Adverts not listened to for any reason.
    pub fn all_discards(&self) -> u64 {
        self.discards.iter().sum()
    }

    pub(super) const fn accept(&mut self, form: AdvertChecksum) {
        match form {
            AdvertChecksum::PseudoHeader => self.accepted_pseudo_header += 1,
            AdvertChecksum::Message => self.accepted_message += 1,
        }
    }
}

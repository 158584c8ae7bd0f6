//! What the dataplane decided about one frame, and why it dropped one.

use std::fmt;

use crate::addr::LinkId;
use crate::frame::{BadOffload, Malformed};

/// The decision about one frame. For `Forward` and `Reply` it was rewritten in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leaves by this link.
    Forward(LinkId),
    /// Leaves by every other open link of its network: [`Dataplane::flood_links`].
    ///
    /// [`Dataplane::flood_links`]: super::Dataplane::flood_links
    Flood,
    /// Was cut into segments, fragments or both, which leave by `poll_transmit`.
    Split,
    /// Goes back out of the link it came from: an answer.
    Reply,
    /// For the router's own IP stack, in the [`Segments`] that it stands for.
    ///
    /// [`Segments`]: crate::frame::Segments
    ToHost,
    /// For the pair's own affairs, in segments too: an advert, or what the peer copies of its flows.
    ToHa,
    /// Waits for its next hop's MAC; the frame passed in was swapped for an empty one.
    Held,
    /// Understood and done with.
    Consumed(Consumed),
    /// Goes nowhere.
    Drop(DropReason),
}

/// What a consumed frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// An ARP reply or request that told or confirmed a neighbour's MAC.
    Neighbour,
    /// A server's question, answered as soon as the router knows.
    Question,
    /// An answer to a probe through a virtual IP.
    ProbeAnswer,
    /// The loop guard's own probe, come round.
    LoopProbe,
}

macro_rules! drop_reasons {
    ($($name:ident, $text:literal, $help:literal;)*) => {
        /// Why a frame was dropped. Indexes the drop counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $(#[doc = $help] $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in counters and output.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What it means, in a sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$name => $help,)*
                }
            }

            /// Its place in the counters.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

drop_reasons! {
    UnknownLink, "unknown_link", "The frame came from a link that no network has.";
    Runt, "runt", "Shorter than an Ethernet header.";
    Oversize, "oversize", "Longer than the network's MTU allows.";
    OffloadMalformed, "offload_malformed", "What its virtio-net header asks for does not fit the frame.";
    OffloadUnknown, "offload_unknown", "Its virtio-net header asks for segments of a kind that nobody offered.";
    BadSourceMac, "bad_source_mac", "The source MAC is zero or a group address.";
    OwnSourceMac, "own_source_mac", "The source MAC is the router's own: a loop or a forgery.";
    OtherDestinationMac, "other_destination_mac", "Sent to another station's MAC.";
    Llc, "llc", "A length where the type belongs (LLC, BPDU).";
    Vlan, "vlan", "802.1Q or 802.1ad tagged; networks are untagged.";
    PauseFrame, "pause_frame", "Ethernet flow control, never for a router to pass on.";
    LinkLocalGroup, "link_local_group", "Sent to a group that ends at the next bridge (LACP, LLDP).";
    LinkShut, "link_shut", "The link is shut because it is part of a loop.";
    SameLink, "same_link", "Its station is behind the link that it came by.";
    BroadcastLimit, "broadcast_limit", "More broadcast and multicast from the link than broadcast_limit.";
    UnknownLimit, "unknown_limit", "More frames to unknown stations from the link than broadcast_limit.";
    UnknownEtherType, "unknown_ether_type", "Neither ARP nor IP.";
    Ipv6, "ipv6", "IPv6, which is not forwarded yet.";
    ArpMalformed, "arp_malformed", "Not ARP for IPv4 over Ethernet, or neither request nor reply.";
    ArpBadSender, "arp_bad_sender", "The ARP sender's MAC or address cannot be one.";
    ArpOtherTarget, "arp_other_target", "An ARP request for an address that is not the router's here.";
    ArpUnsolicited, "arp_unsolicited", "An ARP reply or announcement that nobody asked for.";
    ArpConflict, "arp_conflict", "Somebody else claims one of the router's addresses.";
    ArpSuppressed, "arp_suppressed", "A server of direct routing speaks for the virtual IP; nobody is misled.";
    ArpServerProbe, "arp_server_probe", "A server of direct routing probes for a virtual IP that it holds.";
    ArpOwnEcho, "arp_own_echo", "An ARP message of the router's own that came back.";
    IpMalformed, "ip_malformed", "IPv4 version or lengths do not fit.";
    IpChecksum, "ip_checksum", "The IPv4 header checksum is wrong.";
    IpSourceRoute, "ip_source_route", "Carries a source route or unreadable options.";
    MartianSource, "martian_source", "The source address cannot be one, or is the router's own.";
    MartianDestination, "martian_destination", "The destination address cannot be one.";
    Broadcast, "broadcast", "IP broadcast or multicast that nobody here wants.";
    LinkBroadcast, "link_broadcast", "A unicast IP packet in a broadcast frame.";
    TcpMalformed, "tcp_malformed", "The TCP header is cut short or lies about its length.";
    UdpMalformed, "udp_malformed", "The UDP header is cut short or lies about its length.";
    IcmpMalformed, "icmp_malformed", "The ICMP message is cut short or its checksum is wrong.";
    Fragment, "fragment", "A fragment for the router itself, or of an ICMP message to a virtual IP.";
    FragmentRefused, "fragment_refused", "A fragment that overlaps another, cannot be one, or follows one that was dropped.";
    FragmentOrphan, "fragment_orphan", "A fragment whose first one never came, or whose flow is gone.";
    FragmentsFull, "fragments_full", "Too many fragments wait for their first one.";
    IcmpUnknownFlow, "icmp_unknown_flow", "An ICMP error about a packet of no known flow.";
    IcmpUnserved, "icmp_unserved", "An ICMP message to a virtual IP that is neither echo request nor error.";
    ProtocolUnserved, "protocol_unserved", "Neither TCP, UDP nor ICMP to a virtual IP.";
    Unserved, "unserved", "No service at this port of a virtual IP.";
    NoFlow, "no_flow", "A packet that belongs to no flow and opens none: late, or out of the blue.";
    FlowEnded, "flow_ended", "Its server was taken away: the client is reset instead.";
    FtpEarly, "ftp_early", "Text of an FTP control connection that came before what stands in front of it.";
    FtpTorn, "ftp_torn", "An FTP text that has to name the virtual IP, and is broken or would be too long.";
    NoServer, "no_server", "The service has no server to give.";
    TableFull, "table_full", "No room for another flow, and none that may go.";
    PortsExhausted, "ports_exhausted", "No free port to tell this flow's answers from another's.";
    ReversePath, "reverse_path", "The way back to the source leads through another network.";
    WrongNetwork, "wrong_network", "A flow's packet from a network where the flow does not run.";
    NotForwarded, "not_forwarded", "Neither for a service nor an answer, and not routed.";
    BackupRole, "backup_role", "For a virtual IP or to be routed, and this router is not active: its peer does that.";
    BackupBridge, "backup_bridge", "Between a bridge's links, and this router is not active: its peer does that.";
    OtherActive, "other_active", "From the virtual MAC, which this router has now: another one is active too.";
    NoRoute, "no_route", "No route to the destination.";
    TtlExceeded, "ttl_exceeded", "The time to live is used up.";
    TooBig, "too_big", "Longer than the next network's MTU.";
    HoldFull, "hold_full", "Too many frames wait for the next hop's MAC already.";
    NeighbourTableFull, "neighbour_table_full", "No room for another neighbour.";
    NeighbourFailed, "neighbour_failed", "The next hop does not answer ARP.";
    OutboxFull, "outbox_full", "Too many frames of the router's own wait to be sent.";
    HostQueueFull, "host_queue_full", "The router's own IP stack has too much to do.";
    WriteRefused, "write_refused", "The link did not take the frame.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<BadOffload> for DropReason {
    fn from(bad: BadOffload) -> Self {
        match bad {
            BadOffload::Malformed => Self::OffloadMalformed,
            BadOffload::Unknown => Self::OffloadUnknown,
        }
    }
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Header => Self::IpMalformed,
            Malformed::HeaderChecksum => Self::IpChecksum,
            Malformed::Tcp => Self::TcpMalformed,
            Malformed::Udp => Self::UdpMalformed,
            Malformed::Icmp => Self::IcmpMalformed,
        }
    }
}

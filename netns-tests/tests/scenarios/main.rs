//! What other NAT implementations are tested for, re-created around tapvs: the scenarios of the
//! Linux kernel's own selftests (`tools/testing/selftests/net` and `.../netfilter`) and what the
//! RFCs demand of a NAT. Needs Rust and nothing else.
//!
//! | scenario | here |
//! |---|---|
//! | O2 ipvs.sh, NAT | `o2_…` |
//! | O4 local_dnat | `o4_…`: the half that applies. A ping to a VIP is answered by the router itself, as IPVS does, so it is a UDP service that is changed while flows run |
//! | O5 portonly | `o5_…`; the address always changes too: a service is never the server itself |
//! | O6 masquerade | `o6_…` |
//! | O7 redirect | does not apply: no rule turns a host's traffic to the router itself; the nearest is a ping to a VIP, which the router answers and no server sees: `o7_…` |
//! | O8 port shadow | `o8_…` |
//! | O9 stateless | `o9_…` |
//! | O10 dnat clash | `o10_…`, two ports and two virtual IPs on one server |
//! | O11 icmp_related | `o11_…`, in both directions of NAT |
//! | O12 edemux | `o12_…`: two services on one server, and one beside a connection straight to it |
//! | O13 tcp_unreplied | `o13_…` |
//! | O14 clash | `o14_…` |
//! | O15 reverse_clash | `o15_…` |
//! | O16 resize | `o16_…`; the table is sized at start, 1000 flows is the least that a file may ask for |
//! | O18 rpath | `o18_…` |
//! | O20 flowtable | `o20_…`: 9000, 1500 and 2000 bytes in a row |
//! | O1 ipvs.sh, DR | the target `direct` |
//! | O3, O17, O19, O21 | do not apply: IPIP, a SYN proxy, VXLAN |
//! | N5 hairpin | `n5_…` |

mod clash;
mod icmp;
mod limits;
mod mtu;
mod one_nic;
mod own_traffic;
mod policy;
mod service;
mod site;

use std::process::ExitCode;

use netns_tests::harness;

fn main() -> ExitCode {
    let rooms = [
        service::trials(),
        own_traffic::trials(),
        clash::trials(),
        icmp::trials(),
        mtu::trials(),
        limits::trials(),
        policy::trials(),
        one_nic::trials(),
    ];
    harness::main(rooms.into_iter().flatten().collect())
}

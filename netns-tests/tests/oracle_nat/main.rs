//! The same packets through the Linux kernel's nf_nat and through the dataplane: what comes out
//! must be equal, byte for byte from the IP header on, and go to the same station.
//!
//! The kernel routes between two TAPs in a namespace, with nft rules that say what the
//! configuration says. Known differences, each allowed where a case names it and nowhere else:
//!
//! - [`Differs::QuotedChecksum`]: the kernel's nf_nat also patches the transport checksum of a quoted
//!   packet where the quote reaches that far. tapvs leaves it, as the kernel's IPVS does; nobody may
//!   rely on it (RFC 5508 REQ-3 c).
//! - [`Differs::Reassembled`]: the kernel puts fragments together and cuts them again, so that they
//!   come out in order; tapvs passes them on as they come. What they add up to must be equal.
//!
//! Beside that, [`firewall`]: what tapvs says of its own accord gets past the kernel's connection tracking.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod firewall;
mod kernel;
#[path = "../../../tests/support/mod.rs"]
#[expect(dead_code, reason = "each test file uses its part")]
mod support;

use std::process::{Command, ExitCode};

use libtest_mimic::Trial;
use netns_tests::harness::{self, say, trial};
use netns_tests::{Context as _, Outcome, ensure};
use tapvs::addr::LinkId;
use tapvs::config::Masquerade;

use self::cases::{Case, Differs};
use self::firewall::Way;
use self::kernel::Kernel;
use self::support::{IN, OUT, Router, VIP, config, line, server, service};

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--list") {
        match Command::new("nft").arg("--version").output().context("no nft") {
            Ok(output) => say(String::from_utf8_lossy(&output.stdout).trim()),
            Err(error) => {
                say(format_args!("{error}; `cargo xtask test` installs it"));
                return ExitCode::FAILURE;
            }
        }
    }
    let trials: [Trial; 6] = [
        trial("tcp_is_translated_as_by_the_kernel", || compare(&cases::tcp())),
        trial("udp_is_translated_as_by_the_kernel", || compare(&cases::udp())),
        trial("icmp_errors_are_translated_as_by_the_kernel", || compare(&cases::errors())),
        trial("the_servers_own_traffic_is_translated_as_by_the_kernel", || {
            compare(&cases::outgoing())
        }),
        firewall::trial("an_idle_client_behind_a_firewall_is_reset_by_nat", Way::Nat),
        firewall::trial("an_idle_client_behind_a_firewall_is_reset_direct", Way::Direct),
    ];
    harness::main(trials.into())
}

/// A router in memory that does what the kernel's rules say.
fn router() -> Router {
    let mut config = config();
    config.services = vec![
        service(tapvs::addr::Proto::Tcp, 80, vec![server(11, 8080, 1)]),
        service(tapvs::addr::Proto::Udp, 53, vec![server(11, 5353, 1)]),
    ];
    config.router.forward = tapvs::config::Forward::ServersOut;
    config.masquerades = vec![Masquerade { from: "10.0.0.0/24".parse().unwrap(), to: VIP.into() }];
    Router::new(config)
}

fn compare(cases: &[Case]) -> Outcome {
    let mut wrong = Vec::new();
    for case in cases {
        // Each starts without flows on either side.
        let mut kernel = Kernel::new().context("the kernel's side")?;
        let mut router = router();
        let mut theirs = Vec::new();
        let mut ours = Vec::new();
        for (link, frame) in &case.frames {
            theirs.push(kernel.pass(*link, frame)?);
            ours.push(router.feed(*link, frame).out);
        }
        let packets = ours.iter().map(Vec::len).sum::<usize>();
        let frames = case.frames.len();
        ensure!(packets == frames, "{}: {packets} of {frames} frames left tapvs", case.name);
        let (theirs, ours) = match case.differs {
            Some(Differs::Reassembled) => (whole(&theirs), whole(&ours)),
            Some(Differs::QuotedChecksum) => {
                (without_quoted_checksum(&theirs), without_quoted_checksum(&ours))
            }
            None => (seen(&theirs), seen(&ours)),
        };
        for (number, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
            if theirs != ours {
                wrong.push(format!(
                    "{}, frame {number}:\n kernel {}\n tapvs  {}",
                    case.name,
                    text(theirs),
                    text(ours)
                ));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// What left by which link for one frame that came in: destination MAC, then the IP packet.
type Out = Vec<(LinkId, Vec<u8>)>;

/// The frames without the router's own MAC, which is its own affair.
fn seen(outs: &[Out]) -> Vec<Out> {
    let packet = |frame: &[u8]| {
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        [&frame[..6], &frame[14..14 + total]].concat()
    };
    outs.iter()
        .map(|out| out.iter().map(|(link, frame)| (*link, packet(frame))).collect())
        .collect()
}

/// As [`seen`], with the checksum in a quoted UDP header blanked and the ICMP checksum with it.
fn without_quoted_checksum(outs: &[Out]) -> Vec<Out> {
    let mut outs = seen(outs);
    for (_, packet) in outs.iter_mut().flatten() {
        let (ip, icmp) = (6, 6 + 20);
        let quoted = icmp + 8;
        if packet[ip + 9] == 1 && matches!(packet[icmp], 3 | 4 | 11) {
            assert!(support::sum(&[&packet[icmp..]]) == 0xffff, "a wrong ICMP checksum");
            packet[icmp + 2..icmp + 4].fill(0);
            let protocol = packet[quoted + 9];
            let header = usize::from(packet[quoted] & 15) * 4;
            let at = match protocol {
                6 => quoted + header + 16,
                17 => quoted + header + 6,
                _ => continue,
            };
            if let Some(sum) = packet.get_mut(at..at + 2) {
                sum.fill(0);
            }
        }
    }
    outs
}

/// A datagram's link and header, and its pieces by their offsets.
type Pieces = (LinkId, Vec<u8>, Vec<(u16, Vec<u8>)>);

/// The datagrams that the frames add up to, with their own header's checksum and fragment words
/// blanked; in one list, for they come out at other times.
fn whole(outs: &[Out]) -> Vec<Out> {
    let mut data: Vec<Pieces> = Vec::new();
    for (link, frame) in seen(outs).into_iter().flatten() {
        let fragment = u16::from_be_bytes([frame[12], frame[13]]);
        let mut header = frame[..26].to_vec();
        header[8..10].fill(0);
        header[12..14].fill(0);
        header[16..18].fill(0);
        let piece = (fragment & 0x1fff, frame[26..].to_vec());
        match data.iter_mut().find(|(at, known, _)| *at == link && *known == header) {
            Some((.., pieces)) => pieces.push(piece),
            None => data.push((link, header, vec![piece])),
        }
    }
    let join = |(link, header, mut pieces): Pieces| {
        pieces.sort();
        let body: Vec<u8> = pieces.into_iter().flat_map(|(_, bytes)| bytes).collect();
        (link, [header, body].concat())
    };
    vec![data.into_iter().map(join).collect()]
}

/// For whoever has to find out.
fn text(out: &Out) -> String {
    let one = |(link, packet): &(LinkId, Vec<u8>)| {
        let side = if *link == OUT { "out" } else { "in" };
        assert!([IN, OUT].contains(link));
        let frame = [&packet[..6], &[0; 6], &[8, 0], &packet[6..]].concat();
        let hex: String =
            packet.iter().skip(6).take(64).map(|byte| format!("{byte:02x}")).collect();
        format!("{side}: {} [{hex}]", line(&frame))
    };
    if out.is_empty() {
        "nothing".into()
    } else {
        out.iter().map(one).collect::<Vec<_>>().join(" + ")
    }
}

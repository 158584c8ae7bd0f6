//! A million flows: datagrams of 16 clients with 62,500 ports each, in an order that no cache can guess, sent
//! past the client's stack; as soon as all are resident, what arrives is counted.

use std::fmt;
use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netns_tests::{Context as _, Failure, Outcome, ensure};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, bind, socket};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use tapvs::addr::MacAddr;
use tapvs::frame::checksum;
use tapvs::links::Netlink;

use super::small::{self, PAYLOAD};
use super::window::{Window, Witness};
use crate::outcome::Sample;
use crate::stage::{CLIENT_NIC, Stage, port};

const CLIENTS: u32 = 16;
const PORTS: u32 = 62_500;
const FLOWS: u32 = CLIENTS * PORTS;
const FIRST_PORT: u16 = 2_000;
/// Steps through all flows without meeting one twice: it has no factor in common with their number.
const STRIDE: u32 = 618_033;
const BURST: usize = 64;
const LENGTH: usize = 14 + 20 + 8 + PAYLOAD;
/// Bursts that the queue of a TAP holds, with room to spare.
const BURSTS: usize = 32;
/// What has not arrived by then is lost, and sent again in the next pass.
const LATE: Duration = Duration::from_millis(100);
const FILLING: Duration = Duration::from_secs(120);
/// Enough of them.
const RESIDENT: u64 = 990_000;

/// Sends the frames of all the flows.
pub(crate) struct Crowd {
    wire: OwnedFd,
    template: [u8; LENGTH],
    next: u32,
    memory: Option<u64>,
    flows: Option<u64>,
    _sink: UdpSocket,
}

impl fmt::Debug for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crowd({} flows)", FLOWS)
    }
}

/// Makes the forwarder know every flow, where it knows flows.
pub(super) fn fill(stage: &Stage) -> Outcome<Crowd> {
    small::prove(stage)?;
    let sink = small::sink(stage)?;
    let (client_mac, next_hop) = stage.client.run(|| {
        let netlink = Netlink::new()?;
        let known = netlink.neighbours(CLIENT_NIC)?;
        let next = known.into_iter().find(|next| next.address == stage.target);
        Ok::<_, Failure>((netlink.link(CLIENT_NIC)?.mac, next.and_then(|next| next.mac)))
    })?;
    let next_hop = next_hop.ok_or_else(|| Failure::new("the client does not know its next hop"))?;
    let mut crowd = Crowd {
        wire: stage.client.run(open_wire)?,
        template: template(next_hop, client_mac, stage.target),
        next: 0,
        memory: None,
        flows: None,
        _sink: sink,
    };
    let Some(pid) = stage.pid() else { return Ok(crowd) };
    // With everything that does not depend on how many flows there are.
    let without = netns_tests::resident(pid)?;
    if let Some(router) = stage.router() {
        let end = Instant::now() + FILLING;
        let mut flows = 0;
        while flows < RESIDENT {
            ensure!(Instant::now() < end, "only {flows} flows became resident");
            crowd.send_all(stage)?;
            flows = router.report()?.figure(&["report: table"], "flows")?;
        }
        crowd.flows = Some(flows);
    }
    crowd.memory = Some(netns_tests::resident(pid)?.saturating_sub(without));
    Ok(crowd)
}

pub(super) fn measure(stage: &Stage, crowd: &mut Crowd, length: Duration) -> Outcome<Sample> {
    let witness = Witness::begin(stage)?;
    let ending = AtomicBool::new(false);
    let (memory, flows) = (crowd.memory, crowd.flows);
    let window = thread::scope(|scope| {
        scope.spawn(|| {
            while !ending.load(Ordering::Relaxed) {
                crowd.send();
            }
        });
        let window = Window::open(stage, length, || Ok(stage.server_nic()?.rx_packets));
        ending.store(true, Ordering::Relaxed);
        window
    })?;
    witness.end(stage)?;
    Ok(Sample { memory, flows, ..window.sample(1.0) })
}

impl Crowd {
    /// A frame of each flow, no more at a time than queues hold.
    fn send_all(&mut self, stage: &Stage) -> Outcome {
        let bursts = FLOWS as usize / BURST;
        for _ in 0..bursts.div_ceil(BURSTS) {
            let before = stage.server_nic()?.rx_packets;
            (0..BURSTS).for_each(|_| self.send());
            let end = Instant::now() + LATE;
            while stage.server_nic()?.rx_packets < before + (BURSTS * BURST) as u64
                && Instant::now() < end
            {
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// A burst of the next flows' frames.
    fn send(&mut self) {
        let mut frames = [self.template; BURST];
        for frame in &mut frames {
            self.next = (self.next + STRIDE) % FLOWS;
            give(frame, self.next);
        }
        let pieces: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut controls: [_; BURST] = std::array::from_fn(|_| SendAncillaryBuffer::new(&mut []));
        let mut messages: Vec<_> = pieces
            .iter()
            .zip(&mut controls)
            .map(|(piece, control)| MMsgHdr::new(piece, control))
            .collect();
        // A full queue is what is wanted.
        let _ = sendmmsg(&self.wire, &mut messages, SendFlags::empty());
    }
}

/// Makes a frame the flow's; its checksums are patched.
fn give(frame: &mut [u8; LENGTH], flow: u32) {
    let (client, number) = (flow / PORTS, flow % PORTS);
    // 10.1.16.1 and on.
    let last = u8::try_from(1 + client).unwrap_or(u8::MAX);
    let port = FIRST_PORT + u16::try_from(number).unwrap_or(0);
    frame[29] = last;
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[24..26].fill(0);
    let header = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    frame[40..42].fill(0);
    let (mut source, mut destination) = ([0; 4], [0; 4]);
    source.copy_from_slice(&frame[26..30]);
    destination.copy_from_slice(&frame[30..34]);
    let datagram = checksum::of_segment(source, destination, 17, &frame[34..]);
    frame[40..42].copy_from_slice(&datagram.to_be_bytes());
}

fn template(to: MacAddr, from: MacAddr, target: Ipv4Addr) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let total = u16::try_from(LENGTH - 14).unwrap_or(0).to_be_bytes();
    frame[14..26].copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&[10, 1, 16, 1]);
    frame[30..34].copy_from_slice(&target.octets());
    frame[36..38].copy_from_slice(&port::SMALL.to_be_bytes());
    let length = u16::try_from(8 + PAYLOAD).unwrap_or(0).to_be_bytes();
    frame[38..40].copy_from_slice(&length);
    frame
}

/// A packet socket on the client's NIC that hears nothing.
fn open_wire() -> Outcome<OwnedFd> {
    let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == CLIENT_NIC);
    let link = entries.find_map(|entry| entry.address?.as_link_addr().copied());
    let link: LinkAddr = link.ok_or_else(|| Failure::new("the client has no NIC"))?;
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
    let fd = fd.context("a packet socket")?;
    bind(fd.as_raw_fd(), &link).context("a packet socket")?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tapvs::frame::{Frame, Ipv4, Transport};

    use super::*;

    #[test]
    fn frames_are_right_and_all_different() {
        let target = Ipv4Addr::new(10, 1, 0, 10);
        let mut frame = template(MacAddr([2; 6]), MacAddr([4; 6]), target);
        let mut seen = HashSet::new();
        let mut flow = 0;
        for _ in 0..FLOWS {
            flow = (flow + STRIDE) % FLOWS;
            assert!(seen.insert(flow));
        }
        assert_eq!(seen.len(), 1_000_000);
        for flow in [0, 1, PORTS - 1, PORTS, FLOWS - 1] {
            give(&mut frame, flow);
            let ip = Ipv4::parse(&frame).unwrap();
            assert!(ip.is_transport_intact(&Frame::from_bytes(&frame)), "flow {flow}");
            let Transport::Udp(udp) = ip.transport else { panic!("not UDP") };
            assert_eq!(u32::from(udp.source), u32::from(FIRST_PORT) + flow % PORTS);
            assert_eq!(ip.source.octets()[3], u8::try_from(1 + flow / PORTS).unwrap());
        }
    }
}

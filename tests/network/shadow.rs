//! A second opinion: the flow table as a plain map, kept by reading the frames from outside.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tapvs::addr::LinkId;
use tapvs::dataplane::{DropReason, State, Verdict};
use tapvs::time::{Duration, Instant};

use crate::support::router::Step;
use crate::support::{ACK, FIN, IN, OUT, RST, Read, Router, SYN, VIP, line};

/// Protocol, client, client port, service port.
type Key = (u8, Ipv4Addr, u16, u16);

#[derive(Clone, Debug)]
struct Flow {
    server: (Ipv4Addr, u16),
    state: State,
    /// The side whose reset ended it while it was established.
    reset_by: Option<usize>,
    packets: [u32; 2],
    bytes: [u64; 2],
    deadline: Instant,
}

/// What the dataplane should know.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    flows: BTreeMap<Key, Flow>,
    failed: u64,
}

impl Shadow {
    /// Takes note of one frame and what became of it, then compares.
    pub(crate) fn follow(&mut self, link: LinkId, cause: &[u8], step: &Step, router: &Router) {
        let taken = matches!(step.verdict, Verdict::Forward(_) | Verdict::Held);
        if let (true, Some(packet)) = (taken, Read::frame(cause))
            && let Some(ports) = packet.ports()
        {
            let leaving = match step.verdict {
                Verdict::Forward(_) => step.out.first().and_then(|(_, frame)| Read::frame(frame)),
                _ => None,
            };
            if link == OUT {
                self.request(&packet, ports, leaving.as_ref(), router);
            } else {
                self.answer(&packet, ports, leaving.as_ref(), router.now);
            }
        }
        self.compare(router, || format!("{}\n{}", line(cause), step.text()));
    }

    fn request(
        &mut self,
        packet: &Read,
        (from, to): (u16, u16),
        leaving: Option<&Read>,
        router: &Router,
    ) {
        assert_eq!(packet.destination, VIP);
        let key = (packet.protocol, packet.source, from, to);
        let syn = packet.protocol == 6 && packet.flags() & (SYN | RST) == SYN;
        let over = self.flows.get(&key).is_some_and(|flow| {
            let closed = matches!(flow.state, State::TimeWait | State::Close);
            flow.deadline <= router.now || closed && syn
        });
        if over {
            self.flows.remove(&key);
        }
        let (server, port) = match leaving {
            Some(leaving) => {
                // The client's address and port are what the server sees.
                assert_eq!((leaving.source, leaving.ports().unwrap().0), (packet.source, from));
                (leaving.destination, leaving.ports().unwrap().1)
            }
            None => {
                let flows = router.flows();
                let mut same = flows.iter().filter(|flow| {
                    let original = flow.original;
                    (original.source, original.source_port) == (packet.source, from)
                        && original.protocol == packet.protocol
                });
                let reply = same.next().unwrap().reply;
                (reply.source, reply.source_port)
            }
        };
        let new = !self.flows.contains_key(&key);
        if new {
            assert!(packet.protocol == 17 || syn, "only a SYN opens a flow");
        }
        let flow = self.flows.entry(key).or_insert_with(|| Flow {
            server: (server, port),
            state: if packet.protocol == 6 { State::None } else { State::Udp },
            reset_by: None,
            packets: [0; 2],
            bytes: [0; 2],
            deadline: router.now,
        });
        // D2: one server for all of a flow's life.
        assert_eq!(flow.server, (server, port), "flow {key:?} moved");
        flow.count(0, packet, router.now);
    }

    fn answer(
        &mut self,
        packet: &Read,
        (from, to): (u16, u16),
        leaving: Option<&Read>,
        now: Instant,
    ) {
        let mut flows = self.flows.iter_mut();
        let is_its = |(key, flow): &(&Key, &mut Flow)| {
            flow.server == (packet.source, from)
                && (key.0, key.1, key.2) == (packet.protocol, packet.destination, to)
        };
        let (key, flow) = flows.find(is_its).expect("an answer of no flow was forwarded");
        if let Some(leaving) = leaving {
            // D3: from the address and port that the client used.
            let seen = (leaving.source, leaving.ports().unwrap());
            assert_eq!(seen, (VIP, (key.3, key.2)));
            assert_eq!(leaving.destination, key.1);
        }
        flow.count(1, packet, now);
    }

    /// The dataplane's flows are those of the model; a flow past its deadline may still be there.
    fn compare(&mut self, router: &Router, cause: impl Fn() -> String) {
        let now = router.now;
        let failed = router.dataplane.counters().dropped(DropReason::NeighbourFailed);
        let mut seen = 0;
        let flows = router.flows();
        for flow in &flows {
            let original = flow.original;
            let key = (
                original.protocol,
                original.source,
                original.source_port,
                original.destination_port,
            );
            let model = self.flows.get(&key);
            let model = model.unwrap_or_else(|| panic!("unknown flow {key:?} after {}", cause()));
            assert_eq!(flow.state, model.state, "{key:?} after {}", cause());
            assert_eq!((flow.packets, flow.bytes), (model.packets, model.bytes), "{key:?}");
            assert_eq!((flow.reply.source, flow.reply.source_port), model.server);
            assert!(now < model.deadline + Duration::from_secs(3), "{key:?} outlived its time");
            seen += 1;
        }
        if seen < self.flows.len() {
            // Gone are those that have expired, and unanswered ones whose server did not answer ARP.
            let undeliverable = failed > self.failed;
            let known = |key: &Key| {
                flows.iter().any(|flow| {
                    let original = flow.original;
                    (
                        original.protocol,
                        original.source,
                        original.source_port,
                        original.destination_port,
                    ) == *key
                })
            };
            self.flows.retain(|key, flow| {
                let there = known(key);
                let may_go = flow.deadline <= now || undeliverable && flow.packets[1] == 0;
                assert!(there || may_go, "{key:?} is missing after {}", cause());
                there
            });
        }
        self.failed = failed;
    }
}

impl Flow {
    /// The IPVS state machine, and one rule more: data from the side that reset an established flow
    /// shows that the reset was forged.
    fn segment(&mut self, way: usize, packet: &Read) {
        let flags = packet.flags();
        let header = usize::from(packet.body[12] >> 4) * 4;
        let undone = self.state == State::Close
            && self.reset_by == Some(way)
            && flags & (SYN | FIN | RST) == 0
            && packet.body.len() > header;
        if flags & RST != 0 {
            if self.state == State::Established {
                self.reset_by = Some(way);
            }
        } else if flags & (SYN | FIN) != 0 || undone {
            self.reset_by = None;
        }
        self.state = if undone { State::Established } else { next(self.state, way == 0, flags) };
    }

    fn count(&mut self, way: usize, packet: &Read, now: Instant) {
        self.packets[way] += 1;
        self.bytes[way] += (packet.header.len() + packet.body.len()) as u64;
        if packet.protocol == 6 {
            self.segment(way, packet);
        }
        let seconds = match self.state {
            State::None => 2,
            State::SynSent | State::FinWait | State::TimeWait => 120,
            State::SynRecv | State::CloseWait | State::Icmp => 60,
            State::Established => 900,
            State::Close => 10,
            State::LastAck => 30,
            State::Udp => 300,
        };
        self.deadline = now + Duration::from_secs(seconds);
    }
}

/// The IPVS state machine, a row per event (reset, SYN, FIN, ACK, nothing), a column per state.
fn next(state: State, from_client: bool, flags: u8) -> State {
    const STATES: [State; 9] = [
        State::None,
        State::Established,
        State::SynSent,
        State::SynRecv,
        State::FinWait,
        State::TimeWait,
        State::Close,
        State::CloseWait,
        State::LastAck,
    ];
    // Letters: None Established SynSent synRecv Finwait Timewait Close closeWait Lastack.
    const CLIENT: [&str; 5] = ["CCCRCCCCL", "REERRRRRR", "CWSTTTCWL", "EESEFTCWC", "CCCCCCCCC"];
    const SERVER: [&str; 5] = ["CCSCCTCCC", "SESRSSSSS", "TFSTFTCTL", "EESEFTCWL", "CCCCCCCCC"];
    let row = [RST, SYN, FIN, ACK].iter().position(|bit| flags & bit != 0).unwrap_or(4);
    let table = if from_client { CLIENT } else { SERVER };
    let column = STATES.iter().position(|known| *known == state).unwrap();
    match table[row].as_bytes()[column] {
        b'N' => State::None,
        b'E' => State::Established,
        b'S' => State::SynSent,
        b'R' => State::SynRecv,
        b'F' => State::FinWait,
        b'T' => State::TimeWait,
        b'C' => State::Close,
        b'W' => State::CloseWait,
        b'L' => State::LastAck,
        other => unreachable!("{other}"),
    }
}

/// What may be seen on each side: the clients see the virtual IP only, the servers never do.
pub(crate) fn check_sides(link: LinkId, frame: &[u8]) {
    let Some(packet) = Read::frame(frame) else { return };
    match link {
        OUT => assert_eq!(packet.source, VIP, "{}", line(frame)),
        IN => assert_ne!(packet.source, VIP, "{}", line(frame)),
        _ => unreachable!("two links"),
    }
}

//! Every record that is written can be read; of any other bytes nothing is believed.

use proptest::prelude::*;

use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);

fn tuple(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> Tuple {
    let (source_port, destination_port) = ports;
    Tuple { source, destination, source_port, destination_port, protocol }
}

fn flow() -> Snapshot {
    Snapshot {
        original: tuple(TCP, CLIENT, VIP, (40_000, 80)),
        reply: tuple(TCP, SERVER, CLIENT, (8_080, 40_000)),
        method: Method::Nat,
        state: State::Established,
        assured: true,
        server_syn_seen: true,
        reset_by: None,
        server_syn: 0x0102_0304,
        left: 900_000,
    }
}

fn bytes(record: Record) -> [u8; FLOW_RECORD] {
    // Nothing of what was there before may stay.
    let mut bytes = FlowRecord { bytes: [0xff; LONGEST_FLOW_RECORD], len: 7 };
    record.write(&mut bytes);
    bytes[..].try_into().unwrap()
}

/// One of every kind.
fn kinds() -> Vec<Snapshot> {
    let nat = flow();
    let direct = Snapshot {
        method: Method::Direct,
        reply: tuple(TCP, SERVER, CLIENT, (80, 40_000)),
        reset_by: Some(Direction::Original),
        state: State::Close,
        ..nat
    };
    let udp = Snapshot {
        original: tuple(UDP, CLIENT, VIP, (40_000, 53)),
        reply: tuple(UDP, SERVER, CLIENT, (53, 40_001)),
        state: State::Udp,
        server_syn: 0,
        server_syn_seen: false,
        ..nat
    };
    let ping = Snapshot {
        original: tuple(ICMP, SERVER, CLIENT, (77, 0)),
        reply: tuple(ICMP, CLIENT, VIP, (0, 78)),
        method: Method::Masqueraded,
        state: State::Icmp,
        ..udp
    };
    let routed = Snapshot {
        original: tuple(TCP, SERVER, CLIENT, (5_000, 25)),
        reply: tuple(TCP, CLIENT, SERVER, (25, 5_000)),
        method: Method::Routed,
        reset_by: Some(Direction::Reply),
        ..nat
    };
    let states = TCP_STATES.map(|state| Snapshot { state, ..nat });
    [direct, udp, ping, routed].into_iter().chain(states).collect()
}

#[test]
fn a_record_looks_like_this() {
    let expected = [
        &[1, 1, 6, 1, 1, 3, 0, 0][..],
        &[198, 51, 100, 7, 203, 0, 113, 10, 0x9c, 0x40, 0, 80],
        &[10, 0, 0, 11, 198, 51, 100, 7, 0x1f, 0x90, 0x9c, 0x40],
        &[0x00, 0x0d, 0xbb, 0xa0, 1, 2, 3, 4],
    ];
    assert_eq!(bytes(Record::Present(flow()))[..], expected.concat()[..]);
    let gone = [&expected[0][..1], &[2, 6, 0, 0, 0, 0, 0], expected[1], &[0; 20]];
    assert_eq!(bytes(Record::Gone(flow().original))[..], gone.concat()[..]);
}

#[test]
fn what_is_written_is_read() {
    for flow in kinds() {
        let record = Record::Present(flow);
        assert_eq!(Record::read(&bytes(record)), Ok(record));
        let gone = Record::Gone(flow.original);
        assert_eq!(Record::read(&bytes(gone)), Ok(gone));
    }
}

/// Each of these is what no router writes.
#[test]
fn every_byte_is_checked() {
    let changes: [(&str, usize, u8); 17] = [
        ("a kind that there is not", 1, 3),
        ("a protocol that is not tracked", 2, 47),
        ("another protocol's state", 2, UDP),
        ("a method that there is not", 3, 4),
        ("a routed flow that is translated", 3, 0),
        ("a masqueraded flow whose answers come from elsewhere", 3, 3),
        ("a state that there is not", 4, 9),
        ("a flag that there is not", 5, 0x13),
        ("reset by both", 5, 0x0f),
        ("padding", 6, 1),
        ("padding", 7, 1),
        ("a client that is no host", 8, 0),
        ("a client that is no host", 8, 224),
        ("a server that is no host", 20, 127),
        ("answers to nobody", 24, 0),
        ("a lifetime beyond all bounds", 32, 0x80),
        ("a lifetime that no configuration gives", 32, 0x0b),
    ];
    for (what, at, byte) in changes {
        let mut record = bytes(Record::Present(flow()));
        record[at] = byte;
        assert_eq!(Record::read(&record), Err(ImportError::Malformed), "{what}");
    }
    let mut over = bytes(Record::Present(flow()));
    over[32..36].fill(0);
    assert_eq!(Record::read(&over), Err(ImportError::Malformed), "a life that is over");
    let mut own = flow();
    own.original.destination = own.original.source;
    let own = bytes(Record::Present(own));
    assert_eq!(Record::read(&own), Err(ImportError::Malformed), "to itself");
    let echo = Snapshot { reply: flow().original, ..flow() };
    let echo = bytes(Record::Present(echo));
    assert_eq!(Record::read(&echo), Err(ImportError::Malformed), "both ways the same");
    for at in (3..8).chain(20..FLOW_RECORD) {
        let mut gone = bytes(Record::Gone(flow().original));
        gone[at] = 1;
        assert_eq!(Record::read(&gone), Err(ImportError::Malformed), "byte {at} of what is gone");
    }
}

#[test]
fn lengths_and_versions_are_checked() {
    let record = bytes(Record::Present(flow()));
    for len in 0..FLOW_RECORD {
        assert_eq!(Record::read(&record[..len]), Err(ImportError::Malformed), "{len} bytes");
    }
    let longer = [&record[..], &[0]].concat();
    assert_eq!(Record::read(&longer), Err(ImportError::Malformed));
    for version in [0, 3, 255] {
        let mut record = record;
        record[0] = version;
        // Its length is not this version's to judge.
        assert_eq!(Record::read(&record), Err(ImportError::UnknownVersion));
        assert_eq!(Record::read(&record[..1]), Err(ImportError::UnknownVersion));
    }
}

#[test]
fn lifetimes_stay_within_bounds() {
    for (left, written) in [(0, 1), (1, 1), (MOST_LEFT, MOST_LEFT), (u32::MAX, MOST_LEFT)] {
        let record = bytes(Record::Present(Snapshot { left, ..flow() }));
        let expected = Record::Present(Snapshot { left: written, ..flow() });
        assert_eq!(Record::read(&record), Ok(expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What can be read says in full what was there: written again, it is the same.
    #[test]
    fn nothing_is_read_that_is_not_written_like_that(
        kind in 0usize..13,
        changes in prop::collection::vec((0usize..FLOW_RECORD, any::<u8>()), 0..4),
        is_gone: bool,
    ) {
        let flow = kinds()[kind];
        let record = if is_gone { Record::Gone(flow.original) } else { Record::Present(flow) };
        let mut changed = bytes(record);
        for (at, byte) in changes {
            changed[at] = byte;
        }
        if let Ok(record) = Record::read(&changed) {
            prop_assert_eq!(bytes(record), changed);
        }
    }

    #[test]
    fn any_bytes_can_be_read(noise in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Record::read(&noise);
    }
}

fn client(port: u16, ports: Ports) -> Remembered {
    let address = Ipv4Addr::new(198, 51, 100, 0);
    let name = ClientName { key: (Proto::Udp, VIP, ports), address, prefix: 24 };
    Remembered { name, server: SERVER, port, left: 300_000 }
}

#[test]
fn clients_are_read_as_they_were_written() {
    for ports in [Ports::of(53), Ports { first: 8_000, last: 8_100 }, Ports::ALL] {
        for port in [0, 53] {
            let remembered = client(port, ports);
            for record in [Record::Remembered(remembered), Record::Forgotten(remembered.name)] {
                assert_eq!(Record::read(&bytes(record)), Ok(record));
            }
        }
    }
}

/// Any byte of a client's record that is changed makes another record, or none.
#[test]
fn no_byte_of_a_client_is_believed_unread() {
    for record in [
        Record::Remembered(client(53, Ports::of(53))),
        Record::Forgotten(client(0, Ports::of(53)).name),
    ] {
        let written = bytes(record);
        for at in 0..FLOW_RECORD {
            for bit in 0..8 {
                let mut changed = written;
                changed[at] ^= 1 << bit;
                if let Ok(read) = Record::read(&changed) {
                    assert_ne!(read, record, "byte {at}, bit {bit}");
                    assert_eq!(bytes(read), changed, "byte {at}, bit {bit}");
                }
            }
        }
    }
}

//! What is written is read; of any other bytes nothing is believed.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::super::ImportError;
use super::super::{FLOW_RECORD, FlowRecord};
use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

fn tuple(source_port: u16, destination_port: u16) -> Tuple {
    Tuple { source: CLIENT, destination: VIP, source_port, destination_port, protocol: TCP }
}

fn passive(port: u16) -> Text {
    Text::new(Form::Passive, VIP, port)
}

/// Two changes after others, a passive and an active connection that are awaited.
fn control() -> Control {
    let mut stream = Stream::from((5_000, 3));
    assert!(stream.note(5_060, 16, passive(50_000)));
    assert!(stream.note(5_200, 5, Text::new(Form::ExtendedPassive, VIP, 1_025)));
    let mut awaited = [None; OFFERS_EACH];
    awaited[0] = Some(Awaited { is_passive: true, seen: 50_000, port: 50_001, left: 60_000 });
    awaited[1] = Some(Awaited { is_passive: false, seen: 51_200, port: 51_200, left: 1 });
    Control { original: tuple(40_000, 21), told: Told { stream, awaited } }
}

fn longest() -> Control {
    let mut stream = Stream::PLAIN;
    let mut awaited = [None; OFFERS_EACH];
    for (n, offer) in (0_u16..).zip(&mut awaited) {
        let start = (u32::MAX - 100).wrapping_add(u32::from(n) * 30);
        assert!(stream.note(start, 23, passive(50_000 + n)));
        *offer = Some(Awaited { is_passive: true, seen: 50_000 + n, port: 50_000, left: 9 });
    }
    Control { original: tuple(40_000, 21), told: Told { stream, awaited } }
}

fn plain() -> Control {
    let told = Told { stream: Stream::PLAIN, awaited: [None; OFFERS_EACH] };
    Control { original: tuple(40_000, 21), told }
}

fn data() -> Data {
    Data { original: tuple(40_001, 50_000), control: tuple(40_000, 21) }
}

fn bytes(record: Record) -> Vec<u8> {
    let mut bytes = FlowRecord::default();
    // Nothing of what was there before may stay.
    Record::Control(longest()).write(&mut bytes);
    record.write(&mut bytes);
    bytes.to_vec()
}

fn all() -> [Record; 4] {
    [
        Record::Control(plain()),
        Record::Control(control()),
        Record::Control(longest()),
        Record::Data(data()),
    ]
}

#[test]
fn records_look_like_this() {
    let tuple = [198, 51, 100, 7, 203, 0, 113, 10, 0x9c, 0x40, 0, 21];
    let expected = [
        &[2, 5, 6, 2, 2, 1, 0, 0][..],
        &tuple,
        &[0, 0, 0x13, 0x88, 0, 0, 0, 3],
        &[0, 0, 0x13, 0xc4, 16, 0, 0xc3, 0x50],
        &[0, 0, 0x14, 0x50, 5, 1, 4, 1],
        &[1, 0, 0xc3, 0x50, 0xc3, 0x51, 0xea, 0x60],
        &[2, 0, 0xc8, 0, 0xc8, 0, 0, 1],
    ];
    assert_eq!(bytes(Record::Control(control())), expected.concat());
    let expected = [
        &[2, 6, 6, 0, 0, 0, 0, 0][..],
        &[198, 51, 100, 7, 203, 0, 113, 10, 0x9c, 0x41, 0xc3, 0x50],
        &tuple,
    ];
    assert_eq!(bytes(Record::Data(data())), expected.concat());
}

#[test]
fn what_is_written_is_read() {
    for record in all() {
        assert_eq!(Record::read(&bytes(record)), Ok(record));
    }
    assert_eq!(bytes(Record::Control(longest())).len(), LONGEST);
    const { assert!(LONGEST >= FLOW_RECORD) };
}

#[test]
fn cut_off_or_with_more_behind_it_is_nothing() {
    for record in all() {
        let record = bytes(record);
        for len in 1..record.len() {
            assert_eq!(Record::read(&record[..len]), Err(ImportError::Malformed), "{len} bytes");
        }
        let longer = [&record[..], &[0; 8]].concat();
        assert_eq!(Record::read(&longer), Err(ImportError::Malformed));
    }
}

/// Each of these is what no router writes.
#[test]
fn lies_are_found() {
    let changes: [(&str, usize, &[u8]); 19] = [
        ("a kind that there is not", 1, &[7]),
        ("a kind of version 1", 1, &[1]),
        ("another protocol", 2, &[17]),
        ("more changes than it has", 3, &[3]),
        ("so many changes as never are", 3, &[255]),
        ("more awaited than it has", 4, &[3]),
        ("a flag that there is not", 5, &[2]),
        ("what was before, and nothing was", 5, &[0]),
        ("padding", 6, &[1]),
        ("a client that is no host", 8, &[0]),
        ("a change before what was before", 28, &[0, 0, 0x13, 0x87]),
        ("of nothing", 32, &[0]),
        ("of more than six numbers", 32, &[24]),
        ("a form that there is not", 33, &[2]),
        ("a port that nobody offers", 34, &[0, 22]),
        ("a change within the one before", 36, &[0, 0, 0x13, 0xd3]),
        ("opened by nobody", 44, &[3]),
        ("padding", 45, &[1]),
        ("awaited for longer than anybody waits", 50, &[0xea, 0x61]),
    ];
    for (what, at, with) in changes {
        let mut record = bytes(Record::Control(control()));
        record[at..at + with.len()].copy_from_slice(with);
        assert_eq!(Record::read(&record), Err(ImportError::Malformed), "{what}");
    }
    let twice = {
        let mut record = bytes(Record::Control(control()));
        record.copy_within(44..52, 52);
        record
    };
    assert_eq!(Record::read(&twice), Err(ImportError::Malformed), "awaited twice");
    let mut active = bytes(Record::Control(control()));
    active[57] ^= 1;
    assert_eq!(Record::read(&active), Err(ImportError::Malformed), "for another of its ports");
    for (what, at, byte) in [("another client", 23, 8), ("another address", 27, 11), ("x", 3, 1)] {
        let mut record = bytes(Record::Data(data()));
        record[at] = byte;
        assert_eq!(Record::read(&record), Err(ImportError::Malformed), "{what}");
    }
    let own = Data { control: data().original, ..data() };
    assert_eq!(Record::read(&bytes(Record::Data(own))), Err(ImportError::Malformed), "its own");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What can be read says in full what was there: written again, it is the same.
    #[test]
    fn nothing_is_read_that_is_not_written_like_that(
        kind in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut changed = bytes(all()[kind]);
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        if let Ok(record) = Record::read(&changed)
            && matches!(record, Record::Control(_) | Record::Data(_))
        {
            prop_assert_eq!(bytes(record), changed);
        }
    }

    #[test]
    fn any_bytes_can_be_read(noise in prop::collection::vec(any::<u8>(), 0..200), control: bool) {
        let head = [2, if control { 5 } else { 6 }, 6];
        let _ = Record::read(&[&head[..], &noise].concat());
    }
}

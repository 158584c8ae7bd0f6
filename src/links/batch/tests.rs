use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use super::super::io::{self, Io};
use super::super::link::Device;
use super::super::tap::Tap;
use super::super::{LinkSpec, Offloads};
use super::*;
use crate::config;
use crate::frame::VirtioHeader;

/// Fails some operations on the way, counted from the first.
struct Faulty {
    engine: Io,
    reads: Vec<(usize, i32)>,
    writes: Vec<(usize, i32)>,
    done: [usize; 2],
}

impl Faulty {
    fn spoil(faults: &[(usize, i32)], done: &mut usize, results: &mut Results) {
        for at in 0..results.len() {
            if let Some((_, code)) = faults.iter().find(|(number, _)| *number == *done + at) {
                results.set(at, *code);
            }
        }
        *done += results.len();
    }
}

impl Engine for Faulty {
    fn ask(&self, expected: usize) -> usize {
        self.engine.ask(expected)
    }

    fn read(&mut self, device: io::Device, frames: &mut [Frame], results: &mut Results) {
        self.engine.read(device, frames, results);
        Self::spoil(&self.reads, &mut self.done[0], results);
    }

    fn write<'f>(
        &mut self,
        writes: impl Iterator<Item = (io::Device, &'f [u8])>,
        results: &mut Results,
    ) {
        self.engine.write(writes, results);
        Self::spoil(&self.writes, &mut self.done[1], results);
    }

    fn forget(&mut self, link: LinkId) {
        self.engine.forget(link);
    }
}

/// Links without devices: what is at their other ends.
fn links(all: &[Offloads], wish: config::Io) -> Option<(All<Faulty>, Vec<UnixDatagram>)> {
    let engine = Io::choose(wish).ok()?;
    let (mut links, mut ends) = (Vec::new(), Vec::new());
    for offloads in all {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).unwrap();
        }
        let tap = Tap::of_test("tap", File::from(OwnedFd::from(ours)), *offloads);
        let offload = offloads.any();
        let spec = LinkSpec { tap: "tap".to_owned(), mtu: 1500, offload, attach: None };
        links.push(Link::of_test(spec, Device::Present(tap)));
        ends.push(theirs);
    }
    let engine = Faulty { engine, reads: Vec::new(), writes: Vec::new(), done: [0; 2] };
    Some((All::new(links, engine), ends))
}

const WISHES: [config::Io; 2] = [config::Io::Syscall, config::Io::Uring];

fn frames(count: usize) -> Vec<Frame> {
    std::iter::repeat_with(Frame::new).take(count).collect()
}

/// Everything that has come out at an end.
fn received(end: &UnixDatagram) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let next = || end.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    std::iter::from_fn(next).collect()
}

/// A frame of 60 bytes that says a number.
fn numbered(number: u8) -> Vec<u8> {
    vec![number; 60]
}

/// A recorded run, frame by frame: the same comes in and goes out in every mode.
#[test]
fn the_modes_move_the_same_frames() {
    let run = |wish, offloads: Offloads| {
        let (mut all, ends) = links(&[offloads, offloads], wish)?;
        let mut batch = frames(64);
        let mut seen = Vec::new();
        for round in 0..40_u8 {
            for number in 0..round % 7 * 3 {
                let mut bytes = if offloads.any() { vec![0; 10] } else { Vec::new() };
                bytes.extend(vec![number; 60 + usize::from(round)]);
                ends[0].send(&bytes).unwrap();
            }
            loop {
                let read = all.read_batch(LinkId(0), &mut batch);
                seen.extend(batch[..read.count].iter().map(|frame| frame.bytes().to_vec()));
                let leaves =
                    |frame: &Frame| (!frame.bytes()[0].is_multiple_of(4)).then_some(LinkId(1));
                let egress: Vec<_> = batch[..read.count].iter().map(leaves).collect();
                assert_eq!(all.write_batch(&egress, &batch[..read.count]), 0);
                if !read.more {
                    break;
                }
            }
        }
        Some((seen, received(&ends[1]), all.links[0].counters, all.links[1].counters))
    };
    for offloads in [Offloads::NONE, Offloads::ALL] {
        let [syscall, uring] = WISHES.map(|wish| run(wish, offloads));
        let syscall = syscall.unwrap();
        assert!(syscall.0.len() > 300 && syscall.1.len() > 200);
        if let Some(uring) = uring {
            assert!(syscall == uring);
        }
    }
}

/// A train of segments, with its virtio-net header.
fn train(segments: usize) -> Frame {
    let payload = 100 * segments;
    let total = u16::try_from(40 + payload).unwrap().to_be_bytes();
    let mut bytes = vec![2; 12];
    bytes.extend([8, 0, 0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x50, 0x10, 1, 1, 0, 0, 0, 0]);
    bytes.extend(vec![7; payload]);
    let mut frame = Frame::from_bytes(&bytes);
    let header = VirtioHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: 54,
        gso_size: 100,
        csum_start: 34,
        csum_offset: 16,
    };
    frame.set_header(header.to_bytes());
    frame
}

#[test]
fn what_a_link_cannot_take_is_cut_for_it() {
    for wish in WISHES {
        let Some((mut all, ends)) = links(&[Offloads::NONE, Offloads::TCP], wish) else { continue };
        let mut batch = vec![Frame::from_bytes(&numbered(1)), train(40), train(3)];
        batch.push(Frame::from_bytes(&numbered(2)));
        let plain = [Some(LinkId(0)); 4];
        assert_eq!(all.write_batch(&plain, &batch), 0);
        let out = received(&ends[0]);
        let lengths: Vec<_> = out.iter().map(Vec::len).collect();
        assert_eq!(lengths, [&[60][..], &[154; 43], &[60]].concat(), "all of them, in order");
        assert_eq!((all.links[0].counters.frames_out, all.links[0].counters.cut), (45, 41));
        let able = [Some(LinkId(1)); 4];
        assert_eq!(all.write_batch(&able, &batch), 0);
        let out = received(&ends[1]);
        assert_eq!(out.len(), 4);
        assert_eq!(out[1][..10], batch[1].header());
        assert_eq!(out[1][10..], *batch[1].bytes());
        assert_eq!(all.links[1].counters.cut, 0);
    }
}

#[test]
fn a_segment_that_is_refused_makes_its_frame_refused_and_every_write_is_counted() {
    for wish in WISHES {
        let Some((mut all, ends)) = links(&[Offloads::NONE], wish) else { continue };
        all.engine.writes = vec![(2, -libc::ENOMEM)];
        let refused = all.write_batch(&[Some(LinkId(0)); 2], &[train(4), train(2)]);
        let counters = all.links[0].counters;
        assert_eq!((refused, counters.refused.no_memory), (1, 1));
        // 2 given + cut = out + refused frames
        assert_eq!(2 + counters.cut, counters.frames_out + refused);
        drop(ends);
    }
}

#[test]
fn whatever_a_write_says_is_counted_and_the_others_leave() {
    for wish in WISHES {
        let Some((mut all, ends)) = links(&[Offloads::NONE, Offloads::NONE], wish) else {
            continue;
        };
        all.engine.writes = vec![
            (1, -libc::EIO),
            (3, -libc::ENOMEM),
            (5, -libc::EAGAIN),
            // Short.
            (7, 10),
            (9, -libc::EINVAL),
            // Gone: what was tried in the same batch is told all the same.
            (11, -libc::EBADFD),
        ];
        let batch: Vec<_> = (0..16).map(|n| Frame::from_bytes(&numbered(n))).collect();
        let egress: Vec<_> = (0..16_u16).map(|n| Some(LinkId(n % 2))).collect();
        assert_eq!(all.write_batch(&egress, &batch), 6);
        let [first, second] = [0, 1].map(|at: usize| all.links[at].counters);
        assert_eq!((first.frames_out, first.refused.total()), (8, 0));
        assert_eq!(second.frames_out, 2);
        let refused = second.refused;
        let counts =
            (refused.down, refused.no_memory, refused.invalid, refused.gone, refused.other);
        assert_eq!(counts, (1, 2, 1, 1, 1));
        assert_eq!((second.lost, second.frames_out + refused.total()), (1, 8));
        assert_eq!(received(&ends[0]).len(), 8);
        // From now on nothing is tried there.
        assert_eq!(all.write_batch(&egress, &batch), 8);
        assert_eq!(all.links[1].counters.refused.gone, 9);
    }
}

#[test]
fn whatever_a_read_says_no_frame_behind_it_is_lost() {
    for wish in WISHES {
        let Some((mut all, ends)) = links(&[Offloads::ALL], wish) else { continue };
        all.engine.reads = vec![(0, -libc::EIO), (2, -libc::ENOMEM), (4, 0), (5, 7)];
        let mut seen = Vec::new();
        let mut batch = frames(64);
        let mut turns = 0;
        for number in 0..20 {
            ends[0].send(&[&[0; 10][..], &numbered(number)].concat()).unwrap();
        }
        loop {
            let read = all.read_batch(LinkId(0), &mut batch);
            seen.extend(batch[..read.count].iter().map(|frame| frame.bytes()[0]));
            turns += 1;
            assert!(turns < 40);
            if !read.more {
                break;
            }
        }
        // Four were spoilt by the faults; the others have come, in order.
        assert_eq!(seen, [&[1, 3][..], &(6..20).collect::<Vec<_>>()].concat());
        assert_eq!(all.links[0].counters.read_errors, 4);
        assert_eq!(all.links[0].counters.frames_in, 16);
    }
}

#[test]
fn errors_without_end_do_not_keep_the_loop_awake() {
    for wish in WISHES {
        let Some((mut all, _ends)) = links(&[Offloads::NONE], wish) else { continue };
        all.engine.reads = (0..10_000).map(|number| (number, -libc::EIO)).collect();
        let mut batch = frames(64);
        let turns = (0..100).take_while(|_| all.read_batch(LinkId(0), &mut batch).more).count();
        assert!(turns < 10, "{turns}");
    }
}

/// Nothing is read in vain where little comes, and little is asked twice where much does.
#[test]
fn as_many_frames_are_asked_for_as_are_expected() {
    let Some((mut all, ends)) = links(&[Offloads::NONE], config::Io::Uring) else { return };
    let mut batch = frames(64);
    let mut rounds = |count: u8| {
        let before = all.engine.done[0];
        for number in 0..count {
            ends[0].send(&numbered(number)).unwrap();
        }
        let mut turns = 1;
        while all.read_batch(LinkId(0), &mut batch).more {
            turns += 1;
        }
        (turns, all.engine.done[0] - before)
    };
    for _ in 0..10 {
        assert_eq!(rounds(1), (1, 2), "one frame, and the news that there is no other");
    }
    rounds(60);
    assert!(rounds(60).0 <= 2, "not one by one");
    rounds(1);
    assert_eq!(rounds(1), (1, 2));
}

/// What is read is written before it has left the cache.
#[test]
fn of_long_frames_fewer_are_read_at_once() {
    const LONG: i32 = 60_000;
    for wish in WISHES {
        let Some((mut all, ends)) = links(&[Offloads::NONE], wish) else { continue };
        all.engine.reads = (0..10_000).map(|number| (number, LONG)).collect();
        let mut batch = frames(64);
        let mut turns = |all: &mut All<Faulty>| {
            let mut read = 0;
            for _ in 0..8 {
                // More than can be read is there each time.
                while ends[0].send(&numbered(1)).is_ok() {}
                read = all.read_batch(LinkId(0), &mut batch).count;
            }
            read
        };
        assert_eq!(turns(&mut all), (1 << 20) / 60_000, "{wish:?}");
        all.engine.reads.clear();
        assert_eq!(turns(&mut all), 64, "{wish:?}");
    }
}

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use super::*;

/// Datagrams keep their borders, as a TAP's frames do.
fn device() -> (UnixDatagram, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn of(end: &UnixDatagram) -> Device {
    Device { link: LinkId(0), fd: end.as_raw_fd(), with_header: false }
}

fn engines() -> Vec<Io> {
    // Where there is no io_uring, there is nothing to try.
    [Wish::Syscall, Wish::Uring].into_iter().filter_map(|wish| Io::choose(wish).ok()).collect()
}

#[test]
fn frames_are_read_in_order_until_there_are_none() {
    for mut engine in engines() {
        let (ours, theirs) = device();
        let mut frames: Vec<_> = std::iter::repeat_with(Frame::new).take(MOST).collect();
        let mut results = Results::new();
        for count in [0_u8, 1, 2, 9] {
            for number in 0..count {
                theirs.send(&[number; 60]).unwrap();
            }
            engine.read(of(&ours), &mut frames[..16], &mut results);
            for number in 0..count {
                let frame = &mut frames[usize::from(number)];
                assert_eq!(results.get(usize::from(number)).unwrap(), 60, "{}", engine.name());
                assert!(frame.take_input(false, 60));
                assert_eq!(frame.bytes(), [number; 60]);
            }
            let after = results.get(usize::from(count)).unwrap_err();
            assert_eq!(after.kind(), io::ErrorKind::WouldBlock);
        }
    }
}

#[test]
fn frames_are_written_in_order_each_with_its_result() {
    for mut engine in engines() {
        let (ours, theirs) = device();
        // No descriptor: one that was closed may be another test's by now.
        let closed = Device { link: LinkId(1), fd: -1, with_header: false };
        let mut results = Results::new();
        for count in [0_usize, 1, 2, MOST / 2] {
            let bytes: Vec<_> = (0..count).map(|number| vec![1; number + 1]).collect();
            let device = |number| if number % 5 == 3 { closed } else { of(&ours) };
            let writes =
                bytes.iter().enumerate().map(|(number, bytes)| (device(number), &bytes[..]));
            engine.write(writes, &mut results);
            assert_eq!(results.len(), count);
            for number in 0..count {
                match results.get(number) {
                    Ok(length) => assert_eq!(length, number + 1),
                    Err(error) => {
                        assert_eq!((number % 5, error.raw_os_error()), (3, Some(libc::EBADF)));
                    }
                }
            }
            theirs.set_nonblocking(true).unwrap();
            let mut buffer = [0; 100];
            let mut lengths = Vec::new();
            while let Ok(length) = theirs.recv(&mut buffer) {
                lengths.push(length);
            }
            let expected: Vec<_> = (0..count).filter(|n| n % 5 != 3).map(|n| n + 1).collect();
            assert_eq!(lengths, expected, "{}", engine.name());
        }
    }
}

/// An operation that would have to wait is not waited for.
#[test]
fn a_full_queue_is_a_result() {
    for mut engine in engines() {
        let (ours, _theirs) = device();
        let bytes = [7; 1_000];
        let mut results = Results::new();
        let full = (0..1_000).any(|_| {
            let writes = [(of(&ours), &bytes[..]); 8];
            engine.write(writes.into_iter(), &mut results);
            results.get(7).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        assert!(full, "{}", engine.name());
    }
}

/// A TAP that somebody still holds stays, and its name cannot be used again.
#[test]
fn a_forgotten_device_is_nobodys() {
    for mut engine in engines() {
        let mut frames: Vec<_> = std::iter::repeat_with(Frame::new).take(4).collect();
        let mut results = Results::new();
        for round in 0..3_u8 {
            // With the descriptor of the one before, as a TAP that is made anew may have it.
            let (ours, theirs) = device();
            theirs.send(&[round; 60]).unwrap();
            engine.read(of(&ours), &mut frames, &mut results);
            assert_eq!(results.get(0).unwrap(), 60, "{}", engine.name());
            assert!(frames[0].take_input(false, 60));
            assert_eq!(frames[0].bytes(), [round; 60]);
            let bytes = [round; 61];
            let writes = [(of(&ours), &bytes[..]); 2];
            engine.write(writes.into_iter(), &mut results);
            assert_eq!(theirs.recv(&mut [0; 100]).unwrap(), 61);
            engine.forget(LinkId(0));
            drop(ours);
            let error = theirs.send(&[round; 60]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{}", engine.name());
        }
    }
}

/// Nor do devices outlive the engine.
#[test]
fn devices_go_with_the_engine() {
    for mut engine in engines() {
        let (ours, theirs) = device();
        let mut frames = [Frame::new(), Frame::new()];
        engine.read(of(&ours), &mut frames, &mut Results::new());
        drop(ours);
        drop(engine);
        assert_eq!(theirs.send(&[1; 60]).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}

/// Links beyond those that a ring keeps are served all the same.
#[test]
fn the_last_link_is_served_as_the_first() {
    for mut engine in engines() {
        let (ours, theirs) = device();
        theirs.send(&[1; 60]).unwrap();
        let mut frames: Vec<_> = std::iter::repeat_with(Frame::new).take(4).collect();
        let mut results = Results::new();
        let last = Device { link: LinkId(u16::MAX), ..of(&ours) };
        engine.read(last, &mut frames, &mut results);
        assert_eq!(results.get(0).unwrap(), 60, "{}", engine.name());
        engine.forget(last.link);
    }
}

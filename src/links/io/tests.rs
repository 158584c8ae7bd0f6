use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use super::*;

/// Datagrams keep their borders, as a TAP's frames do.
fn device() -> (UnixDatagram, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
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
            engine.read(ours.as_raw_fd(), false, &mut frames[..16], &mut results);
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
        let closed = -1;
        let mut results = Results::new();
        for count in [0_usize, 1, 2, MOST / 2] {
            let bytes: Vec<_> = (0..count).map(|number| vec![1; number + 1]).collect();
            let fd = |number| if number % 5 == 3 { closed } else { ours.as_raw_fd() };
            let writes = bytes.iter().enumerate().map(|(number, bytes)| (fd(number), &bytes[..]));
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
            let writes = [(ours.as_raw_fd(), &bytes[..]); 8];
            engine.write(writes.into_iter(), &mut results);
            results.get(7).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        });
        assert!(full, "{}", engine.name());
    }
}

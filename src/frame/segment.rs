//! Other text in a TCP segment, and the sequence numbers that follow from it. Both write the checksum: this
//! is the one place that has to know how a frame's checksum is kept. One that covers the pseudo-header only
//! so far is left alone by what happens behind it.

use std::ops::Range;

use super::checksum::{self, Delta};
use super::headers::{IP, Ipv4, TCP, Tcp};
use super::{Frame, headers::Transport};

impl Ipv4 {
    /// Where the payload of a TCP segment stands in the frame.
    pub const fn payload_of(&self, segment: &Tcp) -> Range<usize> {
        self.transport_at() + segment.header_len..IP + self.total_len
    }
}

/// Replaces the bytes `at` of the payload by `text` and sums the segment anew: the caller has checked
/// that its checksum was right and complete. A train of segments is one text, cut later: it keeps its one
/// sum to the end, unless one segment is left. `None`, and nothing changed, if the result would be no packet.
pub fn replace_text(
    frame: &mut Frame,
    headers: &Ipv4,
    segment: &Tcp,
    at: Range<usize>,
    text: &[u8],
) -> Option<Ipv4> {
    let payload = headers.payload_of(segment);
    if at.start > at.end || at.end > payload.len() {
        return None;
    }
    let total_len = headers.total_len - at.len() + text.len();
    let length = u16::try_from(total_len).ok()?;
    let (from, to) = (payload.start + at.start, payload.start + at.end);
    let (offload, header) = (frame.offload(), frame.header());
    // What follows moves first where the text grows into it.
    frame.set_len((IP + total_len).max(payload.end));
    let bytes = frame.bytes_mut();
    bytes.copy_within(to..payload.end, from + text.len());
    bytes[from..from + text.len()].copy_from_slice(text);
    let old = u16::from_be_bytes([bytes[IP + 2], bytes[IP + 3]]);
    bytes[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
    Delta::word(old, length).patch(bytes, IP + 10);
    frame.set_len(IP + total_len);
    let changed = Ipv4 { total_len, ..*headers };
    if offload.segments(frame.len()) > 1 {
        frame.set_header(header);
        let before = length.wrapping_sub(old);
        let length = length - u16::try_from(headers.transport_at() - IP).unwrap_or(0);
        let sum_at = headers.transport_at() + 16;
        Delta::word(length.wrapping_sub(before), length).patch_partial(frame.bytes_mut(), sum_at);
    } else {
        sum_anew(frame.bytes_mut(), &changed);
    }
    Some(changed)
}

fn sum_anew(frame: &mut [u8], headers: &Ipv4) {
    let at = headers.transport_at();
    frame[at + 16..at + 18].fill(0);
    let (source, destination) = (headers.source.octets(), headers.destination.octets());
    let sum = checksum::of_segment(source, destination, TCP, &frame[at..IP + headers.total_len]);
    frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Gives a segment other sequence numbers: its own by `own`, those that it acknowledges, SACK blocks
/// (RFC 2018) included, by `other`. A wrong checksum stays wrong. Gives the headers as they are then.
pub fn shift_sequence(
    frame: &mut Frame,
    headers: &Ipv4,
    segment: &Tcp,
    own: impl Fn(u32) -> u32,
    other: impl Fn(u32) -> u32,
) -> Ipv4 {
    let is_partial = frame.is_partial();
    let frame = frame.bytes_mut();
    let put = |frame: &mut [u8], start: usize, at: usize, value: u32| {
        let old = get(frame, at);
        frame[at..at + 4].copy_from_slice(&value.to_be_bytes());
        if !is_partial {
            patch(frame, start, at, old, value);
        }
    };
    let start = headers.transport_at();
    let mut changed = *segment;
    changed.sequence = own(segment.sequence);
    put(frame, start, start + 4, changed.sequence);
    if segment.ack {
        changed.acknowledgement = other(segment.acknowledgement);
        put(frame, start, start + 8, changed.acknowledgement);
        let end = start + segment.header_len;
        let mut at = start + 20;
        while at + 2 <= end {
            match (frame[at], usize::from(frame[at + 1])) {
                (0, _) => break,
                (1, _) => at += 1,
                (_, length) if length < 2 || at + length > end => break,
                (5, length) => {
                    for edge in
                        (at + 2..at + length).step_by(4).take_while(|edge| edge + 4 <= at + length)
                    {
                        let number = get(frame, edge);
                        put(frame, start, edge, other(number));
                    }
                    at += length;
                }
                (_, length) => at += length,
            }
        }
    }
    Ipv4 { transport: Transport::Tcp(changed), ..*headers }
}

fn get(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

/// Patches the checksum of the TCP header at `start` for a number that has changed.
fn patch(frame: &mut [u8], start: usize, at: usize, old: u32, new: u32) {
    // At an odd offset the number straddles the words that are summed.
    let turn = |value: u32| if (at - start) % 2 == 1 { value.rotate_left(8) } else { value };
    Delta::double(turn(old), turn(new)).patch(frame, start + 16);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with these options and this payload, from 10.0.0.11:21 to 192.0.2.7:4000.
    fn frame(options: &[u8], payload: &[u8]) -> Frame {
        let header_len = 20 + options.len();
        let total = 20 + header_len + payload.len();
        let mut bytes = vec![0; 14];
        bytes[12] = 8;
        bytes.extend([0x45, 0]);
        bytes.extend(u16::try_from(total).unwrap().to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 11, 192, 0, 2, 7]);
        let sum = checksum::of(&bytes[14..34]).to_be_bytes();
        bytes[24..26].copy_from_slice(&sum);
        bytes.extend([0, 21, 0x0f, 0xa0, 0, 0, 3, 232, 0, 0, 7, 208]);
        bytes.extend([u8::try_from(header_len * 4).unwrap(), 0x18, 1, 0, 0, 0, 0, 0]);
        bytes.extend(options);
        bytes.extend(payload);
        let sum = checksum::of_segment([10, 0, 0, 11], [192, 0, 2, 7], TCP, &bytes[34..]);
        bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        Frame::from_bytes(&bytes)
    }

    fn parsed(frame: &Frame) -> (Ipv4, Tcp) {
        let headers = Ipv4::parse(frame.bytes()).unwrap();
        let Transport::Tcp(segment) = headers.transport else { panic!("no TCP") };
        (headers, segment)
    }

    #[test]
    fn text_grows_and_shrinks() {
        for (at, text, expected) in [
            (5..18, &b"203,0,113,10,195,80"[..], &b"PORT 203,0,113,10,195,80\r\n"[..]),
            (5..18, b"1", b"PORT 1\r\n"),
            (5..18, b"9,9,9,9,9,9,9", b"PORT 9,9,9,9,9,9,9\r\n"),
            (0..20, b"", b""),
        ] {
            let mut frame = frame(&[], b"PORT 10,0,0,11,4,1\r\n");
            let (headers, segment) = parsed(&frame);
            let changed = replace_text(&mut frame, &headers, &segment, at, text).unwrap();
            let (headers, segment) = parsed(&frame);
            assert_eq!(headers, changed);
            assert_eq!(&frame.bytes()[headers.payload_of(&segment)], expected);
            assert!(headers.is_transport_intact(&frame));
            assert_eq!(frame.len(), IP + headers.total_len);
        }
        let mut frame = frame(&[], b"x");
        let (headers, segment) = parsed(&frame);
        assert_eq!(replace_text(&mut frame, &headers, &segment, 0..2, b""), None);
    }

    #[test]
    fn numbers_and_sack_blocks_shift() {
        // A SACK option at an even and at an odd place, and one that ends too soon.
        for before in [&[1, 1][..], &[1], &[1, 1, 1]] {
            let mut options = before.to_vec();
            options.extend([5, 18]);
            for edge in [3_000_u32, 3_100, 4_000, 0xffff_fffe] {
                options.extend(edge.to_be_bytes());
            }
            options.resize(options.len().next_multiple_of(4), 0);
            let mut frame = frame(&options, b"abc");
            let (headers, segment) = parsed(&frame);
            let changed =
                shift_sequence(&mut frame, &headers, &segment, |n| n + 7, |n| n.wrapping_add(3));
            let (headers, segment) = parsed(&frame);
            assert_eq!(headers, changed);
            assert_eq!((segment.sequence, segment.acknowledgement), (1_007, 2_003));
            let at = headers.transport_at() + 20 + before.len() + 2;
            let edges: Vec<_> = (0..4).map(|n| get(frame.bytes(), at + 4 * n)).collect();
            assert_eq!(edges, [3_003, 3_103, 4_003, 1]);
            assert!(headers.is_transport_intact(&frame), "{before:?}");
        }
        let mut broken = frame(&[5, 18, 0, 0], b"");
        let (headers, segment) = parsed(&broken);
        shift_sequence(&mut broken, &headers, &segment, |n| n, |n| n + 1);
        assert!(parsed(&broken).0.is_transport_intact(&broken));
        // What was wrong stays wrong.
        let mut wrong = frame(&[], b"abc");
        wrong.bytes_mut()[54] ^= 1;
        let (headers, segment) = parsed(&wrong);
        shift_sequence(&mut wrong, &headers, &segment, |n| n + 1, |n| n + 1);
        assert!(!parsed(&wrong).0.is_transport_intact(&wrong));
    }
}

//! Reads the input as steps, and takes them.

use tapvs::addr::LinkId;
use tapvs::time::Duration;

use crate::support::Router;
use crate::support::mutate::repair;
use crate::support::router::Step;

const STEPS: usize = 64;

/// Hands the router what `input` says, by one of `links`. `repaired_for`: the link whose MACs repaired
/// frames get, if it is not that by which they come. `check` sees every frame and what it led to,
/// `said` what the router sends by itself.
pub fn take(
    mut input: &[u8],
    router: &mut Router,
    (seeds, links): (&[(LinkId, Vec<u8>)], &[LinkId]),
    repaired_for: Option<LinkId>,
    check: impl Fn(LinkId, &[u8], &Step),
    said: impl Fn(LinkId, &[u8]),
) {
    for _ in 0..STEPS {
        let [kind, time, high, low, rest @ ..] = input else { break };
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, next) = rest.split_at(len);
        input = next;
        let chosen = links[usize::from(kind & 1 | kind >> 4 & 2) % links.len()];
        let (link, mut frame) = if kind & 4 == 0 {
            (chosen, bytes.to_vec())
        } else {
            let (link, mut frame) = seeds[usize::from(*time) % seeds.len()].clone();
            // The bytes change the good frame from the EtherType on.
            for (at, byte) in (12..).zip(bytes) {
                match frame.get_mut(at) {
                    Some(place) => *place ^= byte,
                    None => frame.push(*byte),
                }
            }
            (if kind & 0x40 == 0 && links.contains(&link) { link } else { chosen }, frame)
        };
        if kind & 2 != 0 {
            repair(repaired_for.unwrap_or(link), &mut frame);
        }
        router.answers_arp = kind & 8 != 0;
        let step = router.feed(link, &frame);
        check(link, &frame, &step);
        if kind & 0x10 != 0 {
            let millis = 1 << (time & 0x0f);
            for (link, frame) in router.advance(Duration::from_millis(millis)) {
                said(link, &frame);
            }
        }
    }
}

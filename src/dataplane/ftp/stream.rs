//! A server's text that was changed: where, and what that makes of sequence numbers, also of what is sent
//! again.

use super::is_before;
use super::text::Text;

/// Changes that are remembered: an older one has been acknowledged.
pub(in crate::dataplane) const KEPT: usize = 8;

/// A stretch of text that was replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Edit {
    /// The sequence number of its first byte, as the server counts.
    pub(in crate::dataplane) start: u32,
    /// How long it was.
    pub(in crate::dataplane) len: u8,
    pub(in crate::dataplane) text: Text,
    /// How much further the client counts before it.
    before: u32,
}

impl Edit {
    /// How much further the client counts after it. Wraps, as sequence numbers do.
    const fn after(&self) -> u32 {
        self.before.wrapping_add(self.text.len()).wrapping_sub(self.len as u32)
    }

    pub(super) const fn end(&self) -> u32 {
        self.start.wrapping_add(self.len as u32)
    }
}

/// The changes, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Stream {
    edits: [Option<Edit>; KEPT],
    len: usize,
    /// Where the last change ended that is not remembered any more, and how much further the client
    /// counts there.
    floor: Option<(u32, u32)>,
    /// The highest number that the client has acknowledged, as the server counts.
    acknowledged: Option<u32>,
}

/// What has to be replaced in a segment: these bytes of its payload, by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) from: usize,
    pub(super) to: usize,
    /// `None`: nothing, for the client has it or gets it with what comes before.
    pub(super) text: Option<Text>,
}

impl Stream {
    /// Nothing was changed.
    pub(in crate::dataplane) const PLAIN: Self =
        Self { edits: [None; KEPT], len: 0, floor: None, acknowledged: None };

    /// Where nothing is remembered of what was before `floor`.
    pub(in crate::dataplane) const fn from(floor: (u32, u32)) -> Self {
        Self { floor: Some(floor), ..Self::PLAIN }
    }

    /// What another router has to know: of changes that the client has, only what they add up to. So there
    /// is room for more, although that router has not heard an acknowledgement.
    pub(super) fn told(&self) -> Self {
        let mut told = *self;
        for edit in self.edits().take_while(|edit| self.has(edit)) {
            told.forget(edit);
        }
        Self { acknowledged: None, ..told }
    }

    /// Whether nothing was ever changed.
    pub(super) const fn is_plain(&self) -> bool {
        self.len == 0 && self.floor.is_none()
    }

    pub(in crate::dataplane) fn edits(&self) -> impl DoubleEndedIterator<Item = &Edit> {
        self.edits[..self.len].iter().flatten()
    }

    pub(in crate::dataplane) const fn floor(&self) -> Option<(u32, u32)> {
        self.floor
    }

    /// Where the last change ended.
    pub(super) fn end(&self) -> Option<u32> {
        let last = self.edits().next_back().map(Edit::end);
        last.or_else(|| self.floor.map(|(end, _)| end))
    }

    /// Notes that `len` bytes from `start` on become `text`. They must lie behind every other change;
    /// and where too many are remembered, the oldest must have reached the client.
    pub(in crate::dataplane) fn note(&mut self, start: u32, len: u8, text: Text) -> bool {
        let last = self.edits().next_back().copied();
        if self.end().is_some_and(|end| is_before(start, end)) {
            return false;
        }
        let oldest = self.edits().next().copied();
        if let Some(oldest) = oldest.filter(|_| self.len == KEPT) {
            if !self.has(&oldest) {
                return false;
            }
            self.forget(&oldest);
        }
        let before = last.map_or_else(|| self.first_shift(), |last| last.after());
        self.edits[self.len] = Some(Edit { start, len, text, before });
        self.len += 1;
        true
    }

    /// Whether the client has acknowledged all of it.
    fn has(&self, edit: &Edit) -> bool {
        self.acknowledged.is_some_and(|number| !is_before(number, edit.end()))
    }

    /// The oldest is only counted from now on.
    fn forget(&mut self, oldest: &Edit) {
        self.floor = Some((oldest.end(), oldest.after()));
        self.edits.copy_within(1.., 0);
        self.len -= 1;
    }

    /// The client has everything before `number`, as the server counts.
    pub(super) fn acknowledge(&mut self, number: u32) {
        if self.acknowledged.is_none_or(|known| is_before(known, number)) {
            self.acknowledged = Some(number);
        }
    }

    /// The server's number as the client counts: of a segment from there on, patched.
    pub(super) fn forward(&self, sequence: u32) -> u32 {
        for edit in self.edits().rev() {
            if !is_before(sequence, edit.end()) {
                return sequence.wrapping_add(edit.after());
            }
            if is_before(edit.start, sequence) {
                return edit.end().wrapping_add(edit.after());
            }
        }
        match self.floor {
            Some((end, shift)) if is_before(sequence, end) => end.wrapping_add(shift),
            _ => sequence.wrapping_add(self.first_shift()),
        }
    }

    /// The client's number as the server counts. Within a changed text: its start, so that the server
    /// keeps all of it.
    pub(super) fn backward(&self, number: u32) -> u32 {
        for edit in self.edits().rev() {
            let after = edit.after();
            if !is_before(number, edit.end().wrapping_add(after)) {
                return number.wrapping_sub(after);
            }
            let start = edit.start.wrapping_add(edit.before);
            if is_before(start, number) {
                return edit.start;
            }
        }
        number.wrapping_sub(self.first_shift())
    }

    /// What has to be replaced of `len` bytes from `sequence` on, the last first. Of a changed text whose
    /// beginning is there the client gets all: its server has sent the rest before. Of one whose
    /// beginning is not there it gets nothing, and what follows in its right place.
    pub(super) fn patches(&self, sequence: u32, len: u32) -> impl Iterator<Item = Patch> {
        let end = sequence.wrapping_add(len);
        let cut = move |start: u32, stop: u32, text: Option<Text>| {
            let is_touched = is_before(start, end) && is_before(sequence, stop);
            let begins = !is_before(start, sequence);
            let from = if begins { start.wrapping_sub(sequence) } else { 0 };
            let to = if is_before(stop, end) { stop.wrapping_sub(sequence) } else { len };
            is_touched.then_some(Patch {
                from: from as usize,
                to: to as usize,
                text: text.filter(|_| begins),
            })
        };
        let edits = self.edits().rev();
        let edits = edits.filter_map(move |edit| cut(edit.start, edit.end(), Some(edit.text)));
        // The client has acknowledged what was before the oldest change that is remembered.
        let old = self.floor.filter(|(floor, _)| is_before(sequence, *floor));
        edits.chain(old.and_then(|(floor, _)| cut(sequence, floor, None)))
    }

    /// What held before the oldest change that is still known.
    fn first_shift(&self) -> u32 {
        self.floor.map_or(0, |(_, shift)| shift)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::text::Form;
    use super::*;

    fn text(port: u16) -> Text {
        Text::new(Form::ExtendedPassive, Ipv4Addr::LOCALHOST, port)
    }

    #[test]
    fn numbers_shift_behind_a_change() {
        let mut stream = Stream::PLAIN;
        assert!(stream.is_plain() && stream.forward(7) == 7 && stream.backward(7) == 7);
        // Five digits become two, at 100.
        assert!(stream.note(100, 5, text(42)));
        for (sent, seen) in [(99, 99), (100, 100), (105, 102), (200, 197)] {
            assert_eq!((stream.forward(sent), stream.backward(seen)), (seen, sent));
        }
        assert_eq!(stream.backward(101), 100, "within the text");
        assert!(!stream.note(104, 1, text(1)), "not behind the last");
        // Two become five.
        assert!(stream.note(110, 2, text(50_000)));
        assert_eq!(
            (stream.forward(110), stream.forward(112), stream.backward(112)),
            (107, 112, 112)
        );
        let patches = |sequence, len| {
            let patches = stream.patches(sequence, len);
            patches.map(|p| (p.from, p.to, p.text.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(patches(90, 10), []);
        assert_eq!(patches(105, 5), []);
        assert_eq!(patches(90, 15), [(10, 15, true)]);
        assert_eq!(patches(90, 12), [(10, 12, true)], "its beginning, and so all");
        assert_eq!(patches(101, 2), [(0, 2, false)], "nothing but its middle");
        assert_eq!(patches(101, 10), [(9, 10, true), (0, 4, false)]);
        assert_eq!(patches(111, 5), [(0, 1, false)]);
        assert_eq!(stream.forward(101), 102, "behind what is left out");
    }

    #[test]
    fn old_changes_are_forgotten_and_still_count() {
        let mut stream = Stream::PLAIN;
        let start = u32::MAX - 500;
        for round in 0..100_u32 {
            let at = start.wrapping_add(round * 20);
            if round >= 8 {
                assert!(!stream.note(at, 5, text(7)), "the oldest may not have come");
            }
            stream.acknowledge(at.wrapping_sub(155));
            assert!(stream.note(at, 5, text(7)), "{round}");
        }
        let far = start.wrapping_add(5_000);
        assert_eq!(stream.forward(far), far.wrapping_sub(400));
        assert_eq!(stream.backward(far.wrapping_sub(400)), far);
        // Another router has room for as many again, and counts the same.
        stream.acknowledge(far);
        let mut told = stream.told();
        assert_eq!((told.edits().count(), told.end()), (0, stream.end()));
        assert_eq!(
            (told.forward(far), told.backward(far.wrapping_sub(400))),
            (far.wrapping_sub(400), far)
        );
        for round in 0..KEPT {
            assert!(told.note(far.wrapping_add(u32::try_from(round).unwrap() * 20), 5, text(7)));
        }
        // Sent again from before everything that is remembered: it is cut off.
        let old = start.wrapping_add(20 * 90);
        let floor = start.wrapping_add(20 * 91 + 5);
        let patches: Vec<_> = stream.patches(old, 30).collect();
        assert_eq!(patches, [Patch { from: 0, to: 25, text: None }]);
        assert_eq!(stream.forward(old), floor.wrapping_sub(4 * 92));
    }

    proptest! {
        /// A whole text with changes, cut into segments anywhere, against the text made anew.
        #[test]
        fn every_number_is_that_of_the_same_byte(
            first in any::<u32>(),
            gaps in prop::collection::vec((0_u32..40, 1_u8..6, 1_u16..=u16::MAX), 1..=KEPT),
        ) {
            let mut stream = Stream::PLAIN;
            let (mut sent, mut seen) = (first, first);
            let mut pairs = vec![];
            for (gap, len, port) in gaps {
                for _ in 0..gap {
                    pairs.push((sent, seen));
                    sent = sent.wrapping_add(1);
                    seen = seen.wrapping_add(1);
                }
                let text = text(port);
                prop_assert!(stream.note(sent, len, text));
                pairs.push((sent, seen));
                sent = sent.wrapping_add(u32::from(len));
                seen = seen.wrapping_add(u32::try_from(text.bytes().len()).unwrap());
            }
            for _ in 0..50 {
                pairs.push((sent, seen));
                sent = sent.wrapping_add(1);
                seen = seen.wrapping_add(1);
            }
            for (sent, seen) in pairs {
                prop_assert_eq!(stream.forward(sent), seen);
                prop_assert_eq!(stream.backward(seen), sent);
            }
        }
    }
}

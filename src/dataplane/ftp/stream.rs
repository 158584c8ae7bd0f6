//! One direction of a control connection whose text was changed: where, and what that makes of sequence
//! numbers, also of what is sent again.

use super::text::Text;

/// Changes that are remembered in one direction: what is older has long been acknowledged.
const KEPT: usize = 8;

/// A stretch of text that was replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// The sequence number of its first byte, as its sender counts.
    pub(super) start: u32,
    /// How long it was.
    pub(super) len: u32,
    pub(super) text: Text,
    /// How much further the receiver counts before it.
    before: u32,
}

impl Edit {
    /// How much further the receiver counts after it. Wraps, as sequence numbers do.
    fn after(&self) -> u32 {
        let written = u32::try_from(self.text.bytes().len()).unwrap_or(0);
        self.before.wrapping_add(written).wrapping_sub(self.len)
    }

    const fn end(&self) -> u32 {
        self.start.wrapping_add(self.len)
    }
}

/// The changes of one direction, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    edits: [Option<Edit>; KEPT],
    len: usize,
}

/// How a segment lies to what was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    None,
    /// It holds all of this one, and the start of none.
    Whole(Edit),
    /// It ends or begins within a change, or holds several: its bytes cannot be told.
    Torn,
}

impl Stream {
    /// Whether nothing was ever changed.
    pub(super) const fn is_plain(&self) -> bool {
        self.len == 0
    }

    fn edits(&self) -> impl DoubleEndedIterator<Item = &Edit> {
        self.edits[..self.len].iter().flatten()
    }

    /// Notes that `len` bytes from `start` on become `text`. They must lie behind every other change.
    pub(super) fn note(&mut self, start: u32, len: u32, text: Text) -> bool {
        let last = self.edits().next_back().copied();
        if last.is_some_and(|last| is_before(start, last.end())) {
            return false;
        }
        let edit = Edit { start, len, text, before: last.map_or(0, |last| last.after()) };
        if self.len == KEPT {
            self.edits.copy_within(1.., 0);
            self.len -= 1;
        }
        self.edits[self.len] = Some(edit);
        self.len += 1;
        true
    }

    /// The sender's number as the receiver counts.
    pub(super) fn forward(&self, sequence: u32) -> u32 {
        let passed = self.edits().rev().find(|edit| !is_before(sequence, edit.end()));
        let shift = passed.map_or_else(|| self.first_shift(), Edit::after);
        sequence.wrapping_add(shift)
    }

    /// The receiver's number as the sender counts. Within a changed text: its start, so that the sender
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

    /// What was changed of `len` bytes from `sequence` on.
    pub(super) fn overlap(&self, sequence: u32, len: u32) -> Overlap {
        let end = sequence.wrapping_add(len);
        let touched = |edit: &&Edit| is_before(edit.start, end) && is_before(sequence, edit.end());
        let mut touched = self.edits().filter(touched);
        match (touched.next(), touched.next()) {
            (None, _) => Overlap::None,
            (Some(edit), None)
                if !is_before(edit.start, sequence) && !is_before(end, edit.end()) =>
            {
                Overlap::Whole(*edit)
            }
            _ => Overlap::Torn,
        }
    }

    /// What held before the oldest change that is still known.
    fn first_shift(&self) -> u32 {
        self.edits().next().map_or(0, |edit| edit.before)
    }
}

const fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= 1 << 31
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
        let mut stream = Stream::default();
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
        assert_eq!(stream.overlap(90, 10), Overlap::None);
        assert_eq!(stream.overlap(105, 5), Overlap::None);
        assert!(matches!(stream.overlap(90, 15), Overlap::Whole(edit) if edit.start == 100));
        assert!(matches!(stream.overlap(110, 2), Overlap::Whole(edit) if edit.start == 110));
        for torn in [(90, 11), (101, 5), (90, 30), (111, 5)] {
            assert_eq!(stream.overlap(torn.0, torn.1), Overlap::Torn, "{torn:?}");
        }
    }

    #[test]
    fn old_changes_are_forgotten_and_still_count() {
        let mut stream = Stream::default();
        let start = u32::MAX - 500;
        for round in 0..100_u32 {
            assert!(stream.note(start.wrapping_add(round * 20), 5, text(7)));
        }
        let far = start.wrapping_add(5_000);
        assert_eq!(stream.forward(far), far.wrapping_sub(400));
        assert_eq!(stream.backward(far.wrapping_sub(400)), far);
    }

    proptest! {
        /// A whole text with changes, cut into segments anywhere, against the text made anew.
        #[test]
        fn every_number_is_that_of_the_same_byte(
            first in any::<u32>(),
            gaps in prop::collection::vec((0_u32..40, 1_u32..6, 1_u16..=u16::MAX), 1..=KEPT),
        ) {
            let mut stream = Stream::default();
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
                sent = sent.wrapping_add(len);
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

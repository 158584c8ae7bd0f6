//! How far one end of a control connection has been read: each byte once, in order, and offers only where
//! a line is known to begin. Who can make the other end send what begins with an offer, and cut it where
//! he likes, would open ports otherwise.

use super::is_before;

/// One end's position. At first, and of what another router has read, it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The sequence number of the first byte that was not read.
    next: Option<u32>,
    /// Whether a line begins there.
    is_line: bool,
    taken_over: Option<TakenOver>,
}

/// Another router has read the beginning. What is late from its time says where the other end stood, not
/// where it stands: lines begin where it is said to stand until what was read here is acknowledged here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TakenOver {
    /// Where reading began here.
    from: Option<u32>,
    /// What came too early, at last.
    early: Option<u32>,
}

/// What a segment has that was not read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing: it comes again.
    Known,
    /// What stands before it has not come.
    Early,
    /// From this byte on; whether a line begins there.
    New(usize, bool),
}

impl Order {
    /// Where the first text that comes is taken for the beginning of a line.
    pub(super) const UNKNOWN: Self =
        Self { next: None, is_line: true, taken_over: Some(TakenOver { from: None, early: None }) };

    /// Its SYN had this number.
    pub(super) const fn begin(&mut self, sequence: u32) {
        *self = Self { next: Some(sequence.wrapping_add(1)), is_line: true, taken_over: None };
    }

    /// Another router has read it up to `end` at least, where no line ends.
    pub(super) fn was_read(&mut self, end: u32) {
        if self.next.is_none_or(|next| is_before(next, end)) {
            (self.next, self.is_line) = (Some(end), false);
        }
    }

    /// What is new of `len` bytes from `sequence` on.
    pub(super) fn part(&mut self, sequence: u32, len: u32) -> Part {
        let Some(next) = self.next else { return Part::New(0, self.is_line) };
        if is_before(next, sequence) {
            return self.early(sequence);
        }
        if !is_before(next, sequence.wrapping_add(len)) {
            return Part::Known;
        }
        Part::New(next.wrapping_sub(sequence) as usize, self.is_line)
    }

    /// Who sends again begins with what was not acknowledged (RFC 9293 section 3.8.1): what comes a second
    /// time has nothing before it, and another router has read that.
    fn early(&mut self, sequence: u32) -> Part {
        let known = self.taken_over.as_mut().and_then(|known| known.early.replace(sequence));
        if known == Some(sequence) { Part::New(0, true) } else { Part::Early }
    }

    /// It was read from `start` up to `end`.
    pub(super) fn read(&mut self, start: u32, end: u32, is_line: bool) {
        (self.next, self.is_line) = (Some(end), is_line);
        if let Some(taken_over) = &mut self.taken_over {
            taken_over.from.get_or_insert(start);
        }
    }

    /// The other end has everything before `number`: what of it was not seen here came another way.
    pub(super) fn acknowledged(&mut self, number: u32) {
        if self.next.is_none_or(|next| is_before(next, number)) {
            (self.next, self.is_line) = (Some(number), self.taken_over.is_some());
            self.taken_over = self.taken_over.map(|_| TakenOver::default());
        } else if self.taken_over.and_then(|t| t.from).is_some_and(|from| is_before(from, number)) {
            self.taken_over = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_read_once_and_in_order() {
        let mut order = Order::UNKNOWN;
        assert_eq!(order.part(77, 5), Part::New(0, true));
        order.begin(u32::MAX - 2);
        assert_eq!(order.part(u32::MAX - 1, 5), Part::New(0, true));
        assert_eq!(order.part(0, 5), Part::Early);
        order.read(u32::MAX - 1, 3, false);
        assert_eq!(order.part(u32::MAX - 1, 5), Part::Known);
        assert_eq!(order.part(u32::MAX - 1, 6), Part::New(5, false));
        assert_eq!(order.part(3, 1), Part::New(0, false));
        assert_eq!((order.part(4, 1), order.part(4, 1)), (Part::Early, Part::Early));
        order.read(3, 10, true);
        order.acknowledged(8);
        assert_eq!(order.part(10, 1), Part::New(0, true));
        // In the middle of what nobody has seen here no line begins.
        order.acknowledged(20);
        assert_eq!(order.part(10, 11), Part::New(10, false));
    }

    #[test]
    fn what_is_late_from_another_router_misleads_nobody() {
        // What it has read ended with a line, wherever that was.
        let mut order = Order::UNKNOWN;
        order.was_read(100);
        order.was_read(95);
        assert_eq!(order.part(90, 20), Part::New(10, false));
        for number in [80, 150, 140, 170] {
            order.acknowledged(number);
        }
        assert_eq!(order.part(170, 9), Part::New(0, true));
        // What was read here counts once it is acknowledged.
        order.read(170, 179, true);
        order.acknowledged(170);
        order.acknowledged(190);
        assert_eq!(order.part(190, 9), Part::New(0, true));
        order.read(190, 199, true);
        order.acknowledged(199);
        order.acknowledged(210);
        assert_eq!(order.part(210, 9), Part::New(0, false));
    }

    #[test]
    fn an_acknowledgement_that_was_late_holds_nothing_up() {
        let mut order = Order::UNKNOWN;
        order.acknowledged(100);
        assert_eq!((order.part(150, 9), order.part(140, 9)), (Part::Early, Part::Early));
        assert_eq!((order.part(150, 9), order.part(150, 9)), (Part::Early, Part::New(0, true)));
        order.read(150, 159, true);
        order.acknowledged(159);
        assert_eq!((order.part(170, 9), order.part(170, 9)), (Part::Early, Part::Early));
    }
}

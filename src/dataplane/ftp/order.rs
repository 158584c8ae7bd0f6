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
    /// Another router has read it so far: where the other end stands a line begins, once.
    is_taken_over: bool,
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
    pub(super) const UNKNOWN: Self = Self { next: None, is_line: true, is_taken_over: true };

    /// Its SYN had this number.
    pub(super) const fn begin(&mut self, sequence: u32) {
        *self = Self { next: Some(sequence.wrapping_add(1)), is_line: true, is_taken_over: false };
    }

    /// Whether nothing was read yet.
    pub(super) const fn is_unknown(&self) -> bool {
        self.next.is_none()
    }

    /// What is new of `len` bytes from `sequence` on.
    pub(super) fn part(&self, sequence: u32, len: u32) -> Part {
        let Some(next) = self.next else { return Part::New(0, self.is_line) };
        if is_before(next, sequence) {
            return Part::Early;
        }
        if !is_before(next, sequence.wrapping_add(len)) {
            return Part::Known;
        }
        Part::New(next.wrapping_sub(sequence) as usize, self.is_line)
    }

    /// It was read up to `end`.
    pub(super) const fn read(&mut self, end: u32, is_line: bool) {
        (self.next, self.is_line) = (Some(end), is_line);
    }

    /// The other end has everything before `number`: what of it was not seen here came another way.
    pub(super) fn acknowledged(&mut self, number: u32) {
        if self.next.is_none_or(|next| is_before(next, number)) {
            *self = Self { next: Some(number), is_line: self.is_taken_over, is_taken_over: false };
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
        order.read(3, false);
        assert_eq!(order.part(u32::MAX - 1, 5), Part::Known);
        assert_eq!(order.part(u32::MAX - 1, 6), Part::New(5, false));
        assert_eq!(order.part(3, 1), Part::New(0, false));
        assert_eq!(order.part(4, 1), Part::Early);
        order.read(10, true);
        order.acknowledged(8);
        assert_eq!(order.part(10, 1), Part::New(0, true));
        // What another router has read ended with a line.
        let mut taken_over = Order::UNKNOWN;
        taken_over.read(100, false);
        taken_over.acknowledged(150);
        assert_eq!(taken_over.part(150, 9), Part::New(0, true));
        taken_over.acknowledged(170);
        assert_eq!(taken_over.part(170, 9), Part::New(0, false));
        // In the middle of what nobody has seen here no line begins.
        order.acknowledged(20);
        assert_eq!(order.part(10, 11), Part::New(10, false));
    }
}

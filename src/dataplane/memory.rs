//! Where tables lie in memory, so that somebody may choose the pages.

use std::ops::Range;

/// The addresses of all that a vector may come to hold.
pub(super) fn addresses<T>(items: &Vec<T>) -> Range<usize> {
    let start = items.as_ptr().expose_provenance();
    start..start + items.capacity() * size_of::<T>()
}

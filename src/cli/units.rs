//! Numbers for people: few digits, and always the unit.

/// `12.3 MB`, by powers of a thousand; whole bytes below.
pub(super) fn bytes(count: u64) -> String {
    scaled(count, "B", ["kB", "MB", "GB", "TB", "PB"])
}

/// `1,234`; `12.3 M` from ten thousand on.
pub(super) fn count(count: u64) -> String {
    match usize::try_from(count) {
        Ok(small) if small < 10_000 => crate::lab::grid::grouped(small),
        _ => scaled(count, "", ["k", "M", "G", "T", "P"]),
    }
}

/// So many in that time, per second.
pub(super) fn per_second(count: u64, micros: u64) -> u64 {
    let rounded = u128::from(count) * 1_000_000 + u128::from(micros / 2);
    u64::try_from(rounded / u128::from(micros.max(1))).unwrap_or(u64::MAX)
}

/// As [`crate::time::in_words`].
pub(super) fn duration(micros: u64) -> String {
    crate::time::in_words(crate::time::Duration::from_micros(micros))
}

/// Three digits, cut off and not rounded up: 999,999 bytes are not yet a megabyte.
fn scaled(count: u64, small: &str, units: [&str; 5]) -> String {
    let mut whole = count;
    let mut rest = 0;
    let mut unit = small;
    for larger in units {
        if whole < 1_000 {
            break;
        }
        (whole, rest, unit) = (whole / 1_000, whole % 1_000, larger);
    }
    let text = match (unit == small, whole) {
        (true, _) | (false, 100..) => whole.to_string(),
        (false, 10..) => format!("{whole}.{}", rest / 100),
        (false, _) => format!("{whole}.{:02}", rest / 10),
    };
    format!("{text} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let texts = [0, 999, 1_000, 12_345, 999_999, 1_000_000, 45_678_901_234].map(bytes);
        let expected = ["0 B", "999 B", "1.00 kB", "12.3 kB", "999 kB", "1.00 MB", "45.6 GB"];
        assert_eq!(texts, expected);
        assert_eq!(bytes(u64::MAX), "18446 PB");
        let texts = [7, 9_999, 10_000, 1_234_567].map(count);
        assert_eq!(texts, ["7", "9,999", "10.0 k", "1.23 M"]);
    }

    #[test]
    fn rates_are_of_the_time_that_really_passed() {
        assert_eq!(per_second(100, 1_000_000), 100);
        assert_eq!(per_second(100, 2_000_000), 50);
        assert_eq!(per_second(3, 2_000_000), 2, "rounded");
        assert_eq!(per_second(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn durations_have_two_parts() {
        let texts = [9, 7_850, 5_600_000, 184_000_000, 5_400_000_000, 93_600_000_000].map(duration);
        assert_eq!(texts, ["9 µs", "7.8 ms", "5.6 s", "3 m 4 s", "1 h 30 m", "1 d 2 h"]);
    }
}

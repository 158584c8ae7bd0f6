//! Durations as text: a whole number with a unit, such as `100ms`, `300s`, `5m`, `2h`.

use crate::time::Duration;

/// What is right, for the message about a text that is not.
pub(super) const FORM: &str = "a whole number with the unit ms, s, m or h, such as \"300s\"";

/// `None` when the text is not a duration or does not fit one.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let micros = number.checked_mul(millis_per_unit)?.checked_mul(1_000)?;
    Some(Duration::from_micros(micros))
}

/// The way a file says it: in the largest unit that makes a whole number.
pub(super) fn text(duration: Duration) -> String {
    let millis = duration.total_millis();
    for (unit, millis_per_unit) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(millis_per_unit) {
            return format!("{}{unit}", millis / millis_per_unit);
        }
    }
    format!("{millis}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units() {
        for (text, millis) in
            [("0ms", 0), ("100ms", 100), ("300s", 300_000), ("5m", 300_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_duration_is_said_as_a_file_would() {
        for (millis, said) in
            [(0, "0ms"), (1_500, "1500ms"), (2_000, "2s"), (90_000, "90s"), (7_200_000, "2h")]
        {
            assert_eq!(text(Duration::from_millis(millis)), said);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "s",
            "300",
            "300 s",
            " 300s",
            "300S",
            "+1s",
            "-1s",
            "1.5s",
            "1h30m",
            "1d",
            "1µs",
            "18446744073709551615s",
            "99999999999999999999ms",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

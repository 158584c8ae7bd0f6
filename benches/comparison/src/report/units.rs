//! Numbers with their units.

use crate::load::Unit;
use crate::outcome::Sample;

/// A rate or a time, with three digits that matter.
pub(crate) fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Frames => format!("{:.0} k/s", value / 1e3),
        Unit::Bits => format!("{:.2} Gbit/s", value / 1e9),
        Unit::Requests if value >= 10_000.0 => format!("{:.1} k/s", value / 1e3),
        Unit::Requests => format!("{value:.0} /s"),
        Unit::Micros => format!("{value:.1} µs"),
    }
}

/// What a column of processor time is of.
pub(super) const fn per(unit: Unit) -> &'static str {
    match unit {
        Unit::Frames => "s per million frames",
        Unit::Bits => "s per GB",
        Unit::Requests => "s per 100,000 requests",
        Unit::Micros => "µs per ping",
    }
}

/// Processor time of a sample in that measure.
pub(super) fn cost(unit: Unit, cpu: f64, sample: &Sample) -> f64 {
    let amount = match unit {
        Unit::Frames => sample.amount / 1e6,
        Unit::Bits => sample.amount / 1e9,
        Unit::Requests => sample.amount / 1e5,
        Unit::Micros => sample.amount / 1e6,
    };
    cpu / amount
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_unit() {
        assert_eq!(value(Unit::Frames, 412_345.0), "412 k/s");
        assert_eq!(value(Unit::Bits, 11_712_345_678.0), "11.71 Gbit/s");
        assert_eq!(value(Unit::Requests, 9_876.5), "9876 /s");
        assert_eq!(value(Unit::Requests, 14_321.0), "14.3 k/s");
        assert_eq!(value(Unit::Micros, 41.26), "41.3 µs");
    }

    #[test]
    fn processor_time_is_per_what_was_moved() {
        let sample = Sample { amount: 2e6, ..Sample::default() };
        assert!((cost(Unit::Frames, 3.0, &sample) - 1.5).abs() < 1e-9);
        assert!((cost(Unit::Bits, 0.002, &sample) - 1.0).abs() < 1e-9);
        assert!((cost(Unit::Requests, 3.0, &sample) - 0.15).abs() < 1e-9);
    }
}

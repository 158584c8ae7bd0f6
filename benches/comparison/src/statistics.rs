//! Medians: machines that do other things too make means worthless.

/// The middle value; the mean of the two in the middle of an even number. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The smallest value that `share` of all values do not exceed (nearest rank).
pub(crate) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (share * sorted.len() as f64).ceil().max(1.0);
    // A share is at most 1, so the rank fits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1")]
    sorted.get(rank as usize - 1).copied()
}

/// The smallest and the largest.
pub(crate) fn range(values: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    Some((*sorted.first()?, *sorted.last()?))
}

/// The median of the ratios of two series, round by round; rounds that one of them lacks do not count.
pub(crate) fn ratio(of: &[Option<f64>], to: &[Option<f64>]) -> Option<f64> {
    let ratios: Vec<f64> = of
        .iter()
        .zip(to)
        .filter_map(|(of, to)| Some((*of)? / to.filter(|to| *to > 0.0)?))
        .collect();
    median(&ratios)
}

/// The median of the differences of two series, round by round.
pub(crate) fn difference(of: &[Option<f64>], to: &[Option<f64>]) -> Option<f64> {
    let differences: Vec<f64> =
        of.iter().zip(to).filter_map(|(of, to)| Some((*of)? - (*to)?)).collect();
    median(&differences)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 100.0]), Some(3.5));
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), Some(99.0));
        assert_eq!(quantile(&hundred, 1.0), Some(100.0));
        assert_eq!(quantile(&hundred, 0.5), Some(50.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn ratios_are_of_one_round() {
        // The machine was twice as fast in the second round; the ratio did not change.
        let (of, to) = ([Some(10.0), Some(20.0), None], [Some(5.0), Some(10.0), Some(1.0)]);
        assert_eq!(ratio(&of, &to), Some(2.0));
        assert_eq!(difference(&of, &to), Some(7.5));
        assert_eq!(ratio(&[Some(1.0)], &[Some(0.0)]), None);
        assert_eq!(ratio(&[None], &[Some(1.0)]), None);
        assert_eq!(range(&[2.0, 1.0, 3.0]), Some((1.0, 3.0)));
    }
}

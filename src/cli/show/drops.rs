//! `tapvs drops`.

use crate::cli::ask::Router;
use crate::cli::operate::{Failed, Output, expect};
use crate::cli::units::duration;
use crate::control::protocol::{Answer, Drops, Request};
use crate::lab::grid::{Grid, Side};

pub(in crate::cli) fn show(router: &mut Router, output: &mut Output<'_>) -> Result<(), Failed> {
    let drops = expect(router, &Request::Drops {}, |answer| match answer {
        Answer::Drops(drops) => Some(drops),
        _ => None,
    })?;
    if output.json {
        return Ok(drops.reasons.iter().try_for_each(|reason| output.json(reason))?);
    }
    let up = duration(drops.uptime_us);
    if drops.reasons.iter().all(|reason| reason.count == 0) {
        output.text(&format!("nothing was dropped in {up}\n"))?;
    } else {
        output.text(&output.paint.table(&table(&drops).lines(), &[]))?;
    }
    if drops.answers_not_made > 0 {
        let count = drops.answers_not_made;
        output
            .text(&format!("{count} ICMP errors and resets were not sent: too many at a time\n"))?;
    }
    Ok(())
}

/// The most frequent reason first.
fn table(drops: &Drops) -> Grid<3> {
    let mut reasons: Vec<_> = drops.reasons.iter().filter(|reason| reason.count > 0).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    let mut grid =
        Grid::new([("REASON", Side::Left), ("FRAMES", Side::Right), ("MEANING", Side::Left)]);
    for reason in reasons {
        grid.row([reason.reason.to_string(), reason.count.to_string(), reason.meaning.to_string()]);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Drop;

    #[test]
    fn reasons_that_occurred_most_frequent_first() {
        let reason = |reason: &'static str, count| Drop {
            reason: reason.into(),
            count,
            meaning: "So it is.".into(),
        };
        let reasons = vec![reason("runt", 0), reason("ipv6", 4), reason("unserved", 12_345)];
        let drops = Drops { reasons, ..Drops::default() };
        let expected = "\
REASON    FRAMES  MEANING
unserved   12345  So it is.
ipv6           4  So it is.";
        assert_eq!(table(&drops).lines().join("\n"), expected);
    }
}

//! `tapvs neighbours`.

use std::net::IpAddr;

use crate::cli::ask::{Next, Router};
use crate::cli::operate::{Failed, Output};
use crate::cli::paint::Tone;
use crate::control::protocol::{Answer, Neighbour, Request};
use crate::lab::grid::{Grid, Side};

pub(in crate::cli) fn show(router: &mut Router, output: &mut Output<'_>) -> Result<(), Failed> {
    let mut all = Vec::new();
    router.pages(
        |from| Request::Neighbours { from },
        |answer| match answer {
            Answer::Neighbours(page) => Some(page),
            _ => None,
        },
        |page| {
            all.extend(page.rows);
            Next::Go
        },
    )?;
    // There are a few thousand at the most.
    all.sort_by_key(|known| (known.network.clone(), known.address.parse::<IpAddr>().ok()));
    if output.json {
        return Ok(all.iter().try_for_each(|known| output.json(known))?);
    }
    if all.is_empty() {
        return Ok(output.text("no neighbours\n")?);
    }
    let tones: Vec<_> = all.iter().map(tone).collect();
    Ok(output.text(&output.paint.table(&table(&all).lines(), &tones))?)
}

fn tone(known: &Neighbour) -> Tone {
    match (&*known.state, known.configured) {
        ("failed", true) => Tone::Alarm,
        ("failed" | "incomplete", _) => Tone::Notice,
        _ => Tone::Plain,
    }
}

fn table(all: &[Neighbour]) -> Grid<5> {
    let head = ["NETWORK", "ADDRESS", "MAC", "STATE", ""];
    let mut grid = Grid::new(head.map(|name| (name, Side::Left)));
    for known in all {
        grid.row([
            known.network.clone(),
            known.address.clone(),
            known.mac.clone().unwrap_or_else(|| "-".to_owned()),
            known.state.to_string(),
            if known.configured { "configured" } else { "" }.to_owned(),
        ]);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_one_that_fails_is_an_alarm() {
        let known = |state: &'static str, configured| Neighbour {
            network: "servers".to_owned(),
            address: "10.0.0.11".to_owned(),
            mac: (state != "incomplete").then(|| "02:00:00:00:00:01".to_owned()),
            state: state.into(),
            configured,
        };
        let all = [known("reachable", true), known("failed", true), known("incomplete", false)];
        let tones: Vec<_> = all.iter().map(tone).collect();
        assert_eq!(tones, [Tone::Plain, Tone::Alarm, Tone::Notice]);
        let expected = "\
NETWORK  ADDRESS    MAC                STATE
servers  10.0.0.11  02:00:00:00:00:01  reachable   configured
servers  10.0.0.11  02:00:00:00:00:01  failed      configured
servers  10.0.0.11  -                  incomplete";
        assert_eq!(table(&all).lines().join("\n"), expected);
    }
}

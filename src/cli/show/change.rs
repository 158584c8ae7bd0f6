//! `tapvs reload`, `drain`, `undrain` and `weight`: what has changed.

use crate::cli::ask::Router;
use crate::cli::operate::{Failed, Output, expect};
use crate::control::protocol::{Answer, Changed, Reloaded, Request};

pub(in crate::cli) fn reload(router: &mut Router, output: &mut Output<'_>) -> Result<(), Failed> {
    let reloaded = expect(router, &Request::Reload {}, |answer| match answer {
        Answer::Reloaded(reloaded) => Some(reloaded),
        _ => None,
    })?;
    if output.json {
        return Ok(output.json(&reloaded)?);
    }
    let Reloaded { file, generation, changed, changes } = reloaded;
    if !changed {
        let text = format!("{file} says what is running; generation {generation} stays\n");
        return Ok(output.text(&text)?);
    }
    output.text(&format!("{file} is now generation {generation}\n"))?;
    Ok(changes.iter().try_for_each(|change| output.text(&format!("  {change}\n")))?)
}

pub(in crate::cli) fn server(
    router: &mut Router,
    request: &Request,
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let changed = expect(router, request, |answer| match answer {
        Answer::Changed(changed) => Some(changed),
        _ => None,
    })?;
    if output.json { Ok(output.json(&changed)?) } else { Ok(output.text(&sentence(&changed))?) }
}

fn sentence(told: &Changed) -> String {
    let Changed { service, server, weight, configured_weight, drained, generation, changed } = told;
    let what = match (drained, weight == configured_weight) {
        (true, _) => format!("drained, no new flows; the file says {configured_weight}"),
        (false, true) => format!("weight {weight}, as in the file"),
        (false, false) => format!("weight {weight}; the file says {configured_weight}"),
    };
    let since = if *changed { "now" } else { "still" };
    format!("{service}/{server}: {what}; {since} generation {generation}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_the_weight_in_the_file() {
        let told = |weight, drained, changed| {
            sentence(&Changed {
                service: "web".to_owned(),
                server: "web2".to_owned(),
                weight,
                configured_weight: 2,
                drained,
                generation: 3,
                changed,
            })
        };
        assert_eq!(
            told(0, true, true),
            "web/web2: drained, no new flows; the file says 2; now generation 3\n"
        );
        assert_eq!(
            told(2, false, false),
            "web/web2: weight 2, as in the file; still generation 3\n"
        );
        assert_eq!(told(7, false, true), "web/web2: weight 7; the file says 2; now generation 3\n");
    }
}

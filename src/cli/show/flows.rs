//! `tapvs flows`, page by page: a million of them need no more memory than a thousand.

use std::io;

use crate::cli::ask::{Next, Router};
use crate::cli::operate::{Failed, Output};
use crate::cli::units::{bytes, count, duration};
use crate::control::protocol::{Answer, Flow, Page, Request};
use crate::lab::grid::{Grid, Side};

pub(in crate::cli) fn show(
    router: &mut Router,
    request: impl Fn(u64) -> Request,
    limit: usize,
    output: &mut Output<'_>,
) -> Result<(), Failed> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let (mut shown, mut more) = (0, false);
    let mut written = Ok(());
    router.pages(
        request,
        |answer| match answer {
            Answer::Flows(page) => Some(page),
            _ => None,
        },
        |Page { rows, .. }| {
            let (now, rest) = rows.split_at(rows.len().min(limit - shown));
            written = write(now, shown == 0, output);
            shown += now.len();
            more |= !rest.is_empty();
            if written.is_err() || more { Next::Enough } else { Next::Go }
        },
    )?;
    written?;
    if !output.json && shown == 0 {
        output.text("no flows\n")?;
    }
    if more {
        super::hint(format_args!("{shown} flows shown; --limit 0 shows all"));
    }
    Ok(())
}

fn write(flows: &[Flow], first: bool, output: &mut Output<'_>) -> io::Result<()> {
    if output.json {
        return flows.iter().try_for_each(|flow| output.json(flow));
    }
    if flows.is_empty() {
        return Ok(());
    }
    let lines = table(flows).lines();
    let text = output.paint.table(&lines, &[]);
    // Columns are as wide on every page; one head will do.
    let text = if first { &text } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    output.text(text)
}

/// As wide as the widest entry that IPv4 and these units can have, whoever is on this page.
fn table(flows: &[Flow]) -> Grid<11> {
    let (left, right) = (|name| (name, Side::Left), |name| (name, Side::Right));
    let mut grid = Grid::new([
        left("    "),
        left("CLIENT               "),
        left("DESTINATION          "),
        left("SERVER               "),
        left("STATE      "),
        right(" EXPIRES"),
        right("PACKETS IN"),
        right("PACKETS OUT"),
        right("BYTES IN"),
        right("BYTES OUT"),
        left("SERVICE"),
    ]);
    for flow in flows {
        grid.row([
            flow.protocol.to_string(),
            flow.client.clone(),
            flow.destination.clone(),
            flow.server.clone(),
            flow.state.to_string(),
            duration(flow.expires_ms * 1_000),
            count(flow.packets_in),
            if flow.direct { "-".to_owned() } else { count(flow.packets_out) },
            bytes(flow.bytes_in),
            if flow.direct { "-".to_owned() } else { bytes(flow.bytes_out) },
            owner(flow),
        ]);
    }
    grid
}

fn owner(flow: &Flow) -> String {
    match (&flow.service, &flow.server_name, flow.removed) {
        (Some(service), Some(server), _) => format!("{service}/{server}"),
        (_, _, true) => "removed".to_owned(),
        _ => "routed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: &str, service: Option<&str>) -> Flow {
        Flow {
            protocol: "tcp".into(),
            client: client.to_owned(),
            destination: "203.0.113.10:80".to_owned(),
            server: "10.0.0.11:8080".to_owned(),
            service: service.map(str::to_owned),
            server_name: service.map(|_| "web1".to_owned()),
            removed: service.is_none(),
            state: "ESTABLISHED".into(),
            assured: true,
            direct: false,
            expires_ms: 899_000,
            packets_in: 4,
            packets_out: 3,
            bytes_in: 276,
            bytes_out: 12_345,
        }
    }

    #[test]
    fn pages_line_up_with_one_another() {
        let short = table(&[flow("1.2.3.4:5", Some("web"))]).lines();
        let long = table(&[flow("198.51.100.200:65535", None)]).lines();
        assert_eq!(short[0], long[0]);
        assert_eq!(short[1].find("ESTABLISHED"), long[1].find("ESTABLISHED"));
        assert!(short[1].ends_with("276 B    12.3 kB  web/web1"), "{}", short[1]);
        assert!(long[1].ends_with("removed"), "{}", long[1]);
        let heads = ["CLIENT", "STATE", "EXPIRES"].map(|word| short[0].contains(word));
        assert_eq!(heads, [true; 3]);
    }
}

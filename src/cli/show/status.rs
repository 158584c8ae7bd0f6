//! `tapvs status`.

use std::fmt::Write as _;

use crate::cli::ask::Router;
use crate::cli::operate::{Failed, Output, expect};
use crate::cli::paint::Tone;
use crate::cli::units::{bytes, count, duration};
use crate::control::protocol::{
    Answer, Claim, Frames, Ftp, Host, Link, Now, Request, Status, Turns,
};
use crate::lab::grid::{Grid, Side};

pub(in crate::cli) fn show(router: &mut Router, output: &mut Output<'_>) -> Result<(), Failed> {
    let status = expect(router, &Request::Status {}, |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    })?;
    if output.json {
        return Ok(output.json(&status)?);
    }
    output.text(&summary(&status))?;
    let links = &status.now.links;
    let tone = |link: &Link| if link.lost > 0 { Tone::Notice } else { Tone::Plain };
    let tones: Vec<_> = links.iter().map(tone).collect();
    output.text("\n")?;
    output.text(&output.paint.table(&link_table(links).lines(), &tones))?;
    if let Some(failover) = &status.now.failover {
        super::failover::show(failover, output)?;
    }
    for claim in &status.now.claims {
        let tone = if claim.suppressed { Tone::Plain } else { Tone::Alarm };
        output.text(&output.paint.line(tone, &claim_line(claim)))?;
    }
    Ok(())
}

fn summary(status: &Status) -> String {
    let Status { name, version, file, virtual_ips, services, servers, overridden, down, now } =
        status;
    let Now { uptime_us, generation, flows, max_flows, turns, io, frames, host, ftp, .. } = now;
    let number = |number: usize| count(number as u64);
    let mut text = String::new();
    let up = duration(*uptime_us);
    let _ = writeln!(text, "router      {name}, tapvs {version}, up {up}");
    let _ = writeln!(text, "file        {file}, generation {generation}");
    let _ = write!(
        text,
        "configured  {virtual_ips} virtual IPs, {services} services, {servers} servers"
    );
    if *down > 0 {
        let _ = write!(text, ", {down} of them down");
    }
    if *overridden > 0 {
        let _ = write!(text, "; {overridden} of the servers drained or reweighted by hand");
    }
    let _ = writeln!(text, "\nflows       {} of {}", number(*flows), number(*max_flows));
    let Turns { count: turns, longest_us, above_1ms } = *turns;
    let (turns, longest) = (count(turns), duration(longest_us));
    let _ =
        writeln!(text, "loop        {turns} turns, the longest {longest}, {above_1ms} above 1 ms");
    let how = match io.as_ref() {
        "uring" => "uring: many frames with a system call",
        "syscall" => "syscall: a system call for every frame",
        _ => "unknown",
    };
    let _ = writeln!(text, "io          {how}");
    let Host { received, sent } = host;
    let _ = writeln!(text, "host        {received} packets to own addresses, {sent} from them");
    if let Some(ftp) = ftp {
        let Ftp { controls, data, awaited, offers, connections, .. } = ftp;
        let passed = ftp.unreadable + ftp.unasked + ftp.refused + ftp.full;
        let _ = writeln!(
            text,
            "ftp         {controls} control and {data} data connections, {awaited} awaited; \
             {offers} agreed, {connections} came, {passed} texts not believed"
        );
    }
    let Frames {
        received,
        originated,
        copies,
        sent,
        to_host,
        to_ha,
        split,
        consumed,
        dropped,
        held,
    } = frames;
    let _ = writeln!(
        text,
        "frames      {received} in + {originated} originated + {copies} copies =\n            \
         {sent} out + {to_host} to host + {to_ha} to ha + {split} split + {consumed} consumed + {dropped} dropped + \
         {held} held"
    );
    text
}

fn link_table(links: &[Link]) -> Grid<8> {
    let right = |name| (name, Side::Right);
    let mut grid = Grid::new([
        ("LINK", Side::Left),
        ("OFFLOAD", Side::Left),
        right("FRAMES IN"),
        right("FRAMES OUT"),
        right("BYTES IN"),
        right("BYTES OUT"),
        right("REFUSED"),
        right("REMOVED"),
    ]);
    for link in links {
        grid.row([
            link.tap.clone(),
            link.offload.to_string(),
            count(link.frames_in),
            count(link.frames_out),
            bytes(link.bytes_in),
            bytes(link.bytes_out),
            count(link.refused),
            count(link.lost),
        ]);
    }
    grid
}

fn claim_line(claim: &Claim) -> String {
    let Claim { address, network, mac, server, count, last_ms, suppressed, .. } = claim;
    let server = server.as_ref().map_or_else(String::new, |server| format!(" (server {server})"));
    let suppressed = if *suppressed { ", suppressed: nobody is misled" } else { "" };
    let last = duration(last_ms * 1_000);
    format!(
        "{address} on {network} is claimed by {mac}{server}, {count} times, last {last} ago{suppressed}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_all() {
        let status = Status {
            name: "lvs1".to_owned(),
            version: "9.9.9".to_owned(),
            file: "nat.toml".to_owned(),
            virtual_ips: 2,
            services: 1,
            servers: 3,
            overridden: 1,
            down: 2,
            now: Now {
                uptime_us: 65_000_000,
                generation: 4,
                flows: 7,
                max_flows: 1_000_000,
                turns: Turns { count: 12_345, longest_us: 312, above_1ms: 0 },
                io: "uring".into(),
                ftp: Some(Ftp {
                    controls: 4,
                    data: 3,
                    awaited: 1,
                    offers: 90,
                    connections: 80,
                    rewritten: 60,
                    unreadable: 1,
                    unasked: 2,
                    refused: 3,
                    full: 4,
                }),
                ..Now::default()
            },
        };
        assert_eq!(
            summary(&status),
            "\
router      lvs1, tapvs 9.9.9, up 1 m 5 s
file        nat.toml, generation 4
configured  2 virtual IPs, 1 services, 3 servers, 2 of them down; 1 of the servers drained or reweighted by hand
flows       7 of 1.00 M
loop        12.3 k turns, the longest 312 µs, 0 above 1 ms
io          uring: many frames with a system call
host        0 packets to own addresses, 0 from them
ftp         4 control and 3 data connections, 1 awaited; 90 agreed, 80 came, 10 texts not believed
frames      0 in + 0 originated + 0 copies =
            0 out + 0 to host + 0 to ha + 0 split + 0 consumed + 0 dropped + 0 held
"
        );
    }
}

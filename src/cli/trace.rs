//! `tapvs trace`: one line per packet, and why it went where it went.

use std::io::{self, BufWriter, Write as _};

use clap::Args;

use super::ask::Router;
use super::operate::{Failed, Look};
use super::show::hint;
use super::stream::{Next, Stream};
use crate::control::protocol::{Request, Traced};
use crate::trace::Filter;

/// What the filter of `trace` and `capture` may say.
pub(super) const FILTER_HELP: &str = "\
FILTER is any of these, and all that are given must match:
  client=ADDRESS[/PREFIX]    whose flow's client lies there; without a flow, either end
  server=NAME|ADDRESS[:PORT] whose flow goes to this server; without a flow, either end
  service=NAME               of this service
  verdict=VERDICT            forward, flood, split, reply, to_host, to_ha, held, consumed, drop, or sent:
                             by the router itself
  reason=REASON              why it was dropped: the names that `tapvs drops` shows
  proto=PROTOCOL             tcp, udp, icmp, arp, ipv6 or an IP protocol number
  port=PORT                  one of its ports, or of its flow's
  link=TAP                   it came or left by this TAP
A value with spaces is put in double quotes.";

#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub(super) struct TraceArgs {
    /// Which packets; all of them without
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,

    /// End after so many packets
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    #[command(flatten)]
    look: Look,
}

/// Checked here as well, so that a wrong one needs no router to be found out.
pub(super) fn filter(words: &[String]) -> Result<String, Failed> {
    let filter: Filter = words.join(" ").parse()?;
    Ok(filter.to_string())
}

pub(super) fn trace(args: &TraceArgs) -> Result<(), Failed> {
    let request = Request::Trace { filter: filter(&args.filter)? };
    let router = Router::connect(args.look.socket.as_deref())?;
    let mut stream = Stream::begin(router, &request, None)?;
    hint("tracing; Ctrl-C ends it");
    let mut output = BufWriter::new(io::stdout().lock());
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        match stream.next()? {
            Next::Packet(traced) if args.look.json => {
                serde_json::to_writer(&mut output, &traced).map_err(io::Error::from)?;
                output.write_all(b"\n")?;
                left -= 1;
            }
            Next::Packet(traced) => {
                writeln!(output, "{} {traced}", time_of_day(&traced))?;
                left -= 1;
            }
            Next::NotShown(packets) => {
                output.flush()?;
                hint(format_args!("{packets} packets not shown: too fast"));
            }
            Next::Pause => {}
            Next::End => break,
        }
        if stream.is_dry() {
            output.flush()?;
        }
    }
    Ok(output.flush()?)
}

/// In UTC, as the log has it.
pub(super) fn time_of_day(traced: &Traced) -> String {
    let (seconds, micros) = (traced.time_us / 1_000_000, traced.time_us % 1_000_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}

//! `tapvs capture`: packets as they came and as they left, for Wireshark, with the reason as comment.

mod pcapng;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use self::pcapng::{Direction, Pcapng};
use super::ask::Router;
use super::operate::Failed;
use super::show::hint;
use super::stream::{Next, Stream};
use super::trace::{FILTER_HELP, filter};
use crate::control::protocol::{Request, Traced, TracedLink};

#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub(super) struct CaptureArgs {
    /// Where to write, in pcapng; `-` for standard output
    file: PathBuf,

    /// Which packets; all of them without
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,

    /// End after so many packets; one that came and left is one
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// End after so much time
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,

    /// Bytes of each frame to keep
    #[arg(long, value_name = "BYTES", default_value_t = 65_554,
          value_parser = clap::value_parser!(u32).range(14..=65_554))]
    snaplen: u32,

    /// The router's control socket; default: the only one in /run/tapvs
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn capture(args: &CaptureArgs) -> Result<(), Failed> {
    let request = Request::Capture { filter: filter(&args.filter)?, snaplen: args.snaplen };
    let router = Router::connect(args.socket.as_deref())?;
    let mut stream = Stream::begin(router, &request, args.seconds)?;
    let output: Box<dyn Write> = if args.file == Path::new("-") {
        Box::new(io::stdout().lock())
    } else {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", args.file.display()))
        };
        Box::new(File::create(&args.file).map_err(named)?)
    };
    // Whole blocks are written at a time, so a file that is cut short can be read all the same.
    let mut file = Pcapng::begin(BufWriter::with_capacity(1 << 20, output), args.snaplen)?;
    for TracedLink { tap, network } in &stream.links {
        file.interface(tap, &format!("tapvs network {network}"))?;
    }
    file.flush()?;
    hint("capturing; Ctrl-C ends it");
    let (mut packets, mut lost) = (0, 0);
    while args.count.is_none_or(|count| packets < count) {
        match stream.next()? {
            Next::Packet(traced) => {
                write(&mut file, &stream.links, &traced)?;
                packets += 1;
            }
            Next::NotShown(more) => lost += more,
            Next::Pause => {}
            Next::End => break,
        }
        if stream.is_dry() {
            file.flush()?;
        }
    }
    file.flush()?;
    let lost = if lost > 0 { format!(", {lost} not captured: too fast") } else { String::new() };
    hint(format_args!("{packets} packets{lost}"));
    Ok(())
}

/// The frame as it came, and as it left by each link.
fn write<W: Write>(file: &mut Pcapng<W>, links: &[TracedLink], traced: &Traced) -> io::Result<()> {
    let comment = traced.to_string();
    let id = |tap: &String| links.iter().position(|link| link.tap == *tap).unwrap_or(0);
    if let Some(link) = &traced.link {
        let frame = (&traced.frame[..], traced.length);
        file.packet(id(link), traced.time_us, frame, Direction::Inbound, &comment)?;
    }
    if let Some(out) = &traced.out {
        let frame = (&out.frame[..], out.length);
        for link in &out.links {
            file.packet(id(link), traced.time_us, frame, Direction::Outbound, &comment)?;
        }
    }
    Ok(())
}

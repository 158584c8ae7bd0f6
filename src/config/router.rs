//! `[router]`: what concerns the router as a whole.

use std::path::PathBuf;

use super::model::{Forward, Io, Router, Timeouts, Unserved};
use super::section::{Section, Value};
use super::timeouts;

/// Reads `[router]`; everything in it has a default.
pub(super) fn read(mut section: Section<'_>) -> Router {
    let name = section
        .get("name")
        .and_then(|value| value.parse(NAME, router_name))
        .map_or_else(|| "tapvs".to_owned(), |name| name.value);
    let control_socket = section
        .get("control_socket")
        .and_then(|value| value.parse(SOCKET, socket_path))
        .map_or_else(|| Some(format!("/run/tapvs/{name}.sock").into()), |path| path.value);
    let watch = section.get("watch").and_then(Value::boolean);
    let max_flows = section.get("max_flows").and_then(|value| value.integer(1_000..=16_000_000));
    let forward = section.get("forward").and_then(|value| value.choice(&FORWARD, &[]));
    let unserved = section.get("unserved").and_then(|value| value.choice(&UNSERVED, &[]));
    let timeouts = section.get("timeouts").and_then(timeouts::of_router);
    let io = section.get("io").and_then(|value| value.choice(&IO, &[]));
    let offload = section.get("offload").and_then(Value::boolean);
    section.finish();
    Router {
        name,
        control_socket,
        watch: watch.is_some_and(|at| at.value),
        max_flows: max_flows.map(|at| at.value),
        forward: forward.map_or(Forward::ServersOut, |at| at.value),
        unserved: unserved.map_or(Unserved::Reset, |at| at.value),
        timeouts: timeouts.unwrap_or(Timeouts::IPVS),
        io: io.map_or(Io::Auto, |at| at.value),
        offload: offload.is_none_or(|at| at.value),
    }
}

const FORWARD: [(&str, Forward); 3] =
    [("none", Forward::None), ("servers-out", Forward::ServersOut), ("all", Forward::All)];

const UNSERVED: [(&str, Unserved); 3] =
    [("reset", Unserved::Reset), ("icmp", Unserved::Icmp), ("drop", Unserved::Drop)];

const IO: [(&str, Io); 3] = [("auto", Io::Auto), ("uring", Io::Uring), ("syscall", Io::Syscall)];

const NAME: &str = "1 to 64 letters, digits, \"-\", \"_\" or \".\"";

fn router_name(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ((1..=64).contains(&text.len()) && text.chars().all(allowed)).then(|| text.to_owned())
}

const SOCKET: &str =
    "\"none\" or an absolute path of at most 107 bytes, such as \"/run/tapvs/tapvs.sock\"";

/// `"none"`, or a path. The kernel's `sun_path` has 108 bytes, one of which ends it.
fn socket_path(text: &str) -> Option<Option<PathBuf>> {
    if text == "none" {
        return Some(None);
    }
    let names_a_file = text.starts_with('/') && !text.ends_with('/') && !text.contains('\0');
    (names_a_file && text.len() <= 107).then(|| Some(text.into()))
}

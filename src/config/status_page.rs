//! `[status]`: where the router tells over HTTP how it is, and who may change something there.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use super::addressing::Addressing;
use super::model::StatusPage;
use super::section::Section;
use crate::addr::Endpoint;

/// Reads `[status]`, if it is there.
pub(super) fn read(root: &mut Section<'_>, known: &Addressing) -> Option<StatusPage> {
    let mut section = root.get("status")?.section()?;
    let listen = section
        .require("listen", "one of the router's own addresses and a port")
        .and_then(|value| value.parse(LISTEN, socket))
        .and_then(|at| at.check(|socket| is_own(*socket.ip(), known)));
    let token_file = section.get("token_file").and_then(|value| value.parse(TOKEN, path));
    section.finish();
    let listen = listen?.value;
    Some(StatusPage {
        listen: Endpoint { address: IpAddr::V4(*listen.ip()), port: listen.port() },
        token_file: token_file.map(|path| path.value),
    })
}

const LISTEN: &str = "an address and a port, such as \"10.0.0.2:9180\"";

fn socket(text: &str) -> Option<SocketAddrV4> {
    text.parse().ok().filter(|socket: &SocketAddrV4| socket.port() != 0)
}

const TOKEN: &str = "an absolute path, such as \"/etc/tapvs/token\"";

fn path(text: &str) -> Option<PathBuf> {
    let names_a_file = text.starts_with('/') && !text.ends_with('/') && !text.contains('\0');
    names_a_file.then(|| text.into())
}

/// Virtual IPs move to another router and are answered for by the frame path, not by the host.
fn is_own(address: Ipv4Addr, known: &Addressing) -> Result<(), String> {
    if known.own.contains(&address) || known.lost_network {
        return Ok(());
    }
    let mut own: Vec<_> = known.own.iter().collect();
    own.sort_unstable();
    let own = own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let what = if known.virtual_ips.contains(&address) {
        "is a virtual IP"
    } else {
        "is not the router's own address"
    };
    Err(format!("{address} {what}; use one of {own}"))
}

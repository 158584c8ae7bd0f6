//! What no frame that leaves the router may break, checked without the code under test.

use std::net::Ipv4Addr;

use tapvs::addr::{LinkId, MacAddr};
use tapvs::dataplane::Verdict;

use super::network::{INNER_VIP, OUT, OWN_IN, OWN_OUT, ROUTER_IN, ROUTER_OUT, VIP};
use super::packet::{Read, line};
use super::router::Step;

/// Checks everything that one frame led to. `cause`: the frame handed in.
pub fn check_step(cause: &[u8], step: &Step) {
    if let Err(wrong) = try_step(cause, step) {
        panic!("{wrong}\ncause: {}\n{}", line(cause), step.text());
    }
}

/// As [`check_step`], in a network of direct routing where the router has one MAC: what passes between
/// others is untouched, and nobody but the router speaks for the virtual IP.
pub fn check_direct_step(ingress: LinkId, cause: &[u8], step: &Step) {
    let text = || format!("cause: {}\n{}", line(cause), step.text());
    // Several questions and announcements by three links, or the fragments that waited.
    assert!(step.out.len() <= 70, "{} frames for one\n{}", step.out.len(), text());
    for (link, frame) in &step.out {
        if frame[6..12] != ROUTER_OUT.0 {
            assert!(*frame == *cause, "neither passed on nor said\n{}", text());
            assert_ne!(*link, ingress, "passed back\n{}", text());
            let for_vip = frame[12..14] == [8, 6] && frame.get(28..32) == Some(&VIP.octets());
            assert!(!for_vip, "a leak passes\n{}", text());
        } else if let Err(wrong) = check_said(frame) {
            panic!("{wrong}\n{}", text());
        }
    }
    if let (Verdict::Forward(_), Some((_, frame))) = (step.verdict, step.out.first())
        && let Err(wrong) = check_sums(cause, frame)
    {
        panic!("{wrong}\n{}", text());
    }
}

/// What the router says or routes itself is whole.
pub fn check_said(frame: &[u8]) -> Result<(), String> {
    match [frame[12], frame[13]] {
        [8, 6] if frame.len() != 60 || frame[14..20] != [0, 1, 8, 0, 6, 4] => {
            Err("ARP that is not whole".into())
        }
        [8, 6] => {
            // About a neighbour it may speak, in answer to a server; about its own addresses it must
            // name its own MAC.
            let mut own = [VIP, OWN_IN, OWN_OUT, Ipv4Addr::UNSPECIFIED].into_iter();
            if own.any(|own| frame[28..32] == own.octets()) && frame[22..28] != ROUTER_OUT.0 {
                Err("a lie".into())
            } else {
                Ok(())
            }
        }
        [8, 0] => check_ip(frame).map(|_| ()),
        other => Err(format!("type {other:?}")),
    }
}

fn try_step(cause: &[u8], step: &Step) -> Result<(), String> {
    // One frame may release the fragments that waited for it, and no more.
    if step.out.len() > 70 {
        return Err(format!("{} frames for one", step.out.len()));
    }
    for (link, frame) in &step.out {
        check_frame(*link, frame)?;
    }
    if let (Verdict::Forward(_), Some((_, frame))) = (step.verdict, step.out.first()) {
        check_sums(cause, frame)?;
    }
    if let Some(frame) = &step.host {
        check_ip(frame).map_err(|wrong| format!("to the host: {wrong}"))?;
    }
    Ok(())
}

/// D8: what was right is right, what was wrong is not right afterwards.
pub fn check_sums(cause: &[u8], frame: &[u8]) -> Result<(), String> {
    let (Some(before), Some(after)) = (Read::frame(cause), Read::frame(frame)) else {
        return Ok(());
    };
    match (before.transport_ok(), after.transport_ok()) {
        (before, after) if before == after => Ok(()),
        (before, after) => Err(format!("transport checksum {before:?} became {after:?}")),
    }
}

/// A frame that leaves by `link` is whole, honest and from the router.
pub fn check_frame(link: LinkId, frame: &[u8]) -> Result<(), String> {
    if frame.len() < 14 {
        return Err("a runt".into());
    }
    let (to, from) = (MacAddr::from_slice(frame), MacAddr::from_slice(&frame[6..]));
    let router = if link == OUT { ROUTER_OUT } else { ROUTER_IN };
    if from != router || to == router || to == MacAddr::ZERO {
        return Err(format!("from {from} to {to}"));
    }
    match [frame[12], frame[13]] {
        [8, 6] => {
            let whole = frame.len() == 60 && frame[14..20] == [0, 1, 8, 0, 6, 4];
            let honest = frame[22..28] == router.0 && matches!(frame[20..22], [0, 1 | 2]);
            let known = if link == OUT { [203, 0, 113] } else { [10, 0, 0] };
            let ours = frame[28..31] == known;
            if whole && honest && ours { Ok(()) } else { Err("ARP that is not right".into()) }
        }
        [8, 0] => {
            if to.is_multicast() {
                return Err("IP to a group".into());
            }
            let packet = check_ip(frame)?;
            // The router answers for its inner addresses to whoever reaches them; servers are hidden.
            let inner = [OWN_IN, INNER_VIP].contains(&packet.source);
            if link == OUT && packet.source.octets()[0] == 10 && !inner {
                return Err("a private source leaves".into());
            }
            Ok(())
        }
        other => Err(format!("type {other:?}")),
    }
}

fn check_ip(frame: &[u8]) -> Result<Read, String> {
    let packet = Read::frame(frame).ok_or("lengths that do not fit")?;
    let is_host = |address: Ipv4Addr| !matches!(address.octets()[0], 0 | 127 | 224..=255);
    if packet.header.len() + packet.body.len() + 14 != frame.len() {
        return Err("padding or a cut".into());
    }
    if !packet.header_ok() {
        return Err("a wrong header checksum".into());
    }
    if !is_host(packet.source) || !is_host(packet.destination) {
        return Err("addresses that cannot be".into());
    }
    if packet.fragment() & 0x1fff == 0 && !packet.is_fragment() && !packet.transport_fits() {
        return Err("a transport header that does not fit".into());
    }
    Ok(packet)
}

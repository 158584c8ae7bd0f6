//! `timeouts`: how long flows live, of all services and of one.

use super::duration;
use super::model::Timeouts;
use super::section::{Section, Value};
use crate::time::Duration;

/// `"ipvs"`, `"rfc"`, or a table of single values over those of IPVS.
pub(super) fn of_router(value: Value<'_>) -> Option<Timeouts> {
    read(value, Timeouts::IPVS, |section, timeouts| udp(section, "udp", &mut timeouts.udp))
}

/// The keys `timeouts` and `udp_timeout` of a service; `None`: it has neither. Single values are set
/// over those of the router.
pub(super) fn of_service(section: &mut Section<'_>, router: Timeouts) -> Option<Timeouts> {
    let all = section.get("timeouts").and_then(|value| {
        read(value, router, |section, _| {
            section.stray("udp", "a service says it with udp_timeout");
        })
    });
    let mut timeouts = all.unwrap_or(router);
    let is_given = udp(section, "udp_timeout", &mut timeouts.udp);
    (all.is_some() || is_given).then_some(timeouts)
}

fn read<R>(
    value: Value<'_>,
    otherwise: Timeouts,
    of_udp: impl FnOnce(&mut Section<'_>, &mut Timeouts) -> R,
) -> Option<Timeouts> {
    if value.is_table() {
        return value.section().map(|mut section| {
            let mut timeouts = otherwise;
            tcp(&mut section, &mut timeouts);
            of_udp(&mut section, &mut timeouts);
            section.finish();
            timeouts
        });
    }
    match value.as_text() {
        Some("ipvs") => Some(Timeouts::IPVS),
        Some("rfc") => Some(Timeouts::RFC),
        _ => value.not("\"ipvs\", \"rfc\" or a table such as { established = \"900s\" }"),
    }
}

fn tcp(section: &mut Section<'_>, timeouts: &mut Timeouts) {
    for (key, timeout) in [
        ("syn_sent", &mut timeouts.syn_sent),
        ("syn_recv", &mut timeouts.syn_recv),
        ("established", &mut timeouts.established),
        ("fin_wait", &mut timeouts.fin_wait),
        ("time_wait", &mut timeouts.time_wait),
        ("close", &mut timeouts.close),
        ("close_wait", &mut timeouts.close_wait),
        ("last_ack", &mut timeouts.last_ack),
    ] {
        let least = Duration::from_secs(1);
        if let Some(value) = section.get(key).and_then(|value| span(value, least, "1s")) {
            *timeout = value;
        }
    }
}

/// Whether it was given.
fn udp(section: &mut Section<'_>, key: &'static str, timeout: &mut Duration) -> bool {
    let least = Duration::from_millis(10);
    let value = section.get(key).and_then(|value| span(value, least, "10ms"));
    *timeout = value.unwrap_or(*timeout);
    value.is_some()
}

fn span(value: Value<'_>, least: Duration, said: &str) -> Option<Duration> {
    let allowed = least..=Duration::from_secs(24 * 60 * 60);
    let what = format!("{said} to 24h, as {}", duration::FORM);
    let in_range = |text: &str| duration::parse(text).filter(|found| allowed.contains(found));
    Some(value.parse(&what, in_range)?.value)
}

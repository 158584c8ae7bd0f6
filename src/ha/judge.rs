//! Whether an advert that came in is for this router, and to be believed.

use std::net::Ipv4Addr;

use super::advert::Advert;
use super::counters::Discard;
use super::event::{Event, Events};
use super::proof::{Guard, Run};
use super::settings::{Member, Settings};
use crate::addr::NetworkId;
use crate::time::{Duration, Instant};

/// Needs no leave to be active (RFC 9568 section 6.1).
const OWNER: u8 = 255;

/// What is remembered of one network's adverts, so that each oddity is told once.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    guard: Guard,
    met: Option<NetworkId>,
    interval: Option<Duration>,
    has_other_addresses: bool,
    stranger: Option<Ipv4Addr>,
    owner: Option<Ipv4Addr>,
    storm: Storm,
}

/// Adverts of one network within the present second.
#[derive(Clone, Copy, Debug, Default)]
struct Storm {
    since: Option<Instant>,
    count: u32,
    /// It was told of, and has not calmed down.
    is_told: bool,
}

impl Storm {
    /// One more; how many there were when they have just become too many.
    fn note(&mut self, interval: Duration, now: Instant) -> Option<u32> {
        let most = most_a_second(interval);
        let since = *self.since.get_or_insert(now);
        if now >= since + SECOND {
            let is_next = now < since + SECOND * 2;
            self.is_told &= is_next && self.count > most;
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        let is_news = self.count > most && !self.is_told;
        self.is_told |= is_news;
        is_news.then_some(self.count)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Adverts a second that are nothing to speak of: of several routers that contend, each with one an
/// interval and those that others prompt.
fn most_a_second(interval: Duration) -> u32 {
    let regular = 1_000 / interval.total_millis().clamp(1, 1_000);
    u32::try_from(16 * regular).unwrap_or(u32::MAX)
}

impl Notes {
    /// After a reload each oddity is told again.
    pub(super) fn renew(&mut self) {
        let guard = std::mem::take(&mut self.guard);
        *self = Self { guard, ..Self::default() };
    }

    pub(super) fn confirm(&mut self, run: Run, now: Instant) {
        self.guard.confirm(run, now);
    }
}

/// Whether `advert` belongs to `member`, on whose network it came in.
///
/// # Errors
/// Why it does not.
pub(super) fn belongs(
    advert: &Advert<'_>,
    member: &Member,
    members: &[Member],
    notes: &mut Notes,
    events: &mut Events,
) -> Result<(), Discard> {
    let Advert { source, virtual_router_id: id, .. } = *advert;
    if source == member.address {
        return Err(Discard::Own);
    }
    let mut others = members.iter().filter(|other| other.network != member.network);
    let is_ours = |other: &&Member| other.address == source && other.virtual_router_id == id;
    if let Some(other) = others.clone().find(is_ours) {
        if notes.met.replace(other.network) != Some(other.network) {
            events.push(Event::NetworksMeet { network: member.network, sent: other.network });
        }
        return Err(Discard::WrongNetwork);
    }
    if id != member.virtual_router_id {
        let is_others = others.any(|other| other.virtual_router_id == id);
        return Err(if is_others { Discard::WrongNetwork } else { Discard::UnknownRouterId });
    }
    // The peer's for a network that has the same id; with the addresses of both it would be this one's.
    let is_misled = !advert.names(&member.virtual_ips)
        && others.any(|other| {
            other.virtual_router_id == id
                && !other.virtual_ips.is_empty()
                && advert.names(&other.virtual_ips)
        });
    if is_misled {
        return Err(Discard::WrongNetwork);
    }
    if member.peers.is_empty() || member.peers.contains(&source) {
        return Ok(());
    }
    if notes.stranger.replace(source) != Some(source) {
        events.push(Event::Stranger { network: member.network, from: source });
    }
    Err(Discard::UnlistedPeer)
}

/// Whether `advert` is signed as it should be, and new.
///
/// # Errors
/// Why it is not believed.
pub(super) fn is_genuine(
    advert: &Advert<'_>,
    settings: &Settings,
    notes: &mut Notes,
    confirmed: Option<u64>,
    (silence, now): (Duration, Instant),
) -> Result<(), Discard> {
    let Some(key) = &settings.key else { return Ok(()) };
    let source = advert.source.octets();
    let run = Run::read(key, source, advert.message(), advert.trailer());
    let run = run.ok_or(Discard::Signature)?;
    let is_new = notes.guard.admit(run, confirmed, silence, now);
    if is_new { Ok(()) } else { Err(Discard::Replay) }
}

/// Tells of what the other router says otherwise than the configuration: it is listened to all the
/// same (RFC 9568 section 7.1).
pub(super) fn compare(
    advert: &Advert<'_>,
    settings: &Settings,
    member: &Member,
    notes: &mut Notes,
    events: &mut Events,
    now: Instant,
) {
    // They are believed all the same: to leave some out would leave out the other router's too.
    let (network, from): (NetworkId, Ipv4Addr) = (member.network, advert.source);
    let fastest = advert.interval.min(settings.advert_interval);
    if let Some(count) = notes.storm.note(fastest, now) {
        events.push(Event::Storm { network, from, count });
    }
    // One that gives up the role is not listened to any more.
    if advert.priority == 0 {
        return;
    }
    let owner = Some(from).filter(|_| advert.priority == OWNER);
    if std::mem::replace(&mut notes.owner, owner) != owner && owner.is_some() {
        events.push(Event::OwnerHeard { network, from });
    }
    let interval = Some(advert.interval).filter(|other| *other != settings.advert_interval);
    if std::mem::replace(&mut notes.interval, interval) != interval
        && let Some(interval) = interval
    {
        events.push(Event::IntervalMismatch { network, from, interval });
    }
    let has_others = !member.virtual_ips.is_empty() && !advert.names(&member.virtual_ips);
    if has_others && !notes.has_other_addresses {
        events.push(Event::AddressesMismatch { network, from });
    }
    notes.has_other_addresses = has_others;
}

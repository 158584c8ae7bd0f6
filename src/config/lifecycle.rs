//! The keys of a `[[service]]` that say what happens as its servers come, go and fail.

use super::duration;
use super::model::{Helper, Lifecycle, Method, OnDown, OnRemove, PassiveHealth, Scheduler};
use super::section::{At, Section, Value};
use crate::addr::Proto;
use crate::time::Duration;

/// What the rules are about; the protocol is `None` where it could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) protocol: Option<Proto>,
    pub(super) method: Method,
    pub(super) scheduler: Scheduler,
    pub(super) is_checked: bool,
}

/// Reads them from the section of a service of this `kind`.
pub(super) fn read(section: &mut Section<'_>, kind: Kind) -> Lifecycle {
    let on_remove = section.get("on_remove").and_then(|value| value.choice(&ON_REMOVE, &[]));
    let drain_timeout = section.get("drain_timeout").and_then(|value| span(value, DAY));
    let on_down = section
        .get("on_down")
        .and_then(|value| value.choice(&ON_DOWN, &[]))
        .and_then(|on_down| on_down.check(|on_down| kind.may_do(*on_down)));
    let slow_start = section
        .get("slow_start")
        .and_then(|value| span(value, HOUR))
        .and_then(|slow_start| slow_start.check(|_| kind.may_start_slowly()));
    let passive_health = section.get("passive_health").and_then(|value| passive(value, kind));
    let min_healthy = section.get("min_healthy").and_then(|value| value.integer(1..=65_535));
    let min_healthy = min_healthy.and_then(|least| least.check(|_| kind.is_watched()));
    let helper = section
        .get("helper")
        .and_then(|value| value.choice(&[("ftp", Helper::Ftp)], &[]))
        .and_then(|helper| helper.check(|_| kind.can_be_helped()));
    Lifecycle {
        helper: helper.map(|at| at.value),
        on_remove: on_remove.map_or_else(OnRemove::default, |at| at.value),
        drain_timeout: drain_timeout.map(|at| at.value),
        on_down: on_down.map_or_else(OnDown::default, |at| at.value),
        slow_start: slow_start.map(|at| at.value),
        passive_health,
        min_healthy: min_healthy.map(|at| at.value),
    }
}

impl Kind {
    fn can_be_helped(self) -> Result<(), String> {
        match (self.protocol, self.method) {
            (Some(Proto::Udp), _) => Err("FTP is TCP; leave helper out".to_owned()),
            (_, Method::Direct) => Err(
                "with method = \"direct\" the server itself tells its clients where to connect; leave helper out, \
                 and let persistence or a group bring data connections to the same server"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn is_watched(self) -> Result<(), String> {
        if self.is_checked {
            return Ok(());
        }
        Err("nobody asks how its servers are; add health, or leave min_healthy out".to_owned())
    }

    fn may_do(self, on_down: OnDown) -> Result<(), String> {
        match (on_down, self.protocol) {
            (OnDown::Reschedule, Some(Proto::Tcp)) => Err(
                "\"reschedule\" is for UDP: no other server knows of a TCP connection; use \"reset\", \
                 after which clients connect again, or \"keep\""
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn may_start_slowly(self) -> Result<(), String> {
        if self.scheduler.compares_loads() {
            return Ok(());
        }
        let scheduler = self.scheduler;
        Err(format!(
            "{scheduler} gives a new server no more than its share anyway; leave slow_start out, or \
             use scheduler = \"lc\", \"wlc\" or \"sed\""
        ))
    }

    fn answers_are_seen(self) -> Result<(), String> {
        if self.method == Method::Direct {
            return Err("the router does not see the answers of method = \"direct\"; leave \
                        passive_health out"
                .to_owned());
        }
        if self.protocol == Some(Proto::Udp) {
            return Err(
                "nothing obliges a UDP server to answer; leave passive_health out".to_owned()
            );
        }
        Ok(())
    }
}

fn passive(value: Value<'_>, kind: Kind) -> Option<PassiveHealth> {
    let place = value.place.clone();
    let mut section = value.section()?;
    let unanswered = section.get("unanswered").and_then(|value| value.integer(1..=16));
    let retry = section.get("retry").and_then(|value| span(value, HOUR));
    section.finish();
    let default = PassiveHealth::default();
    let value = PassiveHealth {
        unanswered: unanswered.map_or(default.unanswered, |at| at.value),
        retry: retry.map_or(default.retry, |at| at.value),
    };
    Some(At { value, place }.check(|_| kind.answers_are_seen())?.value)
}

/// A duration of 1 s to `most` hours.
fn span(value: Value<'_>, most: u64) -> Option<At<'_, Duration>> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(most * 60 * 60);
    let what = format!("1s to {most}h, as {}", duration::FORM);
    value.parse(&what, |text| duration::parse(text).filter(|found| allowed.contains(found)))
}

const HOUR: u64 = 1;
const DAY: u64 = 24;

const ON_REMOVE: [(&str, OnRemove); 2] = [("drain", OnRemove::Drain), ("reset", OnRemove::Reset)];

const ON_DOWN: [(&str, OnDown); 3] =
    [("keep", OnDown::Keep), ("reset", OnDown::Reset), ("reschedule", OnDown::Reschedule)];

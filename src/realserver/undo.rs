//! `undo`: takes back what `apply` has recorded, in the reverse order, and nothing else.

use std::net::Ipv4Addr;

use super::Machine;
use super::error::Error;
use super::kernel::{Kernel, Reverted};
use super::method::Method;
use super::record::{Folder, Record};
use super::step::Step;
use crate::links::check_net_admin;

/// What `undo` did.
#[derive(Debug)]
pub struct Undone {
    /// Every step that was recorded, and what became of it.
    pub steps: Vec<(Step, Fate)>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Taken back.
    Undone,
    /// Somebody had taken it back already.
    Gone,
    /// Somebody has changed it since, and it was left alone; says to what.
    Left(String),
    /// It could not be taken back, and stays recorded; says why.
    Failed(String),
}

impl Undone {
    /// Whether nothing remains to be undone.
    pub fn is_complete(&self) -> bool {
        !self.steps.iter().any(|(_, fate)| matches!(fate, Fate::Failed(_)))
    }
}

/// Takes back what `apply` did on this machine by `method`, or by any; for `vips`, or for all.
pub fn undo(method: Option<Method>, vips: &[Ipv4Addr], folder: &Folder) -> Result<Undone, Error> {
    let mut records = folder.load_all()?;
    records.retain(|record| method.is_none_or(|method| record.method == method));
    if records.is_empty() {
        let by = method.map_or_else(String::new, |method| format!(" by {method}"));
        let file = folder.file(method.unwrap_or(Method::Sysctl));
        let place = file.parent().unwrap_or(&file).display();
        return Err(Error::NotApplied(format!(
            "nothing to undo: {place} has no record of an `apply`{by} in this network namespace"
        )));
    }
    for vip in vips {
        if !records.iter().any(|record| record.vips.contains(vip)) {
            let known = records.iter().flat_map(|record| &record.vips);
            let known: Vec<_> = known.map(ToString::to_string).collect();
            let words = format!("nothing to undo: {vip} was not applied, but {}", known.join(", "));
            return Err(Error::NotApplied(words));
        }
    }
    check_net_admin()?;
    let kernel = Kernel::new()?;
    let mut steps = Vec::new();
    for record in &records {
        let (left, fates) = take_back(record, vips, &kernel);
        steps.extend(fates);
        folder.save(&left)?;
    }
    Ok(Undone { steps })
}

/// Takes back a record's changes for `vips`, all of them if there are none or no other virtual IP is
/// left. Returns what remains recorded.
pub(super) fn take_back(
    record: &Record,
    vips: &[Ipv4Addr],
    machine: &impl Machine,
) -> (Record, Vec<(Step, Fate)>) {
    let goes = |vip: &Ipv4Addr| vips.is_empty() || vips.contains(vip);
    let all = record.vips.iter().all(goes);
    let mut left = record.clone();
    left.vips.retain(|vip| !goes(vip));
    left.changes.clear();
    let table = all && record.changes.iter().any(|change| change.step.table_rules().is_some());
    let mut fates = Vec::new();
    for change in record.changes.iter().rev() {
        let step = &change.step;
        if !all && !step.vip().is_some_and(|vip| goes(&vip)) {
            left.changes.insert(0, change.clone());
            continue;
        }
        if table && step.goes_with_its_table() {
            continue;
        }
        let fate = match machine.revert(change) {
            Ok(Reverted::Done) => Fate::Undone,
            Ok(Reverted::Gone) => Fate::Gone,
            Ok(Reverted::Left(how)) => Fate::Left(how),
            Err(error) => {
                left.changes.insert(0, change.clone());
                Fate::Failed(error.to_string())
            }
        };
        fates.push((step.clone(), fate));
    }
    (left, fates)
}

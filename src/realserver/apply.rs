//! `apply`: what is missing is carried out; when one step fails, what was done before it is undone.

use std::path::PathBuf;

use super::error::Error;
use super::kernel::Kernel;
use super::method::Method;
use super::needs;
use super::plan::{Plan, Request};
use super::record::{Folder, Record};
use super::step::{Change, Step};
use super::{Found, Machine};

/// What `apply` did.
#[derive(Debug)]
pub struct Applied {
    /// Every step, and whether it was carried out now; the others were there already.
    pub steps: Vec<(Step, bool)>,
    /// Where it is remembered.
    pub file: PathBuf,
}

/// Prepares this machine, in the calling thread's network namespace.
pub fn apply(method: Method, request: &Request, folder: &Folder) -> Result<Applied, Error> {
    let kernel = Kernel::new()?;
    let plan = needs::resolve(&kernel, method, request)?;
    needs::ready(&kernel, &plan)?;
    carry_through(&plan, &kernel, folder)
}

fn carry_through(plan: &Plan, machine: &impl Machine, folder: &Folder) -> Result<Applied, Error> {
    let old = folder.load(plan.method)?.unwrap_or_else(|| Record::new(plan));
    same_server(plan, &old)?;
    let (mut steps, mut changes) = (Vec::new(), Vec::new());
    for step in &plan.steps {
        let found = machine.find(step)?;
        steps.push((step.clone(), found != Found::There));
        match found {
            Found::There => {}
            Found::Missing(now) => {
                let before = matches!(step, Step::Sysctl { .. }).then_some(now);
                changes.push(Change { step: step.clone(), before });
            }
            Found::Different(how) => {
                let words = format!("{step} is there, but not as it should be: {how}");
                return Err(Error::InTheWay(words));
            }
        }
    }
    // Remembered first: whoever is killed half-way can still be undone.
    folder.save(&old.with(&plan.vips, &changes))?;
    if let Err((error, left)) = make(machine, &changes) {
        folder.save(&old.with(&[], &left))?;
        return Err(error);
    }
    Ok(Applied { steps, file: folder.file(plan.method) })
}

/// All virtual IPs of a method share its table or sysctls, and so interface and address.
fn same_server(plan: &Plan, old: &Record) -> Result<(), Error> {
    let server = |interface: &str, address| format!("{interface} with {address}");
    let before = server(&old.interface, old.address);
    let now = server(&plan.interface, plan.address);
    if before == now {
        return Ok(());
    }
    let method = plan.method;
    Err(Error::InTheWay(format!(
        "{method} is applied for {before}, not {now}: `tapvs realserver undo --method {method}` first"
    )))
}

/// Makes the changes, all or none; the error comes with those that could not be taken back.
fn make(machine: &impl Machine, changes: &[Change]) -> Result<(), (Error, Vec<Change>)> {
    for (at, change) in changes.iter().enumerate() {
        let Err(error) = machine.carry_out(&change.step) else { continue };
        let mut words = format!("{}: {error}", change.step);
        let mut left = Vec::new();
        // The failed one as well: a program may fail after it has done its work.
        for done in changes[..=at].iter().rev() {
            if let Err(error) = machine.revert(done) {
                words = format!("{words}\n{} could not be undone: {error}", done.step);
                left.insert(0, done.clone());
            }
        }
        if left.is_empty() {
            words.push_str("\nwhat was done before it is undone");
        }
        return Err((Error::Failed(words), left));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Apply and undo on a machine in memory that can fail at any step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::addr::Proto;
use crate::realserver::kernel::Reverted;
use crate::realserver::undo::{Fate, take_back};

const A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const B: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// What is there, by the steps' names; a sysctl with its value.
#[derive(Default)]
struct Fake {
    there: RefCell<BTreeMap<String, String>>,
    calls: Cell<usize>,
    fails_at: Option<usize>,
    stuck: bool,
}

impl Fake {
    /// A machine with sysctls at 0.
    fn new(fails_at: Option<usize>) -> Self {
        let fake = Self { fails_at, ..Self::default() };
        for step in &plan(Method::Sysctl, &[A]).steps {
            if let Step::Sysctl { key, of } = step {
                fake.there.borrow_mut().insert(key.path(of), "0".into());
            }
        }
        fake
    }

    fn state(&self) -> BTreeMap<String, String> {
        self.there.borrow().clone()
    }
}

impl Machine for Fake {
    fn find(&self, step: &Step) -> Result<Found, Error> {
        let there = self.there.borrow();
        Ok(match step {
            Step::Sysctl { key, of } => match there.get(&key.path(of)) {
                Some(value) if key.suffices(value) => Found::There,
                Some(value) => Found::Missing(value.clone()),
                None => Found::Different("no such interface".into()),
            },
            step if there.contains_key(&step.to_string()) => Found::There,
            _ => Found::Missing("not there".into()),
        })
    }

    fn carry_out(&self, step: &Step) -> Result<(), Error> {
        self.calls.set(self.calls.get() + 1);
        if self.fails_at == Some(self.calls.get()) {
            return Err(Error::Failed("it said no".into()));
        }
        let (name, value) = match step {
            Step::Sysctl { key, of } => (key.path(of), key.value()),
            step => (step.to_string(), ""),
        };
        self.there.borrow_mut().insert(name, value.into());
        Ok(())
    }

    fn revert(&self, change: &Change) -> Result<Reverted, Error> {
        if self.stuck {
            return Err(Error::Failed("it said no again".into()));
        }
        let mut there = self.there.borrow_mut();
        if let Step::Sysctl { key, of } = &change.step {
            there.insert(key.path(of), change.before.clone().unwrap());
            return Ok(Reverted::Done);
        }
        if change.step.table_rules().is_some() {
            there.retain(|name, _| !name.contains("table"));
            return Ok(Reverted::Done);
        }
        Ok(match there.remove(&change.step.to_string()) {
            Some(_) => Reverted::Done,
            None => Reverted::Gone,
        })
    }
}

/// A folder of records that goes when dropped.
struct Scratch(PathBuf, Folder);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tapvs-realserver-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let folder = Folder::new(&path).unwrap();
        Self(path, folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn plan(method: Method, vips: &[Ipv4Addr]) -> Plan {
    let request = Request {
        vips: vips.to_vec(),
        protocols: vec![Proto::Tcp],
        ports: vec![80],
        interface: "eth0".into(),
        address: None,
    };
    Plan::new(method, &request, Ipv4Addr::new(10, 0, 0, 11)).unwrap()
}

#[test]
fn whichever_step_fails_nothing_remains() {
    for method in Method::ALL {
        let plan = plan(method, &[A, B]);
        for at in 1..=plan.steps.len() {
            let (machine, scratch) = (Fake::new(Some(at)), Scratch::new());
            let before = machine.state();
            let error = carry_through(&plan, &machine, &scratch.1).unwrap_err().to_string();
            let step = plan.steps[at - 1].to_string();
            assert!(error.starts_with(&step) && error.contains("it said no"), "{error}");
            assert_eq!(machine.state(), before, "{method}, failing at {step}");
            assert_eq!(scratch.1.load_all().unwrap(), [], "{method}, failing at {step}");
        }
    }
}

#[test]
fn what_cannot_be_undone_stays_recorded() {
    let (machine, scratch) = (Fake { stuck: true, ..Fake::new(Some(3)) }, Scratch::new());
    let plan = plan(Method::Nft, &[A, B]);
    let error = carry_through(&plan, &machine, &scratch.1).unwrap_err().to_string();
    assert!(error.contains("could not be undone: it said no again"), "{error}");
    let record = scratch.1.load(Method::Nft).unwrap().unwrap();
    assert_eq!(record.changes.len(), 3);
    let machine = Fake { stuck: false, ..machine };
    let (left, _) = take_back(&record, &[], &machine);
    assert_eq!((left.changes, machine.state()), (Vec::new(), Fake::new(None).state()));
}

#[test]
fn applying_twice_changes_nothing_and_undo_restores_the_first_state() {
    for method in Method::ALL {
        let (machine, scratch) = (Fake::new(None), Scratch::new());
        let before = machine.state();
        let first = carry_through(&plan(method, &[A]), &machine, &scratch.1).unwrap();
        assert!(first.steps.iter().all(|(_, done)| *done));
        let (after, record) = (machine.state(), scratch.1.load(method).unwrap().unwrap());
        let second = carry_through(&plan(method, &[A]), &machine, &scratch.1).unwrap();
        assert!(!second.steps.iter().any(|(_, done)| *done));
        assert_eq!(
            (&machine.state(), &scratch.1.load(method).unwrap().unwrap()),
            (&after, &record)
        );
        carry_through(&plan(method, &[A, B]), &machine, &scratch.1).unwrap();
        let both = scratch.1.load(method).unwrap().unwrap();
        // One virtual IP goes, what is shared stays.
        let (left, fates) = take_back(&both, &[B], &machine);
        assert_eq!((&left, machine.state()), (&record, after), "{method}");
        assert!(fates.iter().all(|(_, fate)| *fate == Fate::Undone));
        let (left, _) = take_back(&left, &[A], &machine);
        assert!(left.vips.is_empty() && left.changes.is_empty());
        assert_eq!(machine.state(), before, "{method}");
    }
}

#[test]
fn what_was_there_before_is_not_ours_to_undo() {
    let (machine, scratch) = (Fake::new(None), Scratch::new());
    machine.there.borrow_mut().insert("net/ipv4/conf/all/arp_ignore".into(), "2".into());
    machine.there.borrow_mut().insert(format!("{A}/32 on lo"), String::new());
    let before = machine.state();
    carry_through(&plan(Method::Sysctl, &[A, B]), &machine, &scratch.1).unwrap();
    let record = scratch.1.load(Method::Sysctl).unwrap().unwrap();
    assert_eq!(record.changes.len(), 4, "{record:?}");
    take_back(&record, &[], &machine);
    assert_eq!(machine.state(), before);
}

#[test]
fn another_interface_is_refused_until_the_first_is_undone() {
    let (machine, scratch) = (Fake::new(None), Scratch::new());
    carry_through(&plan(Method::Nft, &[A]), &machine, &scratch.1).unwrap();
    let other = Plan { interface: "eth1".into(), ..plan(Method::Nft, &[B]) };
    let error = carry_through(&other, &machine, &scratch.1).unwrap_err();
    assert!(error.is_early() && error.to_string().contains("undo --method nft"), "{error}");
}

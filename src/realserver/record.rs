//! What `apply` has done, in a file, so that `undo` restores exactly that.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::method::Method;
use super::plan::Plan;
use super::step::Change;
use crate::links::namespace;

/// The folder of the records. One per method and network namespace: `/run` is shared by
/// namespaces, sysctls and addresses are not.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    namespace: u64,
}

/// What was done by one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) method: Method,
    pub(super) interface: String,
    pub(super) address: Ipv4Addr,
    pub(super) vips: Vec<Ipv4Addr>,
    /// In the order in which they were made.
    pub(super) changes: Vec<Change>,
}

impl Folder {
    /// The records in `path` that are about the calling thread's network namespace.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let namespace = namespace::cookie().map_err(|error| {
            Error::Failed(format!("cannot tell this network namespace from others: {error}"))
        })?;
        Ok(Self { path: path.to_owned(), namespace })
    }

    /// The file of one method.
    pub fn file(&self, method: Method) -> PathBuf {
        self.path.join(format!("realserver-{method}-net{}.json", self.namespace))
    }

    pub(super) fn load(&self, method: Method) -> Result<Option<Record>, Error> {
        let file = self.file(method);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Record(file, error)),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| Error::Record(file, error.into()))
    }

    /// All there are.
    pub(super) fn load_all(&self) -> Result<Vec<Record>, Error> {
        let records = Method::ALL.into_iter().map(|method| self.load(method));
        Ok(records.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Replaces the method's record as a whole; a record without virtual IPs and changes goes.
    pub(super) fn save(&self, record: &Record) -> Result<(), Error> {
        let file = self.file(record.method);
        let result = if record.vips.is_empty() && record.changes.is_empty() {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            }
        } else {
            self.replace(&file, record)
        };
        result.map_err(|error| Error::Record(file, error))
    }

    fn replace(&self, file: &Path, record: &Record) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let new = file.with_extension("json.new");
        fs::write(&new, serde_json::to_string_pretty(record)? + "\n")?;
        fs::rename(&new, file)
    }
}

impl Record {
    /// That of a plan before its first change.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            method: plan.method,
            interface: plan.interface.clone(),
            address: plan.address,
            vips: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// With changes that are to be made for `vips`. Of a change that is known, the first counts: it
    /// knows what was there before all of them.
    pub(super) fn with(&self, vips: &[Ipv4Addr], changes: &[Change]) -> Self {
        let mut record = self.clone();
        for vip in vips {
            if !record.vips.contains(vip) {
                record.vips.push(*vip);
            }
        }
        for change in changes {
            if !record.changes.iter().any(|known| known.step == change.step) {
                record.changes.push(change.clone());
            }
        }
        record
    }
}

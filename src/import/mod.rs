//! Other load balancers' configurations, read and written anew as tapvs's: `ipvsadm-save` output,
//! keepalived.conf and Piranha's lvs.cf.
//!
//! Owns their syntax and what becomes of each word of theirs. What has no place in tapvs is said, by
//! line, in the result and in [`Imported::remarks`]; nothing is dropped in silence. The result is held
//! against `config` before it is given out, and what `config` refuses is commented out. Reads no files
//! and asks no name server itself: the caller's [`Surroundings`] do. For any input: bounded work, bounded
//! depth, no panic.

mod compose;
mod document;
mod draft;
mod ipvsadm;
mod keepalived;
mod layout;
mod lvs_cf;
mod remark;
mod repair;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::io;
use std::net::Ipv4Addr;

pub use self::remark::{Remark, Weight};

use self::document::Document;
use self::remark::{Files, Place};

/// The longest text that is read, in bytes, all included files together.
pub const LONGEST: usize = 4 << 20;
/// Lines or statements that are read at most; what is written for each may be longer than itself.
const MOST_STATEMENTS: usize = 100_000;
/// Real servers that are written at most: one entry of a group may stand for many.
const MOST_SERVERS: usize = 20_000;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What `ipvsadm-save` writes and `ipvsadm-restore` reads.
    Ipvsadm,
    /// keepalived.conf.
    Keepalived,
    /// Piranha's lvs.cf.
    LvsCf,
}

impl Kind {
    /// Every kind, with its word.
    pub const WORDS: [(&'static str, Self); 3] =
        [("ipvsadm", Self::Ipvsadm), ("keepalived", Self::Keepalived), ("lvs.cf", Self::LvsCf)];

    /// What the text seems to be; `None` if nothing in it tells.
    pub fn detect(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.take(MOST_STATEMENTS).find_map(Self::of_line)
    }

    fn of_line(line: &str) -> Option<Self> {
        if line.starts_with(['#', '!']) {
            return None;
        }
        if ipvsadm::is_command(line) {
            return Some(Self::Ipvsadm);
        }
        let word = line.split([' ', '\t', '{', '=']).next().unwrap_or_default();
        if lvs_cf::is_first_word(word, line) {
            return Some(Self::LvsCf);
        }
        keepalived::is_top_word(word).then_some(Self::Keepalived)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, kind)| kind == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

/// What a configuration may refer to and does not contain.
pub trait Surroundings {
    /// The files that an `include` means, as names and contents; `from` is the file that says so.
    /// A pattern that fits none is an empty list.
    fn include(&mut self, pattern: &str, from: &str) -> io::Result<Vec<(String, String)>>;
    /// The IPv4 address of a host.
    fn host(&mut self, name: &str) -> Option<Ipv4Addr>;
    /// The port of a service such as `http`.
    fn port(&mut self, name: &str) -> Option<u16>;
}

/// How a file is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file's name, for remarks.
    pub file: String,
    /// Whose configuration it is.
    pub kind: Kind,
    /// keepalived's `--config-id`: which `@id` lines count.
    pub config_id: Option<String>,
    /// Servers in the order of the kernel's list, the last one added first.
    pub kernel_order: bool,
}

/// A configuration of tapvs.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The TOML text.
    pub toml: String,
    /// What was not carried over, or is different, in the order of the files.
    pub remarks: Vec<Remark>,
}

impl Imported {
    /// Whether something was not carried over.
    pub fn is_partial(&self) -> bool {
        self.remarks.iter().any(|remark| remark.weight == Weight::Lost)
    }
}

/// Why there is no result at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// Longer than [`LONGEST`], with what is included and substituted.
    TooLong,
    /// More than can be worked through.
    TooMany {
        /// The limit, in statements.
        most: usize,
    },
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(
                f,
                "is longer than {} MiB with everything that it includes and defines; split it",
                LONGEST >> 20
            ),
            Self::TooMany { most } => {
                write!(
                    f,
                    "has more than {most} statements with everything that it includes; split it"
                )
            }
        }
    }
}

impl std::error::Error for ImportError {}

/// Reads `text` and writes it anew.
pub fn import(
    text: &str,
    options: &Options,
    surroundings: &mut dyn Surroundings,
) -> Result<Imported, ImportError> {
    let (mut document, files) = compose(text, options, surroundings)?;
    repair::repair(&mut document, &files);
    Ok(finish(&document, &files))
}

/// What tapvs would have to understand.
fn compose(
    text: &str,
    options: &Options,
    surroundings: &mut dyn Surroundings,
) -> Result<(Document, Files), ImportError> {
    if text.len() > LONGEST {
        return Err(ImportError::TooLong);
    }
    let mut files = Files::new(&options.file);
    let mut draft = match options.kind {
        Kind::Ipvsadm => ipvsadm::read(text, surroundings)?,
        Kind::Keepalived => {
            keepalived::read(text, options.config_id.as_deref(), &mut files, surroundings)?
        }
        Kind::LvsCf => lvs_cf::read(text)?,
    };
    if options.kernel_order {
        draft.reverse_servers();
    }
    let networks = layout::lay_out(&draft);
    Ok((compose::compose(draft, networks, options), files))
}

fn finish(document: &Document, files: &Files) -> Imported {
    let mut remarks = document.remarks(files);
    // A group of addresses is one block of the source: what is said of it is said once.
    remarks.sort_by(|(a, left), (b, right)| (a, &left.text).cmp(&(b, &right.text)));
    remarks.dedup();
    Imported {
        toml: write::text(document, files),
        remarks: remarks.into_iter().map(|(_, remark)| remark).collect(),
    }
}

/// Where the text of a whole file begins.
const START: Place = Place { file: 0, line: 1 };

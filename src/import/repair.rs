//! Holds a document against `config`, which alone knows what tapvs accepts: what it refuses becomes a
//! comment, with its words.

use std::collections::{BTreeMap, HashMap};

use super::START;
use super::document::{Document, Item};
use super::remark::Files;
use super::write;
use crate::config;

/// One mistake may hide another; each round ends at least one.
const ROUNDS: usize = 20;

pub(super) fn repair(document: &mut Document, files: &Files) {
    for round in 0..ROUNDS {
        let Err(mistakes) = config::parse(&write::text(document, files)) else { return };
        let mut hits: BTreeMap<Path, (Option<String>, String)> = BTreeMap::new();
        let mut missed = None;
        let positions = Positions::of(document);
        for mistake in &mistakes {
            match positions.find(document, &mistake.key) {
                Some((path, key)) => {
                    let why = || (key.clone(), mistake.message.clone());
                    hits.entry((path, key.clone())).or_insert_with(why);
                }
                None => missed = missed.or_else(|| Some(mistake.to_string())),
            }
        }
        if hits.is_empty() || round + 1 == ROUNDS {
            let why = missed.unwrap_or_else(|| "too many mistakes".to_owned());
            let text = format!("`tapvs check` will refuse the result: {why}");
            document.notes.lost(START, text);
            return;
        }
        for (((item, child), _), (key, message)) in hits {
            let Some(mut item) = document.items.get_mut(item) else { continue };
            if let Some(child) = child {
                let Some(child) = item.children.get_mut(child) else { continue };
                item = child;
            }
            match key {
                _ if item.is_off => {}
                Some(key) => item.turn_off_key(&key, &message),
                None => item.turn_off(&message),
            }
        }
    }
}

/// The position of an item, of one of its children, and a key.
type Path = ((usize, Option<usize>), Option<String>);

/// Where the tables of each name stand in the document: those that are not off.
struct Positions<'d>(HashMap<&'d str, Vec<usize>>);

impl<'d> Positions<'d> {
    fn of(document: &'d Document) -> Self {
        let mut positions: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, item) in document.items.iter().enumerate().filter(|(_, item)| !item.is_off) {
            positions.entry(name(item)).or_default().push(at);
        }
        Self(positions)
    }

    fn nth(&self, name: &str, position: Option<usize>) -> Option<usize> {
        self.0.get(name)?.get(position.unwrap_or(0)).copied()
    }

    /// What `service[3].server[1].weight` is about.
    fn find(&self, document: &Document, key: &str) -> Option<Path> {
        let mut parts = key.split('.').peekable();
        let (table, position) = split(parts.next()?);
        // `[[failover.network]]` and the like stand in the file beside what they belong to.
        if let Some(next) = parts.peek() {
            let (below, below_position) = split(next);
            if let Some(at) = self.nth(&format!("{table}.{below}"), below_position) {
                parts.next();
                return Some(((at, None), parts.next().map(|key| split(key).0.to_owned())));
            }
        }
        let at = self.nth(table, position)?;
        let item = document.items.get(at)?;
        let Some(key) = parts.next() else { return Some(((at, None), None)) };
        let (key, position) = split(key);
        if let Some(position) = position {
            let full = format!("{table}.{key}");
            let is = |child: &(usize, &Item)| !child.1.is_off && name(child.1) == full;
            if let Some((child, _)) = item.children.iter().enumerate().filter(is).nth(position) {
                return Some(((at, Some(child)), parts.next().map(|key| split(key).0.to_owned())));
            }
        }
        Some(((at, None), Some(key.to_owned())))
    }
}

/// `service` of `[[service]]`.
fn name(item: &Item) -> &'static str {
    item.header.trim_matches(['[', ']'])
}

/// `server[1]` is `server` and 1.
fn split(part: &str) -> (&str, Option<usize>) {
    match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
        Some((name, position)) => (name, position.parse().ok()),
        None => (part, None),
    }
}

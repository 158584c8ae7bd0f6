//! Whether a file has changed: written, replaced by rename, or reached by another way because a link
//! on its path now leads elsewhere.
//!
//! Every step of the path is watched in the directory that holds it, symbolic links followed one by
//! one, so it does not matter which of them is swapped.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// As the kernel: a path with more links than this is a circle.
const MOST_LINKS: usize = 40;

/// Watches one file. Readable when something has happened near it.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    inotify: OwnedFd,
    /// What is looked for in which directory, by the kernel's number for the watch.
    watched: HashMap<i32, (PathBuf, BTreeSet<OsString>)>,
}

impl Watch {
    /// Begins to watch `file`, which need not be there yet.
    ///
    /// # Errors
    /// When the system has no more watches to give.
    pub fn new(file: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let file = std::path::absolute(file)?;
        let mut watch = Self { file, inotify, watched: HashMap::new() };
        watch.follow()?;
        Ok(watch)
    }

    /// Whether the file may have changed since the last call.
    ///
    /// # Errors
    /// When the new path to it cannot be watched.
    pub fn changed(&mut self) -> io::Result<bool> {
        let mut changed = false;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    let lost = event.events().intersects(ReadFlags::QUEUE_OVERFLOW);
                    let watched = self.watched.get(&event.wd());
                    changed |= lost
                        || match (watched, name) {
                            (Some((_, names)), Some(name)) => names.contains(name),
                            // The directory itself went.
                            (Some(_), None) => true,
                            (None, _) => false,
                        };
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if changed {
            self.follow()?;
        }
        Ok(changed)
    }

    /// Walks the path as it is now and watches each step; lets go of what is no longer one.
    fn follow(&mut self) -> io::Result<()> {
        let mut watched: HashMap<i32, (PathBuf, BTreeSet<OsString>)> = HashMap::new();
        for (directory, name) in steps(&self.file) {
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.inotify, &directory, flags) {
                Ok(number) => {
                    watched
                        .entry(number)
                        .or_insert_with(|| (directory, BTreeSet::new()))
                        .1
                        .insert(name);
                }
                // The steps above it are watched, and one of them will bring it back.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let old: BTreeSet<i32> = self.watched.drain().map(|(number, _)| number).collect();
        for number in old.into_iter().filter(|number| !watched.contains_key(number)) {
            // A directory that is gone has taken its watch along.
            let _ = inotify::remove_watch(&self.inotify, number);
        }
        self.watched = watched;
        Ok(())
    }
}

/// Every directory on the way to `file` with the name that is looked up in it. As far as the way
/// leads now: what is missing ends it.
fn steps(file: &Path) -> Vec<(PathBuf, OsString)> {
    let mut here = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = parts(file).collect();
    let mut steps = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let path = here.join(&name);
        steps.push((here.clone(), name));
        match std::fs::read_link(&path) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    ahead.push_front(part);
                }
            }
            // A circle of links.
            Ok(_) => break,
            Err(_) => here = path,
        }
    }
    steps
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

impl Source for Watch {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.inotify.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.inotify.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.inotify.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::links::scratch::Scratch;

    fn watch(file: &Path) -> Watch {
        let mut watch = Watch::new(file).unwrap();
        assert!(!watch.changed().unwrap(), "nothing has happened yet");
        watch
    }

    #[test]
    fn writing_replacing_and_removing_are_changes() {
        let scratch = Scratch::new("watch-plain");
        let (file, new) = (scratch.path().join("a.toml"), scratch.path().join("a.toml.new"));
        fs::write(&file, "1").unwrap();
        let mut watch = watch(&file);
        fs::write(&file, "2").unwrap();
        assert!(watch.changed().unwrap(), "written");
        assert!(!watch.changed().unwrap(), "told once");
        fs::write(&new, "3").unwrap();
        assert!(!watch.changed().unwrap(), "another file in the same directory");
        fs::rename(&new, &file).unwrap();
        assert!(watch.changed().unwrap(), "replaced by rename");
        fs::write(&file, "4").unwrap();
        assert!(watch.changed().unwrap(), "the new one is watched");
        fs::remove_file(&file).unwrap();
        assert!(watch.changed().unwrap(), "removed");
        fs::write(&file, "5").unwrap();
        assert!(watch.changed().unwrap(), "back again");
    }

    /// As a ConfigMap is mounted: file -> ..data/file, ..data -> a directory, swapped by rename.
    #[test]
    fn a_link_on_the_way_that_is_swapped_is_a_change() {
        let scratch = Scratch::new("watch-links");
        let at = |name: &str| scratch.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a.toml"), version).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/a.toml", at("a.toml")).unwrap();
        let mut watch = watch(&at("a.toml"));
        fs::write(at("v2").join("a.toml"), "not yet").unwrap();
        assert!(!watch.changed().unwrap(), "no link leads there");
        symlink("v2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert!(watch.changed().unwrap(), "the directory was swapped");
        fs::write(at("v1").join("a.toml"), "old").unwrap();
        assert!(!watch.changed().unwrap(), "no link leads there any more");
        fs::write(at("v2").join("a.toml"), "new").unwrap();
        assert!(watch.changed().unwrap(), "the new directory is watched");
    }

    #[test]
    fn a_directory_that_comes_later_is_found() {
        let scratch = Scratch::new("watch-later");
        let directory = scratch.path().join("conf");
        let mut watch = watch(&directory.join("a.toml"));
        fs::create_dir(&directory).unwrap();
        assert!(watch.changed().unwrap());
        fs::write(directory.join("a.toml"), "1").unwrap();
        assert!(watch.changed().unwrap());
    }

    #[test]
    fn a_circle_of_links_ends() {
        let scratch = Scratch::new("watch-circle");
        let at = |name: &str| scratch.path().join(name);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        let mut watch = watch(&at("a"));
        fs::remove_file(at("b")).unwrap();
        fs::write(at("b"), "a file at last").unwrap();
        assert!(watch.changed().unwrap());
    }
}

//! The configuration file: tells when its contents have changed, however that was done.
//!
//! What a path means is decided by directories: each that holds a directory, a symbolic link or
//! the file on the way. Those are watched for these names, since editors replace the file and
//! Kubernetes swaps a link to its directory; up to the last that exists. The file itself is watched
//! too, for it may be written to through another name, as one that is mounted alone into a container
//! is. Which ones they are is found out anew after every change.
//!
//! A change is looked at a little while after it began, for it may consist of several; and it is
//! told only if the contents differ from those last told.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::limits::{CONFIG_LINKS, CONFIG_PAUSE_US, CONFIG_POLL_US, CONFIG_SETTLE_US, CONFIG_WRITING_US};
use crate::sys::changes::{Aspect, Changes, Kind, Watched};
use crate::sys::file;

/// What became of the file.
#[derive(Debug)]
pub(super) enum Change {
    /// It has other contents.
    Contents(Vec<u8>),
    /// It cannot be read any more, as it could before.
    Unreadable(io::Error),
}

/// Follows a file.
pub(super) struct Watch {
    path: PathBuf,
    most: usize,
    /// `None` where the system has none to give: then it is looked at now and then.
    changes: Option<Changes>,
    /// Directories, and the name in each that matters; and the file, without a name.
    names: BTreeSet<(Watched, OsString)>,
    /// The change that has begun.
    settling: Settling,
    /// What was last told: the contents, or that there are none.
    told: Option<Vec<u8>>,
    /// When to look without having been told to, in microseconds.
    look_us: u64,
    /// When it was first found missing, in microseconds, if it has been since it was last there.
    missing_us: Option<u64>,
}

impl Watch {
    /// Follows the file at `path`, whose contents are known, and of which `most` bytes and one more are
    /// read.
    pub(super) fn new(path: PathBuf, contents: Vec<u8>, most: usize, now_us: u64) -> Watch {
        // A pipe has been read to its end: that there is no more in it is not news.
        let spent = fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        let mut watch = Watch {
            path,
            most,
            changes: Changes::new().ok(),
            names: BTreeSet::new(),
            settling: Settling::default(),
            told: (!spent).then_some(contents),
            look_us: u64::MAX,
            missing_us: None,
        };
        watch.follow(now_us);
        // What happened between reading and watching is found by looking once more.
        watch.look_us = now_us;
        watch
    }

    /// What to poll for readability, where there is something.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(Changes::fd)
    }

    /// Whether the file is only looked at now and then, for want of anything that tells of changes.
    pub(super) fn is_polling(&self) -> bool {
        self.changes.is_none()
    }

    /// The descriptor may be readable.
    pub(super) fn ready(&mut self, now_us: u64) {
        let Watch { names, settling, changes: Some(changes), .. } = self else { return };
        let mut begun = false;
        changes.take(|watched, name, kind| {
            // Of a directory or file that was watched once there may be events left.
            let relevant = watched.is_none_or(|watched| match name {
                b"" => names.iter().any(|(known, _)| *known == watched),
                name => names.contains(&(watched, OsStr::from_bytes(name).to_os_string())),
            });
            if relevant {
                settling.happened(kind, now_us);
                begun |= kind == Kind::Begun;
            }
        });
        if begun {
            // It may be another file that is being written: how that goes on, the file alone tells.
            self.follow(now_us);
        }
    }

    /// When `expire` is to be called, in microseconds.
    pub(super) fn next_deadline_us(&self) -> u64 {
        self.settling.at_us().min(self.look_us)
    }

    /// Looks at the file, if it is time to; what is new.
    pub(super) fn expire(&mut self, now_us: u64) -> Option<Change> {
        if self.next_deadline_us() > now_us {
            return None;
        }
        self.settling = Settling::default();
        // First watched, then read: what changes in between is told again.
        self.follow(now_us);
        let contents = file::read(&self.path, self.most);
        if contents.is_ok() {
            self.missing_us = None;
        }
        match contents {
            Ok(contents) if self.told.as_ref() == Some(&contents) => None,
            Ok(contents) => {
                self.told = Some(contents.clone());
                Some(Change::Contents(contents))
            }
            // Who removes it may be about to make it again.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.told.is_some() && !self.is_gone(now_us) => {
                None
            }
            Err(error) => self.told.take().map(|_| Change::Unreadable(error)),
        }
    }

    /// Whether it has been missing for as long as other changes take; it is looked at again then.
    fn is_gone(&mut self, now_us: u64) -> bool {
        let gone_us = self.missing_us.get_or_insert(now_us).saturating_add(CONFIG_SETTLE_US);
        let is_gone = gone_us <= now_us;
        if !is_gone {
            self.look_us = self.look_us.min(gone_us);
        }
        is_gone
    }

    /// The contents now, which count as told.
    pub(super) fn read_now(&mut self, now_us: u64) -> io::Result<Vec<u8>> {
        self.follow(now_us);
        let contents = file::read(&self.path, self.most);
        self.told = contents.as_ref().ok().cloned();
        contents
    }

    /// Finds out what decides what the path means, and watches that.
    fn follow(&mut self, now_us: u64) {
        let Some(changes) = &mut self.changes else {
            self.look_us = now_us.saturating_add(CONFIG_POLL_US);
            return;
        };
        let mut names = BTreeSet::new();
        let mut missed = false;
        let deciding = deciding(&self.path);
        let last = deciding.len().saturating_sub(1);
        for (at, (directory, name)) in deciding.into_iter().enumerate() {
            match changes.watch(&directory, if at == last { Aspect::Files } else { Aspect::Names }) {
                Ok(watched) => _ = names.insert((watched, name)),
                Err(_) => missed = true,
            }
        }
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.is_file()) {
            match changes.watch(&self.path, Aspect::File) {
                Ok(watched) => _ = names.insert((watched, OsString::new())),
                Err(_) => missed = true,
            }
        }
        let still: BTreeSet<Watched> = names.iter().map(|(watched, _)| *watched).collect();
        for (gone, _) in self.names.iter().filter(|(watched, _)| !still.contains(watched)) {
            changes.unwatch(*gone);
        }
        self.names = names;
        // What could not be watched has just gone, is not ours to read, or is too much for the system.
        self.look_us = if missed { now_us.saturating_add(CONFIG_POLL_US) } else { u64::MAX };
    }
}

/// When a change that has begun is looked at: once nothing has happened for `CONFIG_PAUSE_US`, and no
/// later than `CONFIG_SETTLE_US` after it began, however closely others follow it; but what is still being written to is given until
/// `CONFIG_WRITING_US` to be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Settling {
    begun_us: Option<u64>,
    /// When the last part of it came.
    last_us: u64,
    /// It was written to, and not closed since.
    writing: bool,
}

impl Settling {
    fn happened(&mut self, kind: Kind, now_us: u64) {
        self.begun_us.get_or_insert(now_us);
        self.last_us = now_us;
        match kind {
            Kind::Written => self.writing = true,
            Kind::Done | Kind::Lost => self.writing = false,
            Kind::Begun => {}
        }
    }

    /// `u64::MAX` where nothing has begun.
    fn at_us(&self) -> u64 {
        let Some(begun_us) = self.begun_us else { return u64::MAX };
        if self.writing {
            return begun_us.saturating_add(CONFIG_WRITING_US);
        }
        self.last_us.saturating_add(CONFIG_PAUSE_US).min(begun_us.saturating_add(CONFIG_SETTLE_US))
    }
}

/// The directories that decide what a path means, each with the name in it that does.
fn deciding(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut found = Vec::new();
    let mut at = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    let mut rest: Vec<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.push("..");
            continue;
        }
        let whole = at.join(&name);
        match fs::symlink_metadata(&whole) {
            Ok(metadata) if metadata.is_symlink() && links < CONFIG_LINKS => {
                links += 1;
                found.push((at.clone(), name));
                let Ok(target) = fs::read_link(&whole) else { break };
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(names(&target));
            }
            Ok(metadata) if metadata.is_dir() => {
                // It may be renamed, of which nothing below it hears.
                found.push((at, name));
                at = whole;
            }
            // The file itself, or what is missing on the way to it.
            _ => {
                found.push((at.clone(), name));
                break;
            }
        }
    }
    found
}

/// The names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests;

//! Watches files: the configuration file, and those of certificates and keys. Reports when the contents of one have
//! changed, in any way.
//!
//! Directories decide the meaning of a path: each directory that contains a directory, a symbolic link or the
//! file on the way. They are watched for these names, because editors replace the file and Kubernetes swaps a
//! link to its directory. The chain ends at the last existing directory. The file itself is watched too,
//! because it may be written through another name, for example if it is mounted alone into a container. The set
//! is determined again after every change. Files share the watches of their directories.
//!
//! A change is read a little while after it began, because it may consist of several steps. It is reported only
//! if the contents differ from those last reported.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::collections::order;
use crate::limits::{CONFIG_LINKS, CONFIG_PAUSE_US, CONFIG_POLL_US, CONFIG_SETTLE_US, CONFIG_WRITING_US};
use crate::sys::changes::{Aspect, Changes, Kind, Watched};
use crate::sys::file;

/// The change of a file.
#[derive(Debug)]
pub(super) enum Change {
    /// It has other contents.
    Contents(Vec<u8>),
    /// It cannot be read any more, as it could before.
    Unreadable(io::Error),
}

/// Follows files.
pub(super) struct Watch {
    /// `None` if the system has no watches left. Then the files are polled.
    changes: Option<Changes>,
    files: Vec<Followed>,
}

/// A file that is followed.
struct Followed {
    path: PathBuf,
    most: usize,
    /// Directories, and the name in each that matters; and the file, without a name.
    names: BTreeSet<(Watched, OsString)>,
    /// The change that has begun.
    settling: Settling,
    /// The last reported state: the contents, or `None` for no file.
    told: Option<Vec<u8>>,
    /// The time of the next read without an event, in microseconds.
    look_us: u64,
    /// When it was first found missing, in microseconds, if it has been since it was last there.
    missing_us: Option<u64>,
}

impl Watch {
    /// Follows no file yet.
    pub(super) fn new() -> Watch {
        Watch { changes: Changes::new().ok(), files: Vec::new() }
    }

    /// Follows the file at `path` too, whose contents are known (`None`: it cannot be read), and of which `most` bytes and
    /// one more are read.
    pub(super) fn add(&mut self, path: PathBuf, contents: Option<Vec<u8>>, most: usize, now_us: u64) {
        if self.files.iter().any(|file| file.path == path) {
            return;
        }
        // A pipe has been read to its end: that there is no more in it is not news.
        let spent = fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        self.files.push(Followed {
            path,
            most,
            names: BTreeSet::new(),
            settling: Settling::default(),
            told: contents.filter(|_| !spent),
            look_us: u64::MAX,
            missing_us: None,
        });
        let at = self.files.len() - 1;
        self.follow(at, now_us);
        // Changes between reading and watching are found by reading once more.
        self.files[at].look_us = now_us;
    }

    /// Follows only these of the files from now on.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Path) -> bool) {
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.files).into_iter().partition(|file| is_wanted(&file.path));
        self.files = kept;
        self.unwatch(order::set(gone.into_iter().flat_map(|file| file.names).map(|(watched, _)| watched)));
    }

    /// The descriptor to poll for readability, if there is one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(Changes::fd)
    }

    /// True if the files are polled because the system does not report changes.
    pub(super) fn is_polling(&self) -> bool {
        self.changes.is_none()
    }

    /// The descriptor may be readable.
    pub(super) fn ready(&mut self, now_us: u64) {
        let Watch { files, changes: Some(changes) } = self else { return };
        let mut begun = BTreeSet::new();
        changes.take(|watched, name, kind| {
            for (at, file) in files.iter_mut().enumerate() {
                // Of a directory or file that was watched once there may be events left.
                if watched.is_none_or(|watched| file.is_decided_by(watched, name)) {
                    file.settling.happened(kind, now_us);
                    begun.extend((kind == Kind::Begun).then_some(at));
                }
            }
        });
        for at in begun {
            // The name may lead to a new file that is still being written. Only the file itself reports further
            // writes.
            self.follow(at, now_us);
        }
    }

    /// The time of the next `expire`, in microseconds.
    pub(super) fn next_deadline_us(&self) -> u64 {
        self.files.iter().map(Followed::next_deadline_us).min().unwrap_or(u64::MAX)
    }

    /// Reads a file whose time has come. Returns its path and its change. To be called until it returns nothing.
    pub(super) fn expire(&mut self, now_us: u64) -> Option<(PathBuf, Change)> {
        while let Some(at) = self.files.iter().position(|file| file.next_deadline_us() <= now_us) {
            self.files[at].settling = Settling::default();
            // Watched first and read afterwards, so that changes in between are reported again.
            self.follow(at, now_us);
            let file = &mut self.files[at];
            if let Some(change) = file.look(now_us) {
                return Some((file.path.clone(), change));
            }
        }
        None
    }

    /// The current contents of a file, which then count as reported. `None` if it is not followed.
    pub(super) fn read_now(&mut self, path: &Path, now_us: u64) -> Option<io::Result<Vec<u8>>> {
        let at = self.files.iter().position(|file| file.path == path)?;
        self.follow(at, now_us);
        let file = &mut self.files[at];
        let contents = file::read(&file.path, file.most);
        file.told = contents.as_ref().ok().cloned();
        Some(contents)
    }

    /// Determines the directories and links of a file's path, and watches them.
    fn follow(&mut self, at: usize, now_us: u64) {
        let Some(changes) = &mut self.changes else {
            self.files[at].look_us = now_us.saturating_add(CONFIG_POLL_US);
            return;
        };
        let left = self.files[at].follow(changes, now_us);
        self.unwatch(left);
    }

    /// Stops watching these, except those that a file still needs.
    fn unwatch(&mut self, left: BTreeSet<Watched>) {
        let Some(changes) = &mut self.changes else { return };
        let is_needed = |watched: &Watched| self.files.iter().any(|file| file.watches().any(|one| one == *watched));
        left.into_iter().filter(|watched| !is_needed(watched)).for_each(|watched| changes.unwatch(watched));
    }
}

impl Followed {
    /// True if an event may concern the file: for a name in a watched directory, or for the watched item itself.
    fn is_decided_by(&self, watched: Watched, name: &[u8]) -> bool {
        match name {
            b"" => self.watches().any(|known| known == watched),
            name => self.names.contains(&(watched, OsStr::from_bytes(name).to_os_string())),
        }
    }

    fn watches(&self) -> impl Iterator<Item = Watched> {
        self.names.iter().map(|(watched, _)| *watched)
    }

    fn next_deadline_us(&self) -> u64 {
        self.settling.at_us().min(self.look_us)
    }

    /// Reads the file. Returns the change.
    fn look(&mut self, now_us: u64) -> Option<Change> {
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
            // A program that removes the file may be about to create it again.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.told.is_some() && !self.is_gone(now_us) => {
                None
            }
            Err(error) => self.told.take().map(|_| Change::Unreadable(error)),
        }
    }

    /// True if the file has been missing as long as other changes take. It is checked again then.
    fn is_gone(&mut self, now_us: u64) -> bool {
        let gone_us = self.missing_us.get_or_insert(now_us).saturating_add(CONFIG_SETTLE_US);
        let is_gone = gone_us <= now_us;
        if !is_gone {
            self.look_us = self.look_us.min(gone_us);
        }
        is_gone
    }

    /// Determines the directories and links of the path, and watches them. Returns those that it needs no longer.
    fn follow(&mut self, changes: &mut Changes, now_us: u64) -> BTreeSet<Watched> {
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
        let before = order::set(self.watches());
        self.names = names;
        // A path that could not be watched has just gone, is not readable, or exceeds a limit of the system.
        self.look_us = if missed { now_us.saturating_add(CONFIG_POLL_US) } else { u64::MAX };
        let still = order::set(self.watches());
        order::set(before.difference(&still).copied())
    }
}

/// The time at which a change is read: once nothing has happened for `CONFIG_PAUSE_US`, and at most
/// `CONFIG_SETTLE_US` after it began, even if more changes follow. A file that is still being written has until
/// `CONFIG_WRITING_US` to be closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Settling {
    begun_us: Option<u64>,
    /// The time of its last step.
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

    /// `u64::MAX` if no change has begun.
    fn at_us(&self) -> u64 {
        let Some(begun_us) = self.begun_us else { return u64::MAX };
        if self.writing {
            return begun_us.saturating_add(CONFIG_WRITING_US);
        }
        self.last_us.saturating_add(CONFIG_PAUSE_US).min(begun_us.saturating_add(CONFIG_SETTLE_US))
    }
}

/// The directories that decide the meaning of a path, each with the deciding name in it.
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
            // The file itself, or the missing part of the path.
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

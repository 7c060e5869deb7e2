//! The configuration file: tells when its contents have changed, however that was done.
//!
//! What a path means is decided by directories: the one that the file stands in, and each that
//! holds a symbolic link on the way. Those are watched, not the file, which editors replace and
//! Kubernetes swaps by a link to another directory. Where one of them does not exist, its nearest
//! ancestor that does is watched. Which ones they are is found out anew after every change.
//!
//! A change is looked at a little while after it began, for it may consist of several; and it is
//! told only if the contents differ from those last told.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::limits::{CONFIG_LINKS, CONFIG_POLL_US, CONFIG_SETTLE_US, JSON_BYTES};
use crate::sys::inotify::{Inotify, Watched};

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
    /// `None` where the system has none to give: then it is looked at now and then.
    inotify: Option<Inotify>,
    /// Directories, and the name in each that matters.
    names: BTreeSet<(Watched, OsString)>,
    /// When a change that has begun is looked at, in microseconds; `u64::MAX` for none.
    settled_us: u64,
    /// What was last told: the contents, or that there are none.
    told: Option<Vec<u8>>,
    /// When to look without having been told to, in microseconds.
    look_us: u64,
}

impl Watch {
    /// Follows the file at `path`, whose contents are known.
    pub(super) fn new(path: PathBuf, contents: Vec<u8>, now_us: u64) -> Watch {
        let mut watch = Watch {
            path,
            inotify: Inotify::new().ok(),
            names: BTreeSet::new(),
            // What happened between reading and watching is found by looking once more.
            settled_us: now_us,
            told: Some(contents),
            look_us: u64::MAX,
        };
        watch.follow(now_us);
        watch
    }

    /// What to poll for readability, where there is something.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(Inotify::fd)
    }

    /// Whether the file is only looked at now and then, for want of inotify.
    pub(super) fn is_polling(&self) -> bool {
        self.inotify.is_none()
    }

    /// The descriptor may be readable.
    pub(super) fn ready(&mut self, now_us: u64) {
        let (names, mut relevant) = (&self.names, false);
        if let Some(inotify) = &mut self.inotify {
            inotify.take(|watched, name| {
                relevant |= match watched {
                    Some(watched) if !name.is_empty() => {
                        names.contains(&(watched, OsStr::from_bytes(name).to_os_string()))
                    }
                    _ => true,
                };
            });
        }
        if relevant {
            self.settled_us = self.settled_us.min(now_us.saturating_add(CONFIG_SETTLE_US));
        }
    }

    /// When `expire` is to be called, in microseconds.
    pub(super) fn next_deadline_us(&self) -> u64 {
        self.settled_us.min(self.look_us)
    }

    /// Looks at the file, if it is time to; what is new.
    pub(super) fn expire(&mut self, now_us: u64) -> Option<Change> {
        if self.next_deadline_us() > now_us {
            return None;
        }
        self.settled_us = u64::MAX;
        // First watched, then read: what changes in between is told again.
        self.follow(now_us);
        match read(&self.path) {
            Ok(contents) if self.told.as_ref() == Some(&contents) => None,
            Ok(contents) => {
                self.told = Some(contents.clone());
                Some(Change::Contents(contents))
            }
            Err(error) => self.told.take().map(|_| Change::Unreadable(error)),
        }
    }

    /// The contents now, which count as told.
    pub(super) fn read_now(&mut self, now_us: u64) -> io::Result<Vec<u8>> {
        self.follow(now_us);
        let contents = read(&self.path);
        self.told = contents.as_ref().ok().cloned();
        contents
    }

    /// Finds out what decides what the path means, and watches that.
    fn follow(&mut self, now_us: u64) {
        let Some(inotify) = &self.inotify else {
            self.look_us = now_us.saturating_add(CONFIG_POLL_US);
            return;
        };
        let mut names = BTreeSet::new();
        let mut missed = false;
        for (directory, name) in deciding(&self.path) {
            match inotify.watch(&directory) {
                Ok(watched) => _ = names.insert((watched, name)),
                Err(_) => missed = true,
            }
        }
        let still: BTreeSet<Watched> = names.iter().map(|(watched, _)| *watched).collect();
        for (gone, _) in self.names.iter().filter(|(watched, _)| !still.contains(watched)) {
            inotify.unwatch(*gone);
        }
        self.names = names;
        // A directory that could not be watched, having just gone or not being ours to read.
        self.look_us = if missed { now_us.saturating_add(CONFIG_POLL_US) } else { u64::MAX };
    }
}

/// The file's contents, as far as a configuration may go and one byte more.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?.take(JSON_BYTES as u64 + 1).read_to_end(&mut contents)?;
    Ok(contents)
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
            Ok(metadata) if metadata.is_dir() => at = whole,
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
mod tests {
    use super::*;
    use crate::sys::clock::monotonic_us;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    /// A directory of its own, gone with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let place = std::env::temp_dir().join(format!("zzz-lb-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&place);
            fs::create_dir_all(&place).unwrap();
            Place(place)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn watch(path: &Path) -> Watch {
        Watch::new(path.to_path_buf(), read(path).unwrap_or_default(), monotonic_us())
    }

    /// The next change within a time that is long enough; `None` where there is none in one that
    /// is longer than a change takes.
    fn next(watch: &mut Watch, patience: Duration) -> Option<Change> {
        let start = Instant::now();
        while start.elapsed() < patience {
            watch.ready(monotonic_us());
            if let Some(change) = watch.expire(monotonic_us()) {
                return Some(change);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    fn expect(watch: &mut Watch, wanted: &str) {
        match next(watch, Duration::from_secs(10)) {
            Some(Change::Contents(contents)) => assert_eq!(String::from_utf8_lossy(&contents), wanted),
            other => panic!("{other:?} in place of {wanted}"),
        }
    }

    fn expect_gone(watch: &mut Watch) {
        let change = next(watch, Duration::from_secs(10));
        assert!(matches!(change, Some(Change::Unreadable(_))), "{change:?}");
    }

    #[test]
    fn follows_a_file_however_it_is_changed() {
        let place = Place::new("file");
        let file = place.file("lb.json");
        fs::write(&file, "0").unwrap();
        let mut watch = watch(&file);
        for round in 0..3 {
            fs::write(&file, format!("in place {round}")).unwrap();
            expect(&mut watch, &format!("in place {round}"));
            fs::write(place.file("new"), format!("renamed {round}")).unwrap();
            fs::rename(place.file("new"), &file).unwrap();
            expect(&mut watch, &format!("renamed {round}"));
            // As vim does it.
            fs::rename(&file, place.file("lb.json~")).unwrap();
            fs::write(&file, format!("edited {round}")).unwrap();
            fs::remove_file(place.file("lb.json~")).unwrap();
            expect(&mut watch, &format!("edited {round}"));
            fs::remove_file(&file).unwrap();
            expect_gone(&mut watch);
            fs::write(&file, format!("back {round}")).unwrap();
            expect(&mut watch, &format!("back {round}"));
        }
        fs::write(&file, "back 2").unwrap();
        fs::write(place.file("unrelated"), "x").unwrap();
        assert!(next(&mut watch, Duration::from_millis(400)).is_none());
    }

    #[test]
    fn follows_the_links_of_a_mounted_config_map() {
        let place = Place::new("map");
        let version = |n: usize| {
            fs::create_dir(place.file(&format!("..{n}"))).unwrap();
            fs::write(place.file(&format!("..{n}/lb.json")), format!("version {n}")).unwrap();
            symlink(format!("..{n}"), place.file("..data_tmp")).unwrap();
            fs::rename(place.file("..data_tmp"), place.file("..data")).unwrap();
        };
        version(0);
        symlink("..data/lb.json", place.file("lb.json")).unwrap();
        let mut watch = watch(&place.file("lb.json"));
        for n in 1..8 {
            version(n);
            fs::remove_dir_all(place.file(&format!("..{}", n - 1))).unwrap();
            expect(&mut watch, &format!("version {n}"));
        }
    }

    #[test]
    fn follows_a_directory_that_goes_and_comes_back() {
        let place = Place::new("dir");
        let file = place.file("etc/lb/lb.json");
        let make = |text: &str| {
            fs::create_dir_all(place.file("etc/lb")).unwrap();
            fs::write(&file, text).unwrap();
        };
        make("0");
        let mut watch = watch(&file);
        for n in 1..4 {
            fs::remove_dir_all(place.file("etc")).unwrap();
            expect_gone(&mut watch);
            make(&n.to_string());
            expect(&mut watch, &n.to_string());
        }
    }
}

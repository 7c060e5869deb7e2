//! The watched directories and files, held open.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{Aspect, Kind, asked, kind};
use crate::limits::VNODE_EVENTS;
use crate::sys::kqueue::{EV_ADD, EV_CLEAR, EV_DELETE, Filter, Note, Queue};

/// Opens a file only for events, so that its file system can still be unmounted.
#[cfg(any(target_os = "macos", target_os = "ios"))]
const EVENTS_ONLY: i32 = libc::O_EVTONLY;
#[cfg(not(any(target_os = "macos", target_os = "ios")))]
const EVENTS_ONLY: i32 = 0;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
const _: () = assert!(
    libc::NOTE_DELETE == super::NOTE_DELETE
        && libc::NOTE_WRITE == super::NOTE_WRITE
        && libc::NOTE_EXTEND == super::NOTE_EXTEND
        && libc::NOTE_ATTRIB == super::NOTE_ATTRIB
        && libc::NOTE_RENAME == super::NOTE_RENAME
);

/// A watched directory or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watched(u64);

/// An open directory or file.
#[derive(Debug)]
struct Held {
    file: File,
    /// The device and the inode number.
    identity: (u64, u64),
    directory: bool,
    asked: u32,
}

/// All watched directories and files.
pub struct Vnodes {
    queue: Queue,
    held: BTreeMap<Watched, Held>,
    /// The number of watches created so far.
    count: u64,
}

impl Vnodes {
    /// Creates an empty set. EMFILE if the process has no descriptor left.
    pub fn new() -> io::Result<Vnodes> {
        Ok(Vnodes { queue: Queue::new(VNODE_EVENTS)?, held: BTreeMap::new(), count: 0 })
    }

    /// The descriptor to poll for readability.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.queue.fd()
    }

    /// Watches a directory or a file. Several paths to the same file share one watch. Errors: ENOENT, ENOTDIR,
    /// EACCES if it cannot be read, and EMFILE.
    pub fn watch(&mut self, path: &Path, aspect: Aspect) -> io::Result<Watched> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | EVENTS_ONLY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if aspect != Aspect::File && !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let identity = (metadata.dev(), metadata.ino());
        if let Some((&watched, held)) = self.held.iter_mut().find(|(_, held)| held.identity == identity) {
            let asked = held.asked | asked(aspect);
            if asked != held.asked {
                self.queue.change([note(&held.file, watched, EV_ADD | EV_CLEAR, asked)])?;
                held.asked = asked;
            }
            return Ok(watched);
        }
        let (watched, asked) = (Watched(self.count), asked(aspect));
        self.queue.change([note(&file, watched, EV_ADD | EV_CLEAR, asked)])?;
        self.count += 1;
        self.held.insert(watched, Held { file, identity, directory: metadata.is_dir(), asked });
        Ok(watched)
    }

    /// Stops watching.
    pub fn unwatch(&mut self, watched: Watched) {
        if let Some(held) = self.held.remove(&watched) {
            // The close below removes the kevent too, except with a library that cannot see the close.
            let _ = self.queue.change([note(&held.file, watched, EV_DELETE, 0)]);
        }
    }

    /// Takes the events that have occurred: the watched item, an empty name (kqueue reports only about the item
    /// itself), and the kind. If there are many events, some are left and the descriptor stays readable.
    pub fn take(&mut self, mut happened: impl FnMut(Option<Watched>, &[u8], Kind)) {
        // It fails if the descriptor is not a queue's, and then there are no events.
        let _ = self.queue.take(0, |note| {
            let watched = Watched(note.token);
            if let Some(held) = self.held.get(&watched) {
                happened(Some(watched), b"", kind(note.fflags, held.directory));
            }
        });
    }
}

fn note(file: &File, watched: Watched, flags: u32, fflags: u32) -> Note {
    Note { fd: file.as_raw_fd(), filter: Filter::Vnode, flags, fflags, token: watched.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("zzz-lb-vnode-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        place
    }

    /// The events so far.
    fn taken(vnodes: &mut Vnodes) -> Vec<(Watched, Kind)> {
        let mut taken = Vec::new();
        vnodes.take(|watched, name, kind| {
            assert!(name.is_empty());
            taken.push((watched.unwrap(), kind));
        });
        taken
    }

    #[test]
    fn a_directory_reports_changed_names() {
        let place = place("names");
        let mut vnodes = Vnodes::new().unwrap();
        let names = vnodes.watch(&place, Aspect::Names).unwrap();
        assert_eq!(vnodes.watch(&place.join("."), Aspect::Files).unwrap(), names);
        assert!(taken(&mut vnodes).is_empty());
        fs::write(place.join("a"), "1").unwrap();
        assert_eq!(taken(&mut vnodes), [(names, Kind::Begun)]);
        assert!(taken(&mut vnodes).is_empty());
        fs::rename(place.join("a"), place.join("b")).unwrap();
        assert_eq!(taken(&mut vnodes), [(names, Kind::Begun)]);
        let elsewhere = place.with_extension("elsewhere");
        fs::rename(&place, &elsewhere).unwrap();
        assert_eq!(taken(&mut vnodes), [(names, Kind::Done)]);
        vnodes.unwatch(names);
        fs::remove_file(elsewhere.join("b")).unwrap();
        assert!(taken(&mut vnodes).is_empty());
        fs::remove_dir_all(&elsewhere).unwrap();
    }

    #[test]
    fn a_file_is_watched_through_all_its_names_until_the_last_is_gone() {
        let place = place("links");
        let (a, b) = (place.join("a"), place.join("b"));
        fs::write(&a, "1").unwrap();
        fs::hard_link(&a, &b).unwrap();
        let mut vnodes = Vnodes::new().unwrap();
        let file = vnodes.watch(&a, Aspect::File).unwrap();
        assert_eq!(vnodes.watch(&b, Aspect::File).unwrap(), file);
        fs::write(&b, "2").unwrap();
        assert_eq!(taken(&mut vnodes), [(file, Kind::Written)]);
        fs::remove_file(&a).unwrap();
        fs::remove_file(&b).unwrap();
        assert_eq!(taken(&mut vnodes), [(file, Kind::Done)]);
        // No other file gets the inode number while the file is open.
        fs::write(&a, "3").unwrap();
        assert_ne!(vnodes.watch(&a, Aspect::File).unwrap(), file);
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn unsuitable_paths_are_not_watched() {
        let place = place("not");
        fs::write(place.join("a"), "1").unwrap();
        let mut vnodes = Vnodes::new().unwrap();
        let error = |result: io::Result<Watched>| result.unwrap_err().kind();
        assert_eq!(error(vnodes.watch(&place.join("a"), Aspect::Names)), io::ErrorKind::NotADirectory);
        assert_eq!(error(vnodes.watch(&place.join("b"), Aspect::File)), io::ErrorKind::NotFound);
        fs::remove_dir_all(&place).unwrap();
    }
}

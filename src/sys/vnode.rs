//! Changes in directories and of files, by kqueue(2). It reports changes of open files, so each watched
//! directory and file is held open. Device and inode number identify it, and no other file can get them while
//! it is open.
//!
//! A directory reports that its names have changed, but not which, so a busy directory causes many irrelevant
//! events. It does not report writes to its files. For these, the file itself must be watched. The close of a
//! file is not reported, so a file that was written to may change further until its time has passed.

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
mod watched;

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
pub use self::watched::{Vnodes, Watched};
use super::changes::{Aspect, Kind};

// The flags of a vnode's kevent. They are the same on every system with kqueue.

/// The last name was removed.
const NOTE_DELETE: u32 = 0x0001;
/// A file was written to, or the names in a directory changed.
const NOTE_WRITE: u32 = 0x0002;
/// The file has grown.
const NOTE_EXTEND: u32 = 0x0004;
/// The attributes changed. A file may have been truncated.
const NOTE_ATTRIB: u32 = 0x0008;
/// The file was renamed.
const NOTE_RENAME: u32 = 0x0020;

/// The flags to request for an aspect. NOTE_REVOKE, which some systems have, is not needed: a revoked file
/// cannot be followed.
pub fn asked(aspect: Aspect) -> u32 {
    let itself = NOTE_DELETE | NOTE_RENAME;
    match aspect {
        Aspect::Names => itself | NOTE_WRITE,
        Aspect::Files => itself | NOTE_WRITE | NOTE_ATTRIB,
        Aspect::File => itself | NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB,
    }
}

/// Translates the flags of an event for a directory or a file. One event may report several changes.
pub fn kind(fflags: u32, directory: bool) -> Kind {
    if fflags & (NOTE_DELETE | NOTE_RENAME) != 0 {
        Kind::Done
    } else if fflags & (NOTE_WRITE | NOTE_EXTEND) != 0 && !directory {
        Kind::Written
    } else {
        Kind::Begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_done_with_when_it_goes_and_not_when_it_is_written_to() {
        assert_eq!(kind(NOTE_WRITE | NOTE_EXTEND, false), Kind::Written);
        assert_eq!(kind(NOTE_WRITE | NOTE_DELETE, false), Kind::Done);
        assert_eq!(kind(NOTE_RENAME, false), Kind::Done);
        assert_eq!(kind(NOTE_ATTRIB, false), Kind::Begun);
    }

    #[test]
    fn a_write_to_a_directory_means_changed_names() {
        assert_eq!(kind(NOTE_WRITE, true), Kind::Begun);
        assert_eq!(kind(NOTE_WRITE | NOTE_RENAME, true), Kind::Done);
    }

    #[test]
    fn every_aspect_watches_for_removal_and_renaming() {
        for aspect in [Aspect::Names, Aspect::Files, Aspect::File] {
            assert_eq!(asked(aspect) & (NOTE_DELETE | NOTE_RENAME | NOTE_WRITE), 0x23, "{aspect:?}");
        }
        assert_eq!(asked(Aspect::Files) & asked(Aspect::Names), asked(Aspect::Names));
    }
}

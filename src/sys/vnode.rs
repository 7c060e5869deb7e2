//! Changes in directories and of files, by kqueue(2), which tells of what is open: each directory
//! and file that is watched is held open, and is told apart by its number on its device, which no
//! other has while it is held.
//!
//! A directory tells that its names have changed, and not which, so that a busy one tells of much that
//! does not matter; nor does it tell of what is written into a file in place, for which the file itself
//! has to be watched. Nothing tells that a file was closed: one that is written to may be written to
//! further, until it has been given its time.

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
mod watched;

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
pub use self::watched::{Vnodes, Watched};
use super::changes::{Aspect, Kind};

// What a vnode's note asks for and tells, the same on every system that has it.

/// The last name is gone.
const NOTE_DELETE: u32 = 0x0001;
/// A file was written to, or the names in a directory have changed.
const NOTE_WRITE: u32 = 0x0002;
/// It has grown.
const NOTE_EXTEND: u32 = 0x0004;
/// Its attributes have changed; a file may have been cut.
const NOTE_ATTRIB: u32 = 0x0008;
/// It has another name.
const NOTE_RENAME: u32 = 0x0020;

/// What to ask for. That access is revoked, which some of the systems tell, leaves nothing to follow.
pub fn asked(aspect: Aspect) -> u32 {
    let itself = NOTE_DELETE | NOTE_RENAME;
    match aspect {
        Aspect::Names => itself | NOTE_WRITE,
        Aspect::Files => itself | NOTE_WRITE | NOTE_ATTRIB,
        Aspect::File => itself | NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB,
    }
}

/// What is told, of a directory or of a file. Several changes may be told at once.
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
    fn a_directory_that_is_written_to_has_other_names() {
        assert_eq!(kind(NOTE_WRITE, true), Kind::Begun);
        assert_eq!(kind(NOTE_WRITE | NOTE_RENAME, true), Kind::Done);
    }

    #[test]
    fn every_aspect_asks_whether_it_stays_where_it_is() {
        for aspect in [Aspect::Names, Aspect::Files, Aspect::File] {
            assert_eq!(asked(aspect) & (NOTE_DELETE | NOTE_RENAME | NOTE_WRITE), 0x23, "{aspect:?}");
        }
        assert_eq!(asked(Aspect::Files) & asked(Aspect::Names), asked(Aspect::Names));
    }
}

//! Readiness by kqueue(2): on macOS and the BSDs; and on Linux with the feature `kqueue`, over a
//! library that has its two calls.
//!
//! A queue is told of a descriptor by one note for reading and one for writing, and answers with
//! such notes. Their translation is pure and stands here, so that it is tested everywhere; the calls
//! are in `system`.
//!
//! It differs from epoll in what a caller can see: reading and writing are reported in events of
//! their own, in no order that could be relied on, and a child that was forked has no queue of its
//! parent's. A note leaves when its descriptor is closed, of which nothing is said to the queue: a
//! library that keeps it, as the one known as libkqueue does on Linux, will not do.

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
mod system;

use std::os::fd::RawFd;

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
pub use self::system::{Poller, Queue};
use crate::sys::Event;

// The flags of a note, the same on every system that has it.

/// Asks for a note, or changes what it asks for.
pub const EV_ADD: u32 = 0x0001;
/// Takes a note back.
pub const EV_DELETE: u32 = 0x0002;
/// Each change is told once, not for as long as it holds.
pub const EV_CLEAR: u32 = 0x0020;
/// The direction has ended; where the connection failed, `fflags` has the error.
pub const EV_EOF: u32 = 0x8000;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A descriptor can be read.
    Read,
    /// A descriptor can be written to.
    Write,
    /// What is open under a descriptor has changed on its file system.
    Vnode,
}

/// A note: to the queue what is asked for, from it what has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The descriptor. With the filter, it is what tells two notes apart.
    pub fd: RawFd,
    /// What it is about.
    pub filter: Filter,
    /// `EV_` flags.
    pub flags: u32,
    /// What the filter has besides: `NOTE_` flags of a vnode; an error of a connection.
    pub fflags: u32,
    /// Comes back as it was given.
    pub token: u64,
}

/// Asks for each change of a descriptor's readiness, in both directions.
pub fn edge(fd: RawFd, token: u64) -> [Note; 2] {
    [Filter::Read, Filter::Write].map(|filter| Note { fd, filter, flags: EV_ADD | EV_CLEAR, fflags: 0, token })
}

/// Asks to be told of a descriptor for as long as it can be read.
pub fn level(fd: RawFd, token: u64) -> [Note; 1] {
    [Note { fd, filter: Filter::Read, flags: EV_ADD, fflags: 0, token }]
}

/// Takes back what `level` asked for.
pub fn forget(fd: RawFd) -> [Note; 1] {
    [Note { fd, filter: Filter::Read, flags: EV_DELETE, fflags: 0, token: 0 }]
}

/// What a note tells of a descriptor's readiness.
pub fn event(note: &Note) -> Event {
    let broken = note.fflags != 0;
    match note.filter {
        Filter::Read => Event {
            token: note.token,
            readable: true,
            writable: broken,
            ended: note.flags & EV_EOF != 0 || broken,
            broken,
        },
        // The direction that has ended is ours, as it is after a shutdown of our own: that says
        // nothing of the peer's.
        Filter::Write => Event { token: note.token, readable: broken, writable: true, ended: broken, broken },
        Filter::Vnode => Event { token: note.token, readable: true, writable: false, ended: false, broken: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(filter: Filter, flags: u32, fflags: u32) -> Event {
        event(&Note { fd: 3, filter, flags: flags | EV_CLEAR, fflags, token: 7 })
    }

    #[test]
    fn a_socket_is_asked_for_in_both_directions_and_by_changes() {
        let notes = edge(5, 1 << 40 | 9);
        assert_eq!(notes.map(|note| note.filter), [Filter::Read, Filter::Write]);
        for note in notes {
            assert_eq!((note.fd, note.flags, note.fflags, note.token), (5, EV_ADD | EV_CLEAR, 0, 1 << 40 | 9));
        }
    }

    #[test]
    fn what_is_asked_for_while_it_lasts_is_taken_back() {
        let [asked] = level(5, 2);
        assert_eq!((asked.filter, asked.flags), (Filter::Read, EV_ADD));
        let [taken] = forget(5);
        assert_eq!((taken.fd, taken.filter, taken.flags), (asked.fd, asked.filter, EV_DELETE));
    }

    #[test]
    fn each_direction_is_told_of_by_itself() {
        let quiet = Event { token: 7, readable: false, writable: false, ended: false, broken: false };
        assert_eq!(told(Filter::Read, 0, 0), Event { readable: true, ..quiet });
        assert_eq!(told(Filter::Write, 0, 0), Event { writable: true, ..quiet });
    }

    #[test]
    fn the_end_of_the_peers_direction_is_not_the_end_of_ours() {
        let ended = told(Filter::Read, EV_EOF, 0);
        assert!(ended.readable && ended.ended && !ended.broken && !ended.writable);
        let finished = told(Filter::Write, EV_EOF, 0);
        assert!(finished.writable && !finished.ended && !finished.broken && !finished.readable);
    }

    #[test]
    fn a_connection_that_failed_has_failed_in_both_directions() {
        for filter in [Filter::Read, Filter::Write] {
            let failed = told(filter, EV_EOF, libc::ECONNREFUSED as u32);
            assert!(failed.readable && failed.writable && failed.ended && failed.broken, "{filter:?}");
        }
    }
}

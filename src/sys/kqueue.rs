//! Readiness by kqueue(2): on macOS and the BSDs, and on Linux with the feature `kqueue`, through a library
//! that has its two calls.
//!
//! One kevent for reading and one for writing register a descriptor, and the queue reports such kevents. Their
//! translation is pure and in this file, so that it is tested on every system. The system calls are in
//! `system`.
//!
//! Visible differences from epoll: reading and writing are reported in separate events, in no defined order,
//! and a forked child does not inherit the queue. A kevent is removed when its descriptor is closed, without a
//! call. A library that keeps it, as libkqueue does on Linux, cannot be used.

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
mod system;

use std::os::fd::RawFd;

#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
pub use self::system::{Poller, Queue};
use crate::sys::{Event, Hangup};

// The flags of a kevent. They are the same on every system with kqueue.

/// Adds or changes a kevent.
pub const EV_ADD: u32 = 0x0001;
/// Removes a kevent.
pub const EV_DELETE: u32 = 0x0002;
/// Reports each change once (edge-triggered), not as long as the condition holds.
pub const EV_CLEAR: u32 = 0x0020;
/// The direction has ended. If the connection failed, `fflags` contains the error.
pub const EV_EOF: u32 = 0x8000;

/// The condition that a kevent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A descriptor is readable.
    Read,
    /// A descriptor is writable.
    Write,
    /// The file behind a descriptor has changed.
    Vnode,
}

/// A kevent in portable form: a request to the queue, or an event from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The descriptor. Together with the filter it identifies the kevent.
    pub fd: RawFd,
    /// The condition.
    pub filter: Filter,
    /// `EV_` flags.
    pub flags: u32,
    /// Flags of the filter: `NOTE_` flags of a vnode, or the error of a connection.
    pub fflags: u32,
    /// A value that events return unchanged.
    pub token: u64,
}

/// Requests each change of a descriptor's readiness in both directions.
pub fn edge(fd: RawFd, token: u64) -> [Note; 2] {
    [Filter::Read, Filter::Write].map(|filter| Note { fd, filter, flags: EV_ADD | EV_CLEAR, fflags: 0, token })
}

/// Requests reports while a descriptor is readable.
pub fn level(fd: RawFd, token: u64) -> [Note; 1] {
    [Note { fd, filter: Filter::Read, flags: EV_ADD, fflags: 0, token }]
}

/// Removes the request of `level`.
pub fn forget(fd: RawFd) -> [Note; 1] {
    [Note { fd, filter: Filter::Read, flags: EV_DELETE, fflags: 0, token: 0 }]
}

/// Translates an event of a queue.
pub fn event(note: &Note) -> Event {
    let failed = note.fflags != 0;
    let event = |readable, writable, hangup| Event { token: note.token, readable, writable, hangup };
    match note.filter {
        Filter::Vnode => event(true, false, Hangup::None),
        _ if failed => event(true, true, Hangup::Failed),
        Filter::Read if note.flags & EV_EOF != 0 => event(true, false, Hangup::Ended),
        Filter::Read => event(true, false, Hangup::None),
        // EV_EOF on this filter means that our own direction has ended, for example by shutdown. It says
        // nothing about the peer's direction.
        Filter::Write => event(false, true, Hangup::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(filter: Filter, flags: u32, fflags: u32) -> Event {
        event(&Note { fd: 3, filter, flags: flags | EV_CLEAR, fflags, token: 7 })
    }

    #[test]
    fn a_socket_is_registered_edge_triggered_in_both_directions() {
        let notes = edge(5, 1 << 40 | 9);
        assert_eq!(notes.map(|note| note.filter), [Filter::Read, Filter::Write]);
        for note in notes {
            assert_eq!((note.fd, note.flags, note.fflags, note.token), (5, EV_ADD | EV_CLEAR, 0, 1 << 40 | 9));
        }
    }

    #[test]
    fn a_level_triggered_request_can_be_removed() {
        let [asked] = level(5, 2);
        assert_eq!((asked.filter, asked.flags), (Filter::Read, EV_ADD));
        let [taken] = forget(5);
        assert_eq!((taken.fd, taken.filter, taken.flags), (asked.fd, asked.filter, EV_DELETE));
    }

    #[test]
    fn each_direction_is_reported_separately() {
        let quiet = Event { token: 7, readable: false, writable: false, hangup: Hangup::None };
        assert_eq!(reported(Filter::Read, 0, 0), Event { readable: true, ..quiet });
        assert_eq!(reported(Filter::Write, 0, 0), Event { writable: true, ..quiet });
    }

    #[test]
    fn the_end_of_the_peers_direction_is_not_the_end_of_ours() {
        let ended = reported(Filter::Read, EV_EOF, 0);
        assert!(ended.readable && ended.hangup == Hangup::Ended && !ended.writable);
        let finished = reported(Filter::Write, EV_EOF, 0);
        assert!(finished.writable && finished.hangup == Hangup::None && !finished.readable);
    }

    #[test]
    fn a_connection_that_failed_has_failed_in_both_directions() {
        for filter in [Filter::Read, Filter::Write] {
            let failed = reported(filter, EV_EOF, libc::ECONNREFUSED as u32);
            assert!(failed.readable && failed.writable && failed.hangup == Hangup::Failed, "{filter:?}");
        }
    }
}

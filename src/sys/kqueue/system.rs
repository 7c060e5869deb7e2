//! The two system calls of kqueue(2), and the poller that uses them.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

#[cfg(any(target_os = "linux", target_os = "android"))]
use self::library as c;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use libc as c;

use super::{Filter, Note, edge, event, forget, level};
use crate::limits::POLL_EVENTS;
use crate::sys::Event;

/// The declarations of `sys/event.h` as on macOS, for a library on Linux.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod library {
    use std::ffi::{c_int, c_void};

    #[derive(Clone, Copy)]
    #[repr(C)]
    #[allow(non_camel_case_types)]
    pub(super) struct kevent {
        pub(super) ident: usize,
        pub(super) filter: i16,
        pub(super) flags: u16,
        pub(super) fflags: u32,
        pub(super) data: isize,
        pub(super) udata: *mut c_void,
    }

    pub(super) const EVFILT_READ: i16 = -1;
    pub(super) const EVFILT_WRITE: i16 = -2;
    pub(super) const EVFILT_VNODE: i16 = -4;

    #[link(name = "kqueue")]
    unsafe extern "C" {
        pub(super) fn kqueue() -> c_int;
        pub(super) fn kevent(
            kq: c_int,
            changelist: *const kevent,
            nchanges: c_int,
            eventlist: *mut kevent,
            nevents: c_int,
            timeout: *const libc::timespec,
        ) -> c_int;
    }
}

// A token is stored in a field of pointer type.
const _: () = assert!(size_of::<*mut c_void>() >= size_of::<u64>());
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const _: () = assert!(
    c::EV_ADD as u32 == super::EV_ADD
        && c::EV_DELETE as u32 == super::EV_DELETE
        && c::EV_CLEAR as u32 == super::EV_CLEAR
        && c::EV_EOF as u32 == super::EV_EOF
);

fn raw(note: Note) -> c::kevent {
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut raw: c::kevent = unsafe { mem::zeroed() };
    raw.ident = note.fd as _;
    raw.filter = match note.filter {
        Filter::Read => c::EVFILT_READ,
        Filter::Write => c::EVFILT_WRITE,
        Filter::Vnode => c::EVFILT_VNODE,
    };
    raw.flags = note.flags as _;
    raw.fflags = note.fflags as _;
    raw.udata = ptr::without_provenance_mut(note.token as usize);
    raw
}

/// Converts a kevent; `None` for a filter that is never requested.
fn note(raw: &c::kevent) -> Option<Note> {
    let filter = match raw.filter {
        c::EVFILT_READ => Filter::Read,
        c::EVFILT_WRITE => Filter::Write,
        c::EVFILT_VNODE => Filter::Vnode,
        _ => return None,
    };
    let token = raw.udata.addr() as u64;
    Some(Note { fd: raw.ident as RawFd, filter, flags: u32::from(raw.flags), fflags: raw.fflags, token })
}

/// A kernel event queue.
pub struct Queue {
    fd: RawFd,
    /// The buffer for events that `take` receives.
    room: Vec<c::kevent>,
}

impl Queue {
    /// Creates a close-on-exec queue. `take` receives at most `room` events at once.
    pub fn new(room: usize) -> io::Result<Queue> {
        // SAFETY: takes nothing.
        let fd = unsafe { c::kqueue() };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let nothing = Note { fd: 0, filter: Filter::Read, flags: 0, fflags: 0, token: 0 };
        let queue = Queue { fd, room: vec![raw(nothing); room] };
        // SAFETY: takes three integers.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(queue) }
    }

    /// The queue's descriptor. It is readable if there are events to take.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open while `self` lives, in the process that created it.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Passes changes to the kernel until one is refused. ENOENT for the removal of an unknown one.
    pub fn change<const N: usize>(&self, notes: [Note; N]) -> io::Result<()> {
        let changes = notes.map(raw);
        let (count, nothing) = (changes.len() as c_int, ptr::null_mut());
        // SAFETY: the pointer is to as many live kevents as the count says. There is no buffer for results, so
        // the call does not wait.
        let result = unsafe { c::kevent(self.fd, changes.as_ptr(), count, nothing, 0, ptr::null()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for events, at most `timeout_ms` milliseconds (negative: forever), and passes on at most as many
    /// as the buffer holds. A signal ends the wait early without events.
    pub fn take(&mut self, timeout_ms: i32, taken: impl FnMut(Note)) -> io::Result<()> {
        let timeout =
            libc::timespec { tv_sec: (timeout_ms / 1000).into(), tv_nsec: (timeout_ms % 1000 * 1_000_000).into() };
        let limit = if timeout_ms < 0 { ptr::null() } else { &raw const timeout };
        let (room, count) = (self.room.as_mut_ptr(), self.room.len() as c_int);
        // SAFETY: one pointer is to a buffer of `count` live kevents, the other to a live local or null. There
        // are no changes.
        let n = unsafe { c::kevent(self.fd, ptr::null(), 0, room, count, limit) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        self.room.iter().take(n as usize).filter_map(note).for_each(taken);
        Ok(())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: takes an integer. A forked child has no such descriptor, and then the call fails; the child
        // drops its inheritance before it opens anything.
        unsafe { libc::close(self.fd) };
    }
}

/// A queue for readiness events.
pub struct Poller {
    queue: Queue,
}

impl Poller {
    /// Creates a poller without descriptors.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { queue: Queue::new(POLL_EVENTS)? })
    }

    /// The poller's descriptor. It is readable if there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.queue.fd()
    }

    /// Reports each change of a descriptor's readiness in both directions, until the descriptor is closed
    /// (edge-triggered).
    pub fn add_edge(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.queue.change(edge(fd.as_raw_fd(), token))
    }

    /// Reports a descriptor while it is readable (level-triggered).
    pub fn add_level(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.queue.change(level(fd.as_raw_fd(), token))
    }

    /// Stops reporting a descriptor.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.queue.change(forget(fd.as_raw_fd()))
    }

    /// Waits for events, at most `timeout_ms` milliseconds (negative: forever), and appends them to `out`. A
    /// signal ends the wait early without events.
    pub fn wait(&mut self, timeout_ms: i32, out: &mut Vec<Event>) -> io::Result<()> {
        self.queue.take(timeout_ms, |note| out.push(event(&note)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Hangup;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn events(poller: &mut Poller) -> Vec<Event> {
        let mut out = Vec::new();
        poller.wait(0, &mut out).unwrap();
        out
    }

    /// Polls. True if an event for the token satisfies the predicate.
    fn any(poller: &mut Poller, token: u64, is: impl Fn(&Event) -> bool) -> bool {
        events(poller).iter().any(|event| event.token == token && is(event))
    }

    #[test]
    fn each_change_of_a_socket_is_reported_once_until_it_is_closed() {
        let mut poller = Poller::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let token = 1 << 40 | 7;
        poller.add_edge(ours.as_fd(), token).unwrap();
        assert!(any(&mut poller, token, |event| event.writable && !event.readable));
        assert!(events(&mut poller).is_empty());
        for _ in 0..2 {
            theirs.write_all(b"x").unwrap();
            assert!(any(&mut poller, token, |event| event.readable && event.hangup == Hangup::None));
            assert!(events(&mut poller).is_empty());
        }
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(any(&mut poller, token, |event| event.readable && event.hangup == Hangup::Ended));
        drop(ours);
        assert!(events(&mut poller).is_empty());
    }

    #[test]
    fn a_watched_descriptor_is_reported_while_it_is_readable() {
        let mut poller = Poller::new().unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        poller.add_level(ours.as_fd(), 3).unwrap();
        assert!(events(&mut poller).is_empty());
        theirs.write_all(b"x").unwrap();
        for _ in 0..2 {
            assert!(any(&mut poller, 3, |event| event.readable));
        }
        poller.remove(ours.as_fd()).unwrap();
        assert!(events(&mut poller).is_empty());
        assert!(poller.remove(ours.as_fd()).is_err());
        poller.add_level(ours.as_fd(), 4).unwrap();
        assert!(any(&mut poller, 4, |event| event.readable));
        ours.read_exact(&mut [0]).unwrap();
        assert!(events(&mut poller).is_empty());
    }

    #[test]
    fn a_queue_can_be_watched_by_another() {
        let (mut outer, mut inner) = (Poller::new().unwrap(), Poller::new().unwrap());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        inner.add_edge(ours.as_fd(), 1).unwrap();
        events(&mut inner);
        outer.add_level(inner.fd(), 2).unwrap();
        theirs.write_all(b"x").unwrap();
        assert!(any(&mut outer, 2, |event| event.readable));
        assert!(any(&mut inner, 1, |event| event.readable));
    }

    #[test]
    fn a_note_comes_back_as_it_was_handed_over() {
        let note = Note { fd: 5, filter: Filter::Vnode, flags: 0x21, fflags: 0x7, token: u64::MAX - 3 };
        assert_eq!(super::note(&raw(note)), Some(note));
    }
}

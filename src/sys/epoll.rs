//! Readiness, by epoll(7).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::limits::POLL_EVENTS;
use crate::sys::{Event, Hangup};

/// An epoll instance and the buffer for its events.
pub struct Poller {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// Creates a poller without descriptors.
    pub fn new() -> io::Result<Poller> {
        // SAFETY: takes an integer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poller { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; POLL_EVENTS] })
    }

    /// The poller's descriptor. It is readable if there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reports each change of a descriptor's readiness in both directions, until the descriptor is closed
    /// (edge-triggered).
    pub fn add_edge(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET)
    }

    /// Reports a descriptor while it is readable (level-triggered).
    pub fn add_level(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, libc::EPOLLIN)
    }

    /// Stops reporting a descriptor.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, operation: libc::c_int, fd: BorrowedFd<'_>, token: u64, events: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: both descriptors are open, and the pointer is to a live local.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for events, at most `timeout_ms` milliseconds (negative: forever), and appends them to `out`. A
    /// signal ends the wait early without events.
    pub fn wait(&mut self, timeout_ms: i32, out: &mut Vec<Event>) -> io::Result<()> {
        let room = self.events.len() as libc::c_int;
        // SAFETY: the pointer is to `room` live events.
        let n = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        out.extend(self.events.iter().take(n as usize).map(|event| {
            let is = |bits: libc::c_int| event.events & bits as u32 != 0;
            Event {
                token: event.u64,
                readable: is(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
                writable: is(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR),
                hangup: match () {
                    () if is(libc::EPOLLERR) => Hangup::Failed,
                    () if is(libc::EPOLLRDHUP | libc::EPOLLHUP) => Hangup::Ended,
                    () => Hangup::None,
                },
            }
        }));
        Ok(())
    }
}

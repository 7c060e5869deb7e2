//! Readiness: reports the descriptors that can be read or written, by token. A socket is registered once,
//! edge-triggered in both directions, and leaves when it is closed, so it needs no other calls.

use std::io;
use std::os::fd::BorrowedFd;

pub use crate::sys::Event;
#[cfg(not(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android")))))]
use crate::sys::epoll::Poller;
#[cfg(any(feature = "kqueue", not(any(target_os = "linux", target_os = "android"))))]
use crate::sys::kqueue::Poller;

/// The poller of one process.
pub struct Reactor {
    poller: Poller,
    events: Vec<Event>,
}

impl Reactor {
    /// Creates a reactor without descriptors.
    pub fn new() -> io::Result<Reactor> {
        Ok(Reactor { poller: Poller::new()?, events: Vec::new() })
    }

    /// Reports each change of a socket's readiness until the socket is closed.
    pub fn register(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.poller.add_edge(fd, token)
    }

    /// Reports a descriptor in every turn in which it is readable, until `unwatch`.
    pub fn watch(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.poller.add_level(fd, token)
    }

    /// Stops reporting a watched descriptor.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poller.remove(fd)
    }

    /// The reactor's descriptor. It is readable if there are events, so another reactor can poll it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.poller.fd()
    }

    /// Waits for events, at most `timeout_us` microseconds (`u64::MAX`: forever), rounded up to milliseconds so
    /// that a deadline has passed when the wait ends.
    pub fn poll(&mut self, timeout_us: u64) -> io::Result<()> {
        let timeout_ms = match timeout_us {
            u64::MAX => -1,
            us => i32::try_from(us.div_ceil(1000)).unwrap_or(i32::MAX),
        };
        self.events.clear();
        self.poller.wait(timeout_ms, &mut self.events)
    }

    /// The event at a position of the last poll.
    pub fn event(&self, at: usize) -> Option<Event> {
        self.events.get(at).copied()
    }
}

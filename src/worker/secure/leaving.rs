//! Sockets whose connections are gone, and whose sessions still have bytes to send. The system does the same for a
//! connection without TLS. Their count and their time are bounded.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use super::flush::Flushed;
use crate::collections::slab::Key;
use crate::limits::{TLS_LEAVING, TLS_LEAVING_US};
use crate::worker::socket::{Sending, Socket};

/// One such socket.
struct Entry {
    key: Key,
    socket: Socket,
    until_us: u64,
}

/// All such sockets of a worker.
#[derive(Default)]
pub(in crate::worker) struct Leaving {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// The time that each one has.
    limit_us: u64,
}

impl Leaving {
    /// Limits the time of the sockets that come from now on: a client that takes nothing for `response_us` is given up
    /// elsewhere, too.
    pub(in crate::worker) fn limit(&mut self, response_us: u64) {
        self.limit_us = response_us.min(TLS_LEAVING_US);
    }

    /// Keeps a socket until its bytes are sent. If there are too many, it is closed at once.
    pub(super) fn add(&mut self, key: Key, socket: Socket, now_us: u64) {
        if self.entries.len() < TLS_LEAVING {
            self.entries.push_back(Entry { key, socket, until_us: now_us.saturating_add(self.limit_us) });
        }
    }

    /// Returns the time in microseconds at which `expire` has to be called. `u64::MAX` is never.
    pub(in crate::worker) fn next_us(&self) -> u64 {
        self.entries.front().map_or(u64::MAX, |entry| entry.until_us)
    }

    /// Closes the sockets whose time is over.
    pub(in crate::worker) fn expire(&mut self, now_us: u64) {
        while self.next_us() <= now_us {
            self.entries.pop_front();
        }
    }

    /// Returns the sockets.
    pub(in crate::worker) fn iter(&self) -> impl ExactSizeIterator<Item = (Key, BorrowedFd<'_>)> {
        self.entries.iter().map(|entry| (entry.key, entry.socket.fd.as_fd()))
    }

    /// Sends more bytes of a socket that is writable again, and closes it after the last byte.
    pub(in crate::worker) fn flush(&mut self, key: Key) {
        let at = self.entries.iter().position(|entry| entry.key == key);
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            entry.socket.sending = Sending::Writable;
            if entry.socket.flush() != Flushed::Full {
                self.entries.retain(|entry| entry.key != key);
            }
        }
    }
}

//! Sockets whose connections are gone, and whose sessions still have bytes to send. The system does the same for a
//! connection without TLS. A socket stays as long as its peer takes bytes, however slowly: nothing is lost. Their count
//! is bounded, and so is the time without progress. They count against the limit of clients, and give way to clients and
//! to connections to backends: if there are too many, or if no descriptor is left, the one that expires first is closed.

use std::os::fd::{AsFd, BorrowedFd};

use super::flush::Flushed;
use crate::collections::slab::Key;
use crate::limits::TLS_LEAVING_US;
use crate::sys;
use crate::worker::socket::{Sending, Socket};

/// One such socket.
struct Entry {
    key: Key,
    socket: Socket,
    /// The bytes that the system has, and that the peer had not acknowledged when this was last asked.
    unacknowledged: Option<usize>,
    /// The peer has to take a byte before this time.
    until_us: u64,
}

impl Entry {
    /// Returns whether the peer has taken bytes since this was last asked. A system that cannot say so only reports
    /// room for more, which `is_writable` means.
    fn has_progressed(&mut self, is_writable: bool) -> bool {
        let before = std::mem::replace(&mut self.unacknowledged, sys::socket::unacknowledged(self.socket.fd.as_fd()));
        match (before, self.unacknowledged) {
            (Some(before), Some(now)) => now < before,
            _ => is_writable,
        }
    }
}

/// All such sockets of a worker.
pub(in crate::worker) struct Leaving {
    entries: Vec<Entry>,
    /// Their largest number.
    most: usize,
    /// No entry expires before this time.
    next_us: u64,
    /// The time without progress that each one has.
    limit_us: u64,
}

impl Leaving {
    pub(super) fn new(most: usize) -> Leaving {
        Leaving { entries: Vec::new(), most, next_us: u64::MAX, limit_us: TLS_LEAVING_US }
    }

    /// Limits the time without progress from now on: a client that takes nothing for `response_us` is given up
    /// elsewhere, too.
    pub(in crate::worker) fn limit(&mut self, response_us: u64) {
        self.limit_us = response_us.min(TLS_LEAVING_US);
    }

    /// Keeps a socket until its bytes are sent. If there are too many, it replaces the one that expires first.
    pub(super) fn add(&mut self, key: Key, socket: Socket, now_us: u64) {
        if self.entries.len() >= self.most {
            self.give_up();
        }
        let until_us = now_us.saturating_add(self.limit_us);
        let unacknowledged = sys::socket::unacknowledged(socket.fd.as_fd());
        self.entries.push(Entry { key, socket, unacknowledged, until_us });
        self.next_us = self.next_us.min(until_us);
    }

    /// Closes the socket that expires first, because its descriptor is needed. Returns false if there is none.
    pub(in crate::worker) fn give_up(&mut self) -> bool {
        let first = (0..self.entries.len()).min_by_key(|&at| self.entries[at].until_us);
        first.map(|at| self.entries.swap_remove(at)).is_some()
    }

    /// Returns the number of sockets.
    pub(in crate::worker) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the time in microseconds at which `expire` has to be called. `u64::MAX` is never.
    pub(in crate::worker) fn next_us(&self) -> u64 {
        self.next_us
    }

    /// Closes the sockets whose peers have taken nothing in their time.
    pub(in crate::worker) fn expire(&mut self, now_us: u64) {
        if now_us < self.next_us {
            return;
        }
        let until_us = now_us.saturating_add(self.limit_us);
        self.entries.retain_mut(|entry| {
            if entry.until_us <= now_us && entry.has_progressed(false) {
                entry.until_us = until_us;
            }
            entry.until_us > now_us
        });
        self.next_us = self.entries.iter().map(|entry| entry.until_us).min().unwrap_or(u64::MAX);
    }

    /// Returns the sockets.
    pub(in crate::worker) fn iter(&self) -> impl Iterator<Item = (Key, BorrowedFd<'_>)> {
        self.entries.iter().map(|entry| (entry.key, entry.socket.fd.as_fd()))
    }

    /// Sends more bytes of a socket that is writable again, and closes it after the last byte.
    pub(in crate::worker) fn flush(&mut self, key: Key, now_us: u64) {
        let Some(at) = self.entries.iter().position(|entry| entry.key == key) else { return };
        let entry = &mut self.entries[at];
        if entry.has_progressed(true) {
            entry.until_us = now_us.saturating_add(self.limit_us);
        }
        entry.socket.sending = Sending::Writable;
        if entry.socket.flush() != Flushed::Full {
            self.entries.swap_remove(at);
            return;
        }
        entry.unacknowledged = sys::socket::unacknowledged(entry.socket.fd.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collections::slab::Slab;
    use crate::worker::socket::Sockets;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const LIMIT_US: u64 = 1_000_000;

    /// The other ends of this number of sockets that leave, one after another. The system has 64 pieces for each.
    fn leaving(count: usize) -> (Leaving, Vec<UnixStream>) {
        let (mut leaving, mut slab, mut sockets) = (Leaving::new(3), Slab::new(), Sockets::default());
        leaving.limit(LIMIT_US);
        let peers = (0..count).map(|at| {
            let (mut own, peer) = UnixStream::pair().expect("two sockets");
            (0..64).for_each(|_| own.write_all(&[0; 1000]).expect("the system takes it"));
            let key = slab.insert(at);
            sockets.insert(key, own.into(), Sending::Blocked);
            leaving.add(key, sockets.remove(key).expect("it was put there"), at as u64);
            peer
        });
        let peers = peers.collect();
        (leaving, peers)
    }

    fn is_open(peer: &mut UnixStream) -> bool {
        peer.set_nonblocking(true).expect("it is a socket");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).is_err()
    }

    #[test]
    fn a_peer_that_reads_steadily_stays_and_one_that_does_not_ends_in_time_in_any_order() {
        let (mut leaving, mut peers) = leaving(3);
        // The first and the last one read steadily, for much longer than the limit.
        let mut now_us = 0;
        for _ in 0..40 {
            for at in [0, 2] {
                peers[at].read_exact(&mut [0; 1000]).expect("there is more");
            }
            now_us += LIMIT_US * 9 / 10;
            leaving.expire(now_us);
            let count = if now_us <= LIMIT_US { 3 } else { 2 };
            assert_eq!(leaving.len(), count, "after {now_us} us");
            assert!(leaving.next_us() > now_us && leaving.next_us() <= now_us + LIMIT_US);
        }
        assert!(!is_open(&mut peers[1]));
        // The first one stops.
        for _ in 0..2 {
            peers[2].read_exact(&mut [0; 1000]).expect("there is more");
            now_us += LIMIT_US;
            leaving.expire(now_us);
        }
        assert_eq!(leaving.len(), 1);
        assert!(!is_open(&mut peers[0]) && is_open(&mut peers[2]));
        leaving.expire(leaving.next_us());
        leaving.expire(leaving.next_us());
        assert_eq!((leaving.len(), leaving.next_us()), (0, u64::MAX));
    }

    #[test]
    fn one_without_progress_for_longest_gives_way() {
        let (mut leaving, mut peers) = leaving(2);
        assert!(leaving.give_up());
        assert!(!is_open(&mut peers[0]) && is_open(&mut peers[1]));
        assert!(leaving.give_up() && !leaving.give_up());
    }

    #[test]
    fn if_there_are_too_many_the_one_without_progress_for_longest_goes() {
        let (leaving, mut peers) = leaving(4);
        assert_eq!(leaving.len(), 3);
        assert!(!is_open(&mut peers[0]));
        assert!(peers[1..].iter_mut().all(is_open));
    }
}

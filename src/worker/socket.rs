//! A worker's sockets, by the slot numbers of the proxy's connections.
//!
//! Events are edge-triggered, so a socket stores its readiness. For sending this is [`Sending`]. For reading, `readable`
//! and `ended` are independent: a socket whose peer has ended may have more bytes, or none.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::encryption::{Encryption, Secure};
use crate::collections::slab::Key;

/// The readiness of a socket for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// The connection is not established. The next event of writability ends this state.
    Connecting,
    /// A send may take bytes.
    Writable,
    /// The last send took no bytes. The socket waits for an event of writability.
    Blocked,
    /// A send of ciphertext failed. The socket takes no bytes any more.
    Broken,
}

/// A socket and its readiness.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    key: Key,
    pub(super) sending: Sending,
    /// True if a read may find bytes, an end or an error. The system may report it before the connection is established.
    pub(super) readable: bool,
    /// True if the peer's direction has ended. Then a short read does not drain the socket, because the end follows it.
    pub(super) ended: bool,
    /// The error of a send, which a read no longer reports. 0 is none.
    pub(super) error: i32,
    /// Set if the other end speaks TLS. Boxed, so that a plain socket stays small.
    pub(super) encryption: Option<Box<Encryption>>,
}

impl Socket {
    /// Returns the TLS session, if it has begun.
    pub(super) fn secure(&self) -> Option<&Secure> {
        self.encryption.as_ref()?.secure.as_ref()
    }

    /// Returns the TLS session, if it has begun.
    pub(super) fn secure_mut(&mut self) -> Option<&mut Secure> {
        self.encryption.as_mut()?.secure.as_mut()
    }
}

/// The sockets of a worker.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    slots: Vec<Option<Socket>>,
    count: usize,
}

impl Sockets {
    /// Returns the number of sockets.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, key: Key, fd: OwnedFd, sending: Sending) {
        let index = key.index();
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let socket = Socket { fd, key, sending, readable: false, ended: false, error: 0, encryption: None };
        self.count += usize::from(self.slots[index].replace(socket).is_none());
    }

    /// Returns each socket.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, BorrowedFd<'_>)> {
        self.slots.iter().flatten().map(|socket| (socket.key, socket.fd.as_fd()))
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Socket> {
        self.slots.get_mut(key.index())?.as_mut().filter(|socket| socket.key == key)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Socket> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.as_ref()?.key != key {
            return None;
        }
        self.count -= 1;
        slot.take()
    }
}

// Each idle client has a socket.
const _: () = assert!(size_of::<Option<Socket>>() <= 32);

//! A worker's sockets, by the slot numbers of the proxy's connections.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::secure::Secure;
use crate::collections::slab::Key;
use crate::tls::trace::Trace;

/// A socket and its readiness.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    key: Key,
    /// Not yet established.
    pub(super) connecting: bool,
    /// A read may find something.
    pub(super) readable: bool,
    /// A write may be taken.
    pub(super) writable: bool,
    /// The peer's direction has ended, so that only a read that says so drains it.
    pub(super) ended: bool,
    /// The error of a send, which a read no longer reports; 0 for none.
    pub(super) error: i32,
    /// Set if the other end speaks TLS. Boxed, so that a plain socket stays small.
    pub(super) encryption: Option<Box<Encryption>>,
}

/// The parts of a socket that only TLS has.
#[derive(Debug)]
pub(super) struct Encryption {
    /// The name that the certificate of the other end has to be for. Taken when the session begins.
    pub(super) server_name: Option<String>,
    /// The lines for `--tls-trace`, if it is on.
    pub(super) trace: Option<Trace>,
    /// The session, once it has begun.
    pub(super) secure: Option<Secure>,
}

impl Socket {
    /// The TLS session, if it has begun.
    pub(super) fn secure(&self) -> Option<&Secure> {
        self.encryption.as_ref()?.secure.as_ref()
    }

    /// The TLS session, if it has begun.
    pub(super) fn secure_mut(&mut self) -> Option<&mut Secure> {
        self.encryption.as_mut()?.secure.as_mut()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    slots: Vec<Option<Socket>>,
    count: usize,
}

impl Sockets {
    /// The number of sockets.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, key: Key, fd: OwnedFd, connecting: bool) {
        let index = key.index();
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let writable = !connecting;
        let socket =
            Socket { fd, key, connecting, readable: false, writable, ended: false, error: 0, encryption: None };
        self.count += usize::from(self.slots[index].replace(socket).is_none());
    }

    /// Each of them.
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

// Every idle client has one.
const _: () = assert!(size_of::<Option<Socket>>() <= 32);

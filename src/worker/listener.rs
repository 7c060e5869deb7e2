//! The listeners of a worker.
//!
//! ```text
//! Paused ──its time has come, and there is room──▶ Open
//!    ▲                                              │
//!    └──────no room for clients or descriptors──────┘
//! ```
//!
//! All listeners for clients pause together, because they have one limit. A listener that the worker has left is `None`:
//! the others keep their numbers, which are in their tokens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::Worker;
use super::token::LISTENERS;
use crate::config::Listen;
use crate::metrics::Count;

/// A socket that listens.
pub struct Listener {
    /// Its address, with the port that it has, and its purpose.
    pub listen: Listen,
    /// True if a service manager made it, and keeps it open.
    pub is_activated: bool,
    /// A listening, non-blocking socket.
    pub socket: OwnedFd,
}

/// The state of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepting {
    /// Connections are accepted as they come.
    Open,
    /// No connection is accepted before this time in microseconds, nor while there are too many clients.
    Paused { until_us: u64 },
}

/// A listener of this worker.
pub(super) struct Own {
    pub(super) listener: Listener,
    pub(super) accepting: Accepting,
}

impl Own {
    pub(super) fn new(listener: Listener) -> Own {
        Own { listener, accepting: Accepting::Paused { until_us: 0 } }
    }

    pub(super) fn is_public(&self) -> bool {
        self.listener.listen.is_public()
    }
}

impl Worker<'_> {
    /// The listeners that the worker has not left.
    pub(super) fn own_listeners(&self) -> impl Iterator<Item = &Own> {
        self.listeners.iter().flatten()
    }

    /// The listeners that the worker has not left, with their numbers: its own, and those of the other workers.
    pub(super) fn all_listeners(&self) -> impl Iterator<Item = (usize, &Listener)> {
        let own = self.listeners.iter().map(|own| own.as_ref().map(|own| &own.listener));
        let spares = self.spares.iter().map(|spare| spare.as_ref().map(|spare| spare.listener()));
        own.chain(spares).enumerate().filter_map(|(at, listener)| Some((at, listener?)))
    }

    /// True if the worker accepts clients.
    pub(super) fn is_accepting(&self) -> bool {
        self.own_listeners().any(|own| own.is_public() && own.accepting == Accepting::Open)
    }

    /// The listener of a number, if connections are accepted from it now. The numbers of other workers' listeners
    /// follow those of its own.
    pub(super) fn open_listener(&self, at: usize) -> Option<&Listener> {
        match self.listeners.get(at) {
            Some(own) => own.as_ref().filter(|own| own.accepting == Accepting::Open).map(|own| &own.listener),
            None if self.is_accepting() => {
                self.spares.get(at - self.listeners.len())?.as_ref().map(|spare| spare.listener())
            }
            None => None,
        }
    }

    /// Stops accepting until a time: from the listeners for clients, or from the admin port.
    pub(super) fn pause_accepting(&mut self, public: bool, until_us: u64) -> io::Result<()> {
        let such = self.listeners.iter_mut().flatten().filter(|own| own.is_public() == public);
        for own in such.filter(|own| own.accepting == Accepting::Open) {
            self.reactor.unwatch(own.listener.socket.as_fd())?;
            own.accepting = Accepting::Paused { until_us };
        }
        self.accepting_changed();
        Ok(())
    }

    /// Accepts again from each listener whose pause is over.
    pub(super) fn resume_accepting(&mut self) -> io::Result<()> {
        let has_room = self.proxy.clients() < self.max_connections;
        let mut resumed = false;
        for (own, token) in self.listeners.iter_mut().zip(LISTENERS..) {
            let Some(own) = own else { continue };
            if let Accepting::Paused { until_us } = own.accepting
                && self.now_us >= until_us
                && (has_room || !own.is_public())
            {
                self.reactor.watch(own.listener.socket.as_fd(), token)?;
                own.accepting = Accepting::Open;
                resumed = true;
            }
        }
        if resumed {
            self.accepting_changed();
            self.pauses.iter_mut().for_each(|pauses| pauses.last_us = self.now_us);
        }
        Ok(())
    }

    /// The time in microseconds at which the next pause ends; `u64::MAX` if none ends by time.
    pub(super) fn resume_us(&self) -> u64 {
        let has_room = self.proxy.clients() < self.max_connections;
        let until = |own: &Own| match own.accepting {
            Accepting::Paused { until_us } if has_room || !own.is_public() => Some(until_us),
            _ => None,
        };
        self.own_listeners().filter_map(until).min().unwrap_or(u64::MAX)
    }

    /// Watches the open listeners with a new poller.
    pub(super) fn watch_again(&self) -> io::Result<()> {
        for (own, token) in self.listeners.iter().zip(LISTENERS..) {
            if let Some(Own { listener, accepting: Accepting::Open }) = own {
                self.reactor.watch(listener.socket.as_fd(), token)?;
            }
        }
        Ok(())
    }

    /// Takes a listener away. The worker accepts from it no more.
    pub(super) fn take_listener(&mut self, at: usize) -> Option<Listener> {
        let Some(own) = self.listeners.get_mut(at) else {
            let spare = self.spares.get_mut(at - self.listeners.len()).and_then(Option::take)?;
            spare.unwatch(&self.reactor);
            return Some(spare.into_listener());
        };
        let Own { listener, accepting } = own.take()?;
        // Other processes may have the socket, so that closing it here would not end its being watched.
        if accepting == Accepting::Open {
            let _ = self.reactor.unwatch(listener.socket.as_fd());
        }
        Some(listener)
    }

    /// Updates the metric of accepting, and watches the listeners of absent workers if this worker accepts.
    pub(super) fn accepting_changed(&mut self) {
        self.block.set(Count::Accepting, self.is_accepting().into());
        self.watch_spares();
    }
}

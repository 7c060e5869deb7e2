//! Listeners of the other workers. Every worker has them, and accepts from one only while its own worker is
//! absent: the kernel keeps assigning connections to that listener, and they would wait there.
//!
//! ```text
//! Resting ──its worker is absent, and this one accepts──▶ Watched
//! ▲                                                       │
//! └───────its worker is back, or this one pauses──────────┘
//! ```
//!
//! The master marks a worker as absent in its worker record, and notifies the others.

use std::os::fd::AsFd;

use super::Worker;
use super::listener::Listener;
use super::token::LISTENERS;
use crate::reactor::Reactor;
use crate::shared::Region;
use crate::shared::worker::WorkerRecord;

/// A listener of another worker.
pub struct Spare {
    /// The listener.
    pub listener: Listener,
    /// The worker record of its worker in the region.
    pub record: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting,
    Watched,
}

/// A listener of another worker.
pub(super) struct Held {
    listener: Listener,
    /// That worker's.
    record: WorkerRecord,
    state: State,
}

/// Listeners of other workers that this one holds, and does not watch yet.
pub(super) fn held(spares: Vec<Spare>, region: Region) -> Vec<Option<Held>> {
    let held = |Spare { listener, record }| Held { listener, record: region.record(record), state: State::Resting };
    spares.into_iter().map(|spare| Some(held(spare))).collect()
}

impl Held {
    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }

    pub(super) fn into_listener(self) -> Listener {
        self.listener
    }

    /// Ends its being watched. Others have it, so that closing it here does not.
    pub(super) fn unwatch(&self, reactor: &Reactor) {
        if self.state == State::Watched {
            let _ = reactor.unwatch(self.listener.socket.as_fd());
        }
    }
}

impl Worker<'_> {
    /// Watches the listeners of absent workers, if it accepts, and no other spare ones. One that cannot be
    /// watched stays as it is: this worker has clients of its own, and does not end for another's listener.
    pub(super) fn watch_spares(&mut self) {
        let (first, accepts) = (self.listeners.len(), self.is_accepting());
        for (at, spare) in self.spares.iter_mut().enumerate() {
            let Some(spare) = spare else { continue };
            let state = if accepts && spare.record.is_absent() { State::Watched } else { State::Resting };
            let changed = match state {
                _ if state == spare.state => continue,
                State::Watched => self.reactor.watch(spare.listener.socket.as_fd(), LISTENERS + (first + at) as u64),
                State::Resting => self.reactor.unwatch(spare.listener.socket.as_fd()),
            };
            if changed.is_ok() {
                spare.state = state;
            }
        }
    }
}

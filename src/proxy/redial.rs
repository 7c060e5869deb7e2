//! Backends whose queue of connections is full. The system reports this at once for a Unix socket. A busy backend has
//! not failed. The request goes to another backend with room, if there is one. Otherwise the connection is dialled
//! repeatedly for as long as a connect may take, as the system itself does over TCP.

use super::Proxy;
use super::connection::{BackendEnd, Peer};
use super::output::Output;
use crate::collections::slab::Key;
use crate::limits::{REDIAL_US, REDIALS, TRIES};

impl Proxy {
    /// Schedules another dial after the backend's queue was full. Returns false if the request can go to another
    /// backend.
    pub(super) fn redial_later(&mut self, key: Key) -> bool {
        let exchange = self.connections.get(key).and_then(|connection| self.exchanges.get(connection.exchange?));
        if let Some(exchange) = exchange
            && let Some(tried) = Some(exchange.tries.slots()).filter(|tried| tried.len() < TRIES)
            && self.upstreams.balancer.has_other(exchange.group, tried)
        {
            return false;
        }
        if self.ledger.redials.is_empty() {
            self.ledger.redial_us = self.now_us + REDIAL_US;
        }
        self.ledger.redials.push_back(key);
        true
    }

    /// Returns when `redial` is to be called, in microseconds; `u64::MAX` for never.
    pub(super) fn next_redial_us(&self) -> u64 {
        if self.ledger.redials.is_empty() { u64::MAX } else { self.ledger.redial_us }
    }

    /// Dials connections again that wait for room in a backend's queue.
    pub(super) fn redial(&mut self) {
        if self.next_redial_us() > self.now_us {
            return;
        }
        self.ledger.redial_us = self.now_us + REDIAL_US;
        for _ in 0..REDIALS.min(self.ledger.redials.len()) {
            let Some(key) = self.ledger.redials.pop_front() else { return };
            if let Some(Peer::Backend(BackendEnd { slot, .. })) =
                self.connections.get(key).map(|connection| connection.peer)
            {
                self.ledger.outputs.push_back(Output::Connect(key, slot.into()));
            }
        }
    }

    /// Removes a connection from those that wait for room in a backend's queue. Returns false if it was none of them.
    pub(super) fn take_redial(&mut self, key: Key) -> bool {
        let at = self.ledger.redials.iter().position(|&other| other == key);
        at.and_then(|at| self.ledger.redials.remove(at)).is_some()
    }
}

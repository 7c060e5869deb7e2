//! Backend connections that belong to one client.
//!
//! NTLM and Negotiate authenticate a connection instead of a request, which is common although RFC 9110, 3.3 forbids
//! it. If either side uses them on a backend connection, the connection serves that client alone from then on: it is
//! never pooled, carries the client's next requests, and closes with the client. HTTP/2 shares connections by design,
//! so such requests use HTTP/1.1.
//!
//! Invariant: `bonds` has both directions of a pair or neither.

use std::collections::HashMap;

use super::Proxy;
use super::connection::{BackendEnd, Connection, Peer};
use super::output::Output;
use crate::balance::Pick;
use crate::collections::slab::Key;

/// Pairs of a client's and a backend's connection. The key is either of them.
pub(super) type Bonds = HashMap<Key, Key>;

impl Proxy {
    /// Binds a connection to a backend to a client.
    pub(super) fn bind(&mut self, client: Key, backend: Key) {
        let before = self.upstreams.bonds.get(&client).copied();
        // A stream ends with its request, so it has no connection to authenticate.
        if before == Some(backend) || self.connections.living(client).is_none_or(|one| one.codec.stream().is_some()) {
            return;
        }
        before.into_iter().for_each(|before| self.close(before, Output::Close(before)));
        for (one, other) in [(client, backend), (backend, client)] {
            self.upstreams.bonds.insert(one, other);
        }
    }

    /// Removes the bond of a connection that is gone. A backend's connection is closed with its client.
    pub(super) fn unbind(&mut self, key: Key) {
        let Some(other) = self.upstreams.bonds.remove(&key) else { return };
        self.upstreams.bonds.remove(&other);
        if self.connections.get(other).is_some_and(|connection| !connection.is_client()) {
            self.close(other, Output::Close(other));
        }
    }

    /// Picks the backend that the client of an exchange is bound to. Returns `None` if there is no such backend, or
    /// if it is not usable any more.
    pub(super) fn pick_bound(&mut self, id: Key) -> Option<Pick> {
        let (key, slot) = self.bound_backend(id)?;
        let group = self.exchanges.living(id)?.group;
        if !self.upstreams.balancer.is_in(group, slot as u16) {
            return None;
        }
        let connection = self.connections.get(key)?;
        let up = self.shared.cells.state(slot).is_up();
        if connection.is_closing() || !up || !self.upstreams.is_current(connection.peer) {
            self.close(key, Output::Close(key));
            return None;
        }
        Some(if self.upstreams.balancer.take(slot) { Pick::Slot(slot) } else { Pick::Full })
    }

    /// Returns the free connection that the client of an exchange is bound to, and its slot. Only the first try uses
    /// it.
    pub(super) fn bound_backend(&self, id: Key) -> Option<(Key, usize)> {
        if self.upstreams.bonds.is_empty() {
            return None;
        }
        let exchange = self.exchanges.living(id).filter(|exchange| exchange.tries.count() <= 1)?;
        let key = *self.upstreams.bonds.get(&exchange.client)?;
        let connection = self.connections.get(key).filter(|connection| connection.exchange.is_none())?;
        let Peer::Backend(BackendEnd { slot, .. }) = connection.peer else { return None };
        Some((key, slot.into()))
    }

    /// True if the client of an exchange has a connection to a backend for itself.
    pub(super) fn is_bound(&self, id: Key) -> bool {
        !self.upstreams.bonds.is_empty()
            && self.exchanges.living(id).is_some_and(|exchange| self.upstreams.bonds.contains_key(&exchange.client))
    }

    /// Closes bound connections to backends that have left the plan, unless a request is under way there.
    pub(super) fn close_bound_to_gone(&mut self) {
        let is_gone = |connection: &Connection| {
            !connection.is_client() && connection.exchange.is_none() && !self.upstreams.is_current(connection.peer)
        };
        let bound = self.upstreams.bonds.keys().copied();
        let gone: Vec<Key> = bound.filter(|&key| self.connections.get(key).is_some_and(is_gone)).collect();
        gone.into_iter().for_each(|key| self.close(key, Output::Close(key)));
    }
}

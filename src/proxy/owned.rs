//! Connections to backends that begin with a PROXY header (`--send-proxy`). The header has the address of one client, so
//! such a connection carries requests of this client only. The client is its **owner**: the connection of a client, or
//! the mux of the client's streams. The connection closes with its owner.
//!
//! `pool::Owned` lists the connections of each owner that are ready for its next request: idle HTTP/1 connections, which
//! are in the pool too, and muxes, which are in the pool if they have no streams. Invariant: each of them has the owner
//! under which it is listed.

use std::net::SocketAddr;

use super::Proxy;
use super::connection::{BackendEnd, Connection, Phase};
use super::failure::Failure;
use super::output::Output;
use super::pool::Ready;
use super::upstreams::Upstreams;
use crate::collections::slab::Key;
use crate::http::proxy_header::{self, Addresses};
use crate::metrics::SlotCount;

impl Upstreams {
    /// Takes an idle HTTP/1 connection of an owner.
    pub(super) fn take_owned(&mut self, owner: Key, key: Key) -> Option<Key> {
        let ready = self.owned.remove(owner, key)?;
        ready.place.into_iter().for_each(|place| self.idle.remove_place(ready.slot.into(), place));
        Some(key)
    }

    /// Puts a connection into the pool. Returns false if there is no room.
    pub(super) fn give_idle(&mut self, end: BackendEnd, key: Key) -> bool {
        let BackendEnd { slot, owner, .. } = end;
        let Some(place) = self.idle.give(slot.into(), key, owner.is_some()) else { return false };
        owner.into_iter().for_each(|owner| self.owned.add(owner, Ready { slot, key, place: Some(place) }));
        true
    }

    /// Removes a connection that is gone from the pool.
    pub(super) fn forget_idle(&mut self, end: BackendEnd, key: Key) {
        match end.owner {
            Some(owner) => {
                self.take_owned(owner, key);
            }
            None => self.idle.remove(end.slot.into(), key),
        }
    }

    /// Removes a mux from those that get streams. `place`: its place in the pool.
    pub(super) fn forget_mux(&mut self, end: BackendEnd, key: Key, place: Option<u64>) {
        place.into_iter().for_each(|place| self.idle.remove_mux(place));
        match (end.owner, self.muxes.get_mut(usize::from(end.slot))) {
            (Some(owner), _) => _ = self.owned.remove(owner, key),
            (None, Some(muxes)) => muxes.retain(|&other| other != key),
            (None, None) => {}
        }
    }
}

impl Proxy {
    /// Returns the client for which an exchange's connection to a backend has to be; `None` if it may be for all.
    pub(super) fn owner(&self, id: Key) -> Option<Key> {
        self.upstreams.send_proxy?;
        self.exchanges.living(id).map(|exchange| self.carrier(exchange.client))
    }

    /// Notes the address that a client has connected to according to its PROXY header.
    pub(super) fn note_destination(&mut self, client: Key, destination: SocketAddr) {
        if self.upstreams.send_proxy.is_some() {
            self.upstreams.owned.destinations.insert(client, destination);
        }
    }

    /// Closes the connections of an owner that is gone.
    pub(super) fn close_owned(&mut self, owner: Key) {
        self.upstreams.owned.destinations.remove(&owner);
        for ready in self.upstreams.owned.ready.remove(&owner).unwrap_or_default() {
            match ready.place {
                Some(place) => {
                    self.upstreams.idle.remove_place(ready.slot.into(), place);
                    self.close(ready.key, Output::Close(ready.key));
                }
                // The last frames, such as resets of streams, are still to be sent.
                None => self.retire(ready.key),
            }
        }
    }

    /// Replaces the connections to backends that are not established when connections begin to have owners, or cease to.
    /// An exchange that waits for one waits for another one to the same backend, and this is no try. No mux gets further
    /// streams. Probes have no owner either way.
    pub(super) fn change_owners(&mut self) {
        let is_owned = self.upstreams.send_proxy.is_some();
        let is_former = |connection: &Connection| {
            !connection.is_probe() && connection.backend().is_some_and(|end| end.owner.is_some() != is_owned)
        };
        let keys = self.connections.keys().filter(|&key| self.connections.get(key).is_some_and(is_former));
        let (muxes, others): (Vec<Key>, Vec<Key>) =
            keys.partition(|&key| self.connections.get(key).is_some_and(|one| one.codec.mux().is_some()));
        others.into_iter().for_each(|key| self.replace_unestablished(key));
        for key in muxes {
            self.retire(key);
            if self.connections.get(key).is_some_and(|mux| mux.phase == Phase::Connecting) {
                self.close(key, Output::Close(key));
            }
        }
    }

    /// Replaces a connection, or a stream that waits on a mux, unless it is established.
    fn replace_unestablished(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key).filter(|one| one.phase == Phase::Connecting) else { return };
        let (Some(&BackendEnd { slot, generation, .. }), Some(id)) = (connection.backend(), connection.exchange) else {
            return;
        };
        let (slot, is_stream) = (usize::from(slot), connection.codec.stream().is_some());
        if self.upstreams.generation(slot) != Some(generation) {
            return self.lost(key, Failure::Unprocessed, false);
        }
        self.close(key, Output::Close(key));
        if is_stream { self.join(id, slot) } else { self.dial(id, slot) }
    }

    /// Writes the PROXY header of a connection to a backend that is established. It precedes all other bytes, also those
    /// of TLS. Nothing is written if the plan wants no header. `local`: returns the address that a client's socket has
    /// connected to.
    pub fn write_header(&mut self, key: Key, local: impl FnOnce(Key) -> Option<SocketAddr>, out: &mut Vec<u8>) {
        let Some(version) = self.upstreams.send_proxy else { return };
        let Some(&BackendEnd { slot, owner, .. }) = self.connections.get(key).and_then(Connection::backend) else {
            return;
        };
        let addresses = owner.and_then(|owner| {
            let client = self.connections.get(owner)?.client()?;
            let known = self.upstreams.owned.destinations.get(&owner).copied();
            Some(Addresses {
                source: SocketAddr::new(client.address, client.port),
                destination: known.or_else(|| local(owner))?,
            })
        });
        // The system did not know the address of such a client.
        let addresses = addresses.filter(|addresses| !addresses.source.ip().is_unspecified());
        proxy_header::write(out, version, addresses);
        self.shared.block.add_slot(SlotCount::ToBackend, slot.into(), out.len() as u64);
        if self.settings.trace {
            self.trace_sent(key, "PROXY header", out);
        }
    }
}

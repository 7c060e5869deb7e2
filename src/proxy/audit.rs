//! The invariants of the whole machine, checked over all that it holds. Nothing in the program asks for it:
//! the simulation and the fuzz target do, after each turn, so that a broken invariant shows when it breaks
//! and not when a request suffers from it.

use super::Proxy;
use super::codec::Codec;
use super::connection::{ClientEnd, Connection, Ending, Peer, Phase};
use super::mux::{Mux, Purpose};
use crate::balance::in_flight;
use crate::collections::slab::Key;

impl Proxy {
    /// Checks what must hold between two inputs, once all outputs were taken.
    ///
    /// # Errors
    /// The first invariant that is broken, in words.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_counts()?;
        self.audit_exchanges()?;
        self.audit_pool()?;
        self.audit_bonds()?;
        self.audit_muxes()
    }

    /// Checks what must hold when no client and no request is left: nothing holds a grown window.
    ///
    /// # Errors
    /// The first invariant that is broken, in words.
    pub fn audit_rest(&self) -> Result<(), String> {
        self.audit()?;
        holds(self.totals.grown == 0, || format!("windows are grown by {} bytes for nobody", self.totals.grown))?;
        holds(self.ledger.waiting.is_empty(), || format!("{} requests wait that are gone", self.ledger.waiting.len()))
    }

    fn all(&self) -> impl Iterator<Item = (Key, &Connection)> {
        self.connections.keys().filter_map(|key| Some((key, self.connections.get(key)?)))
    }

    fn audit_counts(&self) -> Result<(), String> {
        let clients = |wanted: bool| {
            let is = |peer: Peer| matches!(peer, Peer::Client(ClientEnd { admin, .. }) if admin == wanted);
            self.all().filter(|(_, one)| is(one.peer) && one.codec.stream().is_none()).count()
        };
        holds(clients(false) == self.totals.clients, || {
            format!("{} clients are counted as {}", clients(false), self.totals.clients)
        })?;
        holds(clients(true) == self.totals.admins, || {
            format!("{} admins are counted as {}", clients(true), self.totals.admins)
        })?;
        let growth = |connection: &Connection| {
            connection.client().map_or(0, |client| client.held)
                + connection.codec.stream().map_or(0, |stream| stream.growth)
        };
        let grown: u32 = self.all().map(|(_, connection)| growth(connection)).sum();
        holds(grown == self.totals.grown, || {
            format!("windows are grown by {grown} bytes, counted as {}", self.totals.grown)
        })?;
        for (slot, in_flight) in self.shared.in_flight.iter().enumerate() {
            let here =
                |key| self.exchanges.get(key).is_some_and(|exchange| exchange.upstream.slot() == Some(slot as u16));
            let (count, counted) =
                (self.exchanges.keys().filter(|&key| here(key)).count(), in_flight::count(in_flight));
            holds(count as u64 == counted, || format!("{count} requests in slot {slot} are counted as {counted}"))?;
        }
        Ok(())
    }

    fn audit_exchanges(&self) -> Result<(), String> {
        for id in self.exchanges.keys() {
            let Some(exchange) = self.exchanges.get(id) else { continue };
            for end in [Some(exchange.client), exchange.backend()].into_iter().flatten() {
                let back = self.connections.get(end).map(|connection| connection.exchange);
                holds(back == Some(Some(id)), || format!("exchange {id:?} has the end {end:?}, which has {back:?}"))?;
            }
            let queued = self.ledger.waiting.contains(&id);
            holds(exchange.is_queued() == queued, || {
                format!("exchange {id:?} is queued: {queued}, {:?}", exchange.upstream)
            })?;
        }
        for (key, connection) in self.all() {
            let Some(id) = connection.exchange else { continue };
            let is_end = self
                .exchanges
                .get(id)
                .is_some_and(|exchange| exchange.client == key || exchange.backend() == Some(key));
            holds(is_end, || format!("connection {key:?} is no end of its exchange {id:?}"))?;
        }
        Ok(())
    }

    /// The idle pool has each idle HTTP/1 connection to a backend of the plan, and no other.
    fn audit_pool(&self) -> Result<(), String> {
        let mut pooled = 0;
        for (slot, key) in self.upstreams.idle.all() {
            pooled += 1;
            let Some(one) = self.connections.get(key) else { return Err(format!("{key:?} is pooled and gone")) };
            holds(is_idle(one), || format!("{key:?} is pooled and not idle: {one:?}"))?;
            let at = one.backend().map(|backend| usize::from(backend.slot));
            holds(at == Some(slot) && self.upstreams.is_current(one.peer), || {
                format!("{key:?} is pooled in slot {slot}: {:?}", one.peer)
            })?;
            holds(one.input.is_none() && one.output.is_empty(), || format!("{key:?} is pooled with bytes"))?;
            holds(!one.has_ended() && one.is_sendable(), || format!("{key:?} is pooled at its end"))?;
        }
        let is_pooled = |(key, one): &(Key, &Connection)| is_idle(one) && !self.upstreams.bonds.contains_key(key);
        let idle = self.all().filter(is_pooled).count();
        holds(idle == pooled, || format!("{idle} connections are idle, {pooled} are pooled"))?;
        holds(pooled == self.upstreams.idle.len(), || {
            format!("{pooled} pooled connections count as {}", self.upstreams.idle.len())
        })
    }

    /// Each bound connection has its other one.
    fn audit_bonds(&self) -> Result<(), String> {
        for (key, connection) in self.all() {
            let Some(other) = self.upstreams.bonds.get(&key) else { continue };
            let is_other = |one: &Connection| one.is_client() != connection.is_client();
            let is_paired =
                self.upstreams.bonds.get(other) == Some(&key) && self.connections.get(*other).is_some_and(is_other);
            holds(is_paired, || format!("{key:?} is bound to {other:?}, which is not bound to it"))?;
        }
        Ok(())
    }

    fn audit_muxes(&self) -> Result<(), String> {
        for (slot, muxes) in self.upstreams.muxes.iter().enumerate() {
            for &key in muxes {
                let mux = self.connections.get(key).and_then(|one| one.codec.mux());
                let is_shared =
                    mux.and_then(Mux::upstream).is_some_and(|one| !one.draining && one.purpose == Purpose::Shared);
                holds(is_shared, || format!("{key:?} of slot {slot} is offered, and takes no streams"))?;
            }
        }
        for (key, connection) in self.all() {
            match &connection.codec {
                Codec::Http1(_) => {}
                Codec::Mux(mux) => {
                    holds(mux.h2.holds_its_window(), || format!("{key:?} has lost a part of its window"))?;
                    for stream in mux.streams() {
                        let mux_key =
                            self.connections.get(stream).and_then(|one| one.codec.stream()).map(|one| one.mux);
                        holds(mux_key == Some(key), || format!("{key:?} carries {stream:?}, which has {mux_key:?}"))?;
                    }
                }
                Codec::Stream(stream) if stream.id == 0 => {
                    let mux_key = self.connections.get(stream.mux).and_then(|one| one.codec.mux());
                    let waits = mux_key.and_then(Mux::upstream).is_some_and(|mux| mux.waiting.contains(&key));
                    holds(waits, || format!("stream {key:?} waits on no connection"))?;
                }
                Codec::Stream(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether a connection is to a backend and serves nobody, so that it belongs into the pool.
fn is_idle(connection: &Connection) -> bool {
    let open = connection.phase == Phase::Open && connection.after_flush == Ending::GoesOn;
    let http1 = matches!(connection.codec, Codec::Http1(_));
    let free = !connection.is_client() && !connection.is_probe();
    open && http1 && free && connection.exchange.is_none()
}

fn holds(invariant: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if invariant { Ok(()) } else { Err(text()) }
}

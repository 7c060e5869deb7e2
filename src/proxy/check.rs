//! The invariants of the whole machine, checked over its whole state. The program never calls this. The simulation and
//! the fuzz target do after each step, so a broken invariant shows when it breaks, not when a request suffers from it.
//!
//! 1. The client of every exchange is alive and points back. So is the backend's connection, which has the exchange's
//!    slot. No other connection points to the exchange.
//! 2. The in-flight count of each slot is the number of exchanges whose `Upstream` has that slot.
//! 3. The mux of a stream is alive and has the stream, either by number or in its waiting list. A tunnel of which both
//!    directions have ended on a backend's stream stays until the client has taken its bytes, even without the mux.
//! 4. No pooled connection has an exchange, input or output. The pool and the slab agree.
//! 5. The bytes by which windows have grown agree with their total, and are within the limit. Each client's stream is
//!    charged for what it holds, each mux to a client for its streams, and the loans are within the budget.
//! 6. A connection that was not read although it was readable cannot be read yet, or its client's stream holds content,
//!    or its client's mux was held back. Otherwise nothing would wake it.
//! 7. A connection to a backend that is for one client carries requests of this client only. The lists of these
//!    connections agree with the pool and the muxes.
//! 8. Every connection that waits for an event with a limit has a deadline. The state of a socket after the first half of
//!    a limit is known exactly in the second half.

use super::Proxy;
use super::codec::Codec;
use super::connection::{Connection, Ending, Half, Phase, Wait};
use super::exchange::{Exchange, Upstream};
use super::mux::{Mux, Scope, Sending, mux_bytes};
use super::progress::Progress;
use crate::balance::in_flight;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;
use crate::limits::{H2_GROWTH_BYTES, QUEUE_HIGH_BYTES};

impl Proxy {
    /// Checks the invariants that hold between two inputs, after all outputs were taken.
    ///
    /// # Errors
    /// A description of the first broken invariant.
    pub fn check(&self) -> Result<(), String> {
        self.check_exchanges()?;
        self.check_in_flight()?;
        self.check_muxes()?;
        self.check_streams()?;
        self.check_pool()?;
        self.check_bonds()?;
        self.check_owned()?;
        self.check_totals()?;
        self.check_loans()?;
        self.check_reads()?;
        self.check_deadlines()
    }

    /// Checks the invariants that hold after the last client and the last request are gone.
    ///
    /// # Errors
    /// A description of the first broken invariant.
    pub fn check_rest(&self) -> Result<(), String> {
        self.check()?;
        holds(self.totals.grown == 0, || format!("windows are grown by {} bytes for no client", self.totals.grown))?;
        holds(self.totals.lent == 0, || format!("{} bytes are lent to no client", self.totals.lent))?;
        holds(self.ledger.waiting.is_empty(), || format!("{} requests wait that are gone", self.ledger.waiting.len()))
    }

    fn all(&self) -> impl Iterator<Item = (Key, &Connection)> {
        self.connections.keys().filter_map(|key| Some((key, self.connections.get(key)?)))
    }

    fn all_exchanges(&self) -> impl Iterator<Item = (Key, &Exchange)> {
        self.exchanges.keys().filter_map(|id| Some((id, self.exchanges.get(id)?)))
    }

    fn check_exchanges(&self) -> Result<(), String> {
        for (id, exchange) in self.all_exchanges() {
            for end in [Some(exchange.client), exchange.backend()].into_iter().flatten() {
                let back = self.connections.get(end).map(|connection| connection.exchange);
                holds(back == Some(Some(id)), || format!("exchange {id:?} has the end {end:?}, which has {back:?}"))?;
            }
            if let Some(backend) = exchange.backend().and_then(|key| self.connections.get(key)) {
                let slot = backend.backend().map(|backend| backend.slot);
                holds(slot == exchange.upstream.slot(), || {
                    format!("exchange {id:?} is {:?}, and its connection has the slot {slot:?}", exchange.upstream)
                })?;
                let connecting = backend.phase == Phase::Connecting;
                holds(connecting == matches!(exchange.upstream, Upstream::Assigned { .. }), || {
                    format!("exchange {id:?} is {:?}, and its connection is {:?}", exchange.upstream, backend.phase)
                })?;
            }
            let places = self.ledger.waiting.all().filter(|&other| other == id).count();
            holds(usize::from(exchange.is_queued()) == places, || {
                format!("exchange {id:?} is {:?}, and has {places} places in the queue", exchange.upstream)
            })?;
        }
        for (key, connection) in self.all() {
            let Some(id) = connection.exchange else { continue };
            let is_end = |exchange: &Exchange| exchange.client == key || exchange.backend() == Some(key);
            holds(self.exchanges.get(id).is_some_and(is_end), || {
                format!("connection {key:?} is no end of its exchange {id:?}")
            })?;
        }
        Ok(())
    }

    fn check_in_flight(&self) -> Result<(), String> {
        for (slot, counted) in self.shared.in_flight.iter().enumerate() {
            let is_here = |exchange: &Exchange| exchange.upstream.slot().map(usize::from) == Some(slot);
            let count = self.all_exchanges().filter(|(_, exchange)| is_here(exchange)).count();
            let counted = in_flight::count(counted);
            holds(count as u64 == counted, || format!("{count} requests in slot {slot} are counted as {counted}"))?;
        }
        Ok(())
    }

    fn check_muxes(&self) -> Result<(), String> {
        for (slot, muxes) in self.upstreams.muxes.iter().enumerate() {
            for &key in muxes {
                let end = self.connections.get(key).and_then(Connection::backend);
                holds(end.is_some_and(|end| end.owner.is_none()), || format!("{key:?} is for one client: {end:?}"))?;
                let mux = self.connections.get(key).and_then(|one| one.codec.mux());
                let is_shared =
                    mux.and_then(Mux::upstream).is_some_and(|one| !one.draining && one.scope == Scope::Shared);
                holds(is_shared, || format!("{key:?} of slot {slot} is offered, and takes no streams"))?;
            }
        }
        for (key, connection) in self.all() {
            let Some(mux) = connection.codec.mux() else { continue };
            holds(mux.h2.holds_its_window(), || format!("{key:?} has lost a part of its window"))?;
            let waits = mux.downstream().is_some_and(|one| one.awaits_turn);
            holds(!waits || self.ledger.turns.contains(&key), || format!("{key:?} waits for a turn that never comes"))?;
            if let Some(upstream) = mux.upstream().filter(|_| connection.phase == Phase::Open) {
                let listed: Vec<_> = self.upstreams.idle.muxes().filter(|&(_, other)| other == key).collect();
                let place: Vec<_> = upstream.place.map(|place| (place, key)).into_iter().collect();
                let is_offered = upstream.scope == Scope::Shared && !upstream.draining && !connection.drops_input();
                holds(listed == place && place.len() == usize::from(is_offered && mux.is_idle()), || {
                    format!("{key:?} is pooled at {listed:?}: {connection:?}")
                })?;
            }
            for stream in mux.streams() {
                let mux_key = self.connections.get(stream).and_then(|one| one.codec.stream()).map(|one| one.mux);
                holds(mux_key == Some(key), || format!("{key:?} carries {stream:?}, whose mux is {mux_key:?}"))?;
            }
        }
        Ok(())
    }

    fn check_streams(&self) -> Result<(), String> {
        for (key, connection) in self.all() {
            let Some(stream) = connection.codec.stream() else { continue };
            // Both directions may end while the other connection still takes the bytes.
            let exchange = connection.exchange.and_then(|id| self.exchanges.get(id));
            let is_tunnel = exchange.is_some_and(Exchange::is_tunnel);
            let sent = exchange.is_some_and(|one| one.client == key && one.request == Progress::Ended && !is_tunnel);
            // The end of a tunnel's direction is behind content that the other connection has no room for.
            let held = is_tunnel && !stream.needs_bytes();
            let over = (connection.has_ended() || sent || held) && stream.sending == Sending::Ended;
            let mux = self.connections.get(stream.mux).and_then(|one| one.codec.mux());
            let Some(mux) = mux else {
                // A client's streams end with their mux.
                let outlives = over && is_tunnel && !connection.is_client();
                holds(outlives, || format!("the mux of stream {key:?} is gone"))?;
                continue;
            };
            let waiting = mux.upstream().map_or(0, |mux| mux.waiting.iter().filter(|&&other| other == key).count());
            let open = mux.h2.owners().filter(|&other| other == key).count();
            let expected = if stream.id == 0 { (1, 0) } else { (0, usize::from(!over)) };
            holds((waiting, open) == expected, || {
                format!("stream {key:?} with number {} waits {waiting} times and is open {open} times", stream.id)
            })?;
        }
        Ok(())
    }

    fn check_pool(&self) -> Result<(), String> {
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
        let count = self.upstreams.idle.len() - self.upstreams.idle.muxes().len();
        holds(pooled == count, || format!("{pooled} pooled connections are counted as {count}"))
    }

    fn check_bonds(&self) -> Result<(), String> {
        let bonds = &self.upstreams.bonds;
        for (key, other) in bonds {
            let ends = (self.connections.get(*key), self.connections.get(*other));
            let is_pair = matches!(ends, (Some(one), Some(other)) if one.is_client() != other.is_client());
            holds(is_pair && bonds.get(other) == Some(key), || {
                format!("{key:?} is bound to {other:?}, which is not bound to it")
            })?;
        }
        Ok(())
    }

    fn check_owned(&self) -> Result<(), String> {
        for (id, exchange) in self.all_exchanges() {
            let backend = exchange.backend().map(|key| self.carrier(key)).and_then(|key| self.connections.get(key));
            let owner = backend.and_then(Connection::backend).and_then(|backend| backend.owner);
            holds(owner.is_none_or(|owner| owner == self.carrier(exchange.client)), || {
                format!("exchange {id:?} of {:?} has a connection that is for {owner:?}", exchange.client)
            })?;
        }
        let mut pooled = 0;
        for (owner, ready) in self.upstreams.owned.all() {
            let backend = self.connections.get(ready.key).and_then(Connection::backend);
            let is_own = backend.is_some_and(|one| one.owner == Some(owner) && one.slot == ready.slot);
            let is_offered = || {
                let mux = self.connections.get(ready.key).and_then(|one| one.codec.mux()?.upstream());
                mux.is_some_and(|mux| mux.scope == Scope::Shared && !mux.draining)
            };
            let is_pooled = || self.upstreams.idle.all().any(|(_, key)| key == ready.key);
            let is_listed = if ready.place.is_some() { is_pooled() } else { is_offered() };
            holds(is_own && is_listed && self.connections.get(owner).is_some(), || {
                format!("{ready:?} is listed for {owner:?}: {backend:?}")
            })?;
            pooled += usize::from(ready.place.is_some());
        }
        let all = self.upstreams.idle.all().filter_map(|(_, key)| self.connections.get(key)?.backend());
        let owned = all.filter(|backend| backend.owner.is_some()).count();
        holds(owned == pooled, || format!("{owned} pooled connections are for one client, {pooled} are listed"))
    }

    fn check_totals(&self) -> Result<(), String> {
        let clients = |admin| {
            self.all()
                .filter(|(_, one)| one.is_client() && one.is_admin() == admin && one.codec.stream().is_none())
                .count()
        };
        let (counts, totals) = ((clients(false), clients(true)), (self.totals.clients, self.totals.admins));
        holds(counts == totals, || format!("{counts:?} clients and admins are counted as {totals:?}"))?;
        let mut sum = 0;
        for (key, connection) in self.all() {
            let held = connection.client().map_or(0, |client| client.held);
            holds(held == 0 || connection.output.len() >= QUEUE_HIGH_BYTES, || {
                format!("{key:?} holds {held} bytes of grown windows, and its queue has room")
            })?;
            sum += held + connection.codec.stream().map_or(0, |stream| stream.growth);
        }
        let total = self.totals.grown;
        holds(sum == total, || format!("windows are grown by {sum} bytes, counted as {total}"))?;
        holds(total <= H2_GROWTH_BYTES, || format!("windows are grown by {total} bytes"))
    }

    fn check_loans(&self) -> Result<(), String> {
        let mut sum = 0;
        for (key, connection) in self.all() {
            let Some(downstream) = connection.codec.mux().and_then(Mux::downstream) else { continue };
            sum += downstream.loan();
            let owned = self.all().filter(|(_, one)| one.backend().is_some_and(|end| end.owner == Some(key)));
            let owned: usize = owned.filter(|(_, one)| one.codec.mux().is_some()).map(|(_, one)| mux_bytes(one)).sum();
            holds(owned == downstream.owned, || {
                format!("{key:?} owns {owned} bytes, counted as {}", downstream.owned)
            })?;
            let mut charged = downstream.queued;
            let of_mux = |(_, entry): &(Key, &Connection)| entry.codec.stream().is_some_and(|stream| stream.mux == key);
            for (key, stream) in self.all().filter(of_mux) {
                let (charge, held) = (stream.codec.stream().map_or(0, |stream| stream.charged), self.held_by(stream));
                holds(charge == held, || format!("stream {key:?} is charged {charge} and holds {held}: {stream:?}"))?;
                charged += charge;
            }
            holds(charged == downstream.held, || {
                format!("{key:?} is charged {charged}, which are counted as {}", downstream.held)
            })?;
        }
        let streams = self.all().filter(|(_, one)| one.is_client() && one.codec.stream().is_some()).count();
        holds(streams == self.totals.streams, || format!("{streams} are counted as {}", self.totals.streams))?;
        let lent = self.totals.lent;
        holds(sum == lent, || format!("{sum} bytes are lent, counted as {lent}"))?;
        holds(lent <= H2_GROWTH_BYTES as usize, || format!("{lent} bytes are lent"))
    }

    /// True if the client's side of a backend's connection moves before that is read again.
    fn is_held_back(&self, connection: &Connection) -> bool {
        let exchange = connection.exchange.and_then(|id| self.exchanges.get(id)).filter(|_| !connection.is_client());
        let client = exchange.and_then(|exchange| self.connections.get(exchange.client));
        let Some(client) = client.filter(|client| client.codec.stream().is_some()) else { return false };
        let mux = client.codec.stream().and_then(|stream| self.connections.get(stream.mux));
        let downstream = mux.and_then(|mux| mux.codec.mux()?.downstream());
        !client.output.is_empty() || downstream.is_some_and(|downstream| downstream.is_held_back.get())
    }

    fn check_reads(&self) -> Result<(), String> {
        for (key, connection) in self.all() {
            let held_back = self.is_held_back(connection);
            holds(!connection.read_paused || !self.wants(key) || held_back, || {
                format!("{key:?} is not read, and nothing will wake it: {connection:?}")
            })?;
        }
        Ok(())
    }

    fn check_deadlines(&self) -> Result<(), String> {
        let in_second = |(key, one): (Key, &Connection)| (one.half == Half::Second).then_some(key);
        let (halves, known): (Vec<Key>, _) = (self.all().filter_map(in_second).collect(), &self.ledger.unacknowledged);
        holds(halves.len() == known.len() && halves.iter().all(|key| known.contains_key(key)), || {
            format!("{halves:?} are in second halves, and these are known: {known:?}")
        })?;
        for (key, connection) in self.all() {
            // A probe has one deadline, which is the one of its mux.
            let is_probe_stream = connection.is_probe() && connection.codec.stream().is_some();
            let wait = self.wait_of(key, connection);
            let limit_us = self.limit_us(wait, connection.is_admin());
            // A mux that did not answer a PING is draining, and its streams have deadlines of their own.
            let is_silent =
                wait == Wait::Ping && connection.codec.mux().and_then(Mux::upstream).is_some_and(|mux| mux.draining);
            let held_back = connection.wait == Wait::Nothing && self.is_held_back(connection);
            if wait == Wait::Nothing || is_probe_stream || is_silent || held_back || limit_us >= NEVER - self.now_us {
                continue;
            }
            let has_deadline = self.ledger.timers.get(key.index()) != NEVER || self.ledger.due.contains(&key.index());
            holds(has_deadline, || format!("{key:?} waits for {wait:?} without a deadline: {connection:?}"))?;
        }
        Ok(())
    }
}

/// True if a connection to a backend carries nothing, so that it belongs into the pool.
fn is_idle(connection: &Connection) -> bool {
    let open = connection.phase == Phase::Open && connection.after_flush == Ending::GoesOn;
    let http1 = matches!(connection.codec, Codec::Http1(_));
    let free = !connection.is_client() && !connection.is_probe();
    open && http1 && free && connection.exchange.is_none()
}

fn holds(invariant: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if invariant { Ok(()) } else { Err(text()) }
}

//! The backends' slots: who has which, by the plan that is followed, and what is noted about each.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::codec::ErrorCode;
use super::connection::{BackendEnd, Peer, Use};
use super::{Failure, Output, Proxy};
use crate::balance::Change;
use crate::balance::cells::{self, Cells};
use crate::collections::slab::Key;
use crate::config::{Address, Plan};
use crate::http::head::Version;
use crate::limits::{SEEN_US, SHOWN_NAMES};
use crate::log::Level;
use crate::metrics::{self, Block, Count, Listing, Place, SlotCount};

/// What a proxy shares with those in other workers.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// What all know about the backends.
    pub cells: Cells,
    /// What this one has in flight, by slot.
    pub in_flight: &'static [AtomicU64],
    /// What this one counts.
    pub block: Block,
    /// What each worker counts, this one among them; before these, what workers of other programs counted, if there
    /// is any.
    pub workers: &'static [Block],
    /// How many blocks come before the workers'.
    pub before: usize,
    /// How many of these have ever had a worker, from the first.
    pub used: &'static AtomicU64,
    /// What the master counts.
    pub globals: Block,
}

impl Shared {
    /// For one process alone, as tests and benches have it; it is never given back.
    pub fn private(slots: usize) -> Shared {
        let in_flight = (0..slots).map(|_| AtomicU64::new(0)).collect();
        let block = metrics::private(slots);
        Shared {
            cells: cells::private(slots),
            in_flight: Vec::leak(in_flight),
            block,
            workers: Vec::leak(vec![block]),
            before: 0,
            used: Box::leak(Box::new(AtomicU64::new(1))),
            globals: metrics::private(0),
        }
    }

    /// The blocks that count something.
    pub(super) fn counted(&self) -> &'static [Block] {
        let used = self.before + self.used.load(Relaxed) as usize;
        &self.workers[..used.min(self.workers.len())]
    }

    /// Makes zeros of all.
    pub fn wipe(self) {
        self.cells.wipe();
        self.in_flight.iter().for_each(|cell| cell.store(0, Relaxed));
    }
}

/// One address of a backend. It is kept when it has left the plan, for what is under way there.
#[derive(Debug)]
pub(super) struct Backend {
    /// It is in the plan.
    pub(super) current: bool,
    pub(super) generation: u64,
    /// As configured, with the address behind it where that says more.
    pub(super) label: String,
    /// What it gets as Host where it is to have its own.
    pub(super) host: String,
    address: Address,
    weight: u16,
    server_name: String,
    /// It speaks HTTP/2 without TLS.
    h2c: bool,
    /// What it was seen to speak over TLS, and how many streams at once it takes.
    pub(super) seen: Seen,
    /// It gets its own Host, whatever is said of others.
    pub(super) own_host: bool,
}

impl Backend {
    /// Whether both are addresses of one configured backend.
    pub(super) fn is_beside(&self, other: &Backend) -> bool {
        let over_tcp = |backend: &Backend| matches!(backend.address, Address::Tcp(_));
        over_tcp(self) && over_tcp(other) && self.host == other.host
    }

    /// The scheme of what it serves.
    pub(super) fn scheme(&self) -> &'static str {
        if self.server_name.is_empty() { "http" } else { "https" }
    }
}

/// What was seen of a backend, which may be out of date.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The one version of HTTP that it speaks over TLS, and until when that is believed, in
    /// microseconds.
    only: Option<(Version, u64)>,
    /// How many streams at once it takes on a connection, where it speaks HTTP/2.
    pub(super) streams: Option<usize>,
    /// The largest list of fields that it takes there.
    pub(super) list: Option<usize>,
    /// What it last found fault with when it ended an HTTP/2 connection.
    pub(super) fault: Option<ErrorCode>,
    /// How many in a row it has ended for that, without a response that came to its end between.
    pub(super) faults: u8,
}

impl Seen {
    fn only(&self, now_us: u64) -> Option<Version> {
        self.only.filter(|&(_, until_us)| now_us < until_us).map(|(version, _)| version)
    }
}

impl Proxy {
    /// From now on a plan is followed. Requests under way go on where they are; idle connections to
    /// backends that are gone are closed.
    pub fn follow(&mut self, plan: &Plan) {
        self.timeouts = plan.timeouts;
        self.host_header = plan.host_header.clone();
        self.trust = plan.trust.clone();
        self.via = plan.via.clone();
        self.request_ids = plan.request_ids;
        self.trace = plan.trace;
        self.health = plan.health.clone();
        self.log.set_level(plan.loglevel);
        self.unresolved = unresolved(&plan.unresolved);
        let before: Vec<Option<u64>> = (0..self.backends.len()).map(|slot| self.generation(slot)).collect();
        self.backends.iter_mut().flatten().for_each(|backend| backend.current = false);
        // There are places for as many slots as have ever been used: the first ones are used first.
        let used = plan.members.iter().map(|member| usize::from(member.slot) + 1).max().unwrap_or(0);
        self.backends.resize_with(used.min(self.shared.cells.slots()).max(self.backends.len()), || None);
        self.idle.grow(self.backends.len());
        self.muxes.resize_with(self.backends.len(), Vec::new);
        for member in &plan.members {
            let Some(place) = self.backends.get_mut(usize::from(member.slot)) else { continue };
            *place = Some(Backend {
                current: true,
                generation: member.generation,
                label: label(&member.name, &member.address),
                host: member.host.clone(),
                address: member.address.clone(),
                weight: member.weight,
                server_name: member.server_name.clone(),
                h2c: member.h2c,
                seen: place
                    .as_ref()
                    .filter(|before| before.generation == member.generation)
                    .map(|before| before.seen)
                    .unwrap_or_default(),
                own_host: member.own_host,
            });
            self.shared.block.adopt(member.slot.into(), member.generation);
        }
        self.listing = Arc::new(listing(plan));
        self.metrics_path.clone_from(&plan.metrics_path);
        self.balancer.set(plan.rules(), plan.picked_from());
        for (slot, gone) in before.into_iter().enumerate() {
            if gone.is_some() && self.generation(slot) != gone {
                while let Some(key) = self.idle.take(slot) {
                    self.close(key, Output::Close(key));
                }
                self.retire_muxes(slot);
            }
        }
        self.close_bound_to_gone();
        self.room_made = true;
        // Requests that waited for a backend that has left may wait on another's connection now, which may be idle.
        self.resume();
    }

    /// Whether the plan has a backend that may get requests, or a name that may lead to one.
    pub(super) fn has_backends(&self) -> bool {
        let mut current = self.backends.iter().flatten().filter(|backend| backend.current);
        !self.unresolved.is_empty() || current.any(|backend| backend.weight > 0)
    }

    /// Where the backend in a slot is.
    pub fn address(&self, slot: usize) -> Option<&Address> {
        Some(&self.backends.get(slot)?.as_ref()?.address)
    }

    /// The backend in a slot in words: as configured, with its address where that says more.
    pub fn label(&self, slot: usize) -> &str {
        self.backends.get(slot).and_then(Option::as_ref).map_or("", |backend| &backend.label)
    }

    /// Whether any backend of the plan speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        self.backends.iter().flatten().any(|backend| backend.current && !backend.server_name.is_empty())
    }

    /// Whom the certificate of the backend in a slot has to be for, where it speaks TLS.
    pub fn server_name(&self, slot: usize) -> Option<&str> {
        let name = &self.backends.get(slot)?.as_ref()?.server_name;
        (!name.is_empty()).then_some(name)
    }

    /// Whether the backend in a slot speaks HTTP/2, or may do.
    pub(super) fn may_multiplex(&self, slot: usize) -> bool {
        let backend = self.backends.get(slot).and_then(Option::as_ref);
        backend.is_some_and(|backend| {
            let http1 = backend.seen.only(self.now_us) == Some(Version::Http11);
            backend.h2c || !backend.server_name.is_empty() && !http1
        })
    }

    /// Whether the backend in a slot speaks HTTP/2 without TLS, and so nothing else.
    pub(super) fn is_h2c(&self, slot: usize) -> bool {
        self.backends.get(slot).and_then(Option::as_ref).is_some_and(|backend| backend.h2c)
    }

    /// Whether the backend in a slot speaks nothing but HTTP/2.
    pub(super) fn is_http2_only(&self, slot: usize) -> bool {
        let backend = self.backends.get(slot).and_then(Option::as_ref);
        let only = |backend: &Backend| backend.seen.only(self.now_us) == Some(Version::Http2);
        backend.is_some_and(|backend| backend.h2c || only(backend))
    }

    /// What was seen of the backend at the other end of a connection, if the slot is its still.
    pub(super) fn seen(&mut self, peer: Peer) -> Option<&mut Seen> {
        let Peer::Backend(BackendEnd { slot, generation, .. }) = peer else { return None };
        let backend = self.backends.get_mut(usize::from(slot))?.as_mut()?;
        (backend.generation == generation).then_some(&mut backend.seen)
    }

    /// A backend has shown over TLS that it speaks no other version of HTTP, at least there and then.
    pub(super) fn speaks_only(&mut self, peer: Peer, version: Version) {
        let until_us = self.now_us.saturating_add(SEEN_US);
        if let Some(seen) = self.seen(peer) {
            seen.only = Some((version, until_us));
        }
    }

    /// A backend has shown that it speaks HTTP/2.
    pub(super) fn speaks_http2(&mut self, peer: Peer) {
        if let Some(seen) = self.seen(peer) {
            seen.only = seen.only.filter(|&(version, _)| version == Version::Http2);
        }
    }

    /// A backend that was offered HTTP/1.1 alone has no use for that: what was to go there goes by
    /// HTTP/2, or to another. It has not failed.
    pub fn refuses_http1(&mut self, key: Key) {
        let Some(peer) = self.connections.get(key).map(|connection| connection.peer) else { return };
        self.speaks_only(peer, Version::Http2);
        self.lost(key, Failure::Unprocessed, false);
        self.resume();
    }

    /// Returns the peer of a fresh connection to a slot's backend.
    pub(super) fn backend_end(&self, slot: usize, used_for: Use) -> Peer {
        Peer::Backend(BackendEnd::new(slot as u16, self.generation(slot).unwrap_or(0), used_for))
    }

    /// Whether a connection is to a backend of the plan.
    pub(super) fn is_current(&self, peer: Peer) -> bool {
        matches!(peer, Peer::Backend(BackendEnd { slot, generation, .. }) if self.generation(slot.into()) == Some(generation))
    }

    /// Whose a slot is by the plan, if it is anyone's.
    pub(super) fn generation(&self, slot: usize) -> Option<u64> {
        self.backends.get(slot)?.as_ref().filter(|backend| backend.current).map(|backend| backend.generation)
    }

    /// The session on a connection to a backend was agreed on; `expiry_s`: when the backend's certificate
    /// expires, in seconds since 1970, where one was shown.
    pub fn secured(&mut self, key: Key, resumed: bool, expiry_s: Option<u64>) {
        let Some(Peer::Backend(BackendEnd { slot, generation, .. })) = self.connections.get(key).map(|one| one.peer)
        else {
            return;
        };
        let slot = usize::from(slot);
        let count = if resumed { SlotCount::HandshakesResumed } else { SlotCount::HandshakesFull };
        self.shared.block.add_slot(count, slot, 1);
        if let Some(expiry_s) = expiry_s
            && self.generation(slot) == Some(generation)
        {
            self.shared.cells.set_expiry(slot, expiry_s);
        }
    }

    /// A backend has failed, or we have, without a request that is logged for it.
    pub(super) fn note_failure(&mut self, slot: u16, failure: Failure) {
        if !self.count_failure(slot, failure) {
            self.log_backend(slot, failure);
        }
    }

    /// Counts that an exchange failed by its backend's fault, or by our own lack; whether the backend is down
    /// now, which is logged.
    pub(super) fn count_failure(&mut self, slot: u16, failure: Failure) -> bool {
        let slot = usize::from(slot);
        match failure {
            // No backend is to blame for what we lack.
            Failure::Exhausted(_) => self.shared.block.add(Count::Exhausted, 1),
            Failure::Busy => {}
            // Nor for a limit of ours.
            failure if failure.is_limit() => {}
            failure => {
                self.shared.block.add_slot(failure.reason(), slot, 1);
                if failure.is_before_request() {
                    self.shared.block.add_slot(SlotCount::ConnectsFailed, slot, 1);
                    self.shared.cells.suspect(slot);
                }
                if let Some(failures) = self.balancer.failed(slot, self.now_us) {
                    self.tell_down(slot, failures, "failures", format_args!("{failure}"));
                    return true;
                }
            }
        }
        false
    }

    /// A backend has answered as it should.
    pub(super) fn note_success(&mut self, slot: u16) {
        self.balancer.succeeded(slot.into());
    }

    /// A probe has passed, or failed for a reason.
    pub(super) fn note_probe(&mut self, slot: u16, failure: Option<&str>) {
        let slot = usize::from(slot);
        let count = if failure.is_none() { SlotCount::ProbesPassed } else { SlotCount::ProbesFailed };
        self.shared.block.add_slot(count, slot, 1);
        let change = self.balancer.probed(slot, failure.is_none(), self.now_us);
        let Some(Some(backend)) = self.backends.get(slot) else { return };
        let reason = failure.unwrap_or("passed");
        match change {
            Some(Change::Up(passes)) => {
                let text = format_args!("backend {} up after {passes} passed probes", backend.label);
                self.log.line(Level::Info, "health", text);
            }
            Some(Change::Down(failures)) => self.tell_down(slot, failures, "failed probes", format_args!("{reason}")),
            None => {
                self.log.line(Level::Debug, "health", format_args!("probe of {}: {reason}", backend.label));
            }
        }
        self.tell_outage();
    }

    fn tell_down(&mut self, slot: usize, count: u64, what: &str, reason: fmt::Arguments<'_>) {
        let Some(Some(backend)) = self.backends.get(slot) else { return };
        self.shared.block.add_slot(SlotCount::Ejections, slot, 1);
        let text = format_args!("backend {} down after {count} {what} ({reason})", backend.label);
        self.log.line(Level::Warn, "health", text);
    }

    /// Says that no backend is healthy, or that one is again, where that is news.
    pub(super) fn tell_outage(&mut self) {
        match self.balancer.take_news() {
            Some(true) => self.log.line(Level::Err, "health", format_args!("no backend is healthy: all are tried")),
            Some(false) => self.log.line(Level::Info, "health", format_args!("a backend is healthy again")),
            None => {}
        }
    }
}

/// The backends of a plan as metrics show them.
fn listing(plan: &Plan) -> Listing {
    let mut listing = Listing::new(plan.metrics_detail);
    for member in &plan.members {
        let address = match &member.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => path.display().to_string(),
        };
        let place = Place { slot: member.slot.into(), generation: member.generation };
        listing.add(&member.name, &address, place, member.weight, member.max);
    }
    plan.unresolved.iter().for_each(|name| listing.add_unresolved(name));
    for gone in &plan.gone {
        listing.add_gone(&gone.name, Place { slot: gone.slot.into(), generation: gone.generation });
    }
    listing
}

/// A backend in words: as configured, and its address where a name stands for it.
fn label(name: &str, address: &Address) -> String {
    match address {
        Address::Tcp(address) if address.to_string() != name => format!("{name} ({address})"),
        _ => name.into(),
    }
}

/// The rest of a sentence that names backends without addresses; not all of many.
fn unresolved(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown = names[..names.len().min(SHOWN_NAMES)].join(", ");
    let more = if names.len() > SHOWN_NAMES { ", ..." } else { "" };
    format!(": no address is known for {shown}{more}")
}

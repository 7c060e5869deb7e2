//! The memory that clients over HTTP/2 make a worker hold, and the budget that lends it.
//!
//! A client's stream is charged for the head of its request, content that is kept, its own input and output, the queue of its backend, and a
//! fixed amount for its records. Few bytes that wait are moved out of their blocks, so the charge is about the memory. A
//! mux is charged for its streams, its own queue, and its incomplete input, and for the queues of the muxes to backends
//! that it owns (`owned`). `H2_PARITY_BYTES` of that are free, which is as much as a connection over HTTP/1 may hold. One
//! budget of the worker lends the rest.
//!
//! A mux borrows no more than half of what is left, so there is always some for others. A mux that may not borrow gets
//! content only for streams that hold none, so a stalled stream never blocks another one, and gives its client no
//! credit. It is one of the borrowers then, which go on as soon as they may hold more. Content may be on its way before
//! that, because windows are open. A window cannot be taken back, so the first windows of all streams count as lent if a
//! mux asks for more. If there are too many streams even for that, and the budget is spent, the streams are reset whose
//! clients have taken nothing for longest, and then muxes are closed that are owned and that their backends do not read.
//!
//! Invariants: what a stream is charged for is what it holds. The sum of all loans is within the budget after every
//! input.

use super::super::Proxy;
use super::super::abort::Abort;
use super::super::connection::{Connection, Moved, Wait};
use super::super::output::Output;
use super::super::record::Reason;
use super::super::reply::LocalReply;
use super::super::state::Totals;
use super::{DownstreamState, MuxKind};
use crate::collections::buffer::Buffer;
use crate::collections::slab::Key;
use crate::http2::ErrorCode;
use crate::limits::{
    H2_BACKEND_WINDOW_BYTES, H2_FRAME_BYTES, H2_GROWTH_BYTES, H2_PARITY_BYTES, H2_STREAM_BYTES, H2_WINDOW_MAX_BYTES,
    QUEUE_HIGH_BYTES,
};
use crate::metrics::Count;

/// The budget, in the type of its sums.
const BUDGET: usize = H2_GROWTH_BYTES as usize;
/// The part of it that is lent to muxes that ask for more. The rest is for the windows of further streams.
const LENT: usize = BUDGET - BUDGET / 8;

impl DownstreamState {
    /// True if a stream is charged.
    pub(in crate::proxy) fn has_streams(&self) -> bool {
        self.held > self.queued
    }

    /// The bytes that the budget lends.
    pub(in crate::proxy) fn loan(&self) -> usize {
        self.held.saturating_sub(H2_PARITY_BYTES)
    }

    /// The mux may hold more if less than this is lent to all.
    fn lends_below(&self) -> usize {
        if self.held <= H2_PARITY_BYTES { usize::MAX } else { LENT.saturating_sub(2 * self.loan() + 1) }
    }
}

/// The bytes that a mux holds for itself: its queue, and input that waits or is an incomplete block of fields.
pub(in crate::proxy) fn mux_bytes(entry: &Connection) -> usize {
    let input = entry.input.as_ref().map_or(0, Buffer::len);
    entry.output.len() + input + entry.codec.mux().map_or(0, |mux| mux.h2.block_bytes())
}

impl Proxy {
    /// Returns the bytes that a client's stream holds.
    pub(in crate::proxy) fn held_by(&self, entry: &Connection) -> usize {
        let Some(stream) = entry.codec.stream() else { return 0 };
        let exchange = entry.exchange.and_then(|id| self.exchanges.get(id));
        let backend = exchange.and_then(|exchange| self.connections.get(exchange.backend()?));
        let forwarded = backend.map_or(0, |backend| backend.output.memory());
        let head = exchange.map_or(0, |exchange| exchange.saved.size() + exchange.kept.capacity());
        let input = entry.input.as_ref().map_or(0, Buffer::capacity);
        H2_STREAM_BYTES + head + input + forwarded + entry.output.memory() + stream.trailers.len()
    }

    /// Charges a client's stream or mux for what it holds now, or the owner of a mux to a backend.
    pub(in crate::proxy) fn recount(&mut self, key: Key) {
        let Some(entry) = self.connections.get(key) else { return };
        if let Some(end) = entry.backend() {
            if let (Some(owner), Some(upstream)) = (end.owner, entry.codec.mux().and_then(|mux| mux.upstream())) {
                let (before, now) = (upstream.charged, mux_bytes(entry));
                self.upstream_mut(key).into_iter().for_each(|upstream| upstream.charged = now);
                self.charge_owner(owner, before, now);
            }
            return;
        }
        if let Some(stream) = entry.codec.stream() {
            let (mux, before, now) = (stream.mux, stream.charged, self.held_by(entry));
            if let Some(stream) = self.connections.get_mut(key).and_then(|entry| entry.codec.stream_mut()) {
                stream.charged = now;
            }
            self.charge(mux, before, now);
        } else if let Some(downstream) = entry.codec.mux().and_then(|mux| mux.downstream()) {
            let (before, now) = (downstream.queued, downstream.owned + mux_bytes(entry));
            if let Some(downstream) = self.downstream_mut(key) {
                downstream.queued = now;
            }
            self.charge(key, before, now);
        }
    }

    /// Changes the charge of a client for a mux to a backend.
    pub(in crate::proxy) fn charge_owner(&mut self, owner: Key, before: usize, now: usize) {
        if before != now
            && let Some(downstream) = self.downstream_mut(owner)
        {
            downstream.owned = downstream.owned - before + now;
            self.recount(owner);
        }
    }

    /// Changes the charge of a part of a mux.
    pub(in crate::proxy) fn charge(&mut self, mux: Key, before: usize, now: usize) {
        if before == now {
            return;
        }
        let Some(downstream) = self.downstream_mut(mux) else { return };
        let loan = downstream.loan();
        downstream.held = downstream.held - before + now;
        let after = downstream.loan();
        let is_held_back = downstream.is_held_back.get();
        self.totals.lent = self.totals.lent - loan + after;
        if is_held_back && after < loan {
            self.note_borrower(mux);
        }
    }

    /// Notes that a mux goes on when it may hold more.
    fn note_borrower(&mut self, key: Key) {
        let Some(downstream) = self.downstream_mut(key) else { return };
        let is_known = std::mem::replace(&mut downstream.is_borrower, true);
        let below = downstream.lends_below();
        self.ledger.lends_below = self.ledger.lends_below.max(below);
        if !is_known {
            self.ledger.borrowers.push(key);
        }
    }

    /// Has the borrowers go on that may hold more now. Returns true if there are some.
    pub(in crate::proxy) fn wake_borrowers(&mut self) -> bool {
        if self.taken() >= self.ledger.lends_below {
            return false;
        }
        self.ledger.lends_below = 0;
        let woken = self.ledger.tending.len();
        for key in std::mem::take(&mut self.ledger.borrowers) {
            let Some(downstream) = self.downstream_mut(key) else { continue };
            downstream.is_borrower = false;
            let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { continue };
            let may = |downstream| self.lends(downstream) || mux.h2.owes_credit() && self.may_upload(downstream);
            match mux.downstream().is_some_and(may) {
                true => self.ledger.tending.push(key),
                false => self.note_borrower(key),
            }
        }
        self.ledger.tending.len() > woken
    }

    /// The bytes that the budget lends, and the growth of windows.
    fn taken(&self) -> usize {
        let Totals { lent, grown, .. } = self.totals;
        lent + grown as usize
    }

    /// The same, and the bytes that the first windows of streams to backends admit. A window cannot be taken back, so its
    /// bytes have to find room.
    pub(super) fn promised(&self) -> usize {
        self.taken() + self.totals.streams * H2_BACKEND_WINDOW_BYTES as usize
    }

    /// True if a mux that holds so many bytes may hold more of what backends send.
    fn lends(&self, downstream: &DownstreamState) -> bool {
        // That is half of what is left.
        self.promised() < downstream.lends_below()
    }

    /// True if a mux that holds so many bytes may hold more of what its client sends. Streams without content keep no
    /// client from its uploads.
    fn may_upload(&self, downstream: &DownstreamState) -> bool {
        self.taken() < downstream.lends_below()
    }

    /// True if the client of a mux may send a large head.
    pub(super) fn may_send_head(&self, mux: Key) -> bool {
        self.downstream(mux).is_some_and(|downstream| self.may_upload(downstream))
    }

    /// True if a connection takes more content now.
    pub(in crate::proxy) fn has_room(&self, entry: &Connection) -> bool {
        self.room_of(entry) > 0
    }

    /// The bytes of content that a connection takes now. A client's stream that may hold no more still takes a frame if
    /// it holds nothing, once its mux has room.
    pub(in crate::proxy) fn room_of(&self, entry: &Connection) -> usize {
        if entry.output.len() >= QUEUE_HIGH_BYTES {
            return 0;
        }
        let Some(stream) = entry.codec.stream().filter(|_| entry.is_client()) else { return usize::MAX };
        let Some(mux) = self.connections.living(stream.mux) else { return usize::MAX };
        let Some(downstream) = mux.codec.mux().and_then(|mux| mux.downstream()) else { return usize::MAX };
        if self.lends(downstream) {
            return usize::MAX;
        }
        if entry.output.is_empty() && mux.output.len() < QUEUE_HIGH_BYTES {
            return H2_FRAME_BYTES;
        }
        downstream.is_held_back.set(true);
        0
    }

    /// The bytes by which the window of a client's stream may grow.
    pub(in crate::proxy) fn spare(&self, mux: Key) -> u32 {
        let lends = self.downstream(mux).is_some_and(|downstream| self.lends(downstream));
        if lends { H2_WINDOW_MAX_BYTES } else { 0 }
    }

    /// Gives a client the credit that is due for its connection, if the mux may hold more.
    pub(super) fn credit_client(&mut self, key: Key) {
        let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { return };
        let Some(downstream) = mux.downstream().filter(|_| mux.h2.owes_credit()) else { return };
        if !self.may_upload(downstream) {
            return downstream.is_held_back.set(true);
        }
        self.scratch.text.clear();
        let Some(connection) = self.connections.living_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        mux.h2.credit(H2_WINDOW_MAX_BYTES, &mut self.scratch.text);
        connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
    }

    /// Has the streams go on that were held back, as far as they may. A different one is the first each time.
    pub(super) fn serve_held_back(&mut self, key: Key) {
        let Some(downstream) = self.downstream_mut(key) else { return };
        if !downstream.is_held_back.take() {
            return;
        }
        let turn = downstream.turn;
        downstream.turn = turn.wrapping_add(1);
        let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { return };
        let mut streams: Vec<Key> = mux.h2.owners().collect();
        let middle = turn % streams.len().max(1);
        streams.rotate_left(middle);
        for stream in streams {
            let exchange = self.connections.get(stream).and_then(|stream| stream.exchange);
            if let Some(opposite) = exchange.and_then(|id| self.opposite(id, stream)) {
                self.wake(opposite);
                self.changed(opposite, Moved::Nothing);
            }
        }
        let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { return };
        let Some(downstream) = mux.downstream() else { return };
        if mux.h2.owes_credit() && !self.may_upload(downstream) {
            downstream.is_held_back.set(true);
        }
        if downstream.is_held_back.get() {
            self.note_borrower(key);
        }
    }

    /// Resets streams if the budget is spent: those first whose clients have taken nothing for longest, then those that
    /// hold most. Returns true if it did.
    pub(in crate::proxy) fn relieve(&mut self) -> bool {
        if self.totals.lent <= BUDGET {
            return false;
        }
        let mut streams: Vec<(u64, Key)> = Vec::new();
        for key in self.connections.keys() {
            let Some(entry) = self.connections.get(key).filter(|entry| entry.is_client()) else { continue };
            let Some(stream) = entry.codec.stream() else { continue };
            if self.downstream(stream.mux).is_some_and(|mux| mux.loan() > 0) {
                let waits = entry.wait == Wait::ClientSend;
                let order = if waits { self.ledger.timers.get(key.index()) } else { u64::MAX - stream.charged as u64 };
                streams.push((order, key));
            }
        }
        streams.sort_unstable();
        let mut reset = 0;
        for (_, key) in streams {
            // Some more than necessary, so that the next byte does not cost another search.
            if self.totals.lent <= LENT {
                break;
            }
            reset += 1;
            self.reset_for_budget(key);
        }
        self.close_unread();
        self.shared.block.add(Count::H2BudgetExhausted, reset);
        reset > 0
    }

    /// Closes muxes that belong to clients with loans, and have no streams any more, if the budget is still spent: their
    /// backends do not read.
    fn close_unread(&mut self) {
        let borrows = |owner| self.downstream(owner).is_some_and(|owner| owner.loan() > 0);
        let is_unread = |key: &Key| {
            let Some(entry) = self.connections.get(*key) else { return false };
            let Some(upstream) = entry.codec.mux().filter(|mux| mux.is_idle()).and_then(|mux| mux.upstream()) else {
                return false;
            };
            upstream.charged > 0 && entry.backend().and_then(|end| end.owner).is_some_and(borrows)
        };
        if self.totals.lent <= BUDGET {
            return;
        }
        let unread: Vec<Key> = self.connections.keys().filter(is_unread).collect();
        for key in unread {
            if self.totals.lent > BUDGET {
                self.close(key, Output::Close(key));
            }
        }
    }

    fn reset_for_budget(&mut self, key: Key) {
        let Some(entry) = self.connections.get_mut(key) else { return };
        if let Some(stream) = entry.codec.stream_mut() {
            stream.code = ErrorCode::ENHANCE_YOUR_CALM;
        }
        match entry.wait {
            Wait::ClientSend => self.client_gone(key, Reason::ClientLeft(Abort::Stalled)),
            _ => self.upload_failed(key, Reason::Replied(LocalReply::NoMemory)),
        }
    }

    /// The state of a mux to a client.
    fn downstream(&self, key: Key) -> Option<&DownstreamState> {
        self.connections.get(key)?.codec.mux()?.downstream()
    }

    /// The state of a mux to a client.
    pub(in crate::proxy) fn downstream_mut(&mut self, key: Key) -> Option<&mut DownstreamState> {
        match &mut self.connections.get_mut(key)?.codec.mux_mut()?.kind {
            MuxKind::Downstream(downstream) => Some(downstream),
            MuxKind::Upstream(_) => None,
        }
    }
}

//! How an exchange ends: its response is complete, its backend failed, its client is gone, or the
//! balancer responds itself. Both connections are released, each for the use that it is fit for.

use super::connection::{BackendEnd, Connection, Ending, Moved, Peer, Phase};
use super::exchange::Progress;
use super::failure::Failure;
use super::probe;
use super::record::{Cause, Outcome};
use super::reply::LocalReply;
use super::{Output, Proxy};
use crate::collections::slab::Key;
use crate::http::framing::Body;
use crate::limits::{SAVED_HEAD_BYTES, SPARE_EXCHANGES};
use crate::metrics::{Count, OwnTime, SlotCount};

impl Proxy {
    /// The response has ended. An upload goes on after it if the backend may still read: it asked for nothing
    /// else by a response below 300, and has not ended its direction.
    pub(super) fn response_ended(&mut self, id: Key, left_over: bool) {
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        exchange.response = Progress::Ended;
        let (client, backend) = (exchange.client, exchange.backend);
        if !exchange.takes_rest {
            return self.finish(id, left_over);
        }
        let reads = backend.and_then(|key| self.connections.get(key)).is_some_and(|backend| !backend.is_closing());
        let until_close = self.connections.get(client).is_some_and(|client| client.codec.writes_until_close());
        if reads && !left_over && !until_close && self.is_uploading(id) {
            return backend.into_iter().for_each(|key| self.rearm(key, Moved::Nothing));
        }
        self.finish(id, left_over);
    }

    /// Ends an exchange whose response has ended once its upload has been sent too.
    pub(super) fn finish_if_over(&mut self, id: Key) {
        let ended = self.exchanges.get(id).is_some_and(|exchange| exchange.response == Progress::Ended);
        if ended && !self.is_uploading(id) {
            self.finish(id, false);
        }
    }

    /// Whether something of a request is still to come, or to be sent to its backend.
    fn is_uploading(&self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.get(id) else { return false };
        let backend = exchange.backend.and_then(|key| self.connections.get(key));
        let Some(backend) = backend.filter(|backend| backend.is_sendable()) else { return false };
        let sent = backend.codec.stream().map_or(backend.output.is_empty(), |stream| stream.ended);
        exchange.request != Progress::Ended || !sent
    }

    /// The response has ended: both connections go where they are fit to go.
    fn finish(&mut self, id: Key, left_over: bool) {
        let Some(exchange) = self.exchanges.get(id) else { return };
        let (client, backend) = (exchange.client, exchange.backend);
        let whole = exchange.request == Progress::Ended;
        // That its connection ends is how a client learns that the rest of its upload went nowhere.
        let persistent = exchange.persistent && whole;
        let last = exchange.facts.is_last();
        if let Some(slot) = exchange.slot {
            let (took_us, blamed) = (self.now_us.saturating_sub(exchange.began_us), exchange.blamed);
            self.shared.block.observe(OwnTime::Request, took_us);
            if !blamed {
                self.note_success(slot);
            }
        }
        self.remove_exchange(id);
        if let Some(connection) = backend.and_then(|key| self.connections.get_mut(key)) {
            let clean = whole && !left_over && connection.input.is_none();
            connection.backend_mut().into_iter().for_each(|backend| backend.persistent &= clean);
        }
        backend.into_iter().for_each(|key| self.release(key));
        self.release_client(client, whole, persistent, last);
    }

    /// Frees a client's connection after a response: for its next request, or to be closed.
    /// `whole`: so was the request, as it is if the connection goes on. `last`: nothing more is to be expected of the client.
    pub(super) fn release_client(&mut self, key: Key, whole: bool, persistent: bool, last: bool) {
        let Some(client) = self.connections.get_mut(key) else { return };
        if !persistent {
            // Bytes unread, or on their way, would turn a close into a reset.
            let ending = if !whole || !last || client.input.is_some() { Ending::Linger } else { Ending::Close };
            return self.end(key, ending);
        }
        client.exchange = None;
        client.codec.next_message();
        self.schedule_send(key);
        self.rearm(key, Moved::Nothing);
        self.resumed.push(key);
    }

    /// Puts a backend's connection into the pool where it is fit for another exchange, and
    /// closes it else.
    pub(super) fn release(&mut self, key: Key) {
        let Some(&BackendEnd { slot, generation, persistent, .. }) =
            self.connections.get(key).and_then(Connection::backend)
        else {
            return;
        };
        if self.connections.get(key).is_some_and(|one| one.codec.stream().is_some()) {
            return self.close(key, Output::Close(key));
        }
        let current = self.generation(slot.into()) == Some(generation);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.exchange = None;
        let fit = persistent && current && !connection.is_closing() && connection.is_drained();
        // A bound connection waits for its client.
        if !fit || self.draining || !self.bonds.contains_key(&key) && !self.idle.give(slot.into(), key) {
            return self.close(key, Output::Close(key));
        }
        connection.set_reused(true);
        connection.codec.next_message();
        self.rearm(key, Moved::Nothing);
        if self.idle.is_over() {
            self.evict_idle();
        }
    }

    /// Forgets an exchange, keeping its memory for another.
    pub(super) fn remove_exchange(&mut self, id: Key) {
        let Some(mut exchange) = self.exchanges.remove(id) else { return };
        if exchange.waiting {
            self.leave_room(id);
        }
        if let Some(slot) = exchange.slot.take() {
            self.balancer.finished(slot.into());
            self.room_made = true;
        }
        if self.spare.len() < SPARE_EXCHANGES {
            exchange.saved.shrink(SAVED_HEAD_BYTES);
            self.spare.push(exchange);
        }
    }

    /// A backend's connection is of no more use. Its exchange is tried again where that is
    /// safe; else the client is answered, or its response cut short where it has begun.
    pub(super) fn backend_failed(&mut self, key: Key, failure: Failure) {
        self.lost(key, failure, true);
    }

    /// The same, where the backend may have been blamed for it already.
    pub(super) fn lost(&mut self, key: Key, failure: Failure, blame: bool) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.codec.mux().is_some() {
            return self.mux_failed(key, failure);
        }
        match failure {
            // What we lack says nothing about the backend.
            Failure::Exhausted(_) if connection.is_probe() => return self.close(key, Output::Close(key)),
            _ if connection.is_probe() && failure.is_limit() => return self.probe_refused(key, failure),
            _ if connection.is_probe() => return self.probe_failed(key, probe::Cause::Failed(failure)),
            _ => {}
        }
        let (Peer::Backend(BackendEnd { slot, .. }), exchange) = (connection.peer, connection.exchange) else { return };
        if exchange.is_some_and(|id| self.upload_cut_off(id, key)) {
            return;
        }
        let Some(connection) = self.connections.get(key) else { return };
        let (used, drained, silent) = (connection.is_reused(), connection.is_drained(), connection.input.is_none());
        self.close(key, Output::Close(key));
        let Some(id) = exchange else { return };
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        exchange.backend = None;
        let silent = silent && exchange.is_unanswered();
        let closed = self.connections.get(exchange.client).is_none_or(|client| client.is_closing());
        // A client that has ended its direction has probably gone: no other backend gets what one may have seen.
        let unseen = failure.is_before_request() || failure == Failure::Unprocessed;
        let retry = failure.may_retry(exchange, silent) && (unseen || !closed);
        let silent = silent && failure.is_loss();
        // It has all that has come of the request, and may have waited for the rest in no_progress.
        let read_paused = silent && drained && exchange.request == Progress::Flowing;
        let stale = used && silent;
        let unasked = stale || retry && matches!(failure, Failure::Unprocessed | Failure::Refused);
        // That a connection went stale in the pool says nothing about its backend. Nor is a tunnel's end,
        // however it comes, told from one that its users agreed on.
        if stale {
            self.shared.block.add_slot(SlotCount::Stale, slot.into(), 1);
        } else if blame && !unasked && !exchange.tunnel && !exchange.blamed && !read_paused {
            self.count_failure(slot, failure);
        }
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        if let Some(slot) = exchange.slot.take() {
            self.balancer.finished(slot.into());
            self.room_made = true;
        }
        // That a backend could not be reached burdens none; what one may have seen does another.
        let seen = !unasked && failure.is_after_request();
        exchange.repeats += u8::from(seen);
        let rationed = failure == Failure::Refused && self.is_refused_again(id);
        if retry && unasked {
            self.was_not_asked(id, stale);
        }
        let reason = if unasked { Count::RetryStale } else { failure.retried_for() };
        if retry && self.try_again(id, seen || rationed, reason, (!unasked).then_some(failure)) {
            return;
        }
        let Some(exchange) = self.exchanges.get(id) else { return };
        if exchange.response == Progress::Waiting {
            return self.answer_exchange(id, LocalReply::Failed(failure));
        }
        let (client, tunnel, outcome) = (exchange.client, exchange.tunnel, Outcome::Cut(exchange.status));
        if !tunnel {
            self.log_exchange(id, outcome, Cause::Failed(failure));
        }
        self.remove_exchange(id);
        let until_close = self.connections.get(client).is_some_and(|client| client.codec.writes_until_close());
        self.end(client, if tunnel || until_close { Ending::Reset } else { Ending::Linger });
    }

    /// Ends an exchange whose backend has responded in full and reads no more of the upload; false if it has not
    /// responded. That is no failure, but the client's connection ends.
    fn upload_cut_off(&mut self, id: Key, backend: Key) -> bool {
        let Some(exchange) = self.exchanges.get_mut(id) else { return false };
        if exchange.response != Progress::Ended {
            return false;
        }
        exchange.persistent = false;
        exchange.backend = None;
        self.close(backend, Output::Close(backend));
        self.finish(id, true);
        true
    }

    /// A client's connection is gone: its exchange goes with it, and no backend is to blame.
    pub(super) fn client_gone(&mut self, key: Key, how: Output, cause: Cause) {
        let exchange = self.connections.get(key).and_then(|connection| connection.exchange);
        if let Some(id) = exchange {
            self.log_abandoned(id, cause);
        }
        self.close(key, how);
        if let Some(id) = exchange {
            self.abandon(id);
        }
    }

    /// Removes an exchange whose client is past helping; the backend's connection cannot be
    /// used again.
    fn abandon(&mut self, id: Key) {
        let backend = self.exchanges.get(id).and_then(|exchange| exchange.backend);
        self.remove_exchange(id);
        if let Some(key) = backend {
            self.close(key, Output::Close(key));
        }
    }

    /// A request's content was malformed, or did not come: the client is told so where nothing
    /// was answered yet, and the backend must not take what came for all of it.
    pub(super) fn upload_failed(&mut self, key: Key, answer: LocalReply) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else {
            // It has its response.
            return self.end(key, Ending::Linger);
        };
        let Some(exchange) = self.exchanges.get(id) else { return };
        let (response, outcome) = (exchange.response, exchange.cut_or(answer.status()));
        let request_id = exchange.id().map(<[u8]>::to_vec);
        if !exchange.tunnel && response != Progress::Ended {
            self.log_exchange(id, outcome, Cause::of(answer));
        }
        self.abandon(id);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange = None;
        }
        match response {
            Progress::Flowing => {
                let until_close = self.connections.get(key).is_some_and(|client| client.codec.writes_until_close());
                self.end(key, if until_close { Ending::Reset } else { Ending::Linger });
            }
            Progress::Ended => self.end(key, Ending::Linger),
            Progress::Waiting => self.end_with_answer(key, answer, request_id.as_deref()),
        }
    }

    /// Answers an exchange that no backend will.
    pub(super) fn answer_exchange(&mut self, id: Key, answer: LocalReply) {
        let Some(exchange) = self.exchanges.get(id) else { return };
        let (client, facts) = (exchange.client, exchange.facts);
        let whole = exchange.request == Progress::Ended || facts.body == Body::None;
        let request_id = self.log_answer(id, answer);
        self.remove_exchange(id);
        let goes_on = whole && facts.persistent && !self.draining;
        self.write_answer(client, &facts, goes_on, answer, request_id.as_deref());
        let Some(connection) = self.connections.get_mut(client) else { return };
        if whole && connection.phase == Phase::Open {
            let persistent = facts.persistent && !self.draining;
            self.release_client(client, true, persistent, facts.is_last());
        } else {
            self.end(client, Ending::Linger);
        }
    }
}

//! The end of an exchange: its response is complete, its backend has failed, its client is gone, or the proxy replies
//! itself. Each of these ends in `remove_exchange`, and both connections are released for their next use.
//!
//! `cut` is the only place that decides how a client's connection ends if its response is incomplete.

use super::Proxy;
use super::codec::ErrorCode;
use super::connection::{BackendEnd, Connection, Ending, Moved, Peer, Phase, Send};
use super::exchange::{Upstream, Verdict};
use super::failure::Failure;
use super::mux::Sending;
use super::output::Output;
use super::probe;
use super::progress::Progress;
use super::record::{Reason, STOPPED};
use super::reply::LocalReply;
use crate::collections::slab::Key;
use crate::http::framing::Body;
use crate::limits::{SAVED_HEAD_BYTES, SPARE_HEADS};
use crate::metrics::{Count, SlotCount};

/// The moment at which an incomplete response is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The client gets everything queued first.
    AfterQueue,
    /// The client takes nothing, or there is no time left.
    AtOnce,
}

impl Proxy {
    /// Ends the response side of an exchange. An upload continues after the response if the backend probably still
    /// reads it: the status was below 300, and the backend has not ended its direction.
    pub(super) fn response_ended(&mut self, id: Key, left_over: bool) {
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        exchange.response = Progress::Ended;
        let (client, backend) = (exchange.client, exchange.backend());
        if exchange.verdict != Verdict::UploadGoesOn {
            return self.finish(id, left_over);
        }
        let reads = backend.and_then(|key| self.connections.get(key)).is_some_and(|backend| !backend.is_closing());
        let until_close = self.connections.living(client).is_some_and(|client| client.codec.writes_until_close());
        if reads && !left_over && !until_close && self.is_uploading(id) {
            return backend.into_iter().for_each(|key| self.rearm(key, Moved::Nothing));
        }
        self.finish(id, left_over);
    }

    /// Ends an exchange whose response has ended if its upload has been sent too.
    pub(super) fn finish_if_over(&mut self, id: Key) {
        let ended = self.exchanges.get(id).is_some_and(|exchange| exchange.response == Progress::Ended);
        if ended && !self.is_uploading(id) {
            self.finish(id, false);
        }
    }

    /// True if some of a request has not arrived yet, or has not been sent to its backend yet.
    fn is_uploading(&self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.living(id) else { return false };
        let backend = exchange.backend().and_then(|key| self.connections.get(key));
        let Some(backend) = backend.filter(|backend| backend.is_sendable()) else { return false };
        let sent = backend.codec.stream().map_or(backend.output.is_empty(), |stream| stream.sending == Sending::Ended);
        exchange.request != Progress::Ended || !sent
    }

    /// Ends an exchange whose response has ended, and releases both connections.
    fn finish(&mut self, id: Key, left_over: bool) {
        let Some(exchange) = self.exchanges.living(id) else { return };
        let (client, backend) = (exchange.client, exchange.backend());
        let whole = exchange.request == Progress::Ended;
        // The end of the connection tells the client that the rest of its upload went nowhere.
        let persistent = exchange.persistent && whole;
        let last = exchange.facts.is_last();
        let succeeded = exchange.upstream.slot().filter(|_| exchange.verdict != Verdict::BackendFailed);
        succeeded.into_iter().for_each(|slot| self.upstreams.note_success(slot));
        self.remove_exchange(id, Reason::Complete);
        if let Some(connection) = backend.and_then(|key| self.connections.get_mut(key)) {
            let clean = whole && !left_over && connection.input.is_none();
            connection.backend_mut().into_iter().for_each(|backend| backend.persistent &= clean);
        }
        backend.into_iter().for_each(|key| self.release(key));
        self.release_client(client, whole, persistent, last);
    }

    /// Releases a client's connection after a response: for the next request, or to be closed. `whole`: the request
    /// was complete, which is always true if the connection goes on. `last`: the client will send nothing more.
    pub(super) fn release_client(&mut self, key: Key, whole: bool, persistent: bool, last: bool) {
        let Some(client) = self.connections.get_mut(key) else { return };
        if client.codec.stream().is_some() {
            return self.end(key, Ending::Close);
        }
        if !persistent {
            // Bytes that are unread or on their way would turn a close into a reset.
            let ending = if !whole || !last || client.input.is_some() { Ending::Linger } else { Ending::Close };
            return self.end(key, ending);
        }
        client.exchange = None;
        client.codec.next_message();
        let goes_on = client.has_unseen_input();
        self.schedule_send(key);
        self.changed(key, Moved::Nothing);
        if goes_on {
            self.decode_further(key);
        }
    }

    /// Puts a backend's connection into the pool if it can carry another exchange, and closes it otherwise.
    pub(super) fn release(&mut self, key: Key) {
        let Some(&end) = self.connections.get(key).and_then(Connection::backend) else { return };
        if self.connections.get(key).is_some_and(|one| one.codec.stream().is_some()) {
            return self.close(key, Output::Close(key));
        }
        let owned = end.owner.is_none_or(|owner| self.connections.get(owner).is_some());
        let current = owned && self.upstreams.is_current(Peer::Backend(end));
        let Some(connection) = self.connections.living_mut(key) else { return };
        connection.exchange = None;
        let fit = end.persistent && current && !connection.is_closing() && connection.is_drained();
        // A bound connection waits for its client.
        if !fit
            || self.shutdown.draining
            || !self.upstreams.bonds.contains_key(&key) && !self.upstreams.give_idle(end, key)
        {
            return self.close(key, Output::Close(key));
        }
        connection.set_reused(true);
        connection.codec.next_message();
        self.rearm(key, Moved::Nothing);
        if self.upstreams.idle.is_over() {
            self.evict_idle();
        }
    }

    /// Removes an exchange: the only exit of every exchange. The record is completed, and the memory is kept for
    /// another exchange.
    pub(super) fn remove_exchange(&mut self, id: Key, reason: Reason) {
        self.complete_record(id, reason);
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        let left = std::mem::replace(&mut exchange.upstream, Upstream::None);
        let mut saved = std::mem::take(&mut exchange.saved);
        self.exchanges.remove(id);
        self.leave(id, &left, None);
        if self.scratch.spare.len() < SPARE_HEADS {
            saved.shrink(SAVED_HEAD_BYTES);
            self.scratch.spare.push(saved);
        }
    }

    /// Handles the failure of a connection to a backend. The exchange is tried again if that is safe. Otherwise the
    /// client gets a local reply, or its response is cut if it has begun.
    pub(super) fn backend_failed(&mut self, key: Key, failure: Failure) {
        self.lost(key, failure, true);
    }

    /// Does the same. `blame`: the failure counts against the backend unless something else speaks against that.
    pub(super) fn lost(&mut self, key: Key, failure: Failure, blame: bool) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.codec.mux().is_some() {
            return self.mux_failed(key, failure);
        }
        match failure {
            // A lack of descriptors says nothing about the backend.
            Failure::Exhausted(_) if connection.is_probe() => return self.close(key, Output::Close(key)),
            _ if connection.is_probe() && failure.is_limit() => return self.probe_refused(key, failure),
            _ if connection.is_probe() => return self.probe_failed(key, probe::Cause::Failed(failure)),
            _ => {}
        }
        let (Some(&BackendEnd { slot, .. }), exchange) = (connection.backend(), connection.exchange) else { return };
        if exchange.is_some_and(|id| self.upload_cut_off(id)) {
            return;
        }
        let Some(connection) = self.connections.living(key) else { return };
        let (reused, drained, silent) = (connection.is_reused(), connection.is_drained(), connection.input.is_none());
        let asked = exchange.and_then(|id| self.exchanges.living(id));
        let (tunnel, tunnels) = asked.map_or((false, false), |asked| (asked.is_tunnel(), asked.may_tunnel()));
        self.cut_off(key, tunnels);
        let Some(id) = exchange else { return };
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        let silent = silent && exchange.is_unanswered();
        let client = exchange.client;
        let closing = self.connections.living(client).is_none_or(Connection::is_closing);
        // A client that has ended its direction has probably gone: a request that one backend may have seen goes to
        // no other.
        let unprocessed = matches!(failure, Failure::Unprocessed | Failure::NoExtendedConnect);
        let unseen = failure.is_before_request() || unprocessed;
        let retry = failure.may_retry(exchange, silent) && (unseen || !closing);
        let silent = silent && failure.is_loss();
        // The backend has everything that has arrived of the request, and may have waited for the rest.
        let starved = silent && drained && exchange.request == Progress::Flowing;
        let stale = reused && silent;
        let may_accept =
            failure == Failure::NoExtendedConnect && !self.upstreams.is_http2_only(slot.into(), self.now_us);
        let unasked = stale || retry && (may_accept || matches!(failure, Failure::Unprocessed | Failure::Refused));
        let judged = exchange.verdict == Verdict::BackendFailed;
        // A pooled connection that went stale says nothing about its backend. The end of a tunnel is never a failure,
        // because its users may have agreed on it.
        if stale {
            self.shared.block.add_slot(SlotCount::Stale, slot.into(), 1);
        } else if blame && !unasked && !tunnel && !judged && !starved {
            self.count_failure(slot, failure);
        }
        self.set_upstream(id, Upstream::None);
        // The queue of the backend is gone, and a retry may take a while.
        self.recount(client);
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        // A retry costs the budget only if a backend may have seen the request.
        let seen = !unasked && failure.is_after_request();
        exchange.tries.repeats += u8::from(seen);
        let rationed = failure == Failure::Refused && self.is_refused_again(id);
        if retry && unasked {
            self.was_not_asked(id, stale);
        }
        let count = if unasked { Count::RetryStale } else { failure.retried_for() };
        if retry && self.try_again(id, seen || rationed, count, (!unasked).then_some(failure)) {
            return;
        }
        let Some(exchange) = self.exchanges.living(id) else { return };
        let reply = LocalReply::Failed(failure);
        if exchange.response == Progress::Waiting {
            return self.answer_exchange(id, reply);
        }
        let reason = if tunnel { Reason::Tunnel } else { Reason::Replied(reply) };
        self.remove_exchange(id, reason);
        self.cut(client, Cut::AfterQueue, reason);
    }

    /// Ends an exchange whose backend has responded in full and reads no more of the upload. Returns false if the
    /// backend has not responded in full. This is no failure, but the client's connection ends.
    fn upload_cut_off(&mut self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.living_mut(id) else { return false };
        if exchange.response != Progress::Ended {
            return false;
        }
        exchange.persistent = false;
        self.finish(id, true);
        true
    }

    /// Ends a client's connection whose response is incomplete. The client must not take the response for complete,
    /// so the connection is reset if only its end would mark the end of the content, and a stream is reset always. A
    /// gRPC call ends with a status instead.
    pub(super) fn cut(&mut self, client: Key, when: Cut, reason: Reason) {
        if when == Cut::AtOnce {
            return self.close(client, Output::Reset(client));
        }
        if let Some((status, words)) = reason.call_end()
            && let Some(stream) = self.connections.living_mut(client).and_then(|client| client.codec.stream_mut())
            && stream.end_call(status, &words)
        {
            return self.end(client, Ending::Linger);
        }
        if let Some(stream) = self.connections.living_mut(client).and_then(|client| client.codec.stream_mut()) {
            // The end of a tunnel is no error of the balancer.
            let is_tunnel = reason == Reason::Tunnel || stream.sending == Sending::Tunnel;
            stream.code = if is_tunnel { ErrorCode::CANCEL } else { ErrorCode::INTERNAL_ERROR };
        }
        // A backend that has ended its direction of a tunnel has sent all.
        let is_open = |client: &Connection| client.codec.writes_until_close() && client.send != Send::Finished;
        let resets = |client: &Connection| client.codec.stream().is_some() || is_open(client);
        let reset = self.connections.living(client).is_some_and(resets);
        self.end(client, if reset { Ending::Reset } else { Ending::Linger });
    }

    /// Removes a client's connection, and its exchange with it. No backend is blamed.
    pub(super) fn client_gone(&mut self, key: Key, reason: Reason) {
        self.streams_gone(key, reason);
        let exchange = self.connections.get(key).and_then(|connection| connection.exchange);
        if let Some(id) = exchange {
            self.abandon(id, reason);
        }
        // A client that has got the end of its tunnel has got all.
        let is_open = self.connections.get(key).is_some_and(|client| client.send != Send::Finished);
        match reason.cuts_at_once() && (is_open || reason != Reason::Tunnel) {
            true => self.cut(key, Cut::AtOnce, reason),
            false => self.close(key, Output::Close(key)),
        }
    }

    /// Ends the request on a client's stream, because the program stops. A gRPC call ends with a status.
    pub(super) fn stop_stream(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let id = connection.exchange.take();
        let exchange = id.and_then(|id| self.exchanges.living(id));
        let waits = exchange.is_some_and(|exchange| exchange.response == Progress::Waiting);
        let is_call = connection.codec.asks_grpc();
        id.into_iter().for_each(|id| self.abandon(id, Reason::Stopped));
        if waits && is_call {
            self.write_call_end(key, LocalReply::Draining, STOPPED, None);
            return self.end(key, Ending::Linger);
        }
        self.cut(key, Cut::AfterQueue, Reason::Stopped);
    }

    /// Removes an exchange whose client or request has failed. The backend's connection cannot be reused.
    fn abandon(&mut self, id: Key, reason: Reason) {
        let Some(exchange) = self.exchanges.living(id) else { return };
        let (backend, tunnels) = (exchange.backend(), exchange.may_tunnel());
        self.remove_exchange(id, reason);
        backend.into_iter().for_each(|key| self.cut_off(key, tunnels));
    }

    /// Removes the connection of a backend whose exchange is incomplete. Only the end of a tunnel marks the end of its
    /// bytes, so the backend gets a reset if it may serve one, unless that end was sent. `tunnels`: it may.
    fn cut_off(&mut self, key: Key, tunnels: bool) {
        let is_open = self.connections.get(key).is_some_and(|backend| backend.send == Send::Open);
        self.close(key, if tunnels && is_open { Output::Reset(key) } else { Output::Close(key) });
    }

    /// Handles request content that was malformed or did not arrive. The client gets a local reply if its response
    /// has not begun. The backend's connection is closed, so that it does not take the content for complete.
    pub(super) fn upload_failed(&mut self, key: Key, reason: Reason) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else {
            // The client has its response.
            return self.end(key, Ending::Linger);
        };
        let Some(exchange) = self.exchanges.living(id) else { return };
        let (response, request_id) = (exchange.response, exchange.id().map(<[u8]>::to_vec));
        self.abandon(id, reason);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange = None;
        }
        match (response, reason.reply()) {
            (Progress::Waiting, Some(reply)) => self.end_with_answer(key, reply, request_id.as_deref()),
            (Progress::Ended, _) => self.end(key, Ending::Linger),
            (Progress::Flowing | Progress::Waiting, _) => self.cut(key, Cut::AfterQueue, reason),
        }
    }

    /// Ends an exchange with a local reply.
    pub(super) fn answer_exchange(&mut self, id: Key, reply: LocalReply) {
        let Some(exchange) = self.exchanges.living(id) else { return };
        let (client, facts) = (exchange.client, exchange.facts);
        let whole = exchange.request == Progress::Ended || facts.body == Body::None;
        let request_id = if reply.is_page() { None } else { exchange.id().map(<[u8]>::to_vec) };
        self.remove_exchange(id, Reason::Replied(reply));
        let goes_on = whole && facts.connection.persistent && !self.shutdown.draining;
        self.write_answer(client, &facts, goes_on, reply, request_id.as_deref());
        let Some(connection) = self.connections.living_mut(client) else { return };
        if whole && connection.phase == Phase::Open {
            let persistent = facts.connection.persistent && !self.shutdown.draining;
            self.release_client(client, true, persistent, facts.is_last());
        } else {
            self.end(client, Ending::Linger);
        }
    }
}

//! One request and its response: an exchange joins two ends, and its transitions are here, but for
//! how it comes by a backend (`assign`).
//!
//! The request flows from the client's head to its end, the response from the backend's final
//! head to its end; each is `Waiting`, `Flowing` or `Ended`. An exchange is over when the response
//! has ended, or when it can go no further: then it is removed, and both connections are
//! released, each to what it is fit for. After a 101 it is a tunnel, until both directions end.

use super::answer::Answer;
use super::connection::{Connection, Ending, Moved, Phase, Side};
use super::failure::Failure;
use super::{Output, Proxy};
use crate::balance::Pick;
use crate::collections::buffer::Buffer;
use crate::collections::slab::Key;
use crate::http::fields::Field;
use crate::http::forward::{self, After};
use crate::http::framing::{self, Body, RequestFacts, ResponseFacts, is_named_by_connection};
use crate::http::head::{Head, HeadRef, SavedHead, Version};
use crate::http::refusal::Refusal;
use crate::http1::write::Writer;
use crate::limits::{DISCARD_BYTES, INTERIM_RESPONSES, QUEUE_HIGH_BYTES, SAVED_HEAD_BYTES, SPARE_EXCHANGES, TRIES};
use crate::metrics::{Count, Exposition, SlotCount, SlotTime};

/// How far one direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its head has not come.
    Waiting,
    /// Its head has come, its end has not.
    Flowing,
    /// It is complete.
    Ended,
}

/// One request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Key,
    /// The connection lent or being made; `None` before `assign` and between tries.
    pub(super) backend: Option<Key>,
    pub(super) saved: SavedHead,
    pub(super) facts: RequestFacts,
    pub(super) request: Progress,
    pub(super) response: Progress,
    /// Content has been handed to a backend or dropped for it, and cannot be sent again.
    pub(super) content_sent: bool,
    /// Its backend was blamed for the response's status.
    blamed: bool,
    /// The response's Connection names further fields, which end here.
    options: bool,
    /// How many 1xx responses have come.
    interims: u16,
    /// A 100 has been passed on.
    continued: bool,
    /// Both connections carry bytes without messages.
    pub(super) tunnel: bool,
    /// The client's connection goes on after the response.
    pub(super) persistent: bool,
    pub(super) tries: u8,
    pub(super) tried: [u16; TRIES],
    /// The last backend that would not look at it, to be asked again where no other is left.
    pub(super) declined: Option<u16>,
    /// How often it was sent again after a backend had broken it off, stale connections apart.
    pub(super) repeats: u8,
    /// It was on an HTTP/2 connection that broke, which may be its doing.
    pub(super) suspect: bool,
    /// It waits for a backend to be below its limit, and is in the queue of those.
    pub(super) waiting: bool,
    /// It is to be tried once more, which is counted so.
    pub(super) again: Option<Count>,
    /// The slot that counts it as in flight.
    pub(super) slot: Option<u16>,
    /// When its head came, in microseconds.
    began_us: u64,
    /// When it was written to the backend, in microseconds.
    pub(super) sent_us: u64,
    /// Its response, where that is made here.
    pub(super) local: Option<Box<Exposition>>,
}

impl Exchange {
    fn new(client: Key, facts: RequestFacts, saved: SavedHead, began_us: u64) -> Exchange {
        Exchange {
            client,
            backend: None,
            saved,
            facts,
            request: Progress::Flowing,
            response: Progress::Waiting,
            content_sent: false,
            blamed: false,
            options: false,
            interims: 0,
            continued: false,
            tunnel: false,
            persistent: facts.persistent,
            tries: 0,
            tried: [0; TRIES],
            declined: None,
            repeats: 0,
            suspect: false,
            waiting: false,
            again: None,
            slot: None,
            began_us,
            sent_us: 0,
            local: None,
        }
    }

    /// Whether nothing of the response has come, interim ones included.
    pub(super) fn is_unanswered(&self) -> bool {
        self.response == Progress::Waiting && self.interims == 0
    }

    /// Whether the client waits for the backend to say that it may send the content.
    pub(super) fn awaits_continue(&self) -> bool {
        let undecided = !self.content_sent && !self.continued && self.response == Progress::Waiting;
        self.facts.expects_continue && undecided
    }
}

impl Proxy {
    /// A client has sent the head of a request.
    pub(super) fn on_request(&mut self, key: Key, head: HeadRef<'_>) {
        let facts = match framing::request(head) {
            Ok(_) if matches!(head.method(), b"CONNECT" | b"TRACE") => {
                return self.refuse(key, Refusal::MethodNotServed);
            }
            Ok(facts) => facts,
            Err(refusal) => return self.refuse(key, refusal),
        };
        let mut saved = self.spare.pop().map(|exchange| exchange.saved).unwrap_or_default();
        saved.save(head);
        let id = self.exchanges.insert(Exchange::new(key, facts, saved, self.now_us));
        let Some(client) = self.connections.get_mut(key) else { return };
        client.exchange = Some(id);
        client.used = true;
        client.codec.read_body(facts.body);
        if let Some(page) = self.page(key, head) {
            return self.answer_page(id, page);
        }
        self.balancer.requested(self.now_us);
        let pick = if self.waiting.is_empty() { self.pick(id) } else { Pick::Full };
        self.assign(id, pick);
    }

    /// Trailers have come, from either side.
    pub(super) fn on_trailers(&mut self, key: Key, trailers: HeadRef<'_>) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else { return };
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        // They cannot be sent again any more than content can.
        let from_client = exchange.client == key;
        exchange.content_sent |= from_client;
        let mut kept = Head::default();
        let trailers = match from_client {
            // What Connection names ends here in a trailer section too.
            true if exchange.facts.options => {
                let head = exchange.saved.view();
                let named = |field: &&Field| is_named_by_connection(head, trailers.get(field.name_span));
                kept.fields.extend(trailers.head.fields.iter().filter(|field| !named(field)));
                Some(HeadRef { bytes: trailers.bytes, head: &kept })
            }
            // What it named in a response is not kept; trailers may always be dropped (RFC 9110, 6.5.1).
            false if exchange.options => None,
            _ => Some(trailers),
        };
        let Some(peer) = self.peer(id, key).and_then(|peer| self.connections.get_mut(peer)) else { return };
        peer.codec.write_end(&mut peer.output, &mut self.buffers, trailers);
        // The end is written, so that the part `End` writes nothing more.
        peer.codec.write_body(Body::None);
    }

    /// Content has come, from either side; what is left of the input.
    pub(super) fn on_data(&mut self, key: Key, input: Option<Buffer>, length: usize) -> Option<Buffer> {
        let mut input = input?;
        let id = self.connections.get(key).and_then(|connection| connection.exchange);
        let target = id.and_then(|id| self.peer(id, key));
        // Dropped or sent, content that has left the input cannot be sent again.
        if self.connections.get(key).is_some_and(Connection::is_client)
            && let Some(exchange) = id.and_then(|id| self.exchanges.get_mut(id))
        {
            exchange.content_sent = true;
        }
        let Some(peer) = target.and_then(|target| self.connections.get_mut(target)).filter(|peer| !peer.unsendable)
        else {
            input.consume(length);
            if id.is_none() {
                self.discarded(key, length);
            }
            return Some(input);
        };
        let rest = peer.codec.write_data(&mut peer.output, &mut self.buffers, input, length);
        if let Some(target) = target {
            self.announce(target);
            self.rearm(target, Moved::Nothing);
        }
        rest
    }

    /// A message is complete, from either side. `left_over`: more bytes came behind it, or no
    /// more can come.
    pub(super) fn on_end(&mut self, key: Key, left_over: bool) {
        let Some(connection) = self.connections.get(key) else { return };
        let is_client = connection.is_client();
        let Some(id) = connection.exchange else {
            // The rest of a request that was answered before it was whole.
            return self.release_client(key, true, true, false);
        };
        let target = self.peer(id, key);
        if let Some(peer) = target.and_then(|target| self.connections.get_mut(target)) {
            peer.codec.write_end(&mut peer.output, &mut self.buffers, None);
        }
        if is_client {
            if let Some(exchange) = self.exchanges.get_mut(id) {
                exchange.request = Progress::Ended;
            }
            if let Some(target) = target {
                self.announce(target);
                self.rearm(target, Moved::Nothing);
            }
        } else {
            self.finish(id, left_over);
        }
    }

    /// A backend has sent a 1xx response: passed on to a client that knows what it is, and has room for it
    /// or waits for it. No window bounds how many come.
    pub(super) fn on_interim(&mut self, key: Key, head: HeadRef<'_>) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else { return };
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        exchange.interims += 1;
        if exchange.interims > INTERIM_RESPONSES {
            return self.backend_failed(key, Failure::Malformed(Refusal::TooManyInterims));
        }
        let unexpected = head.status() == 100 && !exchange.facts.expects_continue;
        let full = self.connections.get(exchange.client).is_some_and(|client| client.output.len() >= QUEUE_HIGH_BYTES);
        let unwanted = full && !(head.status() == 100 && exchange.awaits_continue());
        if exchange.facts.version == Version::Http10 || unexpected || unwanted {
            return self.connections.get_mut(key).into_iter().for_each(|backend| backend.vain = true);
        }
        exchange.continued |= head.status() == 100;
        let client = exchange.client;
        self.text.clear();
        let mut writer = Writer::new(&mut self.text);
        forward::interim(&mut writer, head);
        writer.finish();
        self.write_to_client(client, "interim response head");
    }

    /// A backend has sent the head of its final response, or of a 101.
    pub(super) fn on_response(&mut self, key: Key, head: HeadRef<'_>) {
        let Some(backend) = self.connections.get_mut(key) else { return };
        let Side::Backend { slot, .. } = backend.side else { return };
        let Some(id) = backend.exchange else { return };
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        if head.status() == 101 {
            return self.on_switching(id, key, slot, head);
        }
        let facts = match framing::response(head, &exchange.facts) {
            Ok(facts) => facts,
            Err(refusal) => return self.backend_failed(key, Failure::Malformed(refusal)),
        };
        backend.codec.read_body(facts.body);
        (backend.persistent, backend.vain) = (facts.persistent, false);
        exchange.response = Progress::Flowing;
        exchange.options = facts.options;
        exchange.blamed = self.health.count_5xx && facts.status >= 500;
        let (blamed, sent_us) = (exchange.blamed, exchange.sent_us);
        let (body, after) = to_client(exchange, &facts, self.draining);
        exchange.persistent = after != After::Ends;
        let client = exchange.client;
        self.text.clear();
        let mut writer = Writer::new(&mut self.text);
        forward::response(&mut writer, head, &facts, body, after, self.via.as_deref());
        writer.finish();
        if let Some(client) = self.connections.get_mut(client) {
            client.codec.write_body(body);
        }
        self.write_to_client(client, "response head");
        self.count_response(slot, facts.status, sent_us);
        if blamed {
            self.note_failure(slot, Failure::Status(facts.status));
        }
    }

    /// Counts the response to a request that was sent then.
    fn count_response(&mut self, slot: u16, status: u16, sent_us: u64) {
        self.shared.block.add_response(slot.into(), status);
        self.shared.block.observe(SlotTime::Response, slot.into(), self.now_us.saturating_sub(sent_us));
    }

    /// Queues the text written for a client.
    pub(super) fn write_to_client(&mut self, client: Key, what: &str) {
        let Some(connection) = self.connections.get_mut(client) else { return };
        connection.output.write(&mut self.buffers, &self.text);
        if self.trace {
            self.trace_sent(client, what);
        }
        self.announce(client);
        self.rearm(client, Moved::Nothing);
    }

    /// A backend has agreed to switch protocols: a tunnel from here on.
    fn on_switching(&mut self, id: Key, key: Key, slot: u16, head: HeadRef<'_>) {
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        if !exchange.facts.upgrades || exchange.request != Progress::Ended {
            return self.backend_failed(key, Failure::Malformed(Refusal::SwitchUnasked));
        }
        exchange.tunnel = true;
        exchange.response = Progress::Flowing;
        let (client, sent_us) = (exchange.client, exchange.sent_us);
        self.count_response(slot, head.status(), sent_us);
        // It has done what it was asked for; what comes then is its users' affair.
        self.note_success(slot);
        self.text.clear();
        let mut writer = Writer::new(&mut self.text);
        forward::switching(&mut writer, head);
        writer.finish();
        for end in [client, key] {
            if let Some(connection) = self.connections.get_mut(end) {
                connection.codec.tunnel();
            }
        }
        self.write_to_client(client, "response head");
        // What the client sent behind its request goes first.
        self.resumed.push(client);
    }

    /// One direction of a tunnel has ended: the other connection is told so.
    pub(super) fn tunnel_ended(&mut self, key: Key) {
        let id = self.connections.get(key).and_then(|connection| connection.exchange);
        let Some(peer) = id.and_then(|id| self.peer(id, key)) else { return };
        if let Some(connection) = self.connections.get_mut(peer)
            && !connection.finished
        {
            connection.ending = Ending::Finish;
            self.settle(peer);
        }
        self.tunnel_settled(key);
    }

    /// Closes a tunnel both of whose directions have ended.
    pub(super) fn tunnel_settled(&mut self, key: Key) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else { return };
        let Some(peer) = self.peer(id, key) else { return };
        let over = |end| self.connections.get(end).is_none_or(|connection| connection.ended && connection.finished);
        if over(key) && over(peer) {
            self.remove_exchange(id);
            self.close(key, Output::Close(key));
            self.close(peer, Output::Close(peer));
        }
    }

    /// The response has ended: both connections go where they are fit to go.
    fn finish(&mut self, id: Key, left_over: bool) {
        let Some(exchange) = self.exchanges.get(id) else { return };
        let (client, backend) = (exchange.client, exchange.backend);
        let (whole, persistent) = (exchange.request == Progress::Ended, exchange.persistent);
        let last = exchange.facts.is_last();
        if let Some(slot) = exchange.slot {
            let (took_us, blamed) = (self.now_us.saturating_sub(exchange.began_us), exchange.blamed);
            self.shared.block.observe(SlotTime::Request, slot.into(), took_us);
            if !blamed {
                self.note_success(slot);
            }
        }
        self.remove_exchange(id);
        if let Some(connection) = backend.and_then(|key| self.connections.get_mut(key)) {
            connection.persistent &= whole && !left_over;
        }
        backend.into_iter().for_each(|key| self.release(key));
        self.release_client(client, whole, persistent, last);
    }

    /// Frees a client's connection after a response: for its next request, or to be closed.
    /// `whole`: so was the request. `last`: nothing more is to be expected of the client.
    pub(super) fn release_client(&mut self, key: Key, whole: bool, persistent: bool, last: bool) {
        let Some(client) = self.connections.get_mut(key) else { return };
        if !persistent {
            // Bytes unread, or on their way, would turn a close into a reset.
            let ending = if !whole || !last || client.input.is_some() { Ending::Linger } else { Ending::Close };
            return self.end(key, ending);
        }
        client.exchange = None;
        client.discarded = 0;
        if whole {
            client.codec.next_message();
        }
        self.announce(key);
        self.rearm(key, Moved::Nothing);
        self.resumed.push(key);
    }

    /// Part of a request was dropped that has its response already. A client that sends on and on
    /// is not waited for.
    fn discarded(&mut self, key: Key, length: usize) {
        let Some(client) = self.connections.get_mut(key) else { return };
        client.discarded = client.discarded.saturating_add(length as u32);
        if client.discarded as usize > DISCARD_BYTES {
            self.end(key, Ending::Linger);
        }
    }

    /// Puts a backend's connection into the pool where it is fit for another exchange, and
    /// closes it else.
    pub(super) fn release(&mut self, key: Key) {
        let Some(Side::Backend { slot, generation }) = self.connections.get(key).map(|one| one.side) else { return };
        if self.connections.get(key).is_some_and(|one| one.codec.stream().is_some()) {
            return self.close(key, Output::Close(key));
        }
        let current = self.generation(slot.into()) == Some(generation);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.exchange = None;
        let fit =
            connection.persistent && current && !connection.ended && !connection.closing && connection.is_drained();
        if !fit || self.draining || !self.idle.give(slot.into(), key) {
            return self.close(key, Output::Close(key));
        }
        connection.used = true;
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
        if connection.codec.multiplex().is_some() {
            return self.carrier_failed(key, failure);
        }
        match failure {
            // What we lack says nothing about the backend.
            Failure::Exhausted(_) if connection.probe => return self.close(key, Output::Close(key)),
            _ if connection.probe && failure.is_limit() => return self.probe_refused(key, failure),
            _ if connection.probe => return self.probe_failed(key, format_args!("{failure}")),
            _ => {}
        }
        let (Side::Backend { slot, .. }, exchange) = (connection.side, connection.exchange) else { return };
        let (used, drained, silent) = (connection.used, connection.is_drained(), connection.input.is_none());
        self.close(key, Output::Close(key));
        let Some(id) = exchange else { return };
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        exchange.backend = None;
        let silent = silent && exchange.is_unanswered();
        let retry = failure.may_retry(exchange, silent);
        let silent = silent && failure.is_loss();
        // It has all that has come of the request, and may have waited for the rest in vain.
        let starved = silent && drained && exchange.request == Progress::Flowing;
        let stale = used && silent;
        let unasked = stale || retry && failure == Failure::Unprocessed;
        // That a connection went stale in the pool says nothing about its backend. Nor is a tunnel's end,
        // however it comes, told from one that its users agreed on.
        if stale {
            self.shared.block.add_slot(SlotCount::Stale, slot.into(), 1);
        } else if blame && !unasked && !exchange.tunnel && !exchange.blamed && !starved {
            self.note_failure(slot, failure);
        }
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        if let Some(slot) = exchange.slot.take() {
            self.balancer.finished(slot.into());
            self.room_made = true;
        }
        // That a backend could not be reached burdens none; what one may have seen does another.
        let seen = !unasked && failure.is_after_request();
        exchange.repeats += u8::from(seen);
        if retry && unasked {
            self.was_not_asked(id, stale);
        }
        let reason = if unasked { Count::RetryStale } else { failure.retried_for() };
        if retry && self.try_again(id, seen, reason) {
            return;
        }
        let Some(exchange) = self.exchanges.get(id) else { return };
        if exchange.response == Progress::Waiting {
            return self.answer_exchange(id, Answer::Failed(failure));
        }
        let (client, tunnel) = (exchange.client, exchange.tunnel);
        self.remove_exchange(id);
        let until_close = self.connections.get(client).is_some_and(|client| client.codec.writes_until_close());
        self.end(client, if tunnel || until_close { Ending::Reset } else { Ending::Linger });
    }

    /// A client's connection is gone: its exchange goes with it, and no backend is to blame.
    pub(super) fn client_gone(&mut self, key: Key, how: Output) {
        let exchange = self.connections.get(key).and_then(|connection| connection.exchange);
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
    pub(super) fn upload_failed(&mut self, key: Key, answer: Answer) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else {
            // It has its response.
            return self.end(key, Ending::Linger);
        };
        let begun = self.exchanges.get(id).is_some_and(|exchange| exchange.response != Progress::Waiting);
        self.abandon(id);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.exchange = None;
        }
        if begun {
            let until_close = self.connections.get(key).is_some_and(|client| client.codec.writes_until_close());
            self.end(key, if until_close { Ending::Reset } else { Ending::Linger });
        } else {
            self.answer_client(key, answer);
        }
    }

    /// Answers an exchange that no backend will.
    pub(super) fn answer_exchange(&mut self, id: Key, answer: Answer) {
        let Some(exchange) = self.exchanges.get(id) else { return };
        let (client, facts) = (exchange.client, exchange.facts);
        let whole = exchange.request == Progress::Ended || facts.body == Body::None;
        self.remove_exchange(id);
        self.write_answer(client, &facts, whole && facts.persistent && !self.draining, answer);
        let Some(connection) = self.connections.get_mut(client) else { return };
        if whole && connection.phase == Phase::Open {
            let persistent = facts.persistent && !self.draining;
            self.release_client(client, true, persistent, facts.is_last());
        } else {
            self.end(client, Ending::Linger);
        }
    }
}

/// How a response is framed for the client, and what becomes of its connection after it.
fn to_client(exchange: &Exchange, facts: &ResponseFacts, draining: bool) -> (Body, After) {
    let old = exchange.facts.version == Version::Http10;
    let body = match facts.body {
        Body::None => Body::None,
        Body::Length(length) => Body::Length(length),
        Body::Chunked | Body::UntilClose if old => Body::UntilClose,
        Body::Chunked | Body::UntilClose => Body::Chunked,
    };
    // An answer before the request is whole ends the connection where the rest may never come,
    // or is of no use.
    let early = exchange.request == Progress::Flowing
        && (facts.status >= 300 || exchange.facts.expects_continue && !exchange.content_sent);
    let after = match exchange.facts.persistent && !draining && !early && body != Body::UntilClose {
        false => After::Ends,
        true if old => After::GoesOnSaid,
        true => After::GoesOn,
    };
    (body, after)
}

//! One request and its response: an exchange joins two ends. This file has the request's side. `assign` finds a
//! backend, `response` and `tunnel` have the backend's side, and `finish` ends an exchange.
//!
//! The request flows from the client's head to its end, and the response from the backend's final head to its end.
//! `Progress` is the state of each direction. `Upstream` is the state of the backend's side, and `set_upstream` is
//! the only transition between its states. An exchange is over when the response has ended, or when neither side
//! can continue. Then `remove_exchange` removes it, and both connections are released for their next use.
//!
//! Invariant: an exchange is counted as in flight for a slot while its `Upstream` has that slot.

use super::Proxy;
use super::connection::{ClientEnd, Moved, Peer, Receive};
use super::progress::Progress;
use super::record::Record;
use super::reply::LocalReply;
use crate::balance::Pick;
use crate::collections::buffer::Buffer;
use crate::collections::slab::Key;
use crate::http::fields::{Field, Span};
use crate::http::framing::{self, Body, Kind, RequestFacts, is_named_by_connection};
use crate::http::grpc;
use crate::http::head::{Head, HeadRef, SavedHead};
use crate::http::message_error::MessageError;
use crate::http::request_id::{self, Uuid};
use crate::limits::{KEPT_CONTENT_BYTES, TRIES};
use crate::metrics::{Count, Exposition};

// `Tries::declined` has a bit for each try.
const _: () = assert!(TRIES <= u8::BITS as usize);

/// The length of the random part of a WebSocket key (RFC 6455, 4.1).
const NONCE_BYTES: usize = 16;

/// The id of a request.
#[derive(Clone, Copy, Debug)]
enum RequestId {
    /// Requests get no ids.
    None,
    /// A trusted peer sent the id, which is at this place in the saved head.
    Given(Span),
    /// The proxy made the id.
    Made(Uuid),
}

/// The state of the upstream side of an exchange.
#[derive(Debug)]
pub(super) enum Upstream {
    /// The exchange has no backend: before the first pick and between two tries.
    None,
    /// Every backend is full, so the exchange is in the queue `waiting`.
    Queued,
    /// The connection is being established, or is a stream that waits to be opened.
    Assigned { slot: u16, key: Key },
    /// The request is written to the connection.
    Open { slot: u16, key: Key },
    /// Both connections carry bytes without messages.
    Tunnel { slot: u16, key: Key },
    /// The proxy generates the response.
    Page(Box<Exposition>),
}

impl Upstream {
    /// Returns the backend's connection.
    pub(super) fn key(&self) -> Option<Key> {
        match *self {
            Upstream::Assigned { key, .. } | Upstream::Open { key, .. } | Upstream::Tunnel { key, .. } => Some(key),
            Upstream::None | Upstream::Queued | Upstream::Page(_) => None,
        }
    }

    /// Returns the slot for which the exchange is counted as in flight.
    pub(super) fn slot(&self) -> Option<u16> {
        match *self {
            Upstream::Assigned { slot, .. } | Upstream::Open { slot, .. } | Upstream::Tunnel { slot, .. } => Some(slot),
            Upstream::None | Upstream::Queued | Upstream::Page(_) => None,
        }
    }
}

/// The state of a request's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing has left the client's input, so the request can be sent again.
    Unsent,
    /// The same, and a 100 has told the client to send the content.
    Invited,
    /// All content that was written to a backend is kept, so the request can be sent again if it was not processed.
    Kept,
    /// Some content or trailers were written to a backend or dropped, so the request cannot be sent again.
    Sent,
}

/// The consequence of the response's status for the rest of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None.
    Plain,
    /// The status is below 300, so the backend probably reads the whole upload: it continues after the response.
    UploadGoesOn,
    /// The status counts as a failure of the backend, so nothing else in this exchange does.
    BackendFailed,
}

/// The fate of the trailers of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trailers {
    /// The client gets them.
    Pass,
    /// They are dropped, because the response's Connection field names further fields, which the proxy removes.
    Drop,
}

/// The tries of an exchange: the backends that got it, and the rules for a further try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    count: u8,
    slots: [u16; TRIES],
    /// A bit for each try whose backend did not process the request. These backends are tried again if no other is
    /// left.
    pub(super) declined: u8,
    /// The number of tries that a backend broke off after it may have seen the request. Stale connections are not
    /// counted.
    pub(super) repeats: u8,
    /// The number of refused HTTP/2 streams.
    pub(super) refusals: u8,
    /// The next HTTP/2 connection carries this request alone, because an earlier one broke with it or refused it.
    pub(super) isolated: bool,
    /// The count of retries that the next try adds to.
    pub(super) reason: Option<Count>,
}

impl Tries {
    fn new() -> Tries {
        Tries { count: 0, slots: [0; TRIES], declined: 0, repeats: 0, refusals: 0, isolated: false, reason: None }
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Returns the slots that were tried, in order. The slot of a try that does not count is `u16::MAX`.
    pub(super) fn slots(&self) -> &[u16] {
        &self.slots[..self.count().min(TRIES)]
    }

    pub(super) fn slots_mut(&mut self) -> &mut [u16] {
        let count = self.count().min(TRIES);
        &mut self.slots[..count]
    }

    /// Adds a try with the backend in a slot.
    pub(super) fn add(&mut self, slot: u16) {
        let count = self.count();
        if let Some(place) = self.slots.get_mut(count) {
            *place = slot;
        }
        self.count += 1;
    }
}

/// One request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Key,
    pub(super) upstream: Upstream,
    pub(super) saved: SavedHead,
    pub(super) facts: RequestFacts,
    request_id: RequestId,
    pub(super) request: Progress,
    pub(super) response: Progress,
    pub(super) content: Content,
    /// The content that was written, in the state `Content::Kept`.
    pub(super) kept: Vec<u8>,
    pub(super) verdict: Verdict,
    pub(super) trailers: Trailers,
    /// The random part of the key with which the backend was asked for a WebSocket, if the client sent no key.
    pub(super) nonce: [u8; NONCE_BYTES],
    /// The content is a stream of messages, between which there may be long silence.
    pub(super) messages: bool,
    /// The client's connection goes on after the response.
    pub(super) persistent: bool,
    /// The number of interim responses.
    pub(super) interims: u16,
    pub(super) tries: Tries,
    /// The group of backends that may serve the request.
    pub(super) group: usize,
    /// The hash of the part of the request that decides the backend.
    pub(super) hash: Option<u64>,
    /// The identity of the backend in the request's cookie.
    pub(super) session: Option<u64>,
    pub(super) record: Record,
}

impl Exchange {
    fn new(client: Key, facts: RequestFacts, saved: SavedHead, request_id: RequestId, began_us: u64) -> Exchange {
        Exchange {
            client,
            upstream: Upstream::None,
            saved,
            facts,
            request_id,
            // An extended CONNECT is a head.
            request: if facts.is_connect() { Progress::Ended } else { Progress::Flowing },
            response: Progress::Waiting,
            content: Content::Unsent,
            kept: Vec::new(),
            verdict: Verdict::Plain,
            trailers: Trailers::Pass,
            messages: facts.kind == Kind::Grpc,
            nonce: [0; NONCE_BYTES],
            persistent: facts.connection.persistent,
            interims: 0,
            tries: Tries::new(),
            group: 0,
            hash: None,
            session: None,
            record: Record::new(began_us),
        }
    }

    /// Returns the id of the request as the backend and the client get it.
    pub(super) fn id(&self) -> Option<&[u8]> {
        match &self.request_id {
            RequestId::None => None,
            RequestId::Given(span) => Some(self.saved.view().get(*span)),
            RequestId::Made(id) => Some(id.text()),
        }
    }

    /// Returns the connection to the backend.
    pub(super) fn backend(&self) -> Option<Key> {
        self.upstream.key()
    }

    /// Returns the connection at the other end of the exchange.
    pub(super) fn opposite(&self, key: Key) -> Option<Key> {
        if self.client == key { self.upstream.key() } else { Some(self.client) }
    }

    /// True if the exchange waits in the queue for a backend below its limit.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.upstream, Upstream::Queued)
    }

    pub(super) fn is_tunnel(&self) -> bool {
        matches!(self.upstream, Upstream::Tunnel { .. })
    }

    /// True if the backend serves a tunnel, or may have agreed to one.
    pub(super) fn may_tunnel(&self) -> bool {
        let is_asked = matches!(self.upstream, Upstream::Open { .. }) && self.response == Progress::Waiting;
        self.is_tunnel() || is_asked && self.facts.upgrades()
    }

    pub(super) fn is_page(&self) -> bool {
        matches!(self.upstream, Upstream::Page(_))
    }

    /// True if nothing of the response has arrived, not even an interim response.
    pub(super) fn is_unanswered(&self) -> bool {
        self.response == Progress::Waiting && self.interims == 0
    }

    /// True if the client sends its content only after a 100, and no content has arrived.
    pub(super) fn awaits_content(&self) -> bool {
        self.facts.expects_continue && matches!(self.content, Content::Unsent | Content::Invited)
    }

    /// True if the client waits for a 100 from the backend.
    pub(super) fn awaits_continue(&self) -> bool {
        self.facts.expects_continue && self.content == Content::Unsent && self.response == Progress::Waiting
    }

    /// Notes content that leaves the input of the client. `may_decline`: the backend may say later that it did not
    /// process the request.
    fn note_content(&mut self, bytes: &[u8], may_decline: bool) {
        let fits = self.kept.len() + bytes.len() <= KEPT_CONTENT_BYTES;
        let may_repeat = may_decline && self.tries.count() < TRIES;
        if fits && may_repeat && self.content != Content::Sent && self.response == Progress::Waiting {
            self.kept.extend_from_slice(bytes);
            self.content = Content::Kept;
        } else {
            self.forget_content();
        }
    }

    /// Gives up that the request can be sent again.
    pub(super) fn forget_content(&mut self) {
        (self.content, self.kept) = (Content::Sent, Vec::new());
    }
}

impl Proxy {
    /// Begins an exchange because a client has sent the head of a request.
    pub(super) fn on_request(&mut self, key: Key, head: HeadRef<'_>) {
        let facts = match framing::request(head) {
            Ok(facts) if matches!(head.method(), b"CONNECT" | b"TRACE") && !facts.is_connect() => {
                return self.refuse_request(key, MessageError::MethodNotServed, head);
            }
            Ok(facts) => facts,
            Err(refusal) => return self.refuse_request(key, refusal, head),
        };
        let request_id = self.request_id(key, head);
        let mut saved = self.scratch.spare.pop().unwrap_or_default();
        saved.save(head);
        let mut exchange = Exchange::new(key, facts, saved, request_id, self.now_us);
        let group = self.upstreams.group_of(head);
        (exchange.group, exchange.hash) = (group, self.hash_of(key, head));
        exchange.session = self.upstreams.session_of(head, group);
        let is_free = exchange.session.is_some() || !self.ledger.waiting.has(group);
        let id = self.exchanges.insert(exchange);
        let Some(client) = self.connections.living_mut(key) else { return };
        client.exchange = Some(id);
        client.client_mut().into_iter().for_each(|client| client.seen_request = true);
        client.codec.read_body(if facts.is_connect() { Body::Chunked } else { facts.body });
        if facts.kind == Kind::Grpc {
            self.begin_deadline(key, head);
        }
        if self.is_misdirected(key, head) {
            return self.answer_exchange(id, LocalReply::Misdirected);
        }
        if let Some(to_port) = self.redirects(key) {
            return self.answer_redirect(id, head, to_port);
        }
        if let Some(page) = self.page(key, head) {
            return self.answer_page(id, page);
        }
        self.upstreams.balancer.requested(self.now_us);
        let pick = if is_free || self.is_bound(id) { self.pick(id, None) } else { Pick::Full };
        self.assign(id, pick);
    }

    /// Returns the id of a client's request: the one that a trusted client sent, or a fresh one.
    fn request_id(&mut self, key: Key, head: HeadRef<'_>) -> RequestId {
        if !self.settings.request_ids {
            return RequestId::None;
        }
        let peer = self.connections.get(key).map(|client| client.peer);
        let trusted = matches!(peer, Some(Peer::Client(ClientEnd { trusted: true, .. })));
        match Some(head).filter(|_| trusted).and_then(request_id::given) {
            Some(span) => RequestId::Given(span),
            None => RequestId::Made(Uuid::new(self.log.clock(), &mut self.random)),
        }
    }

    /// Passes trailers on that have arrived from either side.
    pub(super) fn on_trailers(&mut self, key: Key, trailers: HeadRef<'_>) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else { return };
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        // Trailers cannot be sent again, like content.
        let from_client = exchange.client == key;
        if exchange.is_tunnel() {
            // A tunnel has no trailers, and ends without them.
            return;
        } else if from_client {
            exchange.forget_content();
        } else if exchange.facts.kind == Kind::Grpc {
            exchange.record.grpc_status = grpc::status_in(trailers);
        }
        let mut kept = Head::default();
        let trailers = match from_client {
            // The fields that Connection names are removed from the trailer section too.
            true if exchange.facts.connection.options => {
                let head = exchange.saved.view();
                let named = |field: &&Field| is_named_by_connection(head, trailers.get(field.name_span));
                kept.fields.extend(trailers.head.fields.iter().filter(|field| !named(field)));
                Some(HeadRef { bytes: trailers.bytes, head: &kept })
            }
            // The names in a response's Connection field are not kept. Trailers may always be dropped (RFC 9110, 6.5.1).
            false if exchange.trailers == Trailers::Drop => None,
            _ => Some(trailers),
        };
        let Some(opposite) = self.opposite(id, key).and_then(|opposite| self.connections.get_mut(opposite)) else {
            return;
        };
        opposite.codec.write_end(&mut opposite.output, &mut self.scratch.buffers, trailers);
        // The end is written, so the part `End` must not write another.
        opposite.codec.write_body(Body::None);
    }

    /// Passes content on that has arrived from either side. Returns the rest of the input.
    pub(super) fn on_data(&mut self, key: Key, input: Option<Buffer>, length: usize) -> Option<Buffer> {
        let mut input = input?;
        let id = self.connections.get(key).and_then(|connection| connection.exchange);
        let mut target = None;
        if let Some(exchange) = id.and_then(|id| self.exchanges.living_mut(id)) {
            target = exchange.opposite(key);
            if exchange.client == key {
                let opposite = target.and_then(|target| self.connections.get(target));
                let may_decline = opposite.is_some_and(|opposite| opposite.codec.stream().is_some());
                exchange.note_content(&input.filled()[..length], may_decline);
                exchange.record.received += length as u64;
            } else {
                exchange.record.sent += length as u64;
            }
        }
        let Some(opposite) =
            target.and_then(|target| self.connections.get_mut(target)).filter(|opposite| opposite.is_sendable())
        else {
            input.consume(length);
            return Some(input);
        };
        let rest = opposite.codec.write_data(&mut opposite.output, &mut self.scratch.buffers, input, length);
        if let Some(target) = target {
            self.schedule_send(target);
            self.changed(target, Moved::Nothing);
        }
        rest
    }

    /// Ends a message from either side. `left_over`: bytes follow the message, or the direction has ended.
    pub(super) fn on_end(&mut self, key: Key, left_over: bool) {
        let Some(connection) = self.connections.living_mut(key) else { return };
        let is_client = connection.is_client();
        let Some(id) = connection.exchange else { return };
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        if exchange.is_tunnel() {
            connection.receive = Receive::Ended;
            return self.tunnel_ended(key);
        }
        if is_client {
            // This precedes `rearm`, because the backend has a deadline from now on.
            exchange.request = Progress::Ended;
        }
        let target = exchange.opposite(key);
        if let Some(target) = target
            && let Some(opposite) = self.connections.get_mut(target)
        {
            opposite.codec.write_end(&mut opposite.output, &mut self.scratch.buffers, None);
            if !opposite.send_scheduled {
                self.schedule_send(target);
            }
            self.changed(target, Moved::Nothing);
        }
        if is_client {
            self.finish_if_over(id);
        } else {
            self.response_ended(id, left_over);
        }
    }

    /// Moves the upstream side of an exchange into another state. This is the only such transition, so it also leaves
    /// the queue, and tells the balancer when the exchange is no longer in flight.
    pub(super) fn set_upstream(&mut self, id: Key, upstream: Upstream) {
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        let left = std::mem::replace(&mut exchange.upstream, upstream);
        let (client, slot) = (exchange.client, exchange.upstream.slot());
        let was_queued = matches!(left, Upstream::Queued);
        self.leave(id, &left, slot);
        if was_queued {
            self.rearm(client, Moved::Nothing);
        }
    }

    /// Gives up what a former state held, except a count for `slot`, which the present state holds.
    pub(super) fn leave(&mut self, id: Key, left: &Upstream, slot: Option<u16>) {
        if matches!(left, Upstream::Queued) {
            self.ledger.waiting.remove(id);
        }
        if let Some(left) = left.slot().filter(|&left| Some(left) != slot) {
            self.upstreams.balancer.finished(left.into());
            self.ledger.room_made = true;
        }
    }
}

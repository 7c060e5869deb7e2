//! One request and its response: an exchange joins two ends. The request's side is here; `assign` finds a
//! backend, `response` and `tunnel` have the backend's side, and `finish` ends an exchange.
//!
//! The request flows from the client's head to its end, the response from the backend's final
//! head to its end; each is `Waiting`, `Flowing` or `Ended`. An exchange is over when the response
//! has ended, or when it can go no further: then it is removed, and both connections are
//! released, each to what it is fit for. After a 101 it is a tunnel, until both directions end.

use super::Proxy;
use super::connection::{ClientEnd, Connection, Moved, Peer};
use crate::balance::Pick;
use crate::collections::buffer::Buffer;
use crate::collections::slab::Key;
use crate::http::fields::{Field, Span};
use crate::http::framing::{self, Body, RequestFacts, is_named_by_connection};
use crate::http::head::{Head, HeadRef, SavedHead};
use crate::http::message_error::MessageError;
use crate::http::request_id::{self, Uuid};
use crate::limits::TRIES;
use crate::metrics::{Count, Exposition};

// `Exchange::declined` has a bit for each try.
const _: () = assert!(TRIES <= u8::BITS as usize);

/// The id of a request.
#[derive(Clone, Copy, Debug)]
enum RequestId {
    /// Requests get none.
    None,
    /// A trusted peer gave it, here in the saved head.
    Given(Span),
    /// It was made here.
    Made(Uuid),
}

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
    request_id: RequestId,
    pub(super) request: Progress,
    pub(super) response: Progress,
    /// Content has been handed to a backend or dropped for it, and cannot be sent again.
    pub(super) content_sent: bool,
    /// Its backend was blamed for the response's status.
    pub(super) blamed: bool,
    /// The upload goes on after a response that was complete before it.
    pub(super) takes_rest: bool,
    /// The response's Connection names further fields, which end here.
    pub(super) options: bool,
    /// How many 1xx responses have come.
    pub(super) interims: u16,
    /// A 100 has been passed on.
    pub(super) continued: bool,
    /// Both connections carry bytes without messages.
    pub(super) tunnel: bool,
    /// The client's connection goes on after the response.
    pub(super) persistent: bool,
    pub(super) tries: u8,
    pub(super) tried: [u16; TRIES],
    /// Which of `tried` would not look at it, a bit each: they are asked again if no other is left.
    pub(super) declined: u8,
    /// How often it was sent again after a backend had broken it off, stale connections apart.
    pub(super) repeats: u8,
    /// How many HTTP/2 streams backends have refused it.
    pub(super) refusals: u8,
    /// It gets an HTTP/2 connection of its own: it was on one that broke, which may be its doing, or was refused there.
    pub(super) isolated: bool,
    /// It waits for a backend to be below its limit, and is in the queue of those.
    pub(super) waiting: bool,
    /// It is to be tried once more, which is counted so.
    pub(super) again: Option<Count>,
    /// The slot of the last try.
    pub(super) assigned: Option<u16>,
    /// The status of its response; 0 before that has come.
    pub(super) status: u16,
    /// The slot that counts it as in flight.
    pub(super) slot: Option<u16>,
    /// When its head came, in microseconds.
    pub(super) began_us: u64,
    /// When it was written to the backend, in microseconds.
    pub(super) sent_us: u64,
    /// Its response, where that is made here.
    pub(super) local: Option<Box<Exposition>>,
}

impl Exchange {
    fn new(client: Key, facts: RequestFacts, saved: SavedHead, request_id: RequestId, began_us: u64) -> Exchange {
        Exchange {
            client,
            backend: None,
            saved,
            facts,
            request_id,
            request: Progress::Flowing,
            response: Progress::Waiting,
            content_sent: false,
            blamed: false,
            takes_rest: false,
            options: false,
            interims: 0,
            continued: false,
            tunnel: false,
            persistent: facts.persistent,
            tries: 0,
            tried: [0; TRIES],
            declined: 0,
            repeats: 0,
            refusals: 0,
            isolated: false,
            waiting: false,
            again: None,
            assigned: None,
            status: 0,
            slot: None,
            began_us,
            sent_us: 0,
            local: None,
        }
    }

    /// The id of its request, as the backend and the client get it; `None` if they get none.
    pub(super) fn id(&self) -> Option<&[u8]> {
        match &self.request_id {
            RequestId::None => None,
            RequestId::Given(span) => Some(self.saved.view().get(*span)),
            RequestId::Made(id) => Some(id.text()),
        }
    }

    /// Whether nothing of the response has come, interim ones included.
    pub(super) fn is_unanswered(&self) -> bool {
        self.response == Progress::Waiting && self.interims == 0
    }

    /// Whether the client asked to be told before it sends the content, and none has come.
    pub(super) fn awaits_content(&self) -> bool {
        self.facts.expects_continue && !self.content_sent
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
                return self.refuse(key, MessageError::MethodNotServed, head.bytes);
            }
            Ok(facts) => facts,
            Err(refusal) => return self.refuse(key, refusal, head.bytes),
        };
        let request_id = self.request_id(key, head);
        let mut saved = self.spare.pop().map(|exchange| exchange.saved).unwrap_or_default();
        saved.save(head);
        let id = self.exchanges.insert(Exchange::new(key, facts, saved, request_id, self.now_us));
        let Some(client) = self.connections.get_mut(key) else { return };
        client.exchange = Some(id);
        client.client_mut().into_iter().for_each(|client| client.seen_request = true);
        client.codec.read_body(facts.body);
        if let Some(page) = self.page(key, head) {
            return self.answer_page(id, page);
        }
        self.balancer.requested(self.now_us);
        let pick = if self.waiting.is_empty() || self.is_bound(id) { self.pick(id) } else { Pick::Full };
        self.assign(id, pick);
    }

    /// The id of a client's request: its own if the client is trusted, else one that is made here.
    fn request_id(&mut self, key: Key, head: HeadRef<'_>) -> RequestId {
        if !self.request_ids {
            return RequestId::None;
        }
        let peer = self.connections.get(key).map(|client| client.peer);
        let trusted = matches!(peer, Some(Peer::Client(ClientEnd { trusted: true, .. })));
        match Some(head).filter(|_| trusted).and_then(request_id::given) {
            Some(span) => RequestId::Given(span),
            None => RequestId::Made(Uuid::new(self.log.clock(), &mut self.random)),
        }
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
        let Some(opposite) = self.opposite(id, key).and_then(|opposite| self.connections.get_mut(opposite)) else {
            return;
        };
        opposite.codec.write_end(&mut opposite.output, &mut self.buffers, trailers);
        // The end is written, so that the part `End` writes nothing more.
        opposite.codec.write_body(Body::None);
    }

    /// Content has come, from either side; what is left of the input.
    pub(super) fn on_data(&mut self, key: Key, input: Option<Buffer>, length: usize) -> Option<Buffer> {
        let mut input = input?;
        let id = self.connections.get(key).and_then(|connection| connection.exchange);
        let target = id.and_then(|id| self.opposite(id, key));
        // Dropped or sent, content that has left the input cannot be sent again.
        if self.connections.get(key).is_some_and(Connection::is_client)
            && let Some(exchange) = id.and_then(|id| self.exchanges.get_mut(id))
        {
            exchange.content_sent = true;
        }
        let Some(opposite) =
            target.and_then(|target| self.connections.get_mut(target)).filter(|opposite| opposite.is_sendable())
        else {
            input.consume(length);
            return Some(input);
        };
        let rest = opposite.codec.write_data(&mut opposite.output, &mut self.buffers, input, length);
        if let Some(target) = target {
            self.schedule_send(target);
            self.rearm(target, Moved::Nothing);
        }
        rest
    }

    /// A message is complete, from either side. `left_over`: more bytes came behind it, or no
    /// more can come.
    pub(super) fn on_end(&mut self, key: Key, left_over: bool) {
        let Some(connection) = self.connections.get(key) else { return };
        let is_client = connection.is_client();
        let Some(id) = connection.exchange else { return };
        let target = self.opposite(id, key);
        if let Some(opposite) = target.and_then(|target| self.connections.get_mut(target)) {
            opposite.codec.write_end(&mut opposite.output, &mut self.buffers, None);
        }
        if is_client {
            if let Some(exchange) = self.exchanges.get_mut(id) {
                exchange.request = Progress::Ended;
            }
            if let Some(target) = target {
                self.schedule_send(target);
                self.rearm(target, Moved::Nothing);
            }
            self.finish_if_over(id);
        } else {
            self.response_ended(id, left_over);
        }
    }
}

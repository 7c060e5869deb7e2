//! The response of an exchange on its way to the client: interim responses and the final head.

use super::Proxy;
use super::codec::Written;
use super::connection::{BackendEnd, Connection, Moved, Peer};
use super::exchange::{Content, Exchange, Trailers, Verdict};
use super::failure::Failure;
use super::progress::Progress;
use super::record::{Cause, Outcome};
use crate::collections::slab::Key;
use crate::http::forward::{self, After, ResponseWay};
use crate::http::framing::{self, Body, Kind, ResponseFacts};
use crate::http::grpc;
use crate::http::head::{HeadRef, Version};
use crate::http::message_error::MessageError;
use crate::limits::{INTERIM_RESPONSES, QUEUE_HIGH_BYTES};
use crate::metrics::SlotTime;

impl Proxy {
    /// Passes an interim response on if the client's version has them, and if the client waits for this one or has
    /// room for it. No window bounds their number.
    pub(super) fn on_interim(&mut self, key: Key, head: HeadRef<'_>) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else { return };
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        exchange.interims += 1;
        if exchange.interims > INTERIM_RESPONSES {
            return self.backend_failed(key, Failure::Malformed(MessageError::TooManyInterims));
        }
        let unexpected = head.status() == 100 && !exchange.facts.expects_continue;
        let is_full = |client: &Connection| {
            let mux = client.codec.stream().and_then(|stream| self.connections.get(stream.mux));
            client.output.len().max(mux.map_or(0, |mux| mux.output.len())) >= QUEUE_HIGH_BYTES
        };
        let full = self.connections.living(exchange.client).is_some_and(is_full);
        let unwanted = full && !(head.status() == 100 && exchange.awaits_continue());
        if exchange.facts.version == Version::Http10 || unexpected || unwanted {
            let backend = self.connections.get_mut(key).and_then(Connection::backend_mut);
            return backend.into_iter().for_each(|backend| backend.no_progress = true);
        }
        if head.status() == 100 && exchange.content == Content::Unsent {
            exchange.content = Content::Invited;
        }
        let (key, shows) = (exchange.client, self.shows());
        let Some(client) = self.connections.living(key) else { return };
        self.scratch.text.clear();
        let mut writer = client.codec.head_writer(&mut self.scratch.text, shows);
        forward::interim(&mut writer, head, None);
        let written = writer.finish();
        self.write_to_client(key, "interim response head", None, written);
    }

    /// Handles the head of a final response, or a 101.
    pub(super) fn on_response(&mut self, key: Key, head: HeadRef<'_>) {
        let Some(backend) = self.connections.living_mut(key) else { return };
        let Peer::Backend(BackendEnd { slot, .. }) = backend.peer else { return };
        let Some(id) = backend.exchange else { return };
        if self.on_switching(id, key, slot, head) {
            return;
        }
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        let Some(backend) = self.connections.living_mut(key) else { return };
        let facts = match framing::response(head, &exchange.facts) {
            Ok(facts) => facts,
            Err(refusal) => return self.backend_failed(key, Failure::Malformed(refusal)),
        };
        backend.codec.read_body(facts.body);
        if let Some(backend) = backend.backend_mut() {
            (backend.persistent, backend.no_progress) = (facts.connection.persistent, false);
        }
        exchange.response = Progress::Flowing;
        exchange.kept = Vec::new();
        exchange.trailers = if facts.connection.options { Trailers::Drop } else { Trailers::Pass };
        exchange.messages |= facts.event_stream;
        exchange.record.status = facts.status;
        if exchange.facts.kind == Kind::Grpc {
            exchange.record.grpc_status = grpc::status_in(head);
        }
        let content = !matches!(exchange.facts.body, Body::None | Body::Length(0));
        exchange.verdict = match facts.status {
            500.. if self.settings.health.count_5xx => Verdict::BackendFailed,
            ..300 if content && !exchange.awaits_content() => Verdict::UploadGoesOn,
            _ => Verdict::Plain,
        };
        let (verdict, sent_us) = (exchange.verdict, exchange.record.sent_us);
        let (body, after) = to_client(exchange, &facts, self.shutdown.draining);
        exchange.persistent = after != After::Close;
        let client = exchange.client;
        let binds = facts.connection.authentication && backend.codec.stream().is_none();
        self.write_cookie(id, slot);
        let shows = self.shows();
        let (Some(entry), Some(exchange)) = (self.connections.living(client), self.exchanges.living(id)) else {
            return;
        };
        self.scratch.text.clear();
        let mut writer = entry.codec.head_writer(&mut self.scratch.text, shows);
        let (date, request_id) = (&self.date.1, exchange.id());
        let strict_transport = entry.client().and_then(|client| self.settings.strict_transport(client.listener));
        let via = self.settings.via.as_deref();
        let (cookie, set_cookie) = (self.upstreams.sessions.name(), self.scratch.cookie.as_slice());
        let way = ResponseWay { body, after, date, via, request_id, strict_transport, cookie, set_cookie };
        forward::response(&mut writer, head, &facts, &way);
        let written = writer.finish();
        self.write_to_client(client, "response head", Some(body), written);
        self.count_response(slot, facts.status, sent_us);
        if binds {
            self.bind(client, key);
        }
        if matches!(facts.status, 502..=504) {
            self.log_exchange(id, Outcome::Status(facts.status), Cause::Responded(facts.status));
        }
        if verdict == Verdict::BackendFailed {
            self.note_failure(slot, Failure::Status(facts.status));
        }
    }

    /// Counts a response. `sent_us`: when the request was sent.
    pub(super) fn count_response(&mut self, slot: u16, status: u16, sent_us: u64) {
        self.shared.block.add_response(slot.into(), status);
        self.shared.block.observe_slot(SlotTime::Response, slot.into(), self.now_us.saturating_sub(sent_us));
    }

    /// Sends a client the head that was written, as `send_head` does.
    pub(super) fn write_to_client(&mut self, client: Key, what: &str, body: Option<Body>, written: Written) {
        self.send_head(client, what, body, written);
        self.changed(client, Moved::Nothing);
    }
}

/// Returns the framing of a response for the client, and the end of its connection.
fn to_client(exchange: &Exchange, facts: &ResponseFacts, draining: bool) -> (Body, After) {
    let old = exchange.facts.version == Version::Http10;
    let body = match facts.body {
        Body::None => Body::None,
        // A status that stands in the head must have the end of the stream there too.
        Body::Length(0) if exchange.facts.kind == Kind::Grpc => Body::None,
        // A status can be added to a gRPC response of any length.
        Body::Length(1..) if exchange.facts.kind == Kind::Grpc => Body::Chunked,
        Body::Length(length) => Body::Length(length),
        Body::Chunked | Body::UntilClose if old => Body::UntilClose,
        Body::Chunked | Body::UntilClose => Body::Chunked,
    };
    // A response before the end of the request ends the connection if the rest may never arrive, or if the backend
    // probably reads no more of it.
    let early = exchange.request == Progress::Flowing
        && !(exchange.verdict == Verdict::UploadGoesOn && facts.connection.persistent);
    let after = match exchange.facts.connection.persistent && !draining && !early && body != Body::UntilClose {
        false => After::Close,
        true if old => After::KeepAlive,
        true => After::Default,
    };
    (body, after)
}

//! Local replies: responses of the proxy itself. Each is a line of plain text with the reason and the id of the
//! request. It names no backend, no address and no system error; the log has these. Each reply is a line of a table
//! here, except refused requests (`http::message_error`) and failed backends (`http::proxy_error`).

use super::Proxy;
use super::connection::Ending;
use super::failure::Failure;
use crate::collections::slab::Key;
use crate::http::fields::Name;
use crate::http::forward::Sink;
use crate::http::framing::{Body, RequestFacts};
use crate::http::grpc;
use crate::http::head::Version;
use crate::http::message_error::MessageError;
use crate::http::proxy_error::ProxyError;
use crate::http::request_id::Uuid;
use crate::http::status::phrase;
use crate::limits::RETRY_AFTER_S;
use crate::log::http_date;

/// The methods in the Allow field. Every method except CONNECT and TRACE is served.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The name of this program in a Proxy-Status field (RFC 9209, 2).
const PROXY: &str = "load_balancer";

/// The reason for a local reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReply {
    /// The request was refused.
    Refused(MessageError),
    /// The backend failed, and no other is left.
    Failed(Failure),
    /// The backend accepts no head as large as this one.
    HeadTooLarge,
    /// The request has come over a connection for another host.
    Misdirected,
    /// A listener with TLS has got plain HTTP.
    PlainHttp,
    /// The same URL is served under https.
    Redirect,
    HeadLate,
    ContentLate,
    /// The deadline that a gRPC call sets itself.
    DeadlinePassed,
    NoBackend,
    /// No backend gets requests for this host and path.
    NoRoute,
    NoRoom,
    NoRoomToWait,
    /// The worker holds as much for clients over HTTP/2 as it may.
    NoMemory,
    /// The worker has as many requests of clients over HTTP/2 as it may.
    TooManyRequests,
    Alive,
    Ready,
    Draining,
    /// The plan has no backend that may get requests.
    NobodyToServe,
    NoPage,
    ReadOnly,
}

impl LocalReply {
    /// The table: the status, and the line of text.
    fn line(self) -> (u16, &'static str) {
        match self {
            LocalReply::Refused(refusal) => (refusal.status(), ""),
            LocalReply::Failed(failure) => (failure.status(), ""),
            LocalReply::HeadTooLarge => (431, "the backend takes no head as large as this"),
            LocalReply::Redirect => (308, "this is served under https"),
            LocalReply::Misdirected => (421, "this connection is for another host; please use another connection"),
            LocalReply::PlainHttp => (400, "this port speaks TLS, but the request was plain HTTP; please use https://"),
            LocalReply::HeadLate => (408, "the request head did not come in time"),
            LocalReply::ContentLate => (408, "the request content did not come in time"),
            LocalReply::DeadlinePassed => (504, "the deadline of the call has passed"),
            LocalReply::NoBackend => (503, "No backends available"),
            LocalReply::NoRoute => (404, "no backend serves this host and path"),
            LocalReply::NoRoom => (503, ProxyError::ConnectionLimitReached.words()),
            LocalReply::NoRoomToWait => (503, "every backend has as many requests as it may, and too many wait"),
            LocalReply::NoMemory => (503, "too much content waits for clients"),
            LocalReply::TooManyRequests => (503, "too many requests over HTTP/2 at once"),
            LocalReply::Alive => (200, "alive"),
            LocalReply::Ready => (200, "ready"),
            LocalReply::Draining => (503, "draining"),
            LocalReply::NobodyToServe => (503, "no backends are configured, or all have the weight 0"),
            LocalReply::NoPage => (404, "there are /metrics, /livez and /readyz"),
            LocalReply::ReadOnly => (405, "only GET and HEAD are served here"),
        }
    }

    /// Returns the status code.
    pub(super) fn status(self) -> u16 {
        self.line().0
    }

    /// Returns the status of the same reply to a gRPC call.
    pub(super) fn grpc_status(self) -> grpc::Status {
        grpc::Status::of_reply(self.status())
    }

    /// Returns the line of text.
    pub(super) fn words(self) -> String {
        match self {
            LocalReply::Refused(refusal) => refusal.to_string(),
            LocalReply::Failed(failure) => failure.error().words().into(),
            answer => answer.line().1.into(),
        }
    }

    /// True for a page, which is a normal response to its request.
    pub(super) fn is_page(self) -> bool {
        matches!(
            self,
            LocalReply::Alive | LocalReply::Ready | LocalReply::Draining | LocalReply::NoPage | LocalReply::ReadOnly
        )
    }

    /// Returns the error of the Proxy-Status field. Pages and statuses below 500 have none.
    fn error(self) -> Option<ProxyError> {
        match self {
            answer if answer.is_page() || answer.status() < 500 => None,
            LocalReply::Failed(failure) => Some(failure.error()),
            LocalReply::Refused(_) => Some(ProxyError::RequestError),
            LocalReply::DeadlinePassed => Some(ProxyError::ResponseTimeout),
            LocalReply::NoRoom | LocalReply::NoRoomToWait => Some(ProxyError::ConnectionLimitReached),
            _ => Some(ProxyError::DestinationUnavailable),
        }
    }
}

impl Proxy {
    /// Replies to a client that has no exchange, and ends its connection. The proxy cannot find the next request behind
    /// one that is malformed. `bytes` is the beginning of the request.
    pub(super) fn answer_client(&mut self, key: Key, answer: LocalReply, bytes: &[u8]) {
        let id = self.settings.request_ids.then(|| Uuid::new(self.log.clock(), &mut self.random));
        let id = id.as_ref().map(Uuid::text);
        self.log_refused(key, bytes, id, answer);
        self.end_with_answer(key, answer, id);
    }

    /// Replies to a client, and ends its connection. `id` is the id of the request.
    pub(super) fn end_with_answer(&mut self, key: Key, answer: LocalReply, id: Option<&[u8]>) {
        let is_head = self.connections.get(key).is_some_and(|client| client.codec.asks_head());
        self.write_answer(key, &RequestFacts::unread(is_head), false, answer, id);
        self.end(key, Ending::Linger);
    }

    /// Queues a local reply, which says whether the connection goes on. `id` is the id of the request.
    pub(super) fn write_answer(
        &mut self,
        key: Key,
        facts: &RequestFacts,
        goes_on: bool,
        answer: LocalReply,
        id: Option<&[u8]>,
    ) {
        let (status, mut text) = (answer.status(), answer.words());
        if !answer.is_page() {
            self.shared.block.add_own_response(status);
        }
        if let Some(id) = id {
            text.push_str(" (request ");
            text.push_str(&String::from_utf8_lossy(id));
            text.push(')');
        }
        let shows = self.shows();
        let Some(client) = self.connections.get(key) else { return };
        if client.codec.asks_grpc() && !answer.is_page() {
            return self.write_call_end(key, answer, &text, id);
        }
        text.push('\n');
        self.scratch.text.clear();
        let mut writer = client.codec.head_writer(&mut self.scratch.text, shows);
        writer.response(status, phrase(status).as_bytes());
        writer.field(b"Date", &http_date(self.log.clock() / 1_000_000));
        writer.field(b"Content-Type", b"text/plain; charset=utf-8");
        writer.framing(Body::Length(text.len() as u64));
        let listener = client.client().map(|client| client.listener).filter(|_| answer != LocalReply::PlainHttp);
        if let Some(value) = listener.and_then(|listener| self.settings.strict_transport(listener)) {
            writer.field(Name::StrictTransportSecurity.text().as_bytes(), value.as_bytes());
        }
        match (status, answer) {
            (405, LocalReply::ReadOnly) => writer.field(b"Allow", b"GET, HEAD"),
            (405, _) => writer.field(b"Allow", METHODS),
            (308, _) => writer.field(b"Location", &self.scratch.location),
            (503, _) => writer.field(b"Retry-After", RETRY_AFTER_S.as_bytes()),
            _ => {}
        }
        if let Some(id) = id {
            writer.field(Name::XRequestId.text().as_bytes(), id);
        }
        if let Some(error) = answer.error() {
            writer.field(b"Proxy-Status", [PROXY, "; error=", error.token()].concat().as_bytes());
        }
        match (goes_on, facts.version) {
            (false, _) => writer.hop(b"Connection", b"close"),
            (true, Version::Http10) => writer.hop(b"Connection", b"keep-alive"),
            (true, Version::Http11 | Version::Http2) => {}
        }
        let mut written = writer.finish();
        if facts.is_head() {
            return self.send_head(key, "answer", Some(Body::None), written);
        }
        written.show(text.as_bytes());
        self.send_head(key, "answer", Some(Body::Length(text.len() as u64)), written);
        let Some(client) = self.connections.get_mut(key) else { return };
        client.output.write(&mut self.scratch.buffers, text.as_bytes());
        client.codec.write_end(&mut client.output, &mut self.scratch.buffers, None);
        self.schedule_send(key);
    }

    /// Replies to a gRPC call: the status is in the head, and nothing follows it.
    pub(super) fn write_call_end(&mut self, key: Key, answer: LocalReply, text: &str, id: Option<&[u8]>) {
        let shows = self.shows();
        let Some(client) = self.connections.get(key) else { return };
        self.scratch.text.clear();
        let mut writer = client.codec.head_writer(&mut self.scratch.text, shows);
        writer.response(200, phrase(200).as_bytes());
        writer.field(b"Date", &http_date(self.log.clock() / 1_000_000));
        writer.field(b"Content-Type", b"application/grpc");
        writer.field(b"Grpc-Status", answer.grpc_status().0.to_string().as_bytes());
        writer.field(b"Grpc-Message", grpc::encode_message(text).as_bytes());
        if let Some(id) = id {
            writer.field(Name::XRequestId.text().as_bytes(), id);
        }
        let written = writer.finish();
        self.send_head(key, "answer", Some(Body::None), written);
    }
}

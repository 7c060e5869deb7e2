//! Answers of our own: a line of plain text that says why there is no other. What they are is one line
//! each in a table here, but for what is refused (`http::refusal`) and how backends fail (`failure`).

use std::fmt::Write as _;

use super::connection::Ending;
use super::{Failure, Proxy};
use crate::collections::slab::Key;
use crate::http::forward::Sink;
use crate::http::framing::{Body, RequestFacts};
use crate::http::head::Version;
use crate::http::refusal::Refusal;
use crate::http::status::phrase;
use crate::http1::write::Writer;
use crate::limits::RETRY_AFTER_S;
use crate::log::http_date;
use crate::metrics::Count;

/// Methods that are served, as is any other but CONNECT and TRACE.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What it sent is refused.
    Refused(Refusal),
    /// The backend failed, and there is no other.
    Failed(Failure),
    /// The backend takes no list of fields as large as its head.
    HeadTooLarge,
    HeadLate,
    ContentLate,
    NoBackend,
    NoRoom,
    NoRoomToWait,
    Alive,
    Ready,
    Draining,
    NoPage,
    ReadOnly,
}

impl Answer {
    /// The table: status, and line of text.
    fn line(self) -> (u16, &'static str) {
        match self {
            Answer::Refused(refusal) => (refusal.status(), ""),
            Answer::Failed(failure) => (failure.status(), ""),
            Answer::HeadTooLarge => (431, "the backend takes no head as large as this"),
            Answer::HeadLate => (408, "the request head did not come in time"),
            Answer::ContentLate => (408, "the request content did not come in time"),
            Answer::NoBackend => (503, "No backends available"),
            Answer::NoRoom => (503, "every backend has as many requests as it may"),
            Answer::NoRoomToWait => (503, "every backend has as many requests as it may, and too many wait"),
            Answer::Alive => (200, "alive"),
            Answer::Ready => (200, "ready"),
            Answer::Draining => (503, "draining"),
            Answer::NoPage => (404, "there are /metrics, /livez and /readyz"),
            Answer::ReadOnly => (405, "only GET and HEAD are served here"),
        }
    }
}

impl Proxy {
    /// Answers a client that has no exchange, and ends its connection: what it sent could not be
    /// understood, so that nothing after it can be either.
    pub(super) fn answer_client(&mut self, key: Key, answer: Answer) {
        let is_head = self.connections.get(key).is_some_and(|client| client.codec.asks_head());
        self.write_answer(key, &RequestFacts { is_head, ..RequestFacts::NOTHING }, false, answer);
        self.end(key, Ending::Linger);
    }

    /// Queues an answer, and says in it whether the connection goes on.
    pub(super) fn write_answer(&mut self, key: Key, facts: &RequestFacts, goes_on: bool, answer: Answer) {
        let (status, line) = answer.line();
        let class = match status / 100 {
            2 => Count::Own2xx,
            4 => Count::Own4xx,
            _ => Count::Own5xx,
        };
        self.shared.block.add(class, 1);
        let mut text = String::from(line);
        // Writing to a String cannot fail.
        let _ = match answer {
            Answer::Refused(refusal) => write!(text, "{refusal}"),
            Answer::Failed(failure) => write!(text, "{failure}"),
            Answer::NoBackend => text.write_str(&self.unresolved),
            _ => Ok(()),
        };
        text.push('\n');
        self.text.clear();
        let mut writer = Writer::new(&mut self.text);
        writer.response(status, phrase(status).as_bytes());
        writer.field(b"Date", &http_date(self.log.clock() / 1_000_000));
        writer.field(b"Content-Type", b"text/plain; charset=utf-8");
        writer.framing(Body::Length(text.len() as u64));
        match (status, answer) {
            (405, Answer::ReadOnly) => writer.field(b"Allow", b"GET, HEAD"),
            (405, _) => writer.field(b"Allow", METHODS),
            (503, _) => writer.field(b"Retry-After", RETRY_AFTER_S.as_bytes()),
            _ => {}
        }
        match (goes_on, facts.version) {
            (false, _) => writer.hop(b"Connection", b"close"),
            (true, Version::Http10) => writer.hop(b"Connection", b"keep-alive"),
            (true, Version::Http11 | Version::Http2) => {}
        }
        writer.finish();
        if !facts.is_head {
            self.text.extend_from_slice(text.as_bytes());
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.codec.write_body(Body::None);
        connection.output.write(&mut self.buffers, &self.text);
        if self.trace {
            self.trace_sent(key, "answer");
        }
        self.announce(key);
    }
}

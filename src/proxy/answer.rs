//! Answers of our own: a line of plain text that says why there is no other.

use std::fmt::{self, Write as _};

use super::Proxy;
use super::connection::Ending;
use crate::collections::slab::Key;
use crate::http::forward::Sink;
use crate::http::framing::{Body, RequestFacts};
use crate::http::head::Version;
use crate::http::status::phrase;
use crate::http1::write::Writer;
use crate::limits::RETRY_AFTER_S;
use crate::log::http_date;
use crate::metrics::Count;

impl Proxy {
    /// Answers a client that has no exchange, and ends its connection: what it sent could not be
    /// understood, so that nothing after it can be either.
    pub(super) fn answer_client(&mut self, key: Key, status: u16, reason: fmt::Arguments<'_>) {
        let is_head = self.connections.get(key).is_some_and(|client| client.codec.asks_head());
        self.write_answer(key, &RequestFacts { is_head, ..RequestFacts::NOTHING }, false, status, reason);
        self.end(key, Ending::Linger);
    }

    /// Queues an answer, and says in it whether the connection goes on.
    pub(super) fn write_answer(
        &mut self,
        key: Key,
        facts: &RequestFacts,
        goes_on: bool,
        status: u16,
        reason: fmt::Arguments<'_>,
    ) {
        let class = match status / 100 {
            2 => Count::Own2xx,
            4 => Count::Own4xx,
            _ => Count::Own5xx,
        };
        self.shared.block.add(class, 1);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{reason}");
        self.text.clear();
        let mut writer = Writer::new(&mut self.text);
        writer.response(status, phrase(status).as_bytes());
        writer.field(b"Date", &http_date(self.log.clock() / 1_000_000));
        writer.field(b"Content-Type", b"text/plain; charset=utf-8");
        writer.framing(Body::Length(text.len() as u64));
        match status {
            405 => writer.field(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            503 => writer.field(b"Retry-After", RETRY_AFTER_S.as_bytes()),
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

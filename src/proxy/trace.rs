//! The dumps of `--trace`: every head and every piece of content, as it came and as it went,
//! with the connection's name. Secret field values are masked unless debugging.

use std::fmt;

use super::Proxy;
use super::connection::Side;
use crate::collections::slab::Key;
use crate::http::head::{Head, HeadRef};
use crate::http::part::Part;
use crate::http1::parse;
use crate::log::Level;

/// A connection's name in a trace: `client 12` or `backend 127.0.0.1:9001 13`, the number being
/// its key's.
struct Named<'a> {
    side: Side,
    key: Key,
    backend: &'a str,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.side {
            Side::Client { address, .. } => write!(f, "client {address} #{}", self.key),
            Side::Backend { .. } => write!(f, "backend {} #{}", self.backend, self.key),
        }
    }
}

impl Proxy {
    fn named(&self, key: Key) -> Option<Named<'_>> {
        let side = self.connections.get(key)?.side;
        let backend = match side {
            Side::Backend { slot } => self.backends.get(usize::from(slot)).map_or("", |backend| &backend.name),
            Side::Client { .. } => "",
        };
        Some(Named { side, key, backend })
    }

    /// Dumps a head or trailers that came from a connection.
    pub(super) fn trace_received(&mut self, key: Key, part: Part, bytes: &[u8], head: HeadRef<'_>) {
        let Some(named) = self.named(key) else { return };
        let what = match (part, named.side) {
            (Part::Trailers(_), _) => "trailers",
            (Part::Interim(_), _) => "interim response head",
            (_, Side::Client { .. }) => "request head",
            (_, Side::Backend { .. }) => "response head",
        };
        let label = format!("from {named}: {what}");
        let masked = self.masked(bytes, head.head);
        self.log.dump(format_args!("{label}"), &masked);
    }

    /// Dumps content that came from a connection.
    pub(super) fn trace_content(&mut self, key: Key, bytes: &[u8]) {
        let Some(named) = self.named(key) else { return };
        let label = format!("from {named}: content");
        self.log.dump(format_args!("{label}"), bytes);
    }

    /// Dumps the text that was just written for a connection.
    pub(super) fn trace_sent(&mut self, key: Key, what: &str) {
        let Some(named) = self.named(key) else { return };
        let label = format!("to {named}: {what}");
        let mut head = Head::default();
        let parsed = match named.side {
            Side::Client { .. } => parse::response(&self.text, &mut head),
            Side::Backend { .. } => parse::request(&self.text, &mut head),
        };
        // Only what we wrote stands here, which parses; else nothing of it may be shown.
        let bytes = if parsed.is_ok() { self.masked(&self.text, &head) } else { Vec::new() };
        self.log.dump(format_args!("{label}"), &bytes);
    }

    /// A head's bytes with an asterisk for each byte of a secret value.
    fn masked(&self, bytes: &[u8], head: &Head) -> Vec<u8> {
        let mut masked = bytes.to_vec();
        if !self.log.enabled(Level::Debug) {
            for field in head.fields.iter().filter(|field| field.name.is_secret()) {
                let span = field.value_span;
                if let Some(value) = masked.get_mut(span.start as usize..span.end as usize) {
                    value.fill(b'*');
                }
            }
        }
        masked
    }
}

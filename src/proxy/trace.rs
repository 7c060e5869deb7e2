//! The dumps of `--trace`: every head and all content, as received and as sent, with the name of the connection. The
//! values of secret fields are masked, unless the log level is debug.

use std::fmt;
use std::net::SocketAddr;

use super::Proxy;
use super::codec::Shows;
use super::connection::{BackendEnd, ClientEnd, Peer};
use crate::collections::slab::Key;
use crate::http::fields::{Field, Name, Span, trim};
use crate::http::head::{Head, HeadRef, Start};
use crate::http::part::Part;
use crate::limits::TRACE_REFUSED_BYTES;
use crate::log::Level;

/// The name of a connection in a trace: `client 127.0.0.1:50000 #0.12.1`, or `backend 127.0.0.1:9001 #0.13.1 for
/// #0.12.1`. The numbers are those of the worker, of the slab's slot, and of the slot's uses.
struct Named<'a> {
    peer: Peer,
    worker: u32,
    key: Key,
    backend: &'a str,
    client: Option<Key>,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Named { worker, key, backend, .. } = self;
        match self.peer {
            Peer::Client(ClientEnd { address, port, .. }) => {
                write!(f, "client {} #{worker}.{key}", SocketAddr::new(address, port))
            }
            Peer::Backend(_) => write!(f, "backend {backend} #{worker}.{key}"),
        }?;
        match self.client {
            Some(client) => write!(f, " for #{worker}.{client}"),
            None => Ok(()),
        }
    }
}

impl Proxy {
    /// Returns the part of written heads that is shown.
    pub(super) fn shows(&self) -> Shows {
        match self.settings.trace {
            false => Shows::Nothing,
            true if self.log.enabled(Level::Debug) => Shows::Everything,
            true => Shows::Masked,
        }
    }

    fn named(&self, key: Key) -> Option<Named<'_>> {
        let connection = self.connections.get(key)?;
        let peer = connection.peer;
        let (backend, client) = match peer {
            Peer::Backend(BackendEnd { slot, .. }) => {
                let exchange = connection.exchange.and_then(|id| self.exchanges.get(id));
                let backend = self.upstreams.backends[usize::from(slot)].as_ref();
                let name = backend.map_or("", |backend| &backend.label);
                (name, exchange.map(|exchange| exchange.client))
            }
            Peer::Client(_) => ("", None),
        };
        Some(Named { peer, worker: self.settings.worker, key, backend, client })
    }

    /// Dumps the beginning of a message that was refused, with each line of a secret field masked.
    pub(super) fn trace_refused(&mut self, key: Key, bytes: &[u8]) {
        let Some(named) = self.named(key) else { return };
        let label = format!("from {named}: refused");
        let mut shown = bytes[..bytes.len().min(TRACE_REFUSED_BYTES)].to_vec();
        if !self.log.enabled(Level::Debug) {
            mask_lines(&mut shown);
        }
        self.log.dump(format_args!("{label}"), &shown);
    }

    /// Dumps a head or a trailer section that was received.
    pub(super) fn trace_received(&mut self, key: Key, part: Part, bytes: &[u8], head: HeadRef<'_>) {
        let Some(named) = self.named(key) else { return };
        let what = match (part, named.peer) {
            (Part::Trailers(_), _) => "trailers",
            (Part::Interim(_), _) => "interim response head",
            (_, Peer::Client(_)) => "request head",
            (_, Peer::Backend(_)) => "response head",
        };
        let label = format!("from {named}: {what}");
        let masked = self.masked(bytes, head.head);
        self.log.dump(format_args!("{label}"), &masked);
    }

    /// Dumps fields that were received on a stream, in the form of HTTP/1.1.
    pub(super) fn trace_fields(&mut self, key: Key, part: Part, head: HeadRef<'_>) {
        let (mut text, mut shown) = (Vec::new(), Head::default());
        if let Start::Response { status, .. } = head.head.start
            && !matches!(part, Part::Trailers(_))
        {
            text.extend_from_slice(format!("HTTP/2 {status}\r\n").as_bytes());
        }
        for (name, spelled, value) in head.fields() {
            let at = text.len();
            [spelled, b": ", value, b"\r\n"].into_iter().for_each(|piece| text.extend_from_slice(piece));
            let middle = at + spelled.len();
            let (name_span, value_span) = (Span::new(at, middle), Span::new(middle + 2, middle + 2 + value.len()));
            shown.fields.push(Field { name, name_span, value_span });
        }
        self.trace_received(key, part, &text, HeadRef { bytes: &text, head: &shown });
    }

    /// Dumps content that was received.
    pub(super) fn trace_content(&mut self, key: Key, bytes: &[u8]) {
        let Some(named) = self.named(key) else { return };
        let label = format!("from {named}: content");
        self.log.dump(format_args!("{label}"), bytes);
    }

    /// Dumps a head that is sent, as its writer shows it.
    pub(super) fn trace_sent(&mut self, key: Key, what: &str, shown: &[u8]) {
        let Some(named) = self.named(key) else { return };
        let label = format!("to {named}: {what}");
        self.log.dump(format_args!("{label}"), shown);
    }

    /// Returns the bytes of a head, with an asterisk for each byte of a secret value.
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

/// Masks the value in each line of a secret field, and in the lines that continue it because they begin with white
/// space. CR and LF each count as the end of a line.
fn mask_lines(text: &mut [u8]) {
    let mut secret = false;
    for line in text.split_mut(|b| matches!(b, b'\r' | b'\n')).filter(|line| !line.is_empty()) {
        let goes_on = secret && matches!(line[0], b' ' | b'\t');
        let end = if goes_on { 0 } else { line.iter().position(|&b| b == b':').unwrap_or(line.len()) };
        secret = goes_on || Name::find(trim(&line[..end])).is_secret();
        if secret {
            line[end..].fill(b'*');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_lines_that_do_not_parse() {
        for (line, masked) in [
            ("Cookie : a=b", "Cookie *****"),
            (" AUTHORIZATION: x", " AUTHORIZATION***"),
            ("A: b", "A: b"),
            ("A: b\r\n c\r\n", "A: b\r\n c\r\n"),
            ("Cookie: a\r\n b\n\tc\r\nA: b\r\n c", "Cookie***\r\n**\n**\r\nA: b\r\n c"),
            ("A: b\rCookie: a\r\nB: c", "A: b\rCookie***\r\nB: c"),
        ] {
            let mut text = line.as_bytes().to_vec();
            mask_lines(&mut text);
            assert_eq!(String::from_utf8(text).unwrap(), masked);
        }
    }
}

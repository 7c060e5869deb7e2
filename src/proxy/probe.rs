//! Probes: a request of our own to a backend, on a connection of its own, to see whether it is well.
//!
//! A 2xx or 3xx passes; anything else, or nothing in time, fails; an answer beyond a limit of ours does
//! neither. The head tells, so that the content is not waited for. A probe has no exchange; its connection
//! has `probe` set, is never pooled, and has one deadline for all of it.

use std::fmt;

use super::connection::{Connection, Moved, Side};
use super::{Failure, Output, Proxy};
use crate::collections::slab::Key;
use crate::config::HostHeader;
use crate::http::forward::Sink;
use crate::http::head::HeadRef;
use crate::http1::write::Writer;
use crate::http2;

/// How probes name themselves.
const USER_AGENT: &str = concat!("load_balancer/", env!("CARGO_PKG_VERSION"));

impl Proxy {
    /// Begins the probes that are due, and that no other worker has taken.
    pub(super) fn begin_probes(&mut self) {
        let mut slots = std::mem::take(&mut self.probes);
        self.balancer.take_probes(self.now_us, &mut slots);
        for slot in slots.drain(..) {
            if self.is_h2c(slot) || self.server_name(slot).is_some() {
                self.begin_multiplexed_probe(slot);
                continue;
            }
            let mut connection = Connection::new(self.side(slot));
            connection.probe = true;
            let key = self.connections.insert(connection);
            self.rearm(key, Moved::Nothing);
            self.outputs.push_back(Output::Connect(key, slot));
        }
        self.probes = slots;
    }

    /// Asks the backend that a probe is connected to.
    pub(super) fn send_probe(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Side::Backend { slot, .. } = connection.side else { return };
        let host = match (&self.host_header, &self.backends[usize::from(slot)]) {
            (HostHeader::Name(name), _) => name,
            (_, Some(backend)) => &backend.host,
            (_, None) => return self.close(key, Output::Close(key)),
        };
        self.text.clear();
        let mut writer = Writer::new(&mut self.text);
        writer.request(b"GET", self.health.path.as_bytes());
        writer.field(b"Host", host.as_bytes());
        writer.field(b"User-Agent", USER_AGENT.as_bytes());
        if connection.codec.stream().is_some() {
            let shown = std::mem::take(&mut self.text);
            let scheme = self.backends[usize::from(slot)].as_ref().map_or("http", |backend| backend.scheme());
            let mut writer = http2::head::Writer::new(&mut self.text, scheme.as_bytes(), host.as_bytes());
            writer.request(b"GET", self.health.path.as_bytes());
            writer.field(b"User-Agent", USER_AGENT.as_bytes());
            self.write_block(key, true);
            if self.trace {
                self.trace_text(key, "probe", &shown);
            }
            return;
        }
        writer.hop(b"Connection", b"close");
        writer.finish();
        connection.output.write(&mut self.buffers, &self.text);
        if self.trace {
            self.trace_sent(key, "probe");
        }
        self.announce(key);
    }

    /// The head of the answer to a probe has come.
    pub(super) fn on_probe_answer(&mut self, key: Key, head: HeadRef<'_>) {
        match head.status() {
            200..=399 => {
                if let Some(slot) = self.end_probe(key) {
                    self.note_probe(slot, None);
                }
            }
            status => self.probe_failed(key, format_args!("answered {status}")),
        }
    }

    /// A probe has failed.
    pub(super) fn probe_failed(&mut self, key: Key, reason: fmt::Arguments<'_>) {
        if let Some(slot) = self.end_probe(key) {
            self.note_probe(slot, Some(reason));
        }
    }

    /// A probe has come to a limit of ours, which says nothing about its backend.
    pub(super) fn probe_refused(&mut self, key: Key, failure: Failure) {
        if let Some(slot) = self.end_probe(key) {
            self.note_failure(slot, failure);
        }
    }

    /// Closes all that a probe has; its slot, where that is still the same backend's.
    fn end_probe(&mut self, key: Key) -> Option<u16> {
        let Side::Backend { slot, generation } = self.connections.get(key)?.side else { return None };
        let connection = self.connections.get(key)?;
        // Over HTTP/2 it has a connection and a stream, either of which may be what has failed.
        let carrier = connection.codec.stream().map_or(key, |stream| stream.carrier);
        let multiplex = self.connections.get(carrier).and_then(|carrier| carrier.codec.multiplex());
        let streams = multiplex.map(|multiplex| multiplex.streams().collect::<Vec<_>>()).unwrap_or_default();
        streams.into_iter().chain([key, carrier]).for_each(|key| self.close(key, Output::Close(key)));
        // What became of one that had the slot before is not its successor's doing.
        (self.generation(slot.into()) == Some(generation)).then_some(slot)
    }
}

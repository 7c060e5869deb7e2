//! Probes: each one opens a connection to a backend and sends a request, to see whether the backend is healthy.
//!
//! A probe of type `tcp` passes when its connection is established. One of type `http` passes with a status that
//! `Health::status` contains. One of type `grpc` calls grpc.health.v1 over HTTP/2, and passes with SERVING. Any other status, no response in time, and a connection that ends before the response
//! head are failures. A response that exceeds a limit of the proxy neither passes nor fails. The head decides, so the
//! probe does not wait for the content. A probe has no exchange. Its connection is marked `Use::Probe`, is never
//! pooled, and has one deadline for everything.

use std::fmt;

use super::Proxy;
use super::connection::{BackendEnd, Connection, Moved, Peer, Phase, Use};
use super::failure::Failure;
use super::output::Output;
use crate::collections::buffer::Buffer;
use crate::collections::slab::Key;
use crate::config::{Health, HealthCheck, HostHeader};
use crate::http::forward::{Sink, Target};
use crate::http::framing::Body;
use crate::http::grpc::{self, Unhealthy};
use crate::http::head::HeadRef;
use crate::http::part::Part;
use crate::limits::HEALTH_BYTES;

/// The User-Agent of probes.
const USER_AGENT: &str = concat!("load_balancer/", env!("CARGO_PKG_VERSION"));

impl Proxy {
    /// Begins the probes that are due and that no other worker has taken.
    pub(super) fn begin_probes(&mut self) {
        let mut slots = std::mem::take(&mut self.scratch.probes);
        self.upstreams.balancer.take_probes(self.now_us, &mut slots);
        for slot in slots.drain(..) {
            let check = self.settings.health.check;
            let asks = check == HealthCheck::Http || !self.upstreams.is_h2c(slot);
            if check == HealthCheck::Grpc || self.upstreams.may_multiplex(slot, self.now_us) && asks {
                self.begin_multiplexed_probe(slot);
                continue;
            }
            let connection = Connection::new(self.upstreams.backend_end(slot, Use::Probe, None));
            let key = self.connections.insert(connection);
            self.rearm(key, Moved::Nothing);
            self.ledger.outputs.push_back(Output::Connect(key, slot));
        }
        self.scratch.probes = slots;
    }

    /// Handles the connection of a probe that is established. `http2`: its TLS session has agreed on HTTP/2.
    pub(super) fn probe_connected(&mut self, key: Key, http2: bool) {
        let Some(connection) = self.connections.get(key) else { return };
        if !self.settings.health.check.asks() {
            self.probe_passed(key);
        } else if connection.codec.mux().is_some() {
            self.mux_connected(key, http2);
        } else {
            self.send_probe(key);
        }
    }

    /// Sends the request of a probe.
    pub(super) fn send_probe(&mut self, key: Key) {
        let shows = self.shows();
        let is_grpc = self.settings.health.check == HealthCheck::Grpc;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if is_grpc && connection.codec.stream().is_none() {
            return self.probe_failed(key, Cause::Unhealthy(Unhealthy::Http1));
        }
        let Peer::Backend(BackendEnd { slot, .. }) = connection.peer else { return };
        let host =
            match (&self.settings.health.host, &self.settings.host_header, &self.upstreams.backends[usize::from(slot)])
            {
                (Some(name), ..) | (None, HostHeader::Name(name), _) => name,
                (.., Some(backend)) => &backend.host,
                (.., None) => return self.close(key, Output::Close(key)),
            };
        let scheme = self.upstreams.backends[usize::from(slot)].as_ref().map_or("http", |backend| backend.scheme());
        self.scratch.text.clear();
        let mut writer = connection.codec.head_writer(&mut self.scratch.text, shows);
        if !is_grpc {
            write_request(&mut writer, &self.settings.health.path, scheme, host);
            let written = writer.finish();
            return self.send_head(key, "probe", Some(Body::None), written);
        }
        write_call(&mut writer, scheme, host);
        let written = writer.finish();
        self.send_head(key, "probe", Some(Body::Chunked), written);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let request = grpc::health_request(&self.settings.health.service);
        connection.output.write(&mut self.scratch.buffers, &request);
        connection.codec.write_end(&mut connection.output, &mut self.scratch.buffers, None);
        self.schedule_send(key);
    }

    /// Handles a part of the response to a probe over HTTP/2 that has fields.
    pub(super) fn on_probe_fields(&mut self, key: Key, part: Part, fields: HeadRef<'_>) {
        let content = self.connections.get(key).and_then(|probe| probe.input.as_ref()).map_or(&[][..], Buffer::filled);
        let outcome = match part {
            Part::Interim(_) => return,
            _ if self.settings.health.check != HealthCheck::Grpc => return self.on_probe_response(key, fields),
            Part::Head(_) if fields.status() != 200 => Err(Unhealthy::Http(fields.status())),
            Part::Head(_) if !fields.head.ended => return,
            _ => grpc::judge_health(grpc::status_in(fields), content),
        };
        self.end_call(key, outcome);
    }

    /// Handles content of the response to a probe over HTTP/2, of which `length` bytes have arrived.
    pub(super) fn on_probe_content(&mut self, key: Key) {
        let content = self.connections.get(key).and_then(|probe| probe.input.as_ref());
        if content.is_some_and(|content| content.len() > HEALTH_BYTES) {
            self.end_call(key, Err(Unhealthy::Malformed));
        }
    }

    /// Handles the end of a response to a probe over HTTP/2 that nothing has decided.
    pub(super) fn on_probe_end(&mut self, key: Key) {
        self.end_call(key, Err(Unhealthy::NoStatus));
    }

    fn end_call(&mut self, key: Key, outcome: Result<(), Unhealthy>) {
        match outcome {
            Ok(()) => self.probe_passed(key),
            Err(unhealthy) => self.probe_failed(key, Cause::Unhealthy(unhealthy)),
        }
    }

    /// Handles the head of the response to a probe.
    pub(super) fn on_probe_response(&mut self, key: Key, head: HeadRef<'_>) {
        match head.status() {
            status if self.settings.health.status.contains(status) => self.probe_passed(key),
            status => self.probe_failed(key, Cause::Status(status)),
        }
    }

    fn probe_passed(&mut self, key: Key) {
        if let Some(slot) = self.end_probe(key) {
            self.note_probe(slot, None);
        }
    }

    /// Handles a probe that has failed.
    pub(super) fn probe_failed(&mut self, key: Key, cause: Cause) {
        let has_asked = self.has_asked(key);
        if let Some(slot) = self.end_probe(key) {
            if !has_asked {
                self.shared.cells.suspect(slot.into());
            }
            let text = Explained { health: &self.settings.health, has_asked, cause }.to_string();
            self.note_probe(slot, Some(&text));
        }
    }

    /// True if a probe has sent its request.
    fn has_asked(&self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let mux = connection.codec.mux();
        let opened = mux.is_none_or(|mux| mux.h2.open_streams() > 0);
        self.settings.health.check.asks() && connection.phase == Phase::Open && opened
    }

    /// Handles a probe that has met a limit of the proxy, which says nothing about its backend.
    pub(super) fn probe_refused(&mut self, key: Key, failure: Failure) {
        if let Some(slot) = self.end_probe(key) {
            self.note_failure(slot, failure);
        }
    }

    /// Closes the connections of a probe. Returns its slot if the backend is still the same.
    fn end_probe(&mut self, key: Key) -> Option<u16> {
        let Peer::Backend(BackendEnd { slot, generation, .. }) = self.connections.get(key)?.peer else { return None };
        let connection = self.connections.get(key)?;
        // Over HTTP/2 a probe has a connection and a stream, and either may have failed.
        let mux_key = connection.codec.stream().map_or(key, |stream| stream.mux);
        let mux = self.connections.get(mux_key).and_then(|mux_key| mux_key.codec.mux());
        let streams = mux.map(|mux| mux.streams().collect::<Vec<_>>()).unwrap_or_default();
        streams.into_iter().chain([key, mux_key]).for_each(|key| self.close(key, Output::Close(key)));
        // A failure of the previous backend says nothing about its successor.
        (self.upstreams.generation(slot.into()) == Some(generation)).then_some(slot)
    }
}

/// Writes the request of a probe.
pub fn write_request(sink: &mut impl Sink, path: &str, scheme: &str, host: &str) {
    let (scheme, authority, path) = (scheme.as_bytes(), host.as_bytes(), path.as_bytes());
    sink.request(b"GET", Target { scheme, authority, path, protocol: b"" });
    sink.host(b"Host", host.as_bytes());
    sink.field(b"User-Agent", USER_AGENT.as_bytes());
    sink.hop(b"Connection", b"close");
}

/// Writes the head of a probe that calls grpc.health.v1.
pub fn write_call(sink: &mut impl Sink, scheme: &str, host: &str) {
    let (scheme, authority, path) = (scheme.as_bytes(), host.as_bytes(), grpc::HEALTH_PATH.as_bytes());
    sink.request(b"POST", Target { scheme, authority, path, protocol: b"" });
    sink.host(b"Host", authority);
    sink.field(b"Content-Type", b"application/grpc");
    sink.field(b"TE", b"trailers");
    sink.field(b"User-Agent", USER_AGENT.as_bytes());
}

/// The reason why a probe has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The status of the response does not pass.
    Status(u16),
    /// The response to a gRPC probe does not say SERVING.
    Unhealthy(Unhealthy),
    /// The probe took longer than `--health-timeout`.
    Late,
    /// The connection could not be made, or ended before the response was complete.
    Failed(Failure),
}

/// The facts about a failed probe, with the flag that decides them.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'a> {
    /// The settings of the probe.
    pub health: &'a Health,
    /// True if the request was sent.
    pub has_asked: bool,
    /// The reason of the failure.
    pub cause: Cause,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_grpc = self.health.check == HealthCheck::Grpc;
        let flag = if is_grpc { "--health-check grpc" } else { "--health-check http" };
        match (&self.health.service[..], is_grpc) {
            _ if !self.has_asked => {}
            (_, false) => write!(f, "GET {} -> ", self.health.path)?,
            ("", true) => f.write_str("grpc.health.v1 -> ")?,
            (service, true) => write!(f, "grpc.health.v1 of {service} -> ")?,
        }
        match (self.cause, self.has_asked) {
            (Cause::Status(status), _) => write!(f, "{status}; --health-status {}", self.health.status),
            (Cause::Late, true) => f.write_str("no response within --health-timeout"),
            (Cause::Late, false) => f.write_str("not connected within --health-timeout"),
            (Cause::Unhealthy(unhealthy), _) => write!(f, "{unhealthy}; {flag}"),
            (Cause::Failed(failure), true) => write!(f, "{failure}; {flag}"),
            (Cause::Failed(failure), false) => write!(f, "{failure}"),
        }
    }
}

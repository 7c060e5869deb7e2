//! Pages of the proxy itself: metrics, and answers to liveness and readiness checks.
//!
//! The metrics of a thousand backends are megabytes. They are generated in portions, one per turn of the worker in all,
//! and no more than the client takes. To the client's connection the proxy is the backend of such a response.

use std::sync::Arc;

use super::Proxy;
use super::connection::{ClientEnd, Ending, Moved, Peer, Phase};
use super::exchange::Upstream;
use super::progress::Progress;
use super::record::Reason;
use super::reply::LocalReply;
use crate::collections::slab::Key;
use crate::http::fields::Name;
use crate::http::forward::Sink;
use crate::http::framing::Body;
use crate::http::head::{HeadRef, Start, Version};
use crate::http::status::phrase;
use crate::limits::{METRICS_PORTION_BYTES, QUEUE_HIGH_BYTES};
use crate::metrics::{CONTENT_TYPE, Exposition, Listing, Place, SlotState, Sources};

/// The page that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Metrics,
    /// Liveness: the process answers.
    Live,
    /// Readiness: the process accepts requests.
    Ready,
    /// No such page exists.
    Unknown,
    /// The method is neither GET nor HEAD.
    Method,
}

impl Proxy {
    /// Returns the page that a request asks for; `None` if it is for a backend.
    pub(super) fn page(&self, key: Key, head: HeadRef<'_>) -> Option<Page> {
        let Some(Peer::Client(ClientEnd { admin, .. })) = self.connections.get(key).map(|client| client.peer) else {
            return None;
        };
        if !admin && !self.settings.public_metrics {
            return None;
        }
        let Start::Request { path, .. } = head.head.start else { return None };
        let reads = matches!(head.method(), b"GET" | b"HEAD");
        if !admin {
            let asks = is_path(head.get(path), self.settings.metrics_path.as_bytes());
            return (asks && reads).then_some(Page::Metrics);
        }
        let pages: [(&[u8], Page); 3] =
            [(b"/metrics", Page::Metrics), (b"/livez", Page::Live), (b"/readyz", Page::Ready)];
        let page = pages.into_iter().find(|(wanted, _)| is_path(head.get(path), wanted));
        Some(page.map_or(Page::Unknown, |(_, page)| if reads { page } else { Page::Method }))
    }

    pub(super) fn answer_page(&mut self, id: Key, page: Page) {
        match page {
            Page::Metrics => self.begin_metrics(id),
            Page::Live => self.answer_exchange(id, LocalReply::Alive),
            Page::Ready if self.shutdown.unready => self.answer_exchange(id, LocalReply::Draining),
            Page::Ready if !self.has_backends() => self.answer_exchange(id, LocalReply::NobodyToServe),
            Page::Ready => self.answer_exchange(id, LocalReply::Ready),
            Page::Unknown => self.answer_exchange(id, LocalReply::NoPage),
            Page::Method => self.answer_exchange(id, LocalReply::ReadOnly),
        }
    }

    fn begin_metrics(&mut self, id: Key) {
        let (listing, shows) = (Arc::clone(&self.settings.listing), self.shows());
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        let (facts, client) = (exchange.facts, exchange.client);
        exchange.response = Progress::Flowing;
        let whole = exchange.request == Progress::Ended || facts.body == Body::None;
        let goes_on =
            whole && facts.connection.persistent && !self.shutdown.draining && facts.version != Version::Http10;
        let body = if facts.version == Version::Http10 { Body::UntilClose } else { Body::Chunked };
        let Some(entry) = self.connections.living(client) else { return };
        self.scratch.text.clear();
        let mut writer = entry.codec.head_writer(&mut self.scratch.text, shows);
        writer.response(200, phrase(200).as_bytes());
        writer.field(b"Date", &self.date.1);
        writer.field(b"Content-Type", CONTENT_TYPE.as_bytes());
        writer.framing(body);
        if let Some(value) = entry.client().and_then(|client| self.settings.strict_transport(client.listener)) {
            writer.field(Name::StrictTransportSecurity.text().as_bytes(), value.as_bytes());
        }
        if !goes_on {
            writer.hop(b"Connection", b"close");
        }
        let written = writer.finish();
        exchange.persistent = goes_on;
        exchange.record.status = 200;
        let exposition = Exposition::new(if facts.is_head() { Arc::new(Listing::default()) } else { listing });
        self.set_upstream(id, Upstream::Page(Box::new(exposition)));
        let body = if facts.is_head() { Body::None } else { body };
        self.write_to_client(client, "answer", Some(body), written);
        if facts.is_head() {
            self.end_metrics(id);
        } else {
            self.ledger.feeding.push_back(id);
        }
    }

    /// True if a client can take more of a page.
    pub(super) fn can_feed(&self) -> bool {
        self.ledger.feeding.iter().any(|&id| {
            let client = self.exchanges.get(id).and_then(|exchange| self.connections.get(exchange.client));
            client.is_none_or(|client| client.output.len() < QUEUE_HIGH_BYTES)
        })
    }

    /// Generates one portion for the next client that can take one. It is one in all, so that other clients of the
    /// worker wait for one portion at most.
    pub(super) fn feed(&mut self) {
        for _ in 0..self.ledger.feeding.len() {
            let Some(id) = self.ledger.feeding.pop_front() else { return };
            let Some(client) = self.exchanges.get(id).map(|exchange| exchange.client) else { continue };
            let full = self.connections.get(client).is_none_or(|client| client.output.len() >= QUEUE_HIGH_BYTES);
            if full || self.feed_one(id) {
                self.ledger.feeding.push_back(id);
            }
            if !full {
                return;
            }
        }
    }

    /// Generates a portion. Returns true if more follows.
    fn feed_one(&mut self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.living_mut(id) else { return false };
        let client = exchange.client;
        let Upstream::Page(exposition) = &mut exchange.upstream else { return false };
        let cells = self.shared.cells;
        let backends = &self.upstreams.backends;
        let state = |state: SlotState, one: Place| {
            let Some(Some(backend)) = backends.get(one.slot) else { return 0 };
            match state {
                // Another backend has the slot by now.
                _ if backend.generation != one.generation => 0,
                SlotState::Healthy => cells.state(one.slot).is_up().into(),
                SlotState::InFlight => cells.in_flight(one.slot),
                SlotState::Expiry => cells.expiry(one.slot),
                // The listing contains these.
                SlotState::Addresses | SlotState::Weight | SlotState::Max => 0,
            }
        };
        let workers = self.shared.counted();
        let sources = Sources { workers, globals: self.shared.globals, state: &state };
        let mut text = String::with_capacity(METRICS_PORTION_BYTES * 2);
        let more = exposition.write(&sources, &mut text, METRICS_PORTION_BYTES);
        exchange.record.sent += text.len() as u64;
        if let Some(connection) = self.connections.living_mut(client) {
            for piece in text.as_bytes().chunks(METRICS_PORTION_BYTES) {
                let mut buffer = self.scratch.buffers.take();
                buffer.room()[..piece.len()].copy_from_slice(piece);
                buffer.fill(piece.len());
                let rest =
                    connection.codec.write_data(&mut connection.output, &mut self.scratch.buffers, buffer, piece.len());
                rest.into_iter().for_each(|buffer| self.scratch.buffers.give(buffer));
            }
        }
        self.schedule_send(client);
        self.rearm(client, Moved::Nothing);
        if !more {
            self.end_metrics(id);
        }
        more
    }

    fn end_metrics(&mut self, id: Key) {
        let Some(exchange) = self.exchanges.living(id) else { return };
        let (client, persistent, last) = (exchange.client, exchange.persistent, exchange.facts.is_last());
        let whole = exchange.request == Progress::Ended || exchange.facts.body == Body::None;
        self.remove_exchange(id, Reason::Page);
        let Some(connection) = self.connections.living_mut(client) else { return };
        connection.codec.write_end(&mut connection.output, &mut self.scratch.buffers, None);
        if whole && connection.phase == Phase::Open {
            self.release_client(client, true, persistent, last);
        } else {
            self.end(client, Ending::Linger);
        }
    }
}

/// True if a request's path is this one, with or without a query.
fn is_path(path: &[u8], wanted: &[u8]) -> bool {
    !wanted.is_empty() && path.strip_prefix(wanted).is_some_and(|rest| matches!(rest.first(), None | Some(b'?')))
}

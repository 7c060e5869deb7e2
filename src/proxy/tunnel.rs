//! Tunnels: both ends carry bytes without messages until both directions have ended. A WebSocket is asked for by Upgrade
//! in HTTP/1.1 (RFC 6455) and by an extended CONNECT in HTTP/2 (RFC 8441), so there are four pairs:
//!
//! | client | backend | request to the backend | accepted by | response to the client |
//! |---|---|---|---|---|
//! | HTTP/1.1 | HTTP/1.1 | as asked | 101 | the same 101 |
//! | HTTP/2 | HTTP/1.1 | GET, Upgrade, a key of the proxy | 101 with the accept of that key | 200 |
//! | HTTP/1.1 | HTTP/2 | CONNECT, `:protocol` | 2xx | 101 with the accept of the client's key |
//! | HTTP/2 | HTTP/2 | CONNECT, `:protocol` | 2xx | 200 |
//!
//! Other protocols of Upgrade have the first pair alone. On a stream the bytes are DATA frames, the end of a direction is
//! END_STREAM, and an abort is RST_STREAM CANCEL.

use super::Proxy;
use super::connection::{Connection, Ending, Send};
use super::exchange::{Exchange, Upstream};
use super::failure::Failure;
use super::mux::Sending;
use super::output::Output;
use super::progress::Progress;
use super::record::Reason;
use crate::base64::{Alphabet, encode};
use crate::collections::slab::Key;
use crate::digest::sha1;
use crate::http::fields::{Name, list};
use crate::http::forward::{self, Handshake, Switch};
use crate::http::framing::{Body, Kind};
use crate::http::head::HeadRef;
use crate::http::message_error::MessageError;

/// The text that a server appends to the key of a client (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The form in which a backend is asked for a WebSocket.
pub(super) enum Asks {
    AsAsked,
    /// By Upgrade with this key.
    Upgrade(String),
    /// By an extended CONNECT.
    Connect,
}

impl Asks {
    pub(super) fn handshake(&self) -> Handshake<'_> {
        match self {
            Asks::AsAsked => Handshake::AsAsked,
            Asks::Upgrade(key) => Handshake::Upgrade(key.as_bytes()),
            Asks::Connect => Handshake::Connect,
        }
    }

    /// Returns the framing of the request. A stream stays open behind the head of an extended CONNECT.
    pub(super) fn body(&self, body: Body) -> Body {
        if matches!(self, Asks::Connect) { Body::Chunked } else { body }
    }
}

/// Returns the Sec-WebSocket-Accept of a key (RFC 6455, 4.2.2).
fn accept(key: &[u8]) -> String {
    encode(Alphabet::Standard, &sha1(&[key, GUID]))
}

/// Returns the fault of a 101, if it has one.
fn fault(exchange: &Exchange, head: HeadRef<'_>) -> Option<MessageError> {
    // Content of a known length is plain bytes, like a tunnel's, so the rest of it may follow the 101.
    let chunked = exchange.facts.body == Body::Chunked && exchange.request != Progress::Ended;
    let mut protocols = head.values(Name::Upgrade).flat_map(list);
    if !exchange.facts.upgrades() || chunked {
        return Some(MessageError::SwitchUnasked);
    }
    if !exchange.facts.is_connect() {
        return protocols.next().is_none().then_some(MessageError::SwitchUnnamed);
    }
    if !protocols.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket")) {
        return Some(MessageError::SwitchUnnamed);
    }
    let expected = accept(encode(Alphabet::Standard, &exchange.nonce).as_bytes());
    let proved = head.values(Name::SecWebSocketAccept).eq([expected.as_bytes()]);
    (!proved).then_some(MessageError::SwitchUnproved)
}

impl Proxy {
    /// Returns the form in which a backend's connection is asked for the WebSocket of an exchange, and prepares the
    /// connection.
    pub(super) fn asks_websocket(&mut self, id: Key, key: Key) -> Asks {
        let Some(exchange) = self.exchanges.living_mut(id) else { return Asks::AsAsked };
        if exchange.facts.kind != Kind::WebSocket {
            return Asks::AsAsked;
        }
        match self.connections.get_mut(key).and_then(|backend| backend.codec.stream_mut()) {
            Some(stream) => {
                stream.sending = Sending::Tunnel;
                Asks::Connect
            }
            None if exchange.facts.is_connect() => {
                let (half, other) = exchange.nonce.split_at_mut(size_of::<u64>());
                half.copy_from_slice(&self.random.any().to_be_bytes());
                other.copy_from_slice(&self.random.any().to_be_bytes());
                Asks::Upgrade(encode(Alphabet::Standard, &exchange.nonce))
            }
            None => Asks::AsAsked,
        }
    }

    /// True if the exchange of a stream to a backend asks for a WebSocket.
    pub(super) fn asks_tunnel(&self, stream: Key) -> bool {
        let exchange = self.connections.get(stream).and_then(|stream| self.exchanges.get(stream.exchange?));
        exchange.is_some_and(|exchange| exchange.facts.kind == Kind::WebSocket)
    }

    /// Begins a tunnel if the backend has agreed to one. Returns false if the response is an ordinary one.
    pub(super) fn on_switching(&mut self, id: Key, key: Key, slot: u16, head: HeadRef<'_>) -> bool {
        let over_stream = self.connections.get(key).is_some_and(|backend| backend.codec.stream().is_some());
        let Some(exchange) = self.exchanges.living_mut(id) else { return true };
        let connect = exchange.facts.is_connect();
        let fault = match head.status() {
            101 => fault(exchange, head).map(Failure::Malformed),
            200..300 if over_stream && exchange.facts.kind == Kind::WebSocket => None,
            // To the client a 2xx would mean a tunnel. The backend may serve no WebSocket here, which is no failure.
            200..300 if connect => {
                self.lost(key, Failure::NotSwitched, false);
                return true;
            }
            _ => return false,
        };
        if let Some(failure) = fault {
            self.backend_failed(key, failure);
            return true;
        }
        exchange.response = Progress::Flowing;
        exchange.record.status = if connect { 200 } else { 101 };
        let (client, sent_us) = (exchange.client, exchange.record.sent_us);
        self.set_upstream(id, Upstream::Tunnel { slot, key });
        self.count_response(slot, head.status(), sent_us);
        // The backend has done its part. The rest is a matter of the users of the tunnel.
        self.upstreams.note_success(slot);
        self.write_cookie(id, slot);
        let shows = self.shows();
        let (Some(entry), Some(exchange)) = (self.connections.living(client), self.exchanges.living(id)) else {
            return true;
        };
        let given = exchange.saved.view().values(Name::SecWebSocketKey).next().unwrap_or_default();
        let accept = if over_stream && !connect { accept(given) } else { String::new() };
        let switch = match (connect, over_stream) {
            (true, _) => Switch::Connect,
            (false, true) => Switch::Upgrade(accept.as_bytes()),
            (false, false) => Switch::AsReceived,
        };
        self.scratch.text.clear();
        let mut writer = entry.codec.head_writer(&mut self.scratch.text, shows);
        forward::switching(&mut writer, head, exchange.id(), switch, &self.scratch.cookie);
        let written = writer.finish();
        for end in [client, key] {
            if let Some(connection) = self.connections.get_mut(end) {
                connection.codec.tunnel();
            }
        }
        self.write_to_client(client, "response head", Some(Body::UntilClose), written);
        // The bytes that the client sent after its request go first.
        self.ledger.resumed.push(client);
        true
    }

    /// True if a client has asked for a tunnel on a stream, and nothing says that its direction is complete.
    pub(super) fn is_cut_tunnel(&self, key: Key) -> bool {
        let Some(client) = self.connections.get(key) else { return false };
        let exchange = client.exchange.and_then(|id| self.exchanges.living(id));
        exchange.is_some_and(|exchange| exchange.facts.is_connect()) && client.codec.needs_bytes()
    }

    /// Ends one direction of a tunnel on the opposite connection too.
    pub(super) fn tunnel_ended(&mut self, key: Key) {
        let id = self.connections.get(key).and_then(|connection| connection.exchange);
        let Some(opposite) = id.and_then(|id| self.opposite(id, key)) else { return };
        if let Some(connection) = self.connections.get_mut(opposite)
            && connection.send != Send::Finished
        {
            connection.after_flush = Ending::Finish;
            self.on_flushed(opposite);
        }
        self.tunnel_flushed(key);
    }

    /// Closes a tunnel if both directions have ended.
    pub(super) fn tunnel_flushed(&mut self, key: Key) {
        let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) else { return };
        let Some(opposite) = self.opposite(id, key) else { return };
        let is_over = |one: &Connection| one.has_ended() && one.send == Send::Finished;
        let over = |end| self.connections.get(end).is_none_or(is_over);
        if over(key) && over(opposite) {
            self.remove_exchange(id, Reason::Tunnel);
            self.close(key, Output::Close(key));
            self.close(opposite, Output::Close(opposite));
        }
    }
}

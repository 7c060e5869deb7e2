//! The inputs of the proxy: events of sockets that the shell reports.

use std::net::SocketAddr;

use super::Proxy;
use super::abort::Abort;
use super::codec::Codec;
use super::connection::{BackendEnd, ClientEnd, Connection, Moved, Peer, Phase, Receive, Send, Wait};
use super::failure::Failure;
use super::record::Reason;
use crate::collections::slab::Key;
use crate::metrics::{Count, SlotCount};

impl Proxy {
    /// Accepts a client of the first listener.
    pub fn accept(&mut self, peer: SocketAddr) -> Key {
        self.accept_on(peer, 0)
    }

    /// Accepts a client of the listener with this number.
    pub fn accept_on(&mut self, peer: SocketAddr, listener: u16) -> Key {
        self.accept_as(peer, listener, false)
    }

    /// Accepts a client of the admin port, which serves nothing but pages.
    pub fn accept_admin(&mut self, peer: SocketAddr) -> Key {
        self.accept_as(peer, 0, true)
    }

    fn accept_as(&mut self, peer: SocketAddr, listener: u16, admin: bool) -> Key {
        let (address, port) = (peer.ip(), peer.port());
        let trusted = self.trusts(address);
        let key = self.connections.insert(Connection::new(Peer::Client(ClientEnd {
            address,
            port,
            original_port: 0,
            listener,
            trusted,
            admin,
            seen_request: false,
            held: 0,
        })));
        if admin {
            self.totals.admins += 1;
        } else {
            self.totals.clients += 1;
            self.shared.block.add(Count::Clients, 1);
            self.shared.block.set(Count::ClientsNow, self.totals.clients as u64);
        }
        if !admin {
            self.await_header(key);
        }
        self.rearm(key, Moved::Nothing);
        key
    }

    /// Returns the memory for bytes from a connection; `None` if the connection is not to be read now. `received`,
    /// `nothing`, `ended` or `failed` must follow.
    pub fn room(&mut self, key: Key) -> Option<&mut [u8]> {
        let limit = self.read_limit(key);
        if limit == 0 {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.read_paused = true;
            }
            return None;
        }
        let connection = self.connections.get_mut(key)?;
        let buffer = match connection.input.take() {
            Some(buffer) => self.scratch.buffers.widen(buffer),
            None => self.scratch.buffers.take(),
        };
        let room = connection.input.insert(buffer).room();
        let most = room.len().min(limit);
        room.get_mut(..most)
    }

    /// Handles a read that found nothing.
    pub fn nothing(&mut self, key: Key) {
        self.keep_input(key);
        if self.connections.get(key).is_some_and(|connection| connection.wait == Wait::LastRead) {
            self.end_idle(key);
        }
    }

    fn keep_input(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && let Some(buffer) = connection.input.take()
        {
            connection.input = self.scratch.buffers.keep(buffer);
        }
    }

    /// Handles `n` bytes, at least one, that were read into the room.
    pub fn received(&mut self, key: Key, n: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(buffer) = &mut connection.input {
            buffer.fill(n);
        }
        match connection.peer {
            Peer::Client(_) => self.shared.block.add(Count::FromClients, n as u64),
            Peer::Backend(BackendEnd { slot, .. }) => {
                self.shared.block.add_slot(SlotCount::FromBackend, slot.into(), n as u64)
            }
        }
        self.pump(key);
        self.changed(key, Moved::In);
        self.resume();
    }

    /// Handles the end of the peer's direction. Unread bytes may precede it.
    pub fn closing(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.receive == Receive::Open {
            connection.receive = Receive::Closing;
        }
        if connection.is_client() {
            self.client_ended(key, Receive::Closing);
            self.rearm(key, Moved::Nothing);
        }
    }

    /// Handles the end of the peer's direction after all bytes before it were received.
    pub fn ended(&mut self, key: Key) {
        if self.ends_after_turn(key) {
            return self.closing(key);
        }
        self.keep_input(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.receive = Receive::Ended;
        self.pump(key);
        self.changed(key, Moved::Nothing);
        self.resume();
    }

    /// Handles a connection that could not be established, or that broke.
    pub fn failed(&mut self, key: Key, failure: Failure) {
        self.keep_input(key);
        if let (Failure::Tls(_), Some(Peer::Backend(BackendEnd { slot, .. }))) =
            (failure, self.connections.get(key).map(|connection| connection.peer))
        {
            self.shared.block.add_slot(SlotCount::HandshakesFailed, slot.into(), 1);
        }
        let again = match failure {
            Failure::Exhausted(_) => self.connect_instead(key),
            Failure::Busy => self.redial_later(key),
            _ => false,
        };
        match self.connections.get(key).filter(|_| !again) {
            Some(connection) if connection.is_client() => self.client_gone(key, Reason::ClientLeft(Abort::Reset)),
            Some(_) => self.backend_failed(key, failure),
            None => {}
        }
        self.resume();
    }

    /// Handles a connection that has failed, or has ended in both directions, while it is not read. A client is gone
    /// then. The bytes that a backend has sent are still worth reading, and the end follows them.
    pub fn broken(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(Connection::is_client) {
            self.client_gone(key, Reason::ClientLeft(Abort::Reset));
        }
        self.resume();
    }

    /// Handles an established connection to a backend. `http2`: the TLS handshake selected HTTP/2.
    pub fn connected(&mut self, key: Key, http2: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.phase = Phase::Open;
        if let Peer::Backend(BackendEnd { slot, .. }) = connection.peer
            && !connection.is_probe()
        {
            self.shared.block.add_slot(SlotCount::Connects, slot.into(), 1);
        }
        match (connection.exchange, &connection.codec, connection.peer) {
            _ if connection.is_probe() => self.probe_connected(key, http2),
            (_, Codec::Mux(_), Peer::Backend(_)) => self.mux_connected(key, http2),
            (Some(exchange), ..) => self.attach(exchange, key),
            (None, ..) => self.release(key),
        }
        self.resume();
    }

    /// Handles `n` bytes, at least one, that the socket took from the queue.
    pub fn sent(&mut self, key: Key, n: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.output.consume(&mut self.scratch.buffers, n);
        self.totals.grown -= connection.take_held();
        match connection.peer {
            Peer::Client(_) => self.shared.block.add(Count::ToClients, n as u64),
            Peer::Backend(BackendEnd { slot, .. }) => {
                self.shared.block.add_slot(SlotCount::ToBackend, slot.into(), n as u64)
            }
        }
        let exchange = connection.exchange;
        let is_mux = connection.codec.mux().is_some();
        if connection.output.is_empty() {
            connection.send_scheduled = false;
            let is_client = connection.is_client();
            self.on_flushed(key);
            exchange.filter(|_| !is_client).into_iter().for_each(|id| self.finish_if_over(id));
        }
        self.changed(key, Moved::Out);
        if is_mux {
            self.mux_sent(key, n);
        }
        if let Some(opposite) = exchange.and_then(|id| self.opposite(id, key)) {
            self.wake(opposite);
            self.changed(opposite, Moved::Nothing);
        } else if self.connections.get(key).is_some_and(Connection::has_unseen_input) {
            // The client has taken some of its responses, so its next request may be decoded, or its end.
            self.ledger.resumed.push(key);
        }
        self.resume();
    }

    /// Handles a socket that takes nothing now. The rest of the queue waits. One client over HTTP/2 may have it wait for
    /// many backends.
    pub fn blocked(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key).filter(|connection| !connection.is_client()) else { return };
        let client = connection.exchange.and_then(|id| self.exchanges.get(id)).map(|exchange| exchange.client);
        let is_stream = |client| self.connections.get(client).is_some_and(|client| client.codec.stream().is_some());
        if client.is_some_and(is_stream)
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.output.shrink(&mut self.scratch.buffers);
        }
    }

    /// Handles a socket that takes nothing any more, although there may be something to read.
    pub fn unsendable(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_client() {
            self.client_gone(key, Reason::ClientLeft(Abort::Reset));
        } else {
            if connection.send == Send::Open {
                connection.send = Send::Broken;
            }
            connection.send_scheduled = false;
            connection.output.clear(&mut self.scratch.buffers);
            let exchange = connection.exchange;
            self.on_flushed(key);
            self.rearm(key, Moved::Nothing);
            exchange.into_iter().for_each(|id| self.finish_if_over(id));
            if let Some(opposite) = exchange.and_then(|id| self.opposite(id, key)) {
                self.wake(opposite);
                self.rearm(opposite, Moved::Nothing);
            }
        }
        self.resume();
    }
}

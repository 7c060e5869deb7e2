//! Peers that seem to take nothing.
//!
//! The system may hold megabytes for a peer that reads slowly, and reports room for more only when a third of them are gone.
//! So a peer whose time is limited has its limit in two halves. After the first one, the proxy asks how many bytes the peer
//! has not acknowledged. After the second one it asks again, and a peer that has acknowledged some of them gets another
//! half.

use super::Proxy;
use super::connection::{Connection, Half, Wait};
use super::output::Output;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;

impl Connection {
    /// True if a limit has two halves. The streams of a client have the deadlines of their windows, and their mux has
    /// the one of the socket.
    pub(super) fn has_halves(&self, wait: Wait) -> bool {
        match wait {
            Wait::ClientSend => self.codec.stream().is_none(),
            Wait::Backend => true,
            _ => false,
        }
    }
}

impl Proxy {
    /// Asks for the bytes that a peer has not acknowledged, because half of its limit has passed.
    pub(super) fn ask_unacknowledged(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let socket = connection.codec.stream().map_or(key, |stream| stream.mux);
        self.ledger.outputs.push_back(Output::Measure(key, socket));
    }

    /// Handles the number of bytes that the socket for a connection has taken, and that its peer has not acknowledged.
    /// `None` if the system cannot say.
    pub fn measured(&mut self, key: Key, unacknowledged: Option<usize>) {
        let now = self.unacknowledged_of(key, unacknowledged.unwrap_or(0));
        let Some(connection) = self.connections.get_mut(key) else { return };
        let wait = connection.wait;
        if self.ledger.timers.get(key.index()) != NEVER || !connection.has_halves(wait) {
            // The connection was handled since.
            return;
        }
        connection.half = Half::Second;
        let (until_us, is_admin) = (connection.until_us, connection.is_admin());
        if self.ledger.unacknowledged.insert(key, now).is_none_or(|before| now < before) {
            let half_us = self.limit_us(wait, is_admin) / 2;
            self.ledger.timers.set(key.index(), self.now_us.saturating_add(half_us).min(until_us));
        } else {
            self.stalled(key, wait);
        }
        self.resume();
    }

    /// True if the content of a client's stream waits for the socket, and not for the windows of the client. The mux then
    /// has the deadline.
    pub(super) fn waits_for_socket(&mut self, key: Key) -> bool {
        let Some(stream) = self.connections.get(key).and_then(|client| client.codec.stream()) else { return false };
        let (mux, id) = (stream.mux, stream.id);
        let Some(connection) = self.connections.get_mut(mux).filter(|mux| !mux.output.is_empty()) else { return false };
        connection.codec.mux_mut().is_some_and(|mux| !mux.h2.lacks_window(id))
    }
}

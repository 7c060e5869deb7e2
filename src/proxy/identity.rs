//! Clients whose address a proxy in front sends in a PROXY header. Such a connection is `Phase::Identifying` until the
//! header is complete. Only a trusted peer may send a header. Otherwise anybody could claim to be anybody, so the
//! connection is closed.

use std::fmt;
use std::net::IpAddr;

use super::Proxy;
use super::connection::{Moved, Phase};
use super::output::Output;
use super::state::Listener;
use crate::collections::slab::Key;
use crate::config::Listen;
use crate::http::proxy_header::{Addresses, HeaderError};
use crate::metrics::Count;

/// The reason why a client was not identified. Its cause is the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unidentified {
    /// The peer is not trusted.
    Untrusted,
    /// The bytes are no PROXY header.
    Malformed(HeaderError),
    /// The connection ended within the header.
    Incomplete,
    /// The header was not complete in time.
    Late,
}

impl fmt::Display for Unidentified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unidentified::Untrusted => f.write_str("a PROXY header is only accepted from peers in --trust"),
            Unidentified::Malformed(error) => error.fmt(f),
            Unidentified::Incomplete => f.write_str("the connection ended within the PROXY header"),
            Unidentified::Late => f.write_str("the PROXY header did not come in time"),
        }
    }
}

impl Unidentified {
    fn count(self) -> Count {
        match self {
            Unidentified::Untrusted => Count::UnidentifiedUntrusted,
            Unidentified::Malformed(_) => Count::UnidentifiedMalformed,
            Unidentified::Incomplete => Count::UnidentifiedIncomplete,
            Unidentified::Late => Count::UnidentifiedLate,
        }
    }
}

impl Proxy {
    /// True if the proxy believes a peer.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        self.settings.trust.iter().any(|range| range.contains(peer))
    }

    /// Waits for the PROXY header of a client that was accepted, if its listener demands one.
    pub(super) fn await_header(&mut self, key: Key) {
        let Some(client) = self.connections.get(key).and_then(|one| one.client()) else { return };
        let (listener, trusted) = (client.listener, client.trusted);
        let demands = |listener: &Listener| listener.listen.proxy_header;
        if !self.settings.listeners.get(usize::from(listener)).is_some_and(demands) {
            return;
        }
        if !trusted {
            return self.unidentified(key, Some(Unidentified::Untrusted));
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Identifying;
        }
    }

    /// Returns the listener of a client whose PROXY header is due.
    pub fn awaits_header(&self, key: Key) -> Option<Listen> {
        let connection = self.connections.get(key).filter(|one| one.phase == Phase::Identifying)?;
        let listener = connection.client()?.listener;
        self.settings.listeners.get(usize::from(listener)).map(|listener| listener.listen)
    }

    /// Handles a complete PROXY header with these addresses; without them, the peer is the client.
    pub fn identified(&mut self, key: Key, addresses: Option<Addresses>) {
        addresses.into_iter().for_each(|addresses| self.note_destination(key, addresses.destination));
        let trusted = addresses.map(|addresses| self.trusts(addresses.source.ip()));
        let Some(connection) = self.connections.get_mut(key) else { return };
        (connection.phase, connection.read_paused) = (Phase::Open, false);
        if let (Some(client), Some(addresses), Some(trusted)) = (connection.client_mut(), addresses, trusted) {
            let Addresses { source, destination } = addresses;
            (client.address, client.port, client.trusted) = (source.ip(), source.port(), trusted);
            client.original_port = destination.port();
        }
        self.rearm(key, Moved::Nothing);
    }

    /// Closes a client that was not identified. Without a reason, the peer only connected, as health checkers do.
    pub fn unidentified(&mut self, key: Key, reason: Option<Unidentified>) {
        if let Some(reason) = reason {
            self.shared.block.add(reason.count(), 1);
            self.log_unidentified(key, reason);
        }
        self.close(key, Output::Close(key));
    }
}

//! The outputs of the resolver: instructions for its shell, and changes of names.

use std::net::SocketAddr;

use super::lookup::Reason;
use crate::collections::slab::Key;

/// Instructions for the shell. It skips those for a socket that it could not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a new UDP socket on a port of the system's choice and connect it to the server. An error, now or
    /// later (such as ECONNREFUSED), is reported by `failed`.
    OpenUdp(Key, SocketAddr),
    /// Connect to the server. `connected` or `failed` must follow.
    ConnectTcp(Key, SocketAddr),
    /// Send these bytes: a datagram, or a part of the stream.
    Send(Key, Vec<u8>),
    /// Close the socket. No further output refers to it.
    Close(Key),
    /// The state of a name has changed, for the backends' addresses or for the log.
    Changed(Box<str>, Change),
}

/// A change of a name's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The set of addresses has changed.
    Addresses,
    /// The lookup failed after a success. The addresses are kept.
    Failed(Reason),
    /// The lookup succeeded after a failure.
    Recovered,
    /// A domain of the search list could not be queried for the first time, so the name is used without it.
    Skipped(Reason),
    /// The name has more addresses than are used; their number.
    Many(usize),
}

//! The state of one connection to a client or to a backend, and the deadline that applies to it. An idle
//! connection consists of this record and holds no buffer.
//!
//! Each direction has its own state: `Receive` for bytes from the peer, `Send` for bytes to it. `Phase` says whether
//! messages can be exchanged at all. `Ending` is the action that follows when the queue is empty, and `Wait` is the
//! event that the connection's one deadline is for.

use std::net::IpAddr;

use super::codec::Codec;
use crate::collections::buffer::Buffer;
use crate::collections::queue::Queue;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;
use crate::config::Timeouts;
use crate::http::part::Role;
use crate::limits::{
    H2_SHUTDOWN_US, IDLE_LINGER_US, LINGER_IDLE_US, POOL_IDLE_US, PROXY_HEADER_US, QUEUE_HIGH_BYTES, TUNNEL_IDLE_US,
};

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Client(ClientEnd),
    Backend(BackendEnd),
}

/// A client, as its connection knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientEnd {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The port that the client has connected to, as its PROXY header says; 0 without one.
    pub(super) original_port: u16,
    /// The number of the listener that accepted the connection.
    pub(super) listener: u16,
    /// The proxy believes the client's X-Forwarded-* fields.
    pub(super) trusted: bool,
    /// The client uses the admin port, which serves nothing but pages.
    pub(super) admin: bool,
    /// A request has arrived.
    pub(super) seen_request: bool,
    /// Bytes in the queue that came through grown windows of streams that are closed now.
    pub(super) held: u32,
}

/// The backend in a slot, as a connection to it knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackendEnd {
    pub(super) slot: u16,
    /// The generation of the slot when the connection was begun.
    pub(super) generation: u64,
    pub(super) used_for: Use,
    /// The client that the connection is for, because it begins with a PROXY header: the connection of a client, or the
    /// mux of its streams.
    pub(super) owner: Option<Key>,
    /// Another exchange may follow the current one.
    pub(super) persistent: bool,
    /// The last bytes were an interim response that was dropped, so they renew no deadline.
    pub(super) no_progress: bool,
}

/// The use of a connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Exchanges. The connection is `reused` if it has carried an earlier one.
    Exchanges { reused: bool },
    /// One probe and nothing else.
    Probe,
}

impl Use {
    /// Exchanges, of which there was none yet.
    pub(super) const FRESH: Use = Use::Exchanges { reused: false };
}

impl BackendEnd {
    pub(super) fn new(slot: u16, generation: u64, used_for: Use, owner: Option<Key>) -> BackendEnd {
        BackendEnd { slot, generation, used_for, owner, persistent: true, no_progress: false }
    }
}

/// The stage of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The connection to a backend is being established.
    Connecting,
    /// The PROXY header of the client has not arrived completely.
    Identifying,
    /// The connection can carry messages.
    Open,
    /// Input is dropped. The peer may still be sending when the last response leaves, and a close with unread
    /// bytes would destroy that response.
    Lingering,
}

/// The state of the direction from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    Open,
    /// The peer has ended its direction, and unread bytes may precede that end. A backend's connection carries no
    /// further exchange. A client's request continues only for `--half-close`.
    Closing,
    /// The peer has ended its direction, and all bytes before that end were received.
    Ended,
}

/// The state of the direction to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Send {
    Open,
    /// The proxy has ended its direction.
    Finished,
    /// The socket takes nothing any more. Output is dropped, but there may be input.
    Broken,
}

/// The action that follows when everything queued has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// None: the connection goes on.
    GoesOn,
    /// Close the connection.
    Close,
    /// End our direction, and read until the peer ends its direction.
    Linger,
    /// Reset the connection, so that a message without a length does not seem complete.
    Reset,
    /// End our direction of a tunnel.
    Finish,
}

/// The event that a connection waits for. It decides the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// No event with a limit.
    Nothing,
    /// The rest of the client's PROXY header.
    ProxyHeader,
    /// The first byte of a client's first request.
    FirstByte,
    /// The rest of a request's head.
    RequestHead,
    /// A further request.
    Idle,
    /// The last read of an idle connection, which follows at once.
    LastRead,
    /// More of a request's content.
    Upload,
    /// The next message of a stream of messages: of gRPC, or of events.
    Message,
    /// The client takes some of the queue.
    ClientSend,
    /// The first byte of the response for a client that has ended its direction.
    HalfClosed,
    /// The peer ends its direction after ours has ended.
    Linger,
    /// The connection is established.
    Connect,
    /// The backend takes or sends a byte.
    Backend,
    /// A further exchange for a pooled connection.
    Pool,
    /// A backend falls below its limit.
    Room,
    /// The result of a probe.
    Probe,
    /// The answer to a PING.
    Ping,
    /// The rest of a header block on an HTTP/2 connection.
    Block,
    /// The acknowledgement that a client knows of the shutdown of its HTTP/2 connection.
    Shutdown,
    /// A byte from either end of a tunnel.
    Tunnel,
}

impl Wait {
    /// Returns the limit in microseconds.
    pub(super) fn limit_us(self, timeouts: &Timeouts, probe_us: u64) -> u64 {
        match self {
            Wait::Nothing => NEVER,
            Wait::FirstByte | Wait::RequestHead | Wait::Block => timeouts.request_us,
            Wait::ProxyHeader => PROXY_HEADER_US.min(timeouts.request_us),
            Wait::Idle => timeouts.idle_us,
            Wait::Upload | Wait::ClientSend | Wait::Backend => timeouts.response_us,
            Wait::LastRead => IDLE_LINGER_US,
            Wait::HalfClosed => timeouts.half_close_us,
            Wait::Linger => LINGER_IDLE_US,
            Wait::Connect | Wait::Room | Wait::Ping => timeouts.connect_us,
            Wait::Probe => probe_us,
            Wait::Pool => POOL_IDLE_US,
            Wait::Shutdown => H2_SHUTDOWN_US,
            Wait::Tunnel | Wait::Message => TUNNEL_IDLE_US,
        }
    }

    /// True if bytes in this direction restart the limit. A client that has to take output does not restart it by
    /// sending more.
    pub(super) fn is_renewed(self, moved: Moved) -> bool {
        match moved {
            Moved::Nothing => false,
            // The request of a client that has ended its direction may still be on its way to the backend.
            Moved::In => matches!(
                self,
                Wait::Upload | Wait::Message | Wait::HalfClosed | Wait::Linger | Wait::Backend | Wait::Tunnel
            ),
            Moved::Out => matches!(self, Wait::ClientSend | Wait::Message | Wait::Backend | Wait::Tunnel),
            Moved::Both => self.is_renewed(Moved::In) || self.is_renewed(Moved::Out),
        }
    }
}

/// The part of a limit for a peer that takes nothing (`stalled`). Other limits have no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    First,
    /// `Ledger::unacknowledged` has the state of the socket after the first half.
    Second,
}

/// The direction in which bytes have just moved on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Nothing,
    /// From the peer.
    In,
    /// To the peer.
    Out,
    Both,
}

impl Moved {
    /// Returns both moves as one.
    pub(super) fn and(self, other: Moved) -> Moved {
        match (self, other) {
            (Moved::Nothing, moved) | (moved, Moved::Nothing) => moved,
            (before, moved) if before == moved => moved,
            _ => Moved::Both,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) phase: Phase,
    pub(super) receive: Receive,
    pub(super) send: Send,
    pub(super) after_flush: Ending,
    pub(super) wait: Wait,
    /// A `Send` output has been issued for the queue.
    pub(super) send_scheduled: bool,
    /// The socket was readable, but the proxy did not read it. `wake` reads it later.
    pub(super) read_paused: bool,
    /// The end of each wait at the latest, in microseconds: the end of lingering, or the deadline of a gRPC call.
    pub(super) until_us: u64,
    pub(super) half: Half,
    pub(super) codec: Codec,
    pub(super) exchange: Option<Key>,
    /// Received bytes that are not decoded yet.
    pub(super) input: Option<Buffer>,
    /// Bytes to send.
    pub(super) output: Queue,
}

impl Connection {
    pub(super) fn new(peer: Peer) -> Connection {
        let (role, phase) = match peer {
            Peer::Client(_) => (Role::Server, Phase::Open),
            Peer::Backend(_) => (Role::Client, Phase::Connecting),
        };
        Connection {
            peer,
            phase,
            receive: Receive::Open,
            send: Send::Open,
            after_flush: Ending::GoesOn,
            wait: Wait::Nothing,
            send_scheduled: false,
            read_paused: false,
            until_us: NEVER,
            half: Half::First,
            codec: Codec::http1(role),
            exchange: None,
            input: None,
            output: Queue::new(),
        }
    }

    pub(super) fn client(&self) -> Option<&ClientEnd> {
        if let Peer::Client(client) = &self.peer { Some(client) } else { None }
    }

    pub(super) fn client_mut(&mut self) -> Option<&mut ClientEnd> {
        if let Peer::Client(client) = &mut self.peer { Some(client) } else { None }
    }

    pub(super) fn backend(&self) -> Option<&BackendEnd> {
        if let Peer::Backend(backend) = &self.peer { Some(backend) } else { None }
    }

    pub(super) fn backend_mut(&mut self) -> Option<&mut BackendEnd> {
        if let Peer::Backend(backend) = &mut self.peer { Some(backend) } else { None }
    }

    pub(super) fn is_client(&self) -> bool {
        matches!(self.peer, Peer::Client(_))
    }

    pub(super) fn is_admin(&self) -> bool {
        self.client().is_some_and(|client| client.admin)
    }

    pub(super) fn is_probe(&self) -> bool {
        self.backend().is_some_and(|backend| backend.used_for == Use::Probe)
    }

    /// True if a connection to a backend has carried an exchange before the current one.
    pub(super) fn is_reused(&self) -> bool {
        self.backend().is_some_and(|backend| backend.used_for == Use::Exchanges { reused: true })
    }

    /// Notes whether the next exchange on a connection to a backend is not its first. A probe's connection has none.
    pub(super) fn set_reused(&mut self, reused: bool) {
        if let Some(backend) = self.backend_mut()
            && backend.used_for != Use::Probe
        {
            backend.used_for = Use::Exchanges { reused };
        }
    }

    /// Takes the account of the content in a client's queue that a grown window admitted, if little is left of the queue.
    pub(super) fn take_held(&mut self) -> u32 {
        let has_room = self.output.len() < QUEUE_HIGH_BYTES;
        self.client_mut().filter(|_| has_room).map_or(0, |client| std::mem::take(&mut client.held))
    }

    /// True if the peer has ended its direction, and all bytes before that end were received.
    pub(super) fn has_ended(&self) -> bool {
        self.receive == Receive::Ended
    }

    /// True if the peer is known to have ended its direction, even if unread bytes precede that end.
    pub(super) fn is_closing(&self) -> bool {
        self.receive != Receive::Open
    }

    /// True if the socket still takes output, or would take it if our direction had not ended.
    pub(super) fn is_sendable(&self) -> bool {
        self.send != Send::Broken
    }

    /// True if everything queued was sent and nothing was dropped.
    pub(super) fn is_drained(&self) -> bool {
        self.output.is_empty() && self.is_sendable()
    }

    /// True if the proxy has not looked at some input yet, or at its end.
    pub(super) fn has_unseen_input(&self) -> bool {
        self.input.is_some() || self.read_paused || self.has_ended()
    }

    /// True if the connection is being established, or has not answered a PING yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.phase == Phase::Connecting || self.codec.mux().is_some_and(|mux| mux.h2.is_pinged())
    }

    /// True if the connection's end is decided, so that no further input is decoded.
    pub(super) fn drops_input(&self) -> bool {
        self.phase == Phase::Lingering || matches!(self.after_flush, Ending::Close | Ending::Linger | Ending::Reset)
    }

    /// Returns the event that a connection without an exchange waits for.
    pub(super) fn idle_wait(&self) -> Wait {
        match (&self.peer, self.phase) {
            (Peer::Backend(backend), _) if backend.used_for == Use::Probe => Wait::Probe,
            (_, Phase::Connecting) => Wait::Connect,
            (_, Phase::Identifying) => Wait::ProxyHeader,
            (_, Phase::Lingering) if self.output.is_empty() => Wait::Linger,
            (Peer::Client(_), Phase::Open) if self.codec.mux().is_some() && !self.drops_input() => {
                self.codec.mux().map_or(Wait::Nothing, |mux| mux.downstream_wait(self.output.is_empty()))
            }
            (Peer::Client(_), _) if !self.output.is_empty() || self.codec.stream().is_some() => Wait::ClientSend,
            (Peer::Client(_), _) if !self.codec.awaits_head() => Wait::Upload,
            (Peer::Client(_), _) if self.input.is_some() => Wait::RequestHead,
            (Peer::Client(client), _) if !client.seen_request => Wait::FirstByte,
            (Peer::Client(_), _) => Wait::Idle,
            (Peer::Backend(_), _) => match self.codec.mux().filter(|_| !self.drops_input()) {
                // The answer to a PING follows the block.
                Some(mux) if mux.is_in_block() => Wait::Block,
                Some(mux) if mux.h2.is_pinged() => Wait::Ping,
                // Each stream has its own deadline.
                Some(mux) if !mux.is_idle() => Wait::Nothing,
                _ => Wait::Pool,
            },
        }
    }
}

// An idle client costs this record, its `worker::socket::Socket`, and their slots.
const _: () = assert!(size_of::<Connection>() <= 192);

//! One connection, to a client or to a backend: what the proxy keeps about it, and what it is
//! waiting for. An idle connection is this record and nothing else.

use std::net::IpAddr;

use super::Timeouts;
use super::codec::Codec;
use crate::collections::buffer::Buffer;
use crate::collections::queue::Queue;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;
use crate::http::part::Role;
use crate::limits::{IDLE_LINGER_US, LINGER_IDLE_US, POOL_IDLE_US, TUNNEL_IDLE_US};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A client.
    Client {
        /// Its address.
        address: IpAddr,
        /// Its port.
        port: u16,
        /// The number of the listener that it connected to.
        listener: u16,
        /// Whether its X-Forwarded-* fields are believed.
        trusted: bool,
        /// Whether it came to see how things stand, and is served nothing else.
        admin: bool,
    },
    /// The backend in a slot.
    Backend {
        /// The slot.
        slot: u16,
        /// Whose it was then.
        generation: u64,
    },
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To a backend, not yet established.
    Connecting,
    /// Carrying messages, or ready to.
    Open,
    /// What comes is dropped: an answer is on its way to a peer that may still be sending, and
    /// a close with its bytes unread would destroy the answer.
    Lingering,
}

/// What happens once everything queued has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing: it goes on.
    GoesOn,
    /// It is closed.
    Close,
    /// Our direction ends, and the other is read until it ends too.
    Linger,
    /// It is reset, so that a message without a length cannot seem complete.
    Reset,
    /// Our direction of a tunnel ends.
    Finish,
}

/// What a connection waits for, which decides how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing that has a limit.
    Nothing,
    /// A client's first request, of which no byte has arrived.
    FirstByte,
    /// A request's head, all of it.
    RequestHead,
    /// Another request.
    Idle,
    /// The last read of an idle connection, which follows at once.
    LastRead,
    /// More of a request's content.
    Upload,
    /// The client to take what is queued for it.
    ClientSend,
    /// Any byte of the response, for a client that has ended its direction.
    HalfClosed,
    /// A peer to end its direction after ours has ended.
    Linger,
    /// The connection to be established.
    Connect,
    /// The backend to take, or to send, anything.
    Backend,
    /// Another exchange, in the pool.
    Pool,
    /// A backend to be below its limit.
    Room,
    /// All that a probe waits for.
    Probe,
    /// A backend to say that it is there.
    Ping,
    /// The rest of a block of fields on an HTTP/2 connection.
    Block,
    /// Either end of a tunnel.
    Tunnel,
}

impl Wait {
    /// How long it may take, in microseconds.
    pub(super) fn limit_us(self, timeouts: &Timeouts, probe_us: u64) -> u64 {
        match self {
            Wait::Nothing => NEVER,
            Wait::FirstByte | Wait::RequestHead | Wait::Block => timeouts.request_us,
            Wait::Idle => timeouts.idle_us,
            Wait::Upload | Wait::ClientSend | Wait::Backend => timeouts.response_us,
            Wait::LastRead => IDLE_LINGER_US,
            Wait::HalfClosed => timeouts.half_close_us,
            Wait::Linger => LINGER_IDLE_US,
            Wait::Connect | Wait::Room | Wait::Ping => timeouts.connect_us,
            Wait::Probe => probe_us,
            Wait::Pool => POOL_IDLE_US,
            Wait::Tunnel => TUNNEL_IDLE_US,
        }
    }

    /// Whether bytes that move this way begin the wait anew: a client that is to take something does not by
    /// sending more.
    pub(super) fn is_renewed(self, moved: Moved) -> bool {
        match moved {
            Moved::Nothing => false,
            // The request of a client that has ended its direction may still be on its way to the backend.
            Moved::In => matches!(self, Wait::Upload | Wait::HalfClosed | Wait::Linger | Wait::Backend | Wait::Tunnel),
            Moved::Out => matches!(self, Wait::ClientSend | Wait::Backend | Wait::Tunnel),
        }
    }
}

/// What has just moved on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Not a byte.
    Nothing,
    /// Bytes that its peer has sent.
    In,
    /// Bytes that were sent to its peer.
    Out,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) side: Side,
    pub(super) phase: Phase,
    pub(super) ending: Ending,
    pub(super) wait: Wait,
    /// A `Send` output has been given for what is queued.
    pub(super) send_scheduled: bool,
    /// The peer's direction has ended.
    pub(super) ended: bool,
    /// The peer is known to have ended its direction behind what is still to be read. On a connection to a
    /// backend no other exchange follows; the request of a client goes on only for `--half-close`.
    pub(super) closing: bool,
    /// It was not read when it could have been, and is to be woken.
    pub(super) read_paused: bool,
    /// What has just come is of no use to anyone, so that no wait begins anew by it.
    pub(super) no_progress: bool,
    /// Nothing can be sent any more: what is written is dropped.
    pub(super) unsendable: bool,
    /// Our direction has ended.
    pub(super) finished: bool,
    /// To a backend: an exchange has been carried before. To a client: a request has come.
    pub(super) used: bool,
    /// When lingering ends at the latest, in microseconds.
    pub(super) linger_until_us: u64,
    /// To a backend: it carries a probe, and nothing else.
    pub(super) probe: bool,
    /// It is one of a pair of connections that belong together (`bind`).
    pub(super) bound: bool,
    /// To a client: what it has not taken, for windows that had grown, of streams that are over.
    pub(super) grown: u32,
    /// To a backend: another exchange may follow this one.
    pub(super) persistent: bool,
    pub(super) codec: Codec,
    pub(super) exchange: Option<Key>,
    /// Bytes received and not decoded yet.
    pub(super) input: Option<Buffer>,
    /// Bytes to send.
    pub(super) output: Queue,
}

impl Connection {
    pub(super) fn new(side: Side) -> Connection {
        let (role, phase) = match side {
            Side::Client { .. } => (Role::Server, Phase::Open),
            Side::Backend { .. } => (Role::Client, Phase::Connecting),
        };
        Connection {
            side,
            phase,
            ending: Ending::GoesOn,
            wait: Wait::Nothing,
            send_scheduled: false,
            ended: false,
            closing: false,
            read_paused: false,
            no_progress: false,
            unsendable: false,
            finished: false,
            used: false,
            linger_until_us: NEVER,
            probe: false,
            bound: false,
            grown: 0,
            persistent: true,
            codec: Codec::http1(role),
            exchange: None,
            input: None,
            output: Queue::new(),
        }
    }

    pub(super) fn is_client(&self) -> bool {
        matches!(self.side, Side::Client { .. })
    }

    /// Whether all that was to be sent was taken, and nothing of it dropped.
    pub(super) fn is_drained(&self) -> bool {
        self.output.is_empty() && !self.unsendable
    }

    /// Whether there is input, read or unread, or its end, that was not looked at.
    pub(super) fn has_waited(&self) -> bool {
        self.input.is_some() || self.read_paused || self.ended
    }

    /// Whether it is yet to be established, or to say that it is still there.
    pub(super) fn is_awaited(&self) -> bool {
        self.phase == Phase::Connecting || self.codec.mux().is_some_and(|mux| mux.h2.is_pinged())
    }

    /// Whether its end is decided, so that nothing more of its input is decoded.
    pub(super) fn drops_input(&self) -> bool {
        self.phase == Phase::Lingering || matches!(self.ending, Ending::Close | Ending::Linger | Ending::Reset)
    }

    /// What the connection itself, its exchange apart, waits for.
    pub(super) fn idle_wait(&self) -> Wait {
        match (self.side, self.phase) {
            _ if self.probe => Wait::Probe,
            (_, Phase::Connecting) => Wait::Connect,
            (_, Phase::Lingering) if self.output.is_empty() => Wait::Linger,
            (Side::Client { .. }, _) if !self.output.is_empty() => Wait::ClientSend,
            (Side::Client { .. }, _) if !self.codec.awaits_head() => Wait::Upload,
            (Side::Client { .. }, _) if self.input.is_some() => Wait::RequestHead,
            (Side::Client { .. }, _) if !self.used => Wait::FirstByte,
            (Side::Client { .. }, _) => Wait::Idle,
            // The client that it is bound to has limits of its own.
            (Side::Backend { .. }, _) if self.bound => Wait::Nothing,
            (Side::Backend { .. }, _) => match self.codec.mux() {
                // The answer to a PING comes behind it.
                Some(mux) if mux.is_in_block() => Wait::Block,
                Some(mux) if mux.h2.is_pinged() => Wait::Ping,
                // Each stream has its own limits.
                Some(mux) if !mux.is_idle() => Wait::Nothing,
                _ => Wait::Pool,
            },
        }
    }
}

// An idle client costs this, its `worker::socket::Socket`, and their slots.
const _: () = assert!(size_of::<Connection>() <= 192);

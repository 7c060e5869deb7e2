//! Clients that leave before their response is complete.
//!
//! A client that has sent a FIN may still read: `nc -N` and `shutdown(SHUT_WR)` end only the client's direction. But
//! nearly always the client has gone, and nothing shows that before something is sent to it. So a request without a
//! byte of its response goes on for `--half-close` (`Wait::HalfClosed`), and is not sent again meanwhile. A response
//! that has begun goes on: the first bytes that reach a client that has gone cause a reset.

use super::Proxy;
use super::connection::Connection;
use super::exchange::Exchange;
use super::progress::Progress;
use crate::metrics::Count;

/// The status that stands for a request whose client left before the response. It is counted and never sent.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The way in which a client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The client ended its direction, and no response arrived in time after that.
    Closed,
    /// The client ended its direction before its request was complete.
    Incomplete,
    /// The client's connection was reset, or failed in another way.
    Reset,
    /// The client did not read its response in time.
    Stalled,
}

impl Abort {
    pub(super) fn count(self) -> Count {
        match self {
            Abort::Closed => Count::AbortsClosed,
            Abort::Incomplete => Count::AbortsIncomplete,
            Abort::Reset => Count::AbortsReset,
            Abort::Stalled => Count::AbortsStalled,
        }
    }
}

impl Proxy {
    /// True if a request goes on only for `--half-close`, because its client has ended its direction. A client that
    /// still has output to take is treated as present: either it takes it, or its reset arrives. In the queue for a
    /// full backend, the shorter of the two limits applies.
    pub(super) fn is_half_closed(&self, client: &Connection, exchange: &Exchange) -> bool {
        client.is_closing()
            && client.output.is_empty()
            && exchange.response == Progress::Waiting
            && !(exchange.is_queued() && self.settings.timeouts.half_close_us > self.settings.timeouts.connect_us)
    }
}

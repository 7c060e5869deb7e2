//! Clients that leave before their response is complete. Each such request is recorded here, and nowhere else.
//!
//! After a FIN a client may still read: `nc -N` and `shutdown(SHUT_WR)` only end the client's direction. Nearly
//! always the client has gone, which nothing shows before something is sent to it. So a request without a byte
//! of its response goes on for `--half-close` (`Wait::HalfClosed`), and is not sent again meanwhile. A response
//! that has begun goes on: the first bytes that reach a client that has gone bring a reset.

use super::connection::Connection;
use super::exchange::{Exchange, Progress};
use super::record::Cause;
use super::{Output, Proxy};
use crate::collections::slab::Key;
use crate::metrics::Count;

/// The status that stands for a request whose client left before the response. It is counted and never sent.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How a client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    /// It ended its direction, and no response came in time after that.
    Closed,
    /// It ended its direction before its request was complete.
    Incomplete,
    /// Its connection was reset, or failed otherwise.
    Reset,
    /// It did not read its response in time.
    Stalled,
}

impl Abort {
    fn count(self) -> Count {
        match self {
            Abort::Closed => Count::AbortsClosed,
            Abort::Incomplete => Count::AbortsIncomplete,
            Abort::Reset => Count::AbortsReset,
            Abort::Stalled => Count::AbortsStalled,
        }
    }
}

impl Proxy {
    /// A client has left: its connection and its exchange are removed, and no backend is to blame.
    pub(super) fn client_left(&mut self, key: Key, how: Output, abort: Abort) {
        if let Some(id) = self.connections.get(key).and_then(|client| client.exchange) {
            self.record_abort(id, abort);
        }
        let cause = if abort == Abort::Stalled { Cause::ClientStalled } else { Cause::ClientGone };
        self.client_gone(key, how, cause);
    }

    /// Records that the client of an exchange has left. A tunnel has no response that could be incomplete.
    pub(super) fn record_abort(&mut self, id: Key, abort: Abort) {
        let Some(exchange) = self.exchanges.get(id) else { return };
        if exchange.tunnel || exchange.local.is_some() || exchange.response == Progress::Ended {
            return;
        }
        self.shared.block.add(abort.count(), 1);
        if let Some(slot) = exchange.slot.filter(|_| exchange.response == Progress::Waiting) {
            self.shared.block.add_response(slot.into(), CLIENT_CLOSED_REQUEST);
        }
    }

    /// Whether a request goes on only for `--half-close`, because its client has ended its direction. A client
    /// that is still sent something is still there, or its reset will come. In the queue for a full backend, the
    /// shorter limit holds.
    pub(super) fn is_half_closed(&self, client: &Connection, exchange: &Exchange) -> bool {
        client.is_closing()
            && client.output.is_empty()
            && exchange.response == Progress::Waiting
            && !(exchange.waiting && self.timeouts.half_close_us > self.timeouts.connect_us)
    }
}

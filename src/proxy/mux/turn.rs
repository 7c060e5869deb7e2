//! The work of one client over HTTP/2 in a turn of the worker, so that other clients do not wait for all that it sends at
//! once. A unit of work is about a tenth of a microsecond of processor time.

use super::super::Proxy;
use super::super::output::Output;
use super::Mux;
use crate::collections::slab::Key;
use crate::limits::{H2_FRAME_UNITS, H2_LIST_UNIT_BYTES, H2_REQUEST_UNITS, H2_TURN_DIALS, H2_TURN_UNITS};

/// The work of a turn, and the counts from which it follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// The units that were spent.
    spent: u64,
    /// The number of outputs when it began. The shell takes none before it has ended.
    outputs: usize,
    /// The number of requests of the client.
    requests: u64,
    /// The size of all fields that were decoded. A block of a kilobyte may have a thousand fields, and those of refused
    /// requests are decoded, too.
    decoded: u64,
}

impl Proxy {
    /// Counts a frame of a client that was decoded, and the work that it has caused. Returns true if the client's turn is
    /// over.
    pub(super) fn is_turn_over(&self, key: Key, turn: &mut Turn) -> bool {
        let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { return false };
        let Some(requests) = mux.downstream().map(|downstream| downstream.requests.into()) else { return false };
        let decoded = mux.h2.decoded_bytes();
        let of_list = (decoded - turn.decoded) / H2_LIST_UNIT_BYTES;
        let of_requests = (requests - turn.requests) * H2_REQUEST_UNITS;
        let spent = turn.spent + H2_FRAME_UNITS + of_list + of_requests;
        *turn = Turn { spent, requests, decoded, ..*turn };
        // A request that is cancelled in its turn causes no connection.
        let is_dial =
            |output: &&Output| matches!(output, Output::Connect(key, _) if self.connections.get(*key).is_some());
        let mut dials = self.ledger.outputs.iter().skip(turn.outputs).filter(is_dial);
        spent >= H2_TURN_UNITS || dials.nth(H2_TURN_DIALS - 1).is_some()
    }

    /// Begins a turn of a client.
    pub(super) fn begin_turn(&self, key: Key) -> Turn {
        let mux = self.connections.get(key).and_then(|one| one.codec.mux());
        let requests = mux.and_then(Mux::downstream).map_or(0, |downstream| downstream.requests.into());
        let decoded = mux.map_or(0, |mux| mux.h2.decoded_bytes());
        Turn { spent: 0, outputs: self.ledger.outputs.len(), requests, decoded }
    }
}

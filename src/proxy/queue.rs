//! Requests that wait because every backend that could serve them is at its limit. They are served in order of
//! arrival. Each waits no longer than a connect may take, and their number is limited.

use super::Proxy;
use super::connection::Moved;
use super::exchange::Upstream;
use super::reply::LocalReply;
use crate::balance::Pick;
use crate::collections::slab::Key;
use crate::limits::{WAITING_LOOK_US, WAITING_REQUESTS};
use crate::metrics::Count;

impl Proxy {
    /// Puts an exchange into the queue until a backend has room.
    pub(super) fn wait_for_room(&mut self, id: Key) {
        if self.ledger.waiting.len() >= WAITING_REQUESTS {
            self.shared.block.add(Count::WaitedInVain, 1);
            return self.answer_exchange(id, LocalReply::NoRoomToWait);
        }
        self.shared.block.add(Count::Waited, 1);
        self.set_upstream(id, Upstream::Queued);
        let Some(client) = self.exchanges.living(id).map(|exchange| exchange.client) else { return };
        if self.ledger.waiting.is_empty() {
            self.ledger.look_us = self.now_us + WAITING_LOOK_US;
        }
        self.ledger.waiting.push_back(id);
        self.rearm(client, Moved::Nothing);
    }

    /// Serves waiting exchanges as far as there is room. Other workers make room too, which does not show here, so
    /// the queue is looked at from time to time.
    pub(super) fn serve_waiting(&mut self) {
        if self.ledger.waiting.is_empty() || !self.ledger.room_made && self.now_us < self.ledger.look_us {
            return;
        }
        self.ledger.room_made = false;
        self.ledger.look_us = self.now_us + WAITING_LOOK_US;
        let mut at = 0;
        while let Some(&id) = self.ledger.waiting.get(at) {
            match self.pick(id, None) {
                // A backend for an exchange without a try would also serve those behind it. A bound client waits for
                // its one backend.
                Pick::Full if self.is_bound(id) => at += 1,
                Pick::Full if self.exchanges.living(id).is_none_or(|exchange| exchange.tries.count() == 0) => break,
                Pick::Full => at += 1,
                pick => self.assign(id, pick),
            }
        }
    }

    /// Replies to a client whose request has waited too long.
    pub(super) fn no_room(&mut self, key: Key) {
        if let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) {
            self.shared.block.add(Count::WaitedInVain, 1);
            self.answer_exchange(id, LocalReply::NoRoom);
        }
    }
}

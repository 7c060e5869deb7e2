//! Requests that wait because each backend that could serve them has as many as it may: in the
//! order in which they came, for as long as a connect may take, and only so many.

use super::Proxy;
use super::connection::Moved;
use super::exchange::Upstream;
use super::reply::LocalReply;
use crate::balance::Pick;
use crate::collections::slab::Key;
use crate::limits::{WAITING_LOOK_US, WAITING_REQUESTS};
use crate::metrics::Count;

impl Proxy {
    /// Has an exchange wait until a backend has room for it.
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

    /// Serves those that wait, as far as there is room. What another worker has finished does not
    /// show here, so it is looked for now and then.
    pub(super) fn serve_waiting(&mut self) {
        if self.ledger.waiting.is_empty() || !self.ledger.room_made && self.now_us < self.ledger.look_us {
            return;
        }
        self.ledger.room_made = false;
        self.ledger.look_us = self.now_us + WAITING_LOOK_US;
        let mut at = 0;
        while let Some(&id) = self.ledger.waiting.get(at) {
            match self.pick(id, None) {
                // What would do for one that has tried nothing yet would do for those behind it.
                // A client with a connection of its own waits for that one backend.
                Pick::Full if self.is_bound(id) => at += 1,
                Pick::Full if self.exchanges.living(id).is_none_or(|exchange| exchange.tries.count() == 0) => break,
                Pick::Full => at += 1,
                pick => self.assign(id, pick),
            }
        }
    }

    /// A client's request has waited too long.
    pub(super) fn no_room(&mut self, key: Key) {
        if let Some(id) = self.connections.get(key).and_then(|connection| connection.exchange) {
            self.shared.block.add(Count::WaitedInVain, 1);
            self.answer_exchange(id, LocalReply::NoRoom);
        }
    }
}

//! Requests that wait because every backend that could serve them is at its limit. Those of a group are served in order
//! of arrival, and no group waits for another one. Each waits no longer than a connect may take, and their number is
//! limited.

use std::collections::VecDeque;

use super::Proxy;
use super::connection::Moved;
use super::exchange::Upstream;
use super::reply::LocalReply;
use crate::balance::Pick;
use crate::collections::slab::Key;
use crate::limits::{WAITING_LOOK_US, WAITING_REQUESTS};
use crate::metrics::Count;

/// The exchanges that wait, by group.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    groups: Vec<VecDeque<Key>>,
    len: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns all exchanges.
    pub(super) fn all(&self) -> impl Iterator<Item = Key> {
        self.groups.iter().flatten().copied()
    }

    /// True if an exchange of a group waits.
    pub(super) fn has(&self, group: usize) -> bool {
        self.len > 0 && self.groups.get(group).is_some_and(|queue| !queue.is_empty())
    }

    fn get(&self, group: usize, at: usize) -> Option<Key> {
        self.groups.get(group)?.get(at).copied()
    }

    fn push(&mut self, group: usize, id: Key) {
        if self.groups.len() <= group {
            self.groups.resize_with(group + 1, VecDeque::new);
        }
        self.groups[group].push_back(id);
        self.len += 1;
    }

    /// Removes an exchange if it waits.
    pub(super) fn remove(&mut self, id: Key) {
        for queue in &mut self.groups {
            if let Some(at) = queue.iter().position(|&other| other == id) {
                queue.remove(at);
                self.len -= 1;
                return;
            }
        }
    }

    /// Puts the exchanges into other groups. `group_of` returns the group of an exchange.
    pub(super) fn regroup(&mut self, group_of: impl Fn(Key) -> usize) {
        let before = std::mem::take(self);
        before.all().for_each(|id| self.push(group_of(id), id));
    }
}

impl Proxy {
    /// Puts an exchange into the queue until a backend has room.
    pub(super) fn wait_for_room(&mut self, id: Key) {
        if self.ledger.waiting.len() >= WAITING_REQUESTS {
            self.shared.block.add(Count::WaitedInVain, 1);
            return self.answer_exchange(id, LocalReply::NoRoomToWait);
        }
        self.shared.block.add(Count::Waited, 1);
        self.set_upstream(id, Upstream::Queued);
        let Some((client, group)) = self.exchanges.living(id).map(|exchange| (exchange.client, exchange.group)) else {
            return;
        };
        if self.ledger.waiting.is_empty() {
            self.ledger.look_us = self.now_us + WAITING_LOOK_US;
        }
        self.ledger.waiting.push(group, id);
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
        (0..self.upstreams.groups()).for_each(|group| self.serve_group(group));
    }

    fn serve_group(&mut self, group: usize) {
        let mut at = 0;
        while let Some(id) = self.ledger.waiting.get(group, at) {
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

//! Idle connections to backends, the one used last lent first: the others grow old together
//! and can be closed. Only a connection whose message was complete, with nothing left over,
//! comes here. There are only so many of them, to one backend and in all, for each holds a
//! descriptor; and where none is left for what is wanted now, the oldest has to go.

use std::collections::VecDeque;

use super::connection::{BackendEnd, Peer, Phase};
use super::{Output, Proxy};
use crate::collections::slab::Key;
use crate::limits::POOL_CONNECTIONS;

/// Idle connections by backend slot.
#[derive(Debug)]
pub(super) struct IdlePool {
    /// Each slot's in the order in which they came, with how many had come before to any.
    slots: Vec<VecDeque<(u64, Key)>>,
    given: u64,
    count: usize,
    most: usize,
}

impl IdlePool {
    pub(super) fn new() -> IdlePool {
        IdlePool { slots: Vec::new(), given: 0, count: 0, most: usize::MAX }
    }

    /// Has room for connections to so many slots.
    pub(super) fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots.max(self.slots.len()), VecDeque::new);
    }

    /// The connection to a backend that was used last.
    pub(super) fn last(&self, slot: usize) -> Option<Key> {
        self.slots.get(slot)?.back().map(|&(_, key)| key)
    }

    /// Takes the connection that was used last.
    pub(super) fn take(&mut self, slot: usize) -> Option<Key> {
        let (_, key) = self.slots.get_mut(slot)?.pop_back()?;
        self.count -= 1;
        Some(key)
    }

    /// Keeps a connection; false where there are too many to its backend.
    pub(super) fn give(&mut self, slot: usize, key: Key) -> bool {
        match self.slots.get_mut(slot) {
            Some(idle) if idle.len() < POOL_CONNECTIONS => {
                idle.push_back((self.given, key));
                self.given += 1;
                self.count += 1;
                true
            }
            _ => false,
        }
    }

    /// Forgets a connection that is gone. The oldest are at the front, and go first.
    pub(super) fn remove(&mut self, slot: usize, key: Key) {
        if let Some(idle) = self.slots.get_mut(slot)
            && let Some(at) = idle.iter().position(|&(_, other)| other == key)
        {
            idle.remove(at);
            self.count -= 1;
        }
    }

    /// All of them, each with its slot.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, Key)> {
        let slots = self.slots.iter().enumerate();
        slots.flat_map(|(slot, idle)| idle.iter().map(move |&(_, key)| (slot, key)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether there are more than there may be in all: the oldest is to go then.
    pub(super) fn is_over(&self) -> bool {
        self.count > self.most
    }

    /// The one that has been idle the longest. All slots are looked at, which costs less than the connect
    /// that is saved or made for it.
    fn oldest(&self) -> Option<Key> {
        self.slots.iter().filter_map(|idle| idle.front()).min_by_key(|(given, _)| given).map(|&(_, key)| key)
    }
}

impl Proxy {
    /// From now on no more idle connections to backends are kept than `most`.
    pub fn limit_idle(&mut self, most: usize) {
        self.upstreams.idle.most = most;
    }

    /// Closes the connection to a backend that has been idle the longest, so that its descriptor is free;
    /// false where none is idle.
    pub fn evict_idle(&mut self) -> bool {
        let oldest = self.upstreams.idle.oldest().or_else(|| self.idle_mux());
        oldest.inspect(|&key| self.close(key, Output::Close(key))).is_some()
    }

    /// Asks once more for a connection that could not be begun for a lack of ours, where an idle one can make
    /// room for it; whether it can.
    pub(super) fn connect_instead(&mut self, key: Key) -> bool {
        let Some(Peer::Backend(BackendEnd { slot, .. })) = self.connections.get(key).map(|connection| connection.peer)
        else {
            return false;
        };
        let evicted = self.evict_idle();
        if evicted {
            self.ledger.outputs.push_back(Output::Connect(key, slot.into()));
        }
        evicted
    }

    /// Of the connections that carry streams, and have none now, the one on which nothing has come for longest.
    fn idle_mux(&self) -> Option<Key> {
        let idle = self.upstreams.muxes.iter().flatten().filter_map(|&key| {
            let mux_key = self.connections.get(key).filter(|mux_key| mux_key.phase == Phase::Open)?;
            let mux = mux_key.codec.mux().filter(|mux| mux.is_idle())?;
            Some((mux.heard_us, key))
        });
        idle.min().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collections::slab::Slab;

    #[test]
    fn the_one_used_last_is_lent_first_and_the_number_is_bounded() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..=POOL_CONNECTIONS).map(|n| slab.insert(n)).collect();
        let mut pool = IdlePool::new();
        pool.grow(2);
        assert!(keys[..POOL_CONNECTIONS].iter().all(|&key| pool.give(1, key)));
        assert!(!pool.give(1, keys[POOL_CONNECTIONS]));
        assert!(!pool.give(2, keys[0]));
        pool.remove(1, keys[POOL_CONNECTIONS - 1]);
        assert_eq!(pool.last(1), Some(keys[POOL_CONNECTIONS - 2]));
        assert_eq!(pool.take(1), Some(keys[POOL_CONNECTIONS - 2]));
        assert_eq!(pool.take(0), None);
    }

    #[test]
    fn the_oldest_of_all_backends_goes_first() {
        let mut slab = Slab::new();
        let keys: Vec<Key> = (0..4).map(|n| slab.insert(n)).collect();
        let mut pool = IdlePool::new();
        pool.grow(3);
        pool.most = 2;
        assert_eq!(pool.oldest(), None);
        for (slot, at) in [(2, 0), (0, 1), (2, 2)] {
            assert!(!pool.is_over());
            pool.give(slot, keys[at]);
        }
        assert!(pool.is_over());
        assert_eq!(pool.oldest(), Some(keys[0]));
        pool.remove(2, keys[0]);
        assert!(!pool.is_over());
        assert_eq!(pool.oldest(), Some(keys[1]));
        // One that is lent and comes back is young again.
        assert_eq!(pool.take(0), Some(keys[1]));
        pool.give(0, keys[1]);
        assert_eq!(pool.oldest(), Some(keys[2]));
    }
}

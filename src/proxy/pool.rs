//! Idle connections to backends. The pool lends the connection that was used last, so the others grow old together
//! and can be closed.
//!
//! Only a connection whose message was complete, without further bytes, enters the pool. The number of connections is
//! limited for each backend and in total, because each holds a descriptor. Muxes without streams count in the total. If
//! a descriptor is needed and none is free, the oldest connection is closed.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::Proxy;
use super::connection::{BackendEnd, Peer};
use super::output::Output;
use crate::collections::slab::Key;
use crate::limits::POOL_CONNECTIONS;

/// Idle connections by backend slot.
#[derive(Debug)]
pub(super) struct IdlePool {
    /// The connections of each slot in order of arrival, each with a number that grows with every arrival in any
    /// slot.
    slots: Vec<VecDeque<(u64, Key)>>,
    /// The muxes that have no streams, numbered in the same way. Each knows its number.
    muxes: VecDeque<(u64, Key)>,
    given: u64,
    count: usize,
    most: usize,
}

impl IdlePool {
    pub(super) fn new() -> IdlePool {
        IdlePool { slots: Vec::new(), muxes: VecDeque::new(), given: 0, count: 0, most: usize::MAX }
    }

    /// Makes room for this number of slots.
    pub(super) fn grow(&mut self, slots: usize) {
        self.slots.resize_with(slots.max(self.slots.len()), VecDeque::new);
    }

    /// Returns the connection to a backend that was used last.
    pub(super) fn last(&self, slot: usize) -> Option<Key> {
        self.slots.get(slot)?.back().map(|&(_, key)| key)
    }

    /// Takes the connection that was used last.
    pub(super) fn take(&mut self, slot: usize) -> Option<Key> {
        let (_, key) = self.slots.get_mut(slot)?.pop_back()?;
        self.count -= 1;
        Some(key)
    }

    /// Adds a connection, and returns the number of its place. Returns `None` if there are too many to its backend.
    /// A connection for one client (`is_owned`) has only the total limit, because each client needs its own.
    pub(super) fn give(&mut self, slot: usize, key: Key, is_owned: bool) -> Option<u64> {
        let idle = self.slots.get_mut(slot).filter(|idle| is_owned || idle.len() < POOL_CONNECTIONS)?;
        idle.push_back((self.given, key));
        self.given += 1;
        self.count += 1;
        Some(self.given - 1)
    }

    /// Removes the connection at a place.
    pub(super) fn remove_place(&mut self, slot: usize, place: u64) {
        let idle = self.slots.get_mut(slot);
        self.count -= usize::from(idle.is_some_and(|idle| remove_place(idle, place)));
    }

    /// Adds a mux without streams, and returns the number of its place.
    pub(super) fn give_mux(&mut self, key: Key) -> u64 {
        self.muxes.push_back((self.given, key));
        self.given += 1;
        self.count += 1;
        self.given - 1
    }

    /// Removes the mux at a place.
    pub(super) fn remove_mux(&mut self, place: u64) {
        self.count -= usize::from(remove_place(&mut self.muxes, place));
    }

    /// Removes a connection that is gone. The oldest ones are at the front and go first.
    pub(super) fn remove(&mut self, slot: usize, key: Key) {
        if let Some(idle) = self.slots.get_mut(slot)
            && let Some(at) = idle.iter().position(|&(_, other)| other == key)
        {
            idle.remove(at);
            self.count -= 1;
        }
    }

    /// Returns all connections except muxes, with their slots.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, Key)> {
        let slots = self.slots.iter().enumerate();
        slots.flat_map(|(slot, idle)| idle.iter().map(move |&(_, key)| (slot, key)))
    }

    /// Returns the muxes with the numbers of their places.
    pub(super) fn muxes(&self) -> impl ExactSizeIterator<Item = (u64, Key)> {
        self.muxes.iter().copied()
    }

    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// True if there are more connections than the total limit, so that the oldest one has to go.
    pub(super) fn is_over(&self) -> bool {
        self.count > self.most
    }

    /// Returns the connection that has been idle the longest. The search visits all slots, which costs less than a
    /// connect.
    fn oldest(&self) -> Option<Key> {
        let lists = self.slots.iter().chain(std::iter::once(&self.muxes));
        lists.filter_map(|idle| idle.front()).min_by_key(|(given, _)| given).map(|&(_, key)| key)
    }
}

/// Removes the connection with a number from a list. Returns false if it is not there.
fn remove_place(idle: &mut VecDeque<(u64, Key)>, place: u64) -> bool {
    let at = idle.binary_search_by_key(&place, |&(given, _)| given);
    at.is_ok_and(|at| idle.remove(at).is_some())
}

/// A connection that is ready for the next request of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) slot: u16,
    pub(super) key: Key,
    /// The number of its place in the pool; `None` for a mux.
    pub(super) place: Option<u64>,
}

/// The ready connections by owner.
#[derive(Debug, Default)]
pub(super) struct Owned {
    pub(super) ready: HashMap<Key, Vec<Ready>>,
    /// The addresses to which clients connected according to the PROXY headers that they sent.
    pub(super) destinations: HashMap<Key, SocketAddr>,
}

impl Owned {
    /// True if no client has anything here.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.destinations.is_empty()
    }

    pub(super) fn add(&mut self, owner: Key, ready: Ready) {
        self.ready.entry(owner).or_default().push(ready);
    }

    /// Removes a connection, and returns it if it was there.
    pub(super) fn remove(&mut self, owner: Key, key: Key) -> Option<Ready> {
        let list = self.ready.get_mut(&owner)?;
        let at = list.iter().position(|ready| ready.key == key);
        let ready = at.map(|at| list.remove(at));
        if list.is_empty() {
            self.ready.remove(&owner);
        }
        ready
    }

    /// Returns the connections of an owner to the backend in a slot, the last one first.
    pub(super) fn of(&self, owner: Key, slot: usize) -> impl Iterator<Item = Ready> {
        let list = self.ready.get(&owner).map_or(&[][..], Vec::as_slice);
        list.iter().rev().copied().filter(move |ready| usize::from(ready.slot) == slot)
    }

    /// Returns all connections with their owners.
    pub(super) fn all(&self) -> impl Iterator<Item = (Key, Ready)> {
        self.ready.iter().flat_map(|(&owner, list)| list.iter().map(move |&ready| (owner, ready)))
    }
}

impl Proxy {
    /// Sets the limit for idle connections to backends.
    pub fn limit_idle(&mut self, most: usize) {
        self.upstreams.idle.most = most;
    }

    /// Closes the connection to a backend that has been idle the longest, so that its descriptor is free. Returns
    /// false if none is idle.
    pub fn evict_idle(&mut self) -> bool {
        let oldest = self.upstreams.idle.oldest();
        oldest.inspect(|&key| self.close(key, Output::Close(key))).is_some()
    }

    /// True if a connection to a backend is idle, so that `evict_idle` closes one.
    pub fn has_idle(&self) -> bool {
        self.upstreams.idle.len() > 0
    }

    /// Dials again after a lack of descriptors or memory, if closing an idle connection helps. Returns false if none
    /// is idle.
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
        assert!(keys[..POOL_CONNECTIONS].iter().all(|&key| pool.give(1, key, false).is_some()));
        assert!(pool.give(1, keys[POOL_CONNECTIONS], false).is_none());
        assert!(pool.give(2, keys[0], false).is_none());
        let place = pool.give(1, keys[POOL_CONNECTIONS], true).expect("it is owned");
        pool.remove_place(1, place);
        pool.remove_place(1, place);
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
            pool.give(slot, keys[at], false);
        }
        assert!(pool.is_over());
        assert_eq!(pool.oldest(), Some(keys[0]));
        pool.remove(2, keys[0]);
        assert!(!pool.is_over());
        assert_eq!(pool.oldest(), Some(keys[1]));
        // A connection that is lent and comes back is the youngest again.
        assert_eq!(pool.take(0), Some(keys[1]));
        pool.give(0, keys[1], false);
        assert_eq!(pool.oldest(), Some(keys[2]));
        // So is a mux.
        let place = pool.give_mux(keys[3]);
        assert!(pool.is_over());
        pool.remove(2, keys[2]);
        pool.remove(0, keys[1]);
        assert_eq!(pool.oldest(), Some(keys[3]));
        pool.remove_mux(place);
        pool.remove_mux(place);
        assert_eq!((pool.oldest(), pool.len()), (None, 0));
    }
}

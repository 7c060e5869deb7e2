//! Idle connections to backends, the one used last lent first: the others grow old together
//! and can be closed. Only a connection whose message was complete, with nothing left over,
//! comes here.

use crate::collections::slab::Key;
use crate::limits::POOL_CONNECTIONS;

/// Idle connections by backend slot.
#[derive(Debug, Default)]
pub(super) struct IdlePool {
    slots: Vec<Vec<Key>>,
}

impl IdlePool {
    pub(super) fn new(slots: usize) -> IdlePool {
        IdlePool { slots: vec![Vec::new(); slots] }
    }

    /// The connection to a backend that was used last.
    pub(super) fn last(&self, slot: usize) -> Option<Key> {
        self.slots.get(slot)?.last().copied()
    }

    /// Takes the connection that was used last.
    pub(super) fn take(&mut self, slot: usize) -> Option<Key> {
        self.slots.get_mut(slot)?.pop()
    }

    /// Keeps a connection; false where the pool is full.
    pub(super) fn give(&mut self, slot: usize, key: Key) -> bool {
        match self.slots.get_mut(slot) {
            Some(idle) if idle.len() < POOL_CONNECTIONS => {
                idle.push(key);
                true
            }
            _ => false,
        }
    }

    /// Forgets a connection that is gone. The oldest are at the front, and go first.
    pub(super) fn remove(&mut self, slot: usize, key: Key) {
        if let Some(idle) = self.slots.get_mut(slot)
            && let Some(at) = idle.iter().position(|&other| other == key)
        {
            idle.remove(at);
        }
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
        let mut pool = IdlePool::new(2);
        assert!(keys[..POOL_CONNECTIONS].iter().all(|&key| pool.give(1, key)));
        assert!(!pool.give(1, keys[POOL_CONNECTIONS]));
        assert!(!pool.give(2, keys[0]));
        pool.remove(1, keys[POOL_CONNECTIONS - 1]);
        assert_eq!(pool.last(1), Some(keys[POOL_CONNECTIONS - 2]));
        assert_eq!(pool.take(1), Some(keys[POOL_CONNECTIONS - 2]));
        assert_eq!(pool.take(0), None);
    }
}

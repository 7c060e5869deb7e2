//! Values in numbered slots. A slot is reused, but each use has its own key.
//!
//! A key contains the slot's generation, which changes whenever the slot is freed. An outdated key therefore
//! finds nothing, never another value.

use std::cell::Cell;
use std::num::NonZeroU32;

/// Identifies one value during its lifetime. `Option<Key>` is no larger than `Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: NonZeroU32,
}

impl Key {
    /// The slot's number, below the slab's `slots()`. A later value may reuse it.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// The key as one number, used as a poller's token.
    pub fn to_token(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.index)
    }

    /// The key for a number from `to_token`. Any other number below 2^32 gives a key of the first generation.
    pub fn from_token(token: u64) -> Key {
        Key { index: token as u32, generation: NonZeroU32::new((token >> 32) as u32).unwrap_or(FIRST) }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
enum Slot<T> {
    Free { next: u32, generation: NonZeroU32 },
    Used { value: T, generation: NonZeroU32 },
}

const FIRST: NonZeroU32 = NonZeroU32::MIN;

const END: u32 = u32::MAX;

/// Values under generational keys.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
    /// The number of lookups by `living` that found nothing.
    missing: Cell<u64>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: END, len: 0, missing: Cell::new(0) }
    }
}

impl<T> Slab<T> {
    /// Creates an empty slab.
    pub fn new() -> Slab<T> {
        Slab::default()
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of slots, including free ones.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Stores a value in the slot freed last, or in a new one.
    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        let index = self.free;
        match self.slots.get_mut(index as usize) {
            Some(slot @ Slot::Free { .. }) => {
                let Slot::Free { next, generation } = *slot else { unreachable!("matched as free") };
                self.free = next;
                *slot = Slot::Used { value, generation };
                Key { index, generation }
            }
            _ => {
                self.slots.push(Slot::Used { value, generation: FIRST });
                Key { index: (self.slots.len() - 1) as u32, generation: FIRST }
            }
        }
    }

    /// The value of a key, if it still exists.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index()) {
            Some(Slot::Used { value, generation }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The value of a key, if it still exists.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index()) {
            Some(Slot::Used { value, generation }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Returns the value under a key that an invariant of the caller keeps alive. A missing value is a defect of the
    /// program: a debug build panics, and a release build counts it.
    pub fn living(&self, key: Key) -> Option<&T> {
        self.get(key).or_else(|| miss(&self.missing, key))
    }

    /// The same as `living`, for a value that is to be changed.
    pub fn living_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index()) {
            Some(Slot::Used { value, generation }) if *generation == key.generation => Some(value),
            _ => miss(&self.missing, key),
        }
    }

    /// Returns how many values `living` and `living_mut` have missed.
    pub fn missing(&self) -> u64 {
        self.missing.get()
    }

    /// The key of the value currently in a slot.
    pub fn key_at(&self, index: usize) -> Option<Key> {
        match self.slots.get(index) {
            Some(Slot::Used { generation, .. }) => Some(Key { index: index as u32, generation: *generation }),
            _ => None,
        }
    }

    /// Removes a value. Its key finds nothing afterwards.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = self.slots.get_mut(key.index())?;
        let generation = key.generation.checked_add(1).unwrap_or(FIRST);
        let freed = std::mem::replace(slot, Slot::Free { next: self.free, generation });
        self.free = key.index;
        self.len -= 1;
        match freed {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// The keys of all values.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        (0..self.slots.len()).filter_map(|index| self.key_at(index))
    }
}

#[cold]
fn miss<T>(missing: &Cell<u64>, key: Key) -> Option<T> {
    missing.set(missing.get() + 1);
    debug_assert!(false, "an invariant keeps {key} alive");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_value_until_it_is_removed() {
        let mut slab = Slab::new();
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.get(a), Some(&"a"));
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.remove(a), None);
        let c = slab.insert("c");
        assert_eq!(c.index(), a.index());
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get(c), Some(&"c"));
        assert_eq!(slab.keys().collect::<Vec<_>>(), [c, b]);
        assert_eq!((slab.len(), slab.slots()), (2, 2));
    }

    #[test]
    fn a_missing_value_that_must_live_is_counted_and_panics_in_a_debug_build() {
        let mut slab = Slab::new();
        let key = slab.insert("a");
        assert_eq!((slab.living(key).copied(), slab.missing()), (Some("a"), 0));
        slab.remove(key);
        let missed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| slab.living_mut(key).is_none()));
        assert_eq!(missed.is_err(), cfg!(debug_assertions));
        assert_eq!(slab.missing(), 1);
    }

    #[test]
    fn a_key_survives_as_a_token() {
        let mut slab = Slab::new();
        let first = slab.insert(1);
        slab.remove(first);
        let key = slab.insert(2);
        assert_eq!(Key::from_token(key.to_token()), key);
        assert_ne!(key.to_token(), first.to_token());
        assert_ne!(key.to_token(), 0);
    }
}

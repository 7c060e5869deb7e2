//! Order with little code. The sort of the standard library is generic, and costs about 6 KB in the program for each type
//! and key; so does `collect` into a map or a set, which sorts first. These functions do the same for few items, or if the
//! time does not count.

use std::collections::{BTreeMap, BTreeSet};

/// Sorts items, and keeps the order of equal ones. `is_after`: true if the first one belongs behind the second one. The
/// time grows with the square of their number, unless they are almost sorted.
pub fn sort_few<T>(items: &mut [T], is_after: impl Fn(&T, &T) -> bool) {
    for end in 1..items.len() {
        let mut at = end;
        while at > 0 && is_after(&items[at - 1], &items[at]) {
            items.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// Makes a map of entries. The last one of a key holds.
pub fn map<K: Ord, V>(entries: impl Iterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    entries.for_each(|(key, value)| _ = map.insert(key, value));
    map
}

/// Makes a set of items.
pub fn set<T: Ord>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    items.for_each(|item| _ = set.insert(item));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_items_are_sorted_as_the_standard_library_does() {
        let mut random = crate::collections::random::Random::new(7);
        for length in 0..40 {
            let mut items: Vec<(u64, usize)> = (0..length).map(|at| (random.below(9), at)).collect();
            let mut expected = items.clone();
            expected.sort_by_key(|item| item.0);
            sort_few(&mut items, |one, other| one.0 > other.0);
            assert_eq!(items, expected);
        }
    }

    #[test]
    fn maps_and_sets_have_the_last_entry_of_each_key() {
        let entries = [(2, 'a'), (1, 'b'), (2, 'c')];
        assert_eq!(map(entries.into_iter()), BTreeMap::from(entries));
        assert_eq!(set(entries.into_iter()), BTreeSet::from(entries));
    }
}

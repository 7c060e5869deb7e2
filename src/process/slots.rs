//! Who has which slot. An address of a backend keeps its slot for as long as it is configured, so
//! that health, counts and pooled connections survive a change of anything else. One that is given
//! up is left alone for a while, for workers may still have requests and probes under way there.
//! Its owner gets it back if it returns; else it goes to another, under another generation, those
//! that were given up longest ago first.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::balance::cells::Cells;
use crate::config::{Address, Member};
use crate::limits::{SLOT_REST_US, SLOTS};

/// An address that is to have a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The backend as configured.
    pub(super) name: String,
    /// What it gets as Host where it is to have its own.
    pub(super) host: String,
    pub(super) address: Address,
    pub(super) weight: u16,
    pub(super) backup: bool,
    pub(super) max: u32,
    pub(super) server_name: String,
    pub(super) own_host: bool,
    pub(super) h2c: bool,
}

#[derive(Clone, Debug)]
struct Slot {
    /// Whose it is, or was last: the backend's name, which of its addresses, and its name by TLS.
    owner: Option<(String, Address, String)>,
    generation: u64,
    /// When it was given up, in microseconds; 0 for one that never had an owner, `TAKEN` for one
    /// that has.
    freed_us: u64,
}

/// In place of the time at which a slot was given up.
const TAKEN: u64 = u64::MAX;

/// All slots.
pub(super) struct Slots {
    slots: Vec<Slot>,
    cells: Cells,
    /// How often a slot has had a new owner: no generation is past it.
    owners: &'static AtomicU64,
    /// How many slots, from the first, have ever had one.
    used: &'static AtomicU64,
}

/// How many addresses there are slots for is fewer than there are addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    /// How many were wanted.
    pub(super) wanted: usize,
}

impl Slots {
    /// No slot has an owner. `owners` counts how often one gets one, and `used` the slots that ever do.
    pub(super) fn new(cells: Cells, owners: &'static AtomicU64, used: &'static AtomicU64) -> Slots {
        let slot = Slot { owner: None, generation: 0, freed_us: 0 };
        Slots { slots: vec![slot; cells.slots().min(SLOTS)], cells, owners, used }
    }

    /// The slots as a program before left them, with these owners. Who had the others is not known, but
    /// they are left alone for a while like those that were just given up, where they had any.
    pub(super) fn resume(&mut self, members: &[Member], now_us: u64) {
        let (owners, used) = (self.owners.load(Relaxed), self.used.load(Relaxed));
        for (at, slot) in self.slots.iter_mut().enumerate() {
            *slot = Slot { owner: None, generation: owners, freed_us: if (at as u64) < used { now_us } else { 0 } };
        }
        for member in members {
            if let Some(slot) = self.slots.get_mut(usize::from(member.slot)) {
                let owner = (member.name.clone(), member.address.clone(), member.server_name.clone());
                *slot = Slot { owner: Some(owner), generation: member.generation, freed_us: TAKEN };
            }
        }
    }

    /// Gives each address a slot, its own where it has one, and takes those from all others.
    /// Where there are too few, nothing is changed. `first_probe_us` says when that of a new
    /// owner is due.
    pub(super) fn assign(
        &mut self,
        wanted: Vec<Wanted>,
        now_us: u64,
        mut first_probe_us: impl FnMut() -> u64,
    ) -> Result<Vec<Member>, TooMany> {
        let count = wanted.len();
        let mut kept = vec![false; self.slots.len()];
        let own = |slots: &[Slot], one: &Wanted| {
            slots.iter().position(|slot| {
                slot.owner.as_ref().is_some_and(|(name, address, tls)| {
                    *name == one.name && *address == one.address && *tls == one.server_name
                })
            })
        };
        let places: Vec<Option<usize>> = wanted.iter().map(|one| own(&self.slots, one)).collect();
        places.iter().flatten().for_each(|&slot| kept[slot] = true);
        let mut free: Vec<usize> =
            (0..self.slots.len()).filter(|&slot| !kept[slot] && self.is_rested(slot, now_us)).collect();
        // Taken from the end: the one given up longest ago first, and of those the lowest.
        free.sort_by_key(|&slot| (std::cmp::Reverse(self.slots[slot].freed_us), std::cmp::Reverse(slot)));
        if places.iter().filter(|place| place.is_none()).count() > free.len() {
            return Err(TooMany { wanted: count });
        }
        for (slot, _) in self.slots.iter_mut().zip(&kept).filter(|(slot, kept)| slot.freed_us == TAKEN && !**kept) {
            slot.freed_us = now_us;
        }
        let members = wanted.into_iter().zip(places).filter_map(|(one, place)| {
            let slot = match place {
                Some(slot) => slot,
                None => {
                    let slot = free.pop()?;
                    self.cells.settle(slot);
                    let entry = &mut self.slots[slot];
                    entry.owner = Some((one.name.clone(), one.address.clone(), one.server_name.clone()));
                    entry.generation += 1;
                    self.owners.fetch_add(1, Relaxed);
                    self.used.fetch_max(slot as u64 + 1, Relaxed);
                    slot
                }
            };
            if std::mem::replace(&mut self.slots[slot].freed_us, TAKEN) != TAKEN {
                self.cells.clear(slot, first_probe_us());
            }
            Some(self.member(slot, one))
        });
        Ok(members.collect())
    }

    fn member(&self, slot: usize, one: Wanted) -> Member {
        let Wanted { name, host, address, weight, backup, max, server_name, own_host, h2c } = one;
        let generation = self.slots[slot].generation;
        Member { slot: slot as u16, generation, name, host, address, weight, backup, max, server_name, own_host, h2c }
    }

    /// Whether a slot can have a new owner.
    fn is_rested(&self, slot: usize, now_us: u64) -> bool {
        let entry = &self.slots[slot];
        let rested = entry.freed_us == 0 || now_us >= entry.freed_us.saturating_add(SLOT_REST_US);
        entry.freed_us != TAKEN && rested && self.cells.in_flight(slot) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::cells::private;

    fn fresh(slots: usize) -> Slots {
        Slots::new(private(slots), zero(), zero())
    }

    fn zero() -> &'static AtomicU64 {
        Box::leak(Box::new(AtomicU64::new(0)))
    }

    fn wanted(ports: &[u16]) -> Vec<Wanted> {
        let one = |&port: &u16| {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            let (name, address) = (address.to_string(), Address::Tcp(address));
            let server_name = String::new();
            let (backup, own_host, h2c) = (false, false, false);
            Wanted { host: name.clone(), name, address, weight: 1, backup, max: 0, server_name, own_host, h2c }
        };
        ports.iter().map(one).collect()
    }

    fn places(slots: &mut Slots, ports: &[u16], now_us: u64) -> Option<Vec<(u16, u64)>> {
        let members = slots.assign(wanted(ports), now_us, || 0).ok()?;
        Some(members.iter().map(|member| (member.slot, member.generation)).collect())
    }

    #[test]
    fn an_address_keeps_its_slot_and_a_slot_given_up_rests() {
        let mut slots = fresh(4);
        assert_eq!(places(&mut slots, &[1, 2], 1), Some(vec![(0, 1), (1, 1)]));
        assert_eq!(places(&mut slots, &[3, 2], 2), Some(vec![(2, 1), (1, 1)]));
        assert_eq!(places(&mut slots, &[4, 2], 3), Some(vec![(3, 1), (1, 1)]));
        assert_eq!(places(&mut slots, &[5, 2], 4), None);
        assert_eq!(places(&mut slots, &[5, 2], 2 + SLOT_REST_US), Some(vec![(0, 2), (1, 1)]));
    }

    #[test]
    fn one_that_returns_has_its_slot_again_however_often() {
        let mut slots = fresh(4);
        for n in 0..100 {
            assert_eq!(places(&mut slots, &[1, 2], 2 * n), Some(vec![(0, 1), (1, 1)]));
            assert_eq!(places(&mut slots, &[3, 4], 2 * n + 1), Some(vec![(2, 1), (3, 1)]));
        }
    }

    #[test]
    fn a_slot_with_requests_in_flight_is_not_given_away() {
        let cells = private(2);
        let mut slots = Slots::new(cells, zero(), zero());
        places(&mut slots, &[1, 2], 1).unwrap();
        places(&mut slots, &[1], 2).unwrap();
        cells.leave(1, u64::MAX);
        assert_eq!(cells.in_flight(1), 1);
        assert_eq!(places(&mut slots, &[1, 3], 2 + SLOT_REST_US), None);
        cells.leave(1, 1);
        assert_eq!(places(&mut slots, &[1, 3], 2 + SLOT_REST_US), Some(vec![(0, 1), (1, 2)]));
    }

    #[test]
    fn after_an_upgrade_each_has_its_slot_and_no_generation_comes_again() {
        let (cells, owners, used) = (private(4), zero(), zero());
        let mut before = Slots::new(cells, owners, used);
        places(&mut before, &[1, 2], 1).unwrap();
        let left = before.assign(wanted(&[3, 2]), 2, || 0).unwrap();
        let mut after = Slots::new(cells, owners, used);
        after.resume(&left, 10);
        assert_eq!(places(&mut after, &[3, 2], 11), Some(vec![(2, 1), (1, 1)]));
        // The one that was given up rests; one that nobody ever had does not.
        assert_eq!(places(&mut after, &[3, 2, 4], 12), Some(vec![(2, 1), (1, 1), (3, 4)]));
        assert_eq!(places(&mut after, &[3, 2, 4, 5], 13), None);
        assert_eq!(places(&mut after, &[3, 2, 4, 5], 10 + SLOT_REST_US), Some(vec![(2, 1), (1, 1), (3, 4), (0, 4)]));
    }

    #[test]
    fn where_there_are_too_few_nothing_changes() {
        let mut slots = fresh(2);
        places(&mut slots, &[1, 2], 1).unwrap();
        assert_eq!(slots.assign(wanted(&[2, 3, 4]), 2, || 0), Err(TooMany { wanted: 3 }));
        assert_eq!(places(&mut slots, &[2, 1], 3), Some(vec![(1, 1), (0, 1)]));
    }
}

//! Assigns slots to addresses. An address of a backend keeps its slot as long as it is configured, so that
//! health, counts and pooled connections survive a change of anything else. A released slot rests for a while,
//! because workers may still have requests and probes on it. If its owner returns, it gets the slot back.
//! Otherwise another address gets it, with another generation; the slots released longest ago come first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::balance::cells::{Cells, State};
use crate::collections::order;
use crate::config::{Address, Gone, Member};
use crate::limits::{ADDRESSES, SLOT_LOOK_US, SLOT_REST_US, SLOTS};

#[derive(Clone, Debug)]
struct Slot {
    /// The current or last owner: the backend's name, its address, and its TLS name.
    owner: Option<(String, Address, String)>,
    /// The backend whose counts it has, if no more is known of the owner.
    name: String,
    generation: u64,
    /// When it was given up, in microseconds; 0 for one that never had an owner, `TAKEN` for one
    /// that has.
    freed_us: u64,
}

/// In place of the time at which a slot was given up.
const TAKEN: u64 = u64::MAX;

/// All slots.
pub(super) struct Slots {
    /// Those that have ever had an owner, and some more.
    slots: Vec<Slot>,
    /// The maximum of slots.
    most: usize,
    /// The generation of those that never had an owner.
    first_generation: u64,
    cells: Cells,
    /// The number of new owners so far. It is the highest generation.
    owners: &'static AtomicU64,
    /// The number of slots, from the first, that ever had an owner.
    used: &'static AtomicU64,
}

/// The reason why addresses get no slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are this many, which is more than there may be.
    TooMany(usize),
    /// Slots that they need have been given up too recently. They may be asked for again then, in
    /// microseconds.
    Resting(u64),
}

impl Slots {
    /// No slot has an owner. `owners` counts how often one gets one, and `used` the slots that ever do.
    pub(super) fn new(cells: Cells, owners: &'static AtomicU64, used: &'static AtomicU64) -> Slots {
        Slots { slots: Vec::new(), most: cells.slots().min(SLOTS), first_generation: 0, cells, owners, used }
    }

    /// Restores the slots of the previous program with these owners. The owners of the other used slots are
    /// unknown, so these rest as if they had just been released.
    pub(super) fn resume(&mut self, members: &[Member], gone: Vec<Gone>, now_us: u64) {
        let (owners, used) = (self.owners.load(Relaxed), self.used.load(Relaxed));
        let past = members.iter().map(|member| usize::from(member.slot) + 1).max().unwrap_or(0);
        self.slots.clear();
        self.first_generation = owners;
        self.grow(past.max(used as usize));
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let freed_us = if (at as u64) < used { now_us } else { 0 };
            *slot = Slot { owner: None, name: String::new(), generation: owners, freed_us };
        }
        for Gone { slot, generation, name } in gone {
            if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
                (slot.name, slot.generation) = (name, generation);
            }
        }
        for member in members {
            if let Some(slot) = self.slots.get_mut(usize::from(member.slot)) {
                let (owner, name) = (Some(owner(member)), member.name.clone());
                *slot = Slot { owner, name, generation: member.generation, freed_us: TAKEN };
            }
        }
    }

    /// Assigns a slot to each address, its own if it has one, and releases the slots of all others. If that is
    /// impossible, nothing changes. `begin` gives the state of a new owner, and the time of its first probe.
    pub(super) fn assign(
        &mut self,
        mut wanted: Vec<Member>,
        now_us: u64,
        mut begin: impl FnMut() -> (State, u64),
    ) -> Result<Vec<Member>, Refused> {
        if wanted.len() > ADDRESSES.min(self.most) {
            return Err(Refused::TooMany(wanted.len()));
        }
        let places = self.places(&wanted);
        self.grow(self.slots.len() + places.iter().filter(|place| place.is_none()).count());
        let mut kept = vec![false; self.slots.len()];
        places.iter().flatten().for_each(|&slot| kept[slot] = true);
        let mut free: Vec<usize> =
            (0..self.slots.len()).filter(|&slot| !kept[slot] && self.is_rested(slot, now_us)).collect();
        let short = places.iter().filter(|place| place.is_none()).count().saturating_sub(free.len());
        if short > 0 {
            return Err(Refused::Resting(self.rested_us(short, &kept, now_us)));
        }
        // Taken from the end: the one given up longest ago first, and of those the lowest.
        free.sort_by_key(|&slot| (std::cmp::Reverse(self.slots[slot].freed_us), std::cmp::Reverse(slot)));
        for (slot, _) in self.slots.iter_mut().zip(&kept).filter(|(slot, kept)| slot.freed_us == TAKEN && !**kept) {
            slot.freed_us = now_us;
        }
        for (one, place) in wanted.iter_mut().zip(places) {
            // There are enough.
            let Some(slot) = place.or_else(|| free.pop()) else { continue };
            if place.is_none() {
                self.cells.reclaim(slot);
                let entry = &mut self.slots[slot];
                entry.owner = Some(owner(one));
                entry.name.clone_from(&one.name);
                entry.generation += 1;
                self.owners.fetch_add(1, Relaxed);
                self.used.fetch_max(slot as u64 + 1, Relaxed);
            }
            if std::mem::replace(&mut self.slots[slot].freed_us, TAKEN) != TAKEN {
                let (state, probe_us) = begin();
                self.cells.clear(slot, state, probe_us);
            }
            (one.slot, one.generation) = (slot as u16, self.slots[slot].generation);
        }
        Ok(wanted)
    }

    /// The slots of addresses that have left these backends, until another address gets them: their counts
    /// still belong to the backends.
    pub(super) fn gone(&self, names: &BTreeSet<&str>) -> Vec<Gone> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.freed_us != TAKEN && names.contains(slot.name.as_str()))
            .map(|(at, slot)| Gone { slot: at as u16, generation: slot.generation, name: slot.name.clone() })
            .collect()
    }

    /// Of these addresses, those that can have slots now: all that have one, and of the others as many as there are
    /// slots for, in turn for each backend, so that one that changes all the time does not take them from others.
    pub(super) fn fitting(&mut self, wanted: Vec<Member>, now_us: u64) -> Vec<Member> {
        let places = self.places(&wanted);
        self.grow(self.slots.len() + places.iter().filter(|place| place.is_none()).count());
        let mut kept = vec![false; self.slots.len()];
        places.iter().flatten().for_each(|&slot| kept[slot] = true);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let rested: Vec<bool> = (0..self.slots.len()).map(|slot| self.is_rested(slot, now_us)).collect();
        for (slot, _) in self.slots.iter().zip(&rested).filter(|(_, rested)| !**rested) {
            if let Some((name, ..)) = &slot.owner {
                *counts.entry(name).or_default() += 1;
            }
        }
        let free = rested.iter().zip(&kept).filter(|(rested, kept)| **rested && !**kept).count();
        // The turn of a backend comes the later the more slots it has, or has given up of late.
        let mut new: Vec<(usize, usize)> = Vec::new();
        for (at, one) in wanted.iter().enumerate().filter(|(at, _)| places[*at].is_none()) {
            let count = counts.entry(&one.name).or_default();
            *count += 1;
            new.push((*count, at));
        }
        new.sort_unstable();
        let mut fits = vec![true; wanted.len()];
        new.into_iter().skip(free).for_each(|(_, at)| fits[at] = false);
        wanted.into_iter().zip(fits).filter(|(_, fits)| *fits).map(|(one, _)| one).collect()
    }

    /// For each address the slot that it has, or had last.
    fn places(&self, wanted: &[Member]) -> Vec<Option<usize>> {
        let owned = self.slots.iter().enumerate().filter_map(|(at, slot)| Some((slot.owner.as_ref()?, at)));
        let owners: BTreeMap<(&str, &Address, &str), usize> =
            order::map(owned.map(|((name, address, tls), at)| ((name.as_str(), address, tls.as_str()), at)));
        let place = |one: &Member| owners.get(&(one.name.as_str(), &one.address, one.server_name.as_str())).copied();
        wanted.iter().map(place).collect()
    }

    /// Extends the list to this many slots, up to the maximum. An unused slot takes no memory.
    fn grow(&mut self, count: usize) {
        let slot = Slot { owner: None, name: String::new(), generation: self.first_generation, freed_us: 0 };
        self.slots.resize(count.min(self.most).max(self.slots.len()), slot);
    }

    /// True if a slot can get a new owner.
    fn is_rested(&self, slot: usize, now_us: u64) -> bool {
        // Of those that never had one not even the cells are looked at, which would take memory.
        match self.slots[slot].freed_us {
            0 => true,
            TAKEN => false,
            freed_us => now_us >= freed_us.saturating_add(SLOT_REST_US) && self.cells.in_flight(slot) == 0,
        }
    }

    /// The time at which this many more slots can get new owners, as far as it is known.
    fn rested_us(&self, short: usize, kept: &[bool], now_us: u64) -> u64 {
        let resting = self.slots.iter().zip(kept).filter(|(slot, kept)| !matches!(slot.freed_us, 0 | TAKEN) && !**kept);
        let mut ends: Vec<u64> = resting.map(|(slot, _)| slot.freed_us.saturating_add(SLOT_REST_US)).collect();
        ends.retain(|&end_us| end_us > now_us);
        ends.sort_unstable();
        // Those that have rested long enough wait for their last requests to end.
        ends.get(short - 1).map_or(now_us.saturating_add(SLOT_LOOK_US), |&end_us| end_us)
    }
}

/// The identity of a slot's owner.
fn owner(member: &Member) -> (String, Address, String) {
    (member.name.clone(), member.address.clone(), member.server_name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Balancer;
    use crate::balance::cells::private;
    use crate::config::{Backend, Plan};
    use crate::limits::SECOND_US;

    fn fresh(slots: usize) -> Slots {
        Slots::new(private(slots), zero(), zero())
    }

    fn zero() -> &'static AtomicU64 {
        Box::leak(Box::new(AtomicU64::new(0)))
    }

    fn wanted(ports: impl IntoIterator<Item = u16>) -> Vec<Member> {
        let one = |port: u16| {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            Member::new(&Backend::at(address), Address::Tcp(address), false)
        };
        ports.into_iter().map(one).collect()
    }

    fn unproven() -> (State, u64) {
        (State::Unproven, 0)
    }

    fn places(slots: &mut Slots, ports: &[u16], now_us: u64) -> Option<Vec<(u16, u64)>> {
        let members = slots.assign(wanted(ports.iter().copied()), now_us, unproven).ok()?;
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
    fn one_that_returns_has_to_prove_itself_again_and_its_count_of_failures_is_forgotten() {
        let cells = private(2);
        let mut slots = Slots::new(cells, zero(), zero());
        places(&mut slots, &[1, 2], 1).unwrap();
        let mine = Vec::leak((0..2).map(|_| AtomicU64::new(0)).collect());
        let mut balancer = Balancer::new(Plan::over([]).rules(), cells, mine, 1);
        (0..3).for_each(|_| _ = balancer.failed(0, 1));
        assert_eq!(cells.state(0), State::Down);
        places(&mut slots, &[2], 2).unwrap();
        let returned = slots.assign(wanted([1, 2]), 3, || (State::Added, 77)).unwrap();
        assert_eq!((returned[0].slot, returned[0].generation), (0, 1));
        assert_eq!((cells.state(0), cells.state(1)), (State::Added, State::Unproven));
        // It takes as many failures as for any other to take it down.
        assert_eq!(balancer.failed(0, 3), None);
        // One that stays is left as it is.
        slots.assign(wanted([1, 2]), 4, || (State::Unproven, 99)).unwrap();
        assert_eq!(cells.state(0), State::Added);
        assert_eq!((balancer.failed(0, 4), balancer.failed(0, 5)), (None, Some(3)));
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
        let left = before.assign(wanted([3, 2]), 2, unproven).unwrap();
        let mut after = Slots::new(cells, owners, used);
        after.resume(&left, Vec::new(), 10);
        assert_eq!(places(&mut after, &[3, 2], 11), Some(vec![(2, 1), (1, 1)]));
        // The released slot rests; a slot that never had an owner does not.
        assert_eq!(places(&mut after, &[3, 2, 4], 12), Some(vec![(2, 1), (1, 1), (3, 4)]));
        assert_eq!(places(&mut after, &[3, 2, 4, 5], 13), None);
        assert_eq!(places(&mut after, &[3, 2, 4, 5], 10 + SLOT_REST_US), Some(vec![(2, 1), (1, 1), (3, 4), (0, 4)]));
    }

    #[test]
    fn nothing_changes_if_there_are_too_few_slots() {
        let mut slots = fresh(2);
        places(&mut slots, &[1, 2], 1).unwrap();
        assert_eq!(slots.assign(wanted([2, 3, 4]), 2, unproven), Err(Refused::TooMany(3)));
        assert_eq!(slots.assign(wanted([2, 3]), 2, unproven), Err(Refused::Resting(2 + SLOT_LOOK_US)));
        assert_eq!(places(&mut slots, &[2, 1], 3), Some(vec![(1, 1), (0, 1)]));
    }

    #[test]
    fn as_many_as_there_may_be_can_all_be_others_at_once() {
        let count = ADDRESSES as u16;
        let mut slots = fresh(SLOTS);
        assert_eq!(slots.assign(wanted(1..=count), 1, unproven).unwrap().len(), ADDRESSES);
        assert_eq!(slots.assign(wanted(0..=count), 2, unproven), Err(Refused::TooMany(ADDRESSES + 1)));
        let others = slots.assign(wanted(count + 1..=2 * count), 3, unproven).unwrap();
        let distinct: std::collections::BTreeSet<u16> = others.iter().map(|member| member.slot).collect();
        assert_eq!((distinct.len(), distinct.first()), (ADDRESSES, Some(&count)));
        // And again once the first have rested.
        let again = || wanted(2 * count + 1..=3 * count);
        assert_eq!(slots.assign(again(), 4, unproven), Err(Refused::Resting(3 + SLOT_REST_US)));
        assert_eq!(slots.assign(again(), 3 + SLOT_REST_US, unproven).map(|members| members.len()), Ok(ADDRESSES));
    }

    #[test]
    fn a_name_that_changes_all_the_time_leaves_slots_for_the_others() {
        let named = |name: &str, ports: std::ops::RangeInclusive<u16>| {
            wanted(ports).into_iter().map(|one| Member { name: name.into(), ..one }).collect::<Vec<_>>()
        };
        let mut slots = fresh(6);
        slots.assign([named("a", 1..=2), named("b", 1..=1)].concat(), 1, unproven).unwrap();
        slots.assign([named("a", 3..=4), named("b", 1..=1)].concat(), 2, unproven).unwrap();
        let wants = [named("a", 5..=7), named("b", 1..=1), named("c", 1..=1)].concat();
        assert!(matches!(slots.assign(wants.clone(), 3, unproven), Err(Refused::Resting(_))));
        let fits = slots.fitting(wants, 3);
        let mut names: Vec<&str> = fits.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["b", "c"], "the one slot that is left goes to the name that has none");
        assert_eq!(slots.assign(fits, 3, unproven).unwrap().len(), 2);
    }

    #[test]
    fn it_is_said_when_enough_have_rested() {
        let cells = private(4);
        let mut slots = Slots::new(cells, zero(), zero());
        places(&mut slots, &[1, 2, 3], SECOND_US).unwrap();
        places(&mut slots, &[1, 2], 2 * SECOND_US).unwrap();
        places(&mut slots, &[1], 3 * SECOND_US).unwrap();
        let ask =
            |slots: &mut Slots, ports: &[u16], now_us| slots.assign(wanted(ports.iter().copied()), now_us, unproven);
        let rested_us = |from_us: u64| Err(Refused::Resting(from_us + SLOT_REST_US));
        assert_eq!(ask(&mut slots, &[1, 5, 6], 4 * SECOND_US), rested_us(2 * SECOND_US));
        assert_eq!(ask(&mut slots, &[1, 5, 6, 7], 4 * SECOND_US), rested_us(3 * SECOND_US));
        // A rested slot that still has a request is checked again later.
        cells.leave(2, u64::MAX);
        let now_us = 4 * SECOND_US + SLOT_REST_US;
        assert_eq!(ask(&mut slots, &[1, 5, 6, 7], now_us), Err(Refused::Resting(now_us + SLOT_LOOK_US)));
        cells.leave(2, 1);
        assert!(ask(&mut slots, &[1, 5, 6, 7], now_us).is_ok());
    }
}

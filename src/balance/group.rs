//! A group: the backends for the requests of one route. Each group has a rotation, an order and an outage of its own,
//! because no group replaces another one. Limits, health and requests in flight belong to a backend, and all its groups
//! share them.

use std::sync::atomic::AtomicU64;

use super::cells::{self, Cells};
use super::rotation::Rotation;
use super::rules::{Member, Rules};

/// The backends of a group, and those that it picks from at present.
#[derive(Debug)]
pub(super) struct Group {
    /// The places of its members among all members, in the order of the plan.
    places: Vec<u16>,
    /// The slots of its members, sorted.
    slots: Vec<u16>,
    pub(super) rotation: Rotation,
    /// The number of picks, of all workers together.
    pub(super) turn: &'static AtomicU64,
    /// The cell that says whether the outage of this group was logged.
    outage: &'static AtomicU64,
    /// The turns of the best backends by bucket, or `u16::MAX`; empty if none was asked for.
    pub(super) owners: Vec<u16>,
    /// The requests in flight of the rotation, and when they were counted, in microseconds.
    pub(super) counted: (u64, u64),
    /// The end of the last slow start, in microseconds.
    pub(super) slow_until_us: u64,
    /// The rotation contains all members, because all are down.
    pub(super) open: bool,
    /// The beginning or the end of an outage that was not reported yet.
    pub(super) news: Option<bool>,
}

impl Group {
    /// Returns the group with a number, which has no members yet.
    pub(super) fn new(cells: Cells, number: usize) -> Group {
        Group {
            places: Vec::new(),
            slots: Vec::new(),
            rotation: Rotation::default(),
            turn: cells.turn(number),
            outage: cells.outage(number),
            owners: Vec::new(),
            counted: (u64::MAX, 0),
            slow_until_us: 0,
            open: false,
            news: None,
        }
    }

    /// Sets the members: their places among all members.
    pub(super) fn set(&mut self, all: &[Member], places: impl Iterator<Item = u16>) {
        self.places.clear();
        self.places.extend(places);
        self.slots.clear();
        self.slots.extend(self.places.iter().map(|&place| all[usize::from(place)].slot));
        self.slots.sort_unstable();
    }

    /// True if a backend of the rotation is in its slow start, and another one is there.
    pub(super) fn is_slow(&self, now_us: u64) -> bool {
        now_us < self.slow_until_us && self.rotation.len() > 1
    }

    /// Returns the number of members.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns a member.
    pub(super) fn member(&self, all: &[Member], at: usize) -> Member {
        all[usize::from(self.places[at])]
    }

    /// True if the backend in a slot is a member.
    pub(super) fn contains(&self, slot: u16) -> bool {
        self.slots.binary_search(&slot).is_ok()
    }

    /// Decides the rotation.
    pub(super) fn decide(&mut self, all: &[Member], rules: &Rules, cells: Cells, now_us: u64) {
        let own = || self.places.iter().map(|&place| &all[usize::from(place)]);
        let served = |member: &&Member| member.weight > 0;
        let fit = |member: &&Member| served(member) && cells.state(member.slot.into()).is_up();
        if rules.interval_us == 0 || !own().any(|member| fit(&member)) {
            own().for_each(|member| cells.admit(member.slot.into()));
        }
        self.owners.clear();
        let share = |member: &Member| (member.slot, member.weight);
        self.rotation.set(own().filter(fit).filter(|member| !member.backup).map(share));
        if self.rotation.is_empty() {
            self.rotation.set(own().filter(fit).map(share));
        }
        self.open = self.rotation.is_empty() && own().any(|member| served(&member));
        if self.open {
            self.rotation.set(own().filter(served).map(share));
        }
        if cells::note_outage(self.outage, self.open) {
            self.news = Some(self.open);
        }
        self.slow_until_us = 0;
        if rules.slow_start_us > 0 && !self.open {
            let until = |member: &Member| rules.slow_start(cells, member.slot).map_or(0, |(_, until_us)| until_us);
            self.slow_until_us = own().map(until).filter(|&until| until > now_us).max().unwrap_or(0);
        }
    }
}

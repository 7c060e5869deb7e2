//! The pick of a backend for each request. The balancer is pure: it knows slots by number, their weights and their
//! load, and learns the result of each request and each probe. Rotation, limits and health are those of the whole
//! program, because they are stored in cells that all workers share.
//!
//! The backends of one route are a group (`group`). A group's rotation contains its healthy backends that are not
//! backups. If there are none, it contains its healthy backups. If there are none either, it contains all its backends,
//! because a backend that seems down may still respond. An added backend counts as healthy after it has proved itself,
//! or if no other backend of its group is healthy.

mod budget;
mod by_hash;
pub mod cells;
mod group;
mod health;
pub mod in_flight;
mod rotation;
mod rules;
pub mod strategy;

use std::sync::atomic::AtomicU64;

use self::budget::Budget;
use self::cells::{Cells, State};
use self::group::Group;
use self::strategy::View;
use crate::collections::random::Random;
use crate::limits::{PICKS, SLOW_START_PARTS};

pub use self::health::Change;
pub use self::rules::{Member, Rules};

/// The inputs of a pick.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Slots that are not picked.
    pub tried: &'a [u16],
    /// The slot that is picked if its backend is in the group, below its limit, and up or no worse than the others.
    pub prefer: Option<u16>,
    /// The group that the backend must be in.
    pub group: usize,
    /// The hash that decides among the backends. `None`: the strategy decides by itself.
    pub hash: Option<u64>,
}

impl<'a> Want<'a> {
    /// Any backend of the first group, except those in `tried`.
    pub fn other_than(tried: &'a [u16]) -> Want<'a> {
        Want { tried, prefer: None, group: 0, hash: None }
    }
}

/// The result of a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The backend in this slot. `finished` or `give_back` must follow.
    Slot(usize),
    /// Every backend that could serve is at its limit.
    Full,
    /// There is no backend.
    Nobody,
}

/// The pick and the state of the backends.
#[derive(Debug)]
pub struct Balancer {
    rules: Rules,
    cells: Cells,
    /// The requests in flight of this worker alone, by slot. If the worker dies, they are subtracted (`in_flight`).
    mine: &'static [AtomicU64],
    members: Vec<Member>,
    /// The limits by slot.
    limits: Vec<u32>,
    /// The identities by slot.
    identities: Vec<u64>,
    groups: Vec<Group>,
    /// The epoch of the cells at which the rotations were decided.
    epoch: u64,
    budget: Budget,
    random: Random,
    next_probe_us: u64,
}

impl Balancer {
    /// Returns a balancer without backends. Workers get different seeds. `mine` has a cell for each slot, and no
    /// other writer while this balancer lives.
    pub fn new(rules: Rules, cells: Cells, mine: &'static [AtomicU64], seed: u64) -> Balancer {
        assert_eq!(mine.len(), cells.slots(), "a cell for each slot");
        Balancer {
            rules,
            cells,
            mine,
            members: Vec::new(),
            limits: Vec::new(),
            identities: Vec::new(),
            groups: Vec::new(),
            epoch: u64::MAX,
            budget: Budget::new(rules.retry_percent),
            random: Random::new(seed),
            next_probe_us: 0,
        }
    }

    /// Sets the rules and the backends, which are one group. Members without a slot in the cells are left out.
    pub fn set(&mut self, rules: Rules, members: impl Iterator<Item = Member>) {
        let members: Vec<Member> = members.collect();
        let slots = members.iter().map(|member| member.slot).collect();
        self.set_groups(rules, members.into_iter(), &[slots]);
    }

    /// Sets the rules, the backends, and the groups, each as a list of slots. Members without a slot in the cells are
    /// left out.
    pub fn set_groups(&mut self, rules: Rules, members: impl Iterator<Item = Member>, groups: &[Vec<u16>]) {
        self.rules = rules;
        self.budget.set(rules.retry_percent);
        self.members.clear();
        self.members.extend(members.filter(|member| usize::from(member.slot) < self.cells.slots()));
        let past = self.members.iter().map(|member| usize::from(member.slot) + 1).max().unwrap_or(0);
        self.limits.resize(past.max(self.limits.len()), 0);
        self.limits.fill(0);
        self.identities.resize(self.limits.len(), 0);
        for member in &self.members {
            self.limits[usize::from(member.slot)] = member.max;
            self.identities[usize::from(member.slot)] = member.identity;
        }
        let mut place_of = vec![None; past];
        for (place, member) in self.members.iter().enumerate() {
            place_of[usize::from(member.slot)] = Some(place as u16);
        }
        self.groups.truncate(groups.len());
        for number in self.groups.len()..groups.len() {
            self.groups.push(Group::new(self.cells, number));
        }
        for (group, slots) in self.groups.iter_mut().zip(groups) {
            let places = slots.iter().filter_map(|&slot| place_of.get(usize::from(slot)).copied().flatten());
            group.set(&self.members, places);
        }
        self.epoch = u64::MAX;
        self.next_probe_us = 0;
    }

    /// True if the rotation of a group contains all its backends because all are down.
    pub fn is_open(&self, group: usize) -> bool {
        self.groups.get(group).is_some_and(|group| group.open)
    }

    /// True if the backend in a slot is in a group.
    pub fn is_in(&self, group: usize, slot: u16) -> bool {
        self.groups.get(group).is_some_and(|group| group.contains(slot))
    }

    /// Takes the news of an outage: the number of the group, and true for the beginning, false for the end.
    pub fn take_news(&mut self) -> Option<(usize, bool)> {
        let mut groups = self.groups.iter_mut().enumerate();
        groups.find_map(|(number, group)| Some((number, group.news.take()?)))
    }

    /// Picks a backend for a request.
    pub fn pick(&mut self, want: Want<'_>, now_us: u64) -> Pick {
        self.look_at_health(now_us);
        if (want.prefer.is_some() || want.hash.is_some())
            && let Some(slot) = self.pick_wanted(want, now_us)
        {
            return Pick::Slot(slot.into());
        }
        let Some(group) = self.groups.get(want.group).filter(|group| !group.rotation.is_empty()) else {
            return Pick::Nobody;
        };
        let draw = group.is_slow(now_us).then(|| self.random.any());
        for _ in 0..PICKS {
            let Group { rotation, turn, .. } = group;
            let mut view = View { rotation, turn, cells: self.cells, random: &mut self.random };
            let slot = (self.rules.strategy.pick)(&mut view);
            if !want.tried.contains(&slot) && self.admits(slot, draw, now_us) && self.enter(slot) {
                return Pick::Slot(slot.into());
            }
        }
        self.any(want.group, want.tried, draw, now_us)
    }

    /// Picks the preferred backend, or the one for a hash. `None`: neither is wanted or has room. This is apart from
    /// `pick`, so that requests without such a wish do not pay for it.
    #[inline(never)]
    fn pick_wanted(&mut self, want: Want<'_>, now_us: u64) -> Option<u16> {
        let Want { tried, prefer, group, hash } = want;
        if let Some(slot) = prefer.filter(|slot| !tried.contains(slot))
            && self.is_in(group, slot)
            && (self.take(slot.into()) || self.is_open(group) && self.enter(slot))
        {
            return Some(slot);
        }
        let draw = self.groups.get(group)?.is_slow(now_us).then(|| self.random.any());
        self.pick_by_hash(want, hash?, draw, now_us)
    }

    /// Picks any backend of a group that was not tried and has room. A backend of the rotation comes first, and a
    /// backend in its slow start that does not admit this request comes last among these. A healthy backend outside the
    /// rotation follows, then an added one, then one that is down, because it may still respond.
    fn any(&mut self, group: usize, tried: &[u16], draw: Option<u64>, now_us: u64) -> Pick {
        let group = &self.groups[group];
        let count = group.rotation.len();
        let start = self.random.below(count as u64) as usize;
        let in_turn = (start..count).chain(0..start).map(|turn| group.rotation.at(turn));
        let untried = in_turn.filter(|slot| !tried.contains(slot));
        let mut admitted = untried.clone().filter(|&slot| self.admits(slot, draw, now_us));
        let found = admitted.find(|&slot| self.enter(slot));
        // If all are admitted, all have been tried above.
        let found = found.or_else(|| untried.clone().find(|&slot| draw.is_some() && self.enter(slot)));
        if let Some(slot) = found {
            return Pick::Slot(slot.into());
        }
        if untried.clone().next().is_some() {
            return Pick::Full;
        }
        let mut full = false;
        let start = self.random.below(group.len() as u64) as usize;
        let in_order: [fn(State) -> bool; 3] =
            [State::is_up, |state| state == State::Added, |state| state == State::Down];
        for is_wanted in in_order {
            for at in (start..group.len()).chain(0..start) {
                let Member { slot, weight, .. } = group.member(&self.members, at);
                if weight > 0 && is_wanted(self.cells.state(slot.into())) && !tried.contains(&slot) {
                    if self.enter(slot) {
                        return Pick::Slot(slot.into());
                    }
                    full = true;
                }
            }
        }
        if full { Pick::Full } else { Pick::Nobody }
    }

    /// Takes a slot for a request if its backend is up and below its limit. `finished` or `give_back` must follow.
    pub fn take(&mut self, slot: usize) -> bool {
        slot < self.limits.len() && self.cells.state(slot).is_up() && self.enter(slot as u16)
    }

    /// True if a backend of a group's rotation that is not in `tried` is below its limit.
    pub fn has_other(&self, group: usize, tried: &[u16]) -> bool {
        let Some(Group { rotation, .. }) = self.groups.get(group) else { return false };
        let mut slots = (0..rotation.len()).map(|turn| rotation.at(turn));
        slots.any(|slot| !tried.contains(&slot) && self.is_below_limit(slot.into()))
    }

    /// True if the backend in a slot is up and below its limit.
    pub fn has_room(&self, slot: u16) -> bool {
        let slot = usize::from(slot);
        slot < self.limits.len() && self.cells.state(slot).is_up() && self.is_below_limit(slot)
    }

    fn is_below_limit(&self, slot: usize) -> bool {
        let most = self.limits[slot];
        most == 0 || self.cells.in_flight(slot) < u64::from(most)
    }

    fn enter(&self, slot: u16) -> bool {
        let slot = usize::from(slot);
        in_flight::begin(&self.mine[slot], self.cells, slot, self.limits[slot])
    }

    /// Ends a request of a backend, with success or failure.
    pub fn finished(&mut self, slot: usize) {
        if let Some(mine) = self.mine.get(slot) {
            in_flight::finish(mine, self.cells, slot);
        }
    }

    /// Takes a pick back that no request uses.
    pub fn give_back(&mut self, slot: usize) {
        self.finished(slot);
    }

    /// Notes a request, which pays for retries.
    pub fn requested(&mut self, now_us: u64) {
        self.budget.request(now_us);
    }

    /// True if a request may be sent again that a backend may have seen.
    pub fn may_repeat(&mut self, now_us: u64) -> bool {
        self.budget.allows(self.cells, now_us)
    }

    /// Decides the rotations again if they may have changed.
    fn look_at_health(&mut self, now_us: u64) {
        let epoch = self.cells.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.decide_turns(now_us);
        }
    }

    #[cold]
    fn decide_turns(&mut self, now_us: u64) {
        for group in &mut self.groups {
            group.decide(&self.members, &self.rules, self.cells, now_us);
        }
        if self.rules.interval_us == 0 {
            self.give_chances(now_us);
        }
    }

    /// True if a backend admits the request. `draw`: a random number that decides this for one request, if a backend is
    /// in its slow start, in which it admits a growing share of the requests. The result for one request is always the
    /// same, however often the strategy picks the backend.
    fn admits(&self, slot: u16, draw: Option<u64>, now_us: u64) -> bool {
        let Some(draw) = draw else { return true };
        match self.rules.slow_start(self.cells, slot) {
            Some((from_us, until_us)) if now_us < until_us => {
                let length_us = until_us - from_us;
                let grown_us = now_us.saturating_sub(from_us).max(length_us / SLOW_START_PARTS);
                Random::new(draw ^ u64::from(slot)).below(length_us) < grown_us
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;

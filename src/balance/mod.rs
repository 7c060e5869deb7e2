//! The pick of a backend for each request. The balancer is pure: it knows slots by number, their weights and their
//! load, and learns the result of each request and each probe. Rotation, limits and health are those of the whole
//! program, because they are stored in cells that all workers share.
//!
//! The rotation contains the healthy backends that are not backups. If there are none, it contains the healthy
//! backups. If there are none either, it contains all backends, because a backend that seems down may still respond.
//! An added backend counts as healthy after it has proved itself, or if no other backend is healthy.

mod budget;
pub mod cells;
mod health;
pub mod in_flight;
mod rotation;
pub mod strategy;

use std::sync::atomic::AtomicU64;

use self::budget::Budget;
use self::cells::{Cells, State};
use self::rotation::Rotation;
use self::strategy::{Strategy, View};
use crate::collections::random::Random;
use crate::limits::{PICKS, SLOW_START_PARTS};

pub use self::health::Change;

/// A backend that may get requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The slot.
    pub slot: u16,
    /// The configured weight; 0 for one that gets no more requests.
    pub weight: u16,
    /// The backend serves only if no other one is healthy.
    pub backup: bool,
    /// The limit for requests in flight of all workers; 0 for none.
    pub max: u32,
}

/// The settings of a user. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The strategy of the pick.
    pub strategy: Strategy,
    /// The number of failures in a row after which a backend is down.
    pub fails: u32,
    /// The number of passed probes in a row after which a backend is up.
    pub passes: u32,
    /// The interval of the probes of a backend; 0 for no probes.
    pub interval_us: u64,
    /// The time for which a backend that came up gets less than its share; 0 for none.
    pub slow_start_us: u64,
    /// The number of retries for each hundred requests.
    pub retry_percent: u32,
}

/// The inputs of a pick.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Slots that are not picked.
    pub tried: &'a [u16],
    /// The slot that is picked if its backend is up and below its limit.
    pub prefer: Option<u16>,
}

impl<'a> Want<'a> {
    /// Any backend, except those in `tried`.
    pub fn other_than(tried: &'a [u16]) -> Want<'a> {
        Want { tried, prefer: None }
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
    rotation: Rotation,
    /// The epoch of the cells at which the rotation was decided.
    epoch: u64,
    /// The end of the last slow start, in microseconds.
    slow_until_us: u64,
    /// The rotation contains all members, because all are down.
    open: bool,
    /// The beginning or the end of an outage that was not reported yet.
    news: Option<bool>,
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
            rotation: Rotation::default(),
            epoch: u64::MAX,
            slow_until_us: 0,
            open: false,
            news: None,
            budget: Budget::new(rules.retry_percent),
            random: Random::new(seed),
            next_probe_us: 0,
        }
    }

    /// Sets the rules and the backends. Members without a slot in the cells are left out.
    pub fn set(&mut self, rules: Rules, members: impl Iterator<Item = Member>) {
        self.rules = rules;
        self.budget.set(rules.retry_percent);
        self.members.clear();
        self.members.extend(members.filter(|member| usize::from(member.slot) < self.cells.slots()));
        let past = self.members.iter().map(|member| usize::from(member.slot) + 1).max().unwrap_or(0);
        self.limits.resize(past.max(self.limits.len()), 0);
        self.limits.fill(0);
        for member in &self.members {
            self.limits[usize::from(member.slot)] = member.max;
        }
        self.epoch = u64::MAX;
        self.next_probe_us = 0;
    }

    /// True if the rotation contains all backends because all are down.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Takes the news of an outage: true for its beginning, false for its end.
    pub fn take_news(&mut self) -> Option<bool> {
        self.news.take()
    }

    /// Picks a backend for a request.
    pub fn pick(&mut self, want: Want<'_>, now_us: u64) -> Pick {
        self.look_at_health(now_us);
        let tried = want.tried;
        if let Some(slot) = want.prefer.filter(|slot| !tried.contains(slot))
            && self.take(slot.into())
        {
            return Pick::Slot(slot.into());
        }
        if self.rotation.is_empty() {
            return Pick::Nobody;
        }
        let draw = self.draw(now_us);
        for _ in 0..PICKS {
            let mut view = View { rotation: &self.rotation, cells: self.cells, random: &mut self.random };
            let slot = (self.rules.strategy.pick)(&mut view);
            if !tried.contains(&slot) && self.admits(slot, draw, now_us) && self.enter(slot) {
                return Pick::Slot(slot.into());
            }
        }
        self.any(tried, draw, now_us)
    }

    /// Picks any backend that was not tried and has room. A backend of the rotation comes first, and a backend in its
    /// slow start that does not admit this request comes last among these. A healthy backend outside the rotation
    /// follows, then an added one, then one that is down, because it may still respond.
    fn any(&mut self, tried: &[u16], draw: Option<u64>, now_us: u64) -> Pick {
        let count = self.rotation.len();
        let start = self.random.below(count as u64) as usize;
        let in_turn = (start..count).chain(0..start).map(|turn| self.rotation.at(turn));
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
        let start = self.random.below(self.members.len() as u64) as usize;
        let in_order: [fn(State) -> bool; 3] =
            [State::is_up, |state| state == State::Added, |state| state == State::Down];
        for is_wanted in in_order {
            for at in (start..self.members.len()).chain(0..start) {
                let Member { slot, weight, .. } = self.members[at];
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

    /// True if a backend of the rotation that is not in `tried` is below its limit.
    pub fn has_other(&self, tried: &[u16]) -> bool {
        let mut slots = (0..self.rotation.len()).map(|turn| self.rotation.at(turn));
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

    /// Decides the rotation again if it may have changed.
    fn look_at_health(&mut self, now_us: u64) {
        let epoch = self.cells.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.decide_turns(now_us);
        }
    }

    fn decide_turns(&mut self, now_us: u64) {
        let served = |member: &&Member| member.weight > 0;
        let fit = |member: &&Member| served(member) && self.cells.state(member.slot.into()).is_up();
        if self.rules.interval_us == 0 || !self.members.iter().any(|member| fit(&member)) {
            self.members.iter().for_each(|member| self.cells.admit(member.slot.into()));
        }
        let share = |member: &Member| (member.slot, member.weight);
        self.rotation.set(self.members.iter().filter(fit).filter(|member| !member.backup).map(share));
        if self.rotation.is_empty() {
            self.rotation.set(self.members.iter().filter(fit).map(share));
        }
        self.open = self.rotation.is_empty() && self.members.iter().any(|member| served(&member));
        if self.open {
            self.rotation.set(self.members.iter().filter(served).map(share));
        }
        if self.cells.note_outage(self.open) {
            self.news = Some(self.open);
        }
        if self.rules.interval_us == 0 {
            self.give_chances(now_us);
        }
        self.slow_until_us = 0;
        if self.rules.slow_start_us > 0 && !self.open {
            let until = |member: &Member| self.slow_start(member.slot).map_or(0, |(_, until_us)| until_us);
            self.slow_until_us = self.members.iter().map(until).filter(|&until| until > now_us).max().unwrap_or(0);
        }
    }

    /// Returns the begin and the end of a backend's slow start.
    fn slow_start(&self, slot: u16) -> Option<(u64, u64)> {
        let from_us = self.cells.changed_us(slot.into());
        (from_us > 0).then(|| (from_us, from_us.saturating_add(self.rules.slow_start_us)))
    }

    /// Returns a random number that decides for one request which backends in their slow start admit it; `None` if no
    /// backend is in its slow start.
    fn draw(&mut self, now_us: u64) -> Option<u64> {
        (now_us < self.slow_until_us && self.rotation.len() > 1).then(|| self.random.any())
    }

    /// True if a backend admits the request. In its slow start it admits a growing share of the requests. The result
    /// for one request is always the same, however often the strategy picks the backend.
    fn admits(&self, slot: u16, draw: Option<u64>, now_us: u64) -> bool {
        let Some(draw) = draw else { return true };
        match self.slow_start(slot) {
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

//! The pick by a hash, with a bound of the load. A backend gets a request only while its requests in flight are below
//! 1.25 of the mean, by weight. Otherwise the next backend in the order of the request gets it. So one busy client or
//! one popular path does not overload a backend, and everything else stays where it is.

use std::cell::Cell;

use super::cells::Cells;
use super::group::Group;
use super::strategy::hash;
use super::{Balancer, Want};
use crate::limits::{HASH_FLOOR, HASH_SCANNED, PICKS};

impl Balancer {
    /// Picks a backend for a hash. `draw`: as for `admits`. `None`: no backend of the rotation has room.
    pub(super) fn pick_by_hash(&mut self, want: Want<'_>, hash: u64, draw: Option<u64>, now_us: u64) -> Option<u16> {
        let bucket = hash::bucket(hash);
        let Balancer { groups, identities, cells, .. } = self;
        let group = &mut groups[want.group];
        let owner = group.owner(identities, bucket);
        let load = Cell::new(group.counted_load(*cells, now_us));
        let group = &self.groups[want.group];
        let rotation = &group.rotation;
        let slot = |turn: usize| rotation.at(turn);
        let is_below_bound = |turn: usize| {
            let own = self.cells.in_flight(slot(turn).into());
            own < HASH_FLOOR || {
                let all = load.get().unwrap_or_else(|| group.load(self.cells));
                load.set(Some(all));
                // 1.25 of the mean, with this request. No division: own / all < 1.25 * weight / all weights.
                4 * own * rotation.total() < 5 * (all + 1) * rotation.weight(turn)
            }
        };
        let is_open = |turn: usize| {
            !want.tried.contains(&slot(turn)) && self.admits(slot(turn), draw, now_us) && is_below_bound(turn)
        };
        if let Some(owner) = owner.filter(|&turn| is_open(turn))
            && self.enter(slot(owner))
        {
            return Some(slot(owner));
        }
        let mut full = [u16::MAX; 2 * PICKS];
        let mut count = 0;
        // If every other backend is above the bound or admits no further request, that holds back nobody.
        for is_bounded in [true, false] {
            for _ in 0..PICKS {
                let accepts = |turn: usize| {
                    let is_untried = !want.tried.contains(&slot(turn)) && !full[..count].contains(&slot(turn));
                    is_untried && (!is_bounded || is_open(turn))
                };
                let Some(turn) = hash::best(rotation, &self.identities, bucket, accepts) else { break };
                if self.enter(slot(turn)) {
                    return Some(slot(turn));
                }
                full[count] = slot(turn);
                count += 1;
            }
        }
        None
    }
}

impl Group {
    /// Returns the turn of the best backend for a bucket, from a table if a look at all backends is costly. The table
    /// fills with the requests, and it is empty again when the rotation changes.
    fn owner(&mut self, identities: &[u64], bucket: u64) -> Option<usize> {
        if self.rotation.len() <= HASH_SCANNED {
            return None;
        }
        let Group { rotation, owners, .. } = self;
        if owners.is_empty() {
            owners.resize(crate::limits::HASH_BUCKETS, u16::MAX);
        }
        let place = owners.get_mut(bucket as usize)?;
        if *place == u16::MAX {
            *place = hash::best(rotation, identities, bucket, |_| true)? as u16;
        }
        Some(usize::from(*place))
    }

    /// Returns the requests in flight of all backends in the rotation.
    fn load(&self, cells: Cells) -> u64 {
        let slots = (0..self.rotation.len()).map(|turn| usize::from(self.rotation.at(turn)));
        slots.map(|slot| cells.in_flight(slot)).sum()
    }

    /// Returns the same for many backends, `None` for few. These are counted once for each turn of the worker, and its
    /// picks since then are added.
    fn counted_load(&mut self, cells: Cells, now_us: u64) -> Option<u64> {
        if self.rotation.len() <= HASH_SCANNED {
            return None;
        }
        let (counted_us, counted) = self.counted;
        let load = if counted_us == now_us { counted } else { self.load(cells) };
        self.counted = (now_us, load + 1);
        Some(load)
    }
}

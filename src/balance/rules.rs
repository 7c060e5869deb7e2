//! The inputs of a plan: the backends, and the rules for all of them.

use super::cells::Cells;
use super::strategy::Strategy;

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
    /// A number that stands for the backend's name and address, on every machine.
    pub identity: u64,
}

/// Returns the identity of the backend in a slot.
pub(super) fn identity_of(identities: &[u64], slot: u16) -> u64 {
    identities.get(usize::from(slot)).copied().unwrap_or(0)
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

impl Rules {
    /// Returns the begin and the end of a backend's slow start.
    pub(super) fn slow_start(&self, cells: Cells, slot: u16) -> Option<(u64, u64)> {
        let from_us = cells.changed_us(slot.into());
        (from_us > 0).then(|| (from_us, from_us.saturating_add(self.slow_start_us)))
    }
}

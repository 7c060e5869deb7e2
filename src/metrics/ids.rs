//! The identity of each cell: a hash of the metric that it counts. The shared memory has a directory of these
//! identities, so that another program finds the counts that it knows, wherever they are.
//!
//! The lowest bit of an identity tells whether the cell is a gauge, so that a program can also add up gauges that
//! it does not know. A cell whose meaning changes gets another name, and so another identity.

use super::{BOUNDS_US, Count, Global, Histogram, Kind, Metric, OwnTime, SlotCount, SlotTime};

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// The identities of the cells of a worker, backends apart.
pub const OWN: [u64; Count::METRICS.len() + OwnTime::METRICS.len() * Histogram::CELLS] =
    list(Count::METRICS, OwnTime::METRICS);
/// The identities of the master's cells.
pub const GLOBAL: [u64; Global::METRICS.len()] = list(Global::METRICS, &[]);
/// The identities of a slot's cells, after its generation.
pub const SLOT: [u64; SlotCount::METRICS.len() + SlotTime::METRICS.len() * Histogram::CELLS] =
    list(SlotCount::METRICS, SlotTime::METRICS);

/// True if the cell of an identity is a gauge.
pub const fn is_gauge(id: u64) -> bool {
    id & 1 == 1
}

/// Continues a hash (FNV-1a).
pub const fn hash(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// The identity of a cell by its name.
pub const fn of(name: &str) -> u64 {
    hash(BASIS, name.as_bytes()) << 1
}

const fn of_metric(metric: &Metric) -> u64 {
    let name = hash(hash(BASIS, metric.family.as_bytes()), b"{");
    let is_gauge = matches!(metric.kind, Kind::Gauge);
    hash(name, metric.label.as_bytes()) << 1 | is_gauge as u64
}

/// The identities of counts and, after them, of histograms: a cell for each bound, one for values above all
/// bounds, and the sum.
const fn list<const N: usize>(counts: &[Metric], times: &[Metric]) -> [u64; N] {
    let mut ids = [0; N];
    let mut at = 0;
    while at < counts.len() {
        ids[at] = of_metric(&counts[at]);
        at += 1;
    }
    let mut time = 0;
    while time < times.len() {
        let family = hash(BASIS, times[time].family.as_bytes());
        let mut cell = 0;
        while cell < Histogram::CELLS {
            let (kind, bound_us): (&[u8], u64) = if cell < BOUNDS_US.len() {
                // A count lies between two bounds, so both are part of its identity.
                (b"{le=", BOUNDS_US[cell] ^ if cell > 0 { BOUNDS_US[cell - 1] << 32 } else { 0 })
            } else if cell == BOUNDS_US.len() {
                (b"{above=", BOUNDS_US[cell - 1])
            } else {
                (b"{sum", 0)
            };
            ids[at] = hash(hash(family, kind), &bound_us.to_le_bytes()) << 1;
            at += 1;
            cell += 1;
        }
        time += 1;
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_cells_have_one_identity() {
        for ids in [&OWN[..], &GLOBAL, &SLOT] {
            assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        }
    }

    #[test]
    fn gauges_are_told_from_counters() {
        assert!(is_gauge(OWN[Count::ClientsNow as usize]) && !is_gauge(OWN[Count::Clients as usize]));
        assert!(OWN[Count::METRICS.len()..].iter().all(|&id| !is_gauge(id)));
    }
}

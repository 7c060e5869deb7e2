//! The shared memory of programs before an upgrade, if it has another layout than this program's. Old workers count
//! there until they end. The counts are copied into this program's memory: at the start, every second, and once more
//! when a worker has ended, so that none is lost.

use crate::limits::{OLD_COUNTS_US, PLAN_BYTES};
use crate::process::upgrade::handover::OldWorker;
use crate::shared::directory::{View, copy_state, mirror};
use crate::shared::{Region, plan_in};
use crate::sys::shm::Attached;

/// All of it, the oldest first. Each one's counts go into the next, and the last one's into the region.
#[derive(Debug, Default)]
pub(in crate::process) struct OldMemory {
    segments: Vec<Attached>,
    region: Option<Region>,
    /// When the counts are copied again, in microseconds.
    next_us: u64,
}

impl OldMemory {
    /// The segments of these numbers, as far as they can still be found.
    pub(in crate::process) fn find(ids: &[i32], region: Region) -> OldMemory {
        let segments = ids.iter().filter_map(|&id| Attached::new(id).ok());
        let segments = segments.filter(|segment| View::read(segment.cells()).is_some()).collect();
        OldMemory { segments, region: Some(region), next_us: 0 }
    }

    /// Copies the state of the backends from the newest segment into the region, which is new.
    pub(in crate::process) fn begin(&self) {
        if let (Some(last), Some(region)) = (self.segments.last(), self.region)
            && let Some(view) = View::read(last.cells())
        {
            copy_state(view, region.view());
            region.note_before();
        }
    }

    /// The plan's bytes in the newest segment.
    pub(in crate::process) fn plan(&self) -> Option<Vec<u8>> {
        let plan = plan_in(self.segments.last()?.cells())?;
        (plan.len() <= 4 * PLAN_BYTES).then_some(plan)
    }

    /// The segments' numbers.
    pub(in crate::process) fn ids(&self) -> Vec<i32> {
        self.segments.iter().map(Attached::id).collect()
    }

    /// The time of the next `expire`, in microseconds.
    pub(in crate::process) fn next_us(&self) -> u64 {
        if self.segments.is_empty() { u64::MAX } else { self.next_us }
    }

    /// Copies the counts, if it is time to.
    pub(in crate::process) fn expire(&mut self, old_workers: &[OldWorker], now_us: u64) {
        if now_us >= self.next_us() {
            self.next_us = now_us + OLD_COUNTS_US;
            self.copy(old_workers);
        }
    }

    /// Copies the counts of all segments. `old_workers`: the workers that live.
    pub(in crate::process) fn copy(&self, old_workers: &[OldWorker]) {
        let views = || self.segments.iter().filter_map(|segment| Some((segment.id(), View::read(segment.cells())?)));
        let region = self.region.map(|region| (0, region.view()));
        for ((id, from), (_, to)) in views().zip(views().skip(1).chain(region)) {
            let is_living = |record| {
                old_workers.iter().any(|old_worker| old_worker.memory == Some(id) && old_worker.record == Some(record))
            };
            mirror(from, to, is_living);
        }
    }

    /// A worker has ended: its last counts are copied, and segments are left that no worker uses any more.
    pub(in crate::process) fn worker_ended(&mut self, old_workers: &[OldWorker]) {
        if self.segments.is_empty() {
            return;
        }
        self.copy(old_workers);
        let is_used = |segment: &Attached| old_workers.iter().any(|old_worker| old_worker.memory == Some(segment.id()));
        // The counts of an older one still go through those after it.
        let unused = self.segments.iter().take_while(|segment| !is_used(segment)).count();
        self.segments.drain(..unused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Block, Count};
    use crate::process::start::memory::share_memory;

    #[test]
    fn counts_go_through_every_memory_until_its_last_worker_has_ended() {
        let memory = || share_memory(2).map_err(|failure| failure.message).unwrap();
        let (oldest, old, new) = (memory(), memory(), memory());
        for memory in [oldest, old, new] {
            memory.region.used().store(1, std::sync::atomic::Ordering::Relaxed);
        }
        let old_worker = |memory: i32| OldWorker {
            pid: memory,
            record: Some(0),
            memory: Some(memory),
            generation: 0,
            until_us: None,
        };
        let mut old_workers = vec![old_worker(oldest.segment), old_worker(old.segment)];
        let mut all = OldMemory::find(&[oldest.segment, old.segment], new.region);
        assert_eq!(all.ids(), [oldest.segment, old.segment]);
        all.begin();
        let clients = || new.region.blocks().into_iter().map(|block: Block| block.get(Count::Clients)).sum::<u64>();
        oldest.region.block(0).add(Count::Clients, 1);
        old.region.block(0).add(Count::Clients, 10);
        new.region.block(0).add(Count::Clients, 100);
        all.expire(&old_workers, 5);
        assert_eq!((clients(), all.next_us()), (111, 5 + OLD_COUNTS_US));
        oldest.region.block(0).add(Count::Clients, 2);
        old_workers.remove(0);
        all.worker_ended(&old_workers);
        assert_eq!((clients(), all.ids()), (113, vec![old.segment]));
        old.region.block(0).add(Count::Clients, 20);
        all.worker_ended(&[]);
        assert_eq!((clients(), all.ids(), all.next_us()), (133, vec![], u64::MAX));
    }
}

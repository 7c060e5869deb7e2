//! The watchdog looks at the workers' loops at intervals, and kills a worker whose loop stands still. It is replaced like
//! any that dies.
//!
//! If the master itself is late, the whole machine or process group may have stood still. Then the silence of a worker
//! proves nothing until all workers have had the full time again.

use std::time::Duration;

use crate::limits::{WATCH_LATE_US, WATCHDOG_PARTS};
use crate::log::Level;
use crate::process::journal::Journal;
use crate::process::upgrade::old_workers::OldWorkers;
use crate::shared::Region;
use crate::sys::clock;
use crate::sys::fork::{self, Pid};

/// When the next look is.
#[derive(Debug, Default)]
pub(in crate::process) struct Watchdog {
    /// In microseconds; 0 if there is none.
    next_us: u64,
}

impl Watchdog {
    /// The time of the next `watch_over`, in microseconds.
    pub(in crate::process) fn next_us(&self) -> u64 {
        if self.next_us == 0 { u64::MAX } else { self.next_us }
    }

    /// Kills workers that have been stuck for longer than `watchdog_us`, if that is not 0 and a check is due.
    /// `workers`: with their worker records, and their age; `old_workers` are old enough.
    pub(in crate::process) fn watch_over(
        &mut self,
        watchdog_us: u64,
        region: Region,
        workers: impl Iterator<Item = (Pid, usize, Duration)>,
        old_workers: &OldWorkers,
        journal: &mut Journal,
    ) {
        let now_us = clock::monotonic_us();
        if !self.is_due(now_us, watchdog_us) {
            return;
        }
        // An old worker with another memory layout is not checked.
        let old_workers = old_workers.iter().filter(|old_worker| old_worker.memory.is_none());
        let old_workers = old_workers
            .filter_map(|old_worker| Some((Pid::of_child(old_worker.pid), old_worker.record?, Duration::MAX)));
        for (pid, record, lived) in workers.chain(old_workers) {
            let record = region.record(record);
            if let Some(still) = stands_still(now_us, record.beaten_us(), lived, watchdog_us) {
                let doing = record.doing();
                let text = format_args!("worker pid {pid} stands still for {still:?} while {doing}: killed");
                journal.line(Level::Err, "process", text);
                fork::kill(pid);
            }
        }
    }

    /// True if a check is due, for a limit of `watchdog_us`; 0 means no limit.
    fn is_due(&mut self, now_us: u64, watchdog_us: u64) -> bool {
        let due_us = self.next_us.min(now_us.saturating_add(watchdog_us));
        if watchdog_us == 0 || now_us < due_us {
            self.next_us = if watchdog_us == 0 { 0 } else { due_us };
            return false;
        }
        let look_us = watchdog_us / WATCHDOG_PARTS;
        let late = now_us - due_us > look_us.min(WATCH_LATE_US);
        self.next_us = now_us.saturating_add(if late { watchdog_us } else { look_us });
        !late
    }
}

/// The time that a loop has stood still, if that is too long. A worker has as much time to begin: until its loop first
/// turns, its worker record says nothing of it.
fn stands_still(now_us: u64, beaten_us: u64, lived: Duration, watchdog_us: u64) -> Option<Duration> {
    let still_us = now_us.saturating_sub(beaten_us);
    let is_late = still_us > watchdog_us && lived > Duration::from_micros(watchdog_us);
    is_late.then(|| Duration::from_millis(still_us / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_respawned_worker_is_not_killed_by_the_heartbeat_of_its_predecessor() {
        const NOW_US: u64 = 100_000_000;
        let lived = Duration::from_micros;
        // The predecessor's last beat, or none: the worker has not had its time to begin.
        for beaten_us in [0, NOW_US - 20_000_000] {
            assert_eq!(stands_still(NOW_US, beaten_us, lived(0), 1_000_000), None);
            assert_eq!(stands_still(NOW_US, beaten_us, lived(1_000_000), 1_000_000), None);
        }
        assert_eq!(stands_still(NOW_US, 0, lived(1_000_001), 1_000_000), Some(Duration::from_secs(100)));
        assert_eq!(stands_still(NOW_US, NOW_US - 1_000_000, Duration::MAX, 1_000_000), None);
        let still = stands_still(NOW_US, NOW_US - 1_000_001, Duration::MAX, 1_000_000);
        assert_eq!(still, Some(Duration::from_millis(1000)));
    }

    #[test]
    fn it_looks_four_times_in_the_time_that_a_loop_may_stand_still() {
        let mut watchdog = Watchdog::default();
        assert!(!watchdog.is_due(1_000, 400), "who begins knows of no silence");
        assert_eq!(watchdog.next_us(), 1_400);
        for now_us in [1_400, 1_500, 1_600, 1_750] {
            assert!(!watchdog.is_due(watchdog.next_us() - 1, 400));
            assert!(watchdog.is_due(now_us, 400), "{now_us}");
        }
        assert_eq!(watchdog.next_us(), 1_850);
    }

    #[test]
    fn a_late_master_trusts_no_silence_for_a_whole_interval() {
        let mut watchdog = Watchdog { next_us: 1_000 };
        assert!(!watchdog.is_due(1_101, 400));
        assert_eq!(watchdog.next_us(), 1_501);
        assert!(watchdog.is_due(1_550, 400));
        // However long the interval, a second is late.
        let mut watchdog = Watchdog { next_us: 1_000 };
        assert!(!watchdog.is_due(1_001 + WATCH_LATE_US, 100 * WATCH_LATE_US));
    }

    #[test]
    fn it_can_be_turned_off_and_on_and_made_to_look_sooner() {
        let mut watchdog = Watchdog { next_us: 1_000 };
        assert!(!watchdog.is_due(5_000, 0));
        assert_eq!(watchdog.next_us(), u64::MAX);
        assert!(!watchdog.is_due(6_000, 4_000));
        assert_eq!(watchdog.next_us(), 10_000);
        assert!(!watchdog.is_due(6_001, 400));
        assert_eq!(watchdog.next_us(), 6_401);
    }
}

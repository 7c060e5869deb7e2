//! The line of memory that tells the master whether a worker lives, and its present activity.
//!
//! The worker writes it with plain stores. The master reads it, and clears it when the worker has ended. The master
//! writes one cell: while a worker is absent, the other workers accept from its listener.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const BEAT: usize = 0;
const DOING: usize = 1;
const READY: usize = 2;
const BUSY: usize = 3;
const ABSENT: usize = 4;

/// The activity of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Waits for events.
    Waiting,
    /// Accepts connections.
    Accepting,
    /// Handles an event of a connection.
    Serving,
    /// Continues to read a connection after it let others go first.
    Reading,
    /// Handles deadlines that have passed.
    Expiring,
    /// Sends the bytes that were gathered during a turn.
    Sending,
    /// Adopts a new plan.
    Following,
    /// Writes its log.
    Logging,
}

const ALL: [Doing; 8] = [
    Doing::Waiting,
    Doing::Accepting,
    Doing::Serving,
    Doing::Reading,
    Doing::Expiring,
    Doing::Sending,
    Doing::Following,
    Doing::Logging,
];

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doing::Waiting => "waiting for events",
            Doing::Accepting => "accepting connections",
            Doing::Serving => "serving a connection",
            Doing::Reading => "reading on from a connection",
            Doing::Expiring => "expiring deadlines",
            Doing::Sending => "sending",
            Doing::Following => "following a new plan",
            Doing::Logging => "writing its log",
        })
    }
}

/// A view of the line.
#[derive(Clone, Copy, Debug)]
pub struct WorkerRecord {
    cells: &'static [AtomicU64],
}

impl WorkerRecord {
    pub(super) fn new(cells: &'static [AtomicU64]) -> WorkerRecord {
        assert!(cells.len() > ABSENT, "a line has room for it");
        WorkerRecord { cells }
    }

    /// Notes that the worker's loop turned at this time, in microseconds.
    pub fn beat(self, now_us: u64) {
        self.cells[BEAT].store(now_us, Relaxed);
    }

    /// Returns the time in microseconds at which the loop last turned. It is 0 before the first turn.
    pub fn beaten_us(self) -> u64 {
        self.cells[BEAT].load(Relaxed)
    }

    /// Notes the worker's activity.
    pub fn begin(self, doing: Doing) {
        self.cells[DOING].store(doing as u64, Relaxed);
    }

    /// Returns the worker's activity.
    pub fn doing(self) -> Doing {
        let number = self.cells[DOING].load(Relaxed);
        ALL.into_iter().find(|&doing| doing as u64 == number).unwrap_or(Doing::Waiting)
    }

    /// Notes that the worker accepts connections.
    pub fn set_ready(self) {
        self.cells[READY].store(1, Release);
    }

    /// True if the worker accepts connections.
    pub fn is_ready(self) -> bool {
        self.cells[READY].load(Acquire) != 0
    }

    /// Notes the count of the worker's requests.
    pub fn set_busy(self, requests: usize) {
        self.cells[BUSY].store(requests as u64, Relaxed);
    }

    /// Returns the count of the worker's requests.
    pub fn busy(self) -> u64 {
        self.cells[BUSY].load(Relaxed)
    }

    /// Notes that there is no worker for a while, or that there is one again.
    pub fn set_absent(self, absent: bool) {
        self.cells[ABSENT].store(absent.into(), Release);
    }

    /// True if the other workers accept from this worker's listener.
    pub fn is_absent(self) -> bool {
        self.cells[ABSENT].load(Acquire) != 0
    }

    /// Clears the line: there is no worker.
    pub fn clear(self) {
        self.cells.iter().for_each(|cell| cell.store(0, Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_reads_the_line_of_a_worker() {
        let record = WorkerRecord::new(Vec::leak((0..8).map(|_| AtomicU64::new(0)).collect()));
        assert_eq!((record.beaten_us(), record.doing(), record.is_ready()), (0, Doing::Waiting, false));
        for doing in ALL {
            record.begin(doing);
            assert_eq!(record.doing(), doing);
        }
        record.beat(5);
        record.set_ready();
        record.set_busy(7);
        assert_eq!((record.beaten_us(), record.is_ready(), record.busy()), (5, true, 7));
        assert!(!record.is_absent());
        record.set_absent(true);
        assert!(record.is_absent());
        record.set_absent(false);
        assert!(!record.is_absent());
        record.set_absent(true);
        record.clear();
        assert!(!record.is_absent());
        assert_eq!((record.beaten_us(), record.is_ready(), record.busy()), (0, false, 0));
        assert_eq!(record.doing(), Doing::Waiting);
    }
}

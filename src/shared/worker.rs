//! The line of memory by which a worker's master knows that it lives, and what it does.
//!
//! The worker writes it, with plain stores; the master reads it, and clears it once the worker has
//! ended. One cell is the master's: while a worker is absent, the other workers accept from its listener.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const BEAT: usize = 0;
const DOING: usize = 1;
const READY: usize = 2;
const BUSY: usize = 3;
const ABSENT: usize = 4;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Waits for something to do.
    Waiting,
    /// Accepts connections.
    Accepting,
    /// Sees to a connection on which something happened.
    Serving,
    /// Reads on where it had stopped to let others go first.
    Reading,
    /// Sees to what took too long.
    Expiring,
    /// Sends what was gathered.
    Sending,
    /// Takes up a new plan.
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

    /// The worker's loop has turned, at this time in microseconds.
    pub fn beat(self, now_us: u64) {
        self.cells[BEAT].store(now_us, Relaxed);
    }

    /// When its loop last turned, in microseconds; 0 where it has not yet.
    pub fn beaten_us(self) -> u64 {
        self.cells[BEAT].load(Relaxed)
    }

    /// The worker begins to do that.
    pub fn begin(self, doing: Doing) {
        self.cells[DOING].store(doing as u64, Relaxed);
    }

    /// What it does.
    pub fn doing(self) -> Doing {
        let number = self.cells[DOING].load(Relaxed);
        ALL.into_iter().find(|&doing| doing as u64 == number).unwrap_or(Doing::Waiting)
    }

    /// The worker accepts connections.
    pub fn set_ready(self) {
        self.cells[READY].store(1, Release);
    }

    /// Whether it does.
    pub fn is_ready(self) -> bool {
        self.cells[READY].load(Acquire) != 0
    }

    /// The worker has that many requests under way.
    pub fn set_busy(self, requests: usize) {
        self.cells[BUSY].store(requests as u64, Relaxed);
    }

    /// How many requests it has under way.
    pub fn busy(self) -> u64 {
        self.cells[BUSY].load(Relaxed)
    }

    /// There is no worker for a while, or there is one again.
    pub fn set_absent(self, absent: bool) {
        self.cells[ABSENT].store(absent.into(), Release);
    }

    /// Whether the other workers are to accept from this worker's listener.
    pub fn is_absent(self) -> bool {
        self.cells[ABSENT].load(Acquire) != 0
    }

    /// As it was before there was a worker.
    pub fn clear(self) {
        self.cells.iter().for_each(|cell| cell.store(0, Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_its_master_reads() {
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

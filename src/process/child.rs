//! The life of a forked child: its beginning, a worker's loop, and its exit status.

use std::fmt;
use std::io;

use crate::config::Mode;
use crate::log::Level;
use crate::metrics::Count;
use crate::process::journal::Journal;
use crate::shared::Region;
use crate::sys;
use crate::sys::fork::{self, Pid};
use crate::worker::{self, Draining, Outcome, Setup};

/// Begins the life of a forked child: it takes a name, and ends with its parent.
pub(in crate::process) fn begin_child(parent: Pid, name: &str) -> io::Result<()> {
    fork::set_name(name);
    sys::forget_lost();
    fork::die_with(parent)
}

/// The end of a worker's loop. It is the exit status that the master reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Ended {
    /// Nothing was left.
    Drained = 0,
    /// The loop itself failed.
    Failed = 1,
    /// Requests were cut.
    Cut = 3,
}

/// Runs a worker's loop to its end. Returns the way in which it ended.
pub(in crate::process) fn serve(setup: Setup<'_>, mut journal: Journal) -> Ended {
    let (mode, index, region) = (setup.config.mode, setup.index, setup.region);
    let outcome = worker::run(setup);
    journal.follow(region);
    match outcome {
        Ok(Outcome::Drained | Outcome::Cut(0)) => Ended::Drained,
        Ok(Outcome::Cut(requests)) => {
            let plural = if requests == 1 { "" } else { "s" };
            let who = Worker(mode, index);
            journal.line(Level::Warn, "process", format_args!("{who}cut {requests} request{plural} off"));
            Ended::Cut
        }
        Err(error) => {
            let who = Worker(mode, index);
            journal.line(Level::Err, "process", format_args!("{who}failed: {error}"));
            Ended::Failed
        }
    }
}

/// The name in a log line: a worker by its number, or the only process, which needs no name.
pub(in crate::process) struct Worker(Mode, u32);

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Mode::Mp => write!(f, "worker {} ", self.1),
            Mode::Sp => Ok(()),
        }
    }
}

/// The log line about a drain, with the clients of all workers in a region.
pub(in crate::process) fn draining(region: Region, delay_us: u64, drain_us: u64, idle_us: u64) -> Draining {
    let clients = (0..region.records()).map(|record| region.block(record).get(Count::ClientsNow)).sum();
    let busy = (0..region.records()).map(|record| region.record(record).busy()).sum();
    Draining { delay_us, drain_us, idle_us, clients, busy }
}

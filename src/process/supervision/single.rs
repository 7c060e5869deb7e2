//! sp: one process with a worker's loop, which also does the master's duties.
//!
//! For an upgrade it forks. The copy keeps serving all connections, like an old worker in mp, and the process
//! itself becomes the new program. The copy does nothing until it knows that the exec has succeeded. If it
//! fails, the copy ends without a trace.

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::log::{Level, Log};
use crate::process::child::{Ended, begin_child, serve};
use crate::process::duties::Duties;
use crate::process::exit::{DONE, FAILED};
use crate::process::journal::{Journal, Line};
use crate::process::start::Parts;
use crate::process::start::listen::Listener;
use crate::process::start::memory::Memory;
use crate::process::upgrade::Upgrade;
use crate::process::upgrade::handover::{Handover, OldWorker};
use crate::process::upgrade::inherited::Inherited;
use crate::process::upgrade::old_workers::OldWorkers;
use crate::process::upgrade::rollback::{self, RollbackSupervisor};
use crate::sys::clock;
use crate::sys::fork::{self, Fork, Pid};
use crate::sys::signal::Signals;
use crate::worker::{Companion, Setup};

/// The state of the process beside its loop.
struct Single {
    duties: Duties,
    old_workers: OldWorkers,
    upgrade: Upgrade,
    journal: Journal,
    memory: Memory,
    record: usize,
    generation: u64,
    /// The inheritance of the program before, until this one serves.
    inherited: Inherited,
    /// The listeners, whose sockets the worker has.
    listeners: Vec<Listener<RawFd>>,
    stopping: bool,
    /// True in the copy that keeps serving the connections.
    is_copy: bool,
}

/// Runs until a signal ends it; returns the exit status.
pub(in crate::process) fn run(parts: Parts, inherited: Inherited, greeting: &[Line]) -> u8 {
    let Parts { memory, records, duties, old_workers, listeners, tls, shares, signals, mut journal } = parts;
    let Some(&record) = records.first() else { return FAILED };
    journal.greet(greeting);
    let config = duties.config().clone();
    let mut single = Single {
        duties,
        old_workers,
        upgrade: Upgrade::new(Some(memory.region.globals()), inherited.is_wanted_again()),
        journal: Journal::new(config.loglevel),
        memory,
        record,
        generation: inherited.generation(),
        inherited,
        listeners: listeners.iter().map(Listener::raw).collect(),
        stopping: false,
        is_copy: false,
    };
    let setup = Setup {
        config: &config,
        region: memory.region,
        listeners: listeners.into_iter().flat_map(|listener| listener.of_worker(0).0).collect(),
        spares: Vec::new(),
        companion: Some(&mut single),
        stopping: false,
        index: 0,
        record,
        max_connections: shares.of(0),
        max_idle: shares.idle(),
        tls,
        signals,
        log: Log::new(config.loglevel),
    };
    let ended = serve(setup, journal);
    if single.is_copy {
        fork::exit_now(ended as u8);
    }
    if let (Ended::Failed, Some(left)) = (ended, single.inherited.into_left()) {
        single.duties.take_back();
        drop(single.duties);
        let mut journal = single.journal;
        let signals = rollback::signals(&mut journal);
        return RollbackSupervisor::new(left, Vec::new(), signals, journal, "the new program cannot serve").run();
    }
    let clean = ended == Ended::Drained && single.old_workers.is_clean();
    if ended != Ended::Failed {
        single.journal.line(Level::Info, "process", format_args!("{}", if clean { "drained" } else { "stopped" }));
    }
    if clean { DONE } else { FAILED }
}

impl Single {
    /// The handover to the program that this process becomes.
    fn left(&self) -> Handover {
        Handover {
            pid: std::process::id(),
            generation: self.generation + 1,
            segment: self.memory.segment,
            older: self.old_workers.memory(),
            listeners: self.listeners.clone(),
            old_workers: self.old_workers.iter().copied().collect(),
            demo: self.duties.config().demo_addresses(),
            again: self.upgrade.is_wanted_again(),
        }
    }

    /// Follows a plan that was published.
    fn follow(&mut self) {
        if self.duties.take_published() {
            self.journal.follow(self.memory.region);
        }
        if self.duties.take_wants_upgrade() && !self.stopping {
            self.upgrade.ask_for();
            self.begin_upgrade(clock::monotonic_us());
        }
    }

    fn drain_us(&self) -> u64 {
        self.duties.config().timeouts.drain_us
    }

    /// Begins an upgrade that was asked for, once the one before is over.
    fn begin_upgrade(&mut self, now_us: u64) {
        let over = !self.old_workers.iter().any(OldWorker::is_accepting);
        if self.upgrade.is_wanted() && over && !self.stopping {
            let left = self.left();
            self.upgrade.begin(&left, &mut self.journal, now_us);
        }
    }
}

impl Companion for Single {
    fn fd(&self) -> BorrowedFd<'_> {
        self.duties.fd()
    }

    fn next_us(&self) -> u64 {
        self.duties.next_us().min(self.upgrade.next_us()).min(self.old_workers.next_us())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.duties.turn()?;
        self.follow();
        let (now_us, drain_us) = (clock::monotonic_us(), self.drain_us());
        self.upgrade.expire(now_us);
        self.old_workers.expire(drain_us, now_us, &mut self.journal);
        Ok(())
    }

    fn hang_up(&mut self) {
        self.duties.hang_up();
        self.follow();
    }

    fn upgrade(&mut self) {
        if self.stopping {
            return self.upgrade.refuse(&mut self.journal, "it is about to end");
        }
        self.upgrade.ask_for();
        self.begin_upgrade(clock::monotonic_us());
    }

    fn serving(&mut self) {
        let now_us = clock::monotonic_us();
        self.inherited = Inherited::default();
        self.duties.serving();
        if self.generation > 0 {
            self.old_workers.give_place_to(self.generation, self.drain_us(), &mut self.journal, now_us);
        }
        self.begin_upgrade(now_us);
    }

    fn child_ended(&mut self) {
        while let Some((pid, ended)) = fork::reap() {
            if !self.upgrade.on_child_exit(pid, ended, &mut self.journal) {
                self.old_workers.on_child_exit(pid, ended, Some(self.memory.region), &mut self.journal);
            }
        }
        self.begin_upgrade(clock::monotonic_us());
    }

    fn stopping(&mut self) {
        self.stopping = true;
        self.duties.stopping();
        self.upgrade.abandon();
        self.old_workers.stop(self.duties.config().drain_delay_us, clock::monotonic_us());
    }

    fn stop_at_once(&mut self) {
        self.journal.line(Level::Warn, "process", format_args!("told to stop at once"));
        self.old_workers.stop_at_once(clock::monotonic_us());
    }

    fn is_done(&self) -> bool {
        self.old_workers.is_empty()
    }

    fn wants_handover(&self) -> bool {
        self.upgrade.is_approved() && !self.stopping
    }

    fn hand_over(&mut self, sockets: &[BorrowedFd<'_>]) -> Option<Signals> {
        let form = self.upgrade.take_approved()?;
        let parent = fork::current();
        let (waits, tells) = match UnixStream::pair() {
            Ok(pair) => pair,
            Err(error) => {
                self.upgrade.refuse(&mut self.journal, &format!("this process cannot be copied: {error}"));
                return None;
            }
        };
        match fork::fork() {
            Ok(Fork::Child) => {
                drop(tells);
                let signals = become_copy(parent, waits);
                self.is_copy = true;
                Some(signals)
            }
            Ok(Fork::Parent(copy)) => {
                drop(waits);
                let generation = self.generation;
                let record = Some(self.record);
                let old_worker = OldWorker { pid: copy.number(), record, memory: None, generation, until_us: None };
                self.old_workers.add(old_worker);
                let left = self.left();
                // The exec closes this process's end of the pair, and nothing else does.
                self.duties.upgrading();
                self.upgrade.exec(form, &left, sockets, &mut self.journal);
                self.duties.serving();
                self.old_workers.take_back();
                fork::kill(copy);
                drop(tells);
                None
            }
            Err(error) => {
                self.upgrade.refuse(&mut self.journal, &format!("this process cannot be copied: {error}"));
                None
            }
        }
    }
}

/// Waits, as a fresh copy of `parent`, until that has become another program. A copy that is not
/// wanted is killed by it meanwhile.
fn become_copy(parent: Pid, mut waits: UnixStream) -> Signals {
    let _ = waits.read(&mut [0]);
    match begin_child(parent, "lb before").and_then(|()| Signals::install_in_worker()) {
        Ok(signals) => signals,
        // Nothing is served without signals; the clients find their connections closed.
        Err(_) => fork::exit_now(FAILED),
    }
}

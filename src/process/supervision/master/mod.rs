//! The master of mp: it serves no clients, waits for signals and deaths, and keeps every worker's listener
//! open, so that a replacement finds its queue unchanged.
//!
//! ```text
//! a worker's place:  Due ──fork──▶ Running ──death──▶ Due ...   Gone once stopping
//! the master:        Serving ──TERM, QUIT, INT, or giving up──▶ Stopping ──all Gone──▶ exit
//! ```
//!
//! After an upgrade there are old workers of the previous program. They serve until every worker of this
//! program accepts, and then drain. If this program's workers fail to start, the master abandons the upgrade
//! and becomes the rollback supervisor.
//!
//! Stopping begins with a drain signal to every worker. During a drain delay, dead workers are replaced and
//! their listeners kept until the delay has passed. After a second signal to the master, it signals the workers
//! again, and they cut the remaining requests. After the drain time and a grace time it sends SIGKILL. The exit
//! status is 0 only if every worker reported a complete drain.

mod stopping;
mod workers;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use self::stopping::Stopping;
use self::workers::{Place, State};
use crate::limits::{LOST_LOOK_US, READY_LOOK_US};
use crate::log::Level;
use crate::process::duties::Duties;
use crate::process::journal::{Journal, Line};
use crate::process::start::listen::Listener;
use crate::process::start::memory::Memory;
use crate::process::start::{Parts, Shares};
use crate::process::supervision::respawn::Respawn;
use crate::process::supervision::watchdog::Watchdog;
use crate::process::upgrade::Upgrade;
use crate::process::upgrade::handover::{Handover, OldWorker};
use crate::process::upgrade::inherited::Inherited;
use crate::process::upgrade::old_workers::OldWorkers;
use crate::sys::fork::{self, Pid};
use crate::sys::signal::{Signal, Signals};
use crate::sys::{self, clock};
use crate::tls;

/// The master's whole state.
pub(in crate::process) struct Master {
    memory: Memory,
    duties: Duties,
    /// Without those for traffic once it stops.
    listeners: Vec<Listener>,
    tls: Option<tls::client::Config>,
    pid: Pid,
    shares: Shares,
    signals: Signals,
    journal: Journal,
    places: Vec<Place>,
    /// Upgrades so far.
    generation: u64,
    old_workers: OldWorkers,
    /// Workers of this program are not all known to accept yet.
    beginning: bool,
    /// The inheritance of the program before, until then.
    inherited: Inherited,
    /// True if the new workers failed to start, so that the old ones continue.
    gives_way: bool,
    upgrade: Upgrade,
    watchdog: Watchdog,
    stopping: Option<Stopping>,
}

/// The reason why the master's loop ends.
enum Exit {
    /// Nothing is left to do: the exit status.
    Status(u8),
    /// This is a new process: the worker of that place.
    Worker(usize),
    /// The old workers continue.
    RollBack,
}

impl Master {
    /// A master of one worker for each worker record; it forks none yet.
    pub(in crate::process) fn new(parts: Parts, inherited: Inherited) -> Master {
        let Parts { memory, records, duties, old_workers, listeners, tls, shares, signals, journal } = parts;
        let now = Instant::now();
        let place = |record| Place { record, state: State::Due(now, None), respawn: Respawn::default() };
        let upgrade = Upgrade::new(Some(memory.region.globals()), inherited.is_wanted_again());
        Master {
            memory,
            duties,
            listeners,
            tls,
            pid: fork::current(),
            shares,
            signals,
            journal,
            places: records.into_iter().map(place).collect(),
            generation: inherited.generation(),
            old_workers,
            beginning: true,
            inherited,
            gives_way: false,
            upgrade,
            watchdog: Watchdog::default(),
            stopping: None,
        }
    }

    /// Runs until every worker has gone for good, and returns the exit status. The greeting is logged once the
    /// workers run. It does not return in a worker.
    pub(in crate::process) fn run(mut self, greeting: &[Line]) -> u8 {
        match self.supervise(greeting) {
            Exit::Status(status) => status,
            Exit::Worker(index) => fork::exit_now(self.become_worker(index) as u8),
            Exit::RollBack => self.roll_back(),
        }
    }

    fn supervise(&mut self, mut greeting: &[Line]) -> Exit {
        loop {
            let now = Instant::now();
            if let Some(index) = self.spawn_due(now) {
                return Exit::Worker(index);
            }
            self.journal.greet(std::mem::take(&mut greeting));
            self.drain_delayed(now);
            self.kill_late(now);
            if let Some(status) = self.finished() {
                return Exit::Status(status);
            }
            if let Err(error) = self.signals.wait(Some(self.duties.fd()), self.timeout(now)) {
                // Without signals supervision is impossible. The running workers at least stop.
                self.say(Level::Err, format_args!("cannot wait for signals: {error}"));
                self.stop(now, Duration::ZERO, false);
                self.kill_all();
            }
            self.attend(false);
            self.watch_over();
            let now = Instant::now();
            while let Some(signal) = self.signals.take() {
                self.on_signal(signal, now);
            }
            while let Some((pid, ended)) = fork::reap() {
                self.on_child_exit(pid, ended, now);
            }
            if self.gives_way {
                return Exit::RollBack;
            }
            self.see_to_upgrade();
            sys::report_lost();
        }
    }

    /// Sees whether this program's workers have taken the old workers' place, and to the next upgrade.
    fn see_to_upgrade(&mut self) {
        let now_us = clock::monotonic_us();
        let (region, drain_us) = (self.memory.region, self.duties.config().timeouts.drain_us);
        if self.beginning && self.places.iter().all(|place| region.record(place.record).is_ready()) {
            self.beginning = false;
            // Before the old workers close their listeners, so that no listener without a worker stays open.
            self.inherited = Inherited::default();
            self.duties.serving();
            if self.generation > 0 {
                self.old_workers.give_place_to(self.generation, drain_us, &mut self.journal, now_us);
            }
        }
        self.upgrade.expire(now_us);
        self.old_workers.expire(drain_us, now_us, &mut self.journal);
        if self.stopping.is_some() {
            return;
        }
        if self.upgrade.is_wanted() && !self.beginning {
            let left = self.left();
            self.upgrade.begin(&left, &mut self.journal, now_us);
        }
        if let Some(form) = self.upgrade.take_approved() {
            let left = self.left();
            let kept: Vec<BorrowedFd<'_>> =
                self.listeners.iter().flat_map(Listener::sockets).map(AsFd::as_fd).collect();
            self.duties.upgrading();
            self.upgrade.exec(form, &left, &kept, &mut self.journal);
            self.duties.serving();
        }
    }

    /// The handover to the program that this process becomes: its workers go on as old workers.
    fn left(&self) -> Handover {
        let workers = self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, _) => {
                let (record, generation) = (Some(place.record), self.generation);
                Some(OldWorker { pid: pid.number(), record, memory: None, generation, until_us: None })
            }
            _ => None,
        });
        Handover {
            pid: std::process::id(),
            generation: self.generation + 1,
            segment: self.memory.segment,
            older: self.old_workers.memory(),
            listeners: self.listeners.iter().map(Listener::raw).collect(),
            old_workers: self.old_workers.iter().copied().chain(workers).collect(),
            demo: self.duties.config().demo_addresses(),
            again: self.upgrade.is_wanted_again(),
        }
    }

    /// Handles the duties, which may include a reload, and notifies the workers of the result.
    fn attend(&mut self, hang_up: bool) {
        if hang_up {
            self.duties.hang_up();
        }
        if let Err(error) = self.duties.turn() {
            self.say(Level::Err, format_args!("cannot wait for events: {error}"));
        }
        if self.duties.take_wants_upgrade() && self.stopping.is_none() {
            self.upgrade.ask_for();
        }
        if self.duties.take_published() {
            self.journal.follow(self.memory.region);
            self.running()
                .chain(self.old_workers.iter().map(|old_worker| Pid::of_child(old_worker.pid)))
                .for_each(fork::look);
        }
    }

    fn say(&mut self, level: Level, text: fmt::Arguments<'_>) {
        self.journal.line(level, "process", text);
    }

    fn on_signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Terminate | Signal::Interrupt if self.stopping.is_some() => {
                self.say(Level::Warn, format_args!("told to stop at once"));
                self.stop_at_once(now);
            }
            Signal::Terminate | Signal::Interrupt => {
                let delay_us = self.duties.config().drain_delay_us;
                self.say_draining(delay_us);
                self.stop(now, Duration::from_micros(delay_us), true);
            }
            // Deaths are looked for after every wait.
            Signal::Child | Signal::Look | Signal::Retire => {}
            Signal::Hangup => self.attend(true),
            Signal::Reopen => self.say(Level::Info, format_args!("USR1: there is no log file to reopen")),
            Signal::Upgrade if self.stopping.is_some() => self.upgrade.refuse(&mut self.journal, "it is about to end"),
            Signal::Upgrade => self.upgrade.ask_for(),
        }
    }

    /// The time until something is due without a signal.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let forks = self.places.iter().filter_map(|place| match place.state {
            State::Due(at, _) => Some(at),
            _ => None,
        });
        let stopping = self.stopping.iter().flat_map(|stopping| stopping.drain_at.into_iter().chain(stopping.kill_at));
        let now_us = clock::monotonic_us();
        let old_workers_us = self.old_workers.next_us();
        let look_us = if self.beginning { now_us + READY_LOOK_US } else { u64::MAX };
        let others_us = self.duties.next_us().min(self.upgrade.next_us()).min(old_workers_us).min(look_us);
        let lost_us = if sys::has_lost() { now_us + LOST_LOOK_US } else { u64::MAX };
        let others_us = others_us.min(self.watchdog.next_us()).min(lost_us);
        let others = match others_us {
            u64::MAX => None,
            at_us => Some(now + Duration::from_micros(at_us.saturating_sub(now_us))),
        };
        forks.chain(stopping).chain(others).min().map(|at| at.saturating_duration_since(now))
    }
}

//! The rollback supervisor: a program that had become this process and could not take over. It serves nothing, and keeps
//! its inheritance as it was. The workers of the program before go on accepting, the listeners stay open, and the next
//! upgrade finds the same state as this one.
//!
//! A worker that ends meanwhile, or stands still and is killed, cannot be replaced. So another upgrade is tried at once:
//! the reason of the failure may have passed. When the last worker has ended, the process ends.

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use crate::config::Plan;
use crate::limits::SIGNALS_RETRY_US;
use crate::log::Level;
use crate::metrics::Global;
use crate::process::child::draining;
use crate::process::exit::{DONE, FAILED};
use crate::process::journal::Journal;
use crate::process::service::notify::Notify;
use crate::process::start::listen::Listener;
use crate::process::supervision::watchdog::Watchdog;
use crate::process::upgrade::Upgrade;
use crate::process::upgrade::handover::{Handover, OldWorker};
use crate::process::upgrade::inherited::{Left, left_memory};
use crate::process::upgrade::old_memory::OldMemory;
use crate::process::upgrade::old_workers::OldWorkers;
use crate::shared::Region;
use crate::sys::clock;
use crate::sys::fork::{self, Ended, Pid};
use crate::sys::signal::{Signal, Signals};

/// The rollback supervisor's state.
pub(in crate::process) struct RollbackSupervisor {
    /// The handover, which the next program gets again.
    left: Handover,
    listeners: Vec<Listener>,
    old_workers: OldWorkers,
    /// `None` if this program has another memory layout.
    region: Option<Region>,
    upgrade: Upgrade,
    notify: Notify,
    watchdog: Watchdog,
    times: Times,
    signals: Signals,
    journal: Journal,
    stopping: bool,
}

impl RollbackSupervisor {
    /// Takes over the inherited state. `news`: workers that this program had started, and that drain. `why` the
    /// program could not take over is logged.
    pub(in crate::process) fn new(
        left: Left,
        news: Vec<OldWorker>,
        signals: Signals,
        mut journal: Journal,
        why: &str,
    ) -> RollbackSupervisor {
        let Left { handover: left, listeners } = left;
        let region = left_memory(&left, 0).map(|memory| memory.region);
        // The plan of before holds.
        if let Some(region) = region {
            journal.follow(region);
        }
        let globals = region.map(Region::globals);
        let upgrade = Upgrade::new(globals, left.again);
        upgrade.refuse(&mut journal, why);
        // The plan may have been taken back.
        left.old_workers.iter().for_each(|old_worker| fork::look(Pid::of_child(old_worker.pid)));
        let accepting = left.old_workers.iter().filter(|old_worker| old_worker.is_accepting()).count();
        let workers = format!("{accepting} worker{} of before", if accepting == 1 { "" } else { "s" });
        journal.line(
            Level::Err,
            "upgrade",
            format_args!("served by {workers} until another upgrade; nothing is reloaded"),
        );
        if let Some(globals) = globals {
            globals.set_global(Global::Upgrades, left.generation.saturating_sub(1));
            globals.set_global(Global::Workers, accepting as u64);
        }
        let mut notify = Notify::from_env();
        notify.ready(format_args!("an upgrade failed: served by {workers}"));
        // Its counts are copied again by the next program that can take over.
        let older = region.map(|region| OldMemory::find(&left.older, region)).unwrap_or_default();
        let old_workers = OldWorkers::new(left.old_workers.iter().copied().chain(news).collect(), older);
        let (watchdog, times) = (Watchdog::default(), Times::of(region));
        let stopping = false;
        RollbackSupervisor {
            left,
            listeners,
            old_workers,
            region,
            upgrade,
            notify,
            watchdog,
            times,
            signals,
            journal,
            stopping,
        }
    }

    /// Runs until no worker is left; returns the exit status.
    pub(in crate::process) fn run(mut self) -> u8 {
        loop {
            let now_us = clock::monotonic_us();
            while let Some(signal) = self.signals.take() {
                self.on_signal(signal, now_us);
            }
            while let Some((pid, ended)) = fork::reap() {
                self.on_child_exit(pid, ended);
            }
            self.upgrade.expire(now_us);
            self.old_workers.expire(self.times.drain_us, now_us, &mut self.journal);
            if let Some(region) = self.region {
                let (watchdog_us, none) = (self.times.watchdog_us, std::iter::empty());
                self.watchdog.watch_over(watchdog_us, region, none, &self.old_workers, &mut self.journal);
            }
            self.see_to_upgrade(now_us);
            self.notify.beat(now_us);
            if self.old_workers.is_empty() {
                return self.status();
            }
            let next_us = self.notify.next_us().min(self.upgrade.next_us()).min(self.old_workers.next_us());
            let next_us = next_us.min(self.watchdog.next_us());
            let timeout = (next_us != u64::MAX).then(|| Duration::from_micros(next_us.saturating_sub(now_us)));
            if let Err(error) = self.signals.wait(None, timeout) {
                self.say(Level::Err, format_args!("cannot wait for signals: {error}"));
                thread::sleep(Duration::from_micros(SIGNALS_RETRY_US));
            }
        }
    }

    fn say(&mut self, level: Level, text: std::fmt::Arguments<'_>) {
        self.journal.line(level, "process", text);
    }

    fn on_signal(&mut self, signal: Signal, now_us: u64) {
        match signal {
            Signal::Terminate | Signal::Interrupt if self.stopping => {
                self.say(Level::Warn, format_args!("told to stop at once"));
                self.old_workers.stop_at_once(now_us);
            }
            Signal::Terminate | Signal::Interrupt => {
                match self.region {
                    Some(region) => {
                        let Times { drain_us, drain_idle_us, drain_delay_us, .. } = self.times;
                        let text = draining(region, drain_delay_us, drain_us, drain_idle_us);
                        self.say(Level::Info, format_args!("{text}"));
                    }
                    None => self.say(Level::Info, format_args!("draining")),
                }
                self.stopping = true;
                self.notify.stopping();
                self.upgrade.abandon();
                // The workers have their own descriptors of them.
                self.listeners.clear();
                self.old_workers.stop(self.times.drain_delay_us, now_us);
            }
            Signal::Hangup => self.say(Level::Warn, format_args!("HUP: nothing is read again before another upgrade")),
            Signal::Upgrade if self.stopping => self.upgrade.refuse(&mut self.journal, "the process is about to end"),
            Signal::Upgrade => self.upgrade.ask_for(),
            // Deaths are looked for in every turn.
            Signal::Child | Signal::Look | Signal::Retire | Signal::Reopen => {}
        }
    }

    fn on_child_exit(&mut self, dead: Pid, ended: Ended) {
        let accepted =
            self.old_workers.iter().any(|old_worker| old_worker.pid == dead.number() && old_worker.is_accepting());
        if self.upgrade.on_child_exit(dead, ended, &mut self.journal) {
            return;
        }
        self.old_workers.on_child_exit(dead, ended, self.region, &mut self.journal);
        if accepted && !self.stopping && !self.old_workers.is_empty() {
            self.say(Level::Err, format_args!("one that served has ended: trying to upgrade again"));
            self.upgrade.ask_for();
        }
    }

    fn see_to_upgrade(&mut self, now_us: u64) {
        if self.stopping {
            return;
        }
        let mut left = self.left.clone();
        left.old_workers = self.old_workers.iter().copied().collect();
        left.again = false;
        if self.upgrade.is_wanted() {
            self.upgrade.begin(&left, &mut self.journal, now_us);
        }
        if let Some(form) = self.upgrade.take_approved() {
            left.again = self.upgrade.is_wanted_again();
            let kept: Vec<BorrowedFd<'_>> =
                self.listeners.iter().flat_map(Listener::sockets).map(AsFd::as_fd).collect();
            self.notify.reloading();
            self.upgrade.exec(form, &left, &kept, &mut self.journal);
            self.notify.ready(format_args!("an upgrade failed: served by workers of before"));
        }
    }

    /// The exit status, once no worker is left.
    fn status(&mut self) -> u8 {
        if !self.stopping {
            self.say(Level::Err, format_args!("no worker is left"));
            return FAILED;
        }
        let clean = self.old_workers.is_clean();
        self.say(Level::Info, format_args!("{}", if clean { "drained" } else { "stopped" }));
        if clean { DONE } else { FAILED }
    }
}

/// The times of the plan for the end of workers, in microseconds.
pub(in crate::process) struct Times {
    /// The time that they have to drain.
    pub(in crate::process) drain_us: u64,
    /// The time that clients may be idle meanwhile.
    drain_idle_us: u64,
    /// The delay before they drain.
    drain_delay_us: u64,
    /// The watchdog time; 0 for no limit.
    watchdog_us: u64,
}

impl Times {
    /// The times of the current plan in the region. If it is unknown, nothing is ended or delayed.
    pub(in crate::process) fn of(region: Option<Region>) -> Times {
        let plan = region.and_then(|region| region.table().read().1).and_then(|bytes| Plan::decode(&bytes));
        let unknown = Times { drain_us: u64::MAX, drain_idle_us: u64::MAX, drain_delay_us: 0, watchdog_us: 0 };
        plan.map_or(unknown, |Plan { timeouts, drain_delay_us, watchdog_us, .. }| Times {
            drain_us: timeouts.drain_us,
            drain_idle_us: timeouts.drain_idle_us,
            drain_delay_us,
            watchdog_us,
        })
    }
}

/// This process's signals, however long it takes: without them nothing could be taken care of.
pub(in crate::process) fn signals(journal: &mut Journal) -> Signals {
    let mut told = false;
    loop {
        match Signals::install() {
            Ok(signals) => return signals,
            Err(error) if !told => {
                journal.line(Level::Err, "process", format_args!("cannot handle signals yet: {error}"));
                told = true;
            }
            Err(_) => thread::sleep(Duration::from_micros(SIGNALS_RETRY_US)),
        }
    }
}

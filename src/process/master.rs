//! The master of mp: it serves nothing, waits for signals and deaths, and keeps every worker's
//! listener open so that a replacement finds its queue as it was.
//!
//! ```text
//! a worker's place:  Due ──fork──▶ Running ──death──▶ Due ...   Gone once stopping
//! the master:        Serving ──TERM, QUIT, INT, or giving up──▶ Stopping ──all Gone──▶ exit
//! ```
//!
//! After an upgrade there are elders, the workers of before. They serve on until every worker of this
//! program accepts, and drain then. Should this program's workers not come to live, the master gives the
//! upgrade up, and becomes the caretaker of what it was left.
//!
//! Stopping begins with an order to drain to every worker; where that is delayed, dead ones are replaced
//! and their listeners kept until the delay has passed. After a second signal they are told again, which has
//! them cut what is left. The drain time and a grace passing turn that into SIGKILL. The exit status is 0 only
//! if every worker then said that it had drained.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::caretaker::{Caretaker, Times};
use super::duties::Duties;
use super::elders::{self, Elders};
use super::handover::{Elder, Handover, raw};
use super::inherited::{Inherited, Memory};
use super::respawn::{Death, Respawn, Verdict};
use super::upgrade::Upgrade;
use super::watchdog::Watchdog;
use super::{DONE, Ended, FAILED, Journal, Line, Parts, Shares, begin_child, serve};
use crate::limits::{DRAIN_GRACE_US, READY_LOOK_US, RESPAWN_DEATHS, RESPAWN_DELAY_US};
use crate::log::{Level, Log};
use crate::metrics::Global;
use crate::sys::clock;
use crate::sys::fork::{self, Fork, Pid};
use crate::sys::signal::{Signal, Signals};
use crate::tls;
use crate::worker::Setup;

/// The master's whole state.
pub(super) struct Master {
    memory: Memory,
    duties: Duties,
    address: SocketAddr,
    activated: bool,
    admin: Option<(OwnedFd, SocketAddr)>,
    tls: Option<tls::config::Config>,
    pid: Pid,
    shares: Shares,
    signals: Signals,
    journal: Journal,
    places: Vec<Place>,
    /// Upgrades so far.
    generation: u64,
    elders: Elders,
    /// Workers of this program are not all known to accept yet.
    beginning: bool,
    /// What was left by the program before, until then.
    inherited: Inherited,
    /// They do not come to live, and the elders are to go on in their place.
    gives_way: bool,
    upgrade: Upgrade,
    watchdog: Watchdog,
    stopping: Option<Stopping>,
}

/// Where a worker is, was or will be.
struct Place {
    /// None once stopping.
    listeners: Vec<OwnedFd>,
    seat: usize,
    state: State,
    respawn: Respawn,
}

enum State {
    /// To be forked then; and what a replacement's line in the log begins with.
    Due(Instant, Option<String>),
    /// Forked then.
    Running(Pid, Instant),
    /// Ended, and not to be replaced.
    Gone,
}

struct Stopping {
    /// When draining begins, where that is delayed and has not begun. All goes on as before until then.
    drain_at: Option<Instant>,
    /// When what still runs is killed; `None` before draining begins, and once it was.
    kill_at: Option<Instant>,
    /// Whether nothing has failed or was cut.
    clean: bool,
}

/// Why the master's loop was left.
enum Exit {
    /// Nothing is left to do: the exit status.
    Status(u8),
    /// This is a new process: the worker of that place.
    Worker(usize),
    /// The elders are to go on.
    GivesWay,
}

impl Master {
    /// A master of one worker for each seat; it forks none yet.
    pub(super) fn new(parts: Parts, inherited: Inherited) -> Master {
        let Parts { memory, seats, duties, elders, listeners, tls, shares, signals, journal } = parts;
        let now = Instant::now();
        let places = listeners.of_workers.into_iter().zip(seats).map(|(listeners, seat)| Place {
            listeners,
            seat,
            state: State::Due(now, None),
            respawn: Respawn::default(),
        });
        let upgrade = Upgrade::new(Some(memory.region.globals()), inherited.is_wanted_again());
        Master {
            memory,
            duties,
            address: listeners.address,
            activated: listeners.activated,
            admin: listeners.admin,
            tls,
            pid: fork::current(),
            shares,
            signals,
            journal,
            places: places.collect(),
            generation: inherited.generation(),
            elders: Elders::new(elders),
            beginning: true,
            inherited,
            gives_way: false,
            upgrade,
            watchdog: Watchdog::default(),
            stopping: None,
        }
    }

    /// Runs until every worker has gone for good; returns the exit status. The greeting is said
    /// once the workers are there. In a worker it does not return.
    pub(super) fn run(mut self, greeting: &[Line]) -> u8 {
        match self.supervise(greeting) {
            Exit::Status(status) => status,
            Exit::Worker(index) => fork::exit_now(self.become_worker(index) as u8),
            Exit::GivesWay => self.give_way(),
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
                // Without signals nothing can be supervised; what runs is at least not left alone.
                self.say(Level::Err, format_args!("cannot wait for signals: {error}"));
                self.stop(now, Duration::ZERO, false);
                self.kill_all();
            }
            self.attend(false);
            self.watch_over();
            let now = Instant::now();
            while let Some(signal) = self.signals.take() {
                self.heed(signal, now);
            }
            while let Some((pid, ended)) = fork::reap() {
                self.bury(pid, ended, now);
            }
            if self.gives_way {
                return Exit::GivesWay;
            }
            self.see_to_upgrade();
        }
    }

    /// Sees whether this program's workers have taken the elders' place, and to the next upgrade.
    fn see_to_upgrade(&mut self) {
        let now_us = clock::monotonic_us();
        let (region, drain_us) = (self.memory.region, self.duties.config().timeouts.drain_us);
        if self.beginning && self.places.iter().all(|place| region.seat(place.seat).is_ready()) {
            self.beginning = false;
            // Before the elders close theirs, so that none is left open that nobody accepts from.
            self.inherited = Inherited::default();
            self.duties.serving();
            if self.generation > 0 {
                self.elders.give_place_to(self.generation, drain_us, &mut self.journal, now_us);
            }
        }
        self.upgrade.expire(now_us);
        self.elders.expire(drain_us, now_us, &mut self.journal);
        if self.stopping.is_some() {
            return;
        }
        if self.upgrade.is_wanted() && !self.beginning {
            let left = self.left();
            self.upgrade.begin(&left, &mut self.journal, now_us);
        }
        if self.upgrade.take_approved() {
            let left = self.left();
            let listeners = self.places.iter().flat_map(|place| &place.listeners);
            let admin = self.admin.iter().map(|(listener, _)| listener);
            let kept: Vec<BorrowedFd<'_>> = listeners.chain(admin).map(AsFd::as_fd).collect();
            self.duties.upgrading();
            self.upgrade.become_it(&left, &kept, &mut self.journal);
            self.duties.serving();
        }
    }

    /// What is left to the program that this process becomes: its workers go on as elders.
    fn left(&self) -> Handover {
        let workers = self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, _) => {
                let (seat, generation) = (Some(place.seat), self.generation);
                Some(Elder { pid: pid.number(), seat, generation, until_us: None })
            }
            _ => None,
        });
        Handover {
            pid: std::process::id(),
            generation: self.generation + 1,
            segment: self.memory.segment,
            address: self.address,
            listeners: self.places.iter().map(|place| raw(&place.listeners)).collect(),
            activated: self.activated,
            admin: self.admin.as_ref().map(|(listener, address)| (listener.as_raw_fd(), *address)),
            elders: self.elders.iter().copied().chain(workers).collect(),
            demo: self.duties.config().demo_addresses(),
            again: self.upgrade.is_wanted_again(),
        }
    }

    /// Kills workers whose loop stands still. They are replaced as others that die.
    fn watch_over(&mut self) {
        let (watchdog_us, region) = (self.duties.config().watchdog_us, self.memory.region);
        let workers = self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, since) => Some((pid, place.seat, since.elapsed())),
            _ => None,
        });
        self.watchdog.watch_over(watchdog_us, region, workers, &self.elders, &mut self.journal);
    }

    /// This process is the worker of a place: all that is the master's is dropped, with every
    /// listener but its own.
    fn become_worker(self, index: usize) -> Ended {
        let Master {
            memory,
            duties,
            activated,
            admin,
            tls,
            pid,
            shares,
            signals,
            mut journal,
            places,
            upgrade,
            inherited,
            stopping,
            ..
        } = self;
        let place = places.into_iter().nth(index);
        let config = duties.config().clone();
        // With them goes the file's watch, which the master alone is to hear from.
        drop((signals, duties, upgrade, inherited));
        let begun = begin_child(pid, &format!("lb worker {index}")).and_then(|()| Signals::install_in_worker());
        match (begun, place) {
            (Ok(signals), Some(place)) => {
                let setup = Setup {
                    config: &config,
                    region: memory.region,
                    listeners: place.listeners,
                    admin: admin.map(|(listener, _)| listener),
                    activated,
                    companion: None,
                    stopping: stopping.is_some(),
                    index: index as u32,
                    seat: place.seat,
                    max_connections: shares.of(index as u32),
                    max_idle: shares.idle(),
                    tls,
                    signals,
                    log: Log::new(config.loglevel),
                };
                serve(setup, journal)
            }
            (Err(error), _) => {
                journal.line(Level::Err, "process", format_args!("worker {index} cannot start: {error}"));
                Ended::Failed
            }
            // It is forked for a place that there is.
            (Ok(_), None) => Ended::Failed,
        }
    }

    /// Sees to the duties, which may be to read the configuration again, and tells the workers of
    /// what comes of it.
    fn attend(&mut self, hang_up: bool) {
        if hang_up {
            self.duties.hang_up();
        }
        if let Err(error) = self.duties.turn() {
            self.say(Level::Err, format_args!("cannot wait for events: {error}"));
        }
        if self.duties.take_published() {
            self.journal.follow(self.memory.region);
            self.running().chain(self.elders.iter().map(|elder| Pid::of_child(elder.pid))).for_each(fork::look);
        }
    }

    /// The workers of this program.
    fn running(&self) -> impl Iterator<Item = Pid> {
        self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, _) => Some(pid),
            _ => None,
        })
    }

    fn say(&mut self, level: Level, text: fmt::Arguments<'_>) {
        self.journal.line(level, "process", text);
    }

    fn heed(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Terminate | Signal::Interrupt if self.stopping.is_some() => {
                self.say(Level::Warn, format_args!("told to stop at once"));
                self.stop_at_once(now);
            }
            Signal::Terminate | Signal::Interrupt => {
                let drain = Duration::from_micros(self.duties.config().timeouts.drain_us);
                let delay = Duration::from_micros(self.duties.config().drain_delay_us);
                match delay {
                    Duration::ZERO => self.say(Level::Info, format_args!("draining, for at most {drain:?}")),
                    _ => self.say(Level::Info, format_args!("draining begins in {delay:?}, for at most {drain:?}")),
                }
                self.stop(now, delay, true);
            }
            // Deaths are looked for after every wait.
            Signal::Child | Signal::Look | Signal::Retire => {}
            Signal::Hangup => self.attend(true),
            Signal::Reopen => self.say(Level::Info, format_args!("USR1: there is no log file to reopen")),
            Signal::Upgrade if self.stopping.is_some() => self.upgrade.refuse(&mut self.journal, "it is about to end"),
            Signal::Upgrade => self.upgrade.ask_for(),
        }
    }

    /// Forks every worker that is due. In such a child: the place that it is for.
    fn spawn_due(&mut self, now: Instant) -> Option<usize> {
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            let State::Due(at, story) = &mut place.state else { continue };
            if *at > now {
                continue;
            }
            let story = story.take();
            match fork::fork() {
                Ok(Fork::Child) => return Some(index),
                Ok(Fork::Parent(pid)) => {
                    place.state = State::Running(pid, now);
                    if let Some(story) = story {
                        self.memory.region.globals().add_global(Global::Respawns, 1);
                        self.say(Level::Warn, format_args!("{story}, respawned as pid {pid}"));
                    }
                }
                Err(error) => {
                    let delay = place.respawn.not_forked();
                    let story = story.unwrap_or_else(|| format!("worker {index} could not be forked at first"));
                    place.state = State::Due(now + delay, Some(story));
                    self.say(Level::Err, format_args!("worker {index} cannot be forked: {error}; again in {delay:?}"));
                }
            }
        }
        None
    }

    /// Heeds the end of a child. One that is no worker is a demo backend, or an orphan that came
    /// to this process because it is process 1.
    fn bury(&mut self, dead: Pid, ended: fork::Ended, now: Instant) {
        let found = self.places.iter().enumerate().find_map(|(index, place)| match place.state {
            State::Running(pid, since) if pid == dead => Some((index, since)),
            _ => None,
        });
        let Some((index, since)) = found else {
            if self.upgrade.heed(dead, ended, &mut self.journal)
                || self.elders.bury(dead, ended, Some(self.memory.region), &mut self.journal)
            {
                return;
            }
            return self.say(Level::Debug, format_args!("process {dead} has ended: {ended}"));
        };
        let seat = self.places[index].seat;
        let accepted = self.memory.region.seat(seat).is_ready();
        let death = if accepted { Death::Serving(now.saturating_duration_since(since)) } else { Death::Early };
        self.memory.region.settle(seat);
        let story = format!("worker {index} (pid {dead}) died: {ended}");
        let stopping = match &mut self.stopping {
            Some(stopping) if stopping.drain_at.is_none() => stopping,
            _ => return self.fell(index, death, story, now),
        };
        self.places[index].state = State::Gone;
        match ended {
            fork::Ended::Status(status) if status == Ended::Drained as i32 => {}
            // The worker itself has told how many.
            fork::Ended::Status(status) if status == Ended::Cut as i32 => stopping.clean = false,
            _ => {
                stopping.clean = false;
                self.say(Level::Warn, format_args!("{story}"));
            }
        }
    }

    /// Decides when a worker that died is replaced.
    fn fell(&mut self, index: usize, death: Death, story: String, now: Instant) {
        match self.places[index].respawn.died(death) {
            Verdict::Respawn(delay) if delay < Duration::from_micros(RESPAWN_DELAY_US) => {
                self.places[index].state = State::Due(now + delay, Some(story));
            }
            Verdict::Respawn(delay) => {
                self.say(Level::Warn, format_args!("{story}, to be respawned in {delay:?}"));
                let story = format!("worker {index} was away for {delay:?}");
                self.places[index].state = State::Due(now + delay, Some(story));
            }
            Verdict::GiveUp if self.beginning && !self.elders.is_empty() => {
                self.places[index].state = State::Gone;
                self.say(Level::Err, format_args!("{story}"));
                self.gives_way = true;
            }
            Verdict::GiveUp => {
                self.places[index].state = State::Gone;
                self.say(Level::Err, format_args!("{story}"));
                let story = format_args!("worker {index} died {RESPAWN_DEATHS} times in a row before it accepted");
                self.say(Level::Err, format_args!("{story}: giving up and stopping everything"));
                self.stop(now, Duration::ZERO, false);
            }
        }
    }

    /// The workers of this program die as they start: it leaves the serving to those of the one before,
    /// until another upgrade brings a better one. Those that did come to live drain.
    fn give_way(self) -> u8 {
        let Some(mut left) = self.inherited.into_left() else { return FAILED };
        let seated = self.memory.segment == left.handover.segment;
        let running = self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, _) => {
                let seat = seated.then_some(place.seat);
                Some(Elder { pid: pid.number(), seat, generation: self.generation, until_us: None })
            }
            _ => None,
        });
        let mut news: Vec<Elder> = running.collect();
        let has_ended = |elder: &Elder| self.elders.iter().all(|living| living.pid != elder.pid);
        // Where one that accepted has, nobody does from its listener.
        left.handover.again |= left.handover.elders.iter().any(|elder| elder.is_accepting() && has_ended(elder));
        left.handover.elders.retain(|elder| !has_ended(elder));
        left.handover.again |= self.upgrade.is_wanted_again();
        self.duties.take_back();
        // They follow the plan that was taken back before they heed this.
        let drain_us = Times::of(Some(self.memory.region)).drain_us;
        news.iter_mut().for_each(|worker| elders::retire(worker, drain_us, clock::monotonic_us()));
        // Listeners that are this program's alone are closed by the last that has them.
        drop((self.places, self.admin, self.duties));
        Caretaker::new(left, news, self.signals, self.journal, "the new workers do not come to live").run()
    }

    /// Has every worker drain after `delay`, and starts none any more then.
    fn stop(&mut self, now: Instant, delay: Duration, clean: bool) {
        if let Some(stopping) = &mut self.stopping {
            stopping.clean &= clean;
            return;
        }
        self.stopping = Some(Stopping { drain_at: now.checked_add(delay), kill_at: None, clean });
        self.beginning = false;
        self.inherited = Inherited::default();
        self.duties.stopping();
        self.upgrade.abandon();
        if delay.is_zero() {
            // Before anybody is told: who came to a listener that its worker has left, and this process
            // still held, would be reset.
            self.places.iter_mut().for_each(|place| place.listeners.clear());
        }
        self.elders.stop(delay.as_micros() as u64, clock::monotonic_us());
        self.running().for_each(fork::drain);
        // At once, where there is no delay; the order has come first then.
        self.drain_delayed(now);
    }

    /// Has every worker cut what it serves, and end: the second order to drain says that.
    fn stop_at_once(&mut self, now: Instant) {
        self.close();
        let kill_at = now.checked_add(Duration::from_micros(DRAIN_GRACE_US));
        self.stopping.iter_mut().for_each(|stopping| stopping.kill_at = kill_at);
        self.running().for_each(fork::drain);
        self.elders.stop_at_once(clock::monotonic_us());
    }

    /// The port is closed for new clients once the workers' own descriptors are, too. None is replaced any
    /// more.
    fn close(&mut self) {
        self.stopping.iter_mut().for_each(|stopping| stopping.drain_at = None);
        for place in &mut self.places {
            place.listeners.clear();
            if let State::Due(..) = place.state {
                place.state = State::Gone;
            }
        }
    }

    /// Has draining begin once its delay has passed.
    fn drain_delayed(&mut self, now: Instant) {
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.drain_at.is_some_and(|at| at <= now) {
            // As the workers', it is by the drain time that holds now. One past the end of the clock is never.
            let patience_us = self.duties.config().timeouts.drain_us.saturating_add(DRAIN_GRACE_US);
            stopping.kill_at = now.checked_add(Duration::from_micros(patience_us));
            self.close();
            self.running().for_each(fork::retire);
        }
    }

    /// Kills what runs past its time.
    fn kill_late(&mut self, now: Instant) {
        let late = self.stopping.as_ref().and_then(|stopping| stopping.kill_at).is_some_and(|at| at <= now);
        if late {
            self.say(Level::Warn, format_args!("workers still run past their time: killing them"));
            self.kill_all();
        }
    }

    /// Ends a stop that is under way.
    fn kill_all(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            (stopping.kill_at, stopping.clean) = (None, false);
        }
        self.close();
        self.running().for_each(fork::kill);
        self.elders.kill_all();
    }

    /// The exit status, once stopping and rid of every worker.
    fn finished(&mut self) -> Option<u8> {
        let clean = self.stopping.as_ref()?.clean;
        if !self.places.iter().all(|place| matches!(place.state, State::Gone)) || !self.elders.is_empty() {
            return None;
        }
        let clean = clean && self.elders.is_clean();
        self.say(Level::Info, format_args!("{}", if clean { "drained" } else { "stopped" }));
        Some(if clean { DONE } else { FAILED })
    }

    /// How long nothing is due, if signals do not come.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let forks = self.places.iter().filter_map(|place| match place.state {
            State::Due(at, _) => Some(at),
            _ => None,
        });
        let stopping = self.stopping.iter().flat_map(|stopping| stopping.drain_at.into_iter().chain(stopping.kill_at));
        let now_us = clock::monotonic_us();
        let elders_us = self.elders.next_us();
        let look_us = if self.beginning { now_us + READY_LOOK_US } else { u64::MAX };
        let others_us = self.duties.next_us().min(self.upgrade.next_us()).min(elders_us).min(look_us);
        let others_us = others_us.min(self.watchdog.next_us());
        let others = match others_us {
            u64::MAX => None,
            at_us => Some(now + Duration::from_micros(at_us.saturating_sub(now_us))),
        };
        forks.chain(stopping).chain(others).min().map(|at| at.saturating_duration_since(now))
    }
}

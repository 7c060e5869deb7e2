//! The master of mp: it serves nothing, waits for signals and deaths, and keeps every worker's
//! listener open so that a replacement finds its queue as it was.
//!
//! ```text
//! a worker's place:  Due ──fork──▶ Running ──death──▶ Due ...   Gone once stopping
//! the master:        Serving ──TERM, QUIT, INT, or giving up──▶ Stopping ──all Gone──▶ exit
//! ```
//!
//! Stopping begins with an order to drain to every worker. A second signal, or the drain time and a grace
//! passing, turns that into SIGKILL. The exit status is 0 only if every worker then said that it
//! had drained.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::duties::Duties;
use super::respawn::{Respawn, Verdict};
use super::{DONE, Ended, FAILED, Journal, Line, Listeners, Shares, begin_child, serve};
use crate::limits::{DRAIN_GRACE_US, RESPAWN_DEATHS};
use crate::log::{Level, Log};
use crate::metrics::Global;
use crate::shared::Region;
use crate::sys::clock;
use crate::sys::fork::{self, Fork, Pid};
use crate::sys::signal::{Signal, Signals};
use crate::tls;
use crate::worker::{Companion, Setup};

/// The master's whole state.
pub(super) struct Master {
    region: Region,
    duties: Duties,
    admin: Option<OwnedFd>,
    tls: Option<tls::config::Config>,
    pid: Pid,
    shares: Shares,
    signals: Signals,
    journal: Journal,
    places: Vec<Place>,
    stopping: Option<Stopping>,
}

/// Where a worker is, was or will be.
struct Place {
    /// `None` once stopping.
    listener: Option<OwnedFd>,
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
    /// When what still runs is killed; `None` once it was.
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
}

impl Master {
    /// A master of one worker for each listener; it forks none yet.
    pub(super) fn new(
        region: Region,
        duties: Duties,
        listeners: Listeners,
        tls: Option<tls::config::Config>,
        shares: Shares,
        signals: Signals,
        journal: Journal,
    ) -> Master {
        let now = Instant::now();
        let place =
            |listener| Place { listener: Some(listener), state: State::Due(now, None), respawn: Respawn::default() };
        let places = listeners.of_workers.into_iter().map(place).collect();
        Master {
            region,
            duties,
            admin: listeners.admin,
            tls,
            pid: fork::current(),
            shares,
            signals,
            journal,
            places,
            stopping: None,
        }
    }

    /// Runs until every worker has gone for good; returns the exit status. The greeting is said
    /// once the workers are there. In a worker it does not return.
    pub(super) fn run(mut self, greeting: &[Line]) -> u8 {
        match self.supervise(greeting) {
            Exit::Status(status) => status,
            Exit::Worker(index) => fork::exit_now(self.become_worker(index) as u8),
        }
    }

    fn supervise(&mut self, mut greeting: &[Line]) -> Exit {
        loop {
            let now = Instant::now();
            if let Some(index) = self.spawn_due(now) {
                return Exit::Worker(index);
            }
            self.journal.greet(std::mem::take(&mut greeting));
            self.kill_late(now);
            if let Some(status) = self.finished() {
                return Exit::Status(status);
            }
            if let Err(error) = self.signals.wait(Some(self.duties.fd()), self.timeout(now)) {
                // Without signals nothing can be supervised; what runs is at least not left alone.
                self.say(Level::Err, format_args!("cannot wait for signals: {error}"));
                self.stop(now, false);
                self.kill_all();
            }
            self.attend(false);
            let now = Instant::now();
            while let Some(signal) = self.signals.take() {
                self.heed(signal, now);
            }
            while let Some((pid, ended)) = fork::reap() {
                self.bury(pid, ended, now);
            }
        }
    }

    /// This process is the worker of a place: all that is the master's is dropped, with every
    /// listener but its own.
    fn become_worker(self, index: usize) -> Ended {
        let Master { region, duties, admin, tls, pid, shares, signals, mut journal, places, .. } = self;
        let workers = places.len();
        let listener = places.into_iter().nth(index).and_then(|place| place.listener);
        let config = duties.config().clone();
        // With them goes the file's watch, which the master alone is to hear from.
        drop((signals, duties));
        let begun = begin_child(pid, &format!("lb worker {index}")).and_then(|()| Signals::install_in_worker());
        match (begun, listener) {
            (Ok(signals), Some(listener)) => {
                let setup = Setup {
                    config: &config,
                    region,
                    listener,
                    admin,
                    companion: None,
                    index: index as u32,
                    workers,
                    max_connections: shares.of(index as u32),
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
            // Only a place that has its listener is forked for.
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
            for place in &self.places {
                if let State::Running(pid, _) = place.state {
                    fork::look(pid);
                }
            }
        }
    }

    fn say(&mut self, level: Level, text: fmt::Arguments<'_>) {
        self.journal.line(level, "process", text);
    }

    fn heed(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::Terminate | Signal::Interrupt if self.stopping.is_some() => {
                self.say(Level::Warn, format_args!("told to stop at once"));
                self.kill_all();
            }
            Signal::Terminate | Signal::Interrupt => {
                let drain = Duration::from_micros(self.duties.config().timeouts.drain_us);
                self.say(Level::Info, format_args!("draining, for at most {drain:?}"));
                self.stop(now, true);
            }
            // Deaths are looked for after every wait.
            Signal::Child | Signal::Look => {}
            Signal::Hangup => self.attend(true),
            Signal::Reopen => self.say(Level::Info, format_args!("USR1: there is no log file to reopen")),
            Signal::Upgrade => self.say(Level::Info, format_args!("USR2: there is nothing to upgrade to")),
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
                        self.region.globals().add_global(Global::Respawns, 1);
                        self.say(Level::Warn, format_args!("{story}, respawned as pid {pid}"));
                    }
                }
                Err(error) => {
                    let story = format!("worker {index} cannot be forked: {error}");
                    self.fell(index, Duration::ZERO, story, now);
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
            return self.say(Level::Debug, format_args!("process {dead} has ended: {ended}"));
        };
        self.region.settle(index);
        let story = format!("worker {index} (pid {dead}) died: {ended}");
        let Some(stopping) = &mut self.stopping else {
            return self.fell(index, now.saturating_duration_since(since), story, now);
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

    /// Decides when a worker that died, or could not be made, is replaced.
    fn fell(&mut self, index: usize, lived: Duration, story: String, now: Instant) {
        match self.places[index].respawn.died(lived) {
            Verdict::Respawn(Duration::ZERO) => self.places[index].state = State::Due(now, Some(story)),
            Verdict::Respawn(delay) => {
                self.say(Level::Warn, format_args!("{story}, to be respawned in {delay:?}"));
                let story = format!("worker {index} was away for {delay:?}");
                self.places[index].state = State::Due(now + delay, Some(story));
            }
            Verdict::GiveUp => {
                self.places[index].state = State::Gone;
                self.say(Level::Err, format_args!("{story}"));
                let story = format_args!("worker {index} died {RESPAWN_DEATHS} times in a row right after its start");
                self.say(Level::Err, format_args!("{story}: giving up and stopping everything"));
                self.stop(now, false);
            }
        }
    }

    /// Has every worker drain, and starts none any more.
    fn stop(&mut self, now: Instant, clean: bool) {
        if let Some(stopping) = &mut self.stopping {
            stopping.clean &= clean;
            return;
        }
        let patience = Duration::from_micros(self.duties.config().timeouts.drain_us.saturating_add(DRAIN_GRACE_US));
        // A drain time past the end of the clock is never.
        self.stopping = Some(Stopping { kill_at: now.checked_add(patience), clean });
        for place in &mut self.places {
            // The port is closed for new clients once the workers' own descriptors are, too.
            place.listener = None;
            match place.state {
                State::Running(pid, _) => fork::drain(pid),
                _ => place.state = State::Gone,
            }
        }
    }

    /// Kills what runs past its time.
    fn kill_late(&mut self, now: Instant) {
        let late = self.stopping.as_ref().and_then(|stopping| stopping.kill_at).is_some_and(|at| at <= now);
        if late {
            self.say(Level::Warn, format_args!("workers still run past the drain time: killing them"));
            self.kill_all();
        }
    }

    /// Ends a stop that is under way.
    fn kill_all(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            *stopping = Stopping { kill_at: None, clean: false };
        }
        for place in &self.places {
            if let State::Running(pid, _) = place.state {
                fork::kill(pid);
            }
        }
    }

    /// The exit status, once stopping and rid of every worker.
    fn finished(&mut self) -> Option<u8> {
        let clean = self.stopping.as_ref()?.clean;
        if !self.places.iter().all(|place| matches!(place.state, State::Gone)) {
            return None;
        }
        self.say(Level::Info, format_args!("{}", if clean { "drained" } else { "stopped" }));
        Some(if clean { DONE } else { FAILED })
    }

    /// How long nothing is due, if signals do not come.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let forks = self.places.iter().filter_map(|place| match place.state {
            State::Due(at, _) => Some(at),
            _ => None,
        });
        let kill = self.stopping.as_ref().and_then(|stopping| stopping.kill_at);
        let duties = match self.duties.next_us() {
            u64::MAX => None,
            at_us => Some(now + Duration::from_micros(at_us.saturating_sub(clock::monotonic_us()))),
        };
        forks.chain(kill).chain(duties).min().map(|at| at.saturating_duration_since(now))
    }
}

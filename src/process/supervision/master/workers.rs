//! The workers of the master: when each is forked, watched and replaced.

use std::time::{Duration, Instant};

use super::Master;
use crate::limits::{RESPAWN_DEATHS, RESPAWN_DELAY_US};
use crate::log::{Level, Log};
use crate::metrics::Global;
use crate::process::child::{Ended, begin_child, serve};
use crate::process::exit::FAILED;
use crate::process::supervision::respawn::{Death, Respawn, Verdict};
use crate::process::upgrade::handover::OldWorker;
use crate::process::upgrade::old_workers;
use crate::process::upgrade::rollback::{RollbackSupervisor, Times};
use crate::sys::clock;
use crate::sys::fork::{self, Fork, Pid};
use crate::sys::signal::Signals;
use crate::worker::{Setup, Spare};

/// The place of a worker.
pub(super) struct Place {
    pub(super) record: usize,
    pub(super) state: State,
    pub(super) respawn: Respawn,
}

pub(super) enum State {
    /// The worker must be forked at this time. The text is the begin of the replacement's log line.
    Due(Instant, Option<String>),
    /// Forked then.
    Running(Pid, Instant),
    /// Ended, and not to be replaced.
    Gone,
}

impl Master {
    /// Kills workers whose loop stands still. They are replaced as others that die.
    pub(super) fn watch_over(&mut self) {
        let (watchdog_us, region) = (self.duties.config().watchdog_us, self.memory.region);
        let workers = self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, since) => Some((pid, place.record, since.elapsed())),
            _ => None,
        });
        self.watchdog.watch_over(watchdog_us, region, workers, &self.old_workers, &mut self.journal);
    }

    /// This process is the worker of a place: all that is the master's is dropped. The other places' listeners are
    /// kept for the time of a worker's absence. A service manager's listeners are its own already.
    pub(super) fn become_worker(self, index: usize) -> Ended {
        let Master {
            memory,
            duties,
            listeners,
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
        let records: Vec<usize> = places.iter().map(|place| place.record).collect();
        let (mut own, mut spares) = (Vec::new(), Vec::new());
        for listener in listeners {
            let is_activated = listener.is_activated;
            let (of_this, of_others) = listener.of_worker(index);
            own.extend(of_this);
            let spare = |(at, listener)| Some(Spare { listener, record: *records.get::<usize>(at)? });
            spares.extend(of_others.into_iter().filter(|_| !is_activated).filter_map(spare));
        }
        let config = duties.config().clone();
        // Among them is the watch of the file, whose events belong to the master only.
        drop((signals, duties, upgrade, inherited));
        let begun = begin_child(pid, &format!("lb worker {index}")).and_then(|()| Signals::install_in_worker());
        match (begun, records.get(index)) {
            (Ok(signals), Some(&record)) => {
                let setup = Setup {
                    config: &config,
                    region: memory.region,
                    listeners: own,
                    spares,
                    companion: None,
                    stopping: stopping.is_some(),
                    index: index as u32,
                    record,
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

    /// The workers of this program.
    pub(super) fn running(&self) -> impl Iterator<Item = Pid> {
        self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, _) => Some(pid),
            _ => None,
        })
    }

    /// Forks every worker that is due. In such a child: the place that it is for.
    pub(super) fn spawn_due(&mut self, now: Instant) -> Option<usize> {
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
                    self.set_absent(index, false);
                    if let Some(story) = story {
                        self.memory.region.globals().add_global(Global::Respawns, 1);
                        self.say(Level::Warn, format_args!("{story}, respawned as pid {pid}"));
                    }
                }
                Err(error) => {
                    let delay = place.respawn.not_forked();
                    let story = story.unwrap_or_else(|| format!("worker {index} could not be forked at first"));
                    place.state = State::Due(now + delay, Some(story));
                    self.set_absent(index, true);
                    let text = format_args!("worker {index} cannot be forked: {error}; again in {delay:?}");
                    self.say(Level::Err, text);
                }
            }
        }
        None
    }

    /// Has the other workers accept from the listener of one that is absent, or no longer.
    fn set_absent(&self, index: usize, absent: bool) {
        let record = self.memory.region.record(self.places[index].record);
        if record.is_absent() != absent {
            record.set_absent(absent);
            self.running().for_each(fork::look);
        }
    }

    /// Handles the end of a child. A child that is not a worker is a demo backend, or an orphan adopted by
    /// process 1.
    pub(super) fn on_child_exit(&mut self, dead: Pid, ended: fork::Ended, now: Instant) {
        let found = self.places.iter().enumerate().find_map(|(index, place)| match place.state {
            State::Running(pid, since) if pid == dead => Some((index, since)),
            _ => None,
        });
        let Some((index, since)) = found else {
            if self.upgrade.on_child_exit(dead, ended, &mut self.journal)
                || self.old_workers.on_child_exit(dead, ended, Some(self.memory.region), &mut self.journal)
            {
                return;
            }
            return self.say(Level::Debug, format_args!("process {dead} has ended: {ended}"));
        };
        let record = self.places[index].record;
        let accepted = self.memory.region.record(record).is_ready();
        let death = if accepted { Death::Serving(now.saturating_duration_since(since)) } else { Death::Early };
        self.memory.region.reclaim(record);
        let story = format!("worker {index} (pid {dead}) died: {ended}");
        let stopping = match &mut self.stopping {
            Some(stopping) if stopping.drain_at.is_none() => stopping,
            _ => return self.on_worker_death(index, death, story, now),
        };
        self.places[index].state = State::Gone;
        match ended {
            fork::Ended::Status(status) if status == Ended::Drained as i32 => {}
            // The worker itself has logged the number.
            fork::Ended::Status(status) if status == Ended::Cut as i32 => stopping.clean = false,
            _ => {
                stopping.clean = false;
                self.say(Level::Warn, format_args!("{story}"));
            }
        }
    }

    /// Decides when a worker that died is replaced.
    pub(super) fn on_worker_death(&mut self, index: usize, death: Death, story: String, now: Instant) {
        match self.places[index].respawn.died(death) {
            Verdict::Respawn(delay) if delay < Duration::from_micros(RESPAWN_DELAY_US) => {
                self.places[index].state = State::Due(now + delay, Some(story));
            }
            Verdict::Respawn(delay) => {
                self.say(Level::Warn, format_args!("{story}, to be respawned in {delay:?}"));
                let story = format!("worker {index} was away for {delay:?}");
                self.places[index].state = State::Due(now + delay, Some(story));
                self.set_absent(index, true);
            }
            Verdict::GiveUp if self.beginning && !self.old_workers.is_empty() => {
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
    pub(super) fn roll_back(self) -> u8 {
        let Some(mut left) = self.inherited.into_left() else { return FAILED };
        let same_memory = self.memory.segment == left.handover.segment;
        let running = self.places.iter().filter_map(|place| match place.state {
            State::Running(pid, _) => {
                let record = same_memory.then_some(place.record);
                Some(OldWorker { pid: pid.number(), record, memory: None, generation: self.generation, until_us: None })
            }
            _ => None,
        });
        let mut news: Vec<OldWorker> = running.collect();
        let has_ended = |old_worker: &OldWorker| self.old_workers.iter().all(|living| living.pid != old_worker.pid);
        // If the dead worker accepted, its listener has no worker any more.
        left.handover.again |=
            left.handover.old_workers.iter().any(|old_worker| old_worker.is_accepting() && has_ended(old_worker));
        left.handover.old_workers.retain(|old_worker| !has_ended(old_worker));
        left.handover.again |= self.upgrade.is_wanted_again();
        self.duties.take_back();
        // They follow the restored plan before they react to this.
        let drain_us = Times::of(Some(self.memory.region)).drain_us;
        news.iter_mut().for_each(|worker| old_workers::retire(worker, drain_us, clock::monotonic_us()));
        // Listeners that are this program's alone are closed by the last that has them.
        drop((self.listeners, self.duties));
        RollbackSupervisor::new(left, news, self.signals, self.journal, "the new workers do not come to live").run()
    }
}

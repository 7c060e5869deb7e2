//! The end of the master. Its workers drain, and it kills those that run past their time.

use std::time::{Duration, Instant};

use super::Master;
use super::workers::State;
use crate::limits::DRAIN_GRACE_US;
use crate::log::Level;
use crate::process::child::draining;
use crate::process::exit::{DONE, FAILED};
use crate::process::upgrade::inherited::Inherited;
use crate::sys::clock;
use crate::sys::fork;

pub(super) struct Stopping {
    /// The time at which a delayed drain begins. Until then everything continues.
    pub(super) drain_at: Option<Instant>,
    /// The time at which the remaining workers are killed; `None` before the drain begins, and after the kill.
    pub(super) kill_at: Option<Instant>,
    /// True if nothing has failed and no request was cut.
    pub(super) clean: bool,
}

impl Master {
    /// Has every worker drain after `delay`, and starts none any more then.
    pub(super) fn stop(&mut self, now: Instant, delay: Duration, clean: bool) {
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
            // Closed before the signal to the workers: a client of a listener that its worker has left, and
            // this process still held, would be reset.
            self.close_public();
        }
        self.old_workers.stop(delay.as_micros() as u64, clock::monotonic_us());
        self.running().for_each(fork::drain);
        if delay.is_zero() {
            // After the order to stop, which has to come first.
            self.drain(now);
        }
    }

    /// Says that draining begins, now or after a delay.
    pub(super) fn say_draining(&mut self, delay_us: u64) {
        let timeouts = self.duties.config().timeouts;
        let text = draining(self.memory.region, delay_us, timeouts.drain_us, timeouts.drain_idle_us);
        self.say(Level::Info, format_args!("{text}"));
    }

    /// Makes every worker cut its requests and end, by a second drain signal.
    pub(super) fn stop_at_once(&mut self, now: Instant) {
        self.close();
        let kill_at = now.checked_add(Duration::from_micros(DRAIN_GRACE_US));
        self.stopping.iter_mut().for_each(|stopping| stopping.kill_at = kill_at);
        self.running().for_each(fork::drain);
        self.old_workers.stop_at_once(clock::monotonic_us());
    }

    /// The port is closed for new clients once the workers' own descriptors are, too. None is replaced any
    /// more.
    pub(super) fn close(&mut self) {
        self.stopping.iter_mut().for_each(|stopping| stopping.drain_at = None);
        self.close_public();
        for place in &mut self.places {
            if let State::Due(..) = place.state {
                place.state = State::Gone;
            }
        }
    }

    /// Closes the master's sockets for clients. Those of the admin port stay open until it ends.
    fn close_public(&mut self) {
        self.listeners.retain(|listener| !listener.listen.is_public());
    }

    /// Begins to drain once the delay has passed.
    pub(super) fn drain_delayed(&mut self, now: Instant) {
        if self.stopping.as_ref().and_then(|stopping| stopping.drain_at).is_some_and(|at| at <= now) {
            self.say_draining(0);
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Instant) {
        // As the workers', it is by the drain time that holds now. One past the end of the clock is never.
        let patience_us = self.duties.config().timeouts.drain_us.saturating_add(DRAIN_GRACE_US);
        let kill_at = now.checked_add(Duration::from_micros(patience_us));
        self.stopping.iter_mut().for_each(|stopping| stopping.kill_at = kill_at);
        self.close();
        self.running().for_each(fork::retire);
    }

    /// Kills the workers that exceed their time.
    pub(super) fn kill_late(&mut self, now: Instant) {
        let late = self.stopping.as_ref().and_then(|stopping| stopping.kill_at).is_some_and(|at| at <= now);
        if late {
            self.say(Level::Warn, format_args!("workers still run past their time: killing them"));
            self.kill_all();
        }
    }

    /// Ends a stop that is under way.
    pub(super) fn kill_all(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            (stopping.kill_at, stopping.clean) = (None, false);
        }
        self.close();
        self.running().for_each(fork::kill);
        self.old_workers.kill_all();
    }

    /// The exit status, once stopping and rid of every worker.
    pub(super) fn finished(&mut self) -> Option<u8> {
        let clean = self.stopping.as_ref()?.clean;
        if !self.places.iter().all(|place| matches!(place.state, State::Gone)) || !self.old_workers.is_empty() {
            return None;
        }
        let clean = clean && self.old_workers.is_clean();
        self.say(Level::Info, format_args!("{}", if clean { "drained" } else { "stopped" }));
        Some(if clean { DONE } else { FAILED })
    }
}

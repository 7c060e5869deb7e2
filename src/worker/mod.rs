//! The loop of a worker: it waits for readiness, moves bytes, and carries out outputs. It owns every descriptor
//! and decides nothing: the proxy interprets the bytes.
//!
//! Sockets are registered once and edge-triggered, so each stores its readiness for reading and writing. A
//! short read means that a socket is drained, unless its peer has ended.

mod accept;
mod drain;
mod encryption;
mod identify;
mod io;
mod listener;
mod secure;
mod setup;
mod signals;
mod socket;
mod spares;
mod token;

use std::collections::VecDeque;
use std::io::Result;

use self::drain::{Drain, Order};
pub use self::drain::{Draining, Outcome};
pub use self::listener::Listener;
use self::listener::Own;
use self::secure::Tls;
pub use self::setup::{Companion, Setup};
use self::socket::Sockets;
pub use self::spares::Spare;
use self::token::{COMPANION, LISTENERS, SIGNALS};
use crate::collections::slab::Key;
use crate::config::Plan;
use crate::limits::{LOST_LOOK_US, USAGE_US, WATCHDOG_PARTS, WORKER_DESCRIPTORS};
use crate::log::Level;
use crate::metrics::{Block, Count};
use crate::proxy::Proxy;
use crate::reactor::Reactor;
use crate::shared::Region;
use crate::shared::worker::{Doing, WorkerRecord};
use crate::sys::signal::Signals;
use crate::sys::{self, clock};

/// Pauses of accepting, one soon after another. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pauses {
    began_us: u64,
    /// When accepting last paused, or went on.
    last_us: u64,
    count: u64,
}

struct Worker<'a> {
    reactor: Reactor,
    proxy: Proxy,
    sockets: Sockets,
    region: Region,
    /// The plan that is followed.
    edition: u64,
    record: WorkerRecord,
    /// By number; `None` once the worker has left one.
    listeners: Vec<Option<Own>>,
    spares: Vec<Option<spares::Held>>,
    companion: Option<&'a mut dyn Companion>,
    /// Turns in a row in which connections waited on the listener.
    accept_streak: usize,
    max_connections: usize,
    signals: Signals,
    /// Sockets that could be read on at once, and have to let others go first.
    ready: VecDeque<Key>,
    drain_us: u64,
    /// The time that a client may be idle once the process ends.
    drain_idle_us: u64,
    /// The time that it goes on as before after an order to stop.
    drain_delay_us: u64,
    /// The longest time without a turn of the loop, in microseconds.
    beat_us: u64,
    order: Order,
    drain: Drain,
    /// The pauses of accepting that were not followed by a while without one.
    pauses: Option<Pauses>,
    tls: Tls,
    /// Connections to be sent on at the turn's end.
    late: Vec<Key>,
    /// Its number, from 0.
    index: u32,
    block: Block,
    /// The time of the last usage sample, in microseconds, and the processor time at it.
    usage_us: (u64, u64),
    now_us: u64,
}

/// Runs a worker until it has drained or is stopped. Errors are those of setting it up or of
/// the poller.
pub fn run(setup: Setup<'_>) -> Result<Outcome> {
    let stopping = setup.stopping;
    let mut worker = Worker::new(setup)?;
    worker.begin()?;
    sys::limit::release_start();
    if stopping {
        worker.terminate();
    }
    loop {
        worker.turn()?;
        if let Some(outcome) = worker.outcome() {
            worker.proxy.finish_log();
            worker.write_log();
            return Ok(outcome);
        }
    }
}

impl Worker<'_> {
    fn turn(&mut self) -> Result<()> {
        let timeout_us = if self.ready.is_empty() { self.next_us().saturating_sub(self.now_us) } else { 0 };
        let timeout_us = if self.next_us() == u64::MAX && self.ready.is_empty() { u64::MAX } else { timeout_us };
        self.record.begin(Doing::Waiting);
        self.reactor.poll(timeout_us.min(self.beat_us))?;
        self.update_clock();
        self.record.beat(self.now_us);
        if self.region.table().edition() != self.edition {
            self.follow();
        }
        if !self.tls.is_current(self.region) {
            self.follow_secrets(None);
        }
        let companion = self.take_events()?;
        self.record.begin(Doing::Reading);
        for _ in 0..self.ready.len() {
            if let Some(key) = self.ready.pop_front() {
                self.read(key);
                self.carry_out();
            }
        }
        if self.proxy.next_deadline_us() <= self.now_us {
            self.record.begin(Doing::Expiring);
            self.proxy.expire();
            self.carry_out();
        }
        self.record.begin(Doing::Sending);
        self.send_late();
        self.resume_accepting()?;
        self.tls.leaving.expire(self.now_us);
        if let Some(duties) = &mut self.companion
            && (companion || duties.next_us() <= self.now_us)
        {
            duties.turn()?;
        }
        self.advance_drain();
        if self.now_us >= self.usage_us.0 + USAGE_US {
            self.note_usage();
        }
        self.record.set_busy(self.proxy.requests());
        self.record.begin(Doing::Logging);
        self.write_log();
        if self.companion.as_ref().is_some_and(|companion| companion.wants_handover()) {
            self.hand_over()?;
        }
        Ok(())
    }

    /// Handles the events of the last poll. Returns true if there are some for the companion.
    fn take_events(&mut self) -> Result<bool> {
        let streak = self.accept_streak;
        let mut companion = false;
        let mut at = 0;
        while let Some(event) = self.reactor.event(at) {
            at += 1;
            match event.token {
                SIGNALS => self.take_signals()?,
                // It has its turn below.
                COMPANION => companion = true,
                // Tokens of keys are larger than any number of listeners.
                token if token < LISTENERS + (self.listeners.len() + self.spares.len()) as u64 => {
                    self.record.begin(Doing::Accepting);
                    self.accept((token - LISTENERS) as usize)?;
                }
                token => {
                    self.record.begin(Doing::Serving);
                    self.handle(Key::from_token(token), event);
                }
            }
        }
        if self.accept_streak == streak {
            self.accept_streak = 0;
        }
        Ok(companion)
    }

    /// The time of the next turn without an event.
    fn next_us(&self) -> u64 {
        let mut next = self.proxy.next_deadline_us().min(self.resume_us()).min(self.tls.leaving.next_us());
        if sys::has_lost() {
            // Lost lines are reported even if nothing else happens.
            next = next.min(self.now_us + LOST_LOOK_US);
        }
        let companion = self.companion.as_ref().map_or(u64::MAX, |companion| companion.next_us());
        next.min(self.drain.next_us(self.now_us)).min(companion)
    }

    /// Records the process's resource usage in the metrics.
    fn note_usage(&mut self) {
        let cpu_us = clock::process_us();
        self.block.add(Count::CpuTime, cpu_us.saturating_sub(self.usage_us.1));
        self.usage_us = (self.now_us, cpu_us);
        let (addresses, resident) = sys::limit::memory_bytes();
        self.block.set(Count::Virtual, addresses);
        self.block.set(Count::Resident, resident);
        let connections = (self.sockets.len() + self.tls.leaving.len()) as u64;
        self.block
            .set(Count::Descriptors, connections + (self.spares.iter().flatten().count() + WORKER_DESCRIPTORS) as u64);
    }

    /// Follows the plan that holds now.
    fn follow(&mut self) {
        self.record.begin(Doing::Following);
        let (edition, plan) = self.region.table().read();
        self.edition = edition;
        match plan.and_then(|bytes| Plan::decode(&bytes)) {
            Some(plan) => {
                self.drain_us = plan.timeouts.drain_us;
                self.tls.leaving.limit(plan.timeouts.response_us);
                self.drain_idle_us = plan.timeouts.drain_idle_us;
                self.drain_delay_us = plan.drain_delay_us;
                self.beat_us = beat_us(&plan);
                self.proxy.follow(&plan);
                self.prepare_tls(plan.authorities);
                self.follow_secrets(Some(plan.tls));
                self.carry_out();
            }
            None => self.proxy.log().line(Level::Err, "worker", format_args!("plan {edition} is malformed")),
        }
    }

    fn update_clock(&mut self) {
        self.now_us = clock::monotonic_us();
        self.proxy.set_clock(self.now_us, clock::unix_us());
    }

    fn write_log(&mut self) {
        let log = self.proxy.log();
        if !log.is_empty() {
            sys::write_stderr(log.text());
            log.clear();
            match sys::take_lost() {
                0 => {}
                lost => self.block.add(Count::LogLost, lost),
            }
        }
        sys::report_lost();
    }
}

/// The longest time without a turn of the loop, so that a stuck loop is distinguishable from an idle one.
fn beat_us(plan: &Plan) -> u64 {
    if plan.watchdog_us == 0 { u64::MAX } else { plan.watchdog_us / WATCHDOG_PARTS }
}

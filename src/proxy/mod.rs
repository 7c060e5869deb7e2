//! The proxy as a pure machine: connections, bytes, failures and the time go in; bytes, dials
//! and closes come out. It owns every decision and no descriptor.
//!
//! Inputs are methods (`accept`, `room` and `received`, `ended`, `failed`, `connected`, `sent`,
//! `expire`); after any of them, `next_output` is asked until it has nothing more. Connections
//! live in one slab, clients' and backends' alike, under keys that are never used twice.
//!
//! Invariants: a connection in the pool has no exchange, no input and no output; an exchange has
//! a living client connection, and a backend connection from `assign` on; what a connection
//! queues is bounded, because its source is not read while `QUEUE_HIGH_BYTES` wait (`wants`).

mod abort;
mod assign;
mod bind;
mod check;
mod codec;
mod connection;
mod deadline;
mod decode;
mod ending;
mod exchange;
mod failure;
mod finish;
mod idle;
mod input;
mod mux;
mod pages;
mod pool;
pub mod probe;
mod queue;
mod record;
mod redial;
mod reply;
mod response;
mod state;
mod trace;
mod tunnel;
mod upstreams;

use self::connection::{Connection, Ending, Moved, Phase};
use self::exchange::{Exchange, Progress};
pub use self::failure::Failure;
pub use self::record::Record;
use self::record::{Kind, Reason};
use self::state::{Ledger, Scratch, Settings, Shutdown, Totals};
pub use self::upstreams::Shared;
use self::upstreams::Upstreams;
use crate::collections::queue::Queue;
use crate::collections::random::Random;
use crate::collections::slab::{Key, Slab};
use crate::config::Plan;
pub use crate::config::Timeouts;
use crate::limits::{QUEUE_HIGH_BYTES, SECOND_US};
use crate::log::repeats::Repeats;
use crate::log::{Log, http_date};
use crate::metrics::Count;

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to the backend in a slot, and say `connected` or `failed`.
    Connect(Key, usize),
    /// Send what is queued, as the socket takes it, and say `sent`.
    Send(Key),
    /// The same, once whatever else has happened by now is seen to: much of it adds to what is queued.
    SendLater(Key),
    /// Read again, if there may be something: `room` has some now.
    Receive(Key),
    /// Read now, whatever is known of the socket's readiness: the connection is about to end.
    Check(Key),
    /// End our direction.
    Finish(Key),
    /// Close; the key is gone already.
    Close(Key),
    /// Close with a reset; the key is gone already.
    Reset(Key),
}

/// The machine. See the module's description.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    upstreams: Upstreams,
    ledger: Ledger,
    scratch: Scratch,
    connections: Slab<Connection>,
    exchanges: Slab<Exchange>,
    shared: Shared,
    totals: Totals,
    shutdown: Shutdown,
    log: Log,
    /// The kinds of log lines that were written lately.
    repeats: Repeats<Kind>,
    random: Random,
    now_us: u64,
    /// The second since 1970, and its date for responses without one.
    date: (u64, [u8; 29]),
}

impl Proxy {
    /// Returns a proxy that follows a plan, in the worker with this number. The time is in microseconds. Workers get
    /// different seeds.
    pub fn new(plan: &Plan, shared: Shared, worker: u32, seed: u64, now_us: u64, log: Log) -> Proxy {
        let mut proxy = Proxy {
            settings: Settings::new(plan, worker),
            upstreams: Upstreams::new(plan, shared, seed),
            ledger: Ledger::new(now_us),
            scratch: Scratch::new(),
            connections: Slab::new(),
            exchanges: Slab::new(),
            shared,
            totals: Totals::default(),
            shutdown: Shutdown::new(),
            log,
            repeats: Repeats::new(),
            // These random numbers differ from those of the pick.
            random: Random::new(seed.rotate_left(32)),
            now_us,
            date: (0, http_date(0)),
        };
        proxy.follow(plan);
        proxy
    }

    /// Sets the time for what follows: microseconds of a clock that never goes back, and since
    /// 1970.
    pub fn set_clock(&mut self, now_us: u64, unix_us: u64) {
        self.now_us = now_us;
        self.log.set_clock(unix_us);
        let unix_s = unix_us / SECOND_US;
        if unix_s != self.date.0 {
            self.date = (unix_s, http_date(unix_s));
        }
    }

    /// The listeners that clients connect to have these ports.
    pub fn set_ports(&mut self, ports: impl Iterator<Item = u16>) {
        self.settings.ports = ports.map(|port| port.to_string()).collect();
    }

    /// The log, to write into and to write out.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// How many clients are connected, those of `accept_admin` apart.
    pub fn clients(&self) -> usize {
        self.totals.clients
    }

    /// How many of `accept_admin` are connected.
    pub fn admins(&self) -> usize {
        self.totals.admins
    }

    /// How many connections there are, to clients and to backends, and streams on these.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many requests are under way.
    pub fn requests(&self) -> usize {
        self.exchanges.len()
    }

    /// From now on who asks is told that more requests are not wanted.
    pub fn set_unready(&mut self) {
        self.shutdown.unready = true;
    }

    /// From now on each client is told with its next response that its connection ends.
    pub fn drain(&mut self) {
        self.shutdown.draining = true;
        self.shared.block.set(Count::Draining, 1);
        self.shut_down_muxes();
        self.resume();
    }

    /// Closes the connections of all clients. Returns how many had a request under way, or a response in the queue.
    /// These are reset, so that a cut response does not seem complete.
    pub fn stop(&mut self) -> usize {
        let mut cut = 0;
        let is_stream = |key: &Key| self.connections.get(*key).is_some_and(|one| one.codec.stream().is_some());
        let (streams, others): (Vec<Key>, Vec<Key>) = self.connections.keys().partition(is_stream);
        // The streams of a mux are counted before it closes.
        for key in streams.into_iter().chain(others) {
            match self.connections.get(key) {
                // The admin port serves nothing but pages.
                Some(client) if client.is_admin() => self.client_gone(key, Reason::Page),
                Some(client) if client.is_client() && client.codec.mux().is_some() => {
                    self.close(key, Output::Close(key));
                }
                Some(client) if client.is_client() && (client.exchange.is_some() || !client.output.is_empty()) => {
                    cut += 1;
                    self.client_gone(key, Reason::Stopped);
                }
                Some(client) if client.is_client() => self.close(key, Output::Close(key)),
                _ => {}
            }
        }
        self.resume();
        cut
    }

    /// Takes the next thing to do.
    pub fn next_output(&mut self) -> Option<Output> {
        self.ledger.outputs.pop_front()
    }

    /// Serves metrics to those of `accept_admin` alone.
    pub fn hide_metrics(&mut self) {
        self.settings.public_metrics = false;
    }

    /// What is to be sent on a connection.
    pub fn queued(&self, key: Key) -> Option<&Queue> {
        self.connections.get(key).map(|connection| &connection.output)
    }

    /// Whether our direction of a connection ends right behind what is queued.
    pub fn is_ending(&self, key: Key) -> bool {
        self.connections
            .get(key)
            .is_some_and(|connection| matches!(connection.after_flush, Ending::Close | Ending::Linger))
    }

    /// The other end of an exchange.
    fn opposite(&self, exchange: Key, key: Key) -> Option<Key> {
        self.exchanges.get(exchange)?.opposite(key)
    }

    /// Whether a connection is to be read now.
    fn wants(&self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        match connection.phase {
            Phase::Connecting => return false,
            Phase::Lingering => return true,
            Phase::Open => {}
        }
        if connection.has_ended()
            || connection.after_flush != Ending::GoesOn && connection.after_flush != Ending::Finish
        {
            return false;
        }
        if connection.codec.mux().is_some() {
            // What may come is bounded by windows, and what answers it has a limit of its own.
            return true;
        }
        let Some(exchange) = connection.exchange.and_then(|id| self.exchanges.living(id)) else {
            // An idle backend connection is watched for its end, a client's for a request, but
            // not while responses pile up that it does not take.
            return connection.output.len() < QUEUE_HIGH_BYTES;
        };
        if connection.is_client() && exchange.request == Progress::Ended && !exchange.is_tunnel() {
            // Read ahead once, to see the client go or its next request come.
            return connection.input.is_none();
        }
        if !connection.is_client() && exchange.response == Progress::Ended {
            // It may still read the upload. Read once, to see its end.
            return connection.input.is_none();
        }
        match exchange.opposite(key).and_then(|opposite| self.connections.get(opposite)) {
            Some(opposite) => opposite.phase != Phase::Connecting && opposite.output.len() < QUEUE_HIGH_BYTES,
            None => false,
        }
    }

    /// Has a connection read again that had to wait.
    fn wake(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|connection| connection.codec.stream().is_some()) {
            return self.credit(key);
        }
        if self.connections.get(key).is_some_and(|connection| connection.read_paused)
            && self.wants(key)
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.read_paused = false;
            self.ledger.outputs.push_back(Output::Receive(key));
        }
    }

    /// Has what is queued sent.
    fn schedule_send(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.codec.stream().is_some() {
            self.line_up(key);
        } else if !connection.is_sendable() {
            connection.output.clear(&mut self.scratch.buffers);
        } else if !connection.send_scheduled && !connection.output.is_empty() {
            connection.send_scheduled = true;
            let many = connection.codec.mux().is_some();
            self.ledger.outputs.push_back(if many { Output::SendLater(key) } else { Output::Send(key) });
        }
    }

    /// Goes on with connections whose input had to wait.
    fn resume(&mut self) {
        self.serve_waiting();
        loop {
            if let Some(key) = self.ledger.resumed.pop() {
                self.pump(key);
                self.wake(key);
                self.rearm(key, Moved::Nothing);
            } else if let Some(key) = self.ledger.tending.pop() {
                self.tend(key);
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The proxy as a pure machine. Connections, bytes, failures and the time go in. Bytes, dials and closes come out.
//! The proxy makes every decision and owns no descriptor.
//!
//! The inputs are methods (`accept`, `room` and `received`, `ended`, `failed`, `connected`, `sent`, `expire`). After
//! each of them the shell calls `next_output` until it returns nothing. All connections live in one slab under keys
//! that are never used twice.
//!
//! `check` verifies the invariants. The most important ones: an exchange has a living client connection; a pooled
//! connection has no exchange, no input and no output; the queue of a connection is bounded, because its source is
//! not read while `QUEUE_HIGH_BYTES` wait (`wants`).

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
mod identity;
mod idle;
mod input;
mod mux;
mod output;
mod owned;
mod pages;
mod pool;
pub mod probe;
mod progress;
mod queue;
mod record;
mod redial;
mod redirect;
mod reply;
mod response;
mod secured;
mod stalled;
mod state;
mod sticky;
mod trace;
mod tunnel;
mod upstreams;

use self::codec::Codec;
use self::connection::{Connection, Ending, Moved, Phase};
use self::exchange::Exchange;
pub use self::failure::Failure;
pub use self::identity::Unidentified;
pub use self::output::Output;
use self::progress::Progress;
use self::record::Reason;
pub use self::record::Record;
pub use self::secured::Secured;
use self::secured::Secures;
use self::state::{Ledger, Listener, Scratch, Settings, Shutdown, Totals};
pub use self::upstreams::Shared;
use self::upstreams::Upstreams;
use crate::collections::queue::Queue;
use crate::collections::random::Random;
use crate::collections::slab::{Key, Slab};
use crate::config::{Listen, Plan};
use crate::limits::{QUEUE_HIGH_BYTES, SECOND_US};
use crate::log::{Log, http_date};
use crate::metrics::Count;

/// The machine. See the module's description.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    upstreams: Upstreams,
    ledger: Ledger,
    scratch: Scratch,
    connections: Slab<Connection>,
    exchanges: Slab<Exchange>,
    secures: Secures,
    shared: Shared,
    totals: Totals,
    shutdown: Shutdown,
    log: Log,
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
            secures: Secures::default(),
            shared,
            totals: Totals::default(),
            shutdown: Shutdown::new(),
            log,
            // These random numbers differ from those of the pick.
            random: Random::new(seed.rotate_left(32)),
            now_us,
            date: (0, http_date(0)),
        };
        proxy.follow(plan);
        proxy
    }

    /// Sets the time for all further inputs: in microseconds of a monotonic clock, and in microseconds since 1970.
    pub fn set_clock(&mut self, now_us: u64, unix_us: u64) {
        self.now_us = now_us;
        self.log.set_clock(unix_us);
        let unix_s = unix_us / SECOND_US;
        if unix_s != self.date.0 {
            self.date = (unix_s, http_date(unix_s));
        }
    }

    /// Sets the listeners, in the order of their numbers.
    pub fn set_listeners(&mut self, listens: &[Listen]) {
        let listener = |&listen: &Listen| Listener { listen, port: listen.address.port().to_string() };
        self.settings.listeners = listens.iter().map(listener).collect();
    }

    /// Returns the log.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Returns the number of clients, except those of the admin port.
    pub fn clients(&self) -> usize {
        self.totals.clients
    }

    /// Returns the number of clients of the admin port.
    pub fn admins(&self) -> usize {
        self.totals.admins
    }

    /// Returns the number of connections to clients and backends, including streams.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns the number of requests under way.
    pub fn requests(&self) -> usize {
        self.exchanges.len()
    }

    /// Makes `/readyz` say from now on that no further requests are wanted.
    pub fn set_unready(&mut self) {
        self.shutdown.unready = true;
    }

    /// Drains from now on: each client connection ends with its next response.
    pub fn drain(&mut self) {
        self.shutdown.draining = true;
        self.shared.block.set(Count::Draining, 1);
        self.shut_down_muxes();
        self.resume();
    }

    /// Ends the connections of all clients, because the program stops. Returns how many had a request under way, or a
    /// response in the queue. These are reset, so that a cut response does not seem complete; a gRPC call gets a status.
    /// A connection over HTTP/2 closes when its client has taken the ends of its streams.
    pub fn stop(&mut self) -> usize {
        let mut cut = 0;
        let is_stream = |key: &Key| self.connections.get(*key).is_some_and(|one| one.codec.stream().is_some());
        let (streams, others): (Vec<Key>, Vec<Key>) = self.connections.keys().partition(is_stream);
        // The streams of a mux end before it.
        for key in streams.into_iter().chain(others) {
            let Some(client) = self.connections.get(key).filter(|client| client.is_client()) else { continue };
            let is_busy = client.exchange.is_some() || !client.output.is_empty();
            match &client.codec {
                // The admin port serves nothing but pages.
                _ if client.is_admin() => self.client_gone(key, Reason::Page),
                Codec::Mux(_) => self.stop_mux(key),
                Codec::Stream(_) if is_busy => {
                    cut += 1;
                    self.stop_stream(key);
                }
                Codec::Stream(_) => {}
                _ if is_busy => {
                    cut += 1;
                    self.client_gone(key, Reason::Stopped);
                }
                _ => self.close(key, Output::Close(key)),
            }
        }
        self.resume();
        cut
    }

    /// Takes the next task. A connection that was given up before it was begun is not begun, so that a client that
    /// cancels its requests at once causes no connections.
    pub fn next_output(&mut self) -> Option<Output> {
        loop {
            match self.ledger.outputs.pop_front()? {
                Output::Connect(key, _) if self.connections.get(key).is_none() => {}
                output => return Some(output),
            }
        }
    }

    /// Serves metrics only on the admin port.
    pub fn hide_metrics(&mut self) {
        self.settings.public_metrics = false;
    }

    /// Returns the bytes to send on a connection.
    pub fn queued(&self, key: Key) -> Option<&Queue> {
        self.connections.get(key).map(|connection| &connection.output)
    }

    /// True if our direction of a connection ends directly after the queue.
    pub fn is_ending(&self, key: Key) -> bool {
        self.connections
            .get(key)
            .is_some_and(|connection| matches!(connection.after_flush, Ending::Close | Ending::Linger))
    }

    /// Returns the connection at the other end of an exchange.
    fn opposite(&self, exchange: Key, key: Key) -> Option<Key> {
        self.exchanges.get(exchange)?.opposite(key)
    }

    /// True if a connection is to be read now.
    fn wants(&self, key: Key) -> bool {
        self.read_limit(key) > 0
    }

    /// The bytes that may be read from a connection now; 0 if it is not to be read.
    fn read_limit(&self, key: Key) -> usize {
        let limit = |reads: bool| if reads { usize::MAX } else { 0 };
        let Some(connection) = self.connections.get(key) else { return 0 };
        match connection.phase {
            Phase::Connecting | Phase::Identifying => return 0,
            Phase::Lingering => return usize::MAX,
            Phase::Open => {}
        }
        if connection.has_ended()
            || connection.after_flush != Ending::GoesOn && connection.after_flush != Ending::Finish
        {
            return 0;
        }
        if let Some(mux) = connection.codec.mux() {
            // Windows bound the input, and the replies to it have a limit of their own.
            return limit(mux.downstream().is_none_or(|downstream| !downstream.awaits_turn));
        }
        let Some(exchange) = connection.exchange.and_then(|id| self.exchanges.living(id)) else {
            // An idle backend connection is read to see its end, and a client connection to see a request. But a
            // client that does not take its responses is not read.
            return limit(connection.output.len() < QUEUE_HIGH_BYTES);
        };
        if connection.is_client() && exchange.request == Progress::Ended && !exchange.is_tunnel() {
            // Reads ahead once, to see the client leave or its next request.
            return limit(connection.input.is_none());
        }
        if !connection.is_client() && exchange.response == Progress::Ended {
            // The backend may still read the upload. Reads once, to see its end.
            return limit(connection.input.is_none());
        }
        match exchange.opposite(key).and_then(|opposite| self.connections.get(opposite)) {
            Some(opposite) if opposite.phase != Phase::Connecting => self.room_of(opposite),
            _ => 0,
        }
    }

    /// Reads a connection again that had to wait.
    fn wake(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.codec.stream().is_some() {
            return self.credit(key);
        }
        if connection.read_paused
            && self.wants(key)
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.read_paused = false;
            self.ledger.outputs.push_back(Output::Receive(key));
        }
    }

    /// Schedules the sending of a connection's queue.
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

    /// Continues with connections whose input had to wait, until there is nothing left to do.
    fn resume(&mut self) {
        self.serve_waiting();
        loop {
            if let Some(key) = self.ledger.resumed.pop() {
                self.pump(key);
                self.wake(key);
                self.changed(key, Moved::Nothing);
            } else if let Some(key) = self.ledger.tending.pop() {
                self.tend(key);
            } else {
                // The budget counts the bytes that connections hold after all that.
                self.set_deadlines();
                if !self.relieve() && !self.wake_borrowers() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The parts of the proxy's state other than connections, exchanges and backends: the settings that a plan decides, the
//! work that is to be done, the memory that is reused, and a few totals.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::connection::Moved;
use super::output::Output;
use super::queue::Waiting;
use super::record::{Kind, Record};
use crate::collections::buffer::Pool;
use crate::collections::slab::Key;
use crate::collections::timers::{NEVER, Timers};
use crate::config::{Address, Cidr, Health, HostHeader, Listen, Plan, Timeouts};
use crate::http::head::{Head, SavedHead};
use crate::limits::SHOWN_NAMES;
use crate::log::repeats::Repeats;
use crate::metrics::{Certificate, Listing, Place};

/// A listener, as its clients' requests show it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) listen: Listen,
    /// Its port in digits.
    pub(super) port: String,
}

impl Listener {
    /// The scheme of its requests.
    pub(super) fn scheme(&self) -> &'static str {
        if self.listen.tls { "https" } else { "http" }
    }
}

/// The settings. A plan decides most of them.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) timeouts: Timeouts,
    pub(super) host_header: HostHeader,
    /// The addresses of clients whose X-Forwarded-* fields are believed.
    pub(super) trust: Vec<Cidr>,
    pub(super) via: Option<String>,
    pub(super) health: Health,
    pub(super) trace: bool,
    /// Requests get ids.
    pub(super) request_ids: bool,
    /// Clients of ordinary listeners get `/metrics` too, not only those of the admin port.
    pub(super) public_metrics: bool,
    /// The path of the metrics for clients; empty for none.
    pub(super) metrics_path: String,
    /// The backends as metrics show them.
    pub(super) listing: Arc<Listing>,
    /// The end of a sentence that names the backends without an address.
    pub(super) unresolved: String,
    /// The listeners, in the order of their numbers.
    pub(super) listeners: Vec<Listener>,
    /// The value of Strict-Transport-Security over TLS.
    pub(super) strict_transport: Option<String>,
    /// The number of the worker, which is a part of a connection's name in a trace.
    pub(super) worker: u32,
}

impl Settings {
    pub(super) fn new(plan: &Plan, worker: u32) -> Settings {
        let mut settings = Settings {
            timeouts: plan.timeouts,
            host_header: HostHeader::Preserve,
            trust: Vec::new(),
            via: None,
            health: plan.health.clone(),
            trace: false,
            request_ids: false,
            public_metrics: true,
            metrics_path: String::new(),
            listing: Arc::default(),
            unresolved: String::new(),
            listeners: Vec::new(),
            strict_transport: None,
            worker,
        };
        settings.set(plan);
        settings
    }

    /// Returns the Host that replaces the client's for a backend with this own one. `gets_own`: it gets that by default.
    pub(super) fn host_for<'a>(&'a self, own_host: &'a str, gets_own: bool) -> Option<&'a str> {
        match &self.host_header {
            HostHeader::Preserve if gets_own => Some(own_host),
            HostHeader::Preserve => None,
            HostHeader::Backend => Some(own_host),
            HostHeader::Name(name) => Some(name),
        }
    }

    /// Takes over the settings of a plan.
    pub(super) fn set(&mut self, plan: &Plan) {
        self.timeouts = plan.timeouts;
        self.host_header = plan.host_header.clone();
        self.trust = plan.trust.clone();
        self.via = plan.via.clone();
        self.health = plan.health.clone();
        self.trace = plan.trace;
        self.request_ids = plan.request_ids;
        self.metrics_path.clone_from(&plan.metrics_path);
        let certificates = self.listing.certificates().to_vec();
        self.listing = Arc::new(listing(plan).with_certificates(certificates));
        self.strict_transport = plan.tls.strict_transport_s.map(|seconds| format!("max-age={seconds}"));
        self.unresolved = unresolved(&plan.unresolved);
    }
}

impl Settings {
    /// Shows other certificates in the metrics.
    pub(super) fn set_certificates(&mut self, certificates: Vec<Certificate>) {
        self.listing = Arc::new(Listing::clone(&self.listing).with_certificates(certificates));
    }

    /// Returns the value of Strict-Transport-Security for clients of a listener.
    pub(super) fn strict_transport(&self, listener: u16) -> Option<&str> {
        let is_tls = self.listeners.get(usize::from(listener)).is_some_and(|listener| listener.listen.tls);
        self.strict_transport.as_deref().filter(|_| is_tls)
    }
}

/// The work that is to be done. ARCHITECTURE.md describes the order of its queues.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Tasks for the shell.
    pub(super) outputs: VecDeque<Output>,
    pub(super) timers: Timers,
    /// Slots of connections whose deadline has passed.
    pub(super) due: Vec<usize>,
    /// Connections whose deadline may be another one now.
    pub(super) changed: Vec<(Key, Moved)>,
    /// The connection whose input is being decoded.
    pub(super) decoding: Option<Key>,
    /// Connections whose input may be decoded further.
    pub(super) resumed: Vec<Key>,
    /// Muxes with something to do.
    pub(super) tending: Vec<Key>,
    /// Muxes to clients whose input goes on in the next turn.
    pub(super) turns: Vec<Key>,
    /// Muxes to clients that may hold no more until the budget lends again.
    pub(super) borrowers: Vec<Key>,
    /// If less than this is lent, one of them may hold more.
    pub(super) lends_below: usize,
    /// Exchanges whose responses are generated here, one portion at a time.
    pub(super) feeding: VecDeque<Key>,
    /// Exchanges that wait for a backend below its limit.
    pub(super) waiting: Waiting,
    /// When the waiting exchanges are looked at next, in microseconds.
    pub(super) look_us: u64,
    /// A backend may have fallen below its limit since the waiting exchanges were looked at.
    pub(super) room_made: bool,
    /// Connections that wait for room in their backend's queue of connections.
    pub(super) redials: VecDeque<Key>,
    /// When these connections are begun again, in microseconds.
    pub(super) redial_us: u64,
    /// The bytes that the sockets of connections in the second half of a limit had not got acknowledged after the first.
    pub(super) unacknowledged: HashMap<Key, usize>,
    /// The kinds of log lines that were written lately. Suppressed lines are reported later.
    pub(super) repeats: Repeats<Kind>,
    /// The records of exchanges that have ended, if they are kept.
    pub(super) records: Option<Vec<Record>>,
}

impl Ledger {
    pub(super) fn new(now_us: u64) -> Ledger {
        Ledger {
            outputs: VecDeque::new(),
            timers: Timers::new(now_us),
            due: Vec::new(),
            changed: Vec::new(),
            decoding: None,
            resumed: Vec::new(),
            tending: Vec::new(),
            turns: Vec::new(),
            borrowers: Vec::new(),
            lends_below: 0,
            feeding: VecDeque::new(),
            waiting: Waiting::default(),
            look_us: u64::MAX,
            room_made: false,
            redials: VecDeque::new(),
            redial_us: 0,
            unacknowledged: HashMap::new(),
            repeats: Repeats::new(),
            records: None,
        }
    }

    /// Notes that a mux has something to do.
    pub(super) fn tend(&mut self, mux: Key) {
        // An input concerns few muxes, and the latest ones again.
        if !self.tending.iter().rev().take(4).any(|&other| other == mux) {
            self.tending.push(mux);
        }
    }
}

/// Memory that is used again, so that the steady state allocates nothing.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Buffers for input and output.
    pub(super) buffers: Pool,
    /// The heads of exchanges that have ended, for their memory.
    pub(super) spare: Vec<SavedHead>,
    /// The head that is being decoded.
    pub(super) head: Head,
    /// The decoded fields of an HTTP/2 header block.
    pub(super) arena: Vec<u8>,
    /// The head or the frames that are being written.
    pub(super) text: Vec<u8>,
    /// The frames of the head in `text`.
    pub(super) frames: Vec<u8>,
    /// The URL of the redirect that is being written.
    pub(super) location: Vec<u8>,
    /// The cookie for the response that is being written.
    pub(super) cookie: Vec<u8>,
    /// The slots whose probes are due.
    pub(super) probes: Vec<usize>,
}

impl Scratch {
    pub(super) fn new() -> Scratch {
        Scratch {
            buffers: Pool::new(),
            spare: Vec::new(),
            head: Head::default(),
            arena: Vec::new(),
            text: Vec::new(),
            frames: Vec::new(),
            location: Vec::new(),
            cookie: Vec::new(),
            probes: Vec::new(),
        }
    }
}

/// Totals over all connections.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Clients, except those of the admin port.
    pub(super) clients: usize,
    /// Clients of the admin port.
    pub(super) admins: usize,
    /// Bytes by which the windows of streams have grown, until their clients have taken the content.
    pub(super) grown: u32,
    /// Streams of clients.
    pub(super) streams: usize,
    /// Bytes that the budget lends to muxes to clients.
    pub(super) lent: usize,
}

/// The state of the end of the process.
#[derive(Debug)]
pub(super) struct Shutdown {
    /// Each client's connection ends with its next response.
    pub(super) draining: bool,
    /// `/readyz` says that no further requests are wanted, though they are served.
    pub(super) unready: bool,
    /// The limit for an idle client connection in microseconds if the process ends; otherwise `NEVER`.
    pub(super) drain_idle_us: u64,
}

impl Shutdown {
    pub(super) fn new() -> Shutdown {
        Shutdown { draining: false, unready: false, drain_idle_us: NEVER }
    }
}

/// Returns the backends of a plan as metrics show them.
fn listing(plan: &Plan) -> Listing {
    let mut listing = Listing::new(plan.metrics_detail);
    for member in &plan.members {
        let address = match &member.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => path.display().to_string(),
        };
        let place = Place { slot: member.slot.into(), generation: member.generation };
        listing.add(&member.name, &address, place, member.weight, member.max);
    }
    plan.unresolved.iter().for_each(|name| listing.add_unresolved(name));
    for gone in &plan.gone {
        listing.add_gone(&gone.name, Place { slot: gone.slot.into(), generation: gone.generation });
    }
    listing
}

/// Returns the end of a sentence that names the backends without an address, or the first of them.
fn unresolved(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown = names[..names.len().min(SHOWN_NAMES)].join(", ");
    let more = if names.len() > SHOWN_NAMES { ", ..." } else { "" };
    format!(": no address is known for {shown}{more}")
}

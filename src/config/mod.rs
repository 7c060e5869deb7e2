//! What is to run: every option resolved and checked, whatever it came from.
//!
//! [`resolve`] makes a [`Config`] of the options given. Invariants: it has a backend at least, its
//! options do not contradict each other, and every number is within the bounds of its option.

mod plan;
mod resolve;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use crate::args::{Cidr, HostHeader, Mode};
pub use crate::balance::strategy::Strategy;
use crate::log::Level;
pub use plan::{Member, Plan};
pub use resolve::{Error, resolve};

/// A resolved and valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The backends, in the order given; never empty. With `demo` they are two at port 0 of
    /// loopback, whose ports are set once the echo backends are bound.
    pub backends: Vec<Backend>,
    /// True where no backend was given and the two default ones stand in.
    pub default_backends: bool,
    /// Worker processes asked for; `None` means one for each usable CPU.
    pub workers: Option<u32>,
    /// How a backend is picked.
    pub strategy: Strategy,
    /// Which log lines are kept.
    pub loglevel: Level,
    /// Whether messages are dumped to the log.
    pub trace: bool,
    /// One process, or a master with workers.
    pub mode: Mode,
    /// Whether to start and serve the two built-in echo backends.
    pub demo: bool,
    /// Every time limit a user can set.
    pub timeouts: Timeouts,
    /// Clients held at once by all workers together; `None` means as the descriptor limit allows.
    pub max_connections: Option<u32>,
    /// What backends get as Host.
    pub host_header: HostHeader,
    /// Peers whose X-Forwarded-* fields are believed.
    pub trust: Vec<Cidr>,
    /// The pseudonym for a Via field (RFC 9110, 7.6.3), where one is wanted.
    pub via: Option<String>,
    /// The account to run as once the listeners are bound.
    pub user: Option<String>,
    /// How backends' health is found out.
    pub health: Health,
    /// How long a backend that came back gets less than its share, in microseconds; 0 for not at all.
    pub slow_start_us: u64,
    /// Retries for each hundred requests.
    pub retry_percent: u32,
}

/// How backends' health is found out. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What a probe asks for.
    pub path: String,
    /// Between two probes of a backend; 0 for none.
    pub interval_us: u64,
    /// How long a probe may take.
    pub timeout_us: u64,
    /// Failures in a row that take a backend out.
    pub fails: u32,
    /// Probes passed in a row that bring it back.
    pub passes: u32,
    /// Whether a 5xx response is a failure.
    pub count_5xx: bool,
}

/// One configured backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// As the user wrote it, without `http://` and attributes: for messages and labels.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// Its share under the strategies that honour one; 1 to 65,535.
    pub weight: u16,
}

impl Backend {
    /// What the backend gets as Host where it is to have its own: its host and port as the user
    /// wrote them, and `localhost` for a socket in the file system, which has neither.
    pub fn authority(&self) -> &str {
        match self.address {
            Address::Tcp(_) => &self.name,
            Address::Unix(_) => "localhost",
        }
    }
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A stream socket in the file system.
    Unix(PathBuf),
}

/// Time limits, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to a backend.
    pub connect_us: u64,
    /// To receive a whole request head.
    pub request_us: u64,
    /// To the first byte of a response, and between body bytes in either direction.
    pub response_us: u64,
    /// Between requests on a connection.
    pub idle_us: u64,
    /// To finish what is running when draining.
    pub drain_us: u64,
}

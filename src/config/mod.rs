//! What is to run: every option resolved and checked, whatever it came from.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

pub use crate::balance::strategy::Strategy;
use crate::log::Level;

/// A resolved and valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The backends, in the order given; never empty.
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
}

/// One configured backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// As the user wrote it, attributes apart: for messages and labels.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// Its share under the strategies that honour one; 1 to 65,535.
    pub weight: u16,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A stream socket in the file system.
    Unix(PathBuf),
}

/// How many processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A master and its workers.
    Mp,
    /// One process that does everything.
    Sp,
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

/// What a backend gets as Host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client sent.
    Preserve,
    /// The backend's own configured host and port.
    Backend,
    /// This.
    Name(String),
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// An address in it.
    pub address: IpAddr,
    /// How many leading bits are the range's.
    pub prefix: u8,
}

impl Cidr {
    /// (stand-in)
    pub fn contains(&self, _address: IpAddr) -> bool { false }
}

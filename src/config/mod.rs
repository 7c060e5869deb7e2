//! The configuration: every option resolved and checked, regardless of its source.
//!
//! [`file::read`] adds the content of a configuration file to the options of the command line, and [`resolve`]
//! makes a [`Config`] of them. Invariants: no backend occurs twice, no options contradict each other, and every
//! number is within the limits of its option. Names of backends are not resolved here, because that takes time
//! and may fail.

mod bytes;
mod changes;
pub mod file;
mod plan;
mod probes;
mod resolve;
mod secrets;
mod sticky;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use crate::args::{
    Backend, Cidr, HealthCheck, Host, HostHeader, Mode, Setting, Source, Statuses, Target, TlsVersion,
};
pub use crate::balance::strategy::Strategy;
pub use crate::http::affinity::HashKey;
use crate::http::proxy_header::Version;
pub use crate::http::route::Route;
use crate::log::Level;
use crate::metrics::Detail;
pub use changes::Changes;
pub use plan::{Gone, Member, Plan};
pub use resolve::{Error, resolve};
pub use secrets::{Files, Secret, Secrets, StoredPair};
pub use sticky::{Sticky, StickyError};
pub use tls::{PairFiles, Tls, TlsError, TlsRules};

/// A resolved and valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The listening addresses. The first one is for traffic. No client could reach two of them.
    pub listen: Vec<Listen>,
    /// TLS with clients.
    pub tls: Tls,
    /// The backends, in the order given; none only if the file has an empty list. With `demo` they are two at port 0 of
    /// loopback, whose ports are set once the echo backends are bound.
    pub backends: Vec<Backend>,
    /// True if no backend was given and the two default ones are used.
    pub default_backends: bool,
    /// Worker processes asked for; `None` means one for each usable CPU.
    pub workers: Option<u32>,
    /// The strategy.
    pub strategy: Strategy,
    /// The part of a request whose hash decides, if the strategy picks by hash.
    pub hash_key: Option<HashKey>,
    /// The cookie that names the backend of a session.
    pub sticky: Option<Sticky>,
    /// The file with the key of that cookie, if it is not random.
    pub sticky_key: Option<PathBuf>,
    /// The lowest level of log lines that is kept.
    pub loglevel: Level,
    /// True if messages are dumped to the log.
    pub trace: bool,
    /// One process, or a master with workers.
    pub mode: Mode,
    /// True if the two built-in echo backends are started and used.
    pub demo: bool,
    /// Every time limit a user can set.
    pub timeouts: Timeouts,
    /// Clients held at once by all workers together; `None` means as the descriptor limit allows.
    pub max_connections: Option<u32>,
    /// The Host field for backends.
    pub host_header: HostHeader,
    /// True if that was configured. Otherwise a TLS backend with a name gets its own.
    pub host_header_given: bool,
    /// Peers whose X-Forwarded-* fields are believed.
    pub trust: Vec<Cidr>,
    /// The version of the PROXY header with which connections to backends begin; `None` for no header.
    pub send_proxy: Option<Version>,
    /// The pseudonym for a Via field (RFC 9110, 7.6.3); `None` for no Via.
    pub via: Option<String>,
    /// True if requests get ids.
    pub request_ids: bool,
    /// The account to run as once the listeners are bound.
    pub user: Option<String>,
    /// The file of CA certificates for backends, if given.
    pub ca_file: Option<PathBuf>,
    /// True if any certificate of a backend is accepted.
    pub insecure: bool,
    /// True if sessions with backends are logged in detail.
    pub tls_trace: bool,
    /// The health checks of backends.
    pub health: Health,
    /// The duration of slow start for a restored backend, in microseconds; 0 for none.
    pub slow_start_us: u64,
    /// The delay between a termination signal and the drain, in microseconds; 0 for none.
    pub drain_delay_us: u64,
    /// The maximum time that a worker's loop may be stuck, in microseconds; 0 for no limit.
    pub watchdog_us: u64,
    /// Retries for each hundred requests; 0 to 100.
    pub retry_percent: u32,
    /// The path of the metrics on the main port, if they are served there.
    pub metrics_path: Option<String>,
    /// The level of detail of metrics about a backend.
    pub metrics_detail: Detail,
    /// True if the plan is printed instead of run.
    pub check: bool,
    /// The configuration file, as it was named.
    pub file: Option<PathBuf>,
    /// The settings that differ from their defaults, with their sources. A repeatable option has one entry for
    /// each value, so each given backend has one. `check` has none.
    pub changed: Vec<Setting>,
}

/// The port under which https is served: that of the first listener with TLS.
pub fn https_port<'a>(mut listens: impl Iterator<Item = &'a Listen>) -> Option<u16> {
    listens.find(|listen| listen.tls && listen.purpose == Purpose::Traffic).map(|listen| listen.address.port())
}

/// A listening address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address. Port 0 means any free port.
    pub address: SocketAddr,
    /// The use of its connections.
    pub purpose: Purpose,
    /// True if its connections use TLS.
    pub tls: bool,
    /// True if each of its connections begins with a PROXY header.
    pub proxy_header: bool,
}

impl Listen {
    /// A listener without TLS and PROXY headers.
    pub fn plain(address: SocketAddr, purpose: Purpose) -> Listen {
        Listen { address, purpose, tls: false, proxy_header: false }
    }

    /// True if its clients are the balancer's clients, and not those of the admin port.
    pub fn is_public(&self) -> bool {
        self.purpose != Purpose::Admin
    }
}

/// The use of connections to a listening address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Requests for backends.
    Traffic,
    /// Requests that get the same URL under https as the reply.
    Redirect {
        /// The port in that URL.
        to_port: u16,
    },
    /// Requests for the metrics and for the state of the process.
    Admin,
}

/// The health checks of backends. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The type of a probe.
    pub check: HealthCheck,
    /// The path of a probe.
    pub path: String,
    /// The service that a probe of gRPC asks about; empty for the whole server.
    pub service: String,
    /// The statuses that pass a probe.
    pub status: Statuses,
    /// The Host field of a probe, if it is not the backend's own name.
    pub host: Option<String>,
    /// Between two probes of a backend; 0 for none.
    pub interval_us: u64,
    /// The timeout of a probe.
    pub timeout_us: u64,
    /// Failures in a row that take a backend out.
    pub fails: u32,
    /// Probes passed in a row that bring it back.
    pub passes: u32,
    /// True if a 5xx response is a failure.
    pub count_5xx: bool,
}

impl Config {
    /// The first listening address of a purpose.
    pub fn address(&self, purpose: Purpose) -> Option<SocketAddr> {
        self.listen.iter().find(|listen| listen.purpose == purpose).map(|listen| listen.address)
    }

    /// The addresses of the demo's backends; empty without a demo.
    pub fn demo_addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.backends.iter().filter(|_| self.demo).filter_map(Backend::address);
        addresses.filter_map(|address| if let Address::Tcp(address) = address { Some(address) } else { None }).collect()
    }
}

impl Backend {
    /// A backend at an address, with nothing special about it.
    pub fn at(address: SocketAddr) -> Backend {
        let target = Target::Tcp(Host::Ip(address.ip()), address.port());
        let (name, routes) = (address.to_string(), Vec::new());
        Backend { name, target, weight: 1, backup: false, max: 0, tls: false, h2c: false, routes }
    }

    /// The backend's own Host: its host and port as the user wrote them, and `localhost` for a Unix socket.
    pub fn authority(&self) -> &str {
        match self.target {
            // The port that the scheme has is left out (RFC 9110, 4.2.2).
            Target::Tcp(..) if self.tls => self.name.strip_suffix(":443").unwrap_or(&self.name),
            Target::Tcp(..) => &self.name,
            Target::Unix(_) => "localhost",
        }
    }

    /// True if the backend gets its own Host by default: most servers with TLS select a site by name.
    pub fn has_own_host(&self) -> bool {
        self.tls && matches!(self.target, Target::Tcp(Host::Name(_), _))
    }

    /// The name in the backend's certificate if it uses TLS: the host as configured.
    pub fn server_name(&self) -> String {
        match &self.target {
            _ if !self.tls => String::new(),
            Target::Tcp(Host::Ip(ip), _) => ip.to_string(),
            Target::Tcp(Host::Name(name), _) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            Target::Unix(_) => String::new(),
        }
    }

    /// The name to be resolved, if there is one.
    pub fn host_name(&self) -> Option<&str> {
        match &self.target {
            Target::Tcp(Host::Name(name), _) if self.address().is_none() => Some(name),
            _ => None,
        }
    }

    /// Its address, if that takes no lookup.
    pub fn address(&self) -> Option<Address> {
        match &self.target {
            Target::Unix(path) => Some(Address::Unix(path.clone())),
            Target::Tcp(Host::Ip(ip), port) => Some(Address::Tcp(SocketAddr::new(*ip, *port))),
            Target::Tcp(Host::Name(_), _) => None,
        }
    }
}

/// The address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The time that a request without any byte of its response gets after its client has ended its direction.
    pub half_close_us: u64,
    /// The time for a drain to finish running requests.
    pub drain_us: u64,
    /// Without a request on a connection, after which it is closed when the process ends.
    pub drain_idle_us: u64,
}

/// Returns the listeners that a configuration adds to those of the previous one. Returns an empty list if it also removes
/// or changes one.
pub fn added_listeners(config: &Config, before: &Config) -> Vec<Listen> {
    let mut added = config.listen.clone();
    for listen in &before.listen {
        match added.iter().position(|one| one == listen) {
            Some(at) => drop(added.remove(at)),
            None => return Vec::new(),
        }
    }
    added
}

/// Takes over settings from the previous configuration that cannot change in a running process, because
/// listeners, workers, their account and the shared data of backend sessions are created at the start. Returns
/// the long names of the options that would change.
pub fn keep_fixed(config: &mut Config, before: &Config) -> Vec<&'static str> {
    let mut names = Vec::new();
    let part = |config: &Config| {
        let traffic = config.address(Purpose::Traffic);
        let others: Vec<Listen> =
            config.listen.iter().skip(1).filter(|one| one.purpose == Purpose::Traffic).copied().collect();
        let is_redirect = |listen: &&Listen| matches!(listen.purpose, Purpose::Redirect { .. });
        let redirect = config.listen.iter().find(is_redirect).map(|listen| listen.address.port());
        (traffic.map(|at| at.port()), traffic.map(|at| at.ip()), config.address(Purpose::Admin), others, redirect)
    };
    let ((mut port, mut host, mut admin, mut others, mut redirect), was) = (part(config), part(before));
    keep(&mut names, "port", &mut port, &was.0);
    keep(&mut names, "host", &mut host, &was.1);
    keep(&mut names, "listen", &mut others, &was.3);
    keep(&mut names, "http-redirect", &mut redirect, &was.4);
    keep(&mut names, "admin", &mut admin, &was.2);
    config.listen.clone_from(&before.listen);
    if config.tls.has_certificate() != before.tls.has_certificate() || config.tls.dev != before.tls.dev {
        // A listener serves TLS from its start to its end.
        names.push(if config.tls.dev || before.tls.dev { "tls-dev" } else { "tls-cert" });
        (config.tls.pairs, config.tls.dev) = (before.tls.pairs.clone(), before.tls.dev);
    }
    keep(&mut names, "max-connections", &mut config.max_connections, &before.max_connections);
    keep(&mut names, "demo", &mut config.demo, &before.demo);
    keep(&mut names, "workers", &mut config.workers, &before.workers);
    keep(&mut names, "mode", &mut config.mode, &before.mode);
    keep(&mut names, "user", &mut config.user, &before.user);
    keep(&mut names, "ca-file", &mut config.ca_file, &before.ca_file);
    keep(&mut names, "insecure", &mut config.insecure, &before.insecure);
    keep(&mut names, "tls-trace", &mut config.tls_trace, &before.tls_trace);
    if config.demo || names.contains(&"demo") {
        config.backends.clone_from(&before.backends);
    }
    names
}

fn keep<T: Clone + PartialEq>(names: &mut Vec<&'static str>, name: &'static str, value: &mut T, before: &T) {
    if value != before {
        names.push(name);
        value.clone_from(before);
    }
}

//! The plan: the settings that can change at run time, and the backends. Workers follow it. The master
//! publishes it as bytes (`bytes`), and a worker that finds another edition reads them.

mod bytes;

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{
    Address, Backend, Cidr, Config, HashKey, Health, HealthCheck, HostHeader, Route, Statuses, Sticky, Strategy,
    Timeouts, TlsRules,
};
use crate::balance::{self, Rules};
use crate::digest;
use crate::http::proxy_header::Version;
use crate::limits::{
    DEFAULT_CONNECT_US, DEFAULT_DRAIN_IDLE_US, DEFAULT_DRAIN_US, DEFAULT_HALF_CLOSE_US, DEFAULT_IDLE_US,
    DEFAULT_METRICS_PATH, DEFAULT_REQUEST_US, DEFAULT_RESPONSE_US,
};
use crate::log::Level;
use crate::metrics::Detail;

/// The settings and the backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The strategy.
    pub strategy: Strategy,
    /// The part of a request whose hash decides, if the strategy picks by hash.
    pub hash_key: Option<HashKey>,
    /// The cookie that names the backend of a session.
    pub sticky: Option<Sticky>,
    /// The lowest level of log lines that is kept.
    pub loglevel: Level,
    /// True if messages are dumped to the log.
    pub trace: bool,
    /// Every time limit a user can set.
    pub timeouts: Timeouts,
    /// The Host field for backends.
    pub host_header: HostHeader,
    /// The rules for TLS with clients.
    pub tls: TlsRules,
    /// Peers whose X-Forwarded-* fields are believed.
    pub trust: Vec<Cidr>,
    /// The version of the PROXY header with which connections to backends begin; `None` for no header.
    pub send_proxy: Option<Version>,
    /// The pseudonym for a Via field; `None` for no Via.
    pub via: Option<String>,
    /// True if requests get ids.
    pub request_ids: bool,
    /// The health checks of backends.
    pub health: Health,
    /// The duration of slow start for a restored backend, in microseconds; 0 for none.
    pub slow_start_us: u64,
    /// The delay between a termination signal and the drain, in microseconds; 0 for none.
    pub drain_delay_us: u64,
    /// The maximum time that a worker's loop may be stuck, in microseconds; 0 for no limit.
    pub watchdog_us: u64,
    /// Retries for each hundred requests.
    pub retry_percent: u32,
    /// The path of the metrics on the main port; empty for none.
    pub metrics_path: String,
    /// The level of detail of metrics about a backend.
    pub metrics_detail: Detail,
    /// A number that changes whenever the CA certificates must be read again.
    pub authorities: u64,
    /// The routes of all backends, also of those without an address.
    pub routes: Vec<Route>,
    /// True if some backend gets the requests that match no route.
    pub takes_others: bool,
    /// Every address of every backend that has one.
    pub members: Vec<Member>,
    /// Names of the backends that have no address yet.
    pub unresolved: Vec<String>,
    /// Addresses that have left a backend of the plan, and whose counts are still in their slots.
    pub gone: Vec<Gone>,
}

/// An address that has left a backend. Its counts still belong to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its slot.
    pub slot: u16,
    /// Distinguishes it from other owners of the slot.
    pub generation: u64,
    /// The backend as configured.
    pub name: String,
}

/// One address of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its slot, which is its own for as long as the address is configured.
    pub slot: u16,
    /// Distinguishes it from earlier owners of the slot.
    pub generation: u64,
    /// The backend as configured.
    pub name: String,
    /// The backend's own Host.
    pub host: String,
    /// The address.
    pub address: Address,
    /// Its share.
    pub weight: u16,
    /// True if the backend serves only while no other is healthy.
    pub backup: bool,
    /// Requests in flight at most; 0 is no limit.
    pub max: u32,
    /// The name in its certificate; empty without TLS.
    pub server_name: String,
    /// True if it gets its own Host, regardless of the setting for others.
    pub own_host: bool,
    /// True if it uses HTTP/2 without TLS.
    pub h2c: bool,
    /// The places of its routes in the plan's list. If there are none, it gets the requests that match no route.
    pub routes: Vec<u16>,
}

impl Member {
    /// A backend at one of its addresses, without a slot yet. `own_host`: it may get its own Host by default.
    pub fn new(backend: &Backend, address: Address, own_host: bool) -> Member {
        Member {
            slot: 0,
            generation: 0,
            name: backend.name.clone(),
            host: backend.authority().into(),
            address,
            weight: backend.weight,
            backup: backend.backup,
            max: backend.max,
            server_name: backend.server_name(),
            own_host: own_host && backend.has_own_host(),
            h2c: backend.h2c,
            routes: Vec::new(),
        }
    }
}

impl Member {
    /// Returns a number that stands for its name and address, on every machine.
    pub fn identity(&self) -> u64 {
        let address = match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(path) => path.display().to_string(),
        };
        let hash = digest::sha256(&[self.name.as_bytes(), &[0], address.as_bytes()]);
        hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

impl Plan {
    /// The plan for a configuration: its settings, its backends, and the number of times that the CA
    /// certificates have been read again.
    pub fn new(config: &Config, authorities: u64, mut members: Vec<Member>, unresolved: Vec<String>) -> Plan {
        let routes = routes(&config.backends, &mut members);
        Plan {
            strategy: config.strategy,
            hash_key: config.hash_key.clone(),
            sticky: config.sticky.clone(),
            loglevel: config.loglevel,
            trace: config.trace,
            timeouts: config.timeouts,
            host_header: config.host_header.clone(),
            tls: config.tls.rules,
            trust: config.trust.clone(),
            send_proxy: config.send_proxy,
            via: config.via.clone(),
            request_ids: config.request_ids,
            health: config.health.clone(),
            slow_start_us: config.slow_start_us,
            drain_delay_us: config.drain_delay_us,
            watchdog_us: config.watchdog_us,
            retry_percent: config.retry_percent,
            metrics_path: config.metrics_path.clone().unwrap_or_default(),
            metrics_detail: config.metrics_detail,
            authorities,
            takes_others: routes.is_empty() || config.backends.iter().any(|backend| backend.routes.is_empty()),
            routes,
            members,
            unresolved,
            gone: Vec::new(),
        }
    }

    /// The default settings, and backends at these addresses in the first slots, which are not
    /// probed: for tests and benches.
    pub fn over(addresses: impl IntoIterator<Item = SocketAddr>) -> Plan {
        let member = |(slot, address): (usize, SocketAddr)| Member {
            slot: slot as u16,
            generation: 1,
            ..Member::new(&Backend::at(address), Address::Tcp(address), false)
        };
        Plan {
            strategy: Strategy::default(),
            hash_key: None,
            sticky: None,
            loglevel: Level::Info,
            trace: false,
            timeouts: Timeouts {
                connect_us: DEFAULT_CONNECT_US,
                request_us: DEFAULT_REQUEST_US,
                response_us: DEFAULT_RESPONSE_US,
                idle_us: DEFAULT_IDLE_US,
                half_close_us: DEFAULT_HALF_CLOSE_US,
                drain_us: DEFAULT_DRAIN_US,
                drain_idle_us: DEFAULT_DRAIN_IDLE_US,
            },
            host_header: HostHeader::Preserve,
            tls: TlsRules::default(),
            trust: Vec::new(),
            send_proxy: None,
            via: None,
            request_ids: true,
            health: Health {
                check: HealthCheck::Http,
                path: "/".into(),
                service: String::new(),
                status: Statuses::range(200, 499),
                host: None,
                interval_us: 0,
                timeout_us: 0,
                fails: 3,
                passes: 2,
                count_5xx: false,
            },
            slow_start_us: 0,
            drain_delay_us: 0,
            watchdog_us: 0,
            retry_percent: 20,
            metrics_path: DEFAULT_METRICS_PATH.into(),
            metrics_detail: Detail::Backend,
            authorities: 0,
            routes: Vec::new(),
            takes_others: true,
            members: addresses.into_iter().enumerate().map(member).collect(),
            unresolved: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// The settings of the balancer.
    pub fn rules(&self) -> Rules {
        Rules {
            strategy: self.strategy,
            fails: self.health.fails,
            passes: self.health.passes,
            interval_us: self.health.interval_us,
            slow_start_us: self.slow_start_us,
            retry_percent: self.retry_percent,
        }
    }

    /// The groups of the balancer, each as a list of slots. The first one is for requests that match no route, and the
    /// others are in the order of the routes.
    pub fn groups(&self) -> Vec<Vec<u16>> {
        let mut groups = vec![Vec::new(); 1 + self.routes.len()];
        for member in &self.members {
            match member.routes.as_slice() {
                [] => groups[0].push(member.slot),
                routes => routes.iter().for_each(|&route| groups[1 + usize::from(route)].push(member.slot)),
            }
        }
        groups
    }

    /// The members of the balancer.
    pub fn picked_from(&self) -> impl Iterator<Item = balance::Member> {
        self.members.iter().map(|member| balance::Member {
            slot: member.slot,
            weight: member.weight,
            backup: member.backup,
            max: member.max,
            identity: member.identity(),
        })
    }
}

/// Lists the routes of all backends, in their order, and notes the places of each member's routes.
fn routes(backends: &[Backend], members: &mut [Member]) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut places = HashMap::new();
    let mut of_backend = HashMap::new();
    for backend in backends.iter().filter(|backend| !backend.routes.is_empty()) {
        let place = |route: &Route| {
            *places.entry(route.clone()).or_insert_with(|| {
                routes.push(route.clone());
                (routes.len() - 1) as u16
            })
        };
        of_backend.insert(backend.name.as_str(), backend.routes.iter().map(place).collect::<Vec<u16>>());
    }
    for member in members {
        member.routes = of_backend.get(member.name.as_str()).cloned().unwrap_or_default();
    }
    routes
}

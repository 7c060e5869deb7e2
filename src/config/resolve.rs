//! From the options given to a whole configuration: defaults filled in, contradictions refused.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::probes;
use super::sticky::{self, Sticky, StickyError};
use super::tls::{self, Tls, TlsError};
use super::{
    Backend, Config, Health, HealthCheck, HostHeader, Listen, Mode, Purpose, Statuses, Strategy, Timeouts, https_port,
};
use crate::args::{FLAGS, Given, Host, Options, Setting, Source, Target};
use crate::limits::{
    DEFAULT_BACKEND_PORTS, DEFAULT_CONNECT_US, DEFAULT_DRAIN_IDLE_US, DEFAULT_DRAIN_US, DEFAULT_HALF_CLOSE_US,
    DEFAULT_HEALTH_FAILS, DEFAULT_HEALTH_INTERVAL_US, DEFAULT_HEALTH_PASSES, DEFAULT_HEALTH_TIMEOUT_US,
    DEFAULT_IDLE_US, DEFAULT_METRICS_PATH, DEFAULT_PORT, DEFAULT_REQUEST_US, DEFAULT_RESPONSE_US,
    DEFAULT_RETRY_PERCENT, DEFAULT_WATCHDOG_US,
};
use crate::log::Level;
use crate::metrics::Detail;

/// The reason why individually valid options do not make a configuration; always the user's fault. Displayed,
/// it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Two backends are at one place.
    BackendTwice {
        /// The source of the first.
        first: Source,
        /// The source of the second.
        second: Source,
        /// The second, as written.
        name: String,
        /// True if they have different routes.
        differ: bool,
    },
    /// Two listening addresses would take the same clients.
    ListenersClash {
        /// The option that asks for the second address.
        source: Source,
        /// The second address.
        address: SocketAddr,
        /// The first address.
        held: SocketAddr,
    },
    /// A listener with TLS has no certificate.
    TlsWithoutCertificate {
        /// The option that asks for TLS.
        source: Source,
        /// The address.
        address: SocketAddr,
    },
    /// A listener demands PROXY headers, and no peer may send one.
    ProxyWithoutTrust {
        /// The option that asks for PROXY headers.
        source: Source,
        /// The address.
        address: SocketAddr,
    },
    /// No listener has TLS, so there is no URL under https to redirect to.
    RedirectWithoutTls {
        /// The source of the option for redirects.
        source: Source,
    },
    /// The demo brings its own backends.
    DemoWithBackends {
        /// The source of the demo option.
        demo: Source,
        /// The source of the first backend.
        backend: Source,
    },
    /// The demo's backends read no PROXY headers.
    DemoWithHeaders {
        /// The source of the option for PROXY headers.
        source: Source,
    },
    /// The options about probes contradict each other, or the backends.
    Probe(probes::Error),
    /// One process has no master that could watch it.
    WatchdogInOneProcess {
        /// The source of the watchdog option.
        source: Source,
    },
    /// The options for TLS with clients contradict each other.
    Tls(TlsError),
    /// The cookie of sessions.
    Sticky(StickyError),
    /// One process has no workers.
    WorkersInOneProcess {
        /// The source of the number of workers.
        source: Source,
        /// The number of workers.
        workers: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A name in a spec has no control characters, and a bounded length.
            Error::BackendTwice { first, second, name, differ } => {
                let more =
                    if *differ { &format!(", with all its routes, as in {name},for=a.test,for=b.test") } else { "" };
                write!(f, "{second} '{name}': the same backend as at {}; accepted: each once{more}", first.place())
            }
            Error::ListenersClash { source, address, held } => write!(
                f,
                "{source} '{address}': clients connect there, at {held}; accepted: another port, or another address"
            ),
            Error::TlsWithoutCertificate { source, address } => write!(
                f,
                "{source} '{address}': tls needs a certificate; accepted: --tls-cert and --tls-key, --tls-dev, or no tls"
            ),
            Error::ProxyWithoutTrust { source, address } => write!(
                f,
                "{source} '{address}': no peer may send a PROXY header; accepted: --trust with the peers, or no proxy"
            ),
            Error::RedirectWithoutTls { source } => write!(
                f,
                "{source}: nothing is served under https; accepted: off, or a certificate (--tls-cert, --tls-dev)"
            ),
            Error::DemoWithBackends { demo, backend } => write!(
                f,
                "{} and {} are contradictory, as the demo starts its own backends; accepted: one of them",
                demo.place(),
                backend.place()
            ),
            Error::DemoWithHeaders { source } => {
                write!(f, "{source}: the demo's backends read no PROXY headers; accepted: off, or other backends")
            }
            Error::Probe(error) => error.fmt(f),
            Error::WatchdogInOneProcess { source } => {
                write!(f, "{source}: contradicts mode sp, which has no master that watches; accepted: off, or mode mp")
            }
            Error::Tls(error) => error.fmt(f),
            Error::Sticky(error) => error.fmt(f),
            Error::WorkersInOneProcess { source, workers } => {
                write!(f, "{source} '{workers}': contradicts mode sp, which is one process; accepted: 1, or mode mp")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Makes a configuration from the options, or returns all errors.
pub fn resolve(options: Options) -> Result<Config, Vec<Error>> {
    let errors = contradictions(&options);
    if !errors.is_empty() {
        return Err(errors);
    }
    let (timeouts, listening, tls) = (timeouts(&options), listening(&options), Tls::of(&options));
    let sticky = Sticky::of(&options);
    let demo = or(options.demo, false);
    let (strategy, hash_key) = or(options.strategy, (Strategy::default(), None));
    let check = or(options.health_check, HealthCheck::Http);
    let default_backends = options.backends.is_empty() && !demo && !options.no_default_backends;
    let mut backends: Vec<Backend> = options.backends.into_iter().map(|given| given.value).collect();
    if default_backends || demo {
        let ports = if demo { [0; 2] } else { DEFAULT_BACKEND_PORTS };
        backends.extend(ports.map(|port| Backend::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))));
    }
    Ok(Config {
        listen: listening.into_iter().map(|(listen, _)| listen).collect(),
        tls,
        backends,
        default_backends,
        workers: options.workers.map(|given| given.value),
        strategy,
        hash_key,
        sticky,
        sticky_key: options.sticky_key.map(|given| given.value),
        loglevel: or(options.loglevel, Level::Info),
        trace: or(options.trace, false),
        mode: or(options.mode, DEFAULT_MODE),
        demo,
        timeouts,
        max_connections: options.max_connections.map(|given| given.value),
        host_header_given: options.host_header.is_some(),
        host_header: or(options.host_header, HostHeader::Preserve),
        trust: options.trust.iter().map(|given| given.value).collect(),
        send_proxy: options.send_proxy.and_then(|given| given.value),
        via: options.via.map(|given| given.value),
        request_ids: or(options.request_id, true),
        user: options.user.map(|given| given.value),
        ca_file: options.ca_file.map(|given| given.value),
        insecure: or(options.insecure, false),
        tls_trace: or(options.tls_trace, false),
        health: Health {
            check,
            status: or(options.health_status, passing_statuses(options.health_path.is_some())),
            path: or(options.health_path, "/".into()),
            service: options.health_service,
            host: options.health_host.map(|given| given.value),
            interval_us: match check {
                HealthCheck::Off => 0,
                _ => or(options.health_interval_us, DEFAULT_HEALTH_INTERVAL_US),
            },
            timeout_us: or(options.health_timeout_us, DEFAULT_HEALTH_TIMEOUT_US),
            fails: or(options.health_fails, DEFAULT_HEALTH_FAILS),
            passes: or(options.health_passes, DEFAULT_HEALTH_PASSES),
            count_5xx: or(options.health_5xx, false),
        },
        slow_start_us: or(options.slow_start_us, 0),
        drain_delay_us: or(options.drain_delay_us, 0),
        watchdog_us: or(options.watchdog_us, DEFAULT_WATCHDOG_US),
        retry_percent: or(options.retry_percent, DEFAULT_RETRY_PERCENT),
        metrics_path: or(options.metrics_path, Some(DEFAULT_METRICS_PATH.into())),
        metrics_detail: or(options.metrics_detail, Detail::default()),
        check: or(options.check, false),
        file: options.config.map(|given| given.value),
        changed: options.settings.into_iter().filter(is_changed).collect(),
    })
}

/// Without a path of the user's, any answer shows that the backend serves: many answer 401 or 404 at `/`.
fn passing_statuses(path_is_given: bool) -> Statuses {
    Statuses::range(200, if path_is_given { 399 } else { 499 })
}

const DEFAULT_MODE: Mode = if cfg!(target_os = "linux") { Mode::Mp } else { Mode::Sp };

fn timeouts(options: &Options) -> Timeouts {
    let or = |given: &Option<Given<u64>>, default_us| given.as_ref().map_or(default_us, |given| given.value);
    Timeouts {
        connect_us: or(&options.connect_us, DEFAULT_CONNECT_US),
        request_us: or(&options.request_us, DEFAULT_REQUEST_US),
        response_us: or(&options.response_us, DEFAULT_RESPONSE_US),
        idle_us: or(&options.idle_us, DEFAULT_IDLE_US),
        half_close_us: or(&options.half_close_us, DEFAULT_HALF_CLOSE_US),
        drain_us: or(&options.drain_us, DEFAULT_DRAIN_US),
        drain_idle_us: or(&options.drain_idle_us, DEFAULT_DRAIN_IDLE_US),
    }
}

fn or<T>(given: Option<Given<T>>, default: T) -> T {
    given.map_or(default, |given| given.value)
}

/// True if the options give a certificate for clients.
fn has_certificate(options: &Options) -> bool {
    Tls::of(options).has_certificate()
}

/// The listening addresses, each with the option that asks for it. The first one is there without any option.
fn listening(options: &Options) -> Vec<(Listen, Option<Source>)> {
    let host = options.host.as_ref().map_or(Ipv4Addr::UNSPECIFIED.into(), |given| given.value);
    let address = SocketAddr::new(host, options.port.as_ref().map_or(DEFAULT_PORT, |given| given.value));
    let first = Listen { tls: has_certificate(options), ..Listen::plain(address, Purpose::Traffic) };
    let mut all = vec![(first, None)];
    for Given { value, source } in &options.listen {
        let (address, purpose) = (value.address(host), Purpose::Traffic);
        let listen = Listen { address, purpose, tls: value.tls, proxy_header: value.proxy_header };
        all.push((listen, Some(source.clone())));
    }
    if let Some(Given { value: Some(port), source }) = &options.http_redirect {
        let to_port = https_port(all.iter().map(|(listen, _)| listen)).unwrap_or_default();
        let listen = Listen::plain(SocketAddr::new(host, *port), Purpose::Redirect { to_port });
        all.push((listen, Some(source.clone())));
    }
    if let Some(Given { value: Some(address), source }) = &options.admin {
        all.push((Listen::plain(*address, Purpose::Admin), Some(source.clone())));
    }
    all
}

/// True if a setting must be reported. A user who gives `--check` knows of it.
fn is_changed(setting: &Setting) -> bool {
    setting.name != "check" && !FLAGS.iter().any(|flag| flag.long == setting.name && flag.is_default(&setting.value))
}

/// Finds contradictions between individually valid options.
fn contradictions(options: &Options) -> Vec<Error> {
    let mut errors: Vec<Error> = tls::contradictions(options).into_iter().map(Error::Tls).collect();
    errors.extend(sticky::contradictions(options).into_iter().map(Error::Sticky));
    let demo = options.demo.as_ref().filter(|given| given.value);
    if let (Some(demo), Some(backend)) = (demo, options.backends.first()) {
        errors.push(Error::DemoWithBackends { demo: demo.source.clone(), backend: backend.source.clone() });
    }
    if let (Some(_), Some(Given { value: Some(_), source })) = (demo, &options.send_proxy) {
        errors.push(Error::DemoWithHeaders { source: source.clone() });
    }
    let mode = options.mode.as_ref().map_or(DEFAULT_MODE, |given| given.value);
    if let (Mode::Sp, Some(Given { value: workers @ 2.., source })) = (mode, &options.workers) {
        errors.push(Error::WorkersInOneProcess { source: source.clone(), workers: *workers });
    }
    errors.extend(probes::contradictions(options).into_iter().map(Error::Probe));
    if let (Mode::Sp, Some(Given { value: 1.., source })) = (mode, &options.watchdog_us) {
        errors.push(Error::WatchdogInOneProcess { source: source.clone() });
    }
    let mut before: Vec<SocketAddr> = Vec::new();
    let listening = listening(options);
    if let Some(Given { value: Some(_), source }) = &options.http_redirect
        && https_port(listening.iter().map(|(listen, _)| listen)).is_none()
    {
        errors.push(Error::RedirectWithoutTls { source: source.clone() });
    }
    for (Listen { address, tls, proxy_header, .. }, source) in listening {
        if let Some(source) = source.clone().filter(|_| proxy_header && options.trust.is_empty()) {
            errors.push(Error::ProxyWithoutTrust { source, address });
        }
        if let Some(source) = source.clone().filter(|_| tls && !has_certificate(options)) {
            errors.push(Error::TlsWithoutCertificate { source, address });
        }
        if let (Some(source), Some(&held)) = (source, before.iter().find(|&&held| clash(address, held))) {
            errors.push(Error::ListenersClash { source, address, held });
        }
        before.push(address);
    }
    let mut places = BTreeMap::new();
    for Given { value: spec, source } in &options.backends {
        match places.get(&place(&spec.target)) {
            None => drop(places.insert(place(&spec.target), (source, &spec.routes))),
            Some(&(first, routes)) => errors.push(Error::BackendTwice {
                first: first.clone(),
                second: source.clone(),
                name: spec.name.clone(),
                differ: *routes != spec.routes,
            }),
        }
    }
    errors
}

/// True if two listeners would accept the same clients. `[::]` also accepts IPv4.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
}

/// A key that is equal for all notations of one address. Case is ignored in names.
fn place(target: &Target) -> String {
    match target {
        Target::Tcp(Host::Ip(ip), port) => SocketAddr::new(*ip, *port).to_string(),
        Target::Tcp(Host::Name(name), port) => format!("{}:{port}", name.to_ascii_lowercase()),
        Target::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests;

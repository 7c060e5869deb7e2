//! `--check`: does and undoes everything that a start does before its first fork, so that every reason for a
//! failure is known. Then it resolves every name, and dials and probes every address.
//!
//! A reason why a start would fail is a problem, except an address in use: the checked balancer may be running.
//! A backend that does not answer, that fails its probe, or whose name is not found is a warning in the log: it
//! may recover later, and a start does not wait for it either.

mod ask;
mod certificates;
mod dial;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use self::ask::Request;
use self::dial::{Dialled, Peer, Rules, dial, milliseconds};
use crate::args::Options;
use crate::collections::order;
use crate::config::{Address, Backend, Config, HealthCheck, Host, HostHeader, Listen, Mode, Purpose, Target};
use crate::http::route;
use crate::limits::{ADDRESSES, NAMES_WAIT_US};
use crate::log::Level;
use crate::metrics::Block;
use crate::process::demo;
use crate::process::duties::names::Names;
use crate::process::duties::{cookie_key, secrets};
use crate::process::exit::Failure;
use crate::process::journal::Journal;
use crate::process::start::memory::share_memory;
use crate::process::start::{account, listen};
use crate::process::start::{begin_tls, give_up_root, shares, worker_count};
use crate::process::upgrade::inherited;
use crate::reactor::Reactor;
use crate::sys::{self, clock};

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The plan in lines; empty if it is unknown.
    pub plan: String,
    /// The reasons why a start would fail, one line each.
    pub problems: Vec<String>,
}

/// Tries everything that a start does, and describes the plan. Without a configuration, only the `options` are
/// tried that no file changes. Warnings go to stderr.
///
/// The process is unusable afterwards: if another account is configured, it has become that account, so that
/// backends are dialled as in a real run.
pub fn check(config: Option<&Config>, options: &Options) -> Checked {
    let mut journal = Journal::new(Level::Warn);
    let mut checked = Checked::default();
    for remark in &options.remarks {
        journal.line(Level::Warn, "config", format_args!("{remark}"));
    }
    // As a start does, before privileges are given up.
    let user = sys::user::current();
    let certificates = match config.filter(|config| config.tls.has_certificate()) {
        Some(config) => certificates::examine(&config.tls, &mut journal, &mut checked.problems),
        None => String::new(),
    };
    let key = config.map_or(Ok(()), cookie_key::check);
    try_system(&mut checked.problems, &mut journal, config, options);
    let Some(config) = config else { return checked };
    if sys::user::current() != user {
        for text in secrets::files::unreadable(&config.tls) {
            journal.line(Level::Warn, "tls", format_args!("{text}"));
        }
        if let (Ok(()), Err(text)) = (&key, cookie_key::check(config)) {
            journal.line(Level::Warn, "config", format_args!("{text}"));
        }
    }
    checked.problems.extend(key.err());
    let found = match share_memory(inherited::records(worker_count(config))) {
        Ok(memory) => look_up(&mut journal, memory.region.globals(), &config.backends),
        Err(failure) => {
            checked.problems.push(failure.message);
            BTreeMap::new()
        }
    };
    let routes: Vec<Route<'_>> = config.backends.iter().map(|backend| Route::new(backend, &found)).collect();
    let tls = begin_tls(&mut journal, config).map_err(|failure| checked.problems.push(failure.message));
    let peers: Vec<Peer<'_>> = routes.iter().flat_map(|route| route.peers(config)).collect();
    if peers.len() > ADDRESSES {
        let count = peers.len();
        checked.problems.push(format!("the backends have {count} addresses; accepted: at most {ADDRESSES}"));
        return checked;
    }
    // Those of the demo are not there yet.
    let peers = if config.demo { Vec::new() } else { peers };
    let tls = tls.ok().flatten();
    let rules = Rules {
        tls: tls.as_ref(),
        connect_us: config.timeouts.connect_us,
        health: &config.health,
        send_proxy: config.send_proxy,
    };
    match dial(&peers, &rules) {
        Ok(outcomes) => checked.plan = plan(&mut journal, config, &certificates, &routes, outcomes),
        Err(error) => checked.problems.push(format!("cannot wait for events: {error}")),
    }
    checked
}

/// Tries the system resources of a start: the account, the limit of open files, the listeners. Each listener is
/// closed again.
fn try_system(problems: &mut Vec<String>, journal: &mut Journal, config: Option<&Config>, options: &Options) {
    let mut refused = |failure: Failure| problems.push(failure.message);
    let user = options.user.as_ref().map(|given| &given.value).or(config.and_then(|config| config.user.as_ref()));
    let account =
        user.and_then(|name| account::look_up(name).map_err(&mut refused).ok().map(|account| (name, account)));
    let open_files = sys::limit::raise_open_files().map_err(Failure::of("learn the limit of open files"));
    let open_files = open_files.map_err(&mut refused).unwrap_or(u64::MAX);
    let count = config.map_or(1, worker_count);
    for listen in listening(config, options) {
        let address = listen.address;
        match listen::can_open(listen, count) {
            Ok(()) => {}
            // By the program that the check is made for, most likely, if that runs.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let text = format_args!("cannot listen on {address} now: {error}; a start needs it to be free");
                journal.line(Level::Warn, "check", text);
            }
            Err(error) => refused(Failure::of(format_args!("listen on {address}"))(error)),
        }
    }
    if config.is_some_and(|config| config.demo) {
        let _ = demo::Backends::open().map_err(&mut refused);
    }
    if let Some((name, account)) = account {
        let _ = give_up_root(journal, name, account).map_err(&mut refused);
    }
    if let Some(config) = config {
        shares(journal, config, worker_count(config), open_files);
    }
}

/// The listening addresses of a start. Without a configuration, those that options name and no file changes.
fn listening(config: Option<&Config>, options: &Options) -> Vec<Listen> {
    if let Some(config) = config {
        return config.listen.clone();
    }
    // Without --port, the file may have named another port than the default.
    let traffic = options.port.as_ref().map(|port| {
        let host = options.host.as_ref().map_or(Ipv4Addr::UNSPECIFIED.into(), |given| given.value);
        Listen::plain(SocketAddr::new(host, port.value), Purpose::Traffic)
    });
    let admin = options.admin.as_ref().and_then(|given| given.value);
    let admin = admin.map(|address| Listen::plain(address, Purpose::Admin));
    // Two options for one address are a problem that is reported elsewhere.
    let admin = admin.filter(|admin| traffic.is_none_or(|traffic| traffic.address != admin.address));
    let listeners =
        options.listen.iter().filter_map(|given| Some(SocketAddr::new(given.value.host?, given.value.port)));
    let others = listeners.map(|address| Listen::plain(address, Purpose::Traffic));
    traffic.into_iter().chain(others).chain(admin).collect()
}

/// The result for a name: its addresses, at least one, or the reason why there are none.
type Found = Result<Vec<IpAddr>, String>;

/// Resolves the names of the backends, as long as a start would wait for them. Failures are logged.
fn look_up(journal: &mut Journal, globals: Block, backends: &[Backend]) -> BTreeMap<String, Found> {
    let wanted: Vec<&str> = backends.iter().filter_map(Backend::host_name).collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    match follow(&wanted, journal, globals) {
        Ok(names) => order::map(wanted.iter().map(|&name| (name.to_owned(), found(&names, journal, name)))),
        Err(error) => {
            journal.line(Level::Warn, "dns", format_args!("names cannot be looked up: {error}"));
            order::map(wanted.iter().map(|&name| (name.to_owned(), Err("not looked up".to_owned()))))
        }
    }
}

/// Resolves the names until all have a result, or until the time limit.
fn follow(wanted: &[&str], journal: &mut Journal, globals: Block) -> io::Result<Names> {
    let mut reactor = Reactor::new()?;
    let until_us = clock::monotonic_us() + NAMES_WAIT_US;
    let mut names = Names::new(&reactor, clock::monotonic_us())?;
    names.want(wanted, clock::monotonic_us());
    loop {
        let now_us = clock::monotonic_us();
        names.expire(now_us);
        names.carry_out(&reactor, journal, globals, now_us);
        if now_us >= until_us || !wanted.iter().any(|name| names.is_undecided(name)) {
            return Ok(names);
        }
        reactor.poll(names.next_us().min(until_us).saturating_sub(now_us))?;
        let now_us = clock::monotonic_us();
        (0..).map_while(|at| reactor.event(at)).for_each(|event| names.on_event(event, now_us));
    }
}

fn found(names: &Names, journal: &mut Journal, name: &str) -> Found {
    match names.addresses(name) {
        [] if names.is_undecided(name) => {
            let reason = format!("no answer within {}", milliseconds(NAMES_WAIT_US));
            journal.line(Level::Warn, "dns", format_args!("{name} cannot be looked up: {reason}"));
            Err(reason)
        }
        // The reason was already logged.
        [] => Err("not found".to_owned()),
        addresses => Ok(addresses.to_vec()),
    }
}

/// A backend and its addresses.
struct Route<'a> {
    backend: &'a Backend,
    addresses: Vec<Address>,
    /// The reason why there are none.
    unresolved: Option<&'a str>,
}

impl Route<'_> {
    fn new<'a>(backend: &'a Backend, found: &'a BTreeMap<String, Found>) -> Route<'a> {
        let found = match (backend.address(), &backend.target) {
            (Some(address), _) => Ok(vec![address]),
            (None, Target::Tcp(Host::Name(name), port)) => match found.get(name) {
                Some(Ok(ips)) => Ok(ips.iter().map(|&ip| Address::Tcp(SocketAddr::new(ip, *port))).collect()),
                Some(Err(reason)) => Err(reason.as_str()),
                None => Err("not looked up"),
            },
            (None, _) => Ok(Vec::new()),
        };
        match found {
            Ok(addresses) => Route { backend, addresses, unresolved: None },
            Err(reason) => Route { backend, addresses: Vec::new(), unresolved: Some(reason) },
        }
    }

    /// The peers to dial, each with the request of its probe if a start would send one.
    fn peers<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = Peer<'a>> {
        let (server_name, h2c) = (self.backend.server_name(), self.backend.h2c);
        let health = &config.health;
        let asks = health.check.asks() && health.interval_us > 0;
        let service = (health.check == HealthCheck::Grpc).then_some(health.service.as_str());
        let host = match (&config.health.host, &config.host_header) {
            (Some(name), _) | (None, HostHeader::Name(name)) => name,
            _ => self.backend.authority(),
        };
        let scheme = if server_name.is_empty() { "http" } else { "https" };
        let request = asks.then(|| Request { path: &health.path, scheme, host: host.to_owned(), service });
        self.addresses.iter().map(move |address| Peer {
            address,
            server_name: server_name.clone(),
            h2c,
            request: request.clone(),
        })
    }
}

/// Describes the plan, one item per line, beginning with its kind. Faults go to the journal too. `outcomes`: of
/// the routes' addresses, in order. `certificates`: the lines about those.
fn plan(
    journal: &mut Journal,
    config: &Config,
    certificates: &str,
    routes: &[Route<'_>],
    outcomes: Vec<Dialled>,
) -> String {
    let mut out = String::new();
    for listen in &config.listen {
        let kind = match listen.purpose {
            Purpose::Traffic => "listener",
            Purpose::Redirect { .. } => "redirect",
            Purpose::Admin => "admin",
        };
        line(&mut out, kind, &listener(listen));
    }
    out.push_str(certificates);
    match (config.mode, worker_count(config)) {
        (Mode::Sp, _) => line(&mut out, "mode", "sp, one process"),
        (Mode::Mp, 1) => line(&mut out, "mode", "mp, 1 worker"),
        (Mode::Mp, count) => line(&mut out, "mode", &format!("mp, {count} workers")),
    }
    let key = config.hash_key.as_ref().map_or(String::new(), |key| format!(":{key}"));
    line(&mut out, "strategy", &format!("{}{key}", config.strategy.name));
    for text in without_weight(&config.backends) {
        journal.line(Level::Warn, "check", format_args!("{text}"));
    }
    let mut outcomes = outcomes.into_iter();
    for Route { backend, addresses, unresolved } in routes {
        let name = &backend.name;
        line(&mut out, "backend", &told(config, backend));
        if let Some(reason) = unresolved {
            line(&mut out, "", &format!("  unresolved ({reason})"));
        }
        for (address, outcome) in addresses.iter().zip(outcomes.by_ref()) {
            let address = match address {
                Address::Tcp(address) => address.to_string(),
                Address::Unix(path) => format!("unix:{}", path.display()),
            };
            let Dialled { connected, agreed, probed } = outcome;
            let (what, reason) = match (connected, agreed, probed) {
                (Ok(us), Ok(agreed), Ok(probed)) => {
                    let more: String = agreed.into_iter().chain(probed).map(|part| format!(", {part}")).collect();
                    line(&mut out, "", &format!("  {address} reachable ({}){more}", milliseconds(us)));
                    continue;
                }
                (Ok(_), Ok(_), Err(reason)) => ("unhealthy", reason),
                (Ok(_), Err(reason), _) => ("unusable", reason),
                (Err(reason), ..) => ("unreachable", reason),
            };
            line(&mut out, "", &format!("  {address} {what} ({reason})"));
            journal.line(Level::Warn, "check", format_args!("backend {name} is {what} at {address} ({reason})"));
        }
    }
    for setting in &config.changed {
        line(&mut out, "setting", &format!("{} = {} ({})", setting.name, setting.value, setting.source.place()));
    }
    out
}

/// Returns a warning for each group of backends that all have the weight 0: its requests get 503.
fn without_weight(backends: &[Backend]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut look = |route: Option<&route::Route>| {
        let is_in = |backend: &Backend| route.map_or(backend.routes.is_empty(), |one| backend.routes.contains(one));
        if !backends.iter().any(|backend| backend.weight > 0 && is_in(backend)) {
            let of = route.map_or(String::new(), |route| format!(" for {route}"));
            let text = format!("all backends{of} have the weight 0: requests without a session get 503");
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
    };
    for backend in backends {
        backend.routes.iter().for_each(|route| look(Some(route)));
        if backend.routes.is_empty() {
            look(None);
        }
    }
    warnings
}

fn listener(listen: &Listen) -> String {
    let any = if listen.address.port() == 0 { ", any free port" } else { "" };
    let tls = if listen.tls { ", tls" } else { "" };
    let proxy = if listen.proxy_header { ", PROXY header" } else { "" };
    format!("{}{any}{tls}{proxy}", listen.address)
}

/// The properties of a backend.
fn told(config: &Config, backend: &Backend) -> String {
    let Backend { name, weight, backup, max, tls, h2c, .. } = backend;
    let mut text = if config.demo { "the demo's own, on any free port".to_owned() } else { name.clone() };
    // Writing to a String cannot fail.
    let speaks = match (tls, h2c) {
        (true, _) => "TLS, HTTP/2 or HTTP/1.1",
        (_, true) => "HTTP/2, no TLS",
        (false, false) => "HTTP/1.1, no TLS",
    };
    let _ = write!(text, ": {speaks}, weight {weight}");
    if *backup {
        text.push_str(", backup");
    }
    if *max != 0 {
        let _ = write!(text, ", max {max}");
    }
    backend.routes.iter().for_each(|route| _ = write!(text, ", for {route}"));
    if config.default_backends {
        text.push_str(", by default");
    }
    text
}

/// Adds a line. Control characters in user text do not split it.
fn line(out: &mut String, kind: &str, text: &str) {
    let _ = write!(out, "{kind:10}");
    for c in text.chars() {
        let _ = if c.is_control() { write!(out, "\\x{:02x}", u32::from(c)) } else { write!(out, "{c}") };
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_with_a_digit_where_they_need_one() {
        assert_eq!(milliseconds(432), "0.4 ms");
        assert_eq!(milliseconds(2_000_000), "2000 ms");
    }

    #[test]
    fn a_group_of_which_no_backend_gets_requests_is_reported() {
        let backend = |weight, routes: &[&str]| {
            let mut backend = Backend::at(([127, 0, 0, 1], 1).into());
            backend.weight = weight;
            backend.routes = routes.iter().map(|host| route::Route::new(host, "")).collect();
            backend
        };
        let none: [&str; 0] = [];
        assert_eq!(without_weight(&[]), none);
        assert_eq!(without_weight(&[backend(0, &[]), backend(1, &[])]), none);
        let text = |of: &str| format!("all backends{of} have the weight 0: requests without a session get 503");
        assert_eq!(without_weight(&[backend(0, &[]), backend(0, &[])]), [text("")]);
        let routed = [backend(1, &[]), backend(0, &["a.test", "b.test"]), backend(2, &["b.test"])];
        assert_eq!(without_weight(&routed), [text(" for a.test")]);
    }

    #[test]
    fn a_report_stays_on_its_line() {
        let mut out = String::new();
        line(&mut out, "backend", "unix:/a\nb\x1b");
        assert_eq!(out, "backend   unix:/a\\x0ab\\x1b\n");
    }
}

//! A start: everything that can fail before a connection is served.

pub(super) mod account;
pub(super) mod cpus;
pub(super) mod listen;
pub(super) mod memory;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use self::account::Account;
use self::listen::Listener;
use self::memory::Memory;
use crate::args::Options;
use crate::config::{self, Config, Listen, Mode, Purpose};
use crate::limits::{self, SECOND_US};
use crate::log::Level;
use crate::metrics::Global;
use crate::process::demo;
use crate::process::duties::{Duties, cookie_key};
use crate::process::exit::{FAILED, Failure, USAGE};
use crate::process::journal::{Journal, Line};
use crate::process::upgrade::inherited::{self, Inherited, Taken};
use crate::process::upgrade::old_workers::OldWorkers;
use crate::sys::fork;
use crate::sys::signal::Signals;
use crate::sys::{self, clock};
use crate::tls;

/// Does all that can fail before anything is served.
pub(super) fn start(
    inherited: &Inherited,
    mut config: Config,
    options: Options,
    contents: Option<Vec<u8>>,
) -> Result<(Parts, Vec<Line>), Failure> {
    let mut journal = Journal::new(config.loglevel);
    let signals = Signals::install().map_err(Failure::of("handle signals"))?;
    let account = config.user.as_deref().map(account::look_up).transpose()?;
    let open_files = sys::limit::raise_open_files().map_err(Failure::of("learn the limit of open files"))?;

    let count = worker_count(&config);
    let listeners = inherited.listeners(&mut journal, &config.listen, count)?;
    // A configuration with a certificate has TLS on its first listener.
    if listeners.iter().any(|listener| listener.listen.tls) && !config.listen[0].tls {
        let text = "LISTEN_FDNAMES: tls needs a certificate; accepted: --tls-cert and --tls-key, --tls-dev, or no tls";
        return Err(Failure::new(USAGE, text.to_owned()));
    }
    if config.demo && inherited.demo().is_empty() {
        let demo = demo::Backends::open()?;
        config.backends = demo.configured();
        // Their processes are forked before any secret is read, so that they have none.
        if let Some(backend) = demo.start(&mut journal).map_err(Failure::of("start the demo's backends"))? {
            // This is the child.
            drop((listeners, signals));
            fork::exit_now(backend.serve(account.filter(|_| !inherited.is_upgrade())));
        }
    } else if config.demo {
        config.backends = inherited.demo().iter().map(|&address| config::Backend::at(address)).collect();
    }
    // After an upgrade the process has its account already. Before that, root may be the only one who can read keys.
    let secrets = account.filter(|_| !inherited.is_upgrade()).map(|_| cookie_key::read_early(&config));
    if let (Some(account), Some(name), false) = (account, &config.user, inherited.is_upgrade()) {
        give_up_root(&mut journal, name, account)?;
    }
    let shares = shares(&mut journal, &config, count, open_files);

    let Taken { memory, old_workers, old, mut previous } = inherited.memory(&mut journal, count)?;
    let listens: Vec<Listen> = listeners.iter().map(|listener| listener.listen).collect();
    let greeting = greeting(&config, &listens, count);
    let first = listens.iter().find(|listen| listen.purpose == Purpose::Traffic).unwrap_or(&config.listen[0]);
    let address = first.address;
    let tls = begin_tls(&mut journal, &config)?;
    let insecure = config.insecure;
    previous.secrets = previous.secrets.or(secrets);
    let mut duties = Duties::begin(config, options, contents, address, memory.region, previous)?;
    let activated = listeners.iter().filter(|listener| listener.is_activated);
    duties.set_activated(activated.map(|listener| listener.listen.purpose).collect());
    let globals = memory.region.globals();
    globals.set_global(Global::Insecure, insecure.into());
    globals.set_global(Global::Workers, count.into());
    globals.set_global(Global::ClientsLimit, (0..count).map(|index| shares.of(index) as u64).sum());
    globals.set_global(Global::LastReload, 1);
    globals.set_global(Global::LastReloadAt, clock::unix_us() / SECOND_US);
    // An upgrade continues the counts if possible.
    if globals.get_global(Global::Started) == 0 {
        globals.set_global(Global::Started, clock::unix_us() / SECOND_US);
    }
    globals.set_global(Global::Upgrades, inherited.generation());
    globals.set_global(Global::MaxDescriptors, open_files);
    let records = inherited::free_records(memory.region, &old_workers, count as usize);
    let old_workers = OldWorkers::new(old_workers, old);
    Ok((Parts { memory, records, duties, old_workers, listeners, tls, shares, signals, journal }, greeting))
}

/// The result of a start.
pub(in crate::process) struct Parts {
    pub(in crate::process) memory: Memory,
    /// The indices of the records for the new workers.
    pub(in crate::process) records: Vec<usize>,
    pub(in crate::process) duties: Duties,
    /// The workers of the program before, which still serve.
    pub(in crate::process) old_workers: OldWorkers,
    pub(in crate::process) listeners: Vec<Listener>,
    pub(in crate::process) tls: Option<tls::client::Config>,
    pub(in crate::process) shares: Shares,
    pub(in crate::process) signals: Signals,
    pub(in crate::process) journal: Journal,
}

/// The number of workers.
pub(in crate::process) fn worker_count(config: &Config) -> u32 {
    match config.mode {
        Mode::Sp => 1,
        // A worker that may hold no client would leave unserved those that come to its listener.
        Mode::Mp => config.workers.unwrap_or_else(cpus::usable).min(config.max_connections.unwrap_or(u32::MAX)).max(1),
    }
}

/// The shared data of backend sessions, created before any fork if a backend uses TLS.
pub(in crate::process) fn begin_tls(
    journal: &mut Journal,
    config: &Config,
) -> Result<Option<tls::client::Config>, Failure> {
    if config.insecure {
        journal.line(Level::Warn, "tls", format_args!("--insecure: backends' certificates are not verified"));
    }
    let wanted = config.backends.iter().any(|backend| backend.tls);
    // A file that is given is read in any case: a reload may bring the first backend that needs it.
    if !wanted && config.ca_file.is_none() {
        return Ok(None);
    }
    let client = tls::client::configure(config.ca_file.as_deref(), config.insecure, config.tls_trace);
    client.map(|client| wanted.then_some(client)).map_err(|error| Failure::new(USAGE, error))
}

/// The log lines of a process that runs.
fn greeting(config: &Config, listens: &[Listen], count: u32) -> Vec<Line> {
    let pid = fork::current();
    let shape = match (config.mode, count) {
        (Mode::Sp, _) => format!("in one process (mode sp, pid {pid})"),
        (Mode::Mp, 1) => format!("with 1 worker (mode mp, pid {pid})"),
        (Mode::Mp, _) => format!("with {count} workers (mode mp, pid {pid})"),
    };
    let (mut lines, mut shape) = (Vec::new(), Some(shape));
    for Listen { address, purpose, tls, proxy_header } in listens {
        let text = match (purpose, *tls, *proxy_header) {
            (Purpose::Admin, ..) => format!("admin on {address}: /metrics, /livez, /readyz"),
            (Purpose::Redirect { to_port }, ..) => {
                format!("listening on {address}, redirecting to https on port {to_port}")
            }
            (_, false, false) => format!("listening on {address}"),
            (_, true, false) => format!("listening on {address} (TLS)"),
            (_, false, true) => format!("listening on {address} (PROXY header)"),
            (_, true, true) => format!("listening on {address} (PROXY header, TLS)"),
        };
        let shape = shape.take_if(|_| *purpose == Purpose::Traffic).map(|shape| format!(" {shape}"));
        lines.push(("process", text + &shape.unwrap_or_default()));
    }
    if config.default_backends {
        let names: Vec<&str> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
        lines.push(("process", format!("no backend was given: using {}", names.join(" and "))));
    }
    if config.demo {
        let listen = listens.first().unwrap_or(&config.listen[0]);
        let example = SocketAddr::new(reachable(listen.address.ip()), listen.address.port());
        // The certificate of the demo may not be known to curl.
        let scheme = if listen.tls { "-k https" } else { "http" };
        lines.push(("demo", format!("try: curl {scheme}://{example}/hello")));
    }
    lines
}

pub(in crate::process) fn give_up_root(journal: &mut Journal, name: &str, account: Account) -> Result<(), Failure> {
    let Account { uid, gid } = account;
    sys::user::become_account(uid, gid).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::PermissionDenied { " (only root may)" } else { "" };
        Failure::new(FAILED, format!("cannot run as user '{name}': {error}{hint}"))
    })?;
    journal.line(Level::Info, "process", format_args!("running as user {uid}, group {gid}"));
    Ok(())
}

/// The number of clients that each worker holds at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::process) struct Shares {
    /// The limit of all workers together, if there is one.
    wanted: Option<u32>,
    count: u32,
    /// The number that the descriptors of one worker allow.
    possible: u64,
}

impl Shares {
    /// The share of a worker: an equal part of the configured limit, at most the limit by descriptors.
    pub(in crate::process) fn of(self, index: u32) -> usize {
        let even = |wanted: u32| wanted / self.count + u32::from(index < wanted % self.count);
        let share = self.wanted.map_or(self.possible, |wanted| u64::from(even(wanted)));
        share.clamp(1, self.possible) as usize
    }

    /// The number of idle backend connections that each worker keeps: at most the descriptors that remain if it
    /// has its maximum of clients.
    pub(in crate::process) fn idle(self) -> usize {
        self.possible as usize
    }
}

pub(in crate::process) fn shares(journal: &mut Journal, config: &Config, count: u32, open_files: u64) -> Shares {
    // Each worker has the listeners of all.
    let possible = connections_within(open_files.saturating_sub(u64::from(count) - 1));
    let shares = Shares { wanted: config.max_connections, count, possible };
    let held = shares.possible.saturating_mul(count.into());
    if let Some(wanted) = config.max_connections.filter(|&wanted| u64::from(wanted) > held) {
        let text = format_args!("the {open_files} files that a process may open allow {held} clients, not {wanted}");
        journal.line(Level::Warn, "process", text);
    }
    shares
}

/// Clients that a worker can hold with `open_files` descriptors: each may need one more, for its
/// backend.
fn connections_within(open_files: u64) -> u64 {
    (open_files.saturating_sub(limits::DESCRIPTOR_RESERVE) / 2).clamp(1, limits::WORKER_CONNECTIONS)
}

/// The address at which a client on this machine reaches a listener on `ip`.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_shared_out_evenly_and_in_all_as_many_as_asked_for() {
        let all = |wanted, count, possible| -> Vec<usize> {
            (0..count).map(|index| Shares { wanted, count, possible }.of(index)).collect()
        };
        assert_eq!(all(Some(10), 4, 500), [3, 3, 2, 2]);
        assert_eq!(all(Some(4), 4, 500), [1, 1, 1, 1]);
        assert_eq!(all(Some(5000), 2, 500), [500, 500]);
        assert_eq!(all(None, 2, 500), [500, 500]);
    }

    #[test]
    fn half_of_the_descriptors_go_to_clients() {
        assert_eq!(connections_within(1024), 496);
        assert_eq!(connections_within(0), 1);
        assert_eq!(connections_within(u64::MAX), limits::WORKER_CONNECTIONS);
    }

    #[test]
    fn the_example_address_can_be_connected_to() {
        assert_eq!(reachable("0.0.0.0".parse().unwrap()).to_string(), "127.0.0.1");
        assert_eq!(reachable("::".parse().unwrap()).to_string(), "::1");
        assert_eq!(reachable("10.0.0.1".parse().unwrap()).to_string(), "10.0.0.1");
    }
}

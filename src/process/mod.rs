//! From a configuration to processes that serve it, and to an exit status.
//!
//! Everything that can be refused is tried before the first fork: the account to run as, the
//! descriptor limit, the listeners. Then:
//!
//! ```text
//! mp   master ── waits for signals and deaths, keeps every listener open for respawns
//!        ├─ worker 0 .. N-1, each with one listener and a poll loop of its own
//!        └─ demo backends, with --demo
//! sp   one process that runs the same loop; the demo backends are its only children
//! ```
//!
//! Invariants: a child is forked by a process with one thread; it closes what it inherits and
//! does not need; it dies with the process that forked it (PDEATHSIG), so nothing is orphaned.

mod check;
mod demo;
mod duties;
pub mod service;
mod start;
mod supervision;
pub mod upgrade;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::args::Options;
use crate::config::{self, Config, Mode, Plan, Purpose};
use crate::dns::hosts::Hosts;
use crate::limits::{self, SECOND_US};
use crate::log::{Level, Log};
use crate::metrics::{Count, Global};
use crate::shared::Region;
use crate::sys::fork::{self, Pid};
use crate::sys::shm::Segment;
use crate::sys::signal::Signals;
use crate::sys::{self, clock};
use crate::tls;
use crate::worker::{self, Draining, Outcome, Setup};

pub use self::check::{Checked, check};
use self::duties::{Duties, names};
pub use self::service::healthcheck::healthcheck;
use self::start::account::{self, Account};
use self::start::cpus;
use self::start::listen::Listener;
use self::supervision::master::Master;
use self::supervision::single;
use self::upgrade::handover;
use self::upgrade::inherited::{self, Inherited, Memory, Taken};
use self::upgrade::old_workers::OldWorkers;
use self::upgrade::rollback::{self, RollbackSupervisor};

/// Exit status: done, or drained with nothing cut.
const DONE: u8 = 0;
/// Exit status: failed while running, or requests were cut.
const FAILED: u8 = 1;
/// Exit status: what was asked for makes no sense.
const USAGE: u8 = 2;

/// Runs until a signal or a failure ends it. Returns the process's exit status: 0 drained,
/// 1 failed or requests were cut, 2 a configuration that cannot be (an unknown user). Errors are
/// told on stderr. `options` are what was given besides the configuration file, and `contents` that
/// file's, where there is one: it is followed.
pub fn run(config: Config, options: Options, contents: Option<Vec<u8>>) -> u8 {
    let mut journal = Journal::new(config.loglevel);
    for remark in &options.remarks {
        journal.line(Level::Warn, "config", format_args!("{remark}"));
    }
    let inherited = Inherited::find(&mut journal);
    match start(&inherited, config, options, contents) {
        Ok((parts, greeting)) => match parts.duties.config().mode {
            Mode::Mp => Master::new(parts, inherited).run(&greeting),
            Mode::Sp => single::run(parts, inherited, &greeting),
        },
        Err(failure) => end_or_take_care(inherited, journal, &[failure.message], failure.status),
    }
}

/// Ends a program that cannot be started for these reasons, told on stderr; returns the exit status.
/// Where it was to take over from another, and has become its process already, it takes care of what
/// that had, and returns when this has ended.
pub fn refuse(problems: &[String]) -> u8 {
    let mut journal = Journal::new(Level::Info);
    let inherited = Inherited::find(&mut journal);
    end_or_take_care(inherited, journal, problems, USAGE)
}

fn end_or_take_care(inherited: Inherited, mut journal: Journal, problems: &[String], status: u8) -> u8 {
    let Some(left) = inherited.into_left() else {
        let text: String = problems.iter().map(|problem| format!("load_balancer: {problem}\n")).collect();
        sys::write_stderr(text.as_bytes());
        return status;
    };
    let first = problems.first().map_or("it is not known why", String::as_str);
    let why = format!("the new program cannot start: {first}");
    let signals = rollback::signals(&mut journal);
    RollbackSupervisor::new(left, Vec::new(), signals, journal, &why).run()
}

/// Why nothing was started.
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(status: u8, message: String) -> Failure {
        Failure { status, message }
    }

    /// A call to the system that failed: `what` the program cannot do because of it.
    fn of(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure::new(FAILED, format!("cannot {what}: {error}"))
    }
}

/// Does all that can fail before anything is served.
fn start(
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
    let demo = if config.demo && inherited.demo().is_empty() { Some(demo::Backends::open()?) } else { None };
    // After an upgrade it is whom it was.
    if let (Some(account), Some(name), false) = (account, &config.user, inherited.is_upgrade()) {
        give_up_root(&mut journal, name, account)?;
    }
    let shares = shares(&mut journal, &config, count, open_files);

    if config.demo && !inherited.demo().is_empty() {
        config.backends = inherited.demo().iter().map(|&address| config::Backend::at(address)).collect();
    }
    if let Some(demo) = demo {
        config.backends = demo.configured();
        if let Some(backend) = demo.start(&mut journal).map_err(Failure::of("start the demo's backends"))? {
            // This is the child.
            drop((listeners, signals));
            fork::exit_now(backend.serve());
        }
    }
    let Taken { memory, old_workers, old, previous } = inherited.memory(&mut journal, count)?;
    let addresses = |purpose| {
        let listens = listeners.iter().map(|listener| listener.listen);
        listens.filter(move |listen| listen.purpose == purpose).map(|listen| listen.address)
    };
    let address = addresses(Purpose::Traffic).next().unwrap_or(config.listen[0].address);
    let mut greeting = greeting(&config, address, count);
    for address in addresses(Purpose::Admin) {
        greeting.push(("process", format!("admin on {address}: /metrics, /livez, /readyz")));
    }
    let tls = begin_tls(&mut journal, &config)?;
    let insecure = config.insecure;
    let duties = Duties::begin(config, options, contents, address, memory.region, previous)?;
    let globals = memory.region.globals();
    globals.set_global(Global::Insecure, insecure.into());
    globals.set_global(Global::Workers, count.into());
    globals.set_global(Global::ClientsLimit, (0..count).map(|index| shares.of(index) as u64).sum());
    globals.set_global(Global::LastReload, 1);
    globals.set_global(Global::LastReloadAt, clock::unix_us() / SECOND_US);
    // An upgrade goes on with what was counted, where it can.
    if globals.get_global(Global::Started) == 0 {
        globals.set_global(Global::Started, clock::unix_us() / SECOND_US);
    }
    globals.set_global(Global::Upgrades, inherited.generation());
    globals.set_global(Global::MaxDescriptors, open_files);
    let records = inherited::free_records(memory.region, &old_workers, count as usize);
    let old_workers = OldWorkers::new(old_workers, old);
    Ok((Parts { memory, records, duties, old_workers, listeners, tls, shares, signals, journal }, greeting))
}

/// What a start has gathered.
struct Parts {
    memory: Memory,
    /// Those of the workers to be.
    records: Vec<usize>,
    duties: Duties,
    /// Workers that live on.
    old_workers: OldWorkers,
    listeners: Vec<Listener>,
    tls: Option<tls::client::Config>,
    shares: Shares,
    signals: Signals,
    journal: Journal,
}

/// What is asked of a program that is to take over from one that runs; `None` where nothing is.
pub fn question() -> Option<String> {
    std::env::var(handover::QUESTION).ok()
}

/// The table of hosts of this system.
pub fn hosts() -> Hosts {
    names::system_hosts()
}

/// Tries whether this program could take over from the one that asks, and returns the answer. Errors are the reasons
/// why it could not. Nothing goes on running.
pub fn could_take_over(question: &str, config: &Config) -> Result<&'static str, String> {
    upgrade::could_take_over(question, config)
}

/// How many workers there are to be.
fn worker_count(config: &Config) -> u32 {
    match config.mode {
        Mode::Sp => 1,
        // A worker that may hold no client would leave unserved those that come to its listener.
        Mode::Mp => config.workers.unwrap_or_else(cpus::usable).min(config.max_connections.unwrap_or(u32::MAX)).max(1),
    }
}

/// What sessions with backends share, made before any process is forked where a backend speaks TLS.
fn begin_tls(journal: &mut Journal, config: &Config) -> Result<Option<tls::client::Config>, Failure> {
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

/// Makes the memory that the workers in so many worker records share.
fn share_memory(records: usize) -> Result<Memory, Failure> {
    let bytes = Region::bytes(records);
    let segment = Segment::create(bytes).map_err(|error| no_memory(bytes, &error))?;
    Ok(Memory { region: Region::new(segment.cells()), segment: segment.id() })
}

fn no_memory(bytes: usize, error: &io::Error) -> Failure {
    let limit = match error.raw_os_error() {
        Some(libc::EINVAL) => " (more than kernel.shmmax)",
        Some(libc::ENOSPC) => " (kernel.shmmni or kernel.shmall is used up)",
        _ => "",
    };
    Failure::new(FAILED, format!("cannot share {bytes} bytes of memory with the workers: {error}{limit}"))
}

/// How a worker's loop ended; as an exit status, it tells the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Nothing was left.
    Drained = 0,
    /// The loop itself failed.
    Failed = 1,
    /// Requests were cut.
    Cut = 3,
}

/// Runs a worker's loop to its end, and tells how it ended.
fn serve(setup: Setup<'_>, mut journal: Journal) -> Ended {
    let (mode, index, region) = (setup.config.mode, setup.index, setup.region);
    let outcome = worker::run(setup);
    journal.follow(region);
    match outcome {
        Ok(Outcome::Drained | Outcome::Cut(0)) => Ended::Drained,
        Ok(Outcome::Cut(requests)) => {
            let plural = if requests == 1 { "" } else { "s" };
            let who = Worker(mode, index);
            journal.line(Level::Warn, "process", format_args!("{who}cut {requests} request{plural} off"));
            Ended::Cut
        }
        Err(error) => {
            let who = Worker(mode, index);
            journal.line(Level::Err, "process", format_args!("{who}failed: {error}"));
            Ended::Failed
        }
    }
}

/// Who speaks: a worker by its number, or the only process, which needs no name.
struct Worker(Mode, u32);

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Mode::Mp => write!(f, "worker {} ", self.1),
            Mode::Sp => Ok(()),
        }
    }
}

/// A line of log to come: the part that speaks, and what it says.
type Line = (&'static str, String);

/// The log line that tells of a drain, with the clients of all workers in a region.
fn draining(region: Region, delay_us: u64, drain_us: u64, idle_us: u64) -> Draining {
    let clients = (0..region.records()).map(|record| region.block(record).get(Count::ClientsNow)).sum();
    let busy = (0..region.records()).map(|record| region.record(record).busy()).sum();
    Draining { delay_us, drain_us, idle_us, clients, busy }
}

/// What is said once everything runs.
fn greeting(config: &Config, address: SocketAddr, count: u32) -> Vec<Line> {
    let pid = fork::current();
    let shape = match (config.mode, count) {
        (Mode::Sp, _) => format!("in one process (mode sp, pid {pid})"),
        (Mode::Mp, 1) => format!("with 1 worker (mode mp, pid {pid})"),
        (Mode::Mp, _) => format!("with {count} workers (mode mp, pid {pid})"),
    };
    let mut lines = vec![("process", format!("listening on {address} {shape}"))];
    if config.default_backends {
        let names: Vec<&str> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
        lines.push(("process", format!("no backend was given: using {}", names.join(" and "))));
    }
    if config.demo {
        let example = SocketAddr::new(reachable(address.ip()), address.port());
        lines.push(("demo", format!("try: curl http://{example}/hello")));
    }
    lines
}

fn give_up_root(journal: &mut Journal, name: &str, account: Account) -> Result<(), Failure> {
    let Account { uid, gid } = account;
    sys::user::become_account(uid, gid).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::PermissionDenied { " (only root may)" } else { "" };
        Failure::new(FAILED, format!("cannot run as user '{name}': {error}{hint}"))
    })?;
    journal.line(Level::Info, "process", format_args!("running as user {uid}, group {gid}"));
    Ok(())
}

/// How many clients each worker holds at once.
#[derive(Clone, Copy, Debug)]
struct Shares {
    /// What all workers hold together, where that was asked for.
    wanted: Option<u32>,
    count: u32,
    /// What the descriptors of one worker allow.
    possible: u64,
}

impl Shares {
    /// The share of a worker: an even part of what is wanted, as far as its descriptors go.
    fn of(self, index: u32) -> usize {
        let even = |wanted: u32| wanted / self.count + u32::from(index < wanted % self.count);
        let share = self.wanted.map_or(self.possible, |wanted| u64::from(even(wanted)));
        share.clamp(1, self.possible) as usize
    }

    /// How many idle connections to backends each worker keeps: no more than are left to backends if all
    /// clients come that it could hold.
    fn idle(self) -> usize {
        self.possible as usize
    }
}

fn shares(journal: &mut Journal, config: &Config, count: u32, open_files: u64) -> Shares {
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

/// Where a client on this machine reaches a listener on `ip`.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// A log whose lines are written at once, for processes that have few to say.
struct Journal {
    log: Log,
}

impl Journal {
    fn new(level: Level) -> Journal {
        Journal { log: Log::new(level) }
    }

    fn set_level(&mut self, level: Level) {
        self.log.set_level(level);
    }

    /// From now on it keeps the lines that the plan in the region says.
    fn follow(&mut self, region: Region) {
        if let Some(plan) = region.table().read().1.and_then(|bytes| Plan::decode(&bytes)) {
            self.set_level(plan.loglevel);
        }
    }

    fn line(&mut self, level: Level, module: &str, text: fmt::Arguments<'_>) {
        self.log.set_clock(clock::unix_us());
        self.log.line(level, module, text);
        sys::write_stderr(self.log.text());
        self.log.clear();
    }

    fn greet(&mut self, greeting: &[Line]) {
        for (module, text) in greeting {
            self.line(Level::Info, module, format_args!("{text}"));
        }
    }
}

/// What a forked child does first: it takes a name, and ties its life to its parent's.
fn begin_child(parent: Pid, name: &str) -> io::Result<()> {
    fork::set_name(name);
    sys::forget_lost();
    fork::die_with(parent)
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
    fn memory_that_cannot_be_had_is_told_by_the_limit_that_it_meets() {
        for (code, limit) in [(libc::EINVAL, "kernel.shmmax"), (libc::ENOSPC, "kernel.shmmni"), (libc::ENOMEM, "")] {
            let failure = no_memory(7, &io::Error::from_raw_os_error(code));
            assert!(failure.status == FAILED && failure.message.contains(limit), "{}", failure.message);
            assert!(failure.message.starts_with("cannot share 7 bytes of memory with the workers: "));
        }
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

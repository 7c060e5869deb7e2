//! Bounds of options and of the configuration file, and the defaults.

use super::*;

/// Backends in one configuration: each costs memory in every worker.
pub const BACKENDS: usize = 1024;
/// Ranges of trusted peers: each is compared with every peer.
pub const TRUSTED_RANGES: usize = 1024;
/// Workers that can be asked for; more than the CPUs of any machine we know of.
pub const WORKERS: u64 = 1024;
/// Clients held at once that can be asked for; past the descriptors that a machine has.
pub const CLIENT_CONNECTIONS: u64 = 10_000_000;
/// The shortest time limit: anything less is below the grain of the timers.
pub const DURATION_MIN_US: u64 = SECOND_US / 1000;
/// The longest time limit; a longer one is surely a slip.
pub const DURATION_MAX_US: u64 = 24 * 3600 * SECOND_US;
/// A host's name (RFC 1035, 2.3.4, as text).
pub const HOST_NAME_BYTES: usize = 253;
/// One label of a host's name (RFC 1035, 2.3.4).
pub const HOST_LABEL_BYTES: usize = 63;
/// The path of a socket: what fits in `sun_path` with its final NUL.
pub const UNIX_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// A Host or Via name, or an account, given as an option: room for any real one.
pub const NAME_BYTES: usize = 255;
/// How many names a sentence lists.
pub const SHOWN_NAMES: usize = 3;
/// How many backends, and how many options, the line of a reload names.
pub const CHANGED_NAMES: usize = 20;
/// How much of a wrong argument an error line shows.
pub const SHOWN_CHARS: usize = 120;
/// The longest word that a nearest name is sought for: twice the longest option.
pub const COMPARED_BYTES: usize = 40;
/// The part of /etc/hosts that is read. Block lists run to a few megabytes.
pub const HOSTS_BYTES: usize = 4 * 1024 * 1024;

/// The port listened on when none is given.
pub const DEFAULT_PORT: u16 = 8080;
/// The path of the metrics on the main port: what scrapers ask for if nothing is said.
pub const DEFAULT_METRICS_PATH: &str = "/metrics";
/// The ports on loopback tried when no backend is given.
pub const DEFAULT_BACKEND_PORTS: [u16; 2] = [9001, 9002];
/// To connect to a backend: longer than one lost SYN takes (1 s), shorter than two (3 s).
pub const DEFAULT_CONNECT_US: u64 = 2 * SECOND_US;
/// To receive a whole request head: ample for a slow link, short for a client that stalls.
pub const DEFAULT_REQUEST_US: u64 = 10 * SECOND_US;
/// To the first byte of a response: what other proxies give.
pub const DEFAULT_RESPONSE_US: u64 = 60 * SECOND_US;
/// Between requests: above the 60 s after which balancers and browsers before us drop theirs.
pub const DEFAULT_IDLE_US: u64 = 75 * SECOND_US;
/// For a request without a response once its client has ended its direction. Nearly always the client has gone;
/// one that only ended its direction, as `nc -N` does, still gets a response from a prompt backend.
pub const DEFAULT_HALF_CLOSE_US: u64 = 2 * SECOND_US;
/// To drain: below the 30 s after which service managers and containers are killed.
pub const DEFAULT_DRAIN_US: u64 = 25 * SECOND_US;
/// To be idle before a client connection is closed when the process ends: longer than the pause between two
/// requests of a client that is busy, and far below the 10 s after which `docker stop` kills.
pub const DEFAULT_DRAIN_IDLE_US: u64 = 2 * SECOND_US;
/// For a worker's loop to turn: far more than anything in it takes.
pub const DEFAULT_WATCHDOG_US: u64 = 10 * SECOND_US;

const _: () = assert!(DURATION_MIN_US <= DEFAULT_CONNECT_US && DEFAULT_IDLE_US <= DURATION_MAX_US);
const _: () = assert!(DEFAULT_CONNECT_US < DEFAULT_RESPONSE_US);
const _: () = assert!(HOST_LABEL_BYTES < HOST_NAME_BYTES && HOST_NAME_BYTES <= NAME_BYTES);

/// A JSON text: a thousand backends take a tenth of it.
pub const JSON_BYTES: usize = 1024 * 1024;
/// Arrays and objects within each other: the reader calls itself for each.
pub const JSON_DEPTH: usize = 64;
/// Problems told of one file; who has more has plenty to mend.
pub const FILE_PROBLEMS: usize = 100;
/// Failures and passes in a row that can be asked for; more would take hours.
pub const HEALTH_COUNT: u64 = 1000;
/// Ranges of statuses that pass a probe: each status of every class apart takes fewer.
pub const STATUS_RANGES: usize = 64;
/// What a probe asks for: room for a long query.
pub const HEALTH_PATH_BYTES: usize = 1024;
/// Requests in flight that a backend's own limit can be set to.
pub const BACKEND_MAX: u64 = 1_000_000;
/// The path of a file (PATH_MAX, without its NUL).
pub const FILE_PATH_BYTES: usize = 4095;

/// Between two probes of a backend.
pub const DEFAULT_HEALTH_INTERVAL_US: u64 = 5 * SECOND_US;
/// How long a probe may take: shorter than the interval, so that one ends before another begins.
pub const DEFAULT_HEALTH_TIMEOUT_US: u64 = 2 * SECOND_US;
/// Failures in a row that take a backend out: one may be chance.
pub const DEFAULT_HEALTH_FAILS: u32 = 3;
/// Passes in a row that bring it back.
pub const DEFAULT_HEALTH_PASSES: u32 = 2;
/// Retries for each hundred requests.
pub const DEFAULT_RETRY_PERCENT: u32 = 20;

const _: () = assert!(DEFAULT_HEALTH_TIMEOUT_US < DEFAULT_HEALTH_INTERVAL_US);
const _: () = assert!(HEALTH_PATH_BYTES <= TARGET_BYTES);

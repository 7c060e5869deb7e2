//! Bounds of options and of the configuration file, and the defaults.

use super::*;

/// Backends in one configuration. Each costs memory in every worker.
pub const BACKENDS: usize = 1024;
/// Ranges of trusted peers. Each is compared with every peer.
pub const TRUSTED_RANGES: usize = 1024;
/// Further listeners. Each has a socket for each worker, and every worker has all of them.
pub const LISTENERS: usize = 64;
/// The maximum of `--workers`: more than the CPUs of any known machine.
pub const WORKERS: u64 = 1024;
/// The maximum of `--max-connections`: more than the descriptors of any machine.
pub const CLIENT_CONNECTIONS: u64 = 10_000_000;
/// The shortest time limit. A shorter one is below the resolution of the timers.
pub const DURATION_MIN_US: u64 = SECOND_US / 1000;
/// The longest time limit. A longer one is almost certainly an error.
pub const DURATION_MAX_US: u64 = 24 * 3600 * SECOND_US;
/// The longest time of `--hsts`: two years, which the list of browsers recommends.
pub const HSTS_MAX_S: u64 = 730 * 86_400;
/// A host name (RFC 1035, 2.3.4, as text).
pub const HOST_NAME_BYTES: usize = 253;
/// One label of a host name (RFC 1035, 2.3.4).
pub const HOST_LABEL_BYTES: usize = 63;
/// A socket path: the size of `sun_path` without its final NUL.
pub const UNIX_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// A Host or Via name, or an account, given as an option: longer than any real one.
pub const NAME_BYTES: usize = 255;
/// Names that a sentence lists.
pub const SHOWN_NAMES: usize = 3;
/// Backends, and options, that the log line of a reload names.
pub const CHANGED_NAMES: usize = 20;
/// The part of a wrong argument that an error line shows.
pub const SHOWN_CHARS: usize = 120;
/// The longest word for which a similar name is suggested: twice the longest option.
pub const COMPARED_BYTES: usize = 40;
/// The part of /etc/hosts that is read. Block lists reach a few megabytes.
pub const HOSTS_BYTES: usize = 4 * 1024 * 1024;

/// The port if none is given.
pub const DEFAULT_PORT: u16 = 8080;
/// The path of the metrics on the main port: the default of scrapers.
pub const DEFAULT_METRICS_PATH: &str = "/metrics";
/// The loopback ports that are tried if no backend is given.
pub const DEFAULT_BACKEND_PORTS: [u16; 2] = [9001, 9002];
/// The time to connect to a backend: longer than one lost SYN takes (1 s), shorter than two (3 s).
pub const DEFAULT_CONNECT_US: u64 = 2 * SECOND_US;
/// The time to receive a request head: enough for a slow link, short for a client that stalls.
pub const DEFAULT_REQUEST_US: u64 = 10 * SECOND_US;
/// The time to the first byte of a response: the default of other proxies.
pub const DEFAULT_RESPONSE_US: u64 = 60 * SECOND_US;
/// The time between two requests: above the 60 s after which balancers and browsers before us close theirs.
pub const DEFAULT_IDLE_US: u64 = 75 * SECOND_US;
/// The time that a request without a response gets after its client has ended its direction. Nearly always the
/// client has gone. A client that only ended its direction, as `nc -N` does, still gets a response from a fast
/// backend.
pub const DEFAULT_HALF_CLOSE_US: u64 = 2 * SECOND_US;
/// The time to drain: below the 30 s after which service managers and container runtimes kill.
pub const DEFAULT_DRAIN_US: u64 = 25 * SECOND_US;
/// The idle time after which a draining process closes a client connection: longer than the pause between two
/// requests of a busy client, and far below the 10 s after which `docker stop` kills.
pub const DEFAULT_DRAIN_IDLE_US: u64 = 2 * SECOND_US;
/// The time within which a worker's loop must turn: far more than any step of it takes.
pub const DEFAULT_WATCHDOG_US: u64 = 10 * SECOND_US;

const _: () = assert!(DURATION_MIN_US <= DEFAULT_CONNECT_US && DEFAULT_IDLE_US <= DURATION_MAX_US);
const _: () = assert!(DEFAULT_CONNECT_US < DEFAULT_RESPONSE_US);
const _: () = assert!(HOST_LABEL_BYTES < HOST_NAME_BYTES && HOST_NAME_BYTES <= NAME_BYTES);

/// A JSON text. A thousand backends take a tenth of it.
pub const JSON_BYTES: usize = 1024 * 1024;
/// The nesting of arrays and objects. The parser is recursive.
pub const JSON_DEPTH: usize = 64;
/// Errors reported for one file. Nobody reads more at once.
pub const FILE_PROBLEMS: usize = 100;
/// The maximum of consecutive failures and passes. More would take hours.
pub const HEALTH_COUNT: u64 = 1000;
/// Ranges of statuses that pass a probe. Listing every status separately takes fewer.
pub const STATUS_RANGES: usize = 64;
/// The path of a probe: enough for a long query.
pub const HEALTH_PATH_BYTES: usize = 1024;
/// The maximum of a backend's own limit of requests in flight.
pub const BACKEND_MAX: u64 = 1_000_000;
/// The routes of one backend: more hosts than an application of many sites has.
pub const BACKEND_ROUTES: usize = 64;
/// The path of a file (PATH_MAX without its NUL).
pub const FILE_PATH_BYTES: usize = 4095;

/// The interval between two probes of a backend.
pub const DEFAULT_HEALTH_INTERVAL_US: u64 = 5 * SECOND_US;
/// The timeout of a probe: shorter than the interval, so that one ends before the next begins.
pub const DEFAULT_HEALTH_TIMEOUT_US: u64 = 2 * SECOND_US;
/// Consecutive failures that eject a backend. One may be chance.
pub const DEFAULT_HEALTH_FAILS: u32 = 3;
/// Consecutive passes that restore a backend.
pub const DEFAULT_HEALTH_PASSES: u32 = 2;
/// Retries per hundred requests.
pub const DEFAULT_RETRY_PERCENT: u32 = 20;

const _: () = assert!(DEFAULT_HEALTH_TIMEOUT_US < DEFAULT_HEALTH_INTERVAL_US);
const _: () = assert!(HEALTH_PATH_BYTES <= TARGET_BYTES);

//! Bounds of the processes, of upgrades and of `--check`.

use super::*;

/// Connections that the kernel queues for a listener. The kernel lowers it to `net.core.somaxconn`, 4096 by
/// default.
pub const LISTEN_BACKLOG: i32 = 4096;
/// A worker that accepted connections and lived this long is replaced at once.
pub const STEADY_LIFE_US: u64 = SECOND_US;
/// The pause before a worker is replaced that accepted connections but died earlier, if its predecessor also
/// died early. Clients should wait less than a tenth of a second, and a worker that crashes on every request
/// must cost little more.
pub const RESPAWN_PAUSE_US: u64 = SECOND_US / 50;
/// Consecutive deaths of workers that never accepted, after which the master gives up. With the delays between
/// them this takes 16 seconds.
pub const RESPAWN_DEATHS: u32 = 10;
/// The delay after a worker's second early death in a row. Each further one doubles it. The first causes no
/// delay.
pub const RESPAWN_DELAY_US: u64 = SECOND_US / 10;
/// The maximum of that delay.
pub const RESPAWN_DELAY_MOST_US: u64 = 5 * SECOND_US;
/// The time that workers have after the drain time to cut open connections and exit, before they are killed.
pub const DRAIN_GRACE_US: u64 = 2 * SECOND_US;
/// The time that a worker that stops and drains later waits for its master's signal. The worker closes its
/// listeners first, so that no connection is queued on a listener without a worker.
pub const DRAIN_DELAY_SLACK_US: u64 = SECOND_US / 2;
/// Descriptors of a worker that are not connections: the standard three, its listener, the poller, the signal
/// pipe, and files opened briefly.
pub const DESCRIPTOR_RESERVE: u64 = 32;
/// The minimum of those: the standard three, its listener, the poller, and the two of the signal pipe.
pub const WORKER_DESCRIPTORS: usize = 7;
/// Clients of one worker if only the descriptor limit decides. Some systems have no limit.
pub const WORKER_CONNECTIONS: u64 = 1_000_000;
/// Connections of a demo backend. Each has a thread.
pub const DEMO_CONNECTIONS: usize = 128;
/// The longest body that a demo backend echoes in its response.
pub const DEMO_BODY_BYTES: usize = 1024;
/// The time for which a demo backend keeps a silent connection.
pub const DEMO_IDLE_US: u64 = 60 * SECOND_US;

const _: () = assert!(RESPAWN_DELAY_US < RESPAWN_DELAY_MOST_US && RESPAWN_DEATHS > 1);
const _: () = assert!((WORKER_DESCRIPTORS as u64) < DESCRIPTOR_RESERVE);
const _: () = assert!(DRAIN_DELAY_SLACK_US < DRAIN_GRACE_US);
const _: () = assert!(RESPAWN_PAUSE_US < RESPAWN_DELAY_US);

/// The time for which a start or a reload waits for the names of backends to be resolved, so that the first
/// requests find them.
pub const NAMES_WAIT_US: u64 = 2 * SECOND_US;
/// Symbolic links followed on the way to the configuration file. Linux uses the same limit.
pub const CONFIG_LINKS: usize = 40;
/// The pause in changes after which the configuration file is read. Earlier, it may be incomplete.
pub const CONFIG_PAUSE_US: u64 = SECOND_US / 50;
/// The time after the first change at which the file is read even without a pause.
pub const CONFIG_SETTLE_US: u64 = SECOND_US / 10;
/// The time that a writer of the file has to close it. Then the file is read anyway, because it may stay open.
pub const CONFIG_WRITING_US: u64 = SECOND_US;
/// The polling interval for the file if the system does not report changes.
pub const CONFIG_POLL_US: u64 = SECOND_US;
/// The size of one read from inotify: enough for an event with the longest name.
pub const INOTIFY_BYTES: usize = 4096;
/// Reads from inotify before other work is done.
pub const INOTIFY_READS: usize = 16;
/// Like `INOTIFY_READS`, for systems that report events per file. More than the directories and links of any
/// real path.
pub const VNODE_EVENTS: usize = 64;

const _: () = assert!(CONFIG_SETTLE_US < CONFIG_WRITING_US);
// An event and a name of 255 bytes with its NUL.
const _: () = assert!(INOTIFY_BYTES >= 16 + 256);

/// The time that a new program has for its preflight answer. It reads files and briefly waits for names that
/// are new.
pub const PREFLIGHT_US: u64 = 10 * SECOND_US;
/// The part of the answer's text that is kept.
pub const PREFLIGHT_TEXT_BYTES: usize = 4096;
/// Generations of old workers that may drain at once. A further upgrade ends the oldest.
pub const GENERATIONS: usize = 8;
/// Worker records in shared memory, at least, so that an upgrade can add workers.
pub const WORKER_RECORDS_MIN: usize = 64;
/// The interval at which the counts of workers with another memory layout are copied, so that the next scrape
/// includes them.
pub const OLD_COUNTS_US: u64 = SECOND_US;
/// The secrets in the shared memory: certificates with their keys, client authorities and ticket keys. A chain of three
/// RSA certificates and its key have 7 KiB, so there is room for the most pairs if their chains have usual sizes.
pub const SECRETS_BYTES: usize = 2 << 20;
/// The interval at which the master checks new workers until all accept.
pub const READY_LOOK_US: u64 = 2_000;
/// The number of parts of the watchdog time. A worker's loop turns once in each part even if it is idle, and
/// the master checks it once in each part.
pub const WATCHDOG_PARTS: u64 = 4;
/// The delay of the master itself above which it ignores the silence of workers.
pub const WATCH_LATE_US: u64 = SECOND_US;

/// The interval at which a program that cannot receive signals tries again.
pub const SIGNALS_RETRY_US: u64 = SECOND_US / 10;

/// The delay before a notification is repeated that the service manager could not accept.
pub const NOTIFY_RETRY_US: u64 = SECOND_US / 10;
/// Notifications that may wait for the service manager.
pub const NOTIFY_WAITING: usize = 8;
/// Listeners that a service manager may pass on.
pub const ACTIVATED_LISTENERS: i32 = 64;
/// The maximum duration of a health check.
pub const HEALTHCHECK_US: u64 = 2 * SECOND_US;
/// The part of a response that a health check reads: the version and the status.
pub const HEALTHCHECK_BYTES: usize = "HTTP/1.1 200".len();

/// Errors reported for one command line. Nobody reads more at once.
pub const LINE_PROBLEMS: usize = FILE_PROBLEMS;
/// Backends that `--check` dials at once. A thousand backends that do not answer take 16 rounds, and no router
/// takes so few connections for a port scan.
pub const CHECK_DIALS: usize = 64;

/// The size of one read during a handshake.
pub const CHECK_READ_BYTES: usize = 4096;

const _: () = assert!(CHECK_DIALS >= 1 && CHECK_DIALS <= ADDRESSES);

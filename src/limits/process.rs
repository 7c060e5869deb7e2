//! Bounds of the processes, of upgrades and of `--check`.

use super::*;

/// Connections the kernel holds for a listener until they are accepted; it cuts this down to
/// `net.core.somaxconn`, 4096 by default.
pub const LISTEN_BACKLOG: i32 = 4096;
/// A worker that accepted and lived this long is replaced at once.
pub const STEADY_LIFE_US: u64 = SECOND_US;
/// The pause before one is replaced that accepted and did not live so long, where that of the one before
/// it was no longer either: its clients are to wait for less than a tenth of a second, and a worker that
/// every request ends is to cost little more than that.
pub const RESPAWN_PAUSE_US: u64 = SECOND_US / 50;
/// Deaths in a row of workers that never accepted, after which the master gives up. With the
/// waits between them that takes 16 seconds.
pub const RESPAWN_DEATHS: u32 = 10;
/// How long a worker's second early death in a row delays its replacement; each further one
/// doubles it. The first does not delay it.
pub const RESPAWN_DELAY_US: u64 = SECOND_US / 10;
/// The longest such delay.
pub const RESPAWN_DELAY_MOST_US: u64 = 5 * SECOND_US;
/// What workers get beyond the drain time to cut what is left and exit, before they are killed.
pub const DRAIN_GRACE_US: u64 = 2 * SECOND_US;
/// How long a worker that is told to stop, and to drain later, waits past that for its master to say so: it
/// closes the listeners first, so that nobody waits where no worker looks.
pub const DRAIN_DELAY_SLACK_US: u64 = SECOND_US / 2;
/// Descriptors of a worker that are not connections: the standard three, its listener, the
/// poller, the signal pipe, and files opened for a moment.
pub const DESCRIPTOR_RESERVE: u64 = 32;
/// Those that it has at least: the standard three, its listener, the poller, and the signal pipe's two.
pub const WORKER_DESCRIPTORS: usize = 7;
/// Clients one worker holds when only the descriptor limit decides: some systems have none.
pub const WORKER_CONNECTIONS: u64 = 1_000_000;
/// Connections, and so threads, of a demo backend.
pub const DEMO_CONNECTIONS: usize = 128;
/// The longest body that a demo backend shows in its answer.
pub const DEMO_BODY_BYTES: usize = 1024;
/// How long a demo backend keeps a connection on which nothing comes.
pub const DEMO_IDLE_US: u64 = 60 * SECOND_US;

const _: () = assert!(RESPAWN_DELAY_US < RESPAWN_DELAY_MOST_US && RESPAWN_DEATHS > 1);
const _: () = assert!((WORKER_DESCRIPTORS as u64) < DESCRIPTOR_RESERVE);
const _: () = assert!(DRAIN_DELAY_SLACK_US < DRAIN_GRACE_US);
const _: () = assert!(RESPAWN_PAUSE_US < RESPAWN_DELAY_US);

/// How long a start, and the taking up of a changed file, waits for the names of backends to be looked up,
/// so that the first requests find them.
pub const NAMES_WAIT_US: u64 = 2 * SECOND_US;
/// Symbolic links followed on the way to the configuration file, as many as the system follows.
pub const CONFIG_LINKS: usize = 40;
/// How long changes of it must have paused before it is read: it may not be written to its end.
pub const CONFIG_PAUSE_US: u64 = SECOND_US / 50;
/// How long after the first change it is read whether or not they pause.
pub const CONFIG_SETTLE_US: u64 = SECOND_US / 10;
/// How long it is left to one who has begun to write to it and has not closed it; it is read then all
/// the same, for it may be kept open.
pub const CONFIG_WRITING_US: u64 = SECOND_US;
/// How often it is looked at where the system does not tell of changes.
pub const CONFIG_POLL_US: u64 = SECOND_US;
/// What is read at once of the changes that the system tells of: room for one with the longest name.
pub const INOTIFY_BYTES: usize = 4096;
/// How often that is done before others are looked after.
pub const INOTIFY_READS: usize = 16;
/// The same where each tells what has happened to one directory or file on the way to it: more than there
/// are in any path of ours.
pub const VNODE_EVENTS: usize = 64;

const _: () = assert!(CONFIG_SETTLE_US < CONFIG_WRITING_US);
// An event and a name of 255 bytes with its NUL.
const _: () = assert!(INOTIFY_BYTES >= 16 + 256);

/// How long a program may take to say whether it could take over: it reads files, and waits a little for
/// names that are new.
pub const PREFLIGHT_US: u64 = 10 * SECOND_US;
/// What is kept of what it says.
pub const PREFLIGHT_TEXT_BYTES: usize = 4096;
/// Generations of workers from before upgrades that may drain at once; past it the oldest is ended.
pub const GENERATIONS: usize = 8;
/// WorkerRecords for workers in the shared memory at least, so that there can be more workers after an upgrade.
pub const SEATS_LEAST: usize = 64;
/// How often the counts of workers in another layout's memory are copied: a scrape a second later has them.
pub const OLD_COUNTS_US: u64 = SECOND_US;
/// How often new workers are looked at until all accept.
pub const READY_LOOK_US: u64 = 2_000;
/// Into so many parts the time is divided in which a worker's loop must turn: it does so in each though
/// there is nothing to do, and the master looks in each whether it has.
pub const WATCHDOG_PARTS: u64 = 4;
/// How late the master itself may be before it trusts no worker's silence.
pub const WATCH_LATE_US: u64 = SECOND_US;

/// How soon a program that cannot hear of signals tries to again.
pub const SIGNALS_RETRY_US: u64 = SECOND_US / 10;

/// How soon a service manager that did not keep up is told again.
pub const NOTIFY_RETRY_US: u64 = SECOND_US / 10;
/// What it is told that may wait until it does.
pub const NOTIFY_WAITING: usize = 8;
/// Listeners that a service manager may pass on.
pub const ACTIVATED_LISTENERS: i32 = 64;
/// How long a health check takes at most.
pub const HEALTHCHECK_US: u64 = 2 * SECOND_US;
/// What it reads of an answer: the version and the status.
pub const HEALTHCHECK_BYTES: usize = "HTTP/1.1 200".len();

/// Problems told of one command line; who has more has plenty to mend.
pub const LINE_PROBLEMS: usize = FILE_PROBLEMS;
/// Backends dialled at once: a thousand that do not answer take 16 turns, and no router takes so
/// few connections for a scan.
pub const CHECK_DIALS: usize = 64;

/// What is read at once of a handshake.
pub const CHECK_READ_BYTES: usize = 4096;

const _: () = assert!(CHECK_DIALS >= 1 && CHECK_DIALS <= ADDRESSES);

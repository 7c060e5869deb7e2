//! Bounds of backends: connections, retries, health, shared cells.

use super::*;

/// How often one request is tried, first try included.
pub const TRIES: usize = 8;
/// How often a request is sent again that a backend broke off and that may be sent twice. It may
/// be what its backends die of, so it is not shown to all of them.
pub const REPEATS: usize = 2;
/// A plan, as the master hands it to the workers: every address with names as long as they may be.
pub const PLAN_BYTES: usize = 4 << 20;
/// The balancer holds at most this many backend addresses. Each address of a name counts, and costs memory in every
/// worker. Names share the room that fixed addresses leave.
pub const ADDRESSES: usize = 4096;
/// Slots for them: all can be others at once, while those that go rest. What no slot uses costs no memory.
pub const SLOTS: usize = 2 * ADDRESSES;
/// How long a slot that was given up is left alone, so that what is under way there can end: longer
/// than any probe takes that is not wildly slow.
pub const SLOT_REST_US: u64 = 10 * SECOND_US;
/// How soon it is seen whether a slot that has rested for long enough is rid of its requests.
pub const SLOT_LOOK_US: u64 = SECOND_US;
/// How often it is looked for a moment at which no worker is between two stores, where one has died there.
pub const SETTLE_LOOKS: usize = 10_000;
/// Steps to precompute the order of turns: the sum of weights times the number of backends. It takes some
/// 20 us, each time that a backend comes or goes; a longer cycle is computed turn by turn.
pub const ORDERED_STEPS: u64 = 16 * 1024;
/// Picks by the strategy before any backend will do that was not tried and has room.
pub const PICKS: usize = 4;
/// Retries that are made however few requests there are, a second, by all workers together.
pub const RETRY_FLOOR: u64 = 3;
/// For how long a request pays for retries, once to twice: an outage is met by what came just before.
pub const RETRY_WINDOW_US: u64 = 5 * SECOND_US;
/// Requests that wait in one worker for a backend that is below its own limit.
pub const WAITING_REQUESTS: usize = 1024;
/// How often a worker looks whether another has made room for them.
pub const WAITING_LOOK_US: u64 = SECOND_US / 200;
/// How soon a backend whose queue of connections was full is connected to again: in less it hardly makes
/// room, and more would show in the response time.
pub const REDIAL_US: u64 = SECOND_US / 100;
/// How many connections are asked for again then; the others have their turn next.
pub const REDIALS: usize = 64;
/// The least time between two looks at which probes are due.
pub const PROBE_LOOK_US: u64 = SECOND_US / 100;
/// Between the first probes of backends that are added at once: they are probed soon, and not all in one turn.
pub const PROBE_ADDED_US: u64 = SECOND_US / 1000;
/// The part of the interval between probes by which one may come sooner, so that they spread.
pub const PROBE_JITTER: u64 = 10;
/// After how long a backend is tried again that is down and not probed.
pub const UNPROBED_US: u64 = 5 * SECOND_US;
/// The least share of its turns, as one part of this many, that a backend gets in its slow start.
pub const SLOW_START_PARTS: u64 = 10;
/// Idle connections kept to one backend by one worker.
pub const POOL_CONNECTIONS: usize = 1024;
/// How long an idle connection to a backend is kept. Servers close theirs after 5 to 75 seconds,
/// and losing the race costs a retry.
pub const POOL_IDLE_US: u64 = 30 * SECOND_US;
/// How recently a pooled connection must have been used to carry a request that cannot be sent
/// twice: within this, hardly any server gives a connection up.
pub const POOL_FRESH_US: u64 = SECOND_US;
/// Memory that the saved head of a finished request may keep for the next.
pub const SAVED_HEAD_BYTES: usize = 4096;
/// Finished exchanges kept for their memory.
pub const SPARE_EXCHANGES: usize = 64;

const _: () = assert!(POOL_FRESH_US < POOL_IDLE_US);
const _: () = assert!(REPEATS < TRIES && TRIES <= u8::MAX as usize);

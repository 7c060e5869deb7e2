//! Bounds of backends: connections, retries, health, shared cells.

use super::*;

/// Attempts for one request, including the first.
pub const TRIES: usize = 8;
/// Repetitions of an idempotent request whose response a backend broke off. The request may be the cause of the
/// crash, so it must not reach every backend.
pub const REPEATS: usize = 2;
/// A plan as the master passes it to the workers: every address, with names of maximum length.
pub const PLAN_BYTES: usize = 4 << 20;
/// The balancer holds at most this many backend addresses. Each address of a name counts, and costs memory in every
/// worker. Names share the room that fixed addresses leave.
pub const ADDRESSES: usize = 4096;
/// Slots for the addresses. All addresses can be replaced at once while the old slots still rest. An unused
/// slot costs no memory.
pub const SLOTS: usize = 2 * ADDRESSES;
/// The time for which a released slot is not reused, so that its last requests can end. It exceeds the duration
/// of any normal probe.
pub const SLOT_REST_US: u64 = 10 * SECOND_US;
/// The interval at which the master checks that a rested slot has no requests left.
pub const SLOT_LOOK_US: u64 = SECOND_US;
/// Attempts to find a moment at which no worker is between two stores, after a worker has died there.
pub const SETTLE_LOOKS: usize = 10_000;
/// The maximum length of the precomputed rotation: the sum of weights times the number of backends. The
/// computation takes about 20 us for each change of backends. A longer cycle is computed step by step.
pub const ORDERED_STEPS: u64 = 16 * 1024;
/// Picks by the strategy before any untried backend below its limit is used.
pub const PICKS: usize = 4;
/// Buckets of hashes: so many that each of 4,096 backends gets about 64, and that a table of them takes half a
/// megabyte.
pub const HASH_BUCKETS: usize = 1 << 18;
/// Requests in flight below which a backend is below the bound of the load in any case. The end of one request is often
/// seen a moment after its client has sent the next one, which has to go to the same backend.
pub const HASH_FLOOR: u64 = 2;
/// Backends that a pick by hash looks at one by one, which takes half a microsecond. More have a table.
pub const HASH_SCANNED: usize = 256;
/// Retries per second that are allowed regardless of the request rate, over all workers.
pub const RETRY_FLOOR: u64 = 3;
/// The time for which a request adds to the retry budget: between one and two windows. Recent requests thus pay
/// for the retries of an outage.
pub const RETRY_WINDOW_US: u64 = 5 * SECOND_US;
/// Requests in one worker that wait for a backend below its limit.
pub const WAITING_REQUESTS: usize = 1024;
/// The interval at which a worker checks whether another worker's requests have ended.
pub const WAITING_LOOK_US: u64 = SECOND_US / 200;
/// The delay before a dial is repeated that met a full listen queue. Earlier, the queue would still be full.
/// Later, the response time would suffer.
pub const REDIAL_US: u64 = SECOND_US / 100;
/// Dials that are repeated per turn. The others follow in the next turn.
pub const REDIALS: usize = 64;
/// The minimum interval between two checks for due probes.
pub const PROBE_LOOK_US: u64 = SECOND_US / 100;
/// The interval between the first probes of backends that are added at once, so that they do not share one
/// turn.
pub const PROBE_ADDED_US: u64 = SECOND_US / 1000;
/// The fraction of the probe interval by which a probe may come early, so that probes spread.
pub const PROBE_JITTER: u64 = 10;
/// The time after which an unhealthy backend without probes is tried again.
pub const UNPROBED_US: u64 = 5 * SECOND_US;
/// The smallest share of requests during slow start: one part of this many.
pub const SLOW_START_PARTS: u64 = 10;
/// Idle connections to one backend in one worker.
pub const POOL_CONNECTIONS: usize = 1024;
/// The time for which an idle connection to a backend is kept. Servers close theirs after 5 to 75 seconds, and
/// losing this race costs a retry.
pub const POOL_IDLE_US: u64 = 30 * SECOND_US;
/// The maximum idle time of a pooled connection for a request that cannot be repeated. Hardly any server closes
/// a connection sooner.
pub const POOL_FRESH_US: u64 = SECOND_US;
/// Memory that the saved head of a finished request keeps for the next one.
pub const SAVED_HEAD_BYTES: usize = 4096;
/// Content of a request that is kept until the response begins, because a backend over HTTP/2 may say that it did not
/// process the request. nginx does so to all requests that cross the end of its connection. Most calls fit. A client over
/// HTTP/1 has one at most, a quarter of the block that the head of a request may hold, so the number of clients bounds
/// them. A client over HTTP/2 is charged for each.
pub const KEPT_CONTENT_BYTES: usize = 16 * 1024;
/// Heads of finished exchanges whose memory is kept.
pub const SPARE_HEADS: usize = 64;

const _: () = assert!(POOL_FRESH_US < POOL_IDLE_US);
/// The content of a response to a probe of gRPC: a message of two bytes, and fields of later versions.
pub const HEALTH_BYTES: usize = 1024;

const _: () = assert!(REPEATS < TRIES && TRIES <= u8::MAX as usize);

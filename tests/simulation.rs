//! The proxy on virtual time: its pure core runs between virtual clients and virtual backends over a virtual network,
//! without sockets, threads or a clock. A seed decides everything, so a failure can be repeated.
//!
//! These rules hold in every scenario: a request gets at most one response, in order, and its own; every byte is in
//! its place (`pattern`); a response that a backend truncates is truncated for the client; a request that is not
//! idempotent is delivered at most once; no connection to a backend is reused with bytes left over; the queue of a
//! connection is bounded; and everything comes to rest. If no backend and no client makes a mistake, every request
//! succeeds. Otherwise only requests that met a mistake may fail (`Entry::excused`).
//!
//! From the seed `HTTP2_SEEDS` on, two thirds of the clients speak HTTP/2. Smaller seeds have clients over HTTP/1 alone.
//! From `TUNNEL_SEEDS` on, many requests of both kinds of clients ask for a WebSocket.
//!
//! `SIM_SEED=n` plays one scenario and prints its story. `SIM_SEEDS=n` sets the number of scenarios, and `SIM_FROM=n`
//! the first seed. A quarter as many scenarios with clients over HTTP/2 follow, from `HTTP2_SEEDS + n` on, and an eighth
//! as many with WebSockets, from `TUNNEL_SEEDS + n` on.

mod answers;
mod backend;
mod client;
mod h2_client;
mod h2_frames;
mod h2_plan;
mod h2_stream;
mod message;
mod network;
mod pattern;
mod phases;
mod plan;
mod streams;
mod tunnel;
mod wire;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use network::Sabotage;
use world::{HTTP2_SEEDS, TUNNEL_SEEDS};

/// The number of scenarios with clients over HTTP/1 alone. There are half as many with clients over HTTP/2.
const SEEDS: u64 = 10_000;
/// A time that no scenario takes.
const FOR_EVER: Duration = Duration::from_secs(20);
/// The number of scenarios within which a planted fault must show.
const PLANTED_SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Plays a scenario. A panic counts as a failure.
fn play(seed: u64, sabotage: Sabotage, verbose: bool) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| world::play(seed, sabotage, verbose))) {
        Ok(result) => result,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_string()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// Returns the failing seeds in order: all, or at least `most` of them.
fn failures(seeds: Range<u64>, sabotage: Sabotage, most: usize) -> Vec<(u64, String)> {
    let (next, all) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (done, is_done) = channel::<()>();
    let at: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
    let (next_seed, found) = (&next, &all);
    std::thread::scope(|scope| {
        for at in &at {
            let done = done.clone();
            scope.spawn(move || {
                let _done = done;
                loop {
                    let seed = next_seed.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || found.lock().expect("nobody panics with it").len() >= most {
                        return;
                    }
                    at.store(seed, Ordering::Relaxed);
                    if let Err(text) = play(seed, sabotage, false) {
                        found.lock().expect("nobody panics with it").push((seed, text));
                    }
                }
            });
        }
        drop(done);
        watch(&is_done, &at);
    });
    let mut found = all.into_inner().expect("nobody panics with it");
    found.sort();
    found
}

/// Watches for a scenario that does not end, which nothing else would report.
fn watch(is_done: &Receiver<()>, at: &[AtomicU64]) {
    let mut before = Vec::new();
    while is_done.recv_timeout(FOR_EVER) == Err(RecvTimeoutError::Timeout) {
        let now: Vec<u64> = at.iter().map(|at| at.load(Ordering::Relaxed)).collect();
        if let Some(seed) = now.iter().find(|seed| before.contains(*seed) && **seed > 0) {
            eprintln!("seed {seed} does not end: SIM_SEED={seed} cargo test simulation");
            std::process::abort();
        }
        before = now;
    }
}

#[test]
fn every_request_is_answered_once_and_no_byte_goes_astray() {
    if let Some(seed) = number("SIM_SEED") {
        play(seed, Sabotage::Nothing, true).unwrap_or_else(|text| panic!("seed {seed}: {text}"));
        return;
    }
    let most = if std::env::var_os("SIM_ALL").is_some() { usize::MAX } else { 1 };
    let (first, count) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let over_http1 = first..first + count;
    let over_http2 = HTTP2_SEEDS + first..HTTP2_SEEDS + first + count / 4;
    let tunnels = TUNNEL_SEEDS + first..TUNNEL_SEEDS + first + count / 8;
    let mut found = failures(over_http1, Sabotage::Nothing, most);
    found.extend(failures(over_http2, Sabotage::Nothing, most));
    found.extend(failures(tunnels, Sabotage::Nothing, most));
    let lines: Vec<String> = found
        .iter()
        .map(|(seed, text)| {
            format!("seed {seed}: {text}\n  again, with its story: SIM_SEED={seed} cargo test simulation")
        })
        .collect();
    assert!(lines.is_empty(), "{} scenarios fail\n{}", lines.len(), lines.join("\n"));
}

/// Seeds that failed once, beyond the range that is always played. In the first two, two backends declined a request
/// one after the other, and only the second was asked again. In the third, the only backend that was left was ejected
/// and at its limit, and the request was refused instead of waiting. The next three showed faults of this simulation.
/// In the next two, a client over HTTP/2 stayed charged for the queue of a backend that had failed, and a connection
/// spoke the version of another backend than the one that it was dialled for. In the last one, the client counted its
/// idle time from its reset of a stream, although much of that stream's content was queued and still had to arrive.
const REGRESSIONS: [u64; 9] =
    [91_904, 435_988, 257_750, 251_889, 254_265, 421_762, 10_001_002_990, 10_001_040_756, 10_005_042_250];

/// The same for scenarios with many WebSockets. In the first one, a tunnel never ended whose client over HTTP/2 ended its
/// direction and then that of its connection. In the next two, a client over HTTP/2 closed its connection in the middle of
/// a tunnel, and the backend took the content for complete.
const TUNNEL_REGRESSIONS: [u64; 3] = [30_000_001_104, 40_000_001_002, 60_000_001_282];

#[test]
fn scenarios_that_failed_once_pass() {
    for seed in REGRESSIONS.into_iter().chain(TUNNEL_REGRESSIONS) {
        play(seed, Sabotage::Nothing, false).unwrap_or_else(|text| panic!("seed {seed}: {text}"));
    }
}

#[test]
fn planted_faults_are_noticed() {
    use Sabotage::{FlippedByte, LostPlan, LostReceive, ResetAsEnd, StrayCredit};
    let over_http1 = [FlippedByte, LostReceive, ResetAsEnd, LostPlan, StrayCredit].map(|sabotage| (0, sabotage));
    let over_http2 = [FlippedByte, LostReceive, LostPlan, StrayCredit].map(|sabotage| (HTTP2_SEEDS, sabotage));
    for (first, sabotage) in over_http1.into_iter().chain(over_http2) {
        let found = failures(first..first + PLANTED_SEEDS, sabotage, 1);
        assert!(!found.is_empty(), "{sabotage:?} was not noticed in {PLANTED_SEEDS} scenarios from {first} on");
    }
}

#[test]
fn content_beyond_the_window_of_a_connection_is_noticed() {
    for owner in ["client", "backend"] {
        is_noticed(HTTP2_SEEDS, Sabotage::StrayCredit, &format!("too many for the connection of the {owner}"));
    }
}

/// Each by the check that is there for it.
#[test]
fn a_message_that_comes_twice_is_noticed() {
    is_noticed(0, Sabotage::SecondDelivery, "not idempotent, was delivered twice");
    is_noticed(0, Sabotage::SecondResponse, "a response 200 to nothing");
}

#[test]
fn faults_of_tunnels_are_noticed() {
    // A byte in each direction, and over each version.
    let flipped = ["wrong content for the tunnel", "are not the other end's"];
    flipped.into_iter().for_each(|check| is_noticed(TUNNEL_SEEDS, Sabotage::FlippedByte, check));
    is_noticed(TUNNEL_SEEDS, Sabotage::CutAsEnd, "bytes for the tunnel");
    is_noticed(TUNNEL_SEEDS, Sabotage::ResetAsEnd, "the backend takes");
    is_noticed(TUNNEL_SEEDS, Sabotage::WrongProof, "101 for the tunnel");
    is_noticed(TUNNEL_SEEDS, Sabotage::WrongProof, "502 of the proxy's own");
}

/// Plays scenarios with a planted fault, and expects a failure with this text.
fn is_noticed(first: u64, sabotage: Sabotage, check: &str) {
    let found = failures(first..first + PLANTED_SEEDS, sabotage, usize::MAX);
    let others = || found.iter().map(|(_, text)| text.as_str()).take(3).collect::<Vec<_>>();
    assert!(found.iter().any(|(_, text)| text.contains(check)), "{sabotage:?} was noticed by: {:?}", others());
}

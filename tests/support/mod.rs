//! Foundations of the behaviour tests: the program under test, backends, clients, conditions.

mod backend;
mod balancer;
// The tests of `src/tls`, which include the file by its path, use more of it.
#[allow(dead_code)]
pub mod certificate;
mod directory;
pub mod frames;
mod front;
pub mod gateway;
mod message;
mod random;
mod relay;
mod streams;
mod system;
// The tests of `src/tls` use more of it.
#[allow(dead_code)]
pub mod records;
pub mod traffic;
mod wire;

pub use backend::{Backend, Gate, Peer};
pub use balancer::{Balancer, Exit, Mode, command, modes, run};
pub use directory::Directory;
pub use front::{Front, Pair, pairs};
pub use gateway::{PROTOCOLS, Protocol, Way};
pub use message::{Body, BodyReader, Framing, Message, chunked, response};
pub use random::Random;
pub use relay::listen;
pub use system::{
    Pid, alive, anonymous_kib, children, clients_of, ignore_when_full, is_asleep, limit_descriptors, limit_processes,
    open_descriptors, processor_ticks, resident_kib, send_signal, shrink_queue, shrink_room, stop, unread,
    use_up_descriptors, user_ids, watches_listeners,
};
pub use wire::{Fault, Socket, Wire};

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The time after which any wait fails its test: far longer than a busy machine needs.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An address without a listener. Tests use ports that the system assigns, and this is not one of those.
pub const VACANT: &str = "127.0.0.1:1";

/// Reports that a test has checked nothing, and the reason. It bypasses the harness, which would hide it.
pub fn skipped(why: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A corpus beside the repository, which is not part of it; `None`, with a message, if it is absent.
pub fn corpus(name: &str) -> Option<PathBuf> {
    let repository = std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let directory = repository.join("../shared/corpora").join(name);
    if !directory.is_dir() {
        skipped(format_args!("{name} is absent ({})", directory.display()));
        return None;
    }
    Some(directory)
}

/// Waits until `condition` holds. Fails the test with `what` after the deadline.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} without success: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until `value` has been constant for a while, because "nothing more comes" is not an event. On a slow
/// machine the test can only see less.
pub fn wait_until_still(mut value: impl FnMut() -> u64) -> u64 {
    let start = Instant::now();
    let mut last = (value(), Instant::now());
    while last.1.elapsed() < Duration::from_millis(300) {
        assert!(start.elapsed() < DEADLINE, "never came to rest: {}", last.0);
        std::thread::sleep(Duration::from_millis(10));
        let now = value();
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

/// A short excerpt of bytes for a failure message.
pub fn shown(bytes: &[u8]) -> String {
    let text: String = bytes.iter().take(400).flat_map(|b| b.escape_ascii()).map(char::from).collect();
    if bytes.len() > 400 { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

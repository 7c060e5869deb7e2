//! What the behaviour tests stand on: the program under test, backends, clients, conditions.

mod backend;
mod balancer;
// The tests of `src/tls` use more of it, by its path.
#[allow(dead_code)]
pub mod certificate;
mod directory;
pub mod frames;
pub mod gateway;
mod message;
mod random;
mod system;
pub mod traffic;
mod wire;

pub use backend::{Backend, Gate, Peer};
pub use balancer::{Balancer, Exit, Mode, command, modes, run};
pub use directory::Directory;
pub use gateway::{PROTOCOLS, Protocol, Way};
pub use message::{Body, BodyReader, Framing, Message, chunked, response};
pub use random::Random;
pub use system::{
    Pid, alive, children, clients_of, ignore_when_full, is_asleep, limit_descriptors, limit_processes,
    open_descriptors, processor_ticks, resident_kib, send_signal, shrink_queue, shrink_room, stop, unread,
    use_up_descriptors, user_ids, watches_listeners,
};
pub use wire::{Fault, Socket, Wire};

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails: far past what a busy machine needs.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// An address that nothing listens on: tests take ports that the system gives them, and this is none of those.
pub const VACANT: &str = "127.0.0.1:1";

/// Says that a test has checked nothing, and why; past the harness, which would keep it to itself.
pub fn skipped(why: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A corpus that is looked for beside the repository, and never kept in it; `None`, and said, where it is not.
pub fn corpus(name: &str) -> Option<PathBuf> {
    let repository = std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let directory = repository.join("../shared/corpora").join(name);
    if !directory.is_dir() {
        skipped(format_args!("{name} is absent ({})", directory.display()));
        return None;
    }
    Some(directory)
}

/// Waits until `condition` holds; fails the test, naming `what`, past the deadline.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Waits until `value` has stayed the same for a while: for "nothing more comes", which has no
/// event to wait for. A slow machine can only make the test see less than it might.
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

/// A short stretch of bytes for a failure message.
pub fn shown(bytes: &[u8]) -> String {
    let text: String = bytes.iter().take(400).flat_map(|b| b.escape_ascii()).map(char::from).collect();
    if bytes.len() > 400 { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

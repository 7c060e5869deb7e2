//! The operating system: one file per facility, each a safe wrapper that returns `io::Result`. Only these files
//! and the SIMD scanners contain `unsafe`.

pub mod address;
pub mod affinity;
pub mod changes;
pub mod clock;
pub mod entropy;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod epoll;
pub mod exec;
pub mod file;
pub mod fork;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod inotify;
pub mod kqueue;
pub mod limit;
pub mod listen;
pub mod shm;
pub mod signal;
pub mod socket;
mod stderr;
pub mod user;
pub mod vnode;

pub use stderr::{forget_lost, has_lost, is_journal, report_lost, take_lost, write_stderr};

/// A change of a descriptor's readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The token under which the descriptor was registered.
    pub token: u64,
    /// A read would not block: there is data, the end, or an error.
    pub readable: bool,
    /// A write would not block, or would fail.
    pub writable: bool,
    /// The end of the peer's direction.
    pub hangup: Hangup,
}

/// The end of the peer's direction, as far as an event reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// The direction is open, or the event says nothing about it.
    None,
    /// The direction has ended. Reads return the remaining data, then the end.
    Ended,
    /// The connection failed.
    Failed,
}

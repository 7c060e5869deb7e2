//! Exit statuses, and the failures that lead to them.

use std::fmt;
use std::io;

/// Exit status: done, or drained with nothing cut.
pub(in crate::process) const DONE: u8 = 0;
/// Exit status: failed while running, or requests were cut.
pub(in crate::process) const FAILED: u8 = 1;
/// Exit status: the options or the configuration are invalid.
pub(in crate::process) const USAGE: u8 = 2;

/// The reason why nothing was started.
pub(in crate::process) struct Failure {
    pub(in crate::process) status: u8,
    pub(in crate::process) message: String,
}

impl Failure {
    pub(in crate::process) fn new(status: u8, message: String) -> Failure {
        Failure { status, message }
    }

    /// A failed system call: `what` the program cannot do because of it.
    pub(in crate::process) fn of(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure::new(FAILED, format!("cannot {what}: {error}"))
    }
}

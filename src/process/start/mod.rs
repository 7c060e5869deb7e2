//! Parts of a start: the account to run as, the number of CPUs, the listeners.

pub(super) mod account;
pub(super) mod cpus;
pub(super) mod listen;

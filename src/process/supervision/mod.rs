//! Processes that serve: the master and its workers (mp), or one process (sp).

pub(super) mod master;
pub(super) mod respawn;
pub(super) mod single;
pub(super) mod watchdog;

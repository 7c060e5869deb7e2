//! Interfaces to service managers and container runtimes: socket activation, notification, `--healthcheck`.

pub mod activation;
pub(super) mod healthcheck;
pub(super) mod notify;

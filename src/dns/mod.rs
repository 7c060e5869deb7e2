//! A DNS resolver without sockets: text and datagrams go in, addresses come out.
//!
//! [`resolver`] is the state machine: it requests sockets and messages, receives their results and the time,
//! and reports changed addresses. [`message`] writes queries and reads responses. [`hosts`] and [`resolv_conf`]
//! parse the system's files.

mod entry;
pub mod hosts;
mod lookup;
pub mod message;
mod output;
pub mod resolv_conf;
pub mod resolver;

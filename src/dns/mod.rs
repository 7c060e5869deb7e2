//! Names of hosts, looked up without a socket: text and datagrams go in, addresses come out.
//!
//! [`message`] is how queries are written and answers read;

pub mod hosts;
pub mod message;
pub mod resolv_conf;

//! Names of hosts, looked up without a socket: text and datagrams go in, addresses come out.
//!
//! [`resolver`] is the machine: it says what to send where, is told what came back and what time
//! it is, and says when a name's addresses have changed. [`message`] is how queries are written
//! and answers read; [`hosts`] and [`resolv_conf`] are the files that the system keeps for it.

mod entry;
pub mod hosts;
mod lookup;
pub mod message;
pub mod resolv_conf;
pub mod resolver;

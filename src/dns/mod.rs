//! Names of hosts, looked up without a socket: text goes in, addresses come out.

pub mod hosts;

//! The zzz load balancer, as a library and a thin binary.
//!
//! A pure core holds every protocol and every decision and touches nothing: bytes, tokens and
//! the time go in, bytes and outputs come out. A thin shell owns sockets, the poller and the
//! clock, and decides nothing. Each layer uses only the layers above it:
//!
//! ```text
//! 1  limits  collections  sys  log          bounds, containers, the system, lines of log
//! 1  digest  base64                         hashes, binary data as text
//! 2  http  json  balance  dns               messages, values, the pick, names
//! 2  hpack  metrics  reactor                fields as HTTP/2 sends them, counts, readiness
//! 3  http1  args  shared                    HTTP/1 as bytes, the command line, shared memory
//! 3  http2                                  HTTP/2 as frames
//! 4  config  proxy                          what to run, and every exchange
//! 5  tls                                    sessions with backends, certificates
//! 6  worker                                 one loop over reactor and core
//! 7  process                                the master and its workers
//! 8  main
//! ```
//!
//! `tests/tidy.rs` holds the tree to this table. `unsafe` lives in `sys` and in the SIMD
//! scanners, nowhere else.

#![deny(unsafe_code, missing_docs, unreachable_pub)]

pub mod args;
pub mod balance;
pub mod base64;
pub mod collections;
pub mod config;
pub mod digest;
pub mod dns;
pub mod hpack;
pub mod http;
pub mod http1;
pub mod http2;
pub mod json;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod process;
pub mod proxy;
pub mod reactor;
pub mod shared;
pub mod sys;
pub mod tls;
pub mod worker;

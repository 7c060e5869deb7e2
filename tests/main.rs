//! Behaviour tests: the built binary between clients and backends that the tests themselves implement.
//!
//! There is one module for each behaviour, run over mp and sp. A test waits for conditions with a deadline. If
//! a lapse of time is itself the subject of a test, the test says so.
//!
//! Over HTTP/1.1, backends and clients send raw bytes and use a parser of their own (`support/message.rs`), so
//! that an error in the program's parser cannot hide itself. Over HTTP/2, the gateways (`support/gateway.rs`)
//! use the program's own `http2`. The interop checks `http2-nginx`, `http2-goaway`, `http2-peers` and `hpack`
//! test it against other implementations.

#![deny(unsafe_code)]

mod support;

mod aborts;
mod addresses;
mod affinity;
mod bodies;
mod bound;
mod check;
mod check_certificates;
mod cli;
mod config_file;
mod counters;
mod demo;
mod drain;
mod drain_streams;
mod early_answers;
mod failed_requests;
mod forwarding;
mod front;
mod front_streams;
mod fuzz_smoke;
mod health;
mod hpack_corpus;
mod http2;
mod json_corpus;
mod limits;
mod losses;
mod matrix;
mod metrics;
mod muxes;
mod names;
mod operators;
mod pooling;
mod processes;
mod proxy_header;
mod readme;
mod regressions;
mod reload;
mod responses;
mod retries;
mod routing;
mod send_proxy;
mod services;
mod shutdown;
mod simulation;
mod smuggling;
mod steady;
mod strategies;
mod supervision;
mod tidy;
mod timeouts;
mod tls;
mod tls_files;
mod tls_floods;
mod tls_front;
mod tls_leaving;
mod tls_tickets;
mod tls_user;
mod trace;
mod upgrade;
mod upgrade_failures;
mod upgrade_layout;
mod upgrade_tunnel;
mod upgrade_versions;

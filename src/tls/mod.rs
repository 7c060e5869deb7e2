//! TLS on rustls with the ring provider: versions 1.3 and 1.2.
//!
//! A [`session::Session`] is one connection as a machine, for either role: ciphertext from the peer goes in, plaintext
//! comes out, and the other way round. It owns no socket, never waits, and bounds everything that it holds. A
//! [`client::Config`] is the part that all sessions with backends share: the roots, the protocols offered, the sessions
//! that can be resumed. A backend's certificate is always verified against the backend's configured name, except with
//! `--insecure`. A [`server::Config`] is the part that all sessions with clients share: the pairs of certificate and key
//! ([`pair`]), the authorities for certificates of clients, the keys of session tickets ([`tickets`]).
//!
//! Files of certificates are read ([`roots`]) when a configuration is made, never later. The library reads the clock
//! while it verifies.

pub mod algorithm;
pub mod certificate;
pub mod chain;
pub mod client;
pub mod dev;
pub mod failure;
mod key_log;
pub mod pair;
mod provider;
pub mod roots;
pub mod server;
pub mod session;
pub mod tickets;
pub mod trace;

/// The ALPN name of HTTP/2 (RFC 9113, section 3.1).
pub const HTTP_2: &[u8] = b"h2";
/// The ALPN name of HTTP/1.1 (RFC 7301, section 6).
pub const HTTP_1: &[u8] = b"http/1.1";

#[cfg(test)]
// The file belongs to the behaviour tests, which are another crate.
#[allow(unreachable_pub)]
#[path = "../../tests/support/certificate.rs"]
mod issue;

#[cfg(test)]
// The file belongs to the behaviour tests, which are another crate.
#[allow(unreachable_pub)]
#[path = "../../tests/support/records.rs"]
mod raw;

//! TLS towards backends, on rustls with the ring provider: TLS 1.3 and 1.2.
//!
//! A [`session::Session`] is one connection as a machine: ciphertext from the peer goes in,
//! plaintext comes out, and the other way round. It owns no socket, never waits, and everything
//! that it holds is bounded. A [`config::Config`] is what all sessions share: the roots, the
//! protocols offered, the sessions that can be resumed. Certificates are always verified against
//! the name that the backend was configured with, unless `--insecure` was given.
//!
//! Files of certificates are read ([`roots`]) when a configuration is made, never later. The
//! clock is read by the library while it verifies.

pub mod certificate;
pub mod config;
pub mod failure;
pub mod roots;
pub mod session;
pub mod trace;

#[cfg(test)]
// It stands among the behaviour tests, which are a crate of their own.
#[allow(unreachable_pub)]
#[path = "../../tests/support/certificate.rs"]
mod issue;

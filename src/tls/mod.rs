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

use std::path::Path;

pub mod algorithm;
pub mod certificate;
pub mod config;
pub mod failure;
mod key_log;
pub mod roots;
pub mod session;
pub mod trace;

/// The names of protocols (RFC 7301, and RFC 9113, 3.1).
pub const HTTP_2: &[u8] = b"h2";
/// The same.
pub const HTTP_1: &[u8] = b"http/1.1";

/// What sessions with backends share: with the roots of a file, else those of the environment and
/// the system; or without any, where every certificate is accepted. Sessions
/// offer HTTP/2 and HTTP/1.1.
///
/// `tell_secrets`: they are appended to the file that `SSLKEYLOGFILE` names, where it names one.
///
/// # Errors
/// There is nothing to verify backends with: where it was looked for. Or that file cannot be written to.
pub fn client(ca_file: Option<&Path>, insecure: bool, tell_secrets: bool) -> Result<config::Config, String> {
    let roots = match insecure {
        true => roots::Roots::none(),
        false => roots::Roots::read(&roots::Sources::from_environment(ca_file)).map_err(|none| none.to_string())?,
    };
    let key_log = std::env::var_os("SSLKEYLOGFILE").filter(|path| tell_secrets && !path.is_empty());
    let settings =
        config::Settings { roots, insecure, alpn: &[HTTP_2, HTTP_1], key_log: key_log.as_deref().map(Path::new) };
    config::Config::new(settings).map_err(|error| error.to_string())
}

#[cfg(test)]
// It stands among the behaviour tests, which are a crate of their own.
#[allow(unreachable_pub)]
#[path = "../../tests/support/certificate.rs"]
mod issue;

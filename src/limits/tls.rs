//! Bounds of TLS (RFC 8446).

use super::*;

/// A file of authorities' certificates: the bundles of systems have a quarter of a megabyte.
pub const ROOT_FILE_BYTES: u64 = 8 << 20;
/// Files read of a directory of them: systems have some 150 authorities, under two or three names.
pub const ROOT_DIRECTORY_FILES: usize = 4096;
/// Directories that one variable can name.
pub const ROOT_DIRECTORIES: usize = 16;
/// Authorities that are kept.
pub const ROOTS: usize = 4096;
/// Names whose sessions are kept to be resumed, each with up to eight tickets: as many as there
/// can be backends.
pub const TLS_SESSIONS: usize = BACKENDS;
/// Bytes that a session takes to be sent, and has not sent: two of the largest records, so that
/// one can be made while the other is sent.
pub const TLS_SEND_BYTES: usize = 2 * TLS_RECORD_BYTES;
/// Bytes that a session has decrypted and nobody has taken at which it takes no more: the library
/// has this limit fixed. It may pass it by what one more record brings.
pub const TLS_RECEIVE_BYTES: usize = TLS_RECORD_BYTES;
/// The plaintext of one record (RFC 8446, section 5.1).
pub const TLS_RECORD_BYTES: usize = 16 * 1024;
/// Application protocols that can be offered.
pub const ALPN_PROTOCOLS: usize = 8;
/// Ciphertext read at once: four records of the greatest size, about what a full socket has.
pub const TLS_READ_BYTES: usize = 64 * 1024;
/// Sockets that still send the last of a session whose connection is gone, as the system does for those
/// without TLS; with more they are closed at once.
pub const TLS_LEAVING: usize = 1024;
/// How long one may take over that.
pub const TLS_LEAVING_US: u64 = 30 * SECOND_US;
/// Alerts of one session that are kept until they are told.
pub const TLS_ALERTS: usize = 4;
/// Lines of one connection's `--tls-trace` that wait to be written.
pub const TLS_TRACE_LINES: usize = 16;
/// Names of a certificate that are shown; some have hundreds.
pub const SHOWN_CERTIFICATE_NAMES: usize = 10;
/// How much of a certificate's subject is shown.
pub const SHOWN_SUBJECT_CHARS: usize = 256;

//! Bounds of TLS (RFC 8446).

use super::*;

/// A file of CA certificates. System bundles have a quarter of a megabyte.
pub const ROOT_FILE_BYTES: u64 = 8 << 20;
/// Files read from a directory of CA certificates. Systems have about 150 authorities, under two or three names
/// each.
pub const ROOT_DIRECTORY_FILES: usize = 4096;
/// Directories in one variable.
pub const ROOT_DIRECTORIES: usize = 16;
/// CA certificates that are kept.
pub const ROOTS: usize = 4096;
/// Names whose sessions are kept for resumption, each with up to eight tickets: as many as there can be
/// backends.
pub const TLS_SESSIONS: usize = BACKENDS;
/// Unsent bytes that a session holds: two of the largest records, so that one can be encrypted while the other
/// is sent.
pub const TLS_SEND_BYTES: usize = 2 * TLS_RECORD_BYTES;
/// Decrypted, unread bytes at which a session accepts no more. The library's own limit is the same. One more
/// record may exceed it.
pub const TLS_RECEIVE_BYTES: usize = TLS_RECORD_BYTES;
/// The plaintext of one record (RFC 8446, 5.1).
pub const TLS_RECORD_BYTES: usize = 16 * 1024;
/// Application protocols that can be offered.
pub const ALPN_PROTOCOLS: usize = 8;
/// The size of one read of ciphertext: four records of maximum size, about as much as a full socket holds.
pub const TLS_READ_BYTES: usize = 64 * 1024;
/// Sockets that still send the end of a session after its connection is gone. For plain TCP the kernel does
/// this. Further sockets are closed at once.
pub const TLS_LEAVING: usize = 1024;
/// The maximum duration of that.
pub const TLS_LEAVING_US: u64 = 30 * SECOND_US;
/// Alerts of one session that are kept until they are logged.
pub const TLS_ALERTS: usize = 4;
/// Lines of `--tls-trace` that may be queued for one connection.
pub const TLS_TRACE_LINES: usize = 16;
/// Names of a certificate that are shown. Some certificates have hundreds.
pub const SHOWN_CERTIFICATE_NAMES: usize = 10;
/// The part of a certificate's subject that is shown.
pub const SHOWN_SUBJECT_CHARS: usize = 256;
/// Pairs of certificate and key that are served.
pub const PAIRS: usize = 256;
/// Certificates of authorities for clients.
pub const CLIENT_AUTHORITIES: usize = 256;

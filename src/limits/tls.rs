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
/// Records by which the records of a session may outnumber its bytes of content. Each record of content has a byte at
/// least. The others change keys, are empty, warn, or carry tickets; a peer has no reason for more than a few of them.
pub const TLS_EMPTY_RECORDS: u32 = 1000;
/// Application protocols that can be offered.
pub const ALPN_PROTOCOLS: usize = 8;
/// The size of one read of ciphertext: four records of maximum size, about as much as a full socket holds.
pub const TLS_READ_BYTES: usize = 64 * 1024;
/// Sockets that still send the end of a session after its connection is gone. For plain TCP the kernel does
/// this. A further one replaces the one that expires first, so slow peers cost at most their
/// sessions and `TLS_SEND_BYTES` each. They count against --max-connections, but a client replaces one of them.
pub const TLS_LEAVING: usize = 1024;
/// The longest time for which the peer of such a socket may take nothing.
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
/// A file with a certificate or a key. A chain of four certificates with comments has a tenth of it.
pub const PAIR_FILE_BYTES: usize = 128 << 10;
/// The certificates of a chain, and the key, in DER. Clients accept messages of the handshake of 64 KiB or less.
pub const PAIR_BYTES: usize = 32 << 10;
/// Certificates in the chain of a pair. Three are usual.
pub const CHAIN_CERTIFICATES: usize = 10;
/// Certificates of authorities for clients.
pub const CLIENT_AUTHORITIES: usize = 256;
/// Validity that is left to a certificate when `--check` begins to warn. Certificates of 90 days are renewed then.
pub const EXPIRY_WARNING_S: i64 = 30 * 86_400;
/// Validity that is left to a certificate when a start logs it. Then its renewal has failed for weeks.
pub const EXPIRY_LOGGED_S: i64 = 7 * 86_400;
/// The bits of RSA keys that ring signs with.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// The time after which the key of session tickets changes. A ticket is accepted for one to two periods. With keys of
/// 12 hours, a client that comes back the same day resumes, and a stolen key reveals the sessions of a day.
pub const TICKET_PERIOD_S: u64 = 12 * 3600;
/// The fewest bytes of `--tls-ticket-key`.
pub const TICKET_FILE_BYTES: usize = 80;
/// The largest session that is put into a ticket. It has the client's certificates. A larger one is not resumed, because
/// the client would have to repeat it in each of its first messages.
pub const TICKET_SESSION_BYTES: usize = 8 << 10;
/// A file with authorities of clients.
pub const CLIENT_AUTHORITY_FILE_BYTES: usize = 1 << 20;
/// The time that the files of a certificate and its key have to be replaced, one after the other. A new certificate is
/// to be served within a second.
pub const PAIR_SETTLE_US: u64 = SECOND_US / 2;
/// The value of Client-Cert, or of Client-Cert-Chain. A larger one would fill the head of a request, and is left out.
pub const CLIENT_CERTIFICATE_FIELD_BYTES: usize = 16 * 1024;
/// The validity of a generated certificate: a year.
pub const DEV_VALIDITY_S: u64 = 365 * 86_400;
/// The time after which keys of tickets are made again if that has failed. Those before still serve.
pub const TICKET_RETRY_US: u64 = 60 * SECOND_US;

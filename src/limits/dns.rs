//! Bounds of name resolution (RFC 1035, resolv.conf(5)).

use super::*;

/// A DNS message: the maximum of the length prefix on TCP (RFC 1035, 4.2.2).
pub const DNS_MESSAGE_BYTES: usize = 65_535;
/// A name in a DNS message, including length bytes and the root's empty label (RFC 1035, 3.1).
pub const DNS_NAME_BYTES: usize = 255;
/// Compression pointers followed for one name: a name of `DNS_NAME_BYTES` has no more labels.
pub const DNS_POINTERS: usize = 127;
/// Records of a response that are examined: several times the number of addresses kept.
pub const DNS_RECORDS: usize = 1024;
/// CNAME records followed from one name. Other resolvers use the same limit, and it exceeds any real chain.
pub const DNS_CNAMES: usize = 16;
/// Addresses of one name: as many as the largest headless services have.
pub const NAME_ADDRESSES: usize = 256;
/// Names that are resolved: all names of one configuration and of its successor.
pub const NAMES: usize = 2 * BACKENDS;
/// Names that are looked up at once, without the slow ones. Each has up to two queries, and each query has a
/// descriptor. Servers answer within milliseconds, so the other names wait only briefly.
pub const DNS_LOOKUPS: usize = 64;
/// A lookup that takes longer counts as slow and no longer occupies a place. A recursive server usually needs
/// less.
pub const DNS_SLOW_US: u64 = SECOND_US / 4;
/// Slow lookups at once: every name of a configuration, so that names that time out delay no other.
pub const DNS_SLOW_LOOKUPS: usize = BACKENDS;
/// Messages on a query's socket that do not answer it. A peer that guesses ids sends such messages. Another
/// socket with another id is used before many guesses were made.
pub const DNS_STRAYS: u32 = 16;
/// The minimum lifetime of an answer. With a TTL of 0, every name would be queried permanently.
pub const DNS_TTL_MIN_US: u64 = SECOND_US;
/// The maximum lifetime of an answer. A change is seen within this time, regardless of an earlier TTL.
pub const DNS_TTL_MAX_US: u64 = 60 * SECOND_US;
/// The maximum lifetime of a negative answer for a name that has addresses. Such a name is likely to return.
pub const DNS_DENIAL_MAX_US: u64 = 5 * SECOND_US;
/// The delay before a name without an address is looked up again. Requests for it fail until it has one.
pub const DNS_UNRESOLVED_US: u64 = SECOND_US;
/// The minimum interval between two lookups of a name because one of its addresses failed.
pub const DNS_SUSPECT_US: u64 = SECOND_US;
/// The interval at which the master checks for addresses of names that workers could not reach.
pub const SUSPECTS_LOOK_US: u64 = SECOND_US / 5;
/// The delay before a failed lookup is repeated. Each further failure doubles it.
pub const DNS_RETRY_US: u64 = SECOND_US;
/// The maximum of that delay.
pub const DNS_RETRY_MAX_US: u64 = DNS_DENIAL_MAX_US;
/// The port of name servers.
pub const DNS_PORT: u16 = 53;

/// The part of /etc/resolv.conf that is read.
pub const RESOLV_CONF_BYTES: usize = 64 * 1024;
/// Name servers used (resolv.conf(5), MAXNS).
pub const NAME_SERVERS: usize = 3;
/// Domains in the search list (resolv.conf(5)).
pub const SEARCH_DOMAINS: usize = 6;
/// The maximum of `ndots` (resolv.conf(5)).
pub const NDOTS: usize = 15;
/// The default time for a server to answer, in seconds (resolv.conf(5), RES_TIMEOUT).
pub const DNS_TIMEOUT_S: u64 = 5;
/// The maximum of `timeout`, in seconds (resolv.conf(5)).
pub const DNS_TIMEOUT_MAX_S: u64 = 30;
/// The default number of rounds over all servers (resolv.conf(5), RES_DFLRETRY).
pub const DNS_ATTEMPTS: u32 = 2;
/// The maximum of `attempts` (resolv.conf(5)).
pub const DNS_ATTEMPTS_MAX: u32 = 5;

const _: () = assert!(DNS_TTL_MIN_US < DNS_TTL_MAX_US && DNS_RETRY_US < DNS_RETRY_MAX_US);
const _: () = assert!(NAME_ADDRESSES <= DNS_RECORDS && DNS_CNAMES < DNS_RECORDS);
const _: () = assert!(NAME_ADDRESSES <= ADDRESSES && BACKENDS <= ADDRESSES && SLOTS <= u16::MAX as usize);
const _: () = assert!(HOST_NAME_BYTES + 2 == DNS_NAME_BYTES);
const _: () = assert!(DNS_TIMEOUT_S <= DNS_TIMEOUT_MAX_S && DNS_ATTEMPTS <= DNS_ATTEMPTS_MAX);
const _: () = assert!(DNS_LOOKUPS >= 1 && DNS_SLOW_US < DNS_TIMEOUT_S * SECOND_US);
const _: () = assert!(DNS_UNRESOLVED_US >= DNS_TTL_MIN_US && DNS_DENIAL_MAX_US <= DNS_TTL_MAX_US);

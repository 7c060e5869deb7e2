//! Bounds of name resolution (RFC 1035, resolv.conf(5)).

use super::*;

/// A DNS message: what the length before it on TCP can say (RFC 1035, 4.2.2).
pub const DNS_MESSAGE_BYTES: usize = 65_535;
/// A name in a DNS message, lengths and the root's empty label included (RFC 1035, 3.1).
pub const DNS_NAME_BYTES: usize = 255;
/// Pointers followed for one name: a name of `DNS_NAME_BYTES` has no more labels to be pointed to.
pub const DNS_POINTERS: usize = 127;
/// Records of an answer that are looked at: several times the addresses that are kept.
pub const DNS_RECORDS: usize = 1024;
/// CNAME records followed from one name; what resolvers follow too, and more than anyone sets up.
pub const DNS_CNAMES: usize = 16;
/// Addresses of one name that are used: as many as the largest headless services have.
pub const NAME_ADDRESSES: usize = 256;
/// Names that are followed: all that one configuration may have, and those of another that may take
/// its place.
pub const NAMES: usize = 2 * BACKENDS;
/// Names that are looked up at once, slow ones apart, each with up to two queries that hold a descriptor. Servers
/// answer within milliseconds, so the turn of the others comes soon.
pub const DNS_LOOKUPS: usize = 64;
/// A lookup that has taken so long is slow, and takes no place from others: more than a server takes that recurses.
pub const DNS_SLOW_US: u64 = SECOND_US / 4;
/// Slow lookups at once: every name of a configuration, so that names that time out delay no other.
pub const DNS_SLOW_LOOKUPS: usize = BACKENDS;
/// Messages on a query's socket that do not answer it. Their like comes from one who guesses ids,
/// so that another socket with another id is used before many were tried.
pub const DNS_STRAYS: u32 = 16;
/// The least time that an answer is used: TTLs of 0 would have every name asked for all the time.
pub const DNS_TTL_MIN_US: u64 = SECOND_US;
/// The longest: a change is met within it, whatever TTL was set before.
pub const DNS_TTL_MAX_US: u64 = 60 * SECOND_US;
/// The longest that a denial is believed of a name that has addresses: a name that was denied once is likely to return.
pub const DNS_DENIAL_MAX_US: u64 = 5 * SECOND_US;
/// How soon a name is looked up again that has no address: requests for it fail until it has one.
pub const DNS_UNRESOLVED_US: u64 = SECOND_US;
/// The least time between two lookups of a name that a failing address asks for.
pub const DNS_SUSPECT_US: u64 = SECOND_US;
/// How often the master looks whether a worker has met an address of a name that does not work.
pub const SUSPECTS_LOOK_US: u64 = SECOND_US / 5;
/// How soon a lookup that failed is made again; each further failure doubles it.
pub const DNS_RETRY_US: u64 = SECOND_US;
/// The longest such delay.
pub const DNS_RETRY_MAX_US: u64 = DNS_DENIAL_MAX_US;
/// The port of name servers.
pub const DNS_PORT: u16 = 53;

/// The part of /etc/resolv.conf that is read.
pub const RESOLV_CONF_BYTES: usize = 64 * 1024;
/// Name servers used (resolv.conf(5), MAXNS).
pub const NAME_SERVERS: usize = 3;
/// Domains that are searched for a name (resolv.conf(5)).
pub const SEARCH_DOMAINS: usize = 6;
/// The most dots that `ndots` can ask for (resolv.conf(5)).
pub const NDOTS: usize = 15;
/// How long a server has to answer when nothing is said, in seconds (resolv.conf(5), RES_TIMEOUT).
pub const DNS_TIMEOUT_S: u64 = 5;
/// The most that `timeout` can ask for, in seconds (resolv.conf(5)).
pub const DNS_TIMEOUT_MAX_S: u64 = 30;
/// Rounds of asking all servers when nothing is said (resolv.conf(5), RES_DFLRETRY).
pub const DNS_ATTEMPTS: u32 = 2;
/// The most that `attempts` can ask for (resolv.conf(5)).
pub const DNS_ATTEMPTS_MAX: u32 = 5;

const _: () = assert!(DNS_TTL_MIN_US < DNS_TTL_MAX_US && DNS_RETRY_US < DNS_RETRY_MAX_US);
const _: () = assert!(NAME_ADDRESSES <= DNS_RECORDS && DNS_CNAMES < DNS_RECORDS);
const _: () = assert!(NAME_ADDRESSES <= ADDRESSES && BACKENDS <= ADDRESSES && SLOTS <= u16::MAX as usize);
const _: () = assert!(HOST_NAME_BYTES + 2 == DNS_NAME_BYTES);
const _: () = assert!(DNS_TIMEOUT_S <= DNS_TIMEOUT_MAX_S && DNS_ATTEMPTS <= DNS_ATTEMPTS_MAX);
const _: () = assert!(DNS_LOOKUPS >= 1 && DNS_SLOW_US < DNS_TIMEOUT_S * SECOND_US);
const _: () = assert!(DNS_UNRESOLVED_US >= DNS_TTL_MIN_US && DNS_DENIAL_MAX_US <= DNS_TTL_MAX_US);

//! Parses the values of options into types within their limits.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::nearest::nearest;
use crate::dns::hosts::Hosts;
use crate::http::framing::is_authority;
use crate::limits::{
    DURATION_MAX_US, DURATION_MIN_US, FILE_PATH_BYTES, HEALTH_PATH_BYTES, HOST_LABEL_BYTES, HOST_NAME_BYTES,
    HSTS_MAX_S, NAME_BYTES, SECOND_US,
};

/// The fault in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The value is not UTF-8.
    NotUtf8,
    /// The value has the wrong form.
    Malformed,
    /// The value has the right form, but is outside the limits.
    OutOfRange,
    /// The value is not one of the option's words; the nearest of them.
    Unknown(Option<&'static str>),
    /// A duration without its unit. True if the number is accepted as seconds.
    NoUnit(bool),
    /// A backend without a port.
    NoPort,
    /// A backend with an invalid port.
    Port,
    /// An IPv6 address without the brackets that separate it from its port.
    Brackets,
    /// A host that is neither an address nor a name.
    Host,
    /// A prefix that is not a known protocol.
    Scheme,
    /// The path of a socket is relative, or too long for the system.
    UnixPath,
    /// A backend's weight outside 0 to 65,535.
    Weight,
    /// A backend's limit outside 1 to 1,000,000.
    Max,
    /// An unknown attribute of a backend or a cookie; the nearest known one.
    Attribute(Option<&'static str>),
    /// An attribute without its value.
    NoValue,
    /// The attribute `backup` with a value.
    BackupValue,
    /// A second backend after a comma.
    TwoBackends,
    /// A backend with a path.
    Path,
    /// A backend with a user name or a password. No message may show it.
    UserInfo,
    /// A host in a file with a port after it.
    PortInHost,
    /// A host in a file with a scheme before it.
    SchemeInHost,
    /// An attribute given twice.
    AttributeTwice,
    /// An attribute of a cookie with a value that it does not have.
    CookieAttributeValue,
    /// A hash of a field or a cookie without a valid name.
    HashName,
    /// The host of a route is neither an address nor a name.
    RouteHost,
    /// A route with a port.
    PortInRoute,
    /// The path of a route has a query, a fragment or a character that no path has, or is too long.
    RoutePath,
    /// A backend has a route twice.
    RouteTwice,
    /// A backend has more routes than its limit.
    TooManyRoutes,
    /// A name that is not in the hosts table.
    NoSuchName,
    /// A list longer than its limit.
    TooMany,
}

impl Fault {
    /// A short description of the fault.
    pub fn reason(self) -> &'static str {
        match self {
            Fault::NotUtf8 => "not UTF-8",
            Fault::Malformed => "malformed",
            Fault::OutOfRange => "out of range",
            Fault::Unknown(_) => "unknown",
            Fault::NoUnit(_) => "a number without a unit",
            Fault::NoPort => "no port",
            Fault::Port => "the port is not a number from 1 to 65535",
            Fault::Brackets => "an IPv6 address needs brackets, as in [::1]:9001",
            Fault::Host => "the host is neither an address nor a name",
            Fault::Scheme => "the scheme is not http://, https:// or h2c://",
            Fault::UnixPath => "the path of a socket has to be absolute and short enough for the system",
            Fault::Weight => "the weight is not a number from 0 to 65535",
            Fault::Max => "the max is not a number from 1 to 1000000",
            Fault::Attribute(_) => "unknown attribute",
            Fault::NoValue => "an attribute has no value, as weight=2 has",
            Fault::BackupValue => "backup takes no value",
            Fault::TwoBackends => "two backends in one (give each its own -b; in LB_BACKEND a space is between them)",
            Fault::Path => "a path is not supported (requests keep their own paths)",
            Fault::UserInfo => "a user name or password is not supported",
            Fault::PortInHost => "the host has a port, which is a key of its own: \"port\"",
            Fault::SchemeInHost => "the host has a scheme, which the keys \"tls\" and \"h2c\" stand for",
            Fault::AttributeTwice => "an attribute is given twice",
            Fault::CookieAttributeValue => "an attribute has another value",
            Fault::HashName => "no valid name, as hash:header:X-User and hash:cookie:id have",
            Fault::RouteHost => "for needs a host, as in for=api.example.com/v1; a wildcard is none",
            Fault::PortInRoute => "the host of for has a port (the port of a request has no meaning)",
            Fault::RoutePath => "the path of for has a query, a fragment or a character that is in no path",
            Fault::RouteTwice => "for is given twice with the same value",
            Fault::TooManyRoutes => "for is given more than 64 times",
            Fault::NoSuchName => "no such name in /etc/hosts",
            Fault::TooMany => "too many are given",
        }
    }
}

/// The number of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A master and its workers.
    Mp,
    /// One process that does everything.
    Sp,
}

impl Mode {
    /// Both modes with the names that the command line accepts.
    pub const NAMES: [(&'static str, Mode); 2] = [("mp", Mode::Mp), ("sp", Mode::Sp)];
}

/// The lowest version of TLS for clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// All versions with the names that the command line accepts.
    pub const NAMES: [(&'static str, TlsVersion); 2] = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
}

/// The Host field that backends receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's Host.
    Preserve,
    /// The backend's own configured host and port.
    Backend,
    /// A fixed name.
    Name(String),
}

/// A range of addresses in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// An address in the range.
    pub address: IpAddr,
    /// The number of leading bits that define the range; at most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

impl Cidr {
    /// True if the range contains the address. An IPv4 address equals its IPv4-mapped IPv6 form (RFC 4291,
    /// 2.5.5.2), both in the range and in the argument.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (range, bits) = match self.address {
            IpAddr::V4(_) => (self.address, u32::from(self.prefix) + 96),
            IpAddr::V6(_) => (self.address, u32::from(self.prefix)),
        };
        let differing = mapped(range) ^ mapped(address);
        differing.leading_zeros() >= bits
    }
}

/// The address as an IPv6 number.
fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Parses decimal digits between both limits.
pub(super) fn number(text: &str, least: u64, most: u64) -> Result<u64, Fault> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::Malformed);
    }
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Fault::OutOfRange),
    }
}

/// Like [`number`], for 32 bits.
pub(super) fn number_u32(text: &str, least: u64, most: u64) -> Result<u32, Fault> {
    u32::try_from(number(text, least, most)?).map_err(|_| Fault::OutOfRange)
}

/// Parses a port; 0 means any free one.
pub(super) fn port(text: &str) -> Result<u16, Fault> {
    let number = number(text, 0, u64::from(u16::MAX))?;
    u16::try_from(number).map_err(|_| Fault::OutOfRange)
}

/// Parses an IP address. Brackets around IPv6 are optional.
pub(super) fn ip(text: &str) -> Result<IpAddr, Fault> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse().map(IpAddr::V6).map_err(|_| Fault::Malformed),
        None => text.parse().map_err(|_| Fault::Malformed),
    }
}

/// Parses an IP address, or a name of the hosts table.
pub(super) fn host(text: &str, hosts: &Hosts) -> Result<IpAddr, Fault> {
    match ip(text) {
        Err(_) if is_name(text) => hosts.first(text).ok_or(Fault::NoSuchName),
        address => address,
    }
}

/// True if the text is a host name. A name that ends in a number is a malformed IPv4 address.
pub(super) fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=HOST_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let ends_in_number =
        name.rsplit('.').next().is_some_and(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= HOST_NAME_BYTES && name.split('.').all(is_label) && !ends_in_number
}

/// Parses one of the given words.
pub(super) fn choice<T: Copy>(names: &'static [(&'static str, T)], text: &str) -> Result<T, Fault> {
    let known = names.iter().find(|(name, _)| *name == text);
    known.map(|(_, value)| *value).ok_or_else(|| Fault::Unknown(nearest(text, names.iter().map(|(name, _)| *name))))
}

/// True if a text is a token (RFC 9110, 5.6.2), as the names of fields and cookies are.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Parses a switch's value in the environment.
pub(super) fn switch(text: &str) -> Result<bool, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(Fault::Malformed),
    }
}

/// Parses `on` or `off`.
pub(super) fn on_off(text: &str) -> Result<bool, Fault> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Fault::Malformed),
    }
}

/// Parses a duration. Returns microseconds.
pub(super) fn duration(text: &str) -> Result<u64, Fault> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit_us = match &text[digits..] {
        "ms" => SECOND_US / 1000,
        "s" => SECOND_US,
        "m" => 60 * SECOND_US,
        "h" => 3600 * SECOND_US,
        "" if digits > 0 => return Err(Fault::NoUnit(number(text, 1, DURATION_MAX_US / SECOND_US).is_ok())),
        _ => return Err(Fault::Malformed),
    };
    Ok(unit_us * number(&text[..digits], DURATION_MIN_US.div_ceil(unit_us), DURATION_MAX_US / unit_us)?)
}

/// Parses a duration of days or years, or `off`. Returns seconds; `None` for `off`.
pub(super) fn long_or_off(text: &str) -> Result<Option<u64>, Fault> {
    if is_off(text) {
        return Ok(None);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit_s = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "" if digits > 0 => return Err(Fault::NoUnit(number(text, 0, HSTS_MAX_S).is_ok())),
        _ => return Err(Fault::Malformed),
    };
    Ok(Some(unit_s * number(&text[..digits], 0, HSTS_MAX_S / unit_s)?))
}

/// Parses a duration or `off`. Returns microseconds; 0 for `off`.
pub(super) fn duration_or_off(text: &str) -> Result<u64, Fault> {
    if is_off(text) { Ok(0) } else { duration(text) }
}

fn is_off(text: &str) -> bool {
    text.eq_ignore_ascii_case("off")
}

/// Parses the address of the admin port: `PORT` on loopback, `HOST:PORT`, or `off`.
pub(super) fn admin(text: &str, hosts: &Hosts) -> Result<Option<SocketAddr>, Fault> {
    if is_off(text) {
        return Ok(None);
    }
    let (host, port) = host_and_port(text, hosts)?;
    Ok(Some(SocketAddr::new(host.unwrap_or(Ipv4Addr::LOCALHOST.into()), port)))
}

/// Parses the port to redirect from, or `off`.
pub(super) fn redirect(text: &str) -> Result<Option<u16>, Fault> {
    if is_off(text) { Ok(None) } else { port(text).map(Some) }
}

/// Parses `PORT`, which has no host, or `HOST:PORT`.
pub(super) fn host_and_port(text: &str, hosts: &Hosts) -> Result<(Option<IpAddr>, u16), Fault> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok((None, port(text)?));
    }
    let (host, digits) = text.rsplit_once(':').ok_or(Fault::Malformed)?;
    // An IPv6 address without brackets would be ambiguous, because it contains colons.
    match self::host(host, hosts)? {
        IpAddr::V6(_) if host.contains(':') && !host.starts_with('[') => Err(Fault::Brackets),
        address => Ok((Some(address), port(digits)?)),
    }
}

/// Parses the path of a file.
pub(super) fn file(text: &str) -> Result<PathBuf, Fault> {
    match text {
        _ if text.is_empty() || text.contains('\0') => Err(Fault::Malformed),
        _ if text.len() > FILE_PATH_BYTES => Err(Fault::OutOfRange),
        _ => Ok(PathBuf::from(text)),
    }
}

/// Parses a request's path with an optional query (RFC 9112, 3.2.1).
pub(super) fn path(text: &str) -> Result<String, Fault> {
    // Clients never send a fragment (RFC 9110, 7.1).
    if !text.starts_with('/') || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(Fault::Malformed);
    }
    if text.len() > HEALTH_PATH_BYTES { Err(Fault::OutOfRange) } else { Ok(text.to_owned()) }
}

/// Parses the path of a page, or `off`.
pub(super) fn metrics_path(text: &str) -> Result<Option<String>, Fault> {
    if is_off(text) {
        return Ok(None);
    }
    if text.contains('?') { Err(Fault::Malformed) } else { path(text).map(Some) }
}

/// Parses `preserve`, `backend`, or a host with an optional port.
pub(super) fn host_header(text: &str) -> Result<HostHeader, Fault> {
    match text {
        _ if text.eq_ignore_ascii_case("preserve") => Ok(HostHeader::Preserve),
        _ if text.eq_ignore_ascii_case("backend") => Ok(HostHeader::Backend),
        _ => authority(text).map(HostHeader::Name),
    }
}

/// Parses a host with an optional port, as in the Host field.
pub(super) fn authority(text: &str) -> Result<String, Fault> {
    if text.is_empty() || !is_authority(text.as_bytes()) {
        return Err(Fault::Malformed);
    }
    bounded(text)
}

/// Parses `address/prefix`, or one address.
pub(super) fn cidr(text: &str) -> Result<Cidr, Fault> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (ip(address)?, Some(prefix)),
        None => (ip(text)?, None),
    };
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => u8::try_from(number(prefix, 0, u64::from(most))?).map_err(|_| Fault::OutOfRange)?,
        None => most,
    };
    Ok(Cidr { address, prefix })
}

/// Parses a pseudonym with an optional port for Via (RFC 9110, 7.6.3).
pub(super) fn via(text: &str) -> Result<String, Fault> {
    let (name, after) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    if !is_token(name) || after.is_some_and(|digits| port(digits).is_err()) {
        return Err(Fault::Malformed);
    }
    bounded(text)
}

/// Parses `user` or `user:group`.
pub(super) fn user(text: &str) -> Result<String, Fault> {
    let usable = |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    match text.split_once(':') {
        Some((user, group)) if usable(user) && usable(group) && !group.contains(':') => bounded(text),
        None if usable(text) => bounded(text),
        _ => Err(Fault::Malformed),
    }
}

fn bounded(text: &str) -> Result<String, Fault> {
    if text.len() > NAME_BYTES { Err(Fault::OutOfRange) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_within_bounds() {
        assert_eq!(number("0042", 1, 1024), Ok(42));
        for malformed in ["", "+1", "-", "--1", " 1", "1 ", "1.0", "0x10", "1_000", "٣"] {
            assert_eq!(number(malformed, 0, 1024), Err(Fault::Malformed), "{malformed:?}");
        }
        for outside in ["0", "-1", "-0", "1025", "99999999999999999999999999"] {
            assert_eq!(number(outside, 1, 1024), Err(Fault::OutOfRange), "{outside:?}");
        }
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("65535"), Ok(65535));
        assert_eq!(port("65536"), Err(Fault::OutOfRange));
    }

    #[test]
    fn durations_need_a_unit_and_are_bounded() {
        assert_eq!(duration("1ms"), Ok(1_000));
        assert_eq!(duration("500ms"), Ok(500_000));
        assert_eq!(duration("2s"), Ok(2_000_000));
        assert_eq!(duration("1m"), Ok(60_000_000));
        assert_eq!(duration("24h"), Ok(DURATION_MAX_US));
        assert_eq!((duration("5"), duration("90000")), (Err(Fault::NoUnit(true)), Err(Fault::NoUnit(false))));
        for outside in ["0s", "0ms", "25h", "86401s", "99999999999999999999s"] {
            assert_eq!(duration(outside), Err(Fault::OutOfRange), "{outside:?}");
        }
        for malformed in ["", "s", "1.5s", "-1s", "1 s", "1S", "1us", "1d", "5é"] {
            assert_eq!(duration(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
    }

    #[test]
    fn long_durations_have_days() {
        let given = |seconds| Ok(Some(seconds));
        assert_eq!((long_or_off("0s"), long_or_off("5m"), long_or_off("24h")), (given(0), given(300), given(86_400)));
        assert_eq!((long_or_off("730d"), long_or_off("off")), (given(HSTS_MAX_S), Ok(None)));
        assert_eq!((long_or_off("731d"), long_or_off("9")), (Err(Fault::OutOfRange), Err(Fault::NoUnit(true))));
        assert_eq!((long_or_off("1y"), long_or_off("")), (Err(Fault::Malformed), Err(Fault::Malformed)));
    }

    #[test]
    fn off_is_accepted_beside_other_values() {
        assert_eq!(duration_or_off("off"), Ok(0));
        assert_eq!(duration_or_off("2s"), Ok(2_000_000));
        assert_eq!(duration_or_off("0s"), Err(Fault::OutOfRange));
        let hosts = Hosts::parse(b"10.0.0.7 lb-1 lb\n::1 six");
        let told = |text| admin(text, &hosts).map(|address| address.map(|address| address.to_string()));
        assert_eq!(told("off"), Ok(None));
        assert_eq!(told("9100"), Ok(Some("127.0.0.1:9100".into())));
        assert_eq!(told("0.0.0.0:0"), Ok(Some("0.0.0.0:0".into())));
        assert_eq!(told("[::1]:9100"), Ok(Some("[::1]:9100".into())));
        assert_eq!(told("::1:9100"), Err(Fault::Brackets));
        assert_eq!(told("65536"), Err(Fault::OutOfRange));
        assert_eq!(told("localhost:9100"), Ok(Some("127.0.0.1:9100".into())));
        assert_eq!(told("LB-1.:9100"), Ok(Some("10.0.0.7:9100".into())));
        assert_eq!(told("six:9100"), Ok(Some("[::1]:9100".into())));
        assert_eq!(told("lb-2:9100"), Err(Fault::NoSuchName));
        assert_eq!(host("lb", &hosts), Ok("10.0.0.7".parse().unwrap()));
        assert_eq!(host("localhost", &Hosts::parse(b"::1 localhost")), Ok("::1".parse().unwrap()));
        assert_eq!((host("lb-2", &hosts), host("a b", &hosts)), (Err(Fault::NoSuchName), Err(Fault::Malformed)));
        for malformed in ["", ":", ":9100", "127.0.0.1", "127.0.0.1:", "127.1:80", "[::1]", "9100 ", "+1"] {
            assert_eq!(told(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
    }

    #[test]
    fn paths_begin_with_a_slash_and_can_stand_in_a_request_line() {
        assert_eq!(path("/up?deep=1"), Ok("/up?deep=1".into()));
        for malformed in ["", "up", "*", "http://a/", "/a b", "/a\r\nX: y", "/\0", "/é", "/a#b"] {
            assert_eq!(path(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
        assert_eq!(path(&"/".repeat(HEALTH_PATH_BYTES + 1)), Err(Fault::OutOfRange));
        assert_eq!((metrics_path("/m"), metrics_path("off")), (Ok(Some("/m".into())), Ok(None)));
        assert_eq!(metrics_path("/m?x"), Err(Fault::Malformed));
        assert_eq!(file("lb.json"), Ok("lb.json".into()));
        assert_eq!(file(""), Err(Fault::Malformed));
        assert_eq!(file("a\0b"), Err(Fault::Malformed));
        assert_eq!(file(&"a".repeat(FILE_PATH_BYTES + 1)), Err(Fault::OutOfRange));
    }

    #[test]
    fn addresses_to_listen_on_may_have_brackets_around_ipv6_alone() {
        assert_eq!(ip("0.0.0.0"), Ok("0.0.0.0".parse().unwrap()));
        assert_eq!(ip("[::]"), Ok("::".parse().unwrap()));
        assert_eq!(ip("::1"), Ok("::1".parse().unwrap()));
        for malformed in ["", "[]", "[127.0.0.1]", "[::", "::]", "localhost", "127.1", "1.2.3.4:80"] {
            assert_eq!(ip(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
    }

    #[test]
    fn ranges_have_a_prefix_that_fits_their_family() {
        let range = |text| cidr(text).map(|cidr| cidr.prefix);
        assert_eq!(range("10.0.0.0/8"), Ok(8));
        assert_eq!(range("10.1.2.3"), Ok(32));
        assert_eq!(range("::/0"), Ok(0));
        assert_eq!(range("2001:db8::1"), Ok(128));
        assert_eq!(range("10.0.0.0/33"), Err(Fault::OutOfRange));
        assert_eq!(range("::/129"), Err(Fault::OutOfRange));
        for malformed in ["", "/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0/8", "all"] {
            assert_eq!(range(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
    }

    #[test]
    fn ranges_hold_their_addresses_however_written() {
        let holds = |range: &str, address: &str| cidr(range).unwrap().contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(holds("10.1.2.3/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.1.1"));
        assert!(!holds("::ffff:10.0.0.0/104", "11.1.1.1"));
        assert!(holds("192.168.1.129/25", "192.168.1.128"));
        assert!(!holds("192.168.1.129/25", "192.168.1.127"));
        assert!(holds("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!holds("2001:db8::/33", "2001:db8:8000::1"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("0.0.0.0/0", "203.0.113.1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(holds("127.0.0.1", "127.0.0.1"));
        assert!(!holds("127.0.0.1", "127.0.0.2"));
    }

    #[test]
    fn hosts_pseudonyms_and_accounts_cannot_carry_bytes_that_break_a_field() {
        assert_eq!(host_header("preserve"), Ok(HostHeader::Preserve));
        assert_eq!(host_header("Backend"), Ok(HostHeader::Backend));
        assert_eq!(host_header("example.com:81"), Ok(HostHeader::Name("example.com:81".into())));
        for malformed in ["", "a b", "a\r\nX: y", "a/b", "user@host", "é"] {
            assert_eq!(host_header(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
        assert_eq!(via("edge-1"), Ok("edge-1".into()));
        assert_eq!(via("edge.example:8080"), Ok("edge.example:8080".into()));
        for malformed in ["", ":80", "a:", "a b", "a\r\n", "a:b", "(a)"] {
            assert_eq!(via(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
        for usable in ["nobody", "65534", "www-data:www-data", "1000:1000"] {
            assert_eq!(user(usable), Ok(usable.into()));
        }
        for malformed in ["", ":", "a:", ":b", "a:b:c", "a b", "a\n"] {
            assert_eq!(user(malformed), Err(Fault::Malformed), "{malformed:?}");
        }
        let long = "a".repeat(NAME_BYTES + 1);
        assert_eq!(host_header(&long), Err(Fault::OutOfRange));
        assert_eq!(via(&long), Err(Fault::OutOfRange));
        assert_eq!(user(&long), Err(Fault::OutOfRange));
    }
}

//! The PROXY header: a proxy sends the addresses of its client in it, before any other byte of a connection. Version 1
//! is a line of text, and version 2 is binary (the PROXY protocol of HAProxy, `doc/proxy-protocol.txt`, sections 2.1 and
//! 2.2). Sections in comments are those of that document.
//!
//! `read` decodes the bytes that have arrived so far. It keeps no state: the caller holds the bytes and calls again
//! with more of them. `write` encodes a header for a backend.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::{PROXY_HEADER_BYTES, PROXY_LINE_BYTES};

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1.
const LINE_START: &[u8] = b"PROXY ";
/// These first bytes tell a header from requests: `PROXY` is no method, and the signature goes on after an empty line.
const ENOUGH_BYTES: usize = 5;
/// Signature, version and command, family and transport, length.
const FIXED_BYTES: usize = 16;
/// The TLV with a checksum of the header (section 2.2.3).
const TYPE_CRC32C: u8 = 0x03;

/// The version of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The ends of the client's connection to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The length of the header in bytes. The bytes behind it are the client's.
    pub length: usize,
    /// The addresses. `None` for `UNKNOWN`, for `LOCAL` and for families other than IPv4 and IPv6 over TCP: the
    /// addresses of the socket apply.
    pub addresses: Option<Addresses>,
}

/// The reason why bytes are no PROXY header. Its cause is the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The connection begins with neither signature.
    Missing,
    /// The line of version 1 is longer than 107 bytes or lacks a part, or a part is invalid.
    Line,
    /// The version, the command, the family or the transport of version 2 is not defined.
    Kind,
    /// The addresses or the TLVs of version 2 do not fit into the length.
    Length,
    /// The header is longer than `PROXY_HEADER_BYTES`.
    TooLarge,
    /// The checksum does not match.
    Checksum,
}

impl Version {
    /// The names that the command line accepts: each version, and none.
    pub const CHOICES: [(&'static str, Option<Version>); 3] =
        [("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderError::Missing => {
                "the connection does not begin with a PROXY header, which ,proxy on --listen demands"
            }
            HeaderError::Line => "the line of the PROXY header is invalid",
            HeaderError::Kind => "the PROXY header has an undefined version, command, family or transport",
            HeaderError::Length => "the addresses or TLVs of the PROXY header exceed its length",
            HeaderError::TooLarge => "the PROXY header is too large",
            HeaderError::Checksum => "the checksum of the PROXY header does not match",
        })
    }
}

/// Decodes a header from all bytes that have arrived. Returns `None` if the header needs more bytes. No header needs more
/// than `PROXY_HEADER_BYTES`.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if begins(bytes, SIGNATURE) {
        return if bytes.len() < FIXED_BYTES { Ok(None) } else { read_binary(bytes) };
    }
    if begins(bytes, LINE_START) {
        return read_line(bytes);
    }
    Err(HeaderError::Missing)
}

/// True if `bytes` begin with `start` as far as they go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

/// True if bytes that belong to no PROXY header by the configuration are those of one. `bytes` has enough of them to tell.
pub fn may_begin(bytes: &[u8]) -> bool {
    bytes.len() >= ENOUGH_BYTES && (begins(bytes, SIGNATURE) || begins(bytes, LINE_START))
}

fn read_line(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let head = &bytes[..bytes.len().min(PROXY_LINE_BYTES)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if head.len() < PROXY_LINE_BYTES { Ok(None) } else { Err(HeaderError::Line) };
    };
    let line = std::str::from_utf8(&head[..end]).map_err(|_| HeaderError::Line)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(HeaderError::Line)?;
    let length = end + 2;
    if family == "UNKNOWN" {
        return Ok(Some(Header { length, addresses: None }));
    }
    let mut word = || words.next().ok_or(HeaderError::Line);
    let (source, destination) = (address(family, word()?)?, address(family, word()?)?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if word().is_ok() {
        return Err(HeaderError::Line);
    }
    let addresses = Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    };
    Ok(Some(Header { length, addresses: Some(addresses) }))
}

fn address(family: &str, text: &str) -> Result<IpAddr, HeaderError> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| HeaderError::Line),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| HeaderError::Line),
        _ => Err(HeaderError::Line),
    }
}

/// A port without sign and without leading zeros.
fn port(text: &str) -> Result<u16, HeaderError> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical).ok_or(HeaderError::Line)
}

fn read_binary(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let (command, kind) = (bytes[12], bytes[13]);
    let is_proxy = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err(HeaderError::Kind),
    };
    if kind >> 4 > 3 || kind & 0x0f > 2 {
        return Err(HeaderError::Kind);
    }
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > PROXY_HEADER_BYTES {
        return Err(HeaderError::TooLarge);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let block = match kind >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    if !is_proxy {
        return Ok(Some(Header { length, addresses: None }));
    }
    let body = &header[FIXED_BYTES..];
    let (block, tlvs) = body.split_at_checked(block).ok_or(HeaderError::Length)?;
    // The TLVs of an unspecified family begin at an unknown offset.
    if kind >> 4 != 0 {
        verify_tlvs(header, tlvs)?;
    }
    let addresses = match (kind, block) {
        (0x11, block) => {
            let ip = |at: usize| IpAddr::from([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            Some(Addresses { source: socket(ip(0), block, 8), destination: socket(ip(4), block, 10) })
        }
        (0x21, block) => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&block[at..at + 16]);
                IpAddr::from(octets)
            };
            Some(Addresses { source: socket(ip(0), block, 32), destination: socket(ip(16), block, 34) })
        }
        _ => None,
    };
    Ok(Some(Header { length, addresses }))
}

fn socket(ip: IpAddr, block: &[u8], port_at: usize) -> SocketAddr {
    SocketAddr::new(ip, u16::from_be_bytes([block[port_at], block[port_at + 1]]))
}

/// Checks that TLVs fill `tlvs` exactly, and verifies a checksum among them. Skips other TLVs.
fn verify_tlvs(header: &[u8], tlvs: &[u8]) -> Result<(), HeaderError> {
    let mut rest = tlvs;
    while !rest.is_empty() {
        let [kind, high, low, tail @ ..] = rest else { return Err(HeaderError::Length) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, tail) = tail.split_at_checked(length).ok_or(HeaderError::Length)?;
        if *kind == TYPE_CRC32C {
            let sent: [u8; 4] = value.try_into().map_err(|_| HeaderError::Length)?;
            let at = header.len() - tail.len() - value.len();
            if crc32c(header, at) != u32::from_be_bytes(sent) {
                return Err(HeaderError::Checksum);
            }
        }
        rest = tail;
    }
    Ok(())
}

/// The CRC32C of a header whose four bytes at `field` count as zero (section 2.2.3).
fn crc32c(header: &[u8], field: usize) -> u32 {
    let mut crc = u32::MAX;
    for (at, &byte) in header.iter().enumerate() {
        crc ^= u32::from(if (field..field + 4).contains(&at) { 0 } else { byte });
        for _ in 0..8 {
            // The reflected polynomial of Castagnoli.
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// Encodes a header. `None` stands for a connection without a client, such as that of a probe: it is `UNKNOWN` in version
/// 1 and `LOCAL` in version 2. Addresses of different families are sent as IPv6.
pub fn write(out: &mut Vec<u8>, version: Version, addresses: Option<Addresses>) {
    let pair = addresses.map(|Addresses { source, destination }| match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => (source, destination),
        _ => (as_v6(source), as_v6(destination)),
    });
    match version {
        Version::V1 => write_line(out, pair),
        Version::V2 => write_binary(out, pair),
    }
}

fn as_v6(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn write_line(out: &mut Vec<u8>, pair: Option<(SocketAddr, SocketAddr)>) {
    // Writing into a vector cannot fail.
    let _ = match pair {
        None => out.write_all(b"PROXY UNKNOWN\r\n"),
        Some((source, destination)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
        }
    };
}

fn write_binary(out: &mut Vec<u8>, pair: Option<(SocketAddr, SocketAddr)>) {
    out.extend_from_slice(SIGNATURE);
    let Some((source, destination)) = pair else {
        out.extend_from_slice(&[0x20, 0, 0, 0]);
        return;
    };
    let (kind, length): (u8, u16) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    out.extend_from_slice(&[0x21, kind]);
    out.extend_from_slice(&length.to_be_bytes());
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: &str, destination: &str) -> Addresses {
        Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2 with these bytes behind the fixed part.
    fn binary(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[command, kind]);
        bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 1, 0xbb];

    #[test]
    fn a_written_header_is_read_at_every_split() {
        let v4 = pair("192.0.2.1:12345", "198.51.100.2:443");
        let v6 = pair("[2001:db8::1]:1", "[2001:db8::2]:65535");
        for addresses in [None, Some(v4), Some(v6)] {
            for version in [Version::V1, Version::V2] {
                let mut bytes = Vec::new();
                write(&mut bytes, version, addresses);
                let length = bytes.len();
                bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
                for end in 0..bytes.len() {
                    let expected = (end >= length).then_some(Header { length, addresses });
                    assert_eq!(read(&bytes[..end]), Ok(expected), "{version:?} {addresses:?} {end}");
                }
            }
        }
    }

    #[test]
    fn addresses_of_different_families_are_sent_as_ipv6() {
        let mut line = Vec::new();
        write(&mut line, Version::V1, Some(pair("192.0.2.1:1", "[2001:db8::2]:2")));
        assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
    }

    #[test]
    fn lines_are_read_strictly() {
        let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert!(read(longest).unwrap().unwrap().addresses.is_some());
        assert_eq!(read(b"PROXY UNKNOWN anything at all\r\n").unwrap().unwrap().addresses, None);
        let full = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; PROXY_LINE_BYTES]].concat();
        let mut bad: Vec<&[u8]> = vec![
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n",
        ];
        bad.push(&full);
        for line in bad {
            assert_eq!(read(line), Err(HeaderError::Line), "{}", line.escape_ascii());
        }
        for other in [b"GET / HTTP/1.1\r\n".as_slice(), b"PROXX", b"\r\n\r\n\0\r\nQUIX", b"\x16\x03\x01"] {
            assert_eq!(read(other), Err(HeaderError::Missing));
        }
    }

    #[test]
    fn local_and_unsupported_families_leave_the_socket_s_addresses() {
        let unix = [0; 216];
        let cases = [
            binary(0x20, 0x00, b""),
            binary(0x20, 0x11, &IPV4),
            binary(0x20, 0x11, b"junk"),
            binary(0x21, 0x00, b""),
            binary(0x21, 0x00, b"any bytes"),
            binary(0x21, 0x12, &IPV4),
            binary(0x21, 0x31, &unix),
        ];
        for bytes in cases {
            assert_eq!(read(&bytes), Ok(Some(Header { length: bytes.len(), addresses: None })), "{bytes:?}");
        }
    }

    #[test]
    fn undefined_kinds_and_lengths_are_refused() {
        for bytes in
            [binary(0x11, 0x11, &IPV4), binary(0x22, 0x11, &IPV4), binary(0x21, 0x41, &IPV4), binary(0x21, 0x13, &IPV4)]
        {
            assert_eq!(read(&bytes), Err(HeaderError::Kind));
        }
        assert_eq!(read(&binary(0x21, 0x11, &IPV4[..11])), Err(HeaderError::Length));
        assert_eq!(read(&binary(0x21, 0x21, &IPV4)), Err(HeaderError::Length));
        let large = binary(0x21, 0x11, &[0; PROXY_HEADER_BYTES]);
        assert_eq!(read(&large[..FIXED_BYTES]), Err(HeaderError::TooLarge));
    }

    #[test]
    fn unknown_tlvs_are_skipped_and_malformed_ones_refused() {
        let with = |tlvs: &[u8]| read(&binary(0x21, 0x11, &[&IPV4, tlvs].concat()));
        assert!(with(b"\x04\0\0\xe5\0\x03abc").unwrap().unwrap().addresses.is_some());
        for tlvs in [b"\x04".as_slice(), b"\x04\0", b"\x04\0\x01", b"\x04\0\x04abc", b"\x03\0\x03abc"] {
            assert_eq!(with(tlvs), Err(HeaderError::Length));
        }
    }

    #[test]
    fn a_checksum_is_verified() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789", 9), 0xe306_9283);
        let mut bytes = binary(0x21, 0x11, &[&IPV4, b"\xe0\0\x01x\x03\0\x04\0\0\0\0".as_slice()].concat());
        let at = bytes.len() - 4;
        let sum = crc32c(&bytes, at);
        bytes[at..].copy_from_slice(&sum.to_be_bytes());
        assert!(read(&bytes).unwrap().unwrap().addresses.is_some());
        for flipped in FIXED_BYTES..FIXED_BYTES + 12 {
            let mut changed = bytes.clone();
            changed[flipped] ^= 1;
            assert_eq!(read(&changed), Err(HeaderError::Checksum));
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_claim_more_than_there_are() {
        let mut random = crate::collections::random::Random::new(7);
        for _ in 0..20_000 {
            let mut bytes =
                binary(0x20 + (random.below(3) as u8), [0x11, 0x21, 0x31, 0][random.below(4) as usize], &IPV4);
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.below(256) as u8;
            }
            if let Ok(Some(header)) = read(&bytes) {
                assert!(header.length <= bytes.len());
            }
        }
    }
}

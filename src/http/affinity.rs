//! Affinity: the part of a request that decides its backend, as a number that is the same on every machine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::cookie;
use super::fields::{Name, list};
use super::head::{HeadRef, Start};

/// The part of a request that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// The path without the query.
    Path,
    /// The field with this name. Several fields with the name are one list.
    Header(String),
    /// The first cookie with this name.
    Cookie(String),
}

/// The notation of the user, without `hash:`.
impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::Client => f.write_str("client"),
            HashKey::Path => f.write_str("path"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

impl HashKey {
    /// Returns the key that a text names, without a look at the characters of a name.
    pub fn named(text: &str) -> Option<HashKey> {
        match text.split_once(':') {
            None if text == "client" => Some(HashKey::Client),
            None if text == "path" => Some(HashKey::Path),
            Some(("header", name)) => Some(HashKey::Header(name.into())),
            Some(("cookie", name)) => Some(HashKey::Cookie(name.into())),
            _ => None,
        }
    }

    /// Hashes the part of a request. `None`: the request lacks it, or it is empty.
    pub fn hash(&self, head: HeadRef<'_>, client: IpAddr) -> Option<u64> {
        match self {
            HashKey::Client => Some(match client.to_canonical() {
                IpAddr::V4(v4) => hash([&v4.octets()[..]]),
                IpAddr::V6(v6) => hash([&v6.octets()[..]]),
            }),
            HashKey::Path => {
                let Start::Request { path, .. } = head.head.start else { return None };
                let path = head.get(path);
                let end = path.iter().position(|&byte| byte == b'?').unwrap_or(path.len());
                // The paths of `http://a` and of `http://a/` are the same.
                Some(hash([if end == 0 { &b"/"[..] } else { &path[..end] }]))
            }
            HashKey::Header(name) => {
                let named = head.fields().filter(|(_, text, _)| text.eq_ignore_ascii_case(name.as_bytes()));
                let mut values = named.map(|(_, _, value)| value).filter(|value| !value.is_empty());
                let first = values.next()?;
                Some(hash(std::iter::once(first).chain(values.flat_map(|value| [&b", "[..], value]))))
            }
            HashKey::Cookie(name) => {
                cookie::values(head, name).find(|value| !value.is_empty()).map(|value| hash([value]))
            }
        }
    }
}

/// Hashes parts, one after the other (FNV-1a). Users can choose the parts, so they can collide on purpose with any
/// function without a secret, and a secret would differ between machines. The bound of the load limits the effect.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The high bits of FNV depend on few of the last bytes. This spreads every bit (SplitMix64).
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Returns the client's address behind trusted peers: the last address in X-Forwarded-For that is not trusted itself,
/// because a trusted peer has written it. `peer`: the address of the connection, which is trusted.
pub fn client_behind(head: HeadRef<'_>, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    // Each address replaces those before it, unless an address that is not trusted came before the next ones.
    for text in head.values(Name::XForwardedFor).flat_map(list) {
        match address(text) {
            Some(address) if !is_trusted(address) || client == peer => client = address,
            Some(_) => {}
            None => client = peer,
        }
    }
    client
}

/// Reads an address, with or without a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Field, Span};
    use super::super::head::Head;
    use super::*;

    /// The bytes and the head of a request.
    fn request(path: &str, fields: &[(&str, &str)]) -> (Vec<u8>, Head) {
        let mut bytes = Vec::new();
        let mut span = |text: &str| {
            let start = bytes.len();
            bytes.extend_from_slice(text.as_bytes());
            Span::new(start, bytes.len())
        };
        let start = Start::Request { method: span("GET"), path: span(path), authority: None, protocol: None };
        let fields = fields.iter().map(|(name, value)| Field {
            name: Name::find(name.as_bytes()),
            name_span: span(name),
            value_span: span(value),
        });
        let fields = fields.collect();
        (bytes, Head { start, fields, ..Head::default() })
    }

    fn hashed(key: &str, path: &str, fields: &[(&str, &str)]) -> Option<u64> {
        let (bytes, head) = request(path, fields);
        HashKey::named(key).unwrap().hash(HeadRef { bytes: &bytes, head: &head }, "10.0.0.1".parse().unwrap())
    }

    #[test]
    fn each_part_decides_alone() {
        let fields = [("X-User", "ann"), ("Cookie", "id=7; x=1")];
        assert_eq!(hashed("client", "/a", &fields), hashed("client", "/b", &[]));
        assert_eq!(hashed("path", "/a?b", &fields), hashed("path", "/a", &[]));
        assert_eq!(hashed("path", "", &[]), hashed("path", "/", &[]));
        assert_ne!(hashed("path", "/a", &[]), hashed("path", "/A", &[]));
        assert_eq!(hashed("header:x-user", "/a", &fields), hashed("header:X-USER", "/b", &fields[..1]));
        assert_ne!(hashed("header:x-user", "/", &fields), hashed("header:x-user", "/", &[("X-User", "bob")]));
        assert_eq!(hashed("cookie:id", "/a", &fields), hashed("cookie:id", "/b", &[("cookie", "id=7; id=8")]));
        assert_ne!(hashed("cookie:id", "/", &fields), hashed("cookie:id", "/", &[("Cookie", "id=8")]));
    }

    #[test]
    fn a_request_without_the_field_has_no_hash() {
        let fields = [("X-User", ""), ("Cookie", "id=; ID=1"), ("X-Users", "a")];
        assert_eq!((hashed("header:X-User", "/", &fields), hashed("cookie:id", "/", &fields)), (None, None));
    }

    #[test]
    fn several_fields_are_the_list_that_they_mean() {
        let (one, several) = ([("X", "a, b")], [("X", "a"), ("X", "b")]);
        assert_eq!(hashed("header:X", "/", &one), hashed("header:X", "/", &several));
        assert_ne!(hashed("header:X", "/", &one), hashed("header:X", "/", &several[..1]));
    }

    /// Another machine has to find the same numbers.
    #[test]
    fn numbers_are_always_the_same() {
        assert_eq!(hashed("client", "/", &[]), Some(0xe7a7_7091_5e3a_6bb4));
        assert_eq!(hashed("path", "/a", &[]), Some(0xe37f_d2b7_5548_30fb));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let (bytes, head) = request("/", &[]);
        let hash = HashKey::Client.hash(HeadRef { bytes: &bytes, head: &head }, mapped);
        assert_eq!(hash, hashed("client", "/", &[]));
    }

    #[test]
    fn keys_are_shown_as_they_are_named() {
        for text in ["client", "path", "header:X-User", "cookie:id"] {
            assert_eq!(HashKey::named(text).unwrap().to_string(), text);
        }
        for text in ["", "client:x", "paths", "header", "query:x"] {
            assert_eq!(HashKey::named(text), None, "{text}");
        }
    }

    #[test]
    fn the_client_behind_trusted_peers_is_the_last_that_they_have_not_seen_as_theirs() {
        let behind = |fields: &[(&str, &str)]| {
            let (bytes, head) = request("/", fields);
            let head = HeadRef { bytes: &bytes, head: &head };
            let is_trusted = |address: IpAddr| address.to_string().starts_with("10.");
            client_behind(head, "10.0.0.1".parse().unwrap(), is_trusted).to_string()
        };
        let name = "X-Forwarded-For";
        assert_eq!(behind(&[]), "10.0.0.1");
        assert_eq!(behind(&[(name, "1.1.1.1")]), "1.1.1.1");
        // A client can write anything before the address that a trusted peer has seen.
        assert_eq!(behind(&[(name, "9.9.9.9, 1.1.1.1, 10.0.0.7")]), "1.1.1.1");
        assert_eq!(behind(&[(name, "9.9.9.9"), (name, "[2001:db8::1]:443, 10.0.0.7")]), "2001:db8::1");
        assert_eq!(behind(&[(name, "10.0.0.5, 10.0.0.7")]), "10.0.0.5");
        assert_eq!(behind(&[(name, "1.1.1.1:80")]), "1.1.1.1");
        assert_eq!(behind(&[(name, "9.9.9.9, unknown")]), "10.0.0.1");
    }
}

//! A backend as the user writes it: `host:port`, `[v6]:port` or `unix:/path`, with `http://` in
//! front where wanted, then `,weight=N`.
//!
//! What the contract foresees and this version does not do (TLS, HTTP/2, backup backends, a limit
//! of their own) is refused by name rather than taken for a slip.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::value::{Fault, number};
use crate::limits::{HOST_LABEL_BYTES, HOST_NAME_BYTES, UNIX_PATH_BYTES};

/// The port that means TLS.
const TLS_PORT: u16 = 443;

/// A backend, its name not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// As written, without `http://` and attributes.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// Its share; 1 to 65,535.
    pub weight: u16,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A port, never 0, of a host.
    Tcp(Host, u16),
    /// A stream socket in the file system; the path is absolute.
    Unix(PathBuf),
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// By address.
    Ip(IpAddr),
    /// By name, in the form that RFC 1123, 2.1 gives names, underscores allowed.
    Name(String),
}

/// Reads a backend.
pub(super) fn backend(text: &str) -> Result<BackendSpec, Fault> {
    let mut parts = text.split(',');
    let name = without_scheme(parts.next().unwrap_or_default())?;
    let target = match name.strip_prefix("unix:") {
        Some(path) => unix(path)?,
        None => tcp(name)?,
    };
    let mut weight = None;
    for attribute in parts {
        match attribute.split_once('=') {
            Some(("weight", _)) if weight.is_some() => return Err(Fault::AttributeTwice),
            Some(("weight", digits)) => weight = Some(positive(digits).ok_or(Fault::Weight)?),
            Some(("max", _)) => return Err(Fault::Absent("a backend's own limit is not in this version")),
            None if attribute == "backup" => return Err(Fault::Absent("backup backends are not in this version")),
            _ => return Err(Fault::Attribute),
        }
    }
    Ok(BackendSpec { name: name.to_owned(), target, weight: weight.unwrap_or(1) })
}

fn without_scheme(place: &str) -> Result<&str, Fault> {
    // `unix:///path` has no scheme, only a path with slashes to spare.
    if place.starts_with("unix:") {
        return Ok(place);
    }
    match place.split_once("://") {
        None => Ok(place),
        // A pasted URL's path is refused, but not the slash of an empty one.
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok(rest.strip_suffix('/').unwrap_or(rest)),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            Err(Fault::Absent("TLS to backends is not in this version"))
        }
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("h2c") => {
            Err(Fault::Absent("HTTP/2 to backends is not in this version"))
        }
        Some(_) => Err(Fault::Scheme),
    }
}

fn unix(path: &str) -> Result<Target, Fault> {
    if !path.starts_with('/') || path.len() > UNIX_PATH_BYTES || path.contains('\0') {
        return Err(Fault::UnixPath);
    }
    Ok(Target::Unix(PathBuf::from(path)))
}

fn tcp(place: &str) -> Result<Target, Fault> {
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (address, after) = inside.split_once(']').ok_or(Fault::Malformed)?;
            let address: Ipv6Addr = address.parse().map_err(|_| Fault::Host)?;
            let port = match after.strip_prefix(':') {
                Some(port) => port,
                None if after.is_empty() => return Err(Fault::NoPort),
                None => return Err(Fault::Malformed),
            };
            (Host::Ip(address.into()), port)
        }
        None => {
            let (host, port) = place.rsplit_once(':').ok_or(Fault::NoPort)?;
            if host.contains(':') {
                return Err(Fault::Brackets);
            }
            (named(host)?, port)
        }
    };
    match positive(port) {
        _ if port.is_empty() => Err(Fault::NoPort),
        None => Err(Fault::Port),
        Some(TLS_PORT) => Err(Fault::Absent("port 443 means TLS, and TLS to backends is not in this version")),
        Some(port) => Ok(Target::Tcp(host, port)),
    }
}

fn named(host: &str) -> Result<Host, Fault> {
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Host::Ip(address.into())),
        Err(_) if is_name(host) => Ok(Host::Name(host.to_owned())),
        Err(_) => Err(Fault::Host),
    }
}

/// Whether text is a host's name. One that ends in a number is a failed IPv4 address.
fn is_name(text: &str) -> bool {
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

/// A number from 1 to 65,535.
fn positive(digits: &str) -> Option<u16> {
    number(digits, 1, u64::from(u16::MAX)).ok().and_then(|number| u16::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_to(text: &str) -> (String, String, u16, u16) {
        let spec = backend(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        let Target::Tcp(host, port) = spec.target else { panic!("{text} is a socket's path") };
        let host = match host {
            Host::Ip(address) => address.to_string(),
            Host::Name(name) => name,
        };
        (spec.name, host, port, spec.weight)
    }

    #[test]
    fn reads_every_form() {
        assert_eq!(tcp_to("localhost:9001"), ("localhost:9001".into(), "localhost".into(), 9001, 1));
        assert_eq!(tcp_to("10.0.0.1:80,weight=3"), ("10.0.0.1:80".into(), "10.0.0.1".into(), 80, 3));
        assert_eq!(tcp_to("[::1]:9001"), ("[::1]:9001".into(), "::1".into(), 9001, 1));
        assert_eq!(tcp_to("HTTP://a_b.c-d.e.:1"), ("a_b.c-d.e.:1".into(), "a_b.c-d.e.".into(), 1, 1));
        let spec = backend("http://unix:/run/app.sock,weight=65535").unwrap();
        assert_eq!(spec.name, "unix:/run/app.sock");
        assert_eq!(spec.target, Target::Unix("/run/app.sock".into()));
        assert_eq!(spec.weight, 65535);
        assert_eq!(backend("unix:///run/app.sock").unwrap().target, Target::Unix("///run/app.sock".into()));
    }

    #[test]
    fn refuses_by_name_what_this_version_does_not_do() {
        for text in
            ["https://a:1", "HTTPS://a", "h2c://a:1", "a:443", "http://a:443", "[::1]:443", "a:1,backup", "a:1,max=5"]
        {
            assert!(matches!(backend(text), Err(Fault::Absent(_))), "{text}: {:?}", backend(text));
        }
    }

    #[test]
    fn refuses_what_is_no_backend() {
        for (text, fault) in [
            ("", Fault::NoPort),
            ("localhost", Fault::NoPort),
            ("localhost:", Fault::NoPort),
            ("[::1]", Fault::NoPort),
            ("[::1]:", Fault::NoPort),
            ("[::1", Fault::Malformed),
            ("[::1]x:80", Fault::Malformed),
            ("[localhost]:80", Fault::Host),
            ("::1:9001", Fault::Brackets),
            (":80", Fault::Host),
            ("a b:80", Fault::Host),
            ("a..b:80", Fault::Host),
            ("-a:80", Fault::Host),
            ("256.0.0.1:80", Fault::Host),
            ("127.1:80", Fault::Host),
            ("a@b:80", Fault::Host),
            ("é:80", Fault::Host),
            ("a:0", Fault::Port),
            ("a:65536", Fault::Port),
            ("a:80x", Fault::Port),
            ("a:+80", Fault::Port),
            ("a:80/path", Fault::Port),
            ("ftp://a:80", Fault::Scheme),
            ("unix:", Fault::UnixPath),
            ("unix:run/app.sock", Fault::UnixPath),
            ("a:80,", Fault::Attribute),
            ("a:80,wieght=2", Fault::Attribute),
            ("a:80,weight", Fault::Attribute),
            ("a:80,weight=0", Fault::Weight),
            ("a:80,weight=65536", Fault::Weight),
            ("a:80,weight=", Fault::Weight),
            ("a:80,weight=1,weight=1", Fault::AttributeTwice),
        ] {
            assert_eq!(backend(text), Err(fault), "{text:?}");
        }
        assert_eq!(backend(&format!("unix:/{}", "a".repeat(UNIX_PATH_BYTES))), Err(Fault::UnixPath));
        assert_eq!(backend(&format!("{}:80", "a".repeat(HOST_LABEL_BYTES + 1))), Err(Fault::Host));
        assert_eq!(backend(&format!("{}a:80", "a.".repeat(HOST_NAME_BYTES / 2 + 1))), Err(Fault::Host));
    }
}

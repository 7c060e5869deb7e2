//! The names that a certificate is for, and the hosts that they cover (RFC 9525, section 6.3).
//!
//! A name covers the same host, without regard to case and to a trailing dot. A wildcard is the whole first label, and
//! covers exactly one label. Addresses are compared as addresses.

use std::fmt;
use std::net::IpAddr;

/// The names of one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Host names in lower case and without a trailing dot, perhaps with `*` as the first label.
    hosts: Vec<Box<str>>,
    addresses: Vec<IpAddr>,
}

impl CertificateNames {
    /// Adds a host name. Bytes that are not ASCII cannot be those of a host, and are left out.
    pub fn add_host(&mut self, name: &[u8]) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        if name.is_ascii() {
            self.hosts.push(canonical(name).into_boxed_str());
        }
    }

    /// Adds an address.
    pub fn add_address(&mut self, address: IpAddr) {
        self.addresses.push(address);
    }

    /// Returns the host names, in lower case, perhaps with `*` as the first label.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|name| &**name)
    }

    /// True if there is no name, so that no client accepts the certificate for a host.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.addresses.is_empty()
    }

    /// True if the certificate is for the host of an authority, which is given without its port. An IPv6 address may
    /// have brackets.
    pub fn covers(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let parent = parent(host);
        self.hosts.iter().any(|name| match (name.strip_prefix("*."), parent) {
            (Some(covered), Some(parent)) => covered.eq_ignore_ascii_case(parent),
            (Some(_), None) => false,
            (None, _) => name.eq_ignore_ascii_case(host),
        })
    }
}

/// Returns the form of a host name that is compared: in lower case and without a trailing dot.
pub fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Returns the host without its first label. `None`: there is no other label, or the first one is empty.
pub fn parent(host: &str) -> Option<&str> {
    let (label, parent) = host.split_once('.')?;
    (!label.is_empty() && !parent.is_empty()).then_some(parent)
}

/// Shows the names with commas between them.
impl fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for name in &self.hosts {
            write!(f, "{comma}{name}")?;
            comma = ", ";
        }
        for address in &self.addresses {
            write!(f, "{comma}{address}")?;
            comma = ", ";
        }
        if comma.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(hosts: &[&str], addresses: &[&str]) -> CertificateNames {
        let mut names = CertificateNames::default();
        hosts.iter().for_each(|name| names.add_host(name.as_bytes()));
        addresses.iter().for_each(|address| names.add_address(address.parse().unwrap()));
        names
    }

    #[test]
    fn a_name_covers_its_host_in_any_case() {
        let names = names(&["A.test", "localhost"], &[]);
        for host in ["a.test", "A.TEST", "a.test.", "localhost"] {
            assert!(names.covers(host), "{host}");
        }
        for host in ["", ".", "test", "b.a.test", "xa.test", "a.test..", "a.tes", "[a.test]"] {
            assert!(!names.covers(host), "{host}");
        }
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let names = names(&["*.a.test", "b*.c.test"], &[]);
        for host in ["x.a.test", "X.A.test."] {
            assert!(names.covers(host), "{host}");
        }
        for host in ["a.test", ".a.test", "x.y.a.test", "bb.c.test", "x.ba.test"] {
            assert!(!names.covers(host), "{host}");
        }
        assert!(names.covers("*.a.test"), "a host of this name is one label below");
    }

    #[test]
    fn addresses_are_compared_as_addresses() {
        let names = names(&["127.0.0.2"], &["127.0.0.1", "::1"]);
        for host in ["127.0.0.1", "[::1]", "::1", "[0:0::1]"] {
            assert!(names.covers(host), "{host}");
        }
        for host in ["127.0.0.2", "[::2]", "127.0.0.1.", "0.0.0.1"] {
            assert!(!names.covers(host), "{host}");
        }
    }

    #[test]
    fn names_are_shown_in_one_line() {
        assert_eq!(names(&["B.test", "*.a.test"], &["::1"]).to_string(), "b.test, *.a.test, ::1");
        assert_eq!(names(&[], &[]).to_string(), "none");
        assert!(names(&[], &[]).is_empty());
        let mut odd = names(&[], &[]);
        odd.add_host(b"caf\xc3\xa9.test");
        odd.add_host(b"\xff");
        assert!(odd.is_empty());
    }
}

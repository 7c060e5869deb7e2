//! The table of `/etc/hosts`: names that are resolved without a server.
//!
//! A line consists of an address and its names; `#` starts a comment. As in every resolver, malformed lines are
//! skipped: the file belongs to the system, and an error in it must not prevent the program from starting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::{HOST_NAME_BYTES, HOSTS_BYTES};

/// Names and their addresses, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    entries: Vec<(Box<str>, IpAddr)>,
    /// True if the system has no `::1`.
    lacks_ipv6_loopback: bool,
}

impl Hosts {
    /// Parses the text, or the complete lines within its first [`HOSTS_BYTES`].
    pub fn parse(text: &[u8]) -> Hosts {
        let text = match text.get(..HOSTS_BYTES) {
            Some(start) if text.len() > HOSTS_BYTES => {
                &start[..start.iter().rposition(|&b| b == b'\n').unwrap_or_default()]
            }
            _ => text,
        };
        let mut entries = Vec::new();
        for line in text.split(|&b| b == b'\n') {
            let line = line.split(|&b| b == b'#').next().unwrap_or_default();
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let address = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
            let Some(address) = address else { continue };
            for word in words.filter(|word| word.len() <= HOST_NAME_BYTES) {
                if let Ok(name) = std::str::from_utf8(word) {
                    entries.push((name.into(), address));
                }
            }
        }
        Hosts { entries, lacks_ipv6_loopback: false }
    }

    /// Removes `::1`, for a system without it whose table may contain it.
    pub fn without_ipv6_loopback(mut self) -> Hosts {
        self.entries.retain(|(_, address)| *address != IpAddr::V6(Ipv6Addr::LOCALHOST));
        self.lacks_ipv6_loopback = true;
        self
    }

    /// The first address of a name; for a `localhost` that is not in the table, the IPv4 loopback address.
    pub fn first(&self, name: &str) -> Option<IpAddr> {
        let is_localhost = without_dot(name).eq_ignore_ascii_case("localhost");
        self.lookup(name).next().or(is_localhost.then_some(Ipv4Addr::LOCALHOST.into()))
    }

    /// The addresses of `localhost` and of the names below it if the table does not have them (RFC 6761, 6.3),
    /// as in an empty container.
    pub fn loopback(&self) -> Vec<IpAddr> {
        let ipv6 = (!self.lacks_ipv6_loopback).then_some(Ipv6Addr::LOCALHOST.into());
        [IpAddr::V4(Ipv4Addr::LOCALHOST)].into_iter().chain(ipv6).collect()
    }

    /// The addresses of a name, in the order of the file. Case and a final dot are ignored.
    pub fn lookup<'a>(&'a self, name: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        let name = without_dot(name);
        let same = move |known: &str| without_dot(known).eq_ignore_ascii_case(name);
        self.entries.iter().filter(move |(known, _)| same(known)).map(|(_, address)| *address)
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, name: &str) -> Vec<String> {
        Hosts::parse(text.as_bytes()).lookup(name).map(|address| address.to_string()).collect()
    }

    #[test]
    fn finds_names_and_aliases_in_any_case() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.7   API.internal api # the API\r\n::1 localhost ip6-localhost\n";
        assert_eq!(found(text, "localhost"), ["127.0.0.1", "::1"]);
        let without = Hosts::parse(text.as_bytes()).without_ipv6_loopback();
        assert_eq!(without.lookup("localhost").collect::<Vec<_>>(), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert_eq!((without.loopback().len(), Hosts::default().loopback().len()), (1, 2));
        assert_eq!(found(text, "api.INTERNAL"), ["10.0.0.7"]);
        assert_eq!(found(text, "api"), ["10.0.0.7"]);
        assert_eq!(found(text, "api."), ["10.0.0.7"]);
        assert_eq!(found(text, "the"), [""; 0]);
        assert_eq!(found(text, "10.0.0.7"), [""; 0]);
        assert_eq!(found(text, ""), [""; 0]);
    }

    #[test]
    fn the_last_line_needs_no_end() {
        assert_eq!(found("10.0.0.1 a", "a"), ["10.0.0.1"]);
    }

    #[test]
    fn skips_comments_and_malformed_lines() {
        let text = "# 10.0.0.1 a\n#\n\n \t \n300.0.0.1 a\na 10.0.0.1\n10.0.0.2\nfe80::1%lo0 a\n 10.0.0.3 a#b\n";
        assert_eq!(found(text, "a"), ["10.0.0.3"]);
        let text = b"10.0.0.1 caf\xff a\n\xff\xfe b\n10.0.0.2 b # \xff\n";
        let hosts = Hosts::parse(text);
        assert_eq!(hosts.lookup("a").count(), 1);
        assert_eq!(hosts.lookup("b").count(), 1);
    }

    #[test]
    fn reads_whole_lines_up_to_its_bound() {
        let mut text = b"10.0.0.1 first\n".to_vec();
        text.resize(HOSTS_BYTES - 9, b'\n');
        text.extend_from_slice(b"10.0.0.2 second\n10.0.0.3 third\n");
        let hosts = Hosts::parse(&text);
        assert_eq!(hosts.lookup("first").count(), 1);
        assert_eq!(hosts.entries.len(), 1);
        assert_eq!(Hosts::parse(&vec![b'x'; HOSTS_BYTES + 1]), Hosts::default());
    }
}

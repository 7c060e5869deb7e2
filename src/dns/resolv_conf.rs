//! `/etc/resolv.conf`: the servers and the options of queries (resolv.conf(5)).
//!
//! As in every resolver, unknown content is skipped and values out of range are clamped, because the file
//! belongs to the system. Without a server in the file, the server of this host is used. The search list
//! contains only domains of the file, not the domain of the host's own name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::Name;
use crate::limits::{
    DNS_ATTEMPTS, DNS_ATTEMPTS_MAX, DNS_PORT, DNS_TIMEOUT_MAX_S, DNS_TIMEOUT_S, NAME_SERVERS, NDOTS, RESOLV_CONF_BYTES,
    SEARCH_DOMAINS, SECOND_US,
};

/// The settings of the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers in the order of queries: one to `NAME_SERVERS`.
    pub servers: Vec<SocketAddr>,
    /// The domains of the search list, at most `SEARCH_DOMAINS`.
    pub search: Vec<Name>,
    /// A name with at least this many dots is queried without a domain first, and with the domains afterwards.
    pub ndots: usize,
    /// The time that a server has to answer, in microseconds.
    pub timeout_us: u64,
    /// The number of rounds over all servers, at least one.
    pub attempts: u32,
    /// True if each lookup begins with the next server.
    pub rotate: bool,
    /// True if all queries use TCP.
    pub use_vc: bool,
}

impl Default for ResolvConf {
    /// The settings of an empty file.
    fn default() -> ResolvConf {
        ResolvConf {
            servers: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT))],
            search: Vec::new(),
            ndots: 1,
            timeout_us: DNS_TIMEOUT_S * SECOND_US,
            attempts: DNS_ATTEMPTS,
            rotate: false,
            use_vc: false,
        }
    }
}

impl ResolvConf {
    /// Parses the text, or the complete lines within its first `RESOLV_CONF_BYTES`.
    pub fn parse(text: &[u8]) -> ResolvConf {
        let text = match text.get(..RESOLV_CONF_BYTES) {
            Some(start) if text.len() > RESOLV_CONF_BYTES => {
                &start[..start.iter().rposition(|&b| b == b'\n').unwrap_or_default()]
            }
            _ => text,
        };
        let mut conf = ResolvConf::default();
        let mut servers = Vec::new();
        for line in text.split(|&b| b == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
            let mut words = line.split_ascii_whitespace();
            // The first word of a comment matches none of these.
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(server)),
                // The last `domain` or `search` line counts.
                Some("domain") => conf.search = words.next().and_then(Name::parse).into_iter().collect(),
                Some("search") => conf.search = words.filter_map(Name::parse).take(SEARCH_DOMAINS).collect(),
                Some("options") => words.for_each(|word| conf.set_option(word)),
                _ => {}
            }
        }
        servers.truncate(NAME_SERVERS);
        if !servers.is_empty() {
            conf.servers = servers;
        }
        conf
    }

    fn set_option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let value = value.parse::<u32>().ok();
        match (name, value) {
            ("ndots", Some(dots)) => self.ndots = (dots as usize).min(NDOTS),
            ("timeout", Some(seconds)) => {
                self.timeout_us = u64::from(seconds).clamp(1, DNS_TIMEOUT_MAX_S) * SECOND_US;
            }
            ("attempts", Some(attempts)) => self.attempts = attempts.clamp(1, DNS_ATTEMPTS_MAX),
            ("rotate", None) => self.rotate = true,
            ("use-vc", None) => self.use_vc = true,
            _ => {}
        }
    }
}

/// Parses an address, or `[address]:port` as on BSD systems. The zone of an IPv6 address is ignored, because
/// only the system knows its number. A link-local server is therefore reachable only if the system has a route
/// without the zone.
fn server(word: &str) -> Option<SocketAddr> {
    let (host, port) = match word.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0)?),
        None => (word, DNS_PORT),
    };
    let ip = match host.split_once('%') {
        Some((host, _)) => IpAddr::V6(host.parse::<Ipv6Addr>().ok()?),
        None => host.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        ResolvConf::parse(text.as_bytes()).servers.iter().map(SocketAddr::to_string).collect()
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_usual_file_is_read() {
        let text = "# made by a tool\n; so they say\nnameserver 10.0.0.2\nnameserver\tfd00::1\n\
                    search corp.example Example.COM.\noptions ndots:5 timeout:2 attempts:3 rotate edns0 single-request\n";
        let conf = ResolvConf::parse(text.as_bytes());
        assert_eq!(servers(text), ["10.0.0.2:53", "[fd00::1]:53"]);
        assert_eq!(conf.search, [name("corp.example"), name("example.com")]);
        assert_eq!((conf.ndots, conf.timeout_us, conf.attempts, conf.rotate), (5, 2 * SECOND_US, 3, true));
    }

    #[test]
    fn an_empty_file_asks_this_host() {
        assert_eq!(ResolvConf::parse(b""), ResolvConf::default());
        assert_eq!(ResolvConf::parse(b"nameserver\nnameserver here\n\xff\xfe\n"), ResolvConf::default());
        assert_eq!(servers(""), ["127.0.0.1:53"]);
    }

    #[test]
    fn three_servers_count_with_zone_and_port() {
        let text = "nameserver fe80::1%eth0\nnameserver 1.2.3.4%x\nnameserver [10.0.0.1]:5353\nnameserver [::1]:54\n\
                    nameserver [10.0.0.1]:0\nnameserver 10.0.0.9\nnameserver 10.0.0.3 # the third\n";
        assert_eq!(servers(text), ["[fe80::1]:53", "10.0.0.1:5353", "[::1]:54"]);
    }

    #[test]
    fn the_last_of_search_and_domain_counts() {
        let search = |text: &str| ResolvConf::parse(text.as_bytes()).search;
        assert_eq!(search("search a b\ndomain c d"), [name("c")]);
        assert_eq!(search("domain c\nsearch a b"), [name("a"), name("b")]);
        assert_eq!(search("search a\nsearch"), []);
        assert_eq!(search("search . a..b a b c d e f g h").len(), SEARCH_DOMAINS);
    }

    #[test]
    fn servers_may_be_asked_over_tcp_alone() {
        assert!(ResolvConf::parse(b"options timeout:1 use-vc").use_vc);
        assert!(!ResolvConf::parse(b"options use-vc:1 vc").use_vc);
    }

    #[test]
    fn options_out_of_range_are_brought_into_it() {
        let conf = ResolvConf::parse(b"options ndots:99 timeout:0 attempts:100 rotate:1\noptions");
        assert_eq!((conf.ndots, conf.timeout_us, conf.attempts, conf.rotate), (15, SECOND_US, 5, false));
        let conf = ResolvConf::parse(b"options timeout:31 attempts:0 ndots:0");
        assert_eq!((conf.ndots, conf.timeout_us, conf.attempts), (0, 30 * SECOND_US, 1));
        let conf = ResolvConf::parse(b"options ndots: ndots:x timeout:-1 attempts:99999999999 :");
        assert_eq!(conf, ResolvConf::default());
    }

    #[test]
    fn only_whole_lines_within_the_bound_are_read() {
        let mut text = b"nameserver 10.0.0.1\n".to_vec();
        text.resize(RESOLV_CONF_BYTES - 19, b'\n');
        text.extend_from_slice(b"nameserver 10.0.0.22\n");
        assert_eq!(ResolvConf::parse(&text).servers, [SocketAddr::from(([10, 0, 0, 1], 53))]);
    }
}

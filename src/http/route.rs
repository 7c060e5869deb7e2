//! Routes: the requests that some backends are for. A route is a host, or a host and the begin of a path.
//!
//! Case, a port and a trailing dot of the host have no meaning, and a subdomain is another host. The path is compared
//! byte for byte as it is forwarded: nothing is decoded, merged or resolved, so a backend reads the same path. The
//! begin of a path ends at a slash: `/api` is the begin of `/api` and `/api/x`, and not of `/apix`. The longest
//! matching route decides.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::io::Write;
use std::net::Ipv6Addr;

use super::head::{HeadRef, Start};

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The host in small letters, without port and trailing dot. An IPv6 address is in brackets, as the standard writes
    /// it (RFC 5952).
    pub host: String,
    /// The begin of the path; empty for every path.
    pub prefix: String,
}

impl Route {
    /// Makes a route of a host without a port and a begin of a path, which is empty or begins with a slash.
    pub fn new(host: &str, prefix: &str) -> Route {
        let mut room = [0; ADDRESS_BYTES];
        let host = String::from_utf8_lossy(canonical(host.as_bytes(), &mut room)).to_ascii_lowercase();
        // Every path begins with a slash, so this begin says nothing.
        Route { host, prefix: if prefix == "/" { String::new() } else { prefix.into() } }
    }
}

/// The notation of the user.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.prefix)
    }
}

/// The length of an IPv6 address in brackets.
const ADDRESS_BYTES: usize = 48;

/// Returns the host of an authority without its port and its trailing dot. `room` receives an IPv6 address in the form
/// of the standard.
fn canonical<'a>(authority: &'a [u8], room: &'a mut [u8; ADDRESS_BYTES]) -> &'a [u8] {
    if let Some(inside) = authority.strip_prefix(b"[") {
        let end = inside.iter().position(|&byte| byte == b']').unwrap_or(inside.len());
        let address: Option<Ipv6Addr> = std::str::from_utf8(&inside[..end]).ok().and_then(|text| text.parse().ok());
        let Some(address) = address else { return authority };
        let mut rest = &mut room[..];
        // The room is large enough for every address.
        let _ = write!(rest, "[{address}]");
        let left = rest.len();
        return &room[..ADDRESS_BYTES - left];
    }
    let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
    let host = &authority[..end];
    host.strip_suffix(b".").unwrap_or(host)
}

/// A table of routes.
#[derive(Debug, Default)]
pub struct Routes {
    /// The routes with their numbers, by host, and for a host the longest prefix first.
    sorted: Vec<(Route, usize)>,
}

impl Routes {
    /// Makes a table. The number of a route is its place in the list.
    pub fn new(routes: &[Route]) -> Routes {
        let mut sorted: Vec<(Route, usize)> = routes.iter().cloned().zip(0..).collect();
        sorted.sort_by(|(one, _), (other, _)| {
            (&one.host, Reverse(one.prefix.len())).cmp(&(&other.host, Reverse(other.prefix.len())))
        });
        Routes { sorted }
    }

    /// True if there are no routes.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Returns the number of the longest route that a request matches.
    pub fn find(&self, head: HeadRef<'_>) -> Option<usize> {
        let Start::Request { path, .. } = head.head.start else { return None };
        let path = head.get(path);
        let path = &path[..path.iter().position(|&byte| byte == b'?').unwrap_or(path.len())];
        let mut room = [0; ADDRESS_BYTES];
        let host = canonical(head.authority()?, &mut room);
        let small = || host.iter().map(u8::to_ascii_lowercase);
        let first = self.sorted.partition_point(|(route, _)| route.host.bytes().cmp(small()) == Ordering::Less);
        let own = self.sorted[first..].iter().take_while(|(route, _)| route.host.bytes().eq(small()));
        own.into_iter().find(|(route, _)| is_begin(route.prefix.as_bytes(), path)).map(|&(_, number)| number)
    }
}

/// True if `path` begins with `prefix`, and a segment of the path ends there.
fn is_begin(prefix: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| matches!(rest, [] | [b'/', ..]) || matches!(prefix, [] | [.., b'/']))
}

#[cfg(test)]
mod tests {
    use super::super::fields::{Field, Name, Span};
    use super::super::head::Head;
    use super::*;

    /// The route of a request with a Host, and with an authority in its target if one is given.
    fn routed(routes: &[&str], authority: Option<&str>, host: &str, path: &str) -> Option<String> {
        let routes: Vec<Route> = routes
            .iter()
            .map(|text| {
                let end = text.find('/').unwrap_or(text.len());
                Route::new(&text[..end], &text[end..])
            })
            .collect();
        let mut bytes = Vec::new();
        let mut span = |text: &str| {
            let start = bytes.len();
            bytes.extend_from_slice(text.as_bytes());
            Span::new(start, bytes.len())
        };
        let authority = authority.map(&mut span);
        let start = Start::Request { method: span("GET"), path: span(path), authority, protocol: None };
        let fields = vec![Field { name: Name::Host, name_span: span("Host"), value_span: span(host) }];
        let head = Head { start, fields, ..Head::default() };
        Routes::new(&routes).find(HeadRef { bytes: &bytes, head: &head }).map(|number| routes[number].to_string())
    }

    #[test]
    fn case_port_and_trailing_dot_of_the_host_have_no_meaning() {
        let routes = ["api.test", "other.test", "10.0.0.1", "[::1]"];
        for host in ["api.test", "API.Test", "api.test:8080", "api.test.", "Api.test.:1"] {
            assert_eq!(routed(&routes, None, host, "/").as_deref(), Some("api.test"), "{host}");
        }
        for host in ["[::1]", "[0:0::1]:80", "[0000:0000:0000:0000:0000:0000:0000:0001]"] {
            assert_eq!(routed(&routes, None, host, "/").as_deref(), Some("[::1]"), "{host}");
        }
        assert_eq!(routed(&routes, None, "10.0.0.1:1", "/").as_deref(), Some("10.0.0.1"));
        for host in ["a.api.test", "api.tes", "api.testx", "", ".", "[::2]", "[", "[::1x]", "api.test.."] {
            assert_eq!(routed(&routes, None, host, "/"), None, "{host}");
        }
        assert_eq!(Route::new("API.test.", "/A"), Route { host: "api.test".into(), prefix: "/A".into() });
        assert_eq!(Route::new("[0::1]", "/").to_string(), "[::1]");
    }

    #[test]
    fn a_prefix_ends_at_a_slash_and_is_compared_byte_for_byte() {
        let routes = ["a/api", "a/dir/"];
        for path in ["/api", "/api/", "/api/x", "/api?x", "/api/../x", "/api/%2e%2e/x"] {
            assert_eq!(routed(&routes, None, "a", path).as_deref(), Some("a/api"), "{path}");
        }
        for path in ["/apix", "/API", "/%61pi", "//api", "/./api", "/x/../api", "/ap", "/", "", "*", "?/api", "/api;x"]
        {
            assert_eq!(routed(&routes, None, "a", path), None, "{path}");
        }
        assert_eq!(routed(&routes, None, "a", "/dir/x").as_deref(), Some("a/dir/"));
        assert_eq!(routed(&routes, None, "a", "/dir"), None);
    }

    #[test]
    fn the_longest_route_decides() {
        let routes = ["a", "a/x/y", "a/x", "b", "a/xx"];
        for (path, route) in [("/x/y/z", "a/x/y"), ("/x/yy", "a/x"), ("/x", "a/x"), ("/xx", "a/xx"), ("/z", "a")] {
            assert_eq!(routed(&routes, None, "a", path).as_deref(), Some(route), "{path}");
        }
        for path in ["*", "", "?x", "/"] {
            assert_eq!(routed(&routes, None, "a", path).as_deref(), Some("a"), "{path}");
        }
    }

    #[test]
    fn an_authority_in_the_target_overrides_host() {
        assert_eq!(routed(&["a", "b"], Some("B:80"), "a", "/").as_deref(), Some("b"));
        assert_eq!(routed(&["a"], Some("b"), "a", "/"), None);
    }
}

//! A backend in the user's notation: `host:port`, `[v6]:port` or `unix:/path`, optionally preceded by
//! `http://`, `https://` or `h2c://` and followed by `,weight=N`, `,backup`, `,max=N` and `,for=HOST[/PREFIX]`. A
//! configuration file gives the same parts separately.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::nearest::nearest;
use super::value::{Fault, is_name, number, number_u32};
use crate::http::route::Route;
use crate::limits::{BACKEND_MAX, BACKEND_ROUTES, HEALTH_PATH_BYTES, UNIX_PATH_BYTES};

/// The attributes after a backend's address.
const ATTRIBUTES: [&str; 4] = ["weight", "backup", "max", "for"];
/// The host of a backend that is only a port.
const LOCALHOST: &str = "localhost";

/// The port that implies TLS.
const TLS_PORT: u16 = 443;

/// A configured backend. Its name is not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The text as the user wrote it, without `http://` and attributes, for messages and labels.
    pub name: String,
    /// The address or name.
    pub target: Target,
    /// The relative share of requests, up to 65,535. With 0 the backend finishes open requests and gets no new
    /// ones.
    pub weight: u16,
    /// True if the backend is used only if no other is healthy.
    pub backup: bool,
    /// The maximum of requests in flight, up to 1,000,000; 0 for no limit.
    pub max: u32,
    /// True if connections use TLS.
    pub tls: bool,
    /// True if connections use HTTP/2 without TLS. It must be configured, because there is no negotiation
    /// without TLS.
    pub h2c: bool,
    /// The routes whose requests the backend gets. If there are none, it gets the requests that match no route.
    pub routes: Vec<Route>,
}

/// The notation of the command line.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A scheme that the port implies is omitted.
        match (means_tls(&self.target), self.tls) {
            _ if self.h2c => f.write_str("h2c://")?,
            (false, true) => f.write_str("https://")?,
            (true, false) => f.write_str("http://")?,
            _ => {}
        }
        f.write_str(&self.name)?;
        if self.weight != 1 {
            write!(f, ",weight={}", self.weight)?;
        }
        if self.backup {
            f.write_str(",backup")?;
        }
        if self.max != 0 {
            write!(f, ",max={}", self.max)?;
        }
        self.routes.iter().try_for_each(|route| write!(f, ",for={route}"))
    }
}

/// The location of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host and a port, which is never 0.
    Tcp(Host, u16),
    /// A Unix stream socket; the path is absolute.
    Unix(PathBuf),
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name as in RFC 1123, 2.1, with underscores allowed.
    Name(String),
}

/// Parses a backend.
pub(crate) fn backend(text: &str) -> Result<Backend, Fault> {
    let mut parts = text.split(',');
    let (scheme, name) = scheme(parts.next().unwrap_or_default())?;
    let whole = with_localhost(name);
    let name = whole.as_str();
    let target = match name.strip_prefix("unix:") {
        Some(path) => unix(path)?,
        None => tcp(name, scheme == Scheme::Https)?,
    };
    if scheme == Scheme::Https && matches!(target, Target::Unix(_)) {
        return Err(Fault::Malformed);
    }
    let tls = match (scheme, &target) {
        (Scheme::None, target) => means_tls(target),
        (scheme, _) => scheme == Scheme::Https,
    };
    let (mut weight, mut backup, mut max, mut routes) = (None, false, None, Vec::new());
    for attribute in parts {
        match attribute.split_once('=') {
            Some(("weight", _)) if weight.is_some() => return Err(Fault::AttributeTwice),
            Some(("weight", digits)) => weight = Some(self::weight(digits)?),
            Some(("max", _)) if max.is_some() => return Err(Fault::AttributeTwice),
            Some(("max", digits)) => max = Some(self::max(digits)?),
            Some(("for", text)) => add_route(&mut routes, route(text)?)?,
            None if attribute == "backup" && backup => return Err(Fault::AttributeTwice),
            None if attribute == "backup" => backup = true,
            Some(("backup", _)) => return Err(Fault::BackupValue),
            None if matches!(attribute, "weight" | "max" | "for") => return Err(Fault::NoValue),
            None if self::backend(attribute).is_ok() => return Err(Fault::TwoBackends),
            other => {
                let name = other.map_or(attribute, |(name, _)| name);
                return Err(Fault::Attribute(nearest(name, ATTRIBUTES.into_iter())));
            }
        }
    }
    let (weight, max) = (weight.unwrap_or(1), max.unwrap_or_default());
    let name = named_with_port(name, &target);
    Ok(Backend { name, target, weight, backup, max, tls, h2c: scheme == Scheme::H2c, routes })
}

/// Parses a host that is given without a port; brackets around IPv6 are optional. Returns its text for
/// messages, and the host.
pub(crate) fn at_host(text: &str) -> Result<(String, Host), Fault> {
    if text.contains("://") {
        return Err(Fault::SchemeInHost);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<Ipv6Addr>() {
        Ok(address) => Ok((format!("[{bare}]"), Host::Ip(address.into()))),
        Err(_) if tcp(text, false).is_ok() => Err(Fault::PortInHost),
        Err(_) => Ok((text.to_owned(), named(text)?)),
    }
}

/// Adds the host localhost to a lone port.
fn with_localhost(place: &str) -> String {
    let digits = place.strip_prefix(':').unwrap_or(place);
    match !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("{LOCALHOST}:{digits}"),
        false => place.to_owned(),
    }
}

/// Parses a weight up to 65,535. With 0 a backend gets no new requests.
pub(crate) fn weight(digits: &str) -> Result<u16, Fault> {
    let number = number(digits, 0, u64::from(u16::MAX)).map_err(|_| Fault::Weight)?;
    u16::try_from(number).map_err(|_| Fault::Weight)
}

/// Parses a route: a host, and the begin of a path if it has one.
pub(crate) fn route(text: &str) -> Result<Route, Fault> {
    let (host, prefix) = text.split_at(text.find('/').unwrap_or(text.len()));
    let is_address = match host.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok()),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    match host.rsplit_once(':') {
        _ if is_address => {}
        Some((before, digits))
            if !before.contains(':') && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            return Err(Fault::PortInRoute);
        }
        Some((before, _)) if host.starts_with('[') && before.ends_with(']') => return Err(Fault::PortInRoute),
        Some(_) => return Err(Fault::RouteHost),
        None if is_name(host) => {}
        None => return Err(Fault::RouteHost),
    }
    // Clients never send a fragment (RFC 9110, 7.1), and a query does not select a backend.
    if prefix.len() > HEALTH_PATH_BYTES || !prefix.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'?')) {
        return Err(Fault::RoutePath);
    }
    Ok(Route::new(host, prefix))
}

/// Adds a route to those of a backend.
pub(crate) fn add_route(routes: &mut Vec<Route>, route: Route) -> Result<(), Fault> {
    if routes.contains(&route) {
        return Err(Fault::RouteTwice);
    } else if routes.len() == BACKEND_ROUTES {
        return Err(Fault::TooManyRoutes);
    }
    routes.push(route);
    Ok(())
}

/// Parses a limit of requests in flight.
pub(crate) fn max(digits: &str) -> Result<u32, Fault> {
    number_u32(digits, 1, BACKEND_MAX).map_err(|_| Fault::Max)
}

/// The protocol of a backend, if given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    None,
    Http,
    Https,
    H2c,
}

/// True if the port implies TLS, in the absence of a scheme.
pub(crate) fn means_tls(target: &Target) -> bool {
    matches!(target, Target::Tcp(_, TLS_PORT))
}

/// The name as written, with the port added if it was omitted.
fn named_with_port(name: &str, target: &Target) -> String {
    match target {
        Target::Tcp(_, TLS_PORT) if !name.ends_with(":443") => format!("{name}:443"),
        _ => name.to_owned(),
    }
}

fn scheme(place: &str) -> Result<(Scheme, &str), Fault> {
    // `unix:///path` has no scheme, only a path with superfluous slashes.
    if place.starts_with("unix:") {
        return Ok((Scheme::None, place));
    }
    // The path of a pasted URL is refused, except for the slash of an empty one.
    let bare = |rest: &'_ str| -> usize { rest.len() - usize::from(rest.ends_with('/')) };
    match place.split_once("://") {
        None => Ok((Scheme::None, place)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((Scheme::Http, &rest[..bare(rest)])),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((Scheme::Https, &rest[..bare(rest)])),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("h2c") => Ok((Scheme::H2c, &rest[..bare(rest)])),
        Some(_) => Err(Fault::Scheme),
    }
}

/// Parses the path of a Unix socket.
pub(crate) fn unix(path: &str) -> Result<Target, Fault> {
    if !path.starts_with('/') || path.len() > UNIX_PATH_BYTES || path.contains('\0') {
        return Err(Fault::UnixPath);
    }
    Ok(Target::Unix(PathBuf::from(path)))
}

fn tcp(place: &str, https: bool) -> Result<Target, Fault> {
    // A URL may omit the default port of its scheme.
    if place.contains('@') {
        return Err(Fault::UserInfo);
    } else if place.contains(['/', '?', '#']) {
        return Err(Fault::Path);
    }
    let whole = |place: &str| place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let with_port = if https && !whole(place) { format!("{place}:{TLS_PORT}") } else { place.to_owned() };
    let place = with_port.as_str();
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
    if port.is_empty() { Err(Fault::NoPort) } else { Ok(Target::Tcp(host, self::port(port)?)) }
}

/// Parses the port of a backend.
pub(crate) fn port(digits: &str) -> Result<u16, Fault> {
    positive(digits).ok_or(Fault::Port)
}

fn named(host: &str) -> Result<Host, Fault> {
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Host::Ip(address.into())),
        Err(_) if is_name(host) => Ok(Host::Name(host.to_owned())),
        Err(_) => Err(Fault::Host),
    }
}

/// Parses a number from 1 to 65,535.
fn positive(digits: &str) -> Option<u16> {
    number(digits, 1, u64::from(u16::MAX)).ok().and_then(|number| u16::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{HOST_LABEL_BYTES, HOST_NAME_BYTES};

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
    fn a_port_alone_is_one_of_localhost() {
        for text in ["3000", ":3000", "http://:3000", "http://3000/"] {
            assert_eq!(tcp_to(text), ("localhost:3000".into(), "localhost".into(), 3000, 1), "{text}");
        }
        assert_eq!(tcp_to("3000,weight=2"), ("localhost:3000".into(), "localhost".into(), 3000, 2));
        assert_eq!(backend(":443").map(|spec| spec.tls), Ok(true));
    }

    #[test]
    fn reads_attributes_in_any_order_and_shows_them_again() {
        let attributes = |text: &str| backend(text).map(|spec| (spec.weight, spec.backup, spec.max));
        assert_eq!(attributes("a:1"), Ok((1, false, 0)));
        assert_eq!(attributes("a:1,max=1000000,backup,weight=2"), Ok((2, true, 1_000_000)));
        for text in ["a:1", "a:1,weight=0", "[::1]:80,weight=2,backup,max=5", "unix:/s,backup"] {
            assert_eq!(backend(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn routes_may_be_repeated_and_are_shown_without_what_has_no_meaning() {
        let shown = |text: &str| backend(text).map(|spec| spec.to_string());
        let text = "a:1,for=b.test/api,for=10.0.0.1,for=[::1]/A%2f,for=b.test/api/";
        assert_eq!(shown(text).as_deref(), Ok(text));
        assert_eq!(shown("a:1,for=B.Test./,weight=2,for=[0:0::1]").as_deref(), Ok("a:1,weight=2,for=b.test,for=[::1]"));
        let many = |count: usize| (0..count).fold("a:1".to_owned(), |text, n| format!("{text},for=h{n}"));
        assert!(backend(&many(BACKEND_ROUTES)).is_ok());
        assert_eq!(backend(&many(BACKEND_ROUTES + 1)), Err(Fault::TooManyRoutes));
    }

    #[test]
    fn a_host_of_its_own_is_named_as_it_would_be_written() {
        let name = |text| at_host(text).map(|(name, _)| name);
        assert_eq!(name("::1"), Ok("[::1]".into()));
        assert_eq!(name("[::1]"), Ok("[::1]".into()));
        assert_eq!(name("a.b"), Ok("a.b".into()));
        for text in ["", "a:1,weight=2", "[a]", "[1.2.3.4]", "unix:/s", "::1%lo"] {
            assert_eq!(name(text), Err(Fault::Host), "{text}");
        }
        for text in ["a:1", "[::1]:80", "10.0.0.1:80"] {
            assert_eq!(name(text), Err(Fault::PortInHost), "{text}");
        }
        assert_eq!(name("http://a"), Err(Fault::SchemeInHost));
    }

    #[test]
    fn http2_without_tls_is_asked_for_by_its_scheme() {
        for (text, shown) in [
            ("h2c://a:1", "h2c://a:1"),
            ("H2C://a:1/,weight=2", "h2c://a:1,weight=2"),
            ("h2c://a:443", "h2c://a:443"),
            ("h2c://unix:/s", "h2c://unix:/s"),
        ] {
            let spec = backend(text).unwrap();
            assert_eq!((spec.h2c, spec.tls, spec.to_string().as_str()), (true, false, shown));
        }
        assert!(!backend("https://a:1").unwrap().h2c);
        assert_eq!(backend("h2c://a"), Err(Fault::NoPort));
    }

    #[test]
    fn tls_follows_from_the_scheme_or_else_from_the_port() {
        let read = |text: &str| backend(text).map(|spec| (spec.name.clone(), spec.tls, spec.to_string()));
        let tls = |name: &str, shown: &str| Ok((name.to_owned(), true, shown.to_owned()));
        assert_eq!(read("a:443"), tls("a:443", "a:443"));
        assert_eq!(read("https://a:1"), tls("a:1", "https://a:1"));
        assert_eq!(read("HTTPS://a/"), tls("a:443", "a:443"));
        assert_eq!(read("https://[::1]"), tls("[::1]:443", "[::1]:443"));
        assert_eq!(read("[::1]:443"), tls("[::1]:443", "[::1]:443"));
        assert_eq!(read("http://a:443").map(|(_, tls, _)| tls), Ok(false));
        assert_eq!(read("https://unix:/s").map(|(_, tls, _)| tls), Err(Fault::Malformed));
    }

    #[test]
    fn refuses_malformed_backends() {
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
            ("a b:80", Fault::Host),
            ("a..b:80", Fault::Host),
            ("-a:80", Fault::Host),
            ("256.0.0.1:80", Fault::Host),
            ("127.1:80", Fault::Host),
            ("a@b:80", Fault::UserInfo),
            ("http://user:pw@a:80", Fault::UserInfo),
            ("é:80", Fault::Host),
            ("a:0", Fault::Port),
            ("a:65536", Fault::Port),
            ("a:80x", Fault::Port),
            ("a:+80", Fault::Port),
            ("a:80/path", Fault::Path),
            ("http://h:1/api/", Fault::Path),
            ("https://h/api", Fault::Path),
            ("http://h:1?q", Fault::Path),
            ("ftp://a:80", Fault::Scheme),
            ("99999", Fault::Port),
            (":0", Fault::Port),
            (":", Fault::Host),
            ("unix:", Fault::UnixPath),
            ("unix:run/app.sock", Fault::UnixPath),
            ("a:80,", Fault::Attribute(None)),
            ("a:80,wieght=2", Fault::Attribute(Some("weight"))),
            ("a:80,Max=2", Fault::Attribute(Some("max"))),
            ("a:80,bakup", Fault::Attribute(Some("backup"))),
            ("a:80,colour=2", Fault::Attribute(None)),
            ("a:80,weight", Fault::NoValue),
            ("a:80,b:81", Fault::TwoBackends),
            ("a:80,weight=2,http://b:81", Fault::TwoBackends),
            ("a:80,unix:/s", Fault::TwoBackends),
            ("a:80,weight=-1", Fault::Weight),
            ("a:80,weight=65536", Fault::Weight),
            ("a:80,weight=", Fault::Weight),
            ("a:80,weight=1,weight=1", Fault::AttributeTwice),
            ("a:80,backup,backup", Fault::AttributeTwice),
            ("a:80,backup=1", Fault::BackupValue),
            ("a:80,max=1,max=2", Fault::AttributeTwice),
            ("a:80,max=0", Fault::Max),
            ("a:80,max=1000001", Fault::Max),
            ("a:80,max", Fault::NoValue),
            ("a:80,for", Fault::NoValue),
            ("a:80,fro=b", Fault::Attribute(Some("for"))),
            ("a:80,for=", Fault::RouteHost),
            ("a:80,for=/api", Fault::RouteHost),
            ("a:80,for=*.b", Fault::RouteHost),
            ("a:80,for=::1", Fault::RouteHost),
            ("a:80,for=[::1", Fault::RouteHost),
            ("a:80,for=http://b", Fault::RouteHost),
            ("a:80,for=b:80/x", Fault::PortInRoute),
            ("a:80,for=[::1]:80", Fault::PortInRoute),
            ("a:80,for=b/x?y", Fault::RoutePath),
            ("a:80,for=b/\u{e9}", Fault::RoutePath),
            ("a:80,for=b,for=B.", Fault::RouteTwice),
        ] {
            assert_eq!(backend(text), Err(fault), "{text:?}");
        }
        assert_eq!(backend(&format!("unix:/{}", "a".repeat(UNIX_PATH_BYTES))), Err(Fault::UnixPath));
        assert_eq!(backend(&format!("{}:80", "a".repeat(HOST_LABEL_BYTES + 1))), Err(Fault::Host));
        assert_eq!(backend(&format!("{}a:80", "a.".repeat(HOST_NAME_BYTES / 2 + 1))), Err(Fault::Host));
    }
}

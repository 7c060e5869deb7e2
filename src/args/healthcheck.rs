//! `load_balancer healthcheck [ADDR]` checks the health of a balancer, for container images without another
//! client.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Command, Error, value};
use crate::dns::hosts::Hosts;
use crate::limits::DEFAULT_PORT;

/// The name of the command.
pub(super) const NAME: &str = "healthcheck";

/// The target of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The address of the listener.
    pub address: SocketAddr,
    /// The path to request. `None`: an accepted connection suffices.
    pub path: Option<String>,
}

/// Parses the arguments after the command. Without arguments, the target is the readiness page of the
/// environment's admin port, or the main port if there is no admin port.
pub(super) fn parse(
    mut rest: impl Iterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
    hosts: &Hosts,
) -> Result<Command, Error> {
    let given =
        rest.next().map(|text| text.into_string().map_err(|text| Error::NotUtf8(text.to_string_lossy().into())));
    if let Some(extra) = rest.next() {
        return Err(Error::Positional(extra.to_string_lossy().into_owned()));
    }
    let variable = |name| env(name).and_then(|text| text.into_string().ok()).filter(|text| !text.is_empty());
    let found = match (given.transpose()?, variable("LB_ADMIN")) {
        (Some(text), _) => asked(&text, hosts).ok_or(Error::Healthcheck(text))?,
        (None, Some(text)) if value::admin(&text, hosts).is_ok_and(|admin| admin.is_some()) => {
            asked(&text, hosts).ok_or(Error::Healthcheck(text))?
        }
        (None, _) => {
            let port = variable("LB_PORT").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_PORT);
            let ip = variable("LB_HOST")
                .and_then(|text| value::host(&text, hosts).ok())
                .unwrap_or(Ipv4Addr::LOCALHOST.into());
            Healthcheck { address: SocketAddr::new(here(ip), port), path: None }
        }
    };
    Ok(Command::Healthcheck(found))
}

/// Parses `PORT` or `HOST:PORT`, either with an optional path.
fn asked(text: &str, hosts: &Hosts) -> Option<Healthcheck> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    let (place, path) = text.find('/').map_or((text, "/readyz"), |at| text.split_at(at));
    let address = value::admin(place, hosts).ok().flatten().filter(|address| address.port() != 0)?;
    Some(Healthcheck {
        address: SocketAddr::new(here(address.ip()), address.port()),
        path: Some(value::path(path).ok()?),
    })
}

/// The address under which a listener on `ip` is reached from this machine.
fn here(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rest: &[&str], variables: &[(&str, &str)]) -> Result<Healthcheck, Error> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        match parse(rest.iter().map(OsString::from), &env, &Hosts::parse(b"10.0.0.7 lb")) {
            Ok(Command::Healthcheck(found)) => Ok(found),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    }

    fn at(address: &str, path: Option<&str>) -> Result<Healthcheck, Error> {
        Ok(Healthcheck { address: address.parse().unwrap(), path: path.map(str::to_owned) })
    }

    #[test]
    fn an_address_is_given_or_the_environment_s() {
        assert_eq!(found(&[], &[]), at("127.0.0.1:8080", None));
        assert_eq!(found(&[], &[("LB_PORT", "81")]), at("127.0.0.1:81", None));
        assert_eq!(found(&[], &[("LB_PORT", "81"), ("LB_ADMIN", "off")]), at("127.0.0.1:81", None));
        assert_eq!(found(&[], &[("LB_PORT", "81"), ("LB_HOST", "10.0.0.1")]), at("10.0.0.1:81", None));
        assert_eq!(found(&[], &[("LB_HOST", "::")]), at("[::1]:8080", None));
        assert_eq!(found(&[], &[("LB_ADMIN", "0.0.0.0:9090")]), at("127.0.0.1:9090", Some("/readyz")));
        assert_eq!(found(&["9090"], &[("LB_ADMIN", "1")]), at("127.0.0.1:9090", Some("/readyz")));
        assert_eq!(found(&["[::]:9090/livez"], &[]), at("[::1]:9090", Some("/livez")));
        assert_eq!(found(&["localhost:80"], &[]), at("127.0.0.1:80", Some("/readyz")));
        assert_eq!(found(&["lb:80/up"], &[]), at("10.0.0.7:80", Some("/up")));
        assert_eq!(found(&[], &[("LB_HOST", "lb"), ("LB_PORT", "81")]), at("10.0.0.7:81", None));
        assert_eq!(found(&[], &[("LB_ADMIN", "localhost:9090")]), at("127.0.0.1:9090", Some("/readyz")));
        assert_eq!(found(&["http://10.0.0.1:80/up?x"], &[]), at("10.0.0.1:80", Some("/up?x")));
    }

    #[test]
    fn an_invalid_address_is_an_error() {
        for text in ["", "x", "lb-2:80", "0", "80/a b", "off", "127.0.0.1", "::1:80"] {
            assert_eq!(found(&[text], &[]), Err(Error::Healthcheck(text.into())), "{text}");
        }
        assert_eq!(found(&["80", "81"], &[]), Err(Error::Positional("81".into())));
    }
}

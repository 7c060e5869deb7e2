//! Parses a further listener: `ADDR[,tls][,proxy]`. The address is `PORT`, which is on the host of the main port, or
//! `HOST:PORT`.

use std::net::{IpAddr, SocketAddr};

use super::nearest::nearest;
use super::value::{self, Fault};
use crate::dns::hosts::Hosts;

/// The attributes.
const NAMES: [&str; 2] = ["tls", "proxy"];

/// A further listener, as it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The host; `None` for that of the main port.
    pub host: Option<IpAddr>,
    /// The port; 0 for any free port.
    pub port: u16,
    /// True if its connections use TLS.
    pub tls: bool,
    /// True if each of its connections begins with a PROXY header.
    pub proxy_header: bool,
}

impl Listener {
    /// Returns the address. `host` is that of the main port.
    pub fn address(&self, host: IpAddr) -> SocketAddr {
        SocketAddr::new(self.host.unwrap_or(host), self.port)
    }
}

/// Parses a further listener.
pub(super) fn listener(text: &str, hosts: &Hosts) -> Result<Listener, Fault> {
    let mut parts = text.split(',');
    let (host, port) = value::host_and_port(parts.next().unwrap_or_default(), hosts)?;
    let mut listener = Listener { host, port, tls: false, proxy_header: false };
    for name in parts {
        let attribute = match name {
            "tls" => &mut listener.tls,
            "proxy" => &mut listener.proxy_header,
            _ => return Err(Fault::Attribute(nearest(name, NAMES.into_iter()))),
        };
        if std::mem::replace(attribute, true) {
            return Err(Fault::AttributeTwice);
        }
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_an_address_and_attributes() {
        let read = |text| listener(text, &Hosts::default());
        let listener = |host: Option<&str>, port, tls, proxy_header| {
            Ok(Listener { host: host.map(|host| host.parse().unwrap()), port, tls, proxy_header })
        };
        assert_eq!(read("8443"), listener(None, 8443, false, false));
        assert_eq!(read("8443,tls"), listener(None, 8443, true, false));
        assert_eq!(read("127.0.0.1:0,proxy,tls"), listener(Some("127.0.0.1"), 0, true, true));
        assert_eq!(read("[::]:81,proxy"), listener(Some("::"), 81, false, true));
        for (text, fault) in [
            ("", Fault::Malformed),
            (",tls", Fault::Malformed),
            ("127.0.0.1", Fault::Malformed),
            ("::1:80", Fault::Brackets),
            ("80,tls,tls", Fault::AttributeTwice),
            ("80,", Fault::Attribute(None)),
            ("80,tsl", Fault::Attribute(Some("tls"))),
            ("80, tls", Fault::Attribute(Some("tls"))),
            ("65536", Fault::OutOfRange),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
    }
}

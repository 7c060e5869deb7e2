//! Listeners that a service manager has made and passes on (sd_listen_fds(3)). LISTEN_FDS is their number: they are the
//! descriptors from 3 on. LISTEN_PID is the process that they are for. LISTEN_FDNAMES has a name for each, separated by
//! colons. A name that consists of `tls`, `proxy` and `admin`, joined by `-`, says what the connections carry.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::args::Shown;
use crate::config::{Listen, Purpose};
use crate::limits::ACTIVATED_LISTENERS;
use crate::process::exit::{Failure, USAGE};
use crate::process::start::listen::{Listener, Sockets};
use crate::sys::{exec, fork, listen};

/// The first descriptor that is passed on.
const FIRST: RawFd = 3;

/// The listeners that were passed on to this process, for `count` workers. None without a service manager.
pub(in crate::process) fn take(count: u32) -> Result<Vec<Listener>, Failure> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let passed = passed(&variable("LISTEN_FDS"), &variable("LISTEN_PID"), fork::current().number());
    let passed = passed.map_err(|problem| Failure::new(USAGE, problem))?;
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let mut take = |fd| {
        let carried = carried(names.next().unwrap_or_default()).map_err(|problem| Failure::new(USAGE, problem))?;
        let refused = |error| Failure::new(USAGE, format!("LISTEN_FDS: descriptor {fd}: {error}"));
        exec::take_inherited(fd).and_then(|socket| adopt(socket, carried, count)).map_err(refused)
    };
    (FIRST..FIRST + passed).map(&mut take).collect()
}

/// The use of a listener of a service manager, which knows its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) struct Carried {
    pub(in crate::process) purpose: Purpose,
    pub(in crate::process) tls: bool,
    pub(in crate::process) proxy_header: bool,
}

/// A listener of a service manager. Its one socket is copied for each of `count` workers. All workers share the admin
/// port.
pub(in crate::process) fn adopt(socket: OwnedFd, carried: Carried, count: u32) -> io::Result<Listener> {
    let Carried { purpose, tls, proxy_header } = carried;
    let (socket, address) = listen::adopt(socket)?;
    let sockets = if purpose == Purpose::Admin {
        Sockets::One(socket)
    } else {
        let copies: io::Result<Vec<OwnedFd>> = (1..count).map(|_| socket.try_clone()).collect();
        Sockets::Each(copies?.into_iter().chain([socket]).map(|socket| vec![socket]).collect())
    };
    Ok(Listener { listen: Listen { address, purpose, tls, proxy_header }, is_activated: true, sockets })
}

/// Returns the use that the name of a descriptor says. A name with another word says nothing: systemd gives the name of
/// the unit by default, which may be `reverse-proxy.socket`.
///
/// # Errors
/// The admin port has neither TLS nor PROXY headers.
fn carried(name: &str) -> Result<Carried, String> {
    let plain = Carried { purpose: Purpose::Traffic, tls: false, proxy_header: false };
    let mut carried = plain;
    for word in name.split('-') {
        match word {
            "tls" => carried.tls = true,
            "proxy" => carried.proxy_header = true,
            "admin" => carried.purpose = Purpose::Admin,
            _ => return Ok(plain),
        }
    }
    if carried.purpose == Purpose::Admin && (carried.tls || carried.proxy_header) {
        let accepted =
            "the admin port has neither TLS nor PROXY headers; accepted: admin alone, tls, proxy, or tls-proxy";
        return Err(format!("LISTEN_FDNAMES '{}': {accepted}", Shown(name)));
    }
    Ok(carried)
}

/// Returns how many descriptors were passed on to the process `own`.
///
/// # Errors
/// The number of descriptors is malformed or too large.
pub fn passed(fds: &str, pid: &str, own: i32) -> Result<RawFd, String> {
    if fds.is_empty() || pid.parse() != Ok(own) {
        return Ok(0);
    }
    fds.parse().ok().filter(|passed| (0..=ACTIVATED_LISTENERS).contains(passed)).ok_or_else(|| {
        format!("LISTEN_FDS '{}': malformed; accepted: a number from 0 to {ACTIVATED_LISTENERS}", Shown(fds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_known_words_says_the_use_of_a_listener() {
        let (traffic, admin) = (Purpose::Traffic, Purpose::Admin);
        let carried = |name| carried(name).map(|carried| (carried.purpose, carried.tls, carried.proxy_header));
        for (name, expected) in [
            ("tls", (traffic, true, false)),
            ("proxy", (traffic, false, true)),
            ("tls-proxy", (traffic, true, true)),
            ("proxy-tls", (traffic, true, true)),
            ("admin", (admin, false, false)),
            ("", (traffic, false, false)),
            ("lb.socket", (traffic, false, false)),
            ("reverse-proxy", (traffic, false, false)),
            ("TLS", (traffic, false, false)),
        ] {
            assert_eq!(carried(name), Ok(expected), "{name}");
        }
        for name in ["admin-tls", "proxy-admin"] {
            assert!(carried(name).unwrap_err().starts_with(&format!("LISTEN_FDNAMES '{name}'")));
        }
    }

    #[test]
    fn descriptors_for_another_process_are_not_taken() {
        assert_eq!(passed("2", "7", 7), Ok(2));
        assert_eq!(passed("2", "8", 7), Ok(0));
        assert_eq!(passed("2", "", 7), Ok(0));
        assert_eq!(passed("", "7", 7), Ok(0));
        for fds in ["x", "-1", "65", "99999999999"] {
            assert!(passed(fds, "7", 7).unwrap_err().starts_with("LISTEN_FDS '"), "{fds}");
        }
    }
}

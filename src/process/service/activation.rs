//! Listeners that a service manager has made and passes on (sd_listen_fds(3)). LISTEN_FDS is their number: they are the
//! descriptors from 3 on. LISTEN_PID is the process that they are for.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::config::{Listen, Purpose};
use crate::limits::ACTIVATED_LISTENERS;
use crate::process::exit::{Failure, USAGE};
use crate::process::start::listen::{Listener, Sockets};
use crate::sys::{exec, fork, listen};

/// The first descriptor that is passed on.
const FIRST: RawFd = 3;

/// The listeners that were passed on to this process, each with a socket for each of `count` workers. None without a
/// service manager.
pub(in crate::process) fn take(count: u32) -> Result<Vec<Listener>, Failure> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let passed = passed(&variable("LISTEN_FDS"), &variable("LISTEN_PID"), fork::current().number());
    let passed = passed.map_err(|problem| Failure::new(USAGE, problem))?;
    let take = |fd| {
        let refused = |error| Failure::new(USAGE, format!("LISTEN_FDS: descriptor {fd}: {error}"));
        exec::take_inherited(fd).and_then(|socket| adopt(socket, count)).map_err(refused)
    };
    (FIRST..FIRST + passed).map(take).collect()
}

/// A listener of a service manager. Its one socket is copied for each of `count` workers.
pub(in crate::process) fn adopt(socket: OwnedFd, count: u32) -> io::Result<Listener> {
    let (socket, address) = listen::adopt(socket)?;
    let copies: io::Result<Vec<OwnedFd>> = (1..count).map(|_| socket.try_clone()).collect();
    let shares = copies?.into_iter().chain([socket]).map(|socket| vec![socket]).collect();
    let listen = Listen { address, purpose: Purpose::Traffic };
    Ok(Listener { listen, is_activated: true, sockets: Sockets::Each(shares) })
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
        format!(
            "LISTEN_FDS '{}': malformed; accepted: a number from 0 to {ACTIVATED_LISTENERS}",
            crate::args::Shown(fds)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

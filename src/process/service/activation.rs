//! Listeners that a service manager has made, and passes on (sd_listen_fds(3)): LISTEN_FDS says how
//! many, from descriptor 3 on, and LISTEN_PID for whom.

use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use crate::limits::ACTIVATED_LISTENERS;
use crate::process::{Failure, USAGE};
use crate::sys::{exec, fork, listen};

/// The first descriptor that is passed on.
const FIRST: RawFd = 3;

/// Each worker's listeners, and where the first of them is.
type Passed = (Vec<Vec<OwnedFd>>, SocketAddr);

/// Those that were passed on to this process, for each of `count` workers all of them, and where the
/// first of them is. `None` where there are none.
pub(in crate::process) fn take(count: u32) -> Result<Option<Passed>, Failure> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let passed = match passed(&variable("LISTEN_FDS"), &variable("LISTEN_PID"), fork::current().number()) {
        Ok(passed) => passed,
        Err(problem) => return Err(Failure::new(USAGE, problem)),
    };
    let mut address = None;
    let mut all: Vec<Vec<OwnedFd>> = (0..count).map(|_| Vec::new()).collect();
    for fd in FIRST..FIRST + passed {
        let refused = |error| Failure::new(USAGE, format!("LISTEN_FDS: descriptor {fd}: {error}"));
        let (listener, at) = exec::take_inherited(fd).and_then(listen::adopt).map_err(refused)?;
        address = address.or(Some(at));
        for share in all.iter_mut().skip(1) {
            share.push(listener.try_clone().map_err(refused)?);
        }
        all[0].push(listener);
    }
    Ok(address.map(|address| (all, address)))
}

/// How many were passed on to the process of this number.
///
/// # Errors
/// A number that makes no sense, in words.
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
    fn what_was_meant_for_another_is_not_taken() {
        assert_eq!(passed("2", "7", 7), Ok(2));
        assert_eq!(passed("2", "8", 7), Ok(0));
        assert_eq!(passed("2", "", 7), Ok(0));
        assert_eq!(passed("", "7", 7), Ok(0));
        for fds in ["x", "-1", "65", "99999999999"] {
            assert!(passed(fds, "7", 7).unwrap_err().starts_with("LISTEN_FDS '"), "{fds}");
        }
    }
}

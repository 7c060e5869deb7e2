//! What a start begins with: what the program before has left, where this is an upgrade, and nothing
//! otherwise.

use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use super::handover::{Elder, Handover, VARIABLE};
use super::upgrade::is_same_place;
use super::{Failure, Journal, activation, listen, share_memory};
use crate::limits::GENERATIONS;
use crate::limits::SEATS_LEAST;
use crate::log::Level;
use crate::shared::Region;
use crate::sys::exec;
use crate::sys::fork;
use crate::sys::shm::Segment;

/// What is listened on.
pub(super) struct Listeners {
    /// For each worker: one, or more where there were more workers before. All at one address.
    pub(super) of_workers: Vec<Vec<OwnedFd>>,
    /// Where they are.
    pub(super) address: SocketAddr,
    /// One for all of them, where an admin port is wanted, and where that is.
    pub(super) admin: Option<(OwnedFd, SocketAddr)>,
    /// A service manager made them.
    pub(super) activated: bool,
}

/// The shared memory, and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) region: Region,
    pub(super) segment: i32,
}

/// What was left; nothing where this is no upgrade.
#[derive(Default)]
pub(super) struct Inherited {
    left: Option<Handover>,
}

impl Inherited {
    /// What the environment tells of. A line that was meant for another process is ignored.
    pub(super) fn find() -> Inherited {
        let line = std::env::var(VARIABLE).unwrap_or_default();
        let pid = fork::current().number();
        let left = Handover::parse(&line).filter(|left| i32::try_from(left.pid) == Ok(pid));
        Inherited { left }
    }

    /// How many upgrades there have been.
    pub(super) fn generation(&self) -> u64 {
        self.left.as_ref().map_or(0, |left| left.generation)
    }

    /// Whether this is an upgrade.
    pub(super) fn is_upgrade(&self) -> bool {
        self.left.is_some()
    }

    /// Whether another was asked for meanwhile.
    pub(super) fn is_wanted_again(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.again)
    }

    /// The demo's backends, which go on.
    pub(super) fn demo(&self) -> &[SocketAddr] {
        self.left.as_ref().map_or(&[], |left| &left.demo)
    }

    /// Workers that live on.
    pub(super) fn elders(&self) -> Vec<Elder> {
        self.left.as_ref().map(|left| left.elders.clone()).unwrap_or_default()
    }

    /// The listeners for `count` workers, those that were left first of all.
    pub(super) fn listeners(
        &self,
        journal: &mut Journal,
        wanted: SocketAddr,
        admin: Option<SocketAddr>,
        count: u32,
    ) -> Result<Listeners, Failure> {
        let Some(left) = &self.left else {
            if let Some((of_workers, address)) = activation::take(count)? {
                let admin = admin.map(open_one).transpose()?;
                return Ok(Listeners { of_workers, address, admin, activated: true });
            }
            let (listeners, address) = listen::open(wanted, count)?;
            let of_workers = listeners.into_iter().map(|one| vec![one]).collect();
            let admin = admin.map(open_one).transpose()?;
            return Ok(Listeners { of_workers, address, admin, activated: false });
        };
        let take_all = |journal: &mut Journal, fds: &Vec<RawFd>| -> Vec<OwnedFd> {
            fds.iter().filter_map(|&fd| take(journal, fd)).collect()
        };
        let held: Vec<Vec<OwnedFd>> = left.listeners.iter().map(|fds| take_all(journal, fds)).collect();
        let (listeners, address) = match left.activated || is_same_place(left.address, wanted) {
            true => (held, left.address),
            false => match listen::open(wanted, count) {
                // The old ones are closed by the workers that have them, once nobody waits there.
                Ok((opened, address)) => (opened.into_iter().map(|one| vec![one]).collect(), address),
                Err(failure) => {
                    let text = format_args!("{}: {} is listened on as before", failure.message, left.address);
                    journal.line(Level::Err, "upgrade", text);
                    (held, left.address)
                }
            },
        };
        let held_admin = left.admin.and_then(|(fd, address)| Some((take(journal, fd)?, address)));
        let admin = match (admin, held_admin) {
            (None, _) => None,
            (Some(wanted), Some((fd, address))) if is_same_place(address, wanted) => Some((fd, address)),
            (Some(wanted), held) => open_one(wanted).map(Some).unwrap_or_else(|failure| {
                journal.line(Level::Err, "upgrade", format_args!("{}", failure.message));
                held
            }),
        };
        let of_workers = share_out(journal, listeners, address, count as usize)?;
        Ok(Listeners { of_workers, address, admin, activated: left.activated })
    }

    /// The shared memory: what was left, where this program lays it out alike and it has seats for
    /// `count` workers more.
    pub(super) fn memory(&mut self, journal: &mut Journal, count: u32) -> Result<Memory, Failure> {
        if let Some(left) = &mut self.left {
            let attached = Segment::attach(left.segment).ok();
            let region = attached.and_then(|segment| Region::adopt(segment.cells()));
            let taken = left.elders.iter().filter(|elder| elder.seat.is_some()).count();
            if let Some(region) = region.filter(|region| taken + count as usize <= region.seats()) {
                left.elders.retain(|elder| elder.seat.is_none_or(|seat| seat < region.seats()));
                return Ok(Memory { region, segment: left.segment });
            }
            let text = format_args!("the memory that workers share cannot be taken over: counts and health begin anew");
            journal.line(Level::Warn, "upgrade", text);
            left.elders.iter_mut().for_each(|elder| elder.seat = None);
        }
        let seats = (count as usize * (GENERATIONS + 2)).max(SEATS_LEAST);
        share_memory(seats)
    }
}

/// Seats for `count` workers that no elder has, the lowest.
pub(super) fn free_seats(region: Region, elders: &[Elder], count: usize) -> Vec<usize> {
    let taken = |seat: usize| elders.iter().any(|elder| elder.seat == Some(seat));
    let seats: Vec<usize> = (0..region.seats()).filter(|&seat| !taken(seat)).take(count).collect();
    for &seat in &seats {
        region.settle(seat);
        region.used().fetch_max(seat as u64 + 1, std::sync::atomic::Ordering::Relaxed);
    }
    seats
}

fn open_one(address: SocketAddr) -> Result<(OwnedFd, SocketAddr), Failure> {
    let (sockets, address) = listen::open(address, 1)?;
    let socket = sockets.into_iter().next();
    socket.map(|socket| (socket, address)).ok_or_else(|| Failure::new(super::FAILED, "no listener".to_owned()))
}

fn take(journal: &mut Journal, fd: RawFd) -> Option<OwnedFd> {
    let taken = exec::take_left_open(fd);
    if let Err(error) = &taken {
        journal.line(Level::Err, "upgrade", format_args!("listener {fd} was not left open: {error}"));
    }
    taken.ok()
}

/// Each worker's listeners: one, a new one where there are too few, and more where there are more. None
/// is closed, as somebody may wait there.
fn share_out(
    journal: &mut Journal,
    listeners: Vec<Vec<OwnedFd>>,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<Vec<OwnedFd>>, Failure> {
    if listeners.len() == count && listeners.iter().all(|share| !share.is_empty()) {
        return Ok(listeners);
    }
    let listeners: Vec<OwnedFd> = listeners.into_iter().flatten().collect();
    let mut shares: Vec<Vec<OwnedFd>> = (0..count).map(|_| Vec::new()).collect();
    let held = listeners.len();
    for (at, listener) in listeners.into_iter().enumerate() {
        shares[at % count].push(listener);
    }
    for at in held..count {
        let joined = match shares[0].first() {
            Some(first) => listen::join(first, address).map(Some),
            None => listen::open(address, 1).map(|(sockets, _)| sockets.into_iter().next()),
        };
        match joined {
            Ok(joined) => shares[at].extend(joined),
            Err(failure) if held > 0 => {
                // It takes turns with the first.
                journal.line(Level::Warn, "upgrade", format_args!("{}", failure.message));
                let first = shares[0].first().map(OwnedFd::try_clone);
                let first = first.transpose().map_err(Failure::of(format_args!("listen on {address}")))?;
                shares[at].extend(first);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(shares)
}

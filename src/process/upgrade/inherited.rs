//! What a start begins with: what the program before has left, where this is an upgrade, and nothing
//! otherwise.

use std::iter;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::Plan;
use crate::limits::{GENERATIONS, WORKER_RECORDS_MIN};
use crate::log::Level;
use crate::process::duties::PreviousAddresses;
use crate::process::service::activation;
use crate::process::start::listen;
use crate::process::upgrade::handover::{Handover, OldWorker, VARIABLE};
use crate::process::upgrade::is_same_place;
use crate::process::upgrade::old_memory::OldMemory;
use crate::process::{FAILED, Failure, Journal, share_memory};
use crate::shared::{Region, plan_in};
use crate::sys::exec;
use crate::sys::fork;
use crate::sys::listen::defer_accept;
use crate::sys::shm::{Attached, Segment};

/// What is listened on.
pub(in crate::process) struct Listeners {
    /// For each worker: one, or more where there were more workers before. All at one address.
    pub(in crate::process) of_workers: Vec<Vec<OwnedFd>>,
    /// Where they are.
    pub(in crate::process) address: SocketAddr,
    /// One for all of them, where an admin port is wanted, and where that is.
    pub(in crate::process) admin: Option<(OwnedFd, SocketAddr)>,
    /// A service manager made them.
    pub(in crate::process) activated: bool,
}

/// The shared memory, and its number.
#[derive(Clone, Copy, Debug)]
pub(in crate::process) struct Memory {
    pub(in crate::process) region: Region,
    pub(in crate::process) segment: i32,
}

/// The shared memory that a start goes on with.
pub(in crate::process) struct Taken {
    pub(in crate::process) memory: Memory,
    /// The workers that live on, as they are to that memory.
    pub(in crate::process) old_workers: Vec<OldWorker>,
    /// The memory that some of them use.
    pub(in crate::process) old: OldMemory,
    /// Whose the slots were, if that is known and does not stand in the memory.
    pub(in crate::process) previous: PreviousAddresses,
}

/// What was left; nothing where this is no upgrade. Whoever holds it holds the listeners that were left
/// open as they were, so that the upgrade can be given up until the new workers accept.
#[derive(Default)]
pub(in crate::process) struct Inherited {
    left: Option<Left>,
}

/// What was left, with its descriptors.
pub(in crate::process) struct Left {
    pub(in crate::process) handover: Handover,
    pub(in crate::process) listeners: Vec<Vec<OwnedFd>>,
    pub(in crate::process) admin: Option<(OwnedFd, SocketAddr)>,
}

impl Inherited {
    /// What the environment tells of. A line that was meant for another process is ignored. To be called
    /// once.
    pub(in crate::process) fn find(journal: &mut Journal) -> Inherited {
        let line = std::env::var(VARIABLE).unwrap_or_default();
        let pid = fork::current().number();
        let handover = Handover::parse(&line).filter(|left| i32::try_from(left.pid) == Ok(pid));
        let left = handover.map(|handover| {
            let all = |fds: &Vec<RawFd>| fds.iter().filter_map(|&fd| take(journal, fd)).collect();
            let listeners = handover.listeners.iter().map(all).collect();
            let admin = handover.admin.and_then(|(fd, address)| Some((take(journal, fd)?, address)));
            Left { handover, listeners, admin }
        });
        Inherited { left }
    }

    /// What was left, where this is an upgrade.
    pub(in crate::process) fn into_left(self) -> Option<Left> {
        self.left
    }

    fn handover(&self) -> Option<&Handover> {
        self.left.as_ref().map(|left| &left.handover)
    }

    /// How many upgrades there have been.
    pub(in crate::process) fn generation(&self) -> u64 {
        self.handover().map_or(0, |left| left.generation)
    }

    /// Whether this is an upgrade.
    pub(in crate::process) fn is_upgrade(&self) -> bool {
        self.left.is_some()
    }

    /// Whether another was asked for meanwhile.
    pub(in crate::process) fn is_wanted_again(&self) -> bool {
        self.handover().is_some_and(|left| left.again)
    }

    /// The demo's backends, which go on.
    pub(in crate::process) fn demo(&self) -> &[SocketAddr] {
        self.handover().map_or(&[], |left| &left.demo)
    }

    /// The listeners for `count` workers, those that were left first of all.
    pub(in crate::process) fn listeners(
        &self,
        journal: &mut Journal,
        wanted: SocketAddr,
        admin: Option<SocketAddr>,
        count: u32,
    ) -> Result<Listeners, Failure> {
        let Some(left) = &self.left else {
            if let Some((of_workers, address)) = activation::take(count)? {
                let admin = admin.map(|address| open_one(address, None)).transpose()?;
                return Ok(Listeners { of_workers, address, admin, activated: true });
            }
            let (listeners, address) = listen::open(wanted, count)?;
            let of_workers = listeners.into_iter().map(|one| vec![one]).collect();
            let admin = admin.map(|address| open_one(address, None)).transpose()?;
            return Ok(Listeners { of_workers, address, admin, activated: false });
        };
        let Handover { address: held_at, activated, .. } = left.handover;
        let (listeners, address) = match activated || is_same_place(held_at, wanted) {
            true => (copies(&left.listeners)?, held_at),
            false => match listen::open_beside(left.listeners.iter().flatten(), held_at, wanted, count) {
                Ok((opened, address)) => {
                    // The workers that have the old ones see it, and close them once nobody waits there.
                    for listener in left.listeners.iter().flatten() {
                        let _ = defer_accept(listener.as_fd(), false);
                    }
                    (opened.into_iter().map(|one| vec![one]).collect(), address)
                }
                Err(failure) => {
                    let text = format_args!("{}: {held_at} is listened on as before", failure.message);
                    journal.line(Level::Err, "upgrade", text);
                    (copies(&left.listeners)?, held_at)
                }
            },
        };
        let held_admin = || {
            let copied = left.admin.as_ref().map(|(fd, address)| fd.try_clone().map(|fd| (fd, *address)));
            copied.transpose().map_err(Failure::of("keep the admin's listener"))
        };
        let admin = match admin {
            None => None,
            Some(wanted) if left.admin.as_ref().is_some_and(|(_, held)| is_same_place(*held, wanted)) => held_admin()?,
            Some(wanted) => match open_one(wanted, left.admin.as_ref()) {
                Ok(opened) => Some(opened),
                Err(failure) => {
                    journal.line(Level::Err, "upgrade", format_args!("{}", failure.message));
                    held_admin()?
                }
            },
        };
        // A manager's are all there are, and every worker has all of them.
        let of_workers = match (activated, listeners.first()) {
            (true, Some(all)) if !all.is_empty() => copies(&vec![all; count as usize])?,
            _ => share_out(journal, listeners, address, count as usize)?,
        };
        Ok(Listeners { of_workers, address, admin, activated })
    }

    /// The shared memory: what was left, where this program lays it out alike and it has worker records for
    /// `count` workers more, or else another.
    pub(in crate::process) fn memory(&self, journal: &mut Journal, count: u32) -> Result<Taken, Failure> {
        let records = records(count);
        let Some(left) = self.handover() else {
            let memory = share_memory(records)?;
            return Ok(Taken {
                memory,
                old_workers: Vec::new(),
                old: OldMemory::default(),
                previous: PreviousAddresses::default(),
            });
        };
        let mut old_workers = left.old_workers.clone();
        if let Some(memory) = left_memory(left, count) {
            let old = OldMemory::find(&left.older, memory.region);
            let has_record = |old_worker: &OldWorker| {
                old_worker.memory.is_some() || old_worker.record.is_none_or(|record| record < memory.region.records())
            };
            old_workers.retain(has_record);
            return Ok(Taken { memory, old_workers, old, previous: PreviousAddresses::default() });
        }
        let memory = share_memory(records)?;
        let older: Vec<i32> = left.older.iter().copied().chain([left.segment]).collect();
        let old = OldMemory::find(&older, memory.region);
        for old_worker in old_workers.iter_mut().filter(|old_worker| old_worker.memory.is_none()) {
            old_worker.memory = old_worker.record.map(|_| left.segment);
        }
        let is_found = old.ids().last() == Some(&left.segment);
        let previous =
            is_found.then(|| old.plan()).flatten().and_then(|plan| Plan::owners_in(&plan)).unwrap_or_default();
        if is_found {
            old.begin();
            old.copy(&old_workers);
            let text = "the memory that workers share has another layout: counts and health are copied; until the workers of before have ended, limits of requests (max=N) hold apart for them";
            journal.line(Level::Info, "upgrade", format_args!("{text}"));
        } else {
            let text = "the memory that workers share cannot be read: counts and health start from zero";
            journal.line(Level::Warn, "upgrade", format_args!("{text}"));
        }
        Ok(Taken { memory, old_workers, old, previous })
    }
}

/// How many worker records there are for `count` workers, those of before upgrades, and more.
pub(in crate::process) fn records(count: u32) -> usize {
    (count as usize * (GENERATIONS + 2)).max(WORKER_RECORDS_MIN)
}

/// The shared memory that was left, where this program lays it out alike and it has worker records for `count`
/// workers more.
pub(in crate::process) fn left_memory(left: &Handover, count: u32) -> Option<Memory> {
    let taken =
        left.old_workers.iter().filter(|old_worker| old_worker.record.is_some() && old_worker.memory.is_none()).count();
    let has_room = |records: usize| taken + count as usize <= records;
    let is_right = |cells: &[AtomicU64]| Region::records_in(cells).is_some_and(has_room) && has_own_form(cells);
    let segment = Segment::attach(left.segment, is_right).ok()?;
    Some(Memory { region: Region::adopt(segment.cells())?, segment: left.segment })
}

/// Whether the plan there, if there is one, is of the form that this program writes: workers of both follow it.
fn has_own_form(cells: &[AtomicU64]) -> bool {
    plan_in(cells).is_none_or(|plan| Plan::is_of_own_form(&plan))
}

/// Whose the slots were that were left, if this program can read it.
pub(in crate::process) fn left_owners(left: &Handover) -> Option<PreviousAddresses> {
    let memory = Attached::new(left.segment).ok()?;
    Plan::owners_in(&plan_in(memory.cells())?)
}

/// Descriptors of the same listeners.
fn copies(listeners: &[impl AsRef<[OwnedFd]>]) -> Result<Vec<Vec<OwnedFd>>, Failure> {
    let copy = |share: &_| AsRef::<[OwnedFd]>::as_ref(share).iter().map(OwnedFd::try_clone).collect();
    let copied: std::io::Result<_> = listeners.iter().map(copy).collect();
    copied.map_err(Failure::of("keep the listeners"))
}

/// WorkerRecords for `count` workers that no old worker has, the lowest.
pub(in crate::process) fn free_records(region: Region, old_workers: &[OldWorker], count: usize) -> Vec<usize> {
    let taken = |record: usize| {
        old_workers.iter().any(|old_worker| old_worker.record == Some(record) && old_worker.memory.is_none())
    };
    let records: Vec<usize> = (0..region.records()).filter(|&record| !taken(record)).take(count).collect();
    for &record in &records {
        region.reclaim(record);
        region.used().fetch_max(record as u64 + 1, Relaxed);
    }
    records
}

/// One listener, beside one that is held.
fn open_one(address: SocketAddr, held: Option<&(OwnedFd, SocketAddr)>) -> Result<(OwnedFd, SocketAddr), Failure> {
    let (sockets, address) = match held {
        Some((held, held_at)) => listen::open_beside(iter::once(held), *held_at, address, 1)?,
        None => listen::open(address, 1)?,
    };
    let socket = sockets.into_iter().next();
    socket.map(|socket| (socket, address)).ok_or_else(|| Failure::new(FAILED, "no listener".to_owned()))
}

fn take(journal: &mut Journal, fd: RawFd) -> Option<OwnedFd> {
    let taken = exec::take_inherited(fd);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::cells::State;
    use crate::metrics::Count;

    #[test]
    fn counts_and_owners_are_known_though_there_are_too_few_records() {
        let memory = share_memory(2).map_err(|failure| failure.message).unwrap();
        let plan = Plan::over([SocketAddr::from(([10, 0, 0, 1], 80))]);
        assert!(memory.region.table().publish(&plan.encode()));
        memory.region.used().store(1, Relaxed);
        memory.region.slots().store(1, Relaxed);
        memory.region.block(0).add(Count::Clients, 3);
        memory.region.balance().clear(0, State::Down, 7);
        let records = memory.region.records();
        let handover = Handover {
            old_workers: vec![OldWorker { pid: 1, record: Some(0), memory: None, generation: 0, until_us: None }],
            ..Handover::of(memory.segment)
        };
        let inherited = Inherited { left: Some(Left { handover, listeners: Vec::new(), admin: None }) };
        let mut journal = Journal::new(Level::Err);
        let mut taken = |count: usize| {
            let taken = inherited.memory(&mut journal, count as u32);
            taken.map_err(|failure| failure.message).unwrap()
        };
        let same = taken(records - 1);
        assert_eq!(
            (same.memory.segment, same.previous, same.old.ids()),
            (memory.segment, PreviousAddresses::default(), vec![])
        );
        let other = taken(records);
        assert_ne!(other.memory.segment, memory.segment);
        let region = other.memory.region;
        let names = |previous: PreviousAddresses| previous.0.into_iter().map(|member| member.name).collect::<Vec<_>>();
        assert_eq!((region.table().edition(), names(other.previous)), (0, vec!["10.0.0.1:80".to_owned()]));
        assert_eq!(other.old.ids(), [memory.segment]);
        assert_eq!(other.old_workers[0].memory, Some(memory.segment));
        assert_eq!(region.blocks().iter().map(|block| block.get(Count::Clients)).sum::<u64>(), 3);
        assert_eq!(region.balance().state(0), State::Down);
        assert_eq!(free_records(region, &other.old_workers, 1), [0], "the old_worker's record is in the other memory");
        // A plan of another form is not followed by workers of this program.
        let mut bytes = plan.encode();
        bytes[0] ^= 1;
        assert!(memory.region.table().publish(&bytes));
        let apart = taken(records - 1);
        assert_ne!(apart.memory.segment, memory.segment);
        assert_eq!(names(apart.previous).len(), 1);
    }
}

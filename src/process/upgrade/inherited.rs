//! The state that a start inherits from the previous program in an upgrade; empty otherwise.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::{Gone, Listen, Member, Plan, Purpose, https_port};
use crate::limits::{GENERATIONS, SECRETS_BYTES, WORKER_RECORDS_MIN};
use crate::log::Level;
use crate::process::duties::Previous;
use crate::process::exit::Failure;
use crate::process::journal::Journal;
use crate::process::service::activation::{self, Carried};
use crate::process::start::listen::{self, Listener, Sockets};
use crate::process::start::memory::Memory;
use crate::process::start::memory::share_memory;
use crate::process::upgrade::handover::{Handover, OldWorker, VARIABLE};
use crate::process::upgrade::old_memory::OldMemory;
use crate::shared::{Region, plan_in, secrets_in};
use crate::sys::exec;
use crate::sys::fork;
use crate::sys::listen::defer_accept;
use crate::sys::shm::{Attached, Segment};

/// The shared memory that a start continues with.
pub(in crate::process) struct Taken {
    pub(in crate::process) memory: Memory,
    /// The living old workers, in relation to that memory.
    pub(in crate::process) old_workers: Vec<OldWorker>,
    /// The memory that some of them use.
    pub(in crate::process) old: OldMemory,
    /// The owners of the slots and the secrets, if they are known and the memory does not have them.
    pub(in crate::process) previous: Previous,
}

/// The inheritance of an upgrade; empty in a fresh start. It keeps all listeners of the program before open, so that the
/// upgrade can be given up until the new workers accept.
#[derive(Default)]
pub(in crate::process) struct Inherited {
    left: Option<Left>,
}

/// A handover with its descriptors.
pub(in crate::process) struct Left {
    pub(in crate::process) handover: Handover,
    pub(in crate::process) listeners: Vec<Listener>,
}

impl Inherited {
    /// Finds the handover in the environment. A handover to another process is ignored. To be called once.
    pub(in crate::process) fn find(journal: &mut Journal) -> Inherited {
        let line = std::env::var(VARIABLE).unwrap_or_default();
        let pid = fork::current().number();
        let handover = Handover::parse(&line).filter(|left| i32::try_from(left.pid) == Ok(pid));
        let left = handover.map(|handover| {
            let listeners = handover.listeners.iter().filter_map(|listener| take(journal, listener)).collect();
            Left { handover, listeners }
        });
        Inherited { left }
    }

    /// Returns the inheritance of an upgrade.
    pub(in crate::process) fn into_left(self) -> Option<Left> {
        self.left
    }

    fn handover(&self) -> Option<&Handover> {
        self.left.as_ref().map(|left| &left.handover)
    }

    /// The number of upgrades.
    pub(in crate::process) fn generation(&self) -> u64 {
        self.handover().map_or(0, |left| left.generation)
    }

    /// True if this is an upgrade.
    pub(in crate::process) fn is_upgrade(&self) -> bool {
        self.left.is_some()
    }

    /// True if another upgrade was asked for meanwhile.
    pub(in crate::process) fn is_wanted_again(&self) -> bool {
        self.handover().is_some_and(|left| left.again)
    }

    /// The demo's backends, which continue.
    pub(in crate::process) fn demo(&self) -> &[SocketAddr] {
        self.handover().map_or(&[], |left| &left.demo)
    }

    /// Returns the listeners at the wanted addresses for `count` workers. Listeners of the program before are kept.
    /// If a service manager gave listeners, these are the only ones of their purpose.
    pub(in crate::process) fn listeners(
        &self,
        journal: &mut Journal,
        wanted: &[Listen],
        count: u32,
    ) -> Result<Vec<Listener>, Failure> {
        let mut listeners = match &self.left {
            Some(left) => left.activated(count)?,
            None => activation::take(count)?,
        };
        let activated: Vec<Purpose> = listeners.iter().map(|listener| listener.listen.purpose).collect();
        for listen in wanted.iter().filter(|listen| !activated.contains(&listen.purpose)) {
            let found = match &self.left {
                Some(left) => left.keep_or_open(journal, *listen, wanted, &listeners, count)?,
                None => Some(listen::open(*listen, count)?),
            };
            listeners.extend(found);
        }
        if let Some(left) = &self.left {
            left.give_up_others(&listeners);
        }
        // The ports are known now, even if the system has chosen them.
        let https = https_port(listeners.iter().map(|listener| &listener.listen));
        for listener in &mut listeners {
            if let (Purpose::Redirect { to_port }, Some(https)) = (&mut listener.listen.purpose, https) {
                *to_port = https;
            }
        }
        Ok(listeners)
    }

    /// The shared memory: the inherited one, if this program has the same layout and it has worker records for
    /// `count` more workers, and otherwise a new one.
    pub(in crate::process) fn memory(&self, journal: &mut Journal, count: u32) -> Result<Taken, Failure> {
        let records = records(count);
        let Some(left) = self.handover() else {
            let memory = share_memory(records)?;
            return Ok(Taken {
                memory,
                old_workers: Vec::new(),
                old: OldMemory::default(),
                previous: Previous::default(),
            });
        };
        let mut old_workers = left.old_workers.clone();
        if let Some(memory) = left_memory(left, count) {
            let old = OldMemory::find(&left.older, memory.region);
            let has_record = |old_worker: &OldWorker| {
                old_worker.memory.is_some() || old_worker.record.is_none_or(|record| record < memory.region.records())
            };
            old_workers.retain(has_record);
            return Ok(Taken { memory, old_workers, old, previous: Previous::default() });
        }
        let memory = share_memory(records)?;
        let older: Vec<i32> = left.older.iter().copied().chain([left.segment]).collect();
        let old = OldMemory::find(&older, memory.region);
        for old_worker in old_workers.iter_mut().filter(|old_worker| old_worker.memory.is_none()) {
            old_worker.memory = old_worker.record.map(|_| left.segment);
        }
        let is_found = old.ids().last() == Some(&left.segment);
        let owners = is_found.then(|| old.plan()).flatten().and_then(|plan| Plan::owners_in(&plan));
        let (members, gone) = owners.unwrap_or_default();
        let previous = Previous { members, gone, secrets: left_secrets(left) };
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

impl Left {
    /// The listeners of a service manager. Every worker has all of them.
    fn activated(&self, count: u32) -> Result<Vec<Listener>, Failure> {
        let mut listeners = Vec::new();
        for held in self.listeners.iter().filter(|held| held.is_activated) {
            let Listen { purpose, tls, proxy_header, .. } = held.listen;
            let carried = Carried { purpose, tls, proxy_header };
            let of_first = match &held.sockets {
                Sockets::Each(shares) => shares.first().map_or(&[][..], Vec::as_slice),
                Sockets::One(socket) => std::slice::from_ref(socket),
            };
            for socket in of_first {
                let copy = socket.try_clone().and_then(|socket| activation::adopt(socket, carried, count));
                listeners.push(copy.map_err(Failure::of("keep the listeners"))?);
            }
        }
        Ok(listeners)
    }

    /// Keeps the listener at a place, or opens one there. If that fails, a listener of this purpose is kept that it would
    /// have replaced. `taken`: the listeners that are decided already.
    fn keep_or_open(
        &self,
        journal: &mut Journal,
        listen: Listen,
        wanted: &[Listen],
        taken: &[Listener],
        count: u32,
    ) -> Result<Option<Listener>, Failure> {
        // With port 0, several are wanted at any port of a host.
        let is_free = |held: &&Listener| {
            !held.is_activated && !taken.iter().any(|taken| listen::is_same_place(held.listen, taken.listen))
        };
        let held: Vec<&Listener> = self.listeners.iter().filter(is_free).collect();
        if let Some(held) = held.iter().find(|held| listen::is_same_place(held.listen, listen)) {
            return keep(journal, held, listen, count).map(Some);
        }
        let failure = match listen::open_beside(&self.listeners, listen, count) {
            Ok(opened) => return Ok(Some(opened)),
            Err(failure) => failure,
        };
        let is_replaced = |held: &&Listener| {
            held.listen.purpose == listen.purpose
                && !wanted.iter().any(|&wanted| listen::is_same_place(held.listen, wanted))
        };
        match held.into_iter().find(is_replaced) {
            Some(held) => {
                let text = format_args!("{}: {} is listened on as before", failure.message, held.listen.address);
                journal.line(Level::Err, "upgrade", text);
                keep(journal, held, held.listen, count).map(Some)
            }
            // The process can serve without an admin port.
            None if listen.purpose == Purpose::Admin => {
                journal.line(Level::Err, "upgrade", format_args!("{}", failure.message));
                Ok(None)
            }
            None => Err(failure),
        }
    }

    /// Marks the listeners that are not among `kept`. The workers that have them see it when they drain, and close them
    /// once no client waits there.
    fn give_up_others(&self, kept: &[Listener]) {
        let is_kept = |held: &&Listener| {
            held.is_activated || kept.iter().any(|kept| listen::is_same_place(held.listen, kept.listen))
        };
        for socket in self.listeners.iter().filter(|held| !is_kept(held)).flat_map(Listener::sockets) {
            let _ = defer_accept(socket.as_fd(), false);
        }
    }
}

/// The number of worker records for `count` workers, the old ones, and a reserve.
pub(in crate::process) fn records(count: u32) -> usize {
    (count as usize * (GENERATIONS + 2)).max(WORKER_RECORDS_MIN)
}

/// The inherited shared memory, if this program has the same layout and it has worker records for `count` more
/// workers.
pub(in crate::process) fn left_memory(left: &Handover, count: u32) -> Option<Memory> {
    let taken =
        left.old_workers.iter().filter(|old_worker| old_worker.record.is_some() && old_worker.memory.is_none()).count();
    let has_room = |records: usize| taken + count as usize <= records;
    let is_right = |cells: &[AtomicU64]| Region::records_in(cells).is_some_and(has_room) && has_own_form(cells);
    let segment = Segment::attach(left.segment, is_right).ok()?;
    Some(Memory { region: Region::adopt(segment.cells())?, segment: left.segment })
}

/// True if the plan in it, if there is one, has the form that this program writes: workers of both programs
/// follow it.
fn has_own_form(cells: &[AtomicU64]) -> bool {
    plan_in(cells).is_none_or(|plan| Plan::is_of_own_form(&plan))
}

/// The owners of the slots in the inherited memory, if this program can read them.
pub(in crate::process) fn left_owners(left: &Handover) -> Option<(Vec<Member>, Vec<Gone>)> {
    let memory = Attached::new(left.segment).ok()?;
    Plan::owners_in(&plan_in(memory.cells())?)
}

/// The secrets in the inherited memory, if it has any and this program can read them.
pub(in crate::process) fn left_secrets(left: &Handover) -> Option<Vec<u8>> {
    let memory = Attached::new(left.segment).ok()?;
    secrets_in(memory.cells()).filter(|secrets| secrets.len() <= 4 * SECRETS_BYTES)
}

/// A listener of the program before, for `count` workers. From now on it is used as `wanted` says.
fn keep(journal: &mut Journal, held: &Listener, wanted: Listen, count: u32) -> Result<Listener, Failure> {
    let address = held.listen.address;
    let copied: io::Result<Sockets> = match &held.sockets {
        Sockets::One(socket) => socket.try_clone().map(Sockets::One),
        Sockets::Each(shares) => {
            let copy = |share: &Vec<OwnedFd>| share.iter().map(OwnedFd::try_clone).collect();
            shares.iter().map(copy).collect::<io::Result<_>>().map(Sockets::Each)
        }
    };
    let sockets = match copied.map_err(Failure::of(format_args!("keep the listener at {address}")))? {
        Sockets::Each(shares) => Sockets::Each(share_out(journal, shares, held.listen, count as usize)?),
        one => one,
    };
    Ok(Listener { listen: Listen { address, ..wanted }, is_activated: held.is_activated, sockets })
}

/// Returns worker records for `count` workers that no old worker has, the lowest.
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

/// Takes the sockets of a listener over. `None` if it has none, which is logged.
fn take(journal: &mut Journal, listener: &Listener<RawFd>) -> Option<Listener> {
    let mut take = |fd: &RawFd| {
        let taken = exec::take_inherited(*fd);
        if let Err(error) = &taken {
            journal.line(Level::Err, "upgrade", format_args!("listener {fd} was not left open: {error}"));
        }
        taken.ok()
    };
    let sockets = match &listener.sockets {
        Sockets::One(socket) => Sockets::One(take(socket)?),
        Sockets::Each(shares) => {
            Sockets::Each(shares.iter().map(|share| share.iter().filter_map(&mut take).collect()).collect())
        }
    };
    Some(Listener { listen: listener.listen, is_activated: listener.is_activated, sockets })
}

/// Gives each of `count` workers a socket: another one if there are too few, and several if there are too many. None is
/// closed, because a client may wait there.
fn share_out(
    journal: &mut Journal,
    shares: Vec<Vec<OwnedFd>>,
    listen: Listen,
    count: usize,
) -> Result<Vec<Vec<OwnedFd>>, Failure> {
    if shares.len() == count && shares.iter().all(|share| !share.is_empty()) {
        return Ok(shares);
    }
    let sockets: Vec<OwnedFd> = shares.into_iter().flatten().collect();
    let mut shares: Vec<Vec<OwnedFd>> = (0..count).map(|_| Vec::new()).collect();
    let held = sockets.len();
    for (at, socket) in sockets.into_iter().enumerate() {
        shares[at % count].push(socket);
    }
    for at in held..count {
        let joined = match shares[0].first() {
            Some(first) => listen::join(first, listen.address).map(|socket| vec![socket]),
            None => listen::open(listen, 1).map(|Listener { sockets, .. }| sockets.into_all()),
        };
        match joined {
            Ok(joined) => shares[at].extend(joined),
            Err(failure) if held > 0 => {
                // This worker and the first one accept from the same socket.
                journal.line(Level::Warn, "upgrade", format_args!("{}", failure.message));
                let first = shares[0].first().map(OwnedFd::try_clone);
                let first = first.transpose().map_err(Failure::of(format_args!("listen on {}", listen.address)))?;
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
        let inherited = Inherited { left: Some(Left { handover, listeners: Vec::new() }) };
        let mut journal = Journal::new(Level::Err);
        let mut taken = |count: usize| {
            let taken = inherited.memory(&mut journal, count as u32);
            taken.map_err(|failure| failure.message).unwrap()
        };
        let same = taken(records - 1);
        assert_eq!((same.memory.segment, same.previous, same.old.ids()), (memory.segment, Previous::default(), vec![]));
        let other = taken(records);
        assert_ne!(other.memory.segment, memory.segment);
        let region = other.memory.region;
        let names = |previous: Previous| previous.members.into_iter().map(|member| member.name).collect::<Vec<_>>();
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

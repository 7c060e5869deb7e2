//! What one program leaves to the one that it becomes when it is upgraded: a line of text in a
//! variable of the environment. Pure.
//!
//! The line begins with the number of its form, which every version keeps: a program that does not
//! know it refuses the upgrade before anything has changed.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The variable.
pub(in crate::process) const VARIABLE: &str = "ZZZ_LB_HANDOVER";
/// The variable by which a program is asked whether it could take over.
pub(in crate::process) const QUESTION: &str = "ZZZ_LB_PREFLIGHT";
/// What a program says that could.
pub(in crate::process) const ANSWER: &str = "zzz_lb can take over: form 2";

const FORM: &str = "2";

/// The numbers of descriptors.
pub(in crate::process) fn raw(fds: &[OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}

/// What is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The process, which stays the same: told so that no other takes it for its own.
    pub(in crate::process) pid: u32,
    /// How many upgrades there have been, this one among them.
    pub(in crate::process) generation: u64,
    /// The shared memory's number.
    pub(in crate::process) segment: i32,
    /// The shared memory of programs before that had another layout, the oldest first, as workers still count there.
    pub(in crate::process) older: Vec<i32>,
    /// Where clients connect.
    pub(in crate::process) address: SocketAddr,
    /// The listeners there, by worker.
    pub(in crate::process) listeners: Vec<Vec<RawFd>>,
    /// A service manager made them, so that no option says where they are.
    pub(in crate::process) activated: bool,
    /// The admin's listener, and where it is.
    pub(in crate::process) admin: Option<(RawFd, SocketAddr)>,
    /// Workers that live on.
    pub(in crate::process) old_workers: Vec<OldWorker>,
    /// Where the demo's backends are; none where there is no demo.
    pub(in crate::process) demo: Vec<SocketAddr>,
    /// Another upgrade was asked for meanwhile.
    pub(in crate::process) again: bool,
}

/// A worker of a program before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldWorker {
    /// The process.
    pub(in crate::process) pid: i32,
    /// Its worker record in the shared memory that it has; `None` if that is not known.
    pub(in crate::process) record: Option<usize>,
    /// The number of that memory, if it is one of `Handover::older`.
    pub(in crate::process) memory: Option<i32>,
    /// How many upgrades there had been when it began.
    pub(in crate::process) generation: u64,
    /// When it is killed, should it still run, in microseconds; `None` while it accepts.
    pub(in crate::process) until_us: Option<u64>,
}

impl fmt::Display for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handover { pid, generation, segment, address, .. } = self;
        write!(f, "{FORM} pid={pid} generation={generation} segment={segment} address={address}")?;
        for share in &self.listeners {
            let fds: Vec<String> = share.iter().map(RawFd::to_string).collect();
            write!(f, " listeners={}", fds.join(","))?;
        }
        if self.activated {
            f.write_str(" activated=1")?;
        }
        if let Some((fd, address)) = self.admin {
            write!(f, " admin={fd}@{address}")?;
        }
        // A program that does not know these words refuses the upgrade, rather than lose counts.
        for memory in &self.older {
            write!(f, " older={memory}")?;
        }
        for OldWorker { pid, record, memory, generation, until_us } in &self.old_workers {
            write!(f, " elder={pid}:{}", Maybe(*record))?;
            if let Some(memory) = memory {
                write!(f, "@{memory}")?;
            }
            write!(f, ":{generation}:{}", Maybe(*until_us))?;
        }
        for address in &self.demo {
            write!(f, " demo={address}")?;
        }
        if self.again { f.write_str(" again=1") } else { Ok(()) }
    }
}

/// A number or a dash.
struct Maybe<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl Handover {
    /// What a line says; `None` where it is of another form, or of none.
    pub fn parse(line: &str) -> Option<Handover> {
        let mut words = line.split(' ');
        if words.next() != Some(FORM) {
            return None;
        }
        let (mut pid, mut generation, mut segment, mut address) = (None, None, None, None);
        let (mut listeners, mut admin, mut old_workers, mut demo, mut older) = (vec![], None, vec![], vec![], vec![]);
        let (mut activated, mut again) = (false, false);
        for word in words {
            let (name, value) = word.split_once('=')?;
            match name {
                "pid" => pid = Some(value.parse().ok()?),
                "generation" => generation = Some(value.parse().ok()?),
                "segment" => segment = Some(value.parse().ok()?),
                "address" => address = Some(value.parse().ok()?),
                "listeners" => {
                    let fds: Option<Vec<RawFd>> = value.split(',').map(|fd| fd.parse().ok()).collect();
                    listeners.push(fds?);
                }
                "activated" => activated = value == "1",
                "admin" => {
                    let (fd, address) = value.split_once('@')?;
                    admin = Some((fd.parse().ok()?, address.parse().ok()?));
                }
                "older" => older.push(value.parse().ok()?),
                "elder" => old_workers.push(OldWorker::parse(value)?),
                "demo" => demo.push(value.parse().ok()?),
                "again" => again = value == "1",
                _ => return None,
            }
        }
        let (pid, generation, segment, address) = (pid?, generation?, segment?, address?);
        Some(Handover {
            pid,
            generation,
            segment,
            older,
            address,
            listeners,
            activated,
            admin,
            old_workers,
            demo,
            again,
        })
    }
}

#[cfg(test)]
impl Handover {
    /// What is left of a program with this memory and no workers.
    pub(in crate::process) fn of(segment: i32) -> Handover {
        let line = format!("{FORM} pid=1 generation=1 segment={segment} address=127.0.0.1:80");
        Handover::parse(&line).expect("it is a line")
    }
}

impl OldWorker {
    /// Whether it was not told to drain.
    pub(in crate::process) fn is_accepting(&self) -> bool {
        self.until_us.is_none()
    }

    fn parse(text: &str) -> Option<OldWorker> {
        let parts: Vec<&str> = text.split(':').collect();
        let [pid, record, generation, until_us] = parts[..] else { return None };
        let pid = pid.parse().ok().filter(|&pid| pid > 0)?;
        let maybe = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
        let (record, memory) = record.split_once('@').map_or((record, None), |(record, memory)| (record, Some(memory)));
        let memory = memory.map(|memory| memory.parse().ok()).map_or(Some(None), |memory| memory.map(Some))?;
        let record = maybe(record)?.map(|record: u64| record as usize);
        Some(OldWorker { pid, record, memory, generation: generation.parse().ok()?, until_us: maybe(until_us)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found() {
        let mut left = Handover {
            pid: 7,
            generation: 3,
            segment: 12,
            older: vec![8, 11],
            address: "[::1]:8080".parse().unwrap(),
            listeners: vec![vec![5, 6], vec![7]],
            activated: true,
            admin: Some((9, "127.0.0.1:9090".parse().unwrap())),
            old_workers: vec![
                OldWorker { pid: 40, record: Some(2), memory: None, generation: 2, until_us: None },
                OldWorker { pid: 42, record: Some(3), memory: Some(8), generation: 1, until_us: Some(7) },
                OldWorker { pid: 41, record: None, memory: None, generation: 1, until_us: Some(77) },
            ],
            demo: vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()],
            again: true,
        };
        assert_eq!(Handover::parse(&left.to_string()), Some(left.clone()));
        (left.admin, left.again, left.activated) = (None, false, false);
        left.old_workers.clear();
        left.older.clear();
        left.demo.clear();
        left.listeners.clear();
        assert_eq!(Handover::parse(&left.to_string()), Some(left));
    }

    #[test]
    fn what_is_of_another_form_is_nothing() {
        let whole = "2 pid=7 generation=3 segment=12 address=127.0.0.1:80";
        assert!(Handover::parse(whole).is_some());
        for line in [
            "",
            "1 pid=7 generation=3 segment=12 address=127.0.0.1:80",
            "2 pid=7 generation=3 segment=12",
            "2 pid=7 generation=3 segment=12 address=127.0.0.1:80 news=1",
            "2 pid=7 generation=3 segment=12 address=127.0.0.1:80 elder=1:2:3",
            "2 pid=7 generation=3 segment=12 address=127.0.0.1:80 elder=-1:2:3:-",
            "2 pid=x generation=3 segment=12 address=127.0.0.1:80",
        ] {
            assert_eq!(Handover::parse(line), None, "{line}");
        }
    }
}

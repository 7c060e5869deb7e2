//! Memory that a process shares with those it forks: a SysV segment without a name.
//!
//! It is marked to be removed as soon as it is attached, so that the system takes it back when the
//! last process that has it is gone, however that went, and `ipcs -m` never shows one left behind.
//! A process that becomes another program leaves it, and finds it again by its number as long as a
//! child of it has it.

#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU64;

/// Memory is taken as it is written to: most of a segment never is.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NORESERVE: i32 = libc::SHM_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const NORESERVE: i32 = 0;

/// Bytes of a page, where the system does not tell.
const PAGE: usize = 4096;

/// A segment, attached for as long as this process lives.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    id: i32,
    cells: &'static [AtomicU64],
}

impl Segment {
    /// Makes a segment of at least `bytes`, rounded up to whole pages, all zeros. EINVAL where it is
    /// larger than the system allows (SHMMAX), ENOSPC where there are too many (SHMMNI, SHMALL),
    /// ENOMEM where there is no memory or address space for it, EPERM or EACCES where a policy
    /// forbids it.
    pub fn create(bytes: usize) -> io::Result<Segment> {
        let page = page_bytes();
        // What no address space could hold is refused as the system refuses what it cannot.
        let Some(bytes) = bytes.max(1).checked_next_multiple_of(page).filter(|&bytes| bytes <= isize::MAX as usize)
        else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        // SAFETY: takes numbers and touches no memory of ours.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | NORESERVE | 0o600) };
        if id < 0 {
            return Err(io::Error::last_os_error());
        }
        let attached = Segment::map(id, bytes);
        // SAFETY: no pointer is read for IPC_RMID. Where attaching failed, this removes the segment at once.
        let removed = unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
        let segment = attached?;
        if removed < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(segment)
    }

    /// Attaches a segment that another process of this user has, by its number, where it is as it should
    /// be; where not, EINVAL, and it is detached again. EINVAL or EIDRM where there is none of that number,
    /// EACCES where it is another user's.
    pub fn attach(id: i32, is_right: impl FnOnce(&[AtomicU64]) -> bool) -> io::Result<Segment> {
        let segment = Segment::map(id, bytes_of(id)?)?;
        if !is_right(segment.cells) {
            // SAFETY: it was attached at this address just now, and nobody else has seen its cells: what was
            // asked could not keep them.
            unsafe { libc::shmdt(segment.cells.as_ptr().cast()) };
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(segment)
    }

    /// Has the segment of a number, which is of that many bytes, in this process's memory.
    fn map(id: i32, bytes: usize) -> io::Result<Segment> {
        // SAFETY: the address is the system's to choose, so nothing of ours is mapped over.
        let address = unsafe { libc::shmat(id, ptr::null(), 0) };
        if address.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let count = bytes / size_of::<AtomicU64>();
        // SAFETY: the segment is attached, writable, at a page's start and `bytes` long, which is at
        // most isize::MAX and cannot change; it is detached only where nobody has seen it; all bits are a valid AtomicU64, and
        // all who have it use it as such.
        let cells = unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), count) };
        Ok(Segment { id, cells })
    }

    /// The whole of it, beginning at a page's start.
    pub fn cells(&self) -> &'static [AtomicU64] {
        self.cells
    }

    /// The system's number for it. While any process has it, another of the same user can attach it
    /// by this number, though it is marked to be removed (Linux).
    pub fn id(&self) -> i32 {
        self.id
    }
}

/// A segment of a program before, attached until this is dropped.
#[derive(Debug)]
pub struct Attached {
    segment: Segment,
}

impl Attached {
    /// Attaches a segment by its number. Errors are those of `Segment::attach`.
    pub fn new(id: i32) -> io::Result<Attached> {
        Ok(Attached { segment: Segment::map(id, bytes_of(id)?)? })
    }

    /// The whole of it.
    pub fn cells(&self) -> &[AtomicU64] {
        self.segment.cells
    }

    /// The system's number for it.
    pub fn id(&self) -> i32 {
        self.segment.id
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: it was attached at this address by `new`, and its cells are lent for no longer than this lives.
        unsafe { libc::shmdt(self.segment.cells.as_ptr().cast()) };
    }
}

/// How many bytes a segment has.
fn bytes_of(id: i32) -> io::Result<usize> {
    // SAFETY: all zeroes is a valid value of this struct of integers, and the call writes one, to
    // a live local.
    unsafe {
        let mut state: libc::shmid_ds = std::mem::zeroed();
        if libc::shmctl(id, libc::IPC_STAT, &raw mut state) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(state.shm_segsz)
    }
}

fn page_bytes() -> usize {
    // SAFETY: takes an integer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{self, Fork};
    use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

    /// What the system tells of a segment: its mode and how many have it.
    fn told(id: i32) -> Option<(u32, u32)> {
        let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        let id = id.to_string();
        table
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words[1] == id)
            .map(|words| (u32::from_str_radix(words[2], 8).unwrap(), words[6].parse().unwrap()))
    }

    #[test]
    fn it_is_whole_pages_of_zeros() {
        let cells = Segment::create(100_000).unwrap().cells();
        assert!(cells.len() >= 12_500 && cells.iter().all(|cell| cell.load(Relaxed) == 0));
        assert!(size_of_val(cells).is_multiple_of(page_bytes()));
        assert!(cells.as_ptr().addr().is_multiple_of(page_bytes()));
        cells[12_499].store(7, Relaxed);
        assert_eq!(cells[12_499].load(Relaxed), 7);
        assert_eq!(size_of_val(Segment::create(0).unwrap().cells()), page_bytes());
    }

    #[test]
    fn it_is_found_again_by_its_number() {
        let segment = Segment::create(10_000).unwrap();
        segment.cells()[3].store(9, Relaxed);
        let again = Segment::attach(segment.id(), |cells| cells[3].load(Relaxed) == 9).unwrap();
        assert_eq!((again.cells().len(), again.cells()[3].load(Relaxed)), (segment.cells().len(), 9));
        assert!(Segment::attach(-1, |_| true).is_err());
        let attached = told(segment.id()).unwrap().1;
        assert!(Segment::attach(segment.id(), |_| false).is_err());
        assert_eq!(told(segment.id()).unwrap().1, attached, "one that is not right is detached");
        let lent = Attached::new(segment.id()).unwrap();
        assert_eq!((lent.cells()[3].load(Relaxed), lent.id()), (9, segment.id()));
        drop(lent);
        assert_eq!(told(segment.id()).unwrap().1, attached, "one that is dropped is detached");
    }

    #[test]
    fn it_is_marked_to_be_removed() {
        let (mode, attached) = told(Segment::create(1).unwrap().id()).unwrap();
        // SHM_DEST, and for no other user.
        assert_eq!(mode, 0o1600);
        assert!(attached >= 1);
    }

    #[test]
    fn what_a_forked_child_stores_its_parent_sees() {
        let segment = Segment::create(64).unwrap();
        let cells = segment.cells();
        match fork::fork().unwrap() {
            Fork::Child => {
                cells[1].store(42, Relaxed);
                cells[0].store(1, Release);
                fork::exit_now(0);
            }
            Fork::Parent(_) => {
                let begun = std::time::Instant::now();
                while cells[0].load(Acquire) == 0 {
                    assert!(begun.elapsed().as_secs() < 10, "the child stores nothing");
                    std::thread::yield_now();
                }
                assert_eq!(cells[1].load(Relaxed), 42);
            }
        }
    }

    #[test]
    fn what_the_system_refuses_is_an_error() {
        for bytes in [usize::MAX, usize::MAX / 2, 1 << 60] {
            let error = Segment::create(bytes).unwrap_err();
            assert!(
                [Some(libc::EINVAL), Some(libc::ENOMEM), Some(libc::ENOSPC)].contains(&error.raw_os_error()),
                "{bytes}: {error}"
            );
        }
    }
}

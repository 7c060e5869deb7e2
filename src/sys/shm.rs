//! Memory that a process shares with its forks: a SysV segment without a key.
//!
//! The segment is marked for removal as soon as it is attached. The kernel therefore frees it when the last
//! process that has it ends, for any reason, and `ipcs -m` never shows a leftover. A process that executes
//! another program detaches it. The new program can attach it again by its number as long as a child still has
//! it.

#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU64;

/// The kernel allocates a page when it is first written. Most of a segment is never written.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NORESERVE: i32 = libc::SHM_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const NORESERVE: i32 = 0;

/// The page size if the system does not report it.
const PAGE: usize = 4096;

/// A segment, attached as long as this process lives.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    id: i32,
    cells: &'static [AtomicU64],
}

impl Segment {
    /// Creates a segment of at least `bytes`, rounded up to whole pages and zeroed. EINVAL if it is larger than
    /// SHMMAX, ENOSPC if there are too many segments (SHMMNI, SHMALL), ENOMEM if memory or address space is
    /// exhausted, EPERM or EACCES if a policy forbids it.
    pub fn create(bytes: usize) -> io::Result<Segment> {
        let page = page_bytes();
        // A size above the address space gets the same error as one above the system's limit.
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
        // SAFETY: no pointer is read for IPC_RMID. If attaching failed, this removes the segment at once.
        let removed = unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
        let segment = attached?;
        if removed < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(segment)
    }

    /// Attaches a segment of another process of this user by its number, if `is_right` accepts its content.
    /// Otherwise it is detached again and the error is EINVAL. EINVAL or EIDRM if the number is unknown, EACCES
    /// if it belongs to another user.
    pub fn attach(id: i32, is_right: impl FnOnce(&[AtomicU64]) -> bool) -> io::Result<Segment> {
        let segment = Segment::map(id, bytes_of(id)?)?;
        if !is_right(segment.cells) {
            // SAFETY: it was attached at this address just now, and `is_right` could not keep the cells, so no
            // reference to them exists.
            unsafe { libc::shmdt(segment.cells.as_ptr().cast()) };
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(segment)
    }

    /// Attaches the segment with this number and size.
    fn map(id: i32, bytes: usize) -> io::Result<Segment> {
        // SAFETY: the kernel chooses the address, so no memory of ours is mapped over.
        let address = unsafe { libc::shmat(id, ptr::null(), 0) };
        if address.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let count = bytes / size_of::<AtomicU64>();
        // SAFETY: the segment is attached, writable, page-aligned and `bytes` long, which is at most isize::MAX
        // and cannot change. It is detached only while no reference to it exists. All bit patterns are a valid
        // AtomicU64, and all processes use it as such.
        let cells = unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), count) };
        Ok(Segment { id, cells })
    }

    /// All cells of the segment. The first is at the start of a page.
    pub fn cells(&self) -> &'static [AtomicU64] {
        self.cells
    }

    /// The segment's number. While any process has it attached, another process of the same user can attach it
    /// by this number, although it is marked for removal (Linux).
    pub fn id(&self) -> i32 {
        self.id
    }
}

/// A segment of a previous program, attached until this value is dropped.
#[derive(Debug)]
pub struct Attached {
    segment: Segment,
}

impl Attached {
    /// Attaches a segment by its number. Errors are those of `Segment::attach`.
    pub fn new(id: i32) -> io::Result<Attached> {
        Ok(Attached { segment: Segment::map(id, bytes_of(id)?)? })
    }

    /// All cells of the segment.
    pub fn cells(&self) -> &[AtomicU64] {
        self.segment.cells
    }

    /// The segment's number.
    pub fn id(&self) -> i32 {
        self.segment.id
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: `new` attached it at this address, and no reference to its cells outlives this value.
        unsafe { libc::shmdt(self.segment.cells.as_ptr().cast()) };
    }
}

/// Keeps the pages of these cells out of the swap space as long as this process lives, if the system allows that: an
/// unprivileged process may lock only a little memory (RLIMIT_MEMLOCK).
pub fn lock(cells: &[AtomicU64]) -> io::Result<()> {
    // SAFETY: the range is that of a live slice, and the call changes none of its bytes.
    let locked = unsafe { libc::mlock(cells.as_ptr().cast(), size_of_val(cells)) };
    if locked < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The size of a segment in bytes.
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

    /// The mode of a segment and the number of processes that have it attached.
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
        // The forks of other tests have it attached, too, until they end.
        let is_attached_twice = || {
            (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                told(segment.id()).unwrap().1 == 2
            })
        };
        assert!(Segment::attach(segment.id(), |_| false).is_err());
        assert!(is_attached_twice(), "one that is not right is detached");
        let lent = Attached::new(segment.id()).unwrap();
        assert_eq!((lent.cells()[3].load(Relaxed), lent.id()), (9, segment.id()));
        drop(lent);
        assert!(is_attached_twice(), "one that is dropped is detached");
    }

    #[test]
    fn a_part_of_it_can_be_locked_into_memory() {
        let locked = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.split_whitespace().next().unwrap().parse::<usize>().unwrap()
        };
        let segment = Segment::create(4 * page_bytes()).unwrap();
        match lock(&segment.cells()[..8]) {
            Ok(()) => assert!(locked() * 1024 >= page_bytes()),
            // A limit forbids it.
            Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EPERM | libc::EAGAIN))),
        }
    }

    #[test]
    fn it_is_marked_to_be_removed() {
        let (mode, attached) = told(Segment::create(1).unwrap().id()).unwrap();
        // SHM_DEST, and no access for other users.
        assert_eq!(mode, 0o1600);
        assert!(attached >= 1);
    }

    #[test]
    fn a_parent_sees_the_stores_of_its_child() {
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
    fn a_refusal_of_the_system_is_an_error() {
        for bytes in [usize::MAX, usize::MAX / 2, 1 << 60] {
            let error = Segment::create(bytes).unwrap_err();
            assert!(
                [Some(libc::EINVAL), Some(libc::ENOMEM), Some(libc::ENOSPC)].contains(&error.raw_os_error()),
                "{bytes}: {error}"
            );
        }
    }
}

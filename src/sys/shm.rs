//! Memory that a process shares with those it forks: a SysV segment without a name.
//!
//! It is marked to be removed as soon as it is attached, so that the system takes it back when the
//! last process that has it is gone, however that went, and `ipcs -m` never shows one left behind.

#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::atomic::AtomicU64;

/// Makes a segment of at least `bytes`, all zeros, which stays attached for as long as this process
/// and those forked from it live. EINVAL where it is larger than the system allows (SHMMAX), ENOSPC
/// where there are too many (SHMMNI, SHMALL), ENOMEM where there is no memory for it.
pub fn create(bytes: usize) -> io::Result<&'static [AtomicU64]> {
    let count = bytes.div_ceil(size_of::<AtomicU64>()).max(1);
    // SAFETY: takes numbers and touches no memory of ours.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, count * size_of::<AtomicU64>(), libc::IPC_CREAT | 0o600) };
    if id < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the address is the system's to choose, so nothing of ours is mapped over.
    let address = unsafe { libc::shmat(id, ptr::null(), 0) };
    let attached = if address.addr() == usize::MAX { Err(io::Error::last_os_error()) } else { Ok(address) };
    // SAFETY: no pointer is read for IPC_RMID. Where attaching failed, this removes the segment at once.
    let removed = unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
    let address = attached?;
    if removed < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the segment is attached, writable, at a page's start and at least this long; it is
    // never detached; all bits are a valid AtomicU64, and all who have it use it as such.
    Ok(unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn it_is_zeros_and_marked_to_be_removed() {
        let cells = create(100_000).unwrap();
        assert!(cells.len() >= 12_500 && cells.iter().all(|cell| cell.load(Relaxed) == 0));
        cells[12_499].store(7, Relaxed);
        assert_eq!(cells[12_499].load(Relaxed), 7);
        // Of this process's segments each has the mode bit SHM_DEST, 01000.
        let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
        let own = std::process::id().to_string();
        for line in table.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words[4] == own {
                assert!(words[2].len() == 4 && words[2].starts_with('1'), "{line}");
            }
        }
    }

    #[test]
    fn what_the_system_refuses_is_an_error() {
        let error = create(usize::MAX / 2).unwrap_err();
        assert!(
            [Some(libc::EINVAL), Some(libc::ENOMEM), Some(libc::ENOSPC)].contains(&error.raw_os_error()),
            "{error}"
        );
    }
}

//! The limit of open descriptors, and the memory usage of this process.

#![allow(unsafe_code)]

use std::io;

/// Raises the soft limit of open descriptors to the hard limit. Returns the limit in force.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit, to a live local of that type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: the call only reads the rlimit, which is a live local.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            limit = raised;
        }
        // If the raise is refused, the lower limit stays in force and is returned.
    }
    Ok(limit.rlim_cur)
}

/// The bytes of address space in use, and of resident memory; 0 if unknown.
pub fn memory_bytes() -> (u64, u64) {
    let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    // SAFETY: takes an integer.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    let mut sizes = told.split(' ').map(|pages| pages.parse::<u64>().unwrap_or(0) * page);
    (sizes.next().unwrap_or(0), sizes.next().unwrap_or(0))
}

/// Returns free pages of the heap, which only the start of a process needed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn release_start() {
    // SAFETY: the call changes no memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other systems decide themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn release_start() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raised_limit_is_the_hard_one() {
        let raised = raise_open_files().unwrap();
        assert!(raised >= 3);
        assert_eq!(raise_open_files().unwrap(), raised);
    }
}

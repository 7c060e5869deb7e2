//! The clocks.

#![allow(unsafe_code)]

/// Microseconds of the monotonic clock.
pub fn monotonic_us() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Microseconds of processor time used by this process.
pub fn process_us() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Microseconds since 1970.
pub fn unix_us() -> u64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local. It can fail only for a clock that does not exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

//! The processors on which the scheduler may run this process.

#![allow(unsafe_code)]

use std::io;

/// Words of the mask: 8192 processors, the maximum for which Linux can be built.
const MASK_WORDS: usize = 128;

/// The number of processors on which this process may run (sched_getaffinity); at least 1.
pub fn processors() -> io::Result<u32> {
    let mut mask = [0u64; MASK_WORDS];
    // SAFETY: the kernel writes at most the given number of bytes, which is the array's size. Any bit pattern
    // is a valid u64, and the array is aligned as strictly as cpu_set_t.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let count: u32 = mask.iter().map(|word| word.count_ones()).sum();
    Ok(count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(processors().unwrap() >= 1);
    }
}

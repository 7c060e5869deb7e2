//! The memory that the workers share.

use std::io;

use crate::process::exit::{FAILED, Failure};
use crate::shared::Region;
use crate::sys::shm::Segment;

/// The shared memory, and its number.
#[derive(Clone, Copy, Debug)]
pub(in crate::process) struct Memory {
    pub(in crate::process) region: Region,
    pub(in crate::process) segment: i32,
}

/// Creates shared memory with this many worker records.
pub(in crate::process) fn share_memory(records: usize) -> Result<Memory, Failure> {
    let bytes = Region::bytes(records);
    let segment = Segment::create(bytes).map_err(|error| no_memory(bytes, &error))?;
    Ok(Memory { region: Region::new(segment.cells()), segment: segment.id() })
}

fn no_memory(bytes: usize, error: &io::Error) -> Failure {
    let limit = match error.raw_os_error() {
        Some(libc::EINVAL) => " (more than kernel.shmmax)",
        Some(libc::ENOSPC) => " (kernel.shmmni or kernel.shmall is used up)",
        _ => "",
    };
    Failure::new(FAILED, format!("cannot share {bytes} bytes of memory with the workers: {error}{limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_had_is_told_by_the_limit_that_it_meets() {
        for (code, limit) in [(libc::EINVAL, "kernel.shmmax"), (libc::ENOSPC, "kernel.shmmni"), (libc::ENOMEM, "")] {
            let failure = no_memory(7, &io::Error::from_raw_os_error(code));
            assert!(failure.status == FAILED && failure.message.contains(limit), "{}", failure.message);
            assert!(failure.message.starts_with("cannot share 7 bytes of memory with the workers: "));
        }
    }
}

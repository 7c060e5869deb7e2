//! Files named by the user.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a file, at most `most` + 1 bytes. It never blocks: anything except a regular file is refused, such as
/// a pipe without a writer.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut contents = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut contents)?;
    Ok(contents)
}

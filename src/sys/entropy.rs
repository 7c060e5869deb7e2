//! Random numbers from the kernel.

#![allow(unsafe_code)]

use std::io;

/// A number from the system's random source. It may block until that source is ready, once after boot.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    loop {
        // SAFETY: the kernel writes at most the given number of bytes, which is the array's size.
        let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if n == bytes.len() as isize {
            return Ok(u64::from_ne_bytes(bytes));
        }
        let error = io::Error::last_os_error();
        if n < 0 && error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_number_comes_twice() {
        assert_ne!(super::random_u64().unwrap(), super::random_u64().unwrap());
    }
}

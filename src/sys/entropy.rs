//! Random numbers from the kernel.

#![allow(unsafe_code)]

use std::io;

/// Fills `bytes` from the system's random source. It may block until that source is ready, once after boot.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let rest @ [_, ..] = &mut bytes[filled..] {
        // SAFETY: the kernel writes at most the given number of bytes, which is the length of the slice.
        match unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) } {
            n @ 0.. => filled += n as usize,
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// A number from the system's random source.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    fill(&mut bytes).map(|()| u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_number_comes_twice() {
        assert_ne!(super::random_u64().unwrap(), super::random_u64().unwrap());
    }

    #[test]
    fn every_byte_is_filled() {
        // More than the kernel gives in one call without a chance of a signal.
        let mut bytes = [0_u8; 1000];
        super::fill(&mut bytes).unwrap();
        assert!(bytes.chunks(20).all(|part| part.iter().any(|&byte| byte != 0)));
    }
}

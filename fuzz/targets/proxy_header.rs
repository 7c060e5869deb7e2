//! PROXY headers. Any bytes are read within bounds. The answer of a prefix never contradicts that of more bytes: it is
//! the same, or more bytes are needed. A header is complete at its own length and not before. Its addresses are the same
//! after they are written and read again in both versions.

use zzz_lb::http::proxy_header::{Header, Version, read, write};
use zzz_lb::limits::PROXY_HEADER_BYTES;

/// Panics if a header changes with the bytes behind it, or when it is written and read again.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// Like [`run`], with a fault planted in the bytes before they are read again.
pub fn run_with(data: &[u8], plant: fn(&mut Vec<u8>)) {
    let whole = read(data);
    for end in 0..data.len() {
        match read(&data[..end]) {
            Ok(None) => assert!(end < PROXY_HEADER_BYTES, "a header needs more bytes than it may"),
            early => assert_eq!(early, whole, "the bytes behind {end} change the answer"),
        }
    }
    let Ok(Some(Header { length, addresses })) = whole else { return };
    assert!(length <= data.len(), "a header is longer than the bytes");
    assert_eq!(read(&data[..length]), whole, "a header is complete at its length");
    assert_eq!(read(&data[..length - 1]), Ok(None), "a header is incomplete before its length");
    for version in [Version::V1, Version::V2] {
        let mut again = Vec::new();
        write(&mut again, version, addresses);
        plant(&mut again);
        let read = read(&again).ok().flatten().expect("a written header is complete");
        assert_eq!((read.length, read.addresses), (again.len(), addresses), "the addresses change");
    }
}

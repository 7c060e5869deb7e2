//! Compares every byte scanner with the predicate that defines it, on the input and its suffixes, so that every
//! length and alignment of a tail occurs.

use zzz_lb::http1::scan::{self, Scanner};

/// The number of suffixes. Beyond them, the lengths modulo the widest chunk repeat.
const SUFFIXES: usize = 64;

/// Panics if an implementation and a predicate differ.
pub fn run(data: &[u8]) {
    for start in 0..data.len().min(SUFFIXES) + 1 {
        let bytes = &data[start..];
        let first = |ends: fn(u8) -> bool| bytes.iter().position(|&byte| ends(byte));
        let token = first(|byte| !scan::is_token(byte)).unwrap_or(bytes.len());
        let target = first(|byte| !scan::is_target(byte)).unwrap_or(bytes.len());
        let value = first(|byte| !scan::is_value(byte)).unwrap_or(bytes.len());
        let line_feed = first(|byte| byte == b'\n');
        for scanner in Scanner::available() {
            let name = scanner.name();
            assert_eq!(scanner.token_end(bytes), token, "token by {name} from {start}");
            assert_eq!(scanner.target_end(bytes), target, "target by {name} from {start}");
            assert_eq!(scanner.value_end(bytes), value, "value by {name} from {start}");
            assert_eq!(scanner.line_feed(bytes), line_feed, "line feed by {name} from {start}");
        }
    }
}

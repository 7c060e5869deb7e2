//! Compares every implementation with the predicates, byte by byte, and the predicates with the text of the
//! RFC.

use super::*;
use crate::limits;

type Inside = fn(u8) -> bool;
type End = fn(Scanner, &[u8]) -> usize;

/// Each scanner and the predicate that defines it.
const CLASSES: [(&str, Inside, End); 4] = [
    ("token", is_token, Scanner::token_end),
    ("target", is_target, Scanner::target_end),
    ("value", is_value, Scanner::value_end),
    ("line feed", is_not_line_feed, |scanner, bytes| scanner.line_feed(bytes).unwrap_or(bytes.len())),
];

/// Longer than two of the widest chunks and a tail.
const LONGEST: usize = 100;

fn check(bytes: &[u8]) {
    for scanner in Scanner::available() {
        for (class, inside, end) in CLASSES {
            let expected = bytes.iter().position(|&byte| !inside(byte)).unwrap_or(bytes.len());
            assert_eq!(end(scanner, bytes), expected, "{class} by {} on {bytes:02x?}", scanner.name());
        }
    }
}

struct Xorshift(u64);

impl Xorshift {
    fn any(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.any() % bound as u64) as usize
    }
}

#[test]
fn tokens_match_the_list_of_rfc_9110() {
    let listed = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    (0..=255).for_each(|byte| assert_eq!(is_token(byte), listed.contains(&byte), "{byte:#x}"));
}

#[test]
fn delimiters_and_controls_end_targets_and_values() {
    for byte in (0..0x20).chain([0x7f]) {
        assert!(!is_target(byte), "{byte:#x}");
        assert_eq!(is_value(byte), byte == b'\t', "{byte:#x}");
    }
    assert!(!is_target(b' ') && !is_target(b'#'));
    assert!(is_value(b' ') && is_value(b'#'));
    assert!(is_target(b'?') && is_target(b'"') && is_target(0x80) && is_target(0xff));
    assert!(is_value(0x80) && is_value(0xff));
}

/// Places each of `bytes` at each position of a run of each length.
fn check_each_place(class: usize, lengths: std::ops::RangeInclusive<usize>, bytes: &[u8]) {
    let (name, inside, end) = CLASSES[class];
    // 'a' is inside every class, so only the placed byte can end the run.
    let mut run = [b'a'; LONGEST];
    for scanner in Scanner::available() {
        for length in lengths.clone() {
            assert_eq!(end(scanner, &run[..length]), length, "{name} by {}", scanner.name());
            for place in 0..length {
                for &byte in bytes {
                    run[place] = byte;
                    let expected = if inside(byte) { length } else { place };
                    let got = end(scanner, &run[..length]);
                    assert!(got == expected, "{name} by {}: {byte:#x} at {place}: {got}", scanner.name());
                }
                run[place] = b'a';
            }
        }
    }
}

/// Covers every byte in every lane of the widest chunk and of every tail. Longer runs only add the step from
/// chunk to chunk, so they use only the bytes next to a class boundary.
fn check_class(class: usize) {
    let all: Vec<u8> = (0..=255).collect();
    let (_, inside, _) = CLASSES[class];
    let edges: Vec<u8> = (1..=255).filter(|&byte| inside(byte) != inside(byte - 1)).flat_map(|b| [b - 1, b]).collect();
    check_each_place(class, 0..=48, &all);
    check_each_place(class, 49..=LONGEST, &edges);
}

#[test]
fn tokens_end_at_each_byte_and_place() {
    check_class(0);
}

#[test]
fn targets_end_at_each_byte_and_place() {
    check_class(1);
}

#[test]
fn values_end_at_each_byte_and_place() {
    check_class(2);
}

#[test]
fn line_feeds_are_found_at_each_place() {
    check_class(3);
}

#[test]
fn bytes_after_the_slice_do_not_count() {
    // The bytes around the slice end a run in the first round, and do not in the second.
    for around in [b"\n ", b"aa"] {
        let mut bytes = [around[0]; LONGEST + 64];
        for start in 0..33 {
            for length in 0..=LONGEST - 33 {
                bytes[start..start + length].fill(b'a');
                check(&bytes[start..start + length]);
                bytes[start..start + length].fill(around[1]);
            }
        }
    }
}

#[test]
fn the_first_of_two_ends_counts() {
    let mut bytes = [b'a'; LONGEST];
    for first in 0..LONGEST {
        for second in first + 1..LONGEST {
            (bytes[first], bytes[second]) = (b'\n', b'\n');
            check(&bytes);
            (bytes[first], bytes[second]) = (b'a', b'a');
        }
    }
}

#[test]
fn random_bytes_at_every_alignment() {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 2 * LONGEST + 64];
    for round in 0..4_000 {
        // A run of random bytes ends at once. Mostly valid bytes end it later.
        let valid_of_64 = [0, 32, 60, 63][round % 4];
        for byte in &mut bytes {
            *byte = if random.below(64) < valid_of_64 { b'a' + random.below(26) as u8 } else { random.any() as u8 };
        }
        let start = round % 64;
        check(&bytes[start..start + random.below(2 * LONGEST)]);
    }
}

#[test]
fn a_whole_head_of_valid_bytes_is_one_run() {
    let mut bytes = vec![b'a'; limits::HEAD_BYTES];
    check(&bytes);
    bytes.push(b'\n');
    check(&bytes);
}

#[test]
fn the_chosen_one_is_the_last_available() {
    assert_eq!(Scanner::available().last(), Some(Scanner::chosen()));
    assert_eq!(level(), Scanner::chosen().name());
    assert_eq!(token_end(b"Host: a"), 4);
    assert_eq!(target_end(b"/a?b HTTP/1.1"), 4);
    assert_eq!(value_end(b"a b\r\n"), 3);
    assert_eq!(line_feed(b"a\r\nb"), Some(2));
    assert_eq!(line_feed(b"a"), None);
}

//! The Huffman code of strings (RFC 7541, 5.2 and Appendix B).
//!
//! Decoding goes four bits at a time through a table of states, one for each inner node of the
//! code's tree, made at compile time. The shortest code has five bits, so that four end at most one.

use super::Error;

/// The code of each byte and, last, of the end of the string: its bits, and how many there are.
#[rustfmt::skip]
const CODES: [(u32, u8); 257] = [
    (0x1ff8, 13), (0x7fffd8, 23), (0xfffffe2, 28), (0xfffffe3, 28), (0xfffffe4, 28), (0xfffffe5, 28), (0xfffffe6, 28),
    (0xfffffe7, 28), (0xfffffe8, 28), (0xffffea, 24), (0x3ffffffc, 30), (0xfffffe9, 28), (0xfffffea, 28),
    (0x3ffffffd, 30), (0xfffffeb, 28), (0xfffffec, 28), (0xfffffed, 28), (0xfffffee, 28), (0xfffffef, 28),
    (0xffffff0, 28), (0xffffff1, 28), (0xffffff2, 28), (0x3ffffffe, 30), (0xffffff3, 28), (0xffffff4, 28),
    (0xffffff5, 28), (0xffffff6, 28), (0xffffff7, 28), (0xffffff8, 28), (0xffffff9, 28), (0xffffffa, 28),
    (0xffffffb, 28), (0x14, 6), (0x3f8, 10), (0x3f9, 10), (0xffa, 12), (0x1ff9, 13), (0x15, 6), (0xf8, 8),
    (0x7fa, 11), (0x3fa, 10), (0x3fb, 10), (0xf9, 8), (0x7fb, 11), (0xfa, 8), (0x16, 6), (0x17, 6), (0x18, 6),
    (0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6), (0x1c, 6), (0x1d, 6), (0x1e, 6), (0x1f, 6),
    (0x5c, 7), (0xfb, 8), (0x7ffc, 15), (0x20, 6), (0xffb, 12), (0x3fc, 10), (0x1ffa, 13), (0x21, 6), (0x5d, 7),
    (0x5e, 7), (0x5f, 7), (0x60, 7), (0x61, 7), (0x62, 7), (0x63, 7), (0x64, 7), (0x65, 7), (0x66, 7), (0x67, 7),
    (0x68, 7), (0x69, 7), (0x6a, 7), (0x6b, 7), (0x6c, 7), (0x6d, 7), (0x6e, 7), (0x6f, 7), (0x70, 7), (0x71, 7),
    (0x72, 7), (0xfc, 8), (0x73, 7), (0xfd, 8), (0x1ffb, 13), (0x7fff0, 19), (0x1ffc, 13), (0x3ffc, 14), (0x22, 6),
    (0x7ffd, 15), (0x3, 5), (0x23, 6), (0x4, 5), (0x24, 6), (0x5, 5), (0x25, 6), (0x26, 6), (0x27, 6), (0x6, 5),
    (0x74, 7), (0x75, 7), (0x28, 6), (0x29, 6), (0x2a, 6), (0x7, 5), (0x2b, 6), (0x76, 7), (0x2c, 6), (0x8, 5),
    (0x9, 5), (0x2d, 6), (0x77, 7), (0x78, 7), (0x79, 7), (0x7a, 7), (0x7b, 7), (0x7ffe, 15), (0x7fc, 11),
    (0x3ffd, 14), (0x1ffd, 13), (0xffffffc, 28), (0xfffe6, 20), (0x3fffd2, 22), (0xfffe7, 20), (0xfffe8, 20),
    (0x3fffd3, 22), (0x3fffd4, 22), (0x3fffd5, 22), (0x7fffd9, 23), (0x3fffd6, 22), (0x7fffda, 23), (0x7fffdb, 23),
    (0x7fffdc, 23), (0x7fffdd, 23), (0x7fffde, 23), (0xffffeb, 24), (0x7fffdf, 23), (0xffffec, 24), (0xffffed, 24),
    (0x3fffd7, 22), (0x7fffe0, 23), (0xffffee, 24), (0x7fffe1, 23), (0x7fffe2, 23), (0x7fffe3, 23), (0x7fffe4, 23),
    (0x1fffdc, 21), (0x3fffd8, 22), (0x7fffe5, 23), (0x3fffd9, 22), (0x7fffe6, 23), (0x7fffe7, 23), (0xffffef, 24),
    (0x3fffda, 22), (0x1fffdd, 21), (0xfffe9, 20), (0x3fffdb, 22), (0x3fffdc, 22), (0x7fffe8, 23), (0x7fffe9, 23),
    (0x1fffde, 21), (0x7fffea, 23), (0x3fffdd, 22), (0x3fffde, 22), (0xfffff0, 24), (0x1fffdf, 21), (0x3fffdf, 22),
    (0x7fffeb, 23), (0x7fffec, 23), (0x1fffe0, 21), (0x1fffe1, 21), (0x3fffe0, 22), (0x1fffe2, 21), (0x7fffed, 23),
    (0x3fffe1, 22), (0x7fffee, 23), (0x7fffef, 23), (0xfffea, 20), (0x3fffe2, 22), (0x3fffe3, 22), (0x3fffe4, 22),
    (0x7ffff0, 23), (0x3fffe5, 22), (0x3fffe6, 22), (0x7ffff1, 23), (0x3ffffe0, 26), (0x3ffffe1, 26), (0xfffeb, 20),
    (0x7fff1, 19), (0x3fffe7, 22), (0x7ffff2, 23), (0x3fffe8, 22), (0x1ffffec, 25), (0x3ffffe2, 26), (0x3ffffe3, 26),
    (0x3ffffe4, 26), (0x7ffffde, 27), (0x7ffffdf, 27), (0x3ffffe5, 26), (0xfffff1, 24), (0x1ffffed, 25),
    (0x7fff2, 19), (0x1fffe3, 21), (0x3ffffe6, 26), (0x7ffffe0, 27), (0x7ffffe1, 27), (0x3ffffe7, 26),
    (0x7ffffe2, 27), (0xfffff2, 24), (0x1fffe4, 21), (0x1fffe5, 21), (0x3ffffe8, 26), (0x3ffffe9, 26),
    (0xffffffd, 28), (0x7ffffe3, 27), (0x7ffffe4, 27), (0x7ffffe5, 27), (0xfffec, 20), (0xfffff3, 24), (0xfffed, 20),
    (0x1fffe6, 21), (0x3fffe9, 22), (0x1fffe7, 21), (0x1fffe8, 21), (0x7ffff3, 23), (0x3fffea, 22), (0x3fffeb, 22),
    (0x1ffffee, 25), (0x1ffffef, 25), (0xfffff4, 24), (0xfffff5, 24), (0x3ffffea, 26), (0x7ffff4, 23),
    (0x3ffffeb, 26), (0x7ffffe6, 27), (0x3ffffec, 26), (0x3ffffed, 26), (0x7ffffe7, 27), (0x7ffffe8, 27),
    (0x7ffffe9, 27), (0x7ffffea, 27), (0x7ffffeb, 27), (0xffffffe, 28), (0x7ffffec, 27), (0x7ffffed, 27),
    (0x7ffffee, 27), (0x7ffffef, 27), (0x7fffff0, 27), (0x3ffffee, 26), (0x3fffffff, 30),
];

/// The symbol that never stands in a string.
const END: usize = 256;
/// Inner nodes of a tree with 257 leaves.
const NODES: usize = 256;

/// The effect of four bits in a state.
#[derive(Clone, Copy)]
struct Step {
    /// The state after them.
    next: u8,
    /// The byte that they complete, if `emits`.
    byte: u8,
    emits: bool,
    /// They lead to the end symbol, which is an error.
    fails: bool,
}

struct Tables {
    steps: [[Step; 16]; NODES],
    /// True for each state in which a string may end: after at most seven bits of the end symbol's code.
    ends: [bool; NODES],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    // A child is an inner node, or a symbol with `LEAF` added; 0 is none, as nothing leads to the root.
    const LEAF: u16 = 512;
    let mut children = [[0_u16; 2]; NODES];
    let mut ends = [false; NODES];
    ends[0] = true;
    let (mut nodes, mut symbol) = (1_u16, 0);
    while symbol < CODES.len() {
        let (code, length) = CODES[symbol];
        let (mut node, mut left) = (0_usize, length);
        while left > 0 {
            left -= 1;
            let bit = (code >> left & 1) as usize;
            if left == 0 {
                children[node][bit] = LEAF + symbol as u16;
            } else {
                if children[node][bit] == 0 {
                    children[node][bit] = nodes;
                    nodes += 1;
                }
                node = children[node][bit] as usize;
                if symbol == END && length - left < 8 {
                    ends[node] = true;
                }
            }
        }
        symbol += 1;
    }
    let nothing = Step { next: 0, byte: 0, emits: false, fails: false };
    let mut steps = [[nothing; 16]; NODES];
    let mut state = 0;
    while state < NODES {
        let mut bits = 0;
        while bits < 16 {
            let (mut node, mut left, mut step) = (state, 4, nothing);
            while left > 0 {
                left -= 1;
                let child = children[node][bits >> left & 1];
                if child == LEAF + END as u16 {
                    step.fails = true;
                    node = 0;
                } else if child >= LEAF {
                    step.byte = (child - LEAF) as u8;
                    step.emits = true;
                    node = 0;
                } else {
                    node = child as usize;
                }
            }
            step.next = node as u8;
            steps[state][bits] = step;
            bits += 1;
        }
        state += 1;
    }
    Tables { steps, ends }
}

/// The shortest code has five bits, so that a byte is at most eight fifths of a symbol.
const fn most(coded_bytes: usize) -> usize {
    coded_bytes * 8 / 5
}

/// Appends the string that `coded` stands for. Each step stores a byte, and passes it if the step has completed it: a
/// store costs less than a branch that half of the steps take.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let before = out.len();
    // The last step stores, too.
    out.resize(before + most(coded.len()) + 1, 0);
    let (room, mut at) = (&mut out[before..], 0);
    let (mut state, mut fails) = (0_u8, false);
    for &byte in coded {
        for bits in [byte >> 4, byte & 15] {
            let step = TABLES.steps[usize::from(state)][usize::from(bits)];
            room[at] = step.byte;
            at += usize::from(step.emits);
            fails |= step.fails;
            state = step.next;
        }
    }
    out.truncate(before + at);
    match TABLES.ends[usize::from(state)] {
        _ if fails => Err(Error::HuffmanEnd),
        true => Ok(()),
        false => Err(Error::HuffmanPadding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends a string's code.
    fn encode(text: &[u8], out: &mut Vec<u8>) {
        let (mut held, mut bits) = (0_u64, 0_u32);
        for &byte in text {
            let (code, length) = CODES[usize::from(byte)];
            held = held << length | u64::from(code);
            bits += u32::from(length);
            while bits >= 8 {
                bits -= 8;
                out.push((held >> bits) as u8);
            }
        }
        if bits > 0 {
            // The end symbol's first bits are all ones.
            out.push((held << (8 - bits)) as u8 | 0xff >> bits);
        }
    }

    #[test]
    fn every_byte_comes_back() {
        for byte in 0..=255_u8 {
            for times in 1..9 {
                let text = vec![byte; times];
                let mut coded = Vec::new();
                encode(&text, &mut coded);
                let mut back = Vec::new();
                decode(&coded, &mut back).unwrap();
                assert_eq!(back, text);
            }
        }
    }

    #[test]
    fn it_is_the_code_of_the_rfc() {
        // RFC 7541, C.4.1 and C.6.1.
        for (text, coded) in [
            (&b"www.example.com"[..], &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..]),
            (b"private", b"\xae\xc3\x77\x1a\x4b"),
        ] {
            let mut out = Vec::new();
            encode(text, &mut out);
            assert_eq!(out, coded);
        }
    }

    #[test]
    fn the_code_is_prefix_free_and_complete() {
        let sum: u64 = CODES.iter().map(|&(_, length)| 1_u64 << (30 - length)).sum();
        assert_eq!(sum, 1 << 30);
    }

    #[test]
    fn wrong_padding_and_the_end_symbol_are_errors() {
        let of = |coded: &[u8]| decode(coded, &mut Vec::new());
        assert_eq!(of(&[0xff, 0xff, 0xff, 0xff]), Err(Error::HuffmanEnd));
        assert_eq!(of(&[0xff]), Err(Error::HuffmanPadding), "eight bits of padding");
        // "0" is 00000: three bits of padding, which must be ones.
        assert_eq!(of(&[0b0000_0111]), Ok(()));
        assert_eq!(of(&[0b0000_0110]), Err(Error::HuffmanPadding));
        assert_eq!(of(&[0b0000_0111, 0xff]), Err(Error::HuffmanPadding), "eleven bits of padding");
    }
}

//! Fields to blocks (RFC 7541, 6), without a dynamic table.

use super::table::{STATIC, static_name};
use super::{huffman, integer};
use crate::http::fields::Name;

/// A literal that is not put into a table, and one that never is (RFC 7541, 6.2.2 and 6.2.3).
const WITHOUT_INDEXING: u8 = 0x00;
const NEVER_INDEXED: u8 = 0x10;

/// Appends a field to a block. The name's letters are made small, as HTTP/2 has it.
pub fn encode(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let found = static_name(name);
    if let Some(first) = found {
        let same = |at: &usize| STATIC[*at - 1].0 == STATIC[first - 1].0;
        let exact = |at: &usize| STATIC[*at - 1].1.as_bytes() == value;
        if !STATIC[first - 1].1.is_empty()
            && let Some(index) = (first..=STATIC.len()).take_while(same).find(exact)
        {
            return integer::write(out, 0x80, 7, index);
        }
    }
    let kind = if Name::find(name).is_secret() { NEVER_INDEXED } else { WITHOUT_INDEXING };
    match found {
        Some(index) => integer::write(out, kind, 4, index),
        None => {
            out.push(kind);
            string(out, name, true);
        }
    }
    string(out, value, false);
}

/// Appends a change of the table's size, which may stand at the front of a block only.
pub fn table_size(out: &mut Vec<u8>, size: usize) {
    integer::write(out, 0x20, 5, size);
}

/// Writes a string, coded where that is shorter.
fn string(out: &mut Vec<u8>, text: &[u8], lower: bool) {
    let coded = huffman::coded_len(text, lower);
    if coded < text.len() {
        integer::write(out, 0x80, 7, coded);
        huffman::encode(text, lower, out);
    } else {
        integer::write(out, 0, 7, text.len());
        out.extend(text.iter().map(|&byte| huffman::small(byte, lower)));
    }
}

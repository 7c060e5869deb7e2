//! Fields to blocks (RFC 7541, 6), without a dynamic table and without the Huffman code: the peer pays for each
//! coded byte as we do, and a field of a request is too short for the fifth that the code saves to matter.

use super::integer;
use super::table::{STATIC, static_name};

/// A literal that is not put into a table, and one that never is (RFC 7541, 6.2.2 and 6.2.3).
const WITHOUT_INDEXING: u8 = 0x00;
const NEVER_INDEXED: u8 = 0x10;

/// The index of `:authority` in the static table.
pub const AUTHORITY: usize = 1;
/// The first index of `:method` there.
pub const METHOD: usize = 2;
/// The first index of `:path` there.
pub const PATH: usize = 4;
/// The first index of `:scheme` there.
pub const SCHEME: usize = 6;
/// The first index of `:status` there.
pub const STATUS: usize = 8;
/// The index of `content-length` there.
pub const CONTENT_LENGTH: usize = 28;
// Fields whose values must never enter a dynamic table.
const AUTHORIZATION: usize = 23;
const COOKIE: usize = 32;
const PROXY_AUTHORIZATION: usize = 49;
const SET_COOKIE: usize = 55;

/// Appends a field to a block. The name is written in lower case, as HTTP/2 requires.
pub fn encode(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if let Some(first) = static_name(name) {
        return encode_indexed(out, first, value);
    }
    out.push(WITHOUT_INDEXING);
    let name_start = string(out, name);
    out[name_start..].make_ascii_lowercase();
    string(out, value);
}

/// Appends a field whose name stands in the static table, `first` there.
pub fn encode_indexed(out: &mut Vec<u8>, first: usize, value: &[u8]) {
    let (name, least) = STATIC[first - 1];
    if !least.is_empty() {
        let same = STATIC[first - 1..].iter().take_while(|(other, _)| *other == name);
        if let Some(at) = same.into_iter().position(|(_, text)| text.as_bytes() == value) {
            return integer::write(out, 0x80, 7, first + at);
        }
    }
    let kind = match first {
        AUTHORIZATION | COOKIE | PROXY_AUTHORIZATION | SET_COOKIE => NEVER_INDEXED,
        _ => WITHOUT_INDEXING,
    };
    integer::write(out, kind, 4, first);
    string(out, value);
}

/// Appends a change of the table's size, which may stand at the front of a block only.
pub fn table_size(out: &mut Vec<u8>, size: usize) {
    integer::write(out, 0x20, 5, size);
}

/// Writes a string without Huffman coding. Returns the offset of its bytes.
fn string(out: &mut Vec<u8>, text: &[u8]) -> usize {
    integer::write(out, 0, 7, text.len());
    out.extend_from_slice(text);
    out.len() - text.len()
}

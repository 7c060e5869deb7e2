//! Fields to blocks (RFC 7541, 6), without a dynamic table and without the Huffman code: the peer pays for each
//! coded byte as we do, and a field of a request is too short for the fifth that the code saves to matter.

use super::integer;
use super::table::{STATIC, static_name};

/// A literal that is not put into a table, and one that never is (RFC 7541, 6.2.2 and 6.2.3).
const WITHOUT_INDEXING: u8 = 0x00;
const NEVER_INDEXED: u8 = 0x10;

/// Fields whose values nobody may put into a table. All of these names are in the static table.
const SECRETS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

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
    match found {
        Some(index) if SECRETS.contains(&STATIC[index - 1].0) => integer::write(out, NEVER_INDEXED, 4, index),
        Some(index) => integer::write(out, WITHOUT_INDEXING, 4, index),
        None => {
            out.push(WITHOUT_INDEXING);
            let name_start = string(out, name);
            out[name_start..].make_ascii_lowercase();
        }
    }
    string(out, value);
}

/// Appends a change of the table's size, which may stand at the front of a block only.
pub fn table_size(out: &mut Vec<u8>, size: usize) {
    integer::write(out, 0x20, 5, size);
}

/// Writes a string as it is; where its bytes begin.
fn string(out: &mut Vec<u8>, text: &[u8]) -> usize {
    integer::write(out, 0, 7, text.len());
    out.extend_from_slice(text);
    out.len() - text.len()
}

//! HPACK, the field compression of HTTP/2 (RFC 7541).
//!
//! A peer may use all of it, so the decoder supports all of it: both tables, Huffman coding, changes of size.
//! The encoder uses only the static table, does not code strings, and has no state. Its output is therefore the
//! same for every connection, and the length of one request reveals nothing about the fields of another.
//! Secrets are marked as never indexed (7.1.3).

mod decode;
mod encode;
mod huffman;
mod integer;
mod table;

pub use self::decode::Decoder;
pub use self::encode::{AUTHORITY, CONTENT_LENGTH, METHOD, PATH, SCHEME, STATUS, encode, encode_indexed, table_size};
pub use self::table::ENTRY_OVERHEAD;

use std::fmt;

/// The reason why a block cannot be decoded. Only after `ListTooLarge` can the decoder continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The fields are more than was allowed. The block was decoded to its end.
    ListTooLarge,
    /// The fields exceed the limit so far that decoding stopped.
    Excessive,
    /// The block ends within a field.
    Short,
    /// An integer that is longer or larger than any that makes sense.
    Integer,
    /// A field that no table has.
    Index,
    /// A table larger than was allowed, or a change of its size behind a field.
    TableSize,
    /// The end symbol stands in a string.
    HuffmanEnd,
    /// A string's last bits are not the end symbol's first, or more than seven.
    HuffmanPadding,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::ListTooLarge => "field list too large",
            Error::Excessive => "field list far too large",
            Error::Short => "field block ends early",
            Error::Integer => "integer too large",
            Error::Index => "index of no field",
            Error::TableSize => "table size that is not allowed",
            Error::HuffmanEnd => "end symbol in a string",
            Error::HuffmanPadding => "invalid padding of a string",
        })
    }
}

#[cfg(test)]
mod tests;

//! Blocks to fields (RFC 7541, 3 and 6).

use super::table::{ENTRY_OVERHEAD, Table};
use super::{Error, huffman, integer};
use crate::limits::{H2_DECODED_BYTES, H2_STRING_BYTES};

/// The decoder of one connection. Blocks must be decoded in the order of their arrival.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// The maximum size of the table.
    limit: usize,
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The size of all fields that were decoded, each with 32 additional bytes.
    decoded_bytes: u64,
}

impl Decoder {
    /// Creates a decoder with a maximum table size in the bytes of RFC 7541, 4.1: our
    /// SETTINGS_HEADER_TABLE_SIZE, or 4,096.
    pub fn new(table_limit: usize) -> Decoder {
        let (name, value) = (Vec::new(), Vec::new());
        Decoder { table: Table::new(table_limit), limit: table_limit, name, value, decoded_bytes: 0 }
    }

    /// Returns the size of all fields that were decoded, each with 32 additional bytes: a measure of the work.
    pub fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes
    }

    /// Decodes one whole block, and passes each field's name and value to `sink`.
    ///
    /// # Errors
    ///
    /// `ListTooLarge` if the fields, each with 32 additional bytes, exceed `list_limit` bytes: the first ones
    /// were passed on, and the next block can be decoded. After any other error no block can be decoded (RFC
    /// 9113, 4.3: COMPRESSION_ERROR). One of these errors is a list far above the limit, because two bytes of a
    /// block can cause copies of thousands.
    pub fn decode(&mut self, block: &[u8], list_limit: usize, sink: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let mut used = 0;
        let decoded = self.fields(block, list_limit, &mut used, sink);
        self.decoded_bytes += used as u64;
        for string in [&mut self.name, &mut self.value] {
            if string.capacity() > H2_STRING_BYTES {
                *string = Vec::new();
            }
        }
        decoded
    }

    fn fields(
        &mut self,
        block: &[u8],
        list_limit: usize,
        used: &mut usize,
        mut sink: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Error> {
        let (mut rest, mut begun, mut sizes) = (block, false, 0);
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                let size = integer::read(&mut rest, 5)?;
                sizes += 1;
                // The smallest and the final size are enough (RFC 7541, 4.2).
                if begun || size > self.limit || sizes > 2 {
                    return Err(Error::TableSize);
                }
                self.table.resize(size);
                continue;
            }
            begun = true;
            if first & 0x80 != 0 {
                let (name, value) = self.table.get(integer::read(&mut rest, 7)?).ok_or(Error::Index)?;
                count(used, name, value)?;
                if *used <= list_limit {
                    sink(name, value);
                }
                continue;
            }
            let indexed = first & 0x40 != 0;
            let index = integer::read(&mut rest, if indexed { 6 } else { 4 })?;
            if index == 0 {
                string(&mut rest, &mut self.name)?;
            } else {
                let (name, _) = self.table.get(index).ok_or(Error::Index)?;
                self.name.clear();
                self.name.extend_from_slice(name);
            }
            string(&mut rest, &mut self.value)?;
            count(used, &self.name, &self.value)?;
            if *used <= list_limit {
                sink(&self.name, &self.value);
            }
            if indexed {
                self.table.add(&self.name, &self.value);
            }
        }
        if *used > list_limit { Err(Error::ListTooLarge) } else { Ok(()) }
    }
}

/// Counts a field among those of its block.
fn count(used: &mut usize, name: &[u8], value: &[u8]) -> Result<(), Error> {
    *used += name.len() + value.len() + ENTRY_OVERHEAD;
    if *used > H2_DECODED_BYTES { Err(Error::Excessive) } else { Ok(()) }
}

/// Reads a string (RFC 7541, 5.2). A coded one can be three fifths longer than the block it is in.
fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::read(rest, 7)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(Error::Short)?;
    *rest = behind;
    out.clear();
    if coded {
        return huffman::decode(text, out);
    }
    out.extend_from_slice(text);
    Ok(())
}

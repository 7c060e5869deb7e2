//! The records of a peer: their count, and those by which they outnumber the bytes of content.
//!
//! A record of content has at least one byte. So the records of a peer that outnumber its bytes carry nothing: they change
//! keys, are empty, warn, or have tickets. The library bounds each of these kinds, but a record of one kind renews the
//! bound of another one: a peer may send a change of keys and an empty record in turn without end. Here, only content
//! renews. The handshake is bounded in bytes and in time, so it does not count.

use crate::limits::TLS_EMPTY_RECORDS;
use crate::tls::failure::During;

/// The size of a record's header: type, version, length (RFC 8446, section 5.1).
const HEADER_BYTES: u8 = 5;

/// The place in the records of a peer, and their counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Records {
    /// The bytes of the current header that have passed.
    header: u8,
    /// The first of the two bytes of its length.
    high: u8,
    /// The bytes that follow of the current record.
    left: u16,
    count: u32,
    /// The count at the last `settle`.
    settled: u32,
    /// The records by which they outnumber the bytes of content. It is never negative, so content earns nothing in
    /// advance.
    empty: u32,
}

impl Records {
    /// Follows the records through these bytes.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = bytes.len().min(usize::from(self.left));
                self.left -= skipped as u16;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = rest;
            self.header += 1;
            if self.header == HEADER_BYTES {
                self.header = 0;
                self.left = u16::from_be_bytes([self.high, byte]);
                self.count = self.count.saturating_add(1);
            }
            self.high = byte;
        }
    }

    /// Compares the records since the last call with the bytes of their content. Returns false if there have been too
    /// many without content.
    pub(super) fn settle(&mut self, during: During, content_bytes: usize) -> bool {
        let records = self.count - self.settled;
        self.settled = self.count;
        if during == During::Data {
            let content = u32::try_from(content_bytes).unwrap_or(u32::MAX);
            self.empty = self.empty.saturating_add(records).saturating_sub(content);
        }
        self.empty <= TLS_EMPTY_RECORDS
    }

    /// Returns the count of all records.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_however_they_are_split() {
        let record = |length: u16| {
            let mut bytes = vec![23, 3, 3];
            bytes.extend(length.to_be_bytes());
            bytes.resize(5 + usize::from(length), 0xff);
            bytes
        };
        let all = [record(0), record(1), record(300), record(0xffff), record(5)].concat();
        for step in [1, 2, 3, 7, 305, all.len()] {
            let mut records = Records::default();
            all.chunks(step).for_each(|bytes| records.pass(bytes));
            assert_eq!((records.count(), records.left, records.header), (5, 0, 0), "{step}");
        }
    }

    #[test]
    fn only_content_pays_for_records_and_nothing_in_advance() {
        let mut records = Records::default();
        let record = [23, 3, 3, 0, 0];
        let mut settle = |during, content| {
            records.pass(&record);
            records.settle(during, content)
        };
        assert!((0..=TLS_EMPTY_RECORDS).all(|_| settle(During::Handshake, 0)), "the handshake does not count");
        assert!(settle(During::Data, 1 << 40));
        assert!((0..TLS_EMPTY_RECORDS).all(|_| settle(During::Data, 0)));
        assert!(settle(During::Data, 1), "a byte for each record");
        assert!(!settle(During::Data, 0));
    }
}

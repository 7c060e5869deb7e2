//! The tables of fields that a block can refer to (RFC 7541, 2.3): the static one, which is always the
//! same, and the dynamic one, which the blocks before have filled.

use std::collections::VecDeque;

use crate::http::fields::is_same;

/// The additional size of an entry beyond its bytes (RFC 7541, 4.1).
pub const ENTRY_OVERHEAD: usize = 32;

/// The static table (RFC 7541, Appendix A); its first entry has the index 1.
#[rustfmt::skip]
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The first index in the static table with this name, in any case.
pub(super) fn static_name(name: &[u8]) -> Option<usize> {
    let candidates: &[u8] = match name.len() {
        3 => &[21, 60],
        4 => &[33, 34, 37, 38, 45, 59],
        5 => &[4, 22, 50],
        6 => &[19, 32, 35, 54],
        7 => &[2, 6, 8, 36, 51, 52],
        8 => &[39, 42, 46],
        10 => &[1, 55, 58],
        11 => &[53],
        12 => &[31, 47],
        13 => &[18, 23, 24, 30, 41, 44],
        14 => &[15, 28],
        15 => &[16, 17],
        16 => &[26, 27, 29, 61],
        17 => &[40, 57],
        18 => &[48],
        19 => &[25, 43, 49],
        25 => &[56],
        27 => &[20],
        _ => return None,
    };
    // The names of a length differ early.
    let named = |&&index: &&u8| is_same(name, STATIC[usize::from(index) - 1].0.as_bytes());
    candidates.iter().find(named).map(|&index| usize::from(index))
}

/// One entry: the position of its name, counted from the first byte ever added, and the lengths of name and
/// value.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    name: usize,
    value: usize,
}

/// The dynamic table. The newest entry has the lowest index. One that was never used owns no memory.
#[derive(Debug)]
pub(super) struct Table {
    /// The bytes of all entries in order. The bytes before the oldest entry are unused.
    bytes: Vec<u8>,
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Table {
        Table { bytes: Vec::new(), entries: VecDeque::new(), size: 0, limit }
    }

    /// Sets how large it may be.
    pub(super) fn resize(&mut self, limit: usize) {
        self.limit = limit;
        self.evict(limit);
    }

    /// The field of an index, static or dynamic.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let at = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(at - STATIC.len())?;
        let middle = entry.start + entry.name;
        Some((self.bytes.get(entry.start..middle)?, self.bytes.get(middle..middle + entry.value)?))
    }

    /// Adds a field. It leaves again if it exceeds the maximum size.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(self.limit.saturating_sub(size));
        if size > self.limit {
            return;
        }
        self.compact();
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.entries.push_front(Entry { start, name: name.len(), value: value.len() });
        self.size += size;
    }

    /// Drops the oldest entries until the rest counts for no more than `limit`.
    fn evict(&mut self, limit: usize) {
        while self.size > limit {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.name + entry.value + ENTRY_OVERHEAD;
        }
    }

    /// Drops the waste once it is as much as the table may hold, so that each byte is moved once at most
    /// for each that was added.
    fn compact(&mut self) {
        let waste = self.entries.back().map_or(self.bytes.len(), |oldest| oldest.start);
        if waste > 0 && waste >= self.limit {
            self.bytes.drain(..waste);
            self.entries.iter_mut().for_each(|entry| entry.start -= waste);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_names_are_found_in_any_case() {
        for (at, (name, _)) in STATIC.iter().enumerate() {
            let found = static_name(name.to_ascii_uppercase().as_bytes()).unwrap();
            assert!(found <= at + 1 && STATIC[found - 1].0 == *name);
            assert!(found == 1 || STATIC[found - 2].0 != *name, "the first of its name");
        }
        assert_eq!(static_name(b"x-forwarded-for"), None);
        assert_eq!(static_name(b""), None);
    }

    #[test]
    fn the_oldest_entries_make_room() {
        let mut table = Table::new(100);
        let mut longest = 0;
        for n in 0..1000_u32 {
            let value = n.to_string();
            table.add(b"name", value.as_bytes());
            assert_eq!(table.get(62), Some((&b"name"[..], value.as_bytes())));
            if n > 0 {
                assert_eq!(table.get(63).unwrap().1, (n - 1).to_string().as_bytes());
            }
            assert_eq!(table.get(64), None);
            longest = longest.max(table.bytes.len());
        }
        assert!(longest <= 200, "{longest}");
        table.add(b"large", &[b'x'; 100]);
        assert_eq!(table.get(62), None, "one that is too large empties it");
        table.add(b"a", b"b");
        table.resize(33);
        assert_eq!(table.get(62), None);
        assert_eq!(table.get(0), None);
        assert_eq!(table.get(usize::MAX), None);
    }
}

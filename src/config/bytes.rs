//! The parts of which the bytes in the tables of the shared memory consist.
//!
//! Numbers are eight bytes, little-endian. Text has its length before it, and a list has its count before it. A record is
//! a part with its length before it, so that a program can pass over a part that it does not know.

/// Writes bytes.
pub(in crate::config) struct Encoder(pub(in crate::config) Vec<u8>);

impl Encoder {
    pub(in crate::config) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(in crate::config) fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    pub(in crate::config) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(in crate::config) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Writes a text that may be absent.
    pub(in crate::config) fn option(&mut self, text: Option<&str>) {
        self.flag(text.is_some());
        self.text(text.unwrap_or_default());
    }

    pub(in crate::config) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Encoder, &T)) {
        self.number(items.len() as u64);
        items.iter().for_each(|item| write(self, item));
    }

    /// Writes a part with its length before it.
    pub(in crate::config) fn record(&mut self, write: impl FnOnce(&mut Encoder)) {
        let mut part = Encoder(Vec::new());
        write(&mut part);
        self.number(part.0.len() as u64);
        self.0.extend_from_slice(&part.0);
    }
}

/// Reads bytes. Its methods return `None` if the bytes are malformed.
pub(in crate::config) struct Decoder<'a>(pub(in crate::config) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(in crate::config) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(in crate::config) fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    pub(in crate::config) fn flag(&mut self) -> Option<bool> {
        Some(self.number()? != 0)
    }

    pub(in crate::config) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(in crate::config) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(in crate::config) fn option(&mut self) -> Option<Option<String>> {
        let is_given = self.flag()?;
        Some(Some(self.text()?).filter(|_| is_given))
    }

    pub(in crate::config) fn list<T>(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count: usize = self.small().filter(|&count| count <= most)?;
        (0..count).map(|_| read(self)).collect()
    }

    /// Reads a part with its length before it. Later programs may have appended bytes that this program does not read.
    pub(in crate::config) fn record<T>(&mut self, read: impl FnOnce(&mut Decoder<'a>) -> Option<T>) -> Option<T> {
        read(&mut Decoder(self.bytes()?))
    }
}

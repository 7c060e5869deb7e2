//! The frames that the proxy sends on an HTTP/2 connection, read again by an independent reader: no stream and no
//! connection carries more content than its window allows, even while SETTINGS change it (RFC 9113, 6.9.2).

use std::collections::{BTreeMap, VecDeque};

const HEADER_BYTES: usize = 9;
/// The length of a client's preface.
const PREFACE_BYTES: usize = 24;
/// The window of a stream before the first SETTINGS.
const FIRST_WINDOW: i64 = 65_535;

#[derive(Debug)]
pub(super) struct Wire {
    header: Vec<u8>,
    /// The bytes to skip: the preface, or the payload of a frame.
    skip: usize,
    /// The window sizes that the proxy has acknowledged, and those that it has not.
    window: i64,
    unacknowledged: VecDeque<i64>,
    /// The difference for each stream: updates minus content. 0 is the connection.
    credits: BTreeMap<u32, i64>,
    /// The owner of the connection's window.
    owner: &'static str,
    /// The frames of the owner that are not complete.
    sent: Vec<u8>,
}

impl Wire {
    /// Returns the reader of a connection on which SETTINGS with these windows were sent.
    pub(super) fn new(windows: &[u32]) -> Wire {
        let unacknowledged = windows.iter().copied().map(i64::from).collect();
        let (header, credits, sent) = (Vec::new(), BTreeMap::new(), Vec::new());
        let (skip, window, owner) = (PREFACE_BYTES, FIRST_WINDOW, "backend");
        Wire { header, skip, window, unacknowledged, credits, owner, sent }
    }

    /// Returns the reader of a connection to a client that has sent SETTINGS with these windows.
    pub(super) fn of_server(windows: &[u32]) -> Wire {
        Wire { skip: 0, owner: "client", ..Wire::new(windows) }
    }

    /// Notes SETTINGS that change no window.
    pub(super) fn allow_same(&mut self) {
        self.unacknowledged.push_back(self.unacknowledged.back().copied().unwrap_or(self.window));
    }

    /// Notes SETTINGS with another window.
    pub(super) fn allow(&mut self, window: u32) {
        self.unacknowledged.push_back(window.into());
    }

    /// Notes a WINDOW_UPDATE on a stream, or on the connection.
    pub(super) fn credit(&mut self, stream: u32, bytes: u32) {
        *self.credits.entry(stream).or_default() += i64::from(bytes);
    }

    /// Reads bytes that the owner of the windows sends, and notes the WINDOW_UPDATEs on its connection.
    pub(super) fn sends(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        while let Some(&[a, b, c, kind, _, s0, s1, s2, s3]) = self.sent.first_chunk() {
            let end = HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.sent.len() < end {
                return;
            }
            let frame: Vec<u8> = self.sent.drain(..end).collect();
            if let (8, [0, 0, 0, 0], Some(increment)) = (kind, [s0, s1, s2, s3], frame.last_chunk()) {
                self.credit(0, u32::from_be_bytes(*increment));
            }
        }
    }

    /// Reads received bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                (self.skip, bytes) = (self.skip - n, &bytes[n..]);
                continue;
            }
            let n = (HEADER_BYTES - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.header.len() == HEADER_BYTES {
                self.frame()?;
                self.header.clear();
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), String> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = &self.header[..] else { return Ok(()) };
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        self.skip = length as usize;
        match kind {
            0 if length > 0 => {
                let credit = self.credits.entry(stream).or_default();
                *credit -= i64::from(length);
                // A larger window may be used at once. A smaller one counts from its acknowledgement on.
                let most = self.unacknowledged.iter().copied().fold(self.window, i64::max);
                if *credit + most < 0 {
                    return Err(format!("{length} bytes on stream {stream} are {} too many", -(*credit + most)));
                }
                let credit = self.credits.entry(0).or_default();
                *credit -= i64::from(length);
                if *credit + FIRST_WINDOW < 0 {
                    let (excess, owner) = (-(*credit + FIRST_WINDOW), self.owner);
                    return Err(format!("{length} bytes are {excess} too many for the connection of the {owner}"));
                }
            }
            4 if flags & 1 == 1 => {
                self.window = self.unacknowledged.pop_front().ok_or("SETTINGS acknowledged that were not sent")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Pads the HEADERS frame in `out` at `from`, unless it has continuations or is full.
pub(super) fn pad_head(out: &mut Vec<u8>, from: usize, padding: u8) {
    let Some(&[a, b, c, ..]) = out.get(from..) else { return };
    let length = u32::from_be_bytes([0, a, b, c]);
    if from + HEADER_BYTES + length as usize != out.len() || length > 16_000 {
        return;
    }
    let padded = (length + 1 + u32::from(padding)).to_be_bytes();
    out[from..from + 3].copy_from_slice(&padded[1..]);
    out[from + 4] |= 0x8;
    out.insert(from + HEADER_BYTES, padding);
    out.extend(std::iter::repeat_n(0, padding.into()));
}

//! A witness of the windows of one HTTP/2 connection. It reads the frames of both directions: the proxy sends no more
//! content than its peer's windows allow, even while SETTINGS change them (RFC 9113, 6.9.2), and its own updates make no
//! window larger than the greatest one.
//!
//! The peer may send anything. An update that the proxy refuses counts as well, so the witness is never too strict.

use std::collections::{HashMap, VecDeque};

use zzz_lb::http2::frame::{ACK, HEADER_BYTES, Header, Kind, MAX_31, PREFACE};

/// The windows of streams and of the connection at the begin.
const FIRST_WINDOW: i64 = 65_535;
/// The longest payload of a frame that the proxy reads.
const FRAME_BYTES: u32 = 16_384;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

/// The windows for the content of one direction.
#[derive(Default)]
struct Windows {
    /// The size of a stream's first window, if SETTINGS have changed it.
    first: Option<i64>,
    /// For each stream, its updates minus its content. 0 is the connection.
    credits: HashMap<u32, i64>,
}

impl Windows {
    fn add(&mut self, stream: u32, bytes: i64) -> i64 {
        let credit = self.credits.entry(stream).or_default();
        *credit += bytes;
        *credit
    }

    /// The size of a stream's first window.
    fn first(&self, stream: u32) -> i64 {
        self.first.filter(|_| stream != 0).unwrap_or(FIRST_WINDOW)
    }
}

/// The frames of one direction that are not read yet.
struct Frames {
    held: Vec<u8>,
    /// The preface precedes the frames.
    greets: bool,
    /// The bytes are no frames that the reader can follow.
    garbled: bool,
}

impl Frames {
    fn new(greets: bool) -> Frames {
        Frames { held: Vec::new(), greets, garbled: false }
    }

    /// Returns the next frame, if it is complete.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        if self.greets {
            let preface = self.held.first_chunk::<{ PREFACE.len() }>()?;
            (self.greets, self.garbled) = (false, preface != PREFACE);
            self.held.drain(..PREFACE.len());
        }
        let header = Header::read(&self.held)?;
        self.garbled |= header.length > FRAME_BYTES;
        let whole = HEADER_BYTES + header.length as usize;
        if self.garbled || self.held.len() < whole {
            return None;
        }
        Some((header, self.held.drain(..whole).skip(HEADER_BYTES).collect()))
    }
}

/// A witness of one connection.
pub(super) struct Witness {
    /// The frames of the peer, and those of the proxy.
    heard: Frames,
    sent: Frames,
    /// The windows that the peer gives to the proxy, and those that the proxy gives to the peer.
    given: Windows,
    granted: Windows,
    /// The first windows of streams that the proxy has not acknowledged.
    unacknowledged: VecDeque<i64>,
}

impl Witness {
    pub(super) fn of_client() -> Witness {
        Witness::new(true)
    }

    pub(super) fn of_backend() -> Witness {
        Witness::new(false)
    }

    fn new(is_client: bool) -> Witness {
        Witness {
            heard: Frames::new(is_client),
            sent: Frames::new(!is_client),
            given: Windows::default(),
            granted: Windows::default(),
            unacknowledged: VecDeque::new(),
        }
    }

    /// Reads bytes that the peer sends.
    pub(super) fn hears(&mut self, bytes: &[u8]) {
        self.heard.held.extend_from_slice(bytes);
        while let Some((header, payload)) = self.heard.next() {
            match header.kind {
                Kind::Data => drop(self.granted.add(header.stream, -i64::from(header.length))),
                Kind::WindowUpdate => drop(self.given.add(header.stream, increment(&payload))),
                Kind::Settings if !header.has(ACK) => {
                    let before = self.unacknowledged.back().copied();
                    let before = before.unwrap_or(self.given.first(header.stream | 1));
                    self.unacknowledged.push_back(first_window(&payload).unwrap_or(before));
                }
                _ => {}
            }
            if header.kind == Kind::Data {
                self.granted.add(0, -i64::from(header.length));
            }
        }
    }

    /// Reads bytes that the proxy sends.
    pub(super) fn gets(&mut self, bytes: &[u8]) {
        self.sent.held.extend_from_slice(bytes);
        while let Some((header, payload)) = self.sent.next() {
            match header.kind {
                Kind::Data if header.length > 0 => self.on_content(header),
                Kind::WindowUpdate => {
                    let bytes = increment(&payload);
                    assert!(bytes > 0, "an update of a window by {bytes}");
                    let window = self.granted.add(header.stream, bytes) + self.granted.first(header.stream);
                    assert!(window <= MAX_31.into(), "a window of {window} bytes on stream {}", header.stream);
                }
                Kind::Settings if header.has(ACK) => {
                    self.given.first = self.unacknowledged.pop_front();
                    assert!(self.given.first.is_some(), "SETTINGS are acknowledged that were not sent");
                }
                Kind::Settings => self.granted.first = first_window(&payload).or(self.granted.first),
                _ => {}
            }
        }
    }

    fn on_content(&mut self, header: Header) {
        // A larger window may be used at once. A smaller one counts from its acknowledgement on.
        let first = self.unacknowledged.iter().copied().fold(self.given.first(header.stream), i64::max);
        for (stream, first) in [(header.stream, first), (0, FIRST_WINDOW)] {
            let left = self.given.add(stream, -i64::from(header.length)) + first;
            assert!(
                left >= 0,
                "{} bytes on stream {} are {} too many for {stream}",
                header.length,
                header.stream,
                -left
            );
        }
    }
}

/// The value of a WINDOW_UPDATE.
fn increment(payload: &[u8]) -> i64 {
    payload.first_chunk().map_or(0, |four| i64::from(u32::from_be_bytes(*four) & MAX_31))
}

/// The first window of streams in SETTINGS.
fn first_window(payload: &[u8]) -> Option<i64> {
    let (entries, _) = payload.as_chunks::<6>();
    let last = entries.iter().rev().find(|entry| entry[..2] == INITIAL_WINDOW_SIZE)?;
    last.last_chunk().map(|four| u32::from_be_bytes(*four).into())
}

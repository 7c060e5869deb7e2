//! An HTTP/2 connection in either role with any bytes and any use. Its memory stays within the limits, events
//! concern open streams, and it sends nothing unasked.
//!
//! The input is a byte for the role, then operations: a byte below 128 is the length of bytes to receive; any
//! other byte selects a call.

use std::collections::BTreeMap;

use zzz_lb::collections::slab::Key;
use zzz_lb::http::head::{Head, HeadRef};
use zzz_lb::http::part::Role;
use zzz_lb::http2::connection::{Connection, Event};
use zzz_lb::http2::frame::{self, HEADER_BYTES, Header, Kind, PREFACE};
use zzz_lb::http2::{ErrorCode, Spare};
use zzz_lb::limits::{H2_STREAMS, RESPONSE_FIELDS};

/// Panics if a limit is exceeded.
pub fn run(data: &[u8]) {
    run_with(data, true);
}

/// The same. If windows are not kept, content is sent beyond them, which must be noticed.
pub fn run_with(data: &[u8], keeps_windows: bool) {
    let Some((&role, mut data)) = data.split_first() else { return };
    let role = if role % 2 == 1 { Role::Server } else { Role::Client };
    let mut machine = Machine {
        h2: Connection::new(role),
        held: Vec::new(),
        out: Vec::new(),
        owned: Vec::new(),
        next: 0,
        left: 0,
        windows: Windows::new(),
        keeps_windows,
    };
    machine.h2.greet(&mut machine.out);
    while let Some((&operation, rest)) = data.split_first() {
        data = rest;
        if operation < 128 {
            let (bytes, rest) = data.split_at(data.len().min(operation.into()));
            data = rest;
            if !machine.receive(bytes) {
                return;
            }
        } else {
            machine.use_it(operation);
        }
        assert!(machine.h2.open_streams() <= H2_STREAMS as usize);
        assert!(machine.h2.holds_its_window(), "a part of the connection's window is lost");
        machine.out.clear();
    }
}

struct Machine {
    h2: Connection,
    held: Vec<u8>,
    out: Vec<u8>,
    /// Streams that were opened, and may be closed by now.
    owned: Vec<(u32, Key)>,
    next: u64,
    /// The remaining bytes of a frame that is received in parts: DATA or an unknown type.
    left: usize,
    windows: Windows,
    keeps_windows: bool,
}

/// The peer's flow-control windows, as the peer itself counts them (RFC 9113, 6.9).
struct Windows {
    connection: i64,
    /// The initial window of streams, and each stream's difference from it.
    initial: i64,
    streams: BTreeMap<u32, i64>,
}

impl Windows {
    fn new() -> Windows {
        Windows { connection: 65_535, initial: 65_535, streams: BTreeMap::new() }
    }

    /// Updates the windows for a frame from the peer.
    fn frame(&mut self, frame: &[u8]) {
        let (Some(header), Some(payload)) = (Header::read(frame), frame.get(HEADER_BYTES..)) else { return };
        match header.kind {
            Kind::Settings if !header.has(frame::ACK) => {
                for entry in payload.chunks_exact(6).filter(|entry| entry[..2] == [0, 4]) {
                    self.initial = i64::from(u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]));
                }
            }
            Kind::WindowUpdate => {
                let Some(&[a, b, c, d]) = payload.first_chunk() else { return };
                let increment = i64::from(u32::from_be_bytes([a & 0x7f, b, c, d]));
                match header.stream {
                    0 => self.connection += increment,
                    id => *self.streams.entry(id).or_default() += increment,
                }
            }
            _ => {}
        }
    }

    /// Updates the windows for sent content.
    fn sent(&mut self, id: u32, n: usize) {
        let stream = self.streams.entry(id).or_default();
        *stream -= n as i64;
        self.connection -= n as i64;
        assert!(n == 0 || self.connection >= 0, "{n} bytes more than the connection's window");
        assert!(n == 0 || self.initial + *stream >= 0, "{n} bytes more than the window of stream {id}");
    }
}

impl Machine {
    fn key(&mut self) -> Key {
        self.next += 1;
        Key::from_token(self.next)
    }

    fn is_owned(&self, key: Key) {
        assert!(self.owned.iter().any(|&(_, owner)| owner == key), "an event of a stream that nobody has opened");
    }

    /// Receives bytes. Returns false if the connection cannot be used any more.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        self.held.extend_from_slice(bytes);
        let (mut head, mut arena) = (Head::default(), Vec::new());
        loop {
            let before = self.out.len();
            let Ok((skip, event)) = self.h2.decode(&self.held, &mut head, &mut arena, &mut self.out) else {
                return false;
            };
            assert!(skip <= self.held.len());
            assert!(self.out.len() - before <= 64, "an answer longer than what it answers");
            self.passed_over(skip);
            self.held.drain(..skip);
            match event {
                Event::NeedMore => {
                    assert!(self.held.len() < 9 + 16_384, "a whole frame waits");
                    return true;
                }
                Event::Opened(id) | Event::Unheard(id, _) => {
                    let key = self.key();
                    self.h2.own(id, key);
                    self.owned.push((id, key));
                }
                Event::Head(key) | Event::Interim(key) | Event::Trailers(key) => {
                    self.is_owned(key);
                    assert!(head.fields.len() <= RESPONSE_FIELDS);
                    let view = HeadRef { bytes: &arena, head: &head };
                    for (_, name, value) in view.fields() {
                        assert!(!name.is_empty() && !value.iter().any(|byte| b"\r\n\0".contains(byte)));
                    }
                }
                Event::Data(owner, n) => {
                    assert!(n <= self.held.len());
                    self.held.drain(..n);
                    self.left -= n;
                    if let Some(key) = owner {
                        self.is_owned(key);
                        let id = self.owned.iter().find(|&&(_, owner)| owner == key).map_or(0, |&(id, _)| id);
                        let spare = Spare { free: 2 * n as u32, lent: n as u32 };
                        self.h2.delivered(id, n, (n % 2 == 0).then_some(spare), &mut self.out);
                    }
                }
                Event::End(key) | Event::Reset(key, _) | Event::Malformed(key, _) => self.is_owned(key),
                Event::Nothing | Event::Refused | Event::Room | Event::GoAway(_) | Event::Pong => {}
            }
        }
    }

    /// Updates the windows if the skipped bytes are a frame.
    fn passed_over(&mut self, skip: usize) {
        if self.left > 0 || skip == 0 {
            self.left -= skip;
        } else if let Some(header) = Header::read(&self.held).filter(|_| !self.held.starts_with(PREFACE)) {
            match header.kind {
                Kind::Data | Kind::Unknown => self.left = HEADER_BYTES + header.length as usize - skip,
                _ => self.windows.frame(&self.held[..skip]),
            }
        }
    }

    fn use_it(&mut self, operation: u8) {
        let at = usize::from(operation) % self.owned.len().max(1);
        let id = self.owned.get(at).map_or(0, |&(id, _)| id);
        match operation % 8 {
            0 | 1 => {
                let key = self.key();
                if let Some(id) = self.h2.open(key) {
                    self.owned.push((id, key));
                    self.h2.write_fields(id, b"\x82\x84\x86", operation >= 192, &mut self.out);
                }
            }
            2 => drop(self.h2.forget(id, ErrorCode::CANCEL, &mut self.out)),
            3 => self.h2.ping(&mut self.out),
            4 => self.h2.taken(id, &mut self.out),
            5 => self.h2.write_fields(id, b"\x88", operation >= 192, &mut self.out),
            _ => {
                self.h2.line_up(id);
                while let Some((id, _, room)) = self.h2.next_in_line() {
                    assert!(room <= 16_384);
                    let n = if self.keeps_windows { room.min(operation.into()) } else { operation.into() };
                    if self.h2.data(id, n, operation >= 240).is_some() {
                        self.windows.sent(id, n);
                    }
                }
            }
        }
    }
}

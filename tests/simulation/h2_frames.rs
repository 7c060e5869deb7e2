//! HTTP/2 as a virtual client reads and writes it. The reader of frames and the encoder of fields are independent of the
//! proxy's code, so they do not share its mistakes. Only the decoder of fields is the proxy's own. The reader accepts
//! only the frames that a server may send.

use std::collections::VecDeque;

use zzz_lb::hpack::Decoder;

use super::message::Trailers;
use super::network::Dice;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// A type that no RFC defines.
pub(super) const UNKNOWN: u8 = 0xfa;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const INTERNAL_ERROR: u32 = 2;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;

/// The greatest stream number, and the greatest window.
pub(super) const MOST: u32 = 0x7fff_ffff;
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest payload of a frame before SETTINGS allow more.
pub(super) const FRAME_BYTES: usize = 16_384;

const HEADER_BYTES: usize = 9;
/// The size of the dynamic table of either side.
const TABLE_BYTES: usize = 4096;

/// A frame from the proxy.
#[derive(Debug)]
pub(super) enum Frame {
    /// `length` includes padding.
    Data {
        stream: u32,
        bytes: Vec<u8>,
        length: usize,
        end: bool,
    },
    Fields {
        stream: u32,
        fields: Trailers,
        end: bool,
    },
    Reset(u32, u32),
    /// The initial window of streams, if the frame changes it.
    Settings(Option<u32>),
    SettingsAck,
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway {
        last: u32,
        code: u32,
    },
    Window(u32, u32),
}

/// Reads the frames of a server.
pub(super) struct Frames {
    held: Vec<u8>,
    decoder: Decoder,
    /// The stream of an incomplete block, its END_STREAM, and its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// The server's SETTINGS have arrived.
    settled: bool,
    /// The table sizes that the server has not acknowledged, or the window's places between them.
    tables: VecDeque<Option<usize>>,
    table: usize,
    /// The next block must begin with a change of the table's size (RFC 7541, 4.2).
    resized: bool,
}

impl Frames {
    pub(super) fn new() -> Frames {
        Frames {
            held: Vec::new(),
            decoder: Decoder::new(TABLE_BYTES),
            block: None,
            settled: false,
            tables: VecDeque::new(),
            table: TABLE_BYTES,
            resized: false,
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Notes SETTINGS to the server, and the table size in them.
    pub(super) fn told(&mut self, table: Option<usize>) {
        self.tables.push_back(table);
    }

    /// True if the bytes so far end at the end of a frame, and of a block.
    pub(super) fn is_between(&self) -> bool {
        self.held.is_empty() && self.block.is_none()
    }

    /// Returns the next frame if it is complete.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = self.held.first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes([s0, s1, s2, s3]);
            if length > FRAME_BYTES {
                return Err(format!("a frame of {length} bytes"));
            }
            if self.held.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            let payload: Vec<u8> = self.held.drain(..HEADER_BYTES + length).skip(HEADER_BYTES).collect();
            if !self.settled && (kind, flags) != (SETTINGS, 0) {
                return Err(format!("the first frame has the type {kind}"));
            }
            self.settled = true;
            if self.block.is_some() != (kind == CONTINUATION) {
                return Err(format!("a frame of type {kind}, and a block: {:?}", self.block));
            }
            if let Some(frame) = self.frame(kind, flags, stream, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> Result<Option<Frame>, String> {
        let number = |at: usize| payload.get(at..at + 4).map_or(0, |four| u32::from_be_bytes(four.try_into().unwrap()));
        let length = payload.len();
        let strange = Err(format!("a strange frame: type {kind}, {flags:#x}, stream {stream}, {length} bytes"));
        let on_stream = stream % 2 == 1;
        Ok(Some(match (kind, length) {
            (DATA, _) if on_stream => {
                let mut bytes = payload;
                if flags & PADDED != 0 {
                    let padding = usize::from(*bytes.first().ok_or("DATA without the length of its padding")?);
                    let content = length.checked_sub(1 + padding).ok_or("padding longer than its frame")?;
                    bytes = bytes[1..1 + content].to_vec();
                }
                Frame::Data { stream, bytes, length, end: flags & END_STREAM != 0 }
            }
            (HEADERS, _) if on_stream && flags & (PADDED | WITH_PRIORITY) == 0 => {
                return self.block(stream, flags & END_STREAM != 0, flags & END_HEADERS != 0, payload);
            }
            (CONTINUATION, _) => {
                let Some((of, end, mut block)) = self.block.take().filter(|block| block.0 == stream) else {
                    return strange;
                };
                block.extend(payload);
                return self.block(of, end, flags & END_HEADERS != 0, block);
            }
            (RST_STREAM, 4) if on_stream => Frame::Reset(stream, number(0)),
            (SETTINGS, 0) if stream == 0 && flags == ACK => {
                if let Some(table) = self.tables.pop_front().ok_or("SETTINGS acknowledged that were not sent")? {
                    self.resized |= table < self.table;
                    self.table = table;
                }
                Frame::SettingsAck
            }
            (SETTINGS, _) if stream == 0 && flags == 0 && length.is_multiple_of(6) => {
                let mut window = None;
                for entry in payload.chunks(6) {
                    let value = u32::from_be_bytes(entry[2..].try_into().unwrap());
                    match u16::from_be_bytes([entry[0], entry[1]]) {
                        2 if value != 0 => return Err("a server that pushes".into()),
                        3 if value < 100 => return Err(format!("a limit of {value} streams")),
                        INITIAL_WINDOW_SIZE => window = Some(value),
                        _ => {}
                    }
                }
                Frame::Settings(window)
            }
            (PING, 8) if stream == 0 => {
                let payload = payload.try_into().unwrap();
                if flags == ACK { Frame::Pong(payload) } else { Frame::Ping(payload) }
            }
            (GOAWAY, 8..) if stream == 0 => Frame::GoAway { last: number(0), code: number(4) },
            (WINDOW_UPDATE, 4) if (stream == 0 || on_stream) && (1..=MOST).contains(&number(0)) => {
                Frame::Window(stream, number(0))
            }
            _ => return strange,
        }))
    }

    fn block(&mut self, stream: u32, end: bool, whole: bool, block: Vec<u8>) -> Result<Option<Frame>, String> {
        if !whole {
            self.block = Some((stream, end, block));
            return Ok(None);
        }
        if std::mem::take(&mut self.resized) && block.first().is_none_or(|first| first >> 5 != 1) {
            return Err(format!("a block that does not change the table's size first, on stream {stream}"));
        }
        let mut fields = Trailers::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let decoded = self.decoder.decode(&block, usize::MAX, |name, value| fields.push((text(name), text(value))));
        decoded.map_err(|error| format!("a block that cannot be decoded: {error:?}"))?;
        if let Some((name, _)) = fields.iter().find(|(name, _)| name.to_ascii_lowercase() != *name) {
            return Err(format!("the name {name}"));
        }
        Ok(Some(Frame::Fields { stream, fields, end }))
    }
}

/// Writes a frame.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Writes a block of fields as HEADERS, and as CONTINUATIONs if it is long or `pieces` is more than 1.
pub(super) fn write_block(out: &mut Vec<u8>, stream: u32, block: &[u8], end: bool, pieces: usize) {
    let most = (block.len() / pieces.max(1) + 1).min(FRAME_BYTES);
    let count = block.len().div_ceil(most).max(1);
    for (at, piece) in block.chunks(most).enumerate() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let ends = if end && at == 0 { END_STREAM } else { 0 };
        write(out, kind, ends | if at + 1 == count { END_HEADERS } else { 0 }, stream, piece);
    }
}

/// Encodes fields with the dynamic table, in each representation of RFC 7541, 6.
pub(super) struct Encoder {
    /// The entries, newest first, and their sizes together.
    table: VecDeque<(String, String)>,
    size: usize,
}

impl Encoder {
    pub(super) fn new() -> Encoder {
        Encoder { table: VecDeque::new(), size: 0 }
    }

    pub(super) fn encode(&mut self, dice: &mut Dice, fields: &[(String, String)]) -> Vec<u8> {
        let mut out = Vec::new();
        for field in fields {
            let at = self.table.iter().position(|entry| entry == field).filter(|_| dice.percent(80));
            match (at, dice.below(3)) {
                // The static table has 61 entries.
                (Some(at), _) => integer(&mut out, 0x80, 7, 62 + at),
                (None, _) if field.0 == ":method" && field.1 == "GET" && dice.percent(50) => out.push(0x82),
                (None, way) => {
                    out.push([0x40, 0x00, 0x10][way]);
                    [&field.0, &field.1].into_iter().for_each(|text| {
                        integer(&mut out, 0, 7, text.len());
                        out.extend_from_slice(text.as_bytes());
                    });
                    if way == 0 {
                        self.insert(field.clone());
                    }
                }
            }
        }
        out
    }

    fn insert(&mut self, field: (String, String)) {
        let size = |field: &(String, String)| field.0.len() + field.1.len() + 32;
        self.size += size(&field);
        self.table.push_front(field);
        while self.size > TABLE_BYTES {
            self.size -= self.table.pop_back().map_or(self.size, |field| size(&field));
        }
    }
}

/// Writes an integer (RFC 7541, 5.1).
fn integer(out: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(pattern | value as u8);
    }
    out.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

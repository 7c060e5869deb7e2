//! A client's HTTP/2 connection, with frames of its own, so that an error in the program's `http2` cannot hide itself.
//! Only the frame's header and HPACK are the program's.
//!
//! A stream is open until its response is complete, it is reset, the server says that it was not processed
//! (RFC 9113, 6.8 and 8.7), or the connection ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use zzz_lb::hpack::Decoder;
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::frame::{self, ACK, END_HEADERS, END_STREAM, HEADER_BYTES, Header, Kind, MAX_31, PADDED, PREFACE};

use super::super::frames::fields;
use super::super::wire::{Fault, Wire};

/// The first window of a stream and of the connection, and the longest frame, in bytes.
const WINDOW: i64 = 65_535;
const FRAME: usize = 16_384;
/// The received content that gets its credit in one frame.
const CREDIT: usize = 16_384;
const INITIAL_WINDOW_SIZE: u16 = 4;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The progress of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The response is not complete.
    Open,
    /// The response is complete.
    Complete,
    /// The server has not processed the request, and never will on this connection.
    Unprocessed,
    /// The server reset it, or the connection ended.
    Lost(String),
}

/// One request and its response.
pub struct Stream {
    /// Its progress.
    pub state: State,
    /// The fields of the response's head.
    pub head: Vec<(String, String)>,
    /// The content so far.
    pub content: Vec<u8>,
    /// The fields after the content.
    pub trailers: Vec<(String, String)>,
    window: i64,
    waiting: Vec<u8>,
    ends: bool,
    uncredited: usize,
}

impl Stream {
    /// The status of the response; 0 if there is none yet.
    pub fn status(&self) -> u16 {
        value(&self.head, ":status").and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The value of a trailer.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        value(&self.trailers, name)
    }
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

/// The connection.
pub struct Session {
    wire: Wire,
    decoder: Decoder,
    streams: BTreeMap<u32, Stream>,
    next: u32,
    window: i64,
    initial: i64,
    uncredited: usize,
    /// The last stream and the error of the last GOAWAY.
    goaway: Option<(u32, ErrorCode)>,
    settings: bool,
    /// True if the server accepts extended CONNECT.
    pub connects: bool,
    /// The first error of a write. The reads tell how the connection ended.
    broken: Option<String>,
    /// The end of the connection.
    end: Option<Fault>,
}

impl Session {
    /// Sends the preface.
    pub fn new(wire: Wire) -> Session {
        let mut session = Session {
            wire,
            decoder: Decoder::new(4096),
            streams: BTreeMap::new(),
            next: 1,
            window: WINDOW,
            initial: WINDOW,
            uncredited: 0,
            goaway: None,
            settings: false,
            connects: false,
            broken: None,
            end: None,
        };
        let mut bytes = PREFACE.to_vec();
        frame::write(&mut bytes, Kind::Settings, 0, 0, &[]);
        session.write(&bytes);
        session
    }

    /// True if it may open streams.
    pub fn is_usable(&self) -> bool {
        self.goaway.is_none() && self.end.is_none()
    }

    /// Reads until the server's settings are known, or the connection has ended.
    pub fn wait_for_settings(&mut self) {
        while !self.settings && self.end.is_none() {
            self.read();
        }
    }

    /// Opens a stream.
    pub fn open(&mut self, list: &[(&str, &str)], end: bool) -> u32 {
        let id = self.next;
        self.next += 2;
        let stream = Stream {
            state: State::Open,
            head: Vec::new(),
            content: Vec::new(),
            trailers: Vec::new(),
            window: self.initial,
            waiting: Vec::new(),
            ends: false,
            uncredited: 0,
        };
        self.streams.insert(id, stream);
        let mut bytes = Vec::new();
        let flags = if end { END_HEADERS | END_STREAM } else { END_HEADERS };
        frame::write(&mut bytes, Kind::Headers, flags, id, &fields(list));
        self.write(&bytes);
        id
    }

    /// Sends content, as the windows allow.
    pub fn send(&mut self, id: u32, bytes: &[u8], end: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.waiting.extend_from_slice(bytes);
            stream.ends = end;
        }
        self.flush();
    }

    /// A stream.
    pub fn stream(&self, id: u32) -> &Stream {
        &self.streams[&id]
    }

    /// Removes a stream.
    pub fn take(&mut self, id: u32) -> Stream {
        self.streams.remove(&id).expect("it was opened and not taken before")
    }

    /// Reads while the stream is open and `more` holds.
    pub fn read_while(&mut self, id: u32, more: impl Fn(&Stream) -> bool) {
        while self.stream(id).state == State::Open && more(self.stream(id)) {
            self.read();
        }
    }

    /// Reads what arrives during this time.
    pub fn idle(&mut self, time: Duration) {
        let begun = Instant::now();
        while self.end.is_none() {
            let left = time.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            if self.wire.silent_for(left) {
                break;
            }
            self.read();
        }
    }

    /// Reads a frame.
    fn read(&mut self) {
        if let Err(fault) = self.try_read() {
            let (broken, goaway) = (&self.broken, self.goaway);
            let story = format!("{fault:?}, GOAWAY: {goaway:?}, write: {broken:?}");
            for stream in self.streams.values_mut().filter(|stream| stream.state == State::Open) {
                let head = stream.status();
                let part = format!("{} of a response with status {head} and", stream.content.len());
                stream.state = State::Lost(format!("{story} after {part} {} bytes unsent", stream.waiting.len()));
            }
            self.end = Some(fault);
        }
    }

    fn try_read(&mut self) -> Result<(), Fault> {
        let (header, payload) = self.frame()?;
        match header.kind {
            Kind::Data => self.on_data(header, payload)?,
            Kind::Headers => self.on_headers(header, payload)?,
            Kind::RstStream => {
                let code = ErrorCode(number(&payload)?);
                if let Some(stream) = self.streams.get_mut(&header.stream)
                    && stream.state == State::Open
                {
                    let part = stream.content.len();
                    stream.state = match code {
                        ErrorCode::REFUSED_STREAM => State::Unprocessed,
                        code => State::Lost(format!("RST_STREAM {code:?} after {part} bytes")),
                    };
                }
            }
            Kind::Settings if !header.has(ACK) => self.on_settings(&payload)?,
            Kind::Ping if !header.has(ACK) => self.answer(Kind::Ping, ACK, 0, &payload),
            Kind::Goaway => {
                let last = number(&payload)? & MAX_31;
                self.goaway = Some((last, ErrorCode(number(&payload[4..])?)));
                for (_, stream) in self.streams.range_mut(last.saturating_add(1)..) {
                    if stream.state == State::Open {
                        stream.state = State::Unprocessed;
                    }
                }
            }
            Kind::WindowUpdate => {
                let more = i64::from(number(&payload)?);
                match (header.stream, self.streams.get_mut(&header.stream)) {
                    (0, _) => self.window += more,
                    (_, Some(stream)) => stream.window += more,
                    _ => {}
                }
            }
            _ => {}
        }
        self.flush();
        Ok(())
    }

    fn frame(&mut self) -> Result<(Header, Vec<u8>), Fault> {
        let header = Header::read(&self.wire.exactly(HEADER_BYTES)?).expect("nine bytes");
        let payload = self.wire.exactly(header.length as usize)?;
        Ok((header, payload))
    }

    fn on_data(&mut self, header: Header, payload: Vec<u8>) -> Result<(), Fault> {
        if header.has(PADDED) {
            return Err(Fault::Malformed("padding, which the balancer does not use".into()));
        }
        self.uncredited += payload.len();
        let mut credits = Vec::new();
        if self.uncredited >= CREDIT {
            credits.push((0, std::mem::take(&mut self.uncredited)));
        }
        if let Some(stream) = self.streams.get_mut(&header.stream) {
            if stream.status() == 0 {
                return Err(Fault::Malformed(format!("DATA before HEADERS on stream {}", header.stream)));
            }
            stream.uncredited += payload.len();
            stream.content.extend_from_slice(&payload);
            if header.has(END_STREAM) {
                stream.state = State::Complete;
            } else if stream.uncredited >= CREDIT {
                credits.push((header.stream, std::mem::take(&mut stream.uncredited)));
            }
        }
        for (id, count) in credits {
            self.answer(Kind::WindowUpdate, 0, id, &(count as u32).to_be_bytes());
        }
        Ok(())
    }

    fn on_headers(&mut self, header: Header, mut block: Vec<u8>) -> Result<(), Fault> {
        let mut ends = header.has(END_HEADERS);
        while !ends {
            let (header, payload) = self.frame()?;
            block.extend_from_slice(&payload);
            ends = header.has(END_HEADERS);
        }
        let mut list = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let decoded = self.decoder.decode(&block, usize::MAX, |name, value| list.push((text(name), text(value))));
        decoded.map_err(|error| Fault::Malformed(format!("{error:?}")))?;
        let Some(stream) = self.streams.get_mut(&header.stream) else { return Ok(()) };
        if stream.status() >= 200 {
            stream.trailers = list;
        } else {
            stream.head = list;
        }
        if header.has(END_STREAM) {
            stream.state = State::Complete;
        }
        Ok(())
    }

    fn on_settings(&mut self, payload: &[u8]) -> Result<(), Fault> {
        for one in payload.chunks_exact(6) {
            let value = number(&one[2..])?;
            match u16::from_be_bytes([one[0], one[1]]) {
                INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.initial;
                    self.initial += change;
                    self.streams.values_mut().for_each(|stream| stream.window += change);
                }
                ENABLE_CONNECT_PROTOCOL => self.connects = value == 1,
                _ => {}
            }
        }
        self.settings = true;
        self.answer(Kind::Settings, ACK, 0, &[]);
        Ok(())
    }

    fn answer(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind, flags, stream, payload);
        self.write(&bytes);
    }

    /// Sends as much content as the windows allow.
    fn flush(&mut self) {
        let mut bytes = Vec::new();
        for (&id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.state == State::Open) {
            while !stream.waiting.is_empty() || stream.ends {
                let room = self.window.min(stream.window).clamp(0, FRAME as i64) as usize;
                let n = room.min(stream.waiting.len());
                if n == 0 && !stream.waiting.is_empty() {
                    break;
                }
                let last = stream.ends && n == stream.waiting.len();
                let payload: Vec<u8> = stream.waiting.drain(..n).collect();
                frame::write(&mut bytes, Kind::Data, if last { END_STREAM } else { 0 }, id, &payload);
                stream.window -= n as i64;
                self.window -= n as i64;
                stream.ends &= !last;
            }
        }
        if !bytes.is_empty() {
            self.write(&bytes);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.broken.is_none()
            && let Err(error) = self.wire.try_send(bytes)
        {
            self.broken = Some(error.to_string());
        }
    }
}

/// The number at the front of a payload.
fn number(payload: &[u8]) -> Result<u32, Fault> {
    let front = payload.first_chunk().ok_or_else(|| Fault::Malformed("a short frame".into()))?;
    Ok(u32::from_be_bytes(*front))
}

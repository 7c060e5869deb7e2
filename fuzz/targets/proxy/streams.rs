//! A witness at a client that speaks HTTP/2. It reads the frames that the proxy sends: each stream gets at most one final
//! response and no content that was made for another request, and nothing follows the end or the reset of a stream.

use std::collections::HashMap;

use zzz_lb::hpack::{self, Decoder};
use zzz_lb::http::head::{Head, HeadRef};
use zzz_lb::http::part::Role;
use zzz_lb::http2::connection::{Connection as Http2, Event};
use zzz_lb::http2::frame::{self, ACK, END_HEADERS, END_STREAM, HEADER_BYTES, Header, Kind, PREFACE};

use super::witness::{TAGGED_BYTES, content, tag_of};

/// The longest payload of a frame, unless the client allows more.
const FRAME_BYTES: u32 = 16_384;

/// The response on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Response {
    Awaited,
    /// The tag, and the length of the content so far.
    Begun(Option<usize>, usize),
    Over,
}

/// One stream that the client has opened.
struct Asked {
    tag: Option<usize>,
    is_head: bool,
    response: Response,
}

/// A witness of one connection.
pub(super) struct Streams {
    /// Reads the sent bytes.
    requests: Http2,
    unread: Vec<u8>,
    /// The sent bytes are no valid frames any more, or the reader does not know their meaning.
    garbled: bool,
    asked: HashMap<u32, Asked>,
    last: u32,
    got: Vec<u8>,
    decoder: Decoder,
    /// The stream of an incomplete block, its END_STREAM, and its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    is_settled: bool,
}

impl Streams {
    pub(super) fn new() -> Streams {
        Streams {
            requests: Http2::new(Role::Server),
            unread: Vec::new(),
            garbled: false,
            asked: HashMap::new(),
            last: 0,
            got: Vec::new(),
            decoder: Decoder::new(4096),
            block: None,
            is_settled: false,
        }
    }

    /// The first bytes of the client.
    pub(super) fn greeting() -> Vec<u8> {
        let mut out = PREFACE.to_vec();
        frame::write(&mut out, Kind::Settings, 0, 0, &[]);
        out
    }

    /// Returns a tagged request on the client's next stream.
    pub(super) fn request(&self, method: &str, tag: usize, body: &[u8]) -> Vec<u8> {
        let (mut block, mut out) = (Vec::new(), Vec::new());
        let path = format!("/r/{tag}");
        for (name, value) in [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path.as_str())] {
            hpack::encode(&mut block, name.as_bytes(), value.as_bytes());
        }
        let stream = self.last + 1 + self.last % 2;
        frame::fields(&mut out, stream, &block, body.is_empty(), 16_384);
        if !body.is_empty() {
            frame::write(&mut out, Kind::Data, END_STREAM, stream, body);
        }
        out
    }

    pub(super) fn asks(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let (mut head, mut arena, mut out) = (Head::default(), Vec::new(), Vec::new());
        while !self.garbled {
            let Ok((skip, event)) = self.requests.decode(&self.unread, &mut head, &mut arena, &mut out) else {
                self.garbled = true;
                return;
            };
            self.unread.drain(..skip);
            match event {
                Event::NeedMore => return,
                Event::Opened(id) => {
                    let view = HeadRef { bytes: &arena, head: &head };
                    self.opened(id, tag_of(view), view.method() == b"HEAD");
                }
                Event::Unheard(id, _) => self.opened(id, None, false),
                // The proxy has another limit, or other windows.
                Event::Refused => self.garbled = true,
                Event::Data(_, n) => drop(self.unread.drain(..n)),
                _ => {}
            }
        }
    }

    fn opened(&mut self, id: u32, tag: Option<usize>, is_head: bool) {
        self.last = id;
        self.asked.insert(id, Asked { tag, is_head, response: Response::Awaited });
    }

    pub(super) fn gets(&mut self, bytes: &[u8]) {
        self.got.extend_from_slice(bytes);
        while let Some(header) = Header::read(&self.got) {
            assert!(header.length <= FRAME_BYTES, "a frame of {} bytes", header.length);
            let whole = HEADER_BYTES + header.length as usize;
            if self.got.len() < whole {
                return;
            }
            let payload: Vec<u8> = self.got.drain(..whole).skip(HEADER_BYTES).collect();
            let first = header.kind == Kind::Settings && !header.has(ACK);
            assert!(self.is_settled || first, "the first frame is {:?}", header.kind);
            self.is_settled = true;
            assert_eq!(self.block.is_some(), header.kind == Kind::Continuation, "a block is whole");
            self.on_frame(header, payload);
        }
    }

    fn on_frame(&mut self, header: Header, payload: Vec<u8>) {
        let id = header.stream;
        match header.kind {
            Kind::Headers => self.on_block(id, header.has(END_STREAM), header.has(END_HEADERS), payload),
            Kind::Continuation => {
                if let Some((of, end, block)) = self.block.take() {
                    assert_eq!(of, id, "a block is of one stream");
                    self.on_block(id, end, header.has(END_HEADERS), [block, payload].concat());
                }
            }
            Kind::Data => {
                let Some(asked) = self.asked(id) else { return };
                let Response::Begun(tag, at) = asked.response else {
                    panic!("content on stream {id} in {:?}", asked.response);
                };
                let end = at + payload.len();
                let right = tag.is_none_or(|tag| content(tag).get(at..end) == Some(&payload[..]));
                assert!(right, "content of another request");
                asked.response = Response::Begun(tag, end);
                if header.has(END_STREAM) {
                    asked.end();
                }
            }
            Kind::RstStream => {
                if let Some(asked) = self.asked(id) {
                    asked.response = Response::Over;
                }
            }
            _ => {}
        }
    }

    /// The request on a stream. There must be one, if the bytes of the client are known.
    fn asked(&mut self, id: u32) -> Option<&mut Asked> {
        let garbled = self.garbled;
        let asked = self.asked.get_mut(&id);
        assert!(garbled || asked.is_some(), "a frame on stream {id}, which was not opened");
        asked
    }

    fn on_block(&mut self, id: u32, end: bool, whole: bool, block: Vec<u8>) {
        if !whole {
            self.block = Some((id, end, block));
            return;
        }
        let (mut status, mut answered) = (None, None);
        let sink = |name: &[u8], value: &[u8]| {
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
            match name {
                b":status" => status = number(),
                b"x-tag" => answered = number(),
                _ => {}
            }
        };
        self.decoder.decode(&block, usize::MAX, sink).expect("a client can decode what it gets");
        let Some(asked) = self.asked(id) else { return };
        match (asked.response, status) {
            (Response::Awaited, Some(100..200)) => assert!(!end, "an interim response does not end a stream"),
            (Response::Awaited, Some(_)) => {
                assert!(answered.is_none() || answered == asked.tag, "{:?} got the answer to {answered:?}", asked.tag);
                asked.response = Response::Begun(answered, 0);
            }
            (Response::Begun(..), None) => assert!(end, "trailers end a stream"),
            (response, status) => panic!("fields with the status {status:?} on stream {id} in {response:?}"),
        }
        if end {
            asked.end();
        }
    }
}

impl Asked {
    /// The response is complete.
    fn end(&mut self) {
        if let Response::Begun(Some(_), got) = self.response {
            assert!(self.is_head || got == TAGGED_BYTES, "a response of {got} bytes seems complete");
        }
        self.response = Response::Over;
    }
}

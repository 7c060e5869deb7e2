//! The witnesses of the target `proxy`: they read the bytes that the proxy sends to clients and backends.

use std::collections::{HashMap, VecDeque};

use zzz_lb::hpack;
use zzz_lb::http::framing::{self, RequestFacts};
use zzz_lb::http::head::{Head, HeadRef, Start};
use zzz_lb::http::part::{Part, Role};
use zzz_lb::http1::connection::Connection as Http1;
use zzz_lb::http2::connection::{Connection as Http2, Event};
use zzz_lb::http2::frame::{self, Kind, PREFACE};

/// The length of the response to a tagged request.
pub(super) const TAGGED_BYTES: usize = 16;

/// Returns the content of the response to a tagged request.
pub(super) fn content(tag: usize) -> [u8; TAGGED_BYTES] {
    std::array::from_fn(|at| (tag * 37 + at * 11) as u8)
}

/// Returns the tag of a request, by its path.
pub(super) fn tag_of(view: HeadRef<'_>) -> Option<usize> {
    let Start::Request { path, .. } = view.head.start else { return None };
    std::str::from_utf8(view.get(path)).ok()?.strip_prefix("/r/")?.parse().ok()
}

pub(super) fn field<'a>(view: HeadRef<'a>, wanted: &str) -> Option<&'a str> {
    let found = view.fields().find(|(_, name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
    std::str::from_utf8(found?.2).ok()
}

/// A witness at a client. It reads requests and responses with a reader of its own, but no HTTP/2.
pub(super) struct Client {
    requests: Http1,
    /// The sent bytes that are not read as requests yet.
    unread: Vec<u8>,
    asked: VecDeque<(RequestFacts, Option<usize>)>,
    /// The sent bytes are no valid requests any more.
    garbled: bool,
    responses: Http1,
    got: Vec<u8>,
    /// The tag of the current response, and the length of its content so far.
    reading: Option<(usize, usize)>,
    over: bool,
}

impl Client {
    pub(super) fn new() -> Client {
        Client {
            requests: Http1::new(Role::Server),
            unread: Vec::new(),
            asked: VecDeque::new(),
            garbled: false,
            responses: Http1::new(Role::Client),
            got: Vec::new(),
            reading: None,
            over: false,
        }
    }

    pub(super) fn asks(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let mut head = Head::default();
        while !self.garbled {
            let Ok((skip, part)) = self.requests.decode(&self.unread, &mut head) else {
                self.garbled = true;
                return;
            };
            self.unread.drain(..skip);
            let length = match part {
                Part::NeedMore => return,
                Part::Head(length) | Part::Interim(length) | Part::Data(length) | Part::Trailers(length) => length,
                Part::End => {
                    self.requests.next_message();
                    continue;
                }
            };
            if let Part::Head(length) = part {
                let view = HeadRef { bytes: &self.unread[..length], head: &head };
                let is_head = view.method() == b"HEAD";
                let facts = framing::request(view);
                self.garbled = facts.is_err();
                let facts = facts.unwrap_or(RequestFacts::unread(is_head));
                self.asked.push_back((facts, tag_of(view)));
                self.requests.read_body(facts.body);
            }
            self.unread.drain(..length);
        }
    }

    /// Returns true if one response more than requests is allowed: a reply to a malformed or incomplete request.
    fn may_be_refused(&mut self) -> bool {
        let partial = self.requests.awaits_head() && !self.unread.is_empty();
        self.over = true;
        self.garbled || partial
    }

    pub(super) fn gets(&mut self, bytes: &[u8]) {
        self.got.extend_from_slice(bytes);
        self.over |= self.unread.starts_with(PREFACE);
        let mut head = Head::default();
        while !self.over {
            let (skip, part) = self.responses.decode(&self.got, &mut head).expect("a client can read what it gets");
            self.got.drain(..skip);
            let length = match part {
                Part::NeedMore => return,
                Part::Head(length) | Part::Interim(length) | Part::Data(length) | Part::Trailers(length) => length,
                Part::End => {
                    self.responses.next_message();
                    continue;
                }
            };
            match part {
                Part::Head(_) => {
                    let bytes = self.got[..length].to_vec();
                    self.final_head(HeadRef { bytes: &bytes, head: &head });
                }
                Part::Data(_) => {
                    if let Some((tag, at)) = &mut self.reading {
                        let end = *at + length;
                        assert!(content(*tag).get(*at..end) == Some(&self.got[..length]), "content of another request");
                        *at = end;
                    }
                }
                _ => {}
            }
            self.got.drain(..length);
        }
    }

    fn final_head(&mut self, view: HeadRef<'_>) {
        if view.status() == 101 {
            self.over = true;
            return;
        }
        let Some((facts, asked)) = self.asked.pop_front() else {
            return assert!(self.may_be_refused(), "{} answers nothing that was asked", view.status());
        };
        let answered = field(view, "X-Tag").and_then(|tag| tag.parse().ok());
        assert!(answered.is_none() || answered == asked, "{asked:?} got the answer to {answered:?}");
        self.reading = answered.map(|tag| (tag, 0));
        let facts = framing::response(view, &facts).expect("a client can read how a response is framed");
        self.responses.read_body(facts.body);
    }
}

/// A witness at a backend. It reads the requests.
pub(super) struct Backend {
    sent: Vec<u8>,
    http1: Http1,
    http2: Option<Http2>,
    /// The tagged requests that are not answered: the stream, the tag, and whether the method is HEAD.
    asked: VecDeque<(u32, usize, bool)>,
    /// The input has sent bytes, which may have answered a request. Over HTTP/1, answers could reach other requests.
    pub(super) strays: bool,
    over: bool,
}

impl Backend {
    pub(super) fn new() -> Backend {
        let http1 = Http1::new(Role::Server);
        Backend { sent: Vec::new(), http1, http2: None, asked: VecDeque::new(), strays: false, over: false }
    }

    pub(super) fn gets(&mut self, bytes: &[u8], delivered: &mut HashMap<usize, (usize, bool)>) {
        self.sent.extend_from_slice(bytes);
        if self.http2.is_none() && self.sent.starts_with(PREFACE) {
            self.http2 = Some(Http2::new(Role::Server));
        }
        if let Some(http2) = &mut self.http2 {
            // This reader does not know the window updates of the input, so an error says nothing.
            let (mut head, mut arena, mut out) = (Head::default(), Vec::new(), Vec::new());
            while let Ok((skip, event)) = http2.decode(&self.sent, &mut head, &mut arena, &mut out) {
                self.sent.drain(..skip);
                match event {
                    Event::NeedMore => return,
                    Event::Opened(id) => {
                        let view = HeadRef { bytes: &arena, head: &head };
                        self.asked.extend(tag_of(view).map(|tag| (id, tag, view.method() == b"HEAD")));
                    }
                    Event::Data(_, n) => drop(self.sent.drain(..n)),
                    _ => {}
                }
            }
            return;
        }
        let mut head = Head::default();
        while !self.over && !PREFACE.starts_with(&self.sent) {
            let (skip, part) = self.http1.decode(&self.sent, &mut head).expect("a backend can read what it gets");
            self.sent.drain(..skip);
            let length = match part {
                Part::NeedMore => return,
                Part::Head(length) | Part::Interim(length) | Part::Data(length) | Part::Trailers(length) => length,
                Part::End => {
                    self.http1.next_message();
                    continue;
                }
            };
            if let Part::Head(_) = part {
                let view = HeadRef { bytes: &self.sent[..length], head: &head };
                let facts = framing::request(view).expect("a backend can read how a request is framed");
                self.http1.read_body(facts.body);
                self.over = facts.upgrades();
                if let Some(tag) = tag_of(view) {
                    let (times, _) =
                        delivered.entry(tag).and_modify(|one| one.0 += 1).or_insert((1, facts.is_idempotent()));
                    assert!(*times == 1 || facts.is_idempotent(), "request {tag} was delivered {times} times");
                    self.asked.push_back((0, tag, facts.is_head()));
                }
            }
            self.sent.drain(..length);
        }
    }

    /// Returns a response to the oldest tagged request.
    pub(super) fn answer(&mut self) -> Vec<u8> {
        let unclear = self.strays && self.http2.is_none();
        let Some((stream, tag, is_head)) = self.asked.pop_front().filter(|_| !unclear) else { return Vec::new() };
        let content = if is_head { &[][..] } else { &content(tag)[..] };
        let mut out = Vec::new();
        if self.http2.is_some() {
            let mut block = Vec::new();
            hpack::encode(&mut block, b":status", b"200");
            hpack::encode(&mut block, b"x-tag", tag.to_string().as_bytes());
            frame::fields(&mut out, stream, &block, is_head, 16_384);
            if !is_head {
                frame::write(&mut out, Kind::Data, frame::END_STREAM, stream, content);
            }
        } else {
            let head = format!("HTTP/1.1 200 OK\r\nX-Tag: {tag}\r\nContent-Length: {TAGGED_BYTES}\r\n\r\n");
            out = [head.as_bytes(), content].concat();
        }
        out
    }
}

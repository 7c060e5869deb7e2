//! Clients over HTTP/2: several streams at once, gRPC calls and conversations, and WebSocket streams (RFC 8441).
//!
//! A request that the server has not processed is sent again on another connection. All others have to be answered,
//! also after a GOAWAY.

use std::time::Duration;

use super::super::Random;
use super::dial::{Dial, Why};
use super::server::expected;
use super::session::{Session, State, Stream};

/// The connections on which one request may remain unprocessed.
const TRIES: usize = 8;

/// A request, and the content of its response.
struct Ask {
    path: String,
    content: Option<Vec<u8>>,
    expected: Vec<u8>,
    is_grpc: bool,
}

/// A client and its connection.
pub struct Http2 {
    /// The way to the balancer.
    pub dial: Dial,
    /// Requests that were sent again because they were not processed.
    pub again: u64,
    random: Random,
    session: Option<Session>,
}

impl Http2 {
    /// A client that has not connected yet.
    pub fn new(dial: Dial, random: Random) -> Http2 {
        Http2 { dial, again: 0, random, session: None }
    }

    /// Several requests at once: small, slow, and with content.
    pub fn streams(&mut self) -> Result<u64, Why> {
        self.pause(60);
        let count = 2 + self.random.below(6);
        let asks = (0..count).map(|_| self.ask()).collect();
        self.all(asks)
    }

    /// Unary gRPC calls.
    pub fn calls(&mut self) -> Result<u64, Why> {
        self.pause(60);
        let count = 1 + self.random.below(3);
        let asks = (0..count).map(|_| {
            let message = message(&mut self.random, 30_000);
            Ask { path: "/grpc/Same".into(), content: Some(message.clone()), expected: message, is_grpc: true }
        });
        let asks = asks.collect();
        self.all(asks)
    }

    /// One gRPC stream in both directions. Each message is sent after the response to the one before.
    pub fn conversation(&mut self) -> Result<u64, Why> {
        let fields = [&self.request("POST", "/grpc/Echo")[..], &GRPC].concat();
        let stream = self.echo(&fields, true)?;
        match stream.trailer("grpc-status") {
            Some("0") => Ok(1),
            status => Err(Why::Wrong(format!("grpc-status {status:?} at the end of a conversation"))),
        }
    }

    /// A WebSocket over a stream. Its content is not interpreted on the way, so any bytes do.
    pub fn socket(&mut self) -> Result<u64, Why> {
        let fields = [&self.request("CONNECT", "/tunnel")[..], &[(":protocol", "websocket")]].concat();
        self.echo(&fields, false).map(|_| 1)
    }

    /// The first fields of a request.
    fn request<'a>(&self, method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
        let scheme = if self.dial.is_secure() { "https" } else { "http" };
        [(":method", method), (":scheme", scheme), (":authority", "localhost"), (":path", path)]
    }

    fn pause(&mut self, most_ms: usize) {
        let time = Duration::from_millis(self.random.below(most_ms) as u64);
        match &mut self.session {
            Some(session) => session.idle(time),
            None => std::thread::sleep(time),
        }
    }

    /// A connection that may open streams: the one before, or another one.
    fn connection(&mut self) -> Result<Session, Why> {
        // One connection in four begins again, so that a client over TLS resumes its session.
        let kept = self.session.take().filter(|_| self.random.below(4) > 0);
        if let Some(mut session) = kept {
            session.idle(Duration::ZERO);
            if session.is_usable() {
                return Ok(session);
            }
        }
        let mut session = Session::new(self.dial.connect()?);
        session.wait_for_settings();
        Ok(session)
    }

    fn ask(&mut self) -> Ask {
        let number = self.random.below(1_000_000);
        let (path, content) = match self.random.below(4) {
            0 => (format!("/slow/{number}/{}", 100 + self.random.below(500)), None),
            1 => {
                let length = self.random.below(200_000);
                ("/up".to_owned(), Some(self.random.body(length)))
            }
            _ => (format!("/a/{number}"), None),
        };
        let expected = content.clone().unwrap_or_else(|| expected(&path));
        Ask { path, content, expected, is_grpc: false }
    }

    /// Asks for all at once, and again for those that were not processed.
    fn all(&mut self, mut asks: Vec<Ask>) -> Result<u64, Why> {
        let count = asks.len() as u64;
        for _ in 0..TRIES {
            let mut session = self.connection()?;
            let mut opened = Vec::new();
            while let Some(ask) = asks.pop() {
                if !session.is_usable() {
                    asks.push(ask);
                    break;
                }
                let method = if ask.content.is_some() { "POST" } else { "GET" };
                let grpc = if ask.is_grpc { &GRPC[..] } else { &[] };
                let id = session.open(&[&self.request(method, &ask.path)[..], grpc].concat(), ask.content.is_none());
                if let Some(content) = &ask.content {
                    session.send(id, content, true);
                }
                // A GOAWAY may be there already.
                session.idle(Duration::ZERO);
                opened.push((id, ask));
            }
            let mut lost = Vec::new();
            for (id, ask) in opened {
                session.read_while(id, |_| true);
                match verdict(&session.take(id), &ask) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.again += 1;
                        asks.push(ask);
                    }
                    Err(why) => lost.push(why),
                }
            }
            if let Some(first) = lost.first() {
                return Err(match (first, lost.len()) {
                    (first, 1) => first.clone(),
                    (_, n) => Why::Unanswered(format!("{n} streams of {count}: {lost:?}")),
                });
            }
            self.session = session.is_usable().then_some(session);
            if asks.is_empty() {
                return Ok(count);
            }
        }
        Err(Why::Unanswered(format!("not processed on {TRIES} connections")))
    }

    /// Sends messages on one stream and compares the content that comes back.
    fn echo(&mut self, fields: &[(&str, &str)], is_grpc: bool) -> Result<Stream, Why> {
        let what = if is_grpc { "conversation" } else { "WebSocket stream" };
        for _ in 0..TRIES {
            let mut session = self.connection()?;
            if !is_grpc && session.is_usable() && !session.connects {
                return Err(Why::Wrong("no SETTINGS_ENABLE_CONNECT_PROTOCOL".into()));
            }
            if !session.is_usable() {
                continue;
            }
            let id = session.open(fields, false);
            if !is_grpc {
                // The content begins after the response.
                session.read_while(id, |stream| stream.status() < 200);
            }
            let mut sent = Vec::new();
            for _ in 0..3 + self.random.below(8) {
                let bytes = message(&mut self.random, 20_000);
                session.send(id, &bytes, false);
                sent.extend_from_slice(&bytes);
                session.read_while(id, |stream| stream.content.len() < sent.len());
                if session.stream(id).state != State::Open || session.stream(id).content != sent {
                    break;
                }
                session.idle(Duration::from_millis(self.random.below(120) as u64));
            }
            session.send(id, &[], true);
            session.read_while(id, |_| true);
            let stream = session.take(id);
            self.session = session.is_usable().then_some(session);
            match &stream.state {
                State::Complete if stream.status() == 200 && stream.content == sent => return Ok(stream),
                State::Unprocessed => self.again += 1,
                State::Lost(story) => return Err(Why::Unanswered(format!("{what}: {story}"))),
                _ => return Err(wrong(&stream, sent.len(), what)),
            }
        }
        Err(Why::Unanswered(format!("{what}: not processed on {TRIES} connections")))
    }
}

/// Returns false if the request was not processed.
fn verdict(stream: &Stream, ask: &Ask) -> Result<bool, Why> {
    let is_ok = stream.status() == 200
        && stream.content == ask.expected
        && (!ask.is_grpc || stream.trailer("grpc-status") == Some("0"));
    match &stream.state {
        State::Complete if is_ok => Ok(true),
        State::Unprocessed => Ok(false),
        State::Lost(story) => Err(Why::Unanswered(format!("{}: {story}", ask.path))),
        _ => Err(wrong(stream, ask.expected.len(), &ask.path)),
    }
}

fn wrong(stream: &Stream, expected: usize, what: &str) -> Why {
    let shown = super::super::shown(&stream.content[..stream.content.len().min(80)]);
    let (head, length, trailers) = (&stream.head, stream.content.len(), &stream.trailers);
    Why::Wrong(format!("{what}: {head:?} with {length} bytes of {expected}: {shown} {trailers:?}"))
}

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A gRPC message: a flag, the length, and random bytes.
fn message(random: &mut Random, most: usize) -> Vec<u8> {
    let length = random.below(most);
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(&random.body(length));
    bytes
}

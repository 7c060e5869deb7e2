//! Clients over HTTP/1.1. A connection may end after a response that announced it, or before anything was written to it.

use std::thread;
use std::time::Duration;

use super::super::Random;
use super::super::message::chunked;
use super::super::wire::{Fault, Wire};
use super::dial::{Dial, Why};
use super::server::expected;

/// A client and its persistent connection.
pub struct Http1 {
    /// The way to the balancer.
    pub dial: Dial,
    random: Random,
    wire: Option<Wire>,
}

impl Http1 {
    /// A client that has not connected yet.
    pub fn new(dial: Dial, random: Random) -> Http1 {
        Http1 { dial, random, wire: None }
    }

    fn pause(&mut self, most_ms: usize) {
        thread::sleep(Duration::from_millis(self.random.below(most_ms) as u64));
    }

    fn path(&mut self) -> String {
        format!("/a/{}", self.random.below(1_000_000))
    }

    /// The persistent connection, or a new one if it has ended.
    fn kept(&mut self) -> Result<Wire, Why> {
        let Some(mut wire) = self.wire.take() else { return self.dial.connect() };
        if wire.silent_for(Duration::from_millis(1)) { Ok(wire) } else { self.dial.connect() }
    }

    /// Reads a complete and correct response. Returns true if the connection persists.
    fn answer(&self, wire: &mut Wire, method: &str, body: &[u8]) -> Result<bool, Why> {
        match wire.try_response(method) {
            Ok(answer) if answer.status() == 200 && answer.body.bytes == body => Ok(!answer.connection_has("close")),
            Ok(answer) => Err(Why::Wrong(format!(
                "{} with {} bytes of {}: {}",
                answer.start,
                answer.body.bytes.len(),
                body.len(),
                super::super::shown(&answer.body.bytes[..answer.body.bytes.len().min(80)])
            ))),
            Err((fault, part)) => {
                let part = part.map(|part| format!(" after {} and {} bytes", part.start, part.body.bytes.len()));
                Err(Why::Unanswered(format!("{fault:?}{}", part.unwrap_or_default())))
            }
        }
    }

    /// A request on the persistent connection.
    pub fn keep_alive(&mut self) -> Result<u64, Why> {
        self.pause(150);
        let (mut wire, path) = (self.kept()?, self.path());
        send(&wire, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))?;
        if self.answer(&mut wire, "GET", &expected(&path))? {
            self.wire = Some(wire);
        }
        Ok(1)
    }

    /// A request on a connection of its own.
    pub fn per_request(&mut self) -> Result<u64, Why> {
        let (mut wire, path) = (self.dial.connect()?, self.path());
        send(&wire, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))?;
        self.answer(&mut wire, "GET", &expected(&path))?;
        Ok(1)
    }

    /// Content that must come back byte for byte.
    pub fn upload(&mut self) -> Result<u64, Why> {
        let mut wire = self.kept()?;
        let length = self.random.below(300_000);
        let body = self.random.body(length);
        let mut bytes = b"POST /up HTTP/1.1\r\nHost: localhost\r\n".to_vec();
        if self.random.below(2) == 0 {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
        } else {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            bytes.extend_from_slice(&chunked(&self.random.pieces(&body, 9_000), &[]));
        }
        send(&wire, bytes)?;
        if self.answer(&mut wire, "POST", &body)? {
            self.wire = Some(wire);
        }
        Ok(1)
    }

    /// A response or content in pieces, with pauses.
    pub fn slow(&mut self) -> Result<u64, Why> {
        let mut wire = self.kept()?;
        let goes_on = if self.random.below(2) == 0 {
            let path = format!("/slow/{}/{}", self.random.below(1000), 100 + self.random.below(700));
            send(&wire, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))?;
            self.answer(&mut wire, "GET", &expected(&path))?
        } else {
            let length = 1 + self.random.below(50_000);
            let body = self.random.body(length);
            send(&wire, format!("PUT /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"))?;
            for piece in body.chunks(length.div_ceil(5)) {
                self.pause(120);
                send(&wire, piece)?;
            }
            self.answer(&mut wire, "PUT", &body)?
        };
        if goes_on {
            self.wire = Some(wire);
        }
        Ok(1)
    }

    /// Several requests at once.
    pub fn pipelined(&mut self) -> Result<u64, Why> {
        self.pause(20);
        let mut wire = self.kept()?;
        let paths: Vec<String> = (0..2 + self.random.below(5)).map(|_| self.path()).collect();
        let requests: String =
            paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
        send(&wire, requests)?;
        let mut answered = 0;
        for path in &paths {
            let goes_on = self.answer(&mut wire, "GET", &expected(path))?;
            answered += 1;
            if !goes_on {
                // Requests after a response that ends the connection are ignored.
                return Ok(answered);
            }
        }
        self.wire = Some(wire);
        Ok(answered)
    }

    /// A tunnel by Upgrade.
    pub fn tunnel(&mut self) -> Result<u64, Why> {
        let mut wire = self.dial.connect()?;
        send(&wire, "GET /tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
        let head = wire.head().map_err(|fault| Why::Unanswered(format!("{fault:?} before 101")))?;
        if head.status() != 101 {
            return Err(Why::Wrong(head.start));
        }
        for _ in 0..3 + self.random.below(6) {
            let length = 1 + self.random.below(20_000);
            let bytes = self.random.body(length);
            send(&wire, &bytes)?;
            match wire.exactly(length) {
                Ok(back) if back == bytes => {}
                Ok(_) => return Err(Why::Wrong("other bytes in a tunnel".to_owned())),
                Err(fault) => return Err(Why::Unanswered(format!("{fault:?} in a tunnel"))),
            }
            self.pause(100);
        }
        wire.shutdown_write();
        match wire.rest() {
            (rest, Fault::Fin) if rest.is_empty() => Ok(1),
            (rest, fault) => Err(Why::Wrong(format!("{fault:?} after {} bytes at a tunnel's end", rest.len()))),
        }
    }

    /// A request whose client has ended its direction before the response.
    pub fn half_closed(&mut self) -> Result<u64, Why> {
        self.pause(50);
        let (mut wire, path) = (self.dial.connect()?, self.path());
        send(&wire, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))?;
        wire.shutdown_write();
        self.answer(&mut wire, "GET", &expected(&path))?;
        Ok(1)
    }
}

fn send(wire: &Wire, bytes: impl AsRef<[u8]>) -> Result<(), Why> {
    wire.try_send(bytes).map_err(|error| Why::Unanswered(format!("sending: {error}")))
}

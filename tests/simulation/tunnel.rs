//! Tunnels: their content, the handshake of a WebSocket, and one end of a tunnel over HTTP/1. An end sends its content and
//! ends its direction, and expects the whole content of the other end, followed by its end.

use zzz_lb::base64::{Alphabet, encode};
use zzz_lb::digest::sha1;

use super::message::Head;
use super::network::{End, Net};
use super::pattern::{Way, content, matches};

/// The number of bytes in each direction.
pub(super) fn lengths(id: usize) -> (usize, usize) {
    (id * 977 % 5_000, id * 1_453 % 70_000)
}

/// The reason for which an end does not end its direction at once, behind its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    AtOnce,
    /// It ends its direction only after the other end's.
    Waits,
    /// It resets the connection instead.
    Reset,
    /// It does nothing more.
    Never,
}

/// Returns the end of a client's direction, or of a backend's.
pub(super) fn last(id: usize, way: Way) -> Last {
    if id % 3 == usize::from(way == Way::Down) { Last::Waits } else { Last::AtOnce }
}

/// Returns the key with which a client over HTTP/1 asks for a WebSocket (RFC 6455, 4.1).
fn key(id: usize) -> String {
    encode(Alphabet::Standard, &content(id, Way::Up, 16))
}

/// Returns the proof that a server has read a key (RFC 6455, 4.2.2).
pub(super) fn proof(key: &str) -> String {
    encode(Alphabet::Standard, &sha1(&[key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"]))
}

/// Returns the fields with which a client over HTTP/1 asks for a WebSocket.
pub(super) fn handshake(id: usize) -> String {
    let key = key(id);
    format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n")
}

/// True if these fields ask for the WebSocket of a request. `connect`: the client has no key, so the proxy makes one.
pub(super) fn asks(head: &Head, id: usize, connect: bool) -> bool {
    let given = head.get("Sec-WebSocket-Key").unwrap_or_default();
    head.get("Upgrade") == Some("websocket")
        && head.get("Sec-WebSocket-Version") == Some("13")
        && if connect { given.len() == 24 && given.ends_with("==") } else { given == key(id) }
}

/// True if a 101 is right for a request over HTTP/1: a WebSocket is proved with the key of its client.
pub(super) fn is_proved(head: &Head, id: usize, websocket: bool) -> bool {
    let protocol = if websocket { "websocket" } else { "sim" };
    let proof = websocket.then(|| proof(&key(id)));
    head.get("Upgrade") == Some(protocol) && head.get("Sec-WebSocket-Accept") == proof.as_deref()
}

#[derive(Debug)]
pub(super) struct Tunnel {
    id: usize,
    /// The direction in which this end sends.
    way: Way,
    out: Vec<u8>,
    at: usize,
    last: Last,
    expected: usize,
    got: usize,
    ended: bool,
    pub(super) over: bool,
}

impl Tunnel {
    pub(super) fn new(id: usize, way: Way) -> Tunnel {
        let (up, down) = lengths(id);
        let (sent, expected) = if way == Way::Up { (up, down) } else { (down, up) };
        let (out, last) = (content(id, way, sent), last(id, way));
        Tunnel { id, way, out, at: 0, last, expected, got: 0, ended: false, over: false }
    }

    /// Cuts the content of this end after so many bytes.
    pub(super) fn cut(mut self, most: usize, last: Last) -> Tunnel {
        self.out.truncate(most);
        Tunnel { last, ..self }
    }

    /// True if all expected content has arrived, and its end.
    pub(super) fn is_complete(&self) -> bool {
        self.ended && self.got == self.expected
    }

    /// Checks the end of the content of a client over HTTP/2, which ends it only behind the last byte.
    pub(super) fn check_end(&self, net: &mut Net) {
        if self.ended && self.got < self.expected && net.ledger[self.id].connect {
            net.fail(format!("tunnel {}: the backend takes {} bytes for all {}", self.id, self.got, self.expected));
        }
    }

    pub(super) fn take(&mut self, net: &mut Net, bytes: &[u8]) {
        let from = if self.way == Way::Up { Way::Down } else { Way::Up };
        if self.got + bytes.len() > self.expected || !matches(self.id, from, self.got, bytes) {
            net.fail(format!("tunnel {}: {} bytes at {} are not the other end's", self.id, bytes.len(), self.got));
        }
        self.got += bytes.len();
    }

    /// Sends as much as fits. `fin`: the other direction has ended and is read completely.
    pub(super) fn go_on(&mut self, net: &mut Net, link: usize, fin: bool) {
        self.ended |= fin;
        if self.at < self.out.len() {
            self.at += net.send(link, End::Remote, &self.out[self.at..]).unwrap_or(0);
        }
        if self.at < self.out.len() || self.over {
            return;
        }
        match self.last {
            Last::Never => return,
            Last::Reset => {
                net.reset(link, End::Remote);
                self.over = true;
                return;
            }
            Last::Waits if !self.ended => return,
            Last::Waits | Last::AtOnce => net.finish(link, End::Remote),
        }
        if self.ended {
            self.over = true;
            net.close(link, End::Remote);
        }
    }
}

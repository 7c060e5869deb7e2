//! One end of a tunnel. It sends its content and ends its direction, and expects the whole content of the other end,
//! followed by its end.

use super::network::{End, Net};
use super::pattern::{Way, content, matches};

/// The number of bytes in each direction.
pub(super) fn lengths(id: usize) -> (usize, usize) {
    (id * 977 % 5_000, id * 1_453 % 70_000)
}

#[derive(Debug)]
pub(super) struct Tunnel {
    id: usize,
    /// The direction in which this end sends.
    way: Way,
    out: Vec<u8>,
    at: usize,
    /// This end ends its direction only after the other's end.
    waits: bool,
    expected: usize,
    got: usize,
    ended: bool,
    pub(super) over: bool,
}

impl Tunnel {
    pub(super) fn new(id: usize, way: Way, waits: bool) -> Tunnel {
        let (up, down) = lengths(id);
        let (sent, expected) = if way == Way::Up { (up, down) } else { (down, up) };
        Tunnel { id, way, out: content(id, way, sent), at: 0, waits, expected, got: 0, ended: false, over: false }
    }

    /// True if all expected content has arrived, and its end.
    pub(super) fn is_complete(&self) -> bool {
        self.ended && self.got == self.expected
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
        if self.at == self.out.len() && (self.ended || !self.waits) {
            net.finish(link, End::Remote);
            if self.ended && !self.over {
                self.over = true;
                net.close(link, End::Remote);
            }
        }
    }
}

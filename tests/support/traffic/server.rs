//! A backend whose responses follow from the requests.

use std::thread;
use std::time::Duration;

use zzz_lb::base64::{Alphabet, encode};
use zzz_lb::digest::sha1;

use super::super::message::{BodyReader, Framing};
use super::super::{Backend, Peer, Random};

/// The text that a WebSocket handshake appends to the key (RFC 6455, 1.3).
const WEBSOCKET: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A backend whose responses follow from the requests.
pub fn backend() -> Backend {
    Backend::serve(|mut peer| while serve(&mut peer).is_some() {})
}

/// Serves a request; `None` at the end.
fn serve(peer: &mut Peer) -> Option<()> {
    let head = peer.head().ok()?;
    let framing = head.request_framing().ok()?;
    let path = head.target().to_owned();
    if path == "/tunnel" {
        let key = head.value("Sec-WebSocket-Key").map(|key| sha1(&[key.as_bytes(), WEBSOCKET]));
        let accept = key.map(|hash| format!("Sec-WebSocket-Accept: {}\r\n", encode(Alphabet::Standard, &hash)));
        let protocol = head.value("Upgrade").unwrap_or("echo");
        let accept = accept.unwrap_or_default();
        let lines = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n{accept}\r\n");
        peer.try_send(format!("HTTP/1.1 101 Switching Protocols\r\n{lines}")).ok()?;
        while let Ok(bytes) = peer.some(64 * 1024) {
            peer.try_send(bytes).ok()?;
        }
        peer.shutdown_write();
        return None;
    }
    if path.starts_with("/grpc") {
        return call(peer, framing);
    }
    let content = peer.body(framing).ok()?.bytes;
    let body = if path.starts_with("/up") { content } else { expected(&path) };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    if !path.starts_with("/slow") {
        return peer.try_send([head.as_bytes(), &body].concat()).ok();
    }
    peer.try_send(head).ok()?;
    let pause: u64 = path.rsplit('/').next()?.parse().ok()?;
    for piece in body.chunks(body.len().div_ceil(5).max(1)) {
        thread::sleep(Duration::from_millis(pause / 5));
        peer.try_send(piece).ok()?;
    }
    Some(())
}

/// Answers a gRPC call: each piece comes back as it arrives, and the status follows as a trailer.
fn call(peer: &mut Peer, framing: Framing) -> Option<()> {
    let lines = "Content-Type: application/grpc\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n";
    peer.try_send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).ok()?;
    let mut reader = BodyReader::new(framing);
    while let Some(piece) = reader.piece(peer).ok()? {
        if !piece.is_empty() {
            peer.try_send([format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat()).ok()?;
        }
    }
    peer.try_send("0\r\ngrpc-status: 0\r\n\r\n").ok()
}

/// The content of a path.
pub fn expected(path: &str) -> Vec<u8> {
    let seed = path.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut random = Random::new(seed);
    let length = random.below(20_000);
    random.body(length)
}

//! WebSocket over the four pairs of versions: the handshake, the bytes in both directions, and the ends.

use super::downstream::{frame_of, kinds, reset_with};
use super::*;
use crate::base64::{Alphabet, encode};
use crate::digest::sha1;
use crate::http::forward::{Sink, Target};
use crate::http2::head::Writer;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// SETTINGS_ENABLE_CONNECT_PROTOCOL.
const ENABLE_CONNECT: [u8; 6] = [0, 8, 0, 0, 0, 1];

/// The version at one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Http1,
    Http2,
}
use Side::{Http1, Http2};

const PAIRS: [(Side, Side); 4] = [(Http1, Http1), (Http2, Http1), (Http1, Http2), (Http2, Http2)];

fn connect_head(protocol: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut writer = Writer::new(&mut block);
    writer.request(b"CONNECT", Target { scheme: b"http", authority: b"x", path: b"/chat?a", protocol });
    for (name, value) in [("sec-websocket-version", "13"), ("sec-websocket-protocol", "a, b"), ("origin", "o")] {
        writer.field(name.as_bytes(), value.as_bytes());
    }
    block
}

fn upgrade() -> String {
    format!(
        "GET /chat?a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\nOrigin: o\r\n\r\n"
    )
}

/// A client and a backend of a pair.
struct Pair {
    world: World,
    sides: (Side, Side),
    client: Key,
    backend: Key,
}

impl Pair {
    /// A client that has asked for a WebSocket, and `early` behind it.
    fn asking(sides: (Side, Side), early: &[u8]) -> Pair {
        let mut world = World::new(1, false);
        world.plan.members[0].h2c = sides.1 == Http2;
        world.proxy.follow(&world.plan.clone());
        let client = match sides.0 {
            Http1 => world.send(&upgrade()),
            Http2 => {
                let client = world.client();
                world.give(client, &frame_of(Kind::Headers, END_HEADERS, 1, &connect_head(b"websocket")));
                client
            }
        };
        let mut pair = Pair { world, sides, client, backend: client };
        if !early.is_empty() {
            pair.client_sends(early);
        }
        let (backend, _) = pair.world.dials.pop().expect("a backend is dialled");
        pair.backend = backend;
        pair.world.proxy.connected(backend, sides.1 == Http2);
        pair.world.carry_out();
        if sides.1 == Http2 {
            assert!(!pair.world.frames(backend).iter().any(|one| one.0.kind == Kind::Headers), "consent is missing");
            pair.world.frame(backend, Kind::Settings, 0, 0, &ENABLE_CONNECT);
        }
        pair.world.audit();
        pair
    }

    /// The head of the request at the backend, as text.
    fn request(&mut self) -> String {
        if self.sides.1 == Http1 {
            return String::from_utf8(self.world.sent.remove(&self.backend).unwrap()).unwrap();
        }
        let frames = self.world.frames(self.backend);
        let heads: Vec<_> = frames.iter().filter(|(header, _)| header.kind == Kind::Headers).collect();
        assert_eq!((heads.len(), heads[0].0.flags), (1, END_HEADERS), "the stream stays open");
        text(&heads[0].1)
    }

    /// The backend agrees.
    fn agree(&mut self, request: &str) {
        let fields = "Sec-WebSocket-Protocol: b\r\n";
        match self.sides.1 {
            Http1 => {
                let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
                assert_eq!(key.len(), KEY.len());
                let guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
                let accept = encode(Alphabet::Standard, &sha1(&[key.as_bytes(), guid]));
                let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
                let bytes = format!("{head}{fields}Sec-WebSocket-Accept: {accept}\r\n\r\n");
                self.world.give(self.backend, bytes.as_bytes());
            }
            Http2 => {
                let mut block = vec![0x88];
                crate::hpack::encode(&mut block, b"sec-websocket-protocol", b"b");
                self.world.frame(self.backend, Kind::Headers, END_HEADERS, 1, &block);
            }
        }
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        match self.sides.0 {
            Http1 => self.world.give(self.client, bytes),
            Http2 => self.world.give(self.client, &frame_of(Kind::Data, 0, 1, bytes)),
        }
    }

    fn backend_sends(&mut self, bytes: &[u8]) {
        match self.sides.1 {
            Http1 => self.world.give(self.backend, bytes),
            Http2 => self.world.frame(self.backend, Kind::Data, 0, 1, bytes),
        }
    }

    /// The bytes of the tunnel that one end has got.
    fn bytes_at(&mut self, key: Key, side: Side) -> Vec<u8> {
        self.world.audit();
        match side {
            Http1 => self.world.sent.remove(&key).unwrap_or_default(),
            Http2 => {
                let data = self.world.frames(key).into_iter().filter(|one| one.0.kind == Kind::Data);
                data.flat_map(|(_, payload)| payload).collect()
            }
        }
    }

    fn at_client(&mut self) -> Vec<u8> {
        self.bytes_at(self.client, self.sides.0)
    }

    fn at_backend(&mut self) -> Vec<u8> {
        self.bytes_at(self.backend, self.sides.1)
    }

    /// A tunnel.
    fn tunnel(sides: (Side, Side)) -> Pair {
        let mut pair = Pair::asking(sides, b"");
        let request = pair.request();
        pair.agree(&request);
        pair.at_client();
        pair
    }

    /// Ends the direction from a side.
    fn ends(&mut self, key: Key, side: Side) {
        match side {
            Http1 => {
                self.world.proxy.ended(key);
                self.world.carry_out();
            }
            Http2 => self.world.frame(key, Kind::Data, END_STREAM, 1, b""),
        }
    }

    fn has_end(&mut self, key: Key, side: Side) -> bool {
        match side {
            Http1 => {
                let state = self.world.proxy.connections.get(key);
                state.is_none_or(|one| one.send == connection::Send::Finished)
            }
            Http2 => self.world.frames(key).iter().any(|one| one.0.kind == Kind::Data && one.0.flags & END_STREAM != 0),
        }
    }
}

/// A head of HTTP/2 as lines.
fn text(block: &[u8]) -> String {
    let mut lines = String::new();
    let mut decoder = crate::hpack::Decoder::new(4096);
    let add = |name: &[u8], value: &[u8]| {
        lines.push_str(&format!("{}: {}\r\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
    };
    decoder.decode(block, usize::MAX, add).unwrap();
    lines
}

#[test]
fn each_pair_of_versions_shakes_hands_in_its_own_form() {
    for sides in PAIRS {
        let mut pair = Pair::asking(sides, b"");
        let request = pair.request();
        let has = |part: &str| assert!(request.contains(part), "{sides:?} {part}: {request}");
        let small = request.to_ascii_lowercase();
        match sides.1 {
            Http1 => {
                has("GET /chat?a HTTP/1.1\r\n");
                has("Connection: Upgrade\r\nUpgrade: websocket\r\n");
                assert_eq!(request.contains(KEY), sides.0 == Http1, "{request}");
                assert!(!small.contains("transfer-encoding") && !small.contains("content-length"));
            }
            Http2 => {
                has(":method: CONNECT\r\n:protocol: websocket\r\n");
                has(":path: /chat?a\r\n");
                has(":authority: x\r\n");
                assert!(!small.contains("sec-websocket-key") && !small.contains("upgrade"), "{request}");
            }
        }
        assert!(small.contains("sec-websocket-protocol: a, b\r\n") && small.contains("origin: o\r\n"), "{request}");
        pair.agree(&request);
        let answer = match sides.0 {
            Http1 => String::from_utf8(pair.world.sent.remove(&pair.client).unwrap()).unwrap(),
            Http2 => {
                let frames = pair.world.on(pair.client, 1);
                assert_eq!(kinds(&frames), [(Kind::Headers, END_HEADERS)]);
                text(&frames[0].2)
            }
        };
        match sides {
            (Http1, _) => {
                assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
                assert!(answer.contains("Connection: Upgrade\r\n") && answer.contains("Upgrade: websocket\r\n"));
                assert_eq!(answer.matches(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")).count(), 1, "{answer}");
            }
            (Http2, _) => {
                assert!(answer.starts_with(":status: 200\r\n"), "{answer}");
                assert!(!answer.contains("accept") && !answer.contains("upgrade"), "{answer}");
            }
        }
        assert!(answer.to_ascii_lowercase().contains("sec-websocket-protocol: b\r\n"), "{answer}");
        pair.client_sends(b"hi");
        assert_eq!(pair.at_backend(), b"hi", "{sides:?}");
        pair.backend_sends(b"hello");
        assert_eq!(pair.at_client(), b"hello", "{sides:?}");
        assert_eq!(pair.world.proxy.requests(), 1);
    }
}

#[test]
fn bytes_behind_the_request_wait_for_the_tunnel() {
    // A client over HTTP/1 is not read meanwhile.
    for sides in [(Http2, Http1), (Http2, Http2)] {
        let mut pair = Pair::asking(sides, b"early");
        let request = pair.request();
        assert!(!request.contains("early"), "{sides:?}");
        pair.client_sends(b" bird");
        assert_eq!(pair.at_backend(), b"", "{sides:?}");
        pair.agree(&request);
        assert_eq!(pair.at_backend(), b"early bird", "{sides:?}");
    }
}

#[test]
fn each_direction_ends_by_itself_behind_its_bytes() {
    for sides in PAIRS {
        for client_first in [true, false] {
            let mut pair = Pair::tunnel(sides);
            let (client, backend) = ((pair.client, sides.0), (pair.backend, sides.1));
            let (first, second) = if client_first { (client, backend) } else { (backend, client) };
            pair.client_sends(b"up");
            pair.backend_sends(b"down");
            assert_eq!((pair.at_client(), pair.at_backend()), (b"down".to_vec(), b"up".to_vec()));
            pair.ends(first.0, first.1);
            assert!(pair.has_end(second.0, second.1), "{sides:?} {client_first}");
            assert_eq!(pair.world.proxy.requests(), 1, "{sides:?}: the other direction goes on");
            // The other direction still carries bytes.
            match client_first {
                true => pair.backend_sends(b"more"),
                false => pair.client_sends(b"more"),
            }
            assert_eq!(pair.bytes_at(first.0, first.1), b"more", "{sides:?} {client_first}");
            pair.ends(second.0, second.1);
            assert_eq!(pair.world.proxy.requests(), 0, "{sides:?} {client_first}");
            pair.world.audit();
            for (key, side) in [client, backend] {
                assert_eq!(pair.world.closed.contains(&key), side == Http1, "{sides:?} {client_first}");
            }
        }
    }
}

#[test]
fn an_abort_of_either_side_reaches_the_other() {
    let cancel = ErrorCode::CANCEL.0.to_be_bytes();
    for sides in PAIRS {
        for by_client in [true, false] {
            let mut pair = Pair::tunnel(sides);
            let (client, backend) = ((pair.client, sides.0), (pair.backend, sides.1));
            let (aborts, other) = if by_client { (client, backend) } else { (backend, client) };
            match aborts.1 {
                Http1 => {
                    pair.world.proxy.failed(aborts.0, Failure::Broken(104));
                    pair.world.carry_out();
                }
                Http2 => pair.world.frame(aborts.0, Kind::RstStream, 0, 1, &cancel),
            }
            match other.1 {
                Http1 => assert!(pair.world.reset.contains(&other.0), "{sides:?} {by_client}"),
                Http2 => {
                    assert_eq!(pair.world.on(other.0, 1), [reset_with(ErrorCode::CANCEL)], "{sides:?} {by_client}")
                }
            }
            assert_eq!(pair.world.proxy.requests(), 0);
            assert!(pair.world.proxy.shared.cells.state(0).is_up(), "nobody is to blame");
            pair.world.audit();
        }
    }
}

#[test]
fn a_client_whose_connection_ends_in_the_middle_of_a_tunnel_cuts_it() {
    for sides in [(Http2, Http1), (Http2, Http2)] {
        let mut pair = Pair::tunnel(sides);
        pair.client_sends(b"up");
        assert_eq!(pair.at_backend(), b"up");
        pair.world.proxy.ended(pair.client);
        pair.world.carry_out();
        match sides.1 {
            Http1 => assert!(pair.world.reset.contains(&pair.backend)),
            Http2 => assert_eq!(pair.world.on(pair.backend, 1), [reset_with(ErrorCode::CANCEL)]),
        }
        pair.world.audit();
    }
}

#[test]
fn much_passes_within_the_windows_of_both_sides() {
    for sides in PAIRS {
        let mut pair = Pair::tunnel(sides);
        let piece = vec![b'x'; H2_FRAME_BYTES];
        let (mut up, mut down) = (0, 0);
        for _ in 0..3 {
            pair.client_sends(&piece);
            pair.backend_sends(&piece);
            up += pair.at_backend().len();
            down += pair.at_client().len();
        }
        assert_eq!((up, down), (3 * H2_FRAME_BYTES, 3 * H2_FRAME_BYTES), "{sides:?}");
    }
}

#[test]
fn content_of_a_tunnel_outlives_the_connection_of_its_backend() {
    for sides in [(Http1, Http2), (Http2, Http2)] {
        let mut pair = Pair::tunnel(sides);
        if sides.0 == Http2 {
            [0, 1]
                .into_iter()
                .for_each(|id| pair.world.frame(pair.client, Kind::WindowUpdate, 0, id, &100_000_u32.to_be_bytes()));
        }
        pair.ends(pair.client, sides.0);
        pair.at_backend();
        pair.world.stalled.push(pair.client);
        // The last bytes and their end wait until the client takes the others.
        for _ in 0..5 {
            pair.backend_sends(&[b'x'; 16_000]);
        }
        pair.ends(pair.backend, sides.1);
        pair.world.proxy.ended(pair.backend);
        pair.world.carry_out();
        pair.world.audit();
        assert!(pair.world.proxy.connections.get(pair.backend).is_none(), "{sides:?}");
        pair.world.stalled.clear();
        while let Some(queue) = pair.world.proxy.queued(pair.client).filter(|queue| !queue.is_empty()) {
            let bytes: Vec<u8> = queue.slices().flatten().copied().take(1000).collect();
            pair.world.sent.entry(pair.client).or_default().extend(&bytes);
            pair.world.proxy.sent(pair.client, bytes.len());
            pair.world.carry_out();
            pair.world.audit();
        }
        assert_eq!(pair.at_client().len(), 80_000, "{sides:?}");
        assert_eq!(pair.world.proxy.requests(), 0, "{sides:?}");
    }
}

#[test]
fn a_refusal_of_the_backend_is_an_ordinary_response() {
    for sides in PAIRS {
        let mut pair = Pair::asking(sides, b"");
        pair.request();
        match sides.1 {
            Http1 => pair.world.give(pair.backend, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
            Http2 => {
                let mut block = Vec::new();
                crate::hpack::encode(&mut block, b":status", b"403");
                pair.world.frame(pair.backend, Kind::Headers, END_HEADERS, 1, &block);
                pair.world.frame(pair.backend, Kind::Data, END_STREAM, 1, b"no");
            }
        }
        match sides.0 {
            Http1 => assert!(pair.world.sent[&pair.client].starts_with(b"HTTP/1.1 403 ")),
            Http2 => {
                let frames = pair.world.on(pair.client, 1);
                assert!(text(&frames[0].2).starts_with(":status: 403\r\n"));
                assert_eq!(frames.last(), Some(&reset_with(ErrorCode::NO_ERROR)), "{frames:?}");
            }
        }
        assert_eq!(pair.world.proxy.requests(), 0);
        pair.world.audit();
    }
}

#[test]
fn a_response_that_proves_no_switch_is_a_502() {
    let wrong = format!(
        "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    for (response, blamed) in [(wrong.as_str(), true), ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false)] {
        let mut pair = Pair::asking((Http2, Http1), b"");
        pair.request();
        pair.world.give(pair.backend, response.as_bytes());
        let frames = pair.world.on(pair.client, 1);
        assert!(text(&frames[0].2).starts_with(":status: 502\r\n"), "{frames:?}");
        let failures = pair.world.proxy.shared.cells.state(0);
        assert!(failures.is_up());
        assert_eq!(String::from_utf8_lossy(pair.world.proxy.log().text()).contains("did not switch"), !blamed);
        pair.world.audit();
    }
}

#[test]
fn a_backend_over_http_2_that_accepts_no_websocket_is_not_asked() {
    for client in [Http1, Http2] {
        // One by prior knowledge alone.
        let mut pair = {
            let mut world = World::new(1, false);
            let key = match client {
                Http1 => world.send(&upgrade()),
                Http2 => {
                    let key = world.client();
                    world.give(key, &frame_of(Kind::Headers, END_HEADERS, 1, &connect_head(b"websocket")));
                    key
                }
            };
            let backend = world.connected(true);
            Pair { world, sides: (client, Http2), client: key, backend }
        };
        let reply = match client {
            Http1 => String::from_utf8(pair.world.sent.remove(&pair.client).unwrap()).unwrap(),
            Http2 => text(&pair.world.on(pair.client, 1)[0].2),
        };
        assert!(reply.contains(" 502"), "{reply}");
        assert!(pair.world.frames(pair.backend).iter().all(|one| one.0.kind != Kind::Headers));
        // One that chooses HTTP/2 over TLS may speak HTTP/1.1 on another connection.
        let mut world = World::new(1, true);
        world.request();
        world.connected(true);
        let key = match client {
            Http1 => world.send(&upgrade()),
            Http2 => {
                let key = world.client();
                world.give(key, &frame_of(Kind::Headers, END_HEADERS, 1, &connect_head(b"websocket")));
                key
            }
        };
        let (dialled, _) = world.dials[0];
        assert!(!world.proxy.offers_http2(dialled));
        let backend = world.connected(false);
        assert!(world.sent[&backend].starts_with(b"GET /chat?a HTTP/1.1\r\n"), "{key:?}");
        world.audit();
    }
}

#[test]
fn another_protocol_of_an_extended_connect_is_not_served() {
    let mut world = World::new(1, false);
    let client = world.client();
    world.give(client, &frame_of(Kind::Headers, END_HEADERS, 1, &connect_head(b"connect-udp")));
    assert!(text(&world.on(client, 1)[0].2).starts_with(":status: 501\r\n"));
    assert!(world.dials.is_empty());
    // A CONNECT without a protocol is a proxy's.
    let mut block = Vec::new();
    crate::hpack::encode(&mut block, b":method", b"CONNECT");
    crate::hpack::encode(&mut block, b":authority", b"x:1");
    world.give(client, &frame_of(Kind::Headers, END_HEADERS, 3, &block));
    assert!(text(&world.on(client, 3)[0].2).starts_with(":status: 405\r\n"));
}

#[test]
fn a_drain_lets_a_tunnel_go_on_until_it_ends() {
    for sides in PAIRS {
        let mut pair = Pair::tunnel(sides);
        pair.world.proxy.drain();
        pair.world.carry_out();
        pair.world.pass(10 * DEFAULT_CONNECT_US);
        pair.client_sends(b"up");
        pair.backend_sends(b"down");
        assert_eq!((pair.at_client(), pair.at_backend()), (b"down".to_vec(), b"up".to_vec()), "{sides:?}");
        pair.ends(pair.client, sides.0);
        pair.ends(pair.backend, sides.1);
        assert_eq!(pair.world.proxy.requests(), 0);
        assert!(pair.world.proxy.connections.get(pair.client).is_none_or(Connection::drops_input), "{sides:?}");
        pair.world.audit();
    }
}

#[test]
fn a_silent_tunnel_has_the_limit_of_tunnels() {
    for sides in PAIRS {
        let mut pair = Pair::tunnel(sides);
        pair.world.pass(crate::limits::TUNNEL_IDLE_US - 1_000_000);
        assert_eq!(pair.world.proxy.requests(), 1, "{sides:?}");
        pair.world.pass(2_000_000);
        assert_eq!(pair.world.proxy.requests(), 0, "{sides:?}");
        for (key, side) in [(pair.client, sides.0), (pair.backend, sides.1)] {
            match side {
                Http1 => assert!(pair.world.reset.contains(&key), "{sides:?}"),
                Http2 => assert!(pair.world.on(key, 1).contains(&reset_with(ErrorCode::CANCEL)), "{sides:?}"),
            }
        }
        pair.world.audit();
    }
}

#[test]
fn a_stop_resets_the_stream_of_a_tunnel() {
    for sides in [(Http2, Http1), (Http2, Http2)] {
        let mut pair = Pair::tunnel(sides);
        assert_eq!(pair.world.proxy.stop(), 1);
        pair.world.carry_out();
        assert_eq!(pair.world.on(pair.client, 1), [reset_with(ErrorCode::CANCEL)]);
        assert!(pair.world.closed.contains(&pair.client));
        assert_eq!(pair.world.reset.contains(&pair.backend), sides.1 == Http1);
    }
}

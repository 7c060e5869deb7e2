//! Both roles against each other, and each against a peer that breaks the rules.

use super::*;
use crate::collections::slab::Slab;
use crate::http::forward::{Sink, Target};
use crate::http::head::{Head, HeadRef};
use crate::http2::Error;
use crate::http2::connection::Event;
use crate::http2::frame::{ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY};
use crate::http2::head::Writer;
use crate::limits::{
    H2_BACKEND_WINDOW_BYTES, H2_BLOCK_BYTES, H2_DECODED_BYTES, H2_FRAME_BYTES, H2_IDLE_FRAMES, H2_LIST_BYTES,
    H2_RESETS, H2_STREAMS,
};

mod floods;

/// One end, and the bytes that it wants to send.
struct End {
    h2: Connection,
    out: Vec<u8>,
    held: Vec<u8>,
    owners: Slab<()>,
    /// The events as text.
    seen: Vec<String>,
    error: Option<Error>,
    /// Content is taken as it comes.
    takes: bool,
}

impl End {
    fn new(role: Role) -> End {
        let (mut out, h2) = (Vec::new(), Connection::new(role));
        h2.greet(&mut out);
        let (held, seen) = (Vec::new(), Vec::new());
        End { h2, out, held, owners: Slab::new(), seen, error: None, takes: true }
    }

    /// An end that knows its peer's settings.
    fn ready(role: Role) -> End {
        let mut end = End::new(role);
        let mut bytes = if role == Role::Server { PREFACE.to_vec() } else { Vec::new() };
        frame::write(&mut bytes, Kind::Settings, 0, 0, &[]);
        end.receive(&bytes);
        assert_eq!(end.error, None);
        end.seen.clear();
        end.out.clear();
        end
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let (mut head, mut arena) = (Head::default(), Vec::new());
        while self.error.is_none() {
            let (skip, event) = match self.h2.decode(&self.held, &mut head, &mut arena, &mut self.out) {
                Ok(decoded) => decoded,
                Err(error) => return self.error = Some(error),
            };
            self.held.drain(..skip);
            let told = |key: Key| key.index();
            let said = match event {
                Event::NeedMore => return,
                Event::Refused => continue,
                Event::Nothing => continue,
                Event::Opened(id) => {
                    let owner = self.owners.insert(());
                    self.h2.own(id, owner);
                    let method = HeadRef { bytes: &arena, head: &head }.method().to_vec();
                    format!("{} {id}", String::from_utf8(method).unwrap())
                }
                Event::Head(key) => format!("{} on {}", HeadRef { bytes: &arena, head: &head }.status(), told(key)),
                Event::Interim(key) => format!("interim on {}", told(key)),
                Event::Trailers(key) => format!("{} trailers on {}", head.fields.len(), told(key)),
                Event::Data(owner, n) => {
                    self.held.drain(..n);
                    let id = self.h2.streams.iter().find(|stream| stream.owner == owner).map(|stream| stream.id);
                    if let (Some(id), true) = (id, self.takes) {
                        self.h2.delivered(id, n, Some(Spare { free: 0, lent: u32::MAX }), &mut self.out);
                    }
                    match self.seen.last_mut().and_then(|last| last.strip_suffix(" bytes")) {
                        Some(before) => {
                            let all = before.parse::<usize>().unwrap() + n;
                            self.seen.pop();
                            format!("{all} bytes")
                        }
                        None => format!("{n} bytes"),
                    }
                }
                Event::End(key) => format!("end on {}", told(key)),
                Event::Reset(key, code) => format!("reset of {}: {code}", told(key)),
                Event::Malformed(key, refusal) => format!("malformed on {}: {refusal}", told(key)),
                Event::Unheard(id, refusal) => {
                    self.h2.forget(id, ErrorCode::PROTOCOL_ERROR, &mut self.out);
                    format!("refused {id}: {refusal}")
                }
                Event::Room => continue,
                Event::GoAway(code) => format!("goaway: {code}"),
                Event::Pong => "pong".into(),
            };
            self.seen.push(said);
        }
    }

    fn request(&mut self, end: bool) -> (u32, Key) {
        let owner = self.owners.insert(());
        let id = self.h2.open(owner).expect("there is room");
        let mut block = Vec::new();
        Writer::new(&mut block)
            .request(b"POST", Target { scheme: b"http", authority: b"a", path: b"/", protocol: b"" });
        self.h2.write_fields(id, &block, end, &mut self.out);
        (id, owner)
    }

    fn respond(&mut self, id: u32, status: u16, end: bool) {
        let mut block = Vec::new();
        Writer::new(&mut block).response(status, b"");
        self.h2.write_fields(id, &block, end, &mut self.out);
    }

    /// Sends as much of `left` bytes as the windows allow. Returns the rest.
    fn send(&mut self, id: u32, mut left: usize, end: bool) -> usize {
        self.h2.line_up(id);
        while let Some((id, _, room)) = self.h2.next_in_line() {
            let n = room.min(left);
            if n == 0 && left > 0 {
                break;
            }
            left -= n;
            let header = self.h2.data(id, n, end && left == 0).unwrap();
            self.out.extend_from_slice(&header);
            self.out.resize(self.out.len() + n, b'x');
            if left > 0 {
                self.h2.line_up(id);
            }
        }
        left
    }
}

/// Carries bytes to and fro, in pieces of `step`, until nothing more comes.
fn exchange(a: &mut End, b: &mut End, step: usize) {
    while !a.out.is_empty() || !b.out.is_empty() {
        let (from_a, from_b) = (std::mem::take(&mut a.out), std::mem::take(&mut b.out));
        from_a.chunks(step).for_each(|piece| b.receive(piece));
        from_b.chunks(step).for_each(|piece| a.receive(piece));
    }
    assert_eq!((a.error, b.error), (None, None));
}

fn pair() -> (End, End) {
    let (mut client, mut server) = (End::new(Role::Client), End::new(Role::Server));
    exchange(&mut client, &mut server, usize::MAX);
    (client, server)
}

fn frame_of(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, kind, flags, stream, payload);
    out
}

#[test]
fn requests_and_responses_pass_however_they_are_cut() {
    for step in [1, 2, 9, 100, usize::MAX] {
        let (mut client, mut server) = (End::new(Role::Client), End::new(Role::Server));
        let (id, _) = client.request(false);
        assert_eq!(client.send(id, 70_000, true), 70_000 - 65_535, "no more than the first window");
        exchange(&mut client, &mut server, step);
        assert_eq!(client.send(id, 70_000 - 65_535, true), 0);
        exchange(&mut client, &mut server, step);
        assert_eq!(server.seen, ["POST 1", "70000 bytes", "end on 0"]);
        server.respond(id, 103, false);
        server.respond(id, 200, false);
        assert_eq!(server.send(id, 10, false), 0);
        let mut block = Vec::new();
        crate::hpack::encode(&mut block, b"t", b"v");
        server.h2.write_fields(id, &block, true, &mut server.out);
        exchange(&mut client, &mut server, step);
        assert_eq!(client.seen, ["interim on 0", "200 on 0", "10 bytes", "1 trailers on 0", "end on 0"]);
        assert_eq!((client.h2.open_streams(), server.h2.open_streams()), (0, 0));
    }
}

#[test]
fn megabytes_pass_through_windows_that_grow() {
    let (mut client, mut server) = pair();
    let (id, _) = client.request(true);
    exchange(&mut client, &mut server, usize::MAX);
    server.respond(id, 200, false);
    let (mut left, mut turns) = (50 << 20, 0);
    while left > 0 {
        left = server.send(id, left, true);
        exchange(&mut client, &mut server, usize::MAX);
        turns += 1;
    }
    assert_eq!(client.seen[1..], ["52428800 bytes".to_string(), "end on 0".into()]);
    assert!(turns < 120, "{turns} turns: the window has not grown");
}

#[test]
fn a_reader_that_does_not_take_stops_its_own_stream_alone() {
    let (mut client, mut server) = pair();
    let (first, _) = client.request(true);
    let (second, _) = client.request(true);
    exchange(&mut client, &mut server, usize::MAX);
    client.takes = false;
    server.respond(first, 200, false);
    let left = server.send(first, 1 << 20, true);
    assert_eq!(left, (1 << 20) - H2_BACKEND_WINDOW_BYTES as usize);
    exchange(&mut client, &mut server, usize::MAX);
    assert_eq!(server.send(first, left, true), left);
    client.takes = true;
    server.respond(second, 200, false);
    assert_eq!(server.send(second, 10_000, true), 0);
    exchange(&mut client, &mut server, usize::MAX);
    assert_eq!(client.seen.last().unwrap(), "end on 1");
    // It takes again: half a window or more is given back at once.
    client.h2.delivered(first, H2_BACKEND_WINDOW_BYTES as usize, None, &mut client.out);
    client.h2.taken(first, &mut client.out);
    exchange(&mut client, &mut server, usize::MAX);
    assert_eq!(server.send(first, left, true), left - H2_BACKEND_WINDOW_BYTES as usize);
}

#[test]
fn streams_are_bounded_by_what_the_peer_allows() {
    let mut client = End::new(Role::Client);
    client.request(true);
    let owner = client.owners.insert(());
    assert_eq!(client.h2.open(owner), None, "one until the peer has spoken");
    client.receive(&frame_of(Kind::Settings, 0, 0, &[0, 3, 0, 0, 0, 2]));
    assert_eq!((client.h2.open(owner), client.h2.open(owner)), (Some(3), None));
    client.receive(&frame_of(Kind::Settings, 0, 0, &[0, 3, 0xff, 0xff, 0xff, 0xff]));
    while client.h2.open(owner).is_some() {}
    assert_eq!(client.h2.open_streams(), H2_STREAMS as usize);
    let mut server = End::ready(Role::Server);
    let mut block = Vec::new();
    Writer::new(&mut block).request(b"GET", Target { scheme: b"http", authority: b"a", path: b"/", protocol: b"" });
    for n in 0..=H2_STREAMS {
        server.receive(&frame_of(Kind::Headers, END_HEADERS, 2 * n + 1, &block));
    }
    assert_eq!((server.seen.len(), server.error), (H2_STREAMS as usize, None));
    let refused = frame_of(Kind::RstStream, 0, 2 * H2_STREAMS + 1, &ErrorCode::REFUSED_STREAM.0.to_be_bytes());
    assert!(server.out.ends_with(&refused));
}

#[test]
fn stream_numbers_run_out() {
    let mut client = End::ready(Role::Client);
    client.h2.next = MAX_31 - 2;
    let owner = client.owners.insert(());
    assert_eq!(client.h2.open(owner), Some(MAX_31 - 2));
    assert!(!client.h2.is_spent());
    assert_eq!(client.h2.open(owner), Some(MAX_31));
    assert!(client.h2.is_spent());
    assert_eq!(client.h2.open(owner), None);
    client.receive(&frame_of(Kind::RstStream, 0, MAX_31, &[0; 4]));
    assert_eq!(client.seen.len(), 1);
}

#[test]
fn goaway_tells_which_streams_were_not_looked_at() {
    let mut client = End::ready(Role::Client);
    let keys: Vec<Key> = (0..3).map(|_| client.request(true).1).collect();
    client.receive(&frame_of(Kind::Goaway, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
    assert_eq!((client.h2.unprocessed().count(), client.h2.is_spent()), (0, true));
    client.receive(&frame_of(Kind::Goaway, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    assert_eq!(client.h2.unprocessed().collect::<Vec<_>>(), keys[2..]);
    client.receive(&frame_of(Kind::Goaway, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0]));
    assert_eq!(client.h2.unprocessed().collect::<Vec<_>>(), keys[2..], "a later one takes nothing back");
}

#[test]
fn pings_are_answered_and_ours_is_waited_for() {
    let mut client = End::ready(Role::Client);
    client.receive(&frame_of(Kind::Ping, 0, 0, b"12345678"));
    assert_eq!(client.out, frame_of(Kind::Ping, ACK, 0, b"12345678"));
    client.h2.ping(&mut client.out);
    assert!(!client.h2.can_open());
    client.receive(&frame_of(Kind::Ping, ACK, 0, b"idle now"));
    assert_eq!((client.seen, client.h2.can_open()), (vec!["pong".to_string()], true));
}

#[test]
fn padding_and_priorities_are_passed_over_and_padding_is_credited() {
    let mut client = End::ready(Role::Client);
    client.request(true);
    let mut block = vec![3, 0x80, 0, 0, 0, 9, 0x88];
    block.extend([0; 3]);
    client.receive(&frame_of(Kind::Headers, END_HEADERS | PADDED | PRIORITY, 1, &block));
    client.receive(&frame_of(Kind::Priority, 0, 7, &[0; 5]));
    client.receive(&frame_of(Kind::Unknown, 0xff, 1, b"anything"));
    let data = [&[4][..], b"content", &[0; 4]].concat();
    for _ in 0..20_000 {
        client.receive(&frame_of(Kind::Data, PADDED, 1, &data));
    }
    client.receive(&frame_of(Kind::Data, PADDED | END_STREAM, 1, &[2, 0, 0]));
    assert_eq!(client.error, None);
    assert_eq!(client.seen, ["200 on 0", "140000 bytes", "end on 0"]);
}

#[test]
fn padding_that_comes_alone_is_credited_and_content_that_nobody_takes_is_not() {
    let mut client = End::ready(Role::Client);
    client.request(true);
    client.takes = false;
    client.receive(&frame_of(Kind::Headers, END_HEADERS, 1, &[0x88]));
    let content = H2_BACKEND_WINDOW_BYTES as usize - 256;
    (0..content / 256).for_each(|_| client.receive(&frame_of(Kind::Data, 0, 1, &[b'x'; 256])));
    client.out.clear();
    let alone = [&[255][..], &[0; 255]].concat();
    for _ in 0..2 * H2_BACKEND_WINDOW_BYTES / 256 {
        client.receive(&frame_of(Kind::Data, PADDED, 1, &alone));
        assert_eq!(client.error, None);
        assert_eq!(client.out, frame_of(Kind::WindowUpdate, 0, 1, &256_u32.to_be_bytes()));
        client.out.clear();
    }
    client.receive(&frame_of(Kind::Data, 0, 1, &[b'x'; 257]));
    assert_eq!(client.error.map(|error| error.code), Some(ErrorCode::FLOW_CONTROL_ERROR));
}

/// The error of a client with one pending request for some bytes.
fn told(bytes: &[u8]) -> Error {
    let mut client = End::ready(Role::Client);
    client.request(true);
    client.receive(bytes);
    client.error.unwrap_or_else(|| panic!("taken: {:?}", client.seen))
}

#[test]
fn forbidden_frames_end_the_connection() {
    let (protocol, size) = (ErrorCode::PROTOCOL_ERROR, ErrorCode::FRAME_SIZE_ERROR);
    let (flow, calm) = (ErrorCode::FLOW_CONTROL_ERROR, ErrorCode::ENHANCE_YOUR_CALM);
    let head = frame_of(Kind::Headers, END_HEADERS, 1, &[0x88]);
    let flood = |frame: Vec<u8>| frame.repeat(H2_IDLE_FRAMES as usize + 1);
    let endless = |size: usize, count: usize| {
        let first = frame_of(Kind::Headers, 0, 1, &[]);
        [first, frame_of(Kind::Continuation, 0, 1, &vec![0; size]).repeat(count)].concat()
    };
    let content = frame_of(Kind::Data, 0, 1, &[0; 16_384]);
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("a frame too long", frame_of(Kind::Data, 0, 1, &[0; 16_385]), size),
        ("a ping too short", frame_of(Kind::Ping, 0, 0, &[0; 7]), size),
        ("a ping of a stream", frame_of(Kind::Ping, 0, 1, &[0; 8]), protocol),
        ("a reset too short", frame_of(Kind::RstStream, 0, 1, &[0; 3]), size),
        ("a reset of nothing", frame_of(Kind::RstStream, 0, 0, &[0; 4]), protocol),
        ("a reset of a stream to come", frame_of(Kind::RstStream, 0, 3, &[0; 4]), protocol),
        ("a window of a stream to come", frame_of(Kind::WindowUpdate, 0, 3, &[0, 0, 0, 1]), protocol),
        ("a window by nothing", frame_of(Kind::WindowUpdate, 0, 0, &[0; 4]), protocol),
        ("a window too large", frame_of(Kind::WindowUpdate, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), flow),
        ("a window too short", frame_of(Kind::WindowUpdate, 0, 0, &[0; 5]), size),
        ("settings of a stream", frame_of(Kind::Settings, 0, 1, &[]), protocol),
        ("settings that acknowledge and say", frame_of(Kind::Settings, ACK, 0, &[0; 6]), size),
        ("settings cut short", frame_of(Kind::Settings, 0, 0, &[0; 5]), size),
        ("a goaway too short", frame_of(Kind::Goaway, 0, 0, &[0; 7]), size),
        ("a push", frame_of(Kind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), protocol),
        ("a stream that it opens", frame_of(Kind::Headers, END_HEADERS, 2, &[0x88]), protocol),
        ("a head on no stream", frame_of(Kind::Headers, END_HEADERS, 0, &[0x88]), protocol),
        ("content on no stream", frame_of(Kind::Data, 0, 0, &[0]), protocol),
        ("a continuation of nothing", frame_of(Kind::Continuation, END_HEADERS, 1, &[0x88]), protocol),
        ("padding of nothing", frame_of(Kind::Data, PADDED, 1, &[]), protocol),
        ("padding too long", [head.clone(), frame_of(Kind::Data, PADDED, 1, &[2, 0])].concat(), protocol),
        ("padding of fields too long", frame_of(Kind::Headers, END_HEADERS | PADDED, 1, &[5, 0x88]), protocol),
        ("fields without their padding", frame_of(Kind::Headers, END_HEADERS | PADDED, 1, &[]), size),
        ("fields without their priority", frame_of(Kind::Headers, END_HEADERS | PRIORITY, 1, &[0; 4]), size),
        ("fields of no table", frame_of(Kind::Headers, END_HEADERS, 1, &[0xff]), ErrorCode::COMPRESSION_ERROR),
        ("a block interrupted", [frame_of(Kind::Headers, 0, 1, &[]), head.clone()].concat(), protocol),
        ("content too much", [head.clone(), content.repeat(5)].concat(), flow),
        ("a flood of pings", flood(frame_of(Kind::Ping, 0, 0, &[0; 8])), calm),
        ("a flood of windows", flood(frame_of(Kind::WindowUpdate, 0, 0, &[0, 0, 0, 1])), calm),
        ("a flood of settings", flood(frame_of(Kind::Settings, 0, 0, &[])), calm),
        ("a flood of priorities", flood(frame_of(Kind::Priority, 0, 1, &[0; 5])), calm),
        ("a flood of empty content", [head.clone(), flood(frame_of(Kind::Data, 0, 1, &[]))].concat(), calm),
        ("a flood of what is unknown", flood(frame_of(Kind::Unknown, 0, 1, &[])), calm),
        ("a block of empty frames without end", endless(0, 100), calm),
        ("a block without end", endless(16_384, H2_BLOCK_BYTES / 16_384 + 1), calm),
    ];
    for (what, bytes, code) in cases {
        if what == "content too much" {
            // This happens only without a consumer.
            let mut client = End::ready(Role::Client);
            client.takes = false;
            client.request(true);
            client.receive(&bytes);
            assert_eq!(client.error.map(|error| error.code), Some(code), "{what}");
            continue;
        }
        assert_eq!(told(&bytes).code, code, "{what}");
    }
    let mut client = End::new(Role::Client);
    client.receive(&frame_of(Kind::Ping, 0, 0, &[0; 8]));
    assert_eq!(client.error.unwrap().code, protocol, "settings come first");
    let mut server = End::new(Role::Server);
    server.receive(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(server.error.unwrap().code, protocol, "the preface comes first");
}

#[test]
fn a_malformed_message_leaves_the_connection_usable() {
    let of = |bytes: Vec<u8>| {
        let mut client = End::ready(Role::Client);
        client.request(true);
        client.receive(&bytes);
        assert_eq!(client.error, None);
        client.seen
    };
    let head = frame_of(Kind::Headers, END_HEADERS, 1, &[0x88]);
    let misplaced = "malformed on 0: content or fields where none can be";
    assert_eq!(of(frame_of(Kind::Data, 0, 1, &[])), [misplaced], "content before its head");
    let trailers = frame_of(Kind::Headers, END_HEADERS, 1, b"\x00\x01a\x01b");
    assert_eq!(of([head, trailers].concat()), ["200 on 0", misplaced], "trailers that do not end it");
    let interim = b"\x08\x03103";
    assert_eq!(of(frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, interim)).first().unwrap(), misplaced);
    assert_eq!(of(frame_of(Kind::Headers, END_HEADERS, 1, b"\x00\x01A\x01b"))[0], "malformed on 0: invalid field name");
    assert_eq!(of(frame_of(Kind::RstStream, 0, 1, &[0, 0, 0, 8])), ["reset of 0: CANCEL"]);
    assert_eq!(of(frame_of(Kind::WindowUpdate, 0, 1, &[0; 4])), ["reset of 0: PROTOCOL_ERROR"]);
}

#[test]
fn a_head_beyond_the_limit_is_refused_alone_as_far_as_it_can_be_read() {
    let large = |id: u32, value: usize| {
        let mut block = vec![0x88];
        // No Huffman code is shorter.
        (0..8).for_each(|_| crate::hpack::encode(&mut block, b"x", &vec![b'{'; value / 8]));
        let mut out = Vec::new();
        frame::fields(&mut out, id, &block, true, H2_FRAME_BYTES);
        out
    };
    let fine = |id: u32| frame_of(Kind::Headers, END_HEADERS | END_STREAM, id, &[0x88]);
    let refused = "malformed on 0: head larger than 65536 bytes";
    for value in [H2_LIST_BYTES, 2 * H2_LIST_BYTES, H2_DECODED_BYTES - 8 * 64] {
        let mut client = End::ready(Role::Client);
        [client.request(true), client.request(true)].iter().for_each(|&(id, _)| assert!(id < 5));
        client.receive(&[large(1, value), fine(3)].concat());
        assert_eq!(client.error, None, "{value}");
        assert_eq!(client.seen, [refused, "end on 0", "200 on 1", "end on 1"], "{value}");
    }
    // By the length of its frames, and by its decoded size.
    let entry = [&[0x88, 0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4000], &[0xbe; 100]].concat();
    for bytes in [large(1, H2_BLOCK_BYTES + 1), frame_of(Kind::Headers, END_HEADERS, 1, &entry)] {
        let mut client = End::ready(Role::Client);
        [client.request(true), client.request(true)].iter().for_each(|&(id, _)| assert!(id < 5));
        client.receive(&[&bytes[..], &fine(3)].concat());
        assert_eq!(client.seen, [refused], "and nothing can be read behind it");
        assert!(client.error.is_some_and(|error| error.is_limit()));
        let (mut client, mut server) = (End::ready(Role::Client), End::ready(Role::Server));
        let (id, _) = client.request(true);
        client.h2.forget(id, ErrorCode::CANCEL, &mut client.out);
        [&mut client, &mut server].into_iter().for_each(|end| {
            end.receive(&bytes);
            assert!(end.seen.is_empty() && end.error.is_some_and(|error| error.is_limit()), "it is nobody's");
        });
    }
    assert!(!told(&frame_of(Kind::Headers, END_HEADERS, 1, &[0xff])).is_limit());
}

#[test]
fn frames_of_a_forgotten_stream_are_skipped() {
    let mut client = End::ready(Role::Client);
    let (id, _) = client.request(true);
    assert!(client.h2.forget(id, ErrorCode::CANCEL, &mut client.out));
    assert!(client.out.ends_with(&frame_of(Kind::RstStream, 0, id, &[0, 0, 0, 8])));
    assert!(!client.h2.forget(id, ErrorCode::CANCEL, &mut client.out), "once");
    // The next block refers to this field, so the table must be kept.
    client.receive(&frame_of(Kind::Headers, END_HEADERS, id, &[0x88, 0x40, 1, b'a', 1, b'b']));
    client.receive(&frame_of(Kind::Data, END_STREAM, id, &[0; 100]));
    client.receive(&frame_of(Kind::WindowUpdate, 0, id, &[0, 0, 0, 1]));
    client.receive(&frame_of(Kind::RstStream, 0, id, &[0; 4]));
    let (next, _) = client.request(true);
    client.receive(&frame_of(Kind::Headers, END_HEADERS | END_STREAM, next, &[0x88, 0xbe]));
    assert_eq!(client.error, None);
    assert_eq!(client.seen, ["100 bytes", "200 on 1", "end on 1"]);
}

#[test]
fn a_peer_that_changes_its_windows_is_followed() {
    let mut client = End::ready(Role::Client);
    let (id, _) = client.request(false);
    assert_eq!(client.send(id, 1000, false), 0);
    client.receive(&frame_of(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 10]));
    assert_eq!(client.send(id, 1000, true), 1000, "it is 990 below nothing");
    client.receive(&frame_of(Kind::WindowUpdate, 0, id, &995_u32.to_be_bytes()));
    assert_eq!(client.send(id, 1000, true), 995);
    client.receive(&frame_of(Kind::WindowUpdate, 0, id, &0x7fff_ffff_u32.to_be_bytes()));
    assert_eq!(client.error, None);
    client.seen.clear();
    client.receive(&frame_of(Kind::Settings, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    assert_eq!(client.error.unwrap().code, ErrorCode::FLOW_CONTROL_ERROR);
}

#[test]
fn a_peer_that_makes_its_table_smaller_is_told_that_ours_is_empty() {
    let mut client = End::ready(Role::Client);
    let mut first = |size: Option<u32>| {
        if let Some(size) = size {
            client.receive(&frame_of(Kind::Settings, 0, 0, &[&[0, 1][..], &size.to_be_bytes()].concat()));
        }
        client.out.clear();
        client.request(true);
        client.out[frame::HEADER_BYTES]
    };
    // POST, the first field unless a table update precedes it, is 0x83.
    assert_eq!((first(None), first(Some(4096)), first(Some(9000))), (0x83, 0x83, 0x83));
    assert_eq!((first(Some(100)), first(None)), (0x20, 0x83), "smaller");
    assert_eq!((first(Some(200)), first(Some(100)), first(None)), (0x83, 0x20, 0x83), "larger, and smaller again");
    assert_eq!((first(Some(0)), first(Some(0)), first(None)), (0x20, 0x83, 0x83));
}

#[test]
fn opening_and_resetting_at_once_does_not_pay_for_itself() {
    let mut server = End::ready(Role::Server);
    let mut block = Vec::new();
    Writer::new(&mut block).request(b"GET", Target { scheme: b"http", authority: b"a", path: b"/", protocol: b"" });
    let mut opened = 0;
    while server.error.is_none() && opened < 100_000 {
        let id = 2 * opened + 1;
        server.receive(&frame_of(Kind::Headers, END_HEADERS | END_STREAM, id, &block));
        server.receive(&frame_of(Kind::RstStream, 0, id, &[0, 0, 0, 8]));
        opened += 1;
    }
    assert_eq!(server.error.unwrap().code, ErrorCode::ENHANCE_YOUR_CALM);
    assert_eq!(opened, H2_RESETS + 1);
}

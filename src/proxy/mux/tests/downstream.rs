//! Clients over HTTP/2, before backends over either version.

use super::*;
use crate::http::forward::{Sink, Target};
use crate::http2::frame::MAX_31;
use crate::http2::head::Writer;
use crate::limits::{DEFAULT_IDLE_US, H2_CLIENT_REQUESTS, H2_CLIENT_STREAMS, H2_SHUTDOWN_US};

/// A block of fields with a request.
pub(super) fn head(method: &[u8], fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut writer = Writer::new(&mut block);
    writer.request(method, Target { scheme: b"http", authority: b"x", path: b"/p", protocol: b"" });
    fields.iter().for_each(|(name, value)| writer.field(name, value));
    block
}

pub(super) fn frame_of(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind, flags, stream, payload);
    bytes
}

pub(super) fn get(stream: u32) -> Vec<u8> {
    frame_of(Kind::Headers, END_HEADERS | END_STREAM, stream, &head(b"GET", &[]))
}

impl World {
    /// A proxy before one backend that speaks HTTP/1.1.
    pub(super) fn before_http1() -> World {
        let mut world = World::new(1, false);
        world.plan.members.iter_mut().for_each(|member| member.h2c = false);
        world.proxy.follow(&world.plan);
        world
    }

    /// A client that has sent its preface and SETTINGS.
    pub(super) fn client(&mut self) -> Key {
        let client = self.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
        // The preface may arrive byte by byte.
        PREFACE.iter().for_each(|byte| self.give(client, &[*byte]));
        self.frame(client, Kind::Settings, 0, 0, &[]);
        self.frames(client);
        client
    }

    pub(super) fn audit(&self) {
        self.proxy.check().unwrap();
    }

    /// The type, the flags and the payload of each frame for a stream since this was last asked.
    pub(super) fn on(&mut self, client: Key, stream: u32) -> Vec<(Kind, u8, Vec<u8>)> {
        self.audit();
        let frames = self.frames(client).into_iter().filter(|(header, _)| header.stream == stream);
        frames.map(|(header, payload)| (header.kind, header.flags, payload)).collect()
    }
}

pub(super) fn kinds(frames: &[(Kind, u8, Vec<u8>)]) -> Vec<(Kind, u8)> {
    frames.iter().map(|(kind, flags, _)| (*kind, *flags)).collect()
}

pub(super) fn reset_with(code: ErrorCode) -> (Kind, u8, Vec<u8>) {
    (Kind::RstStream, 0, code.0.to_be_bytes().to_vec())
}

#[test]
fn requests_on_one_connection_reach_pooled_connections_to_backends() {
    let mut world = World::before_http1();
    let client = world.client();
    for stream in [1, 3] {
        world.give(client, &get(stream));
        let backend = if stream == 1 { world.connected(false) } else { *world.sent.keys().next().unwrap() };
        let request = String::from_utf8(world.sent.remove(&backend).unwrap()).unwrap();
        assert!(request.starts_with("GET /p HTTP/1.1\r\nHost: x\r\n"), "{request}");
        assert_eq!(world.proxy.connections(), 3, "the client, its stream and the backend");
        world.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let frames = world.on(client, stream);
        assert_eq!(kinds(&frames), [(Kind::Headers, END_HEADERS), (Kind::Data, END_STREAM)]);
        assert_eq!(frames[1].2, b"hi");
        assert_eq!((world.proxy.connections(), world.proxy.requests()), (2, 0));
    }
    assert!(world.dials.is_empty());
}

#[test]
fn a_stream_beyond_the_limit_is_refused() {
    let mut world = World::before_http1();
    let client = world.client();
    for n in 0..=H2_CLIENT_STREAMS {
        world.give(client, &get(2 * n + 1));
    }
    assert_eq!(world.proxy.requests(), H2_CLIENT_STREAMS as usize);
    assert_eq!(world.on(client, 2 * H2_CLIENT_STREAMS + 1), [reset_with(ErrorCode::REFUSED_STREAM)]);
}

#[test]
fn an_upload_that_is_split_anywhere_waits_for_its_backend_and_arrives_whole() {
    let mut trailers = Vec::new();
    crate::hpack::encode(&mut trailers, b"t", b"v");
    let upload = [
        frame_of(Kind::Headers, END_HEADERS, 1, &head(b"POST", &[])),
        frame_of(Kind::Data, 0, 1, b"abc"),
        frame_of(Kind::Data, 0, 1, b""),
        frame_of(Kind::Data, 0, 1, b"defg"),
        frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &trailers),
    ]
    .concat();
    for at in 0..=upload.len() {
        let mut world = World::before_http1();
        let client = world.client();
        let before = &upload[..at];
        before.iter().for_each(|byte| world.give(client, &[*byte]));
        // The backend is dialled once the head is there.
        let backend = (!world.dials.is_empty()).then(|| world.connected(false));
        upload[at..].iter().for_each(|byte| world.give(client, &[*byte]));
        let backend = backend.unwrap_or_else(|| world.connected(false));
        let request = String::from_utf8(world.sent.remove(&backend).unwrap()).unwrap();
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let mut content = String::new();
        let mut rest = body;
        while let Some((size, behind)) = rest.split_once("\r\n")
            && size != "0"
        {
            let size = usize::from_str_radix(size, 16).unwrap();
            content.push_str(&behind[..size]);
            rest = &behind[size + 2..];
        }
        assert_eq!((content.as_str(), rest), ("abcdefg", "0\r\nt: v\r\n\r\n"), "split at {at}");
        world.give(backend, b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(kinds(&world.on(client, 1)), [(Kind::Headers, END_HEADERS | END_STREAM)]);
        assert_eq!(world.proxy.requests(), 0);
    }
}

#[test]
fn streams_of_clients_and_of_backends_pass_each_other_in_windows() {
    let mut world = World::new(1, false);
    let client = world.client();
    world.give(client, &frame_of(Kind::Headers, END_HEADERS, 1, &head(b"POST", &[])));
    let piece = vec![b'x'; H2_FRAME_BYTES];
    for _ in 0..4 {
        world.give(client, &frame_of(Kind::Data, 0, 1, &piece));
    }
    assert!(world.on(client, 1).is_empty(), "no credit for content that waits");
    let mux_key = world.connected(true);
    let mut sent = 0;
    for _ in 0..4 {
        let frames = world.frames(mux_key).into_iter().filter(|(header, _)| header.kind == Kind::Data);
        sent += frames.map(|(header, _)| header.length).sum::<u32>();
        world.frame(mux_key, Kind::WindowUpdate, 0, 1, &H2_WINDOW_BYTES.to_be_bytes());
        world.frame(mux_key, Kind::WindowUpdate, 0, 0, &H2_WINDOW_BYTES.to_be_bytes());
    }
    assert_eq!(sent, H2_WINDOW_BYTES);
    assert_eq!(kinds(&world.on(client, 1)), [(Kind::WindowUpdate, 0)]);
    // A status of 404.
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x8d]);
    let frames = world.on(client, 1);
    assert_eq!(kinds(&frames), [(Kind::Headers, END_HEADERS | END_STREAM), (Kind::RstStream, 0)]);
    assert_eq!(frames[1], reset_with(ErrorCode::NO_ERROR), "the response was early");
}

#[test]
fn a_response_that_its_backend_cuts_is_reset_and_other_streams_go_on() {
    for (cut, length) in [(true, "Content-Length: 9\r\n"), (true, "Transfer-Encoding: chunked\r\n"), (false, "")] {
        let mut world = World::before_http1();
        let client = world.client();
        world.give(client, &[get(1), get(3)].concat());
        let (other, backend) = (world.connected(false), world.connected(false));
        world.give(backend, format!("HTTP/1.1 200 OK\r\n{length}\r\n").as_bytes());
        world.proxy.ended(backend);
        world.carry_out();
        let frames = world.on(client, 1);
        let last = frames.last().unwrap();
        match cut {
            true => assert_eq!(last, &reset_with(ErrorCode::INTERNAL_ERROR), "{length}"),
            false => assert_eq!((last.0, last.1), (Kind::Data, END_STREAM), "its end is the end of the content"),
        }
        world.give(other, b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(kinds(&world.on(client, 3)), [(Kind::Headers, END_HEADERS | END_STREAM)]);
        assert!(!world.closed.contains(&client));
    }
}

#[test]
fn a_client_that_resets_a_stream_or_its_connection_closes_its_connections_to_backends() {
    for leaves in [false, true] {
        let mut world = World::before_http1();
        let client = world.client();
        world.give(client, &get(1));
        let backend = world.connected(false);
        match leaves {
            false => world.give(client, &frame_of(Kind::RstStream, 0, 1, &ErrorCode::CANCEL.0.to_be_bytes())),
            true => {
                world.proxy.failed(client, Failure::Broken(104));
                world.carry_out();
            }
        }
        assert!(world.closed.contains(&backend));
        assert_eq!(world.closed.contains(&client), leaves);
        assert_eq!((world.proxy.requests(), world.proxy.clients()), (0, usize::from(!leaves)));
        world.audit();
    }
}

#[test]
fn heads_that_cannot_be_served_get_a_reply_or_a_reset() {
    let mut world = World::before_http1();
    let client = world.client();
    // A field of a connection is malformed (RFC 9113, 8.2.2).
    let malformed = head(b"GET", &[(b"connection", b"close")]);
    world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &malformed));
    assert_eq!(world.on(client, 1), [reset_with(ErrorCode::PROTOCOL_ERROR)]);
    world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 3, &head(b"TRACE", &[])));
    let frames = world.on(client, 3);
    assert_eq!(kinds(&frames), [(Kind::Headers, END_HEADERS), (Kind::Data, END_STREAM)]);
    // A response to HEAD has no content.
    world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 5, &head(b"HEAD", &[(b"expect", b"x")])));
    assert_eq!(kinds(&world.on(client, 5)), [(Kind::Headers, END_HEADERS | END_STREAM)]);
    // Two different names of the host (RFC 9113, 8.3.1). The static table has 400 at this index.
    world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 7, &head(b"GET", &[(b"host", b"other")])));
    let frames = world.on(client, 7);
    assert_eq!(kinds(&frames), [(Kind::Headers, END_HEADERS), (Kind::Data, END_STREAM)]);
    assert_eq!(frames[0].2[0], 0x8c);
    assert_eq!(world.proxy.connections(), 1);
}

#[test]
fn a_drain_announces_its_end_and_serves_what_was_on_its_way() {
    for answers in [true, false] {
        let mut world = World::before_http1();
        let client = world.client();
        world.give(client, &get(1));
        let backend = world.connected(false);
        world.proxy.drain();
        world.carry_out();
        let goaway = |frames: &[(Kind, u8, Vec<u8>)]| {
            let frame = frames.iter().find(|(kind, ..)| *kind == Kind::Goaway);
            frame.map(|(.., payload)| u32::from_be_bytes(payload[..4].try_into().unwrap()))
        };
        let frames = world.on(client, 0);
        assert_eq!(goaway(&frames), Some(MAX_31));
        let ping = frames.iter().find(|(kind, ..)| *kind == Kind::Ping).unwrap().2.clone();
        // It was on its way.
        world.give(client, &get(3));
        let other = world.connected(false);
        match answers {
            true => world.give(client, &frame_of(Kind::Ping, ACK, 0, &ping)),
            false => world.pass(H2_SHUTDOWN_US + 100_000),
        }
        assert_eq!(goaway(&world.on(client, 0)), Some(3));
        world.give(client, &get(5));
        assert_eq!(world.on(client, 5), [reset_with(ErrorCode::REFUSED_STREAM)]);
        for (backend, stream) in [(backend, 1), (other, 3)] {
            assert!(!world.proxy.is_ending(client));
            world.give(backend, b"HTTP/1.1 204 No Content\r\n\r\n");
            assert_eq!(kinds(&world.on(client, stream)), [(Kind::Headers, END_HEADERS | END_STREAM)]);
        }
        assert!(world.proxy.connections.get(client).is_some_and(Connection::drops_input));
        world.audit();
    }
}

#[test]
fn a_client_that_takes_nothing_of_the_shutdown_is_closed_in_time() {
    let mut world = World::before_http1();
    let client = world.client();
    world.stalled.push(client);
    world.proxy.drain();
    world.carry_out();
    world.proxy.ended(client);
    world.carry_out();
    for _ in 0..2 {
        world.pass(crate::limits::DEFAULT_RESPONSE_US + 100_000);
        world.audit();
    }
    assert!(world.closed.contains(&client));
}

#[test]
fn a_stop_counts_each_request_and_closes_the_connection() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &[get(1), get(3)].concat());
    assert_eq!(world.proxy.stop(), 2);
    world.carry_out();
    assert!(world.closed.contains(&client));
    let reset = reset_with(ErrorCode::INTERNAL_ERROR);
    let frames = world.frames(client);
    let resets = frames.into_iter().filter(|(header, _)| header.kind == Kind::RstStream);
    assert_eq!(resets.map(|(_, payload)| payload).collect::<Vec<_>>(), [reset.2.clone(), reset.2]);
    assert_eq!(world.proxy.requests(), 0);
    world.audit();
}

#[test]
fn an_idle_connection_is_told_of_its_end_and_a_silent_one_is_not_waited_for() {
    let mut world = World::before_http1();
    let client = world.client();
    world.pass(DEFAULT_IDLE_US + 100_000);
    assert_eq!(kinds(&world.on(client, 0)), [(Kind::Goaway, 0)]);
    assert!(world.proxy.connections.get(client).is_some_and(Connection::drops_input));
    // One that sends no SETTINGS has the time of a head.
    let silent = world.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
    world.give(silent, PREFACE);
    // One that sends a part of the preface is a late request of HTTP/1.
    let partial = world.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
    world.give(partial, &PREFACE[..20]);
    world.pass(crate::limits::DEFAULT_REQUEST_US + 100_000);
    assert!(world.proxy.connections.get(silent).is_none_or(Connection::drops_input));
    assert!(world.sent[&partial].starts_with(b"HTTP/1.1 408 "));
}

#[test]
fn a_stream_whose_client_takes_nothing_is_reset_and_others_go_on() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &frame_of(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 0]));
    world.give(client, &get(1));
    let backend = world.connected(false);
    world.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(kinds(&world.on(client, 1)), [(Kind::Headers, END_HEADERS)]);
    world.pass(crate::limits::DEFAULT_RESPONSE_US / 2);
    world.give(client, &get(3));
    world.pass(crate::limits::DEFAULT_RESPONSE_US / 2 + 100_000);
    assert_eq!(world.on(client, 1), [reset_with(ErrorCode::CANCEL)]);
    assert!(!world.closed.contains(&client));
}

#[test]
fn content_that_waits_for_the_socket_has_the_deadline_of_its_mux() {
    let half_us = crate::limits::DEFAULT_RESPONSE_US / 2;
    for is_closed in [false, true] {
        let mut world = World::before_http1();
        let client = world.client();
        // The window of the stream admits all, or nothing.
        let window: &[u8] = if is_closed { &[0, 4, 0, 0, 0, 0] } else { &[0, 4, 0x7f, 0xff, 0xff, 0xff] };
        world.give(client, &frame_of(Kind::Settings, 0, 0, window));
        world.give(client, &frame_of(Kind::WindowUpdate, 0, 0, &0x10_0000_u32.to_be_bytes()));
        world.give(client, &get(1));
        let backend = world.connected(false);
        world.stalled.push(client);
        world.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        world.give(backend, &[b'x'; 1_000_000]);
        // The client acknowledges a few of the bytes that the system holds for it.
        for left in (0..10).rev() {
            world.unacknowledged = Some(1_000_000 + left);
            world.pass(half_us);
            world.audit();
        }
        assert_eq!(world.proxy.requests(), usize::from(!is_closed));
        assert!(!world.closed.contains(&client), "{is_closed}");
        world.pass(2 * half_us + 100_000);
        assert!(world.reset.contains(&client), "{is_closed}");
    }
}

#[test]
fn a_request_that_begins_like_the_preface_is_one_of_http_1() {
    let mut world = World::before_http1();
    for text in ["PUT / HTTP/1.1\r\nHost: x\r\n\r\n", "PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let client = world.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
        text.bytes().for_each(|byte| world.give(client, &[byte]));
        assert_eq!(world.proxy.requests(), 1, "{text}");
        world.proxy.failed(client, Failure::Broken(104));
    }
    // The preface is not one behind a request, nor with another end.
    let client = world.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert!(world.sent[&client].starts_with(b"HTTP/1.1 505 "));
}

#[test]
fn a_client_that_agreed_to_http_2_gets_settings_before_it_has_sent_anything() {
    let mut world = World::before_http1();
    let client = world.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
    world.proxy.accepted_http2(client);
    world.carry_out();
    assert_eq!(world.on(client, 0).first().map(|frame| frame.0), Some(Kind::Settings));
    // Its preface is due nevertheless.
    PREFACE.iter().for_each(|byte| world.give(client, &[*byte]));
    world.frame(client, Kind::Settings, 0, 0, &[]);
    world.give(client, &get(1));
    let backend = world.connected(false);
    world.give(backend, b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(kinds(&world.on(client, 1)), [(Kind::Headers, END_HEADERS | END_STREAM)]);
    // It agreed to nothing but HTTP/2.
    let other = world.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
    world.proxy.accepted_http2(other);
    world.give(other, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(world.on(other, 0).last().map(|frame| frame.0), Some(Kind::Goaway));
}

#[test]
fn a_client_that_ends_its_direction_gets_its_responses_for_a_while() {
    let mut world = World::before_http1();
    world.proxy.settings.timeouts.half_close_us = 2_000_000;
    let client = world.client();
    world.give(client, &[get(1), get(3)].concat());
    world.pass(0);
    let (prompt, slow) = (world.connected(false), world.connected(false));
    // Its upload is incomplete.
    world.give(client, &frame_of(Kind::Headers, END_HEADERS, 5, &head(b"POST", &[])));
    let upload = world.connected(false);
    world.proxy.closing(client);
    // This request was on its way before the end.
    world.give(client, &get(7));
    let late = world.connected(false);
    world.proxy.ended(client);
    world.carry_out();
    assert!(world.closed.contains(&upload));
    assert_eq!(kinds(&world.on(client, 5))[0], (Kind::Headers, END_HEADERS), "a local reply");
    for (backend, stream) in [(prompt, 3), (late, 7)] {
        world.give(backend, b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(kinds(&world.on(client, stream)), [(Kind::Headers, END_HEADERS | END_STREAM)]);
    }
    world.pass(1_900_000);
    assert!(!world.closed.contains(&slow));
    world.pass(200_000);
    assert!(world.closed.contains(&slow) && world.closed.contains(&client));
    assert_eq!((world.proxy.requests(), world.proxy.connections()), (0, 2));
    world.audit();
}

#[test]
fn a_client_is_asked_to_open_another_connection_after_many_requests() {
    let mut world = World::before_http1();
    let client = world.client();
    world.frame(client, Kind::WindowUpdate, 0, 0, &(1_u32 << 24).to_be_bytes());
    // The proxy replies itself.
    let trace = head(b"TRACE", &[]);
    for n in 0..H2_CLIENT_REQUESTS {
        assert!(world.on(client, 0).iter().all(|frame| frame.0 != Kind::Goaway), "{n}");
        world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 2 * n + 1, &trace));
    }
    let frames = world.on(client, 0);
    assert_eq!(kinds(&frames), [(Kind::Goaway, 0), (Kind::Ping, 0)]);
    assert_eq!(frames[0].2[..4], MAX_31.to_be_bytes());
    world.give(client, &frame_of(Kind::Ping, ACK, 0, &frames[1].2));
    assert!(world.proxy.connections.get(client).is_some_and(Connection::drops_input));
}

/// The acknowledgement of a PING waits in the queue for a moment, and is no end of the idle time.
#[test]
fn pings_do_not_prolong_the_time_between_two_requests() {
    let mut world = World::before_http1();
    let client = world.client();
    let ping = |world: &mut World| {
        for _ in 0..4 {
            world.pass(DEFAULT_IDLE_US / 5);
            world.give(client, &frame_of(Kind::Ping, 0, 0, &[0; 8]));
            assert!(kinds(&world.on(client, 0)).contains(&(Kind::Ping, ACK)));
        }
    };
    ping(&mut world);
    // A request begins another wait.
    world.give(client, &get(1));
    let backend = world.connected(false);
    world.give(backend, b"HTTP/1.1 204 No Content\r\n\r\n");
    world.on(client, 1);
    ping(&mut world);
    world.pass(DEFAULT_IDLE_US / 5 + 100_000);
    assert!(kinds(&world.on(client, 0)).contains(&(Kind::Goaway, 0)));
    world.audit();
}

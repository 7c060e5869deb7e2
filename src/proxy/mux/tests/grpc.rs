//! gRPC calls: the statuses of local replies, deadlines, and streams of messages that are silent for long.

use super::downstream::{frame_of, get, head, kinds, reset_with};
use super::*;
use crate::http::fields::Name;
use crate::http::head::Head;
use crate::http::head::HeadRef;
use crate::http::part::Role;
use crate::http2::head::{Section, read};
use crate::limits::{DEFAULT_RESPONSE_US, TUNNEL_IDLE_US};

const TYPE: (&[u8], &[u8]) = (b"content-type", b"application/grpc+proto");

/// A call whose client sends more messages later.
fn call(stream: u32, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    frame_of(Kind::Headers, END_HEADERS, stream, &head(b"POST", &[&[TYPE], fields].concat()))
}

/// The fields of a block that the proxy has sent.
fn fields(block: &[u8], role: Role, section: Section) -> Vec<(String, String)> {
    let (mut head, mut arena) = (Head::default(), Vec::new());
    let mut decoder = crate::hpack::Decoder::new(4096);
    read(&mut decoder, block, role, section, &mut head, &mut arena).unwrap();
    let head = HeadRef { bytes: &arena, head: &head };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let status = [(":status".to_owned(), head.status().to_string())];
    status.into_iter().chain(head.fields().map(|(_, name, value)| (text(name), text(value)))).collect()
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
}

/// The status of a call in a reply of the proxy, which is one frame.
fn replied(frames: &[(Kind, u8, Vec<u8>)]) -> String {
    assert_eq!((frames[0].0, frames[0].1), (Kind::Headers, END_HEADERS | END_STREAM), "{frames:?}");
    let fields = fields(&frames[0].2, Role::Client, Section::Head);
    assert_eq!((value(&fields, ":status"), value(&fields, "content-type")), ("200", "application/grpc"));
    assert!(!value(&fields, "grpc-message").is_empty());
    value(&fields, "grpc-status").to_owned()
}

#[test]
fn a_local_reply_to_a_call_is_a_status() {
    // There is no backend.
    let mut world = World::new(0, false);
    let client = world.client();
    world.give(client, &call(1, &[]));
    let frames = world.on(client, 1);
    assert_eq!(replied(&frames), "14");
    assert_eq!(frames[1], reset_with(ErrorCode::NO_ERROR), "the call was not complete");
    // The request is refused before and after its facts are known.
    let large = vec![b'x'; 40_000];
    for (fields, status) in [
        (&[(&b"connection"[..], &b"close"[..])][..], "13"),
        (&[(b"content-length", b"x")], "13"),
        (&[(b"a", &large), (b"b", &large)], "13"),
        (&[(b"expect", b"cake")], "13"),
    ] {
        let mut world = World::new(1, false);
        let client = world.client();
        let block = head(b"POST", &[&[TYPE], fields].concat());
        let mut bytes = Vec::new();
        frame::fields(&mut bytes, 1, &block, true, H2_FRAME_BYTES);
        world.give(client, &bytes);
        assert_eq!(replied(&world.on(client, 1)), status, "{fields:?}");
    }
    // A client of gRPC-Web expects a status of HTTP.
    let mut world = World::new(0, false);
    let client = world.client();
    let block = head(b"POST", &[(b"content-type", b"application/grpc-web+proto")]);
    world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &block));
    assert_eq!(kinds(&world.on(client, 1)), [(Kind::Headers, END_HEADERS), (Kind::Data, END_STREAM)]);
}

#[test]
fn a_backend_that_fails_before_its_head_gives_a_status() {
    for (failure, status) in [(Failure::Connect(111), "14"), (Failure::ConnectTimeout, "4")] {
        let mut world = World::new(1, false);
        let client = world.client();
        world.give(client, &call(1, &[]));
        while let Some((key, _)) = world.dials.pop() {
            world.proxy.failed(key, failure);
            world.carry_out();
        }
        world.pass(DEFAULT_CONNECT_US);
        assert_eq!(replied(&world.on(client, 1)), status, "{failure}");
    }
    let mut world = World::new(1, false);
    let client = world.client();
    world.give(client, &call(1, &[]));
    world.give(client, &frame_of(Kind::Data, END_STREAM, 1, b"x"));
    world.connected(true);
    world.pass(DEFAULT_RESPONSE_US + 100_000);
    assert_eq!(replied(&world.on(client, 1)), "4", "--response-timeout");
}

#[test]
fn a_deadline_is_forwarded_shorter_and_ends_the_call() {
    for begun in [false, true] {
        let mut world = World::new(1, false);
        let client = world.client();
        world.give(client, &call(1, &[(b"grpc-timeout", b"3S")]));
        world.pass(1_000_000);
        let mux_key = world.connected(true);
        let frames = world.frames(mux_key);
        let (_, block) = frames.iter().find(|(header, _)| header.kind == Kind::Headers).unwrap();
        let sent = fields(block, Role::Server, Section::Head);
        assert_eq!(value(&sent, "grpc-timeout"), "2000000u");
        if begun {
            world.frame(mux_key, Kind::Headers, END_HEADERS, 1, &[0x88]);
            world.frame(mux_key, Kind::Data, 0, 1, b"a message");
            assert_eq!(kinds(&world.on(client, 1)), [(Kind::Headers, END_HEADERS), (Kind::Data, 0)]);
        }
        world.pass(1_900_000);
        assert!(world.on(client, 1).is_empty());
        world.pass(200_000);
        let frames = world.on(client, 1);
        match begun {
            false => assert_eq!(replied(&frames), "4"),
            true => {
                assert_eq!((frames[0].0, frames[0].1), (Kind::Headers, END_HEADERS | END_STREAM), "{frames:?}");
                assert_eq!(value(&fields(&frames[0].2, Role::Client, Section::Trailers), "grpc-status"), "4");
            }
        }
        assert_eq!(frames[1], reset_with(ErrorCode::NO_ERROR));
        let resets: Vec<_> = world.on(mux_key, 1);
        assert_eq!(resets, [reset_with(ErrorCode::CANCEL)]);
        assert_eq!((world.proxy.requests(), world.proxy.connections()), (0, 2));
    }
}

#[test]
fn a_deadline_also_ends_a_wait_for_a_connection() {
    for (text, ends) in [(&b"100m"[..], true), (b"0S", true), (b"1s", false)] {
        let mut world = World::new(1, false);
        let client = world.client();
        world.give(client, &call(1, &[(b"grpc-timeout", text)]));
        world.pass(200_000);
        let frames = world.on(client, 1);
        assert_eq!(!frames.is_empty(), ends, "{text:?}");
        if ends {
            assert_eq!(replied(&frames), "4");
        }
        world.audit();
    }
}

#[test]
fn a_backend_that_is_lost_behind_its_head_gives_trailers() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &call(1, &[]));
    let backend = world.connected(false);
    world.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi");
    world.proxy.ended(backend);
    world.carry_out();
    let frames = world.on(client, 1);
    let expected = [
        (Kind::Headers, END_HEADERS),
        (Kind::Data, 0),
        (Kind::Headers, END_HEADERS | END_STREAM),
        (Kind::RstStream, 0),
    ];
    assert_eq!(kinds(&frames), expected);
    let head = fields(&frames[0].2, Role::Client, Section::Head);
    assert_eq!(value(&head, Name::ContentLength.text()), "", "the length would be wrong");
    assert_eq!(value(&fields(&frames[2].2, Role::Client, Section::Trailers), "grpc-status"), "14");
    world.audit();
}

#[test]
fn a_stop_gives_calls_a_status_and_resets_other_streams() {
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi";
    let mut world = World::before_http1();
    let client = world.client();
    for (stream, is_call, response) in
        [(1, true, &b""[..]), (3, true, HALF), (5, false, b""), (7, false, HALF), (9, true, HALF)]
    {
        if stream == 9 {
            // Its end waits for a window behind its content.
            world.frame(client, Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 1]);
        }
        world.give(client, &if is_call { call(stream, &[]) } else { get(stream) });
        let backend = world.connected(false);
        world.give(backend, response);
    }
    assert_eq!(world.proxy.stop(), 5);
    world.carry_out();
    assert!(world.closed.contains(&client));
    assert_eq!(world.proxy.requests(), 0);
    let frames = world.frames(client);
    let on = |stream| {
        let frames = frames.iter().filter(|(header, _)| header.stream == stream);
        frames.map(|(header, payload)| (header.kind, header.flags, payload.clone())).collect::<Vec<_>>()
    };
    assert_eq!(replied(&on(1)), "14");
    assert_eq!(on(1)[1], reset_with(ErrorCode::NO_ERROR), "the call was not complete");
    assert_eq!(kinds(&on(3))[..3], [(Kind::Headers, 4), (Kind::Data, 0), (Kind::Headers, END_HEADERS | END_STREAM)]);
    assert_eq!(value(&fields(&on(3)[2].2, Role::Client, Section::Trailers), "grpc-status"), "14");
    let reset = reset_with(ErrorCode::INTERNAL_ERROR);
    assert_eq!(on(5), std::slice::from_ref(&reset));
    assert_eq!(on(7).last(), Some(&reset));
    assert_eq!(kinds(&on(9)), [(Kind::Headers, END_HEADERS), (Kind::Data, 0), (Kind::RstStream, 0)]);
    assert_eq!(frames.last().map(|(header, _)| header.kind), Some(Kind::Goaway));
    world.audit();
}

#[test]
fn a_status_in_the_head_of_a_response_ends_the_stream_there() {
    let mut world = World::new(1, false);
    let client = world.client();
    world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &head(b"POST", &[TYPE])));
    let mux_key = world.connected(true);
    let mut block = vec![0x88];
    crate::hpack::encode(&mut block, b"grpc-status", b"12");
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &block);
    let frames = world.on(client, 1);
    assert_eq!(kinds(&frames), [(Kind::Headers, END_HEADERS | END_STREAM)]);
    let sent = fields(&frames[0].2, Role::Client, Section::Head);
    assert_eq!((value(&sent, "grpc-status"), value(&sent, "content-length")), ("12", ""));
}

#[test]
fn silence_between_messages_has_the_limit_of_a_tunnel() {
    let events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let plain = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\ndata: 1\n\n";
    for (is_call, response, ends) in [(true, &plain[..], false), (false, events, false), (false, plain, true)] {
        let mut world = World::before_http1();
        let client = world.client();
        let fields = if is_call { vec![TYPE] } else { Vec::new() };
        world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &head(b"POST", &fields)));
        let backend = world.connected(false);
        world.give(backend, response);
        world.pass(10 * DEFAULT_RESPONSE_US);
        assert_eq!(world.closed.contains(&backend), ends);
        world.pass(TUNNEL_IDLE_US);
        assert!(world.closed.contains(&backend));
    }
    // The client's messages may be as rare.
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &call(1, &[]));
    let backend = world.connected(false);
    world.pass(10 * DEFAULT_RESPONSE_US);
    assert!(!world.closed.contains(&backend) && world.on(client, 1).is_empty());
    world.audit();
}

#[test]
fn a_call_is_sent_again_only_if_the_backend_did_not_process_it() {
    for (code, again) in [(ErrorCode::REFUSED_STREAM, true), (ErrorCode::INTERNAL_ERROR, false)] {
        let mut world = World::new(2, false);
        let client = world.client();
        // The method is no promise for gRPC.
        let block = head(b"GET", &[TYPE]);
        world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &block));
        let mux_key = world.connected(true);
        world.frame(mux_key, Kind::RstStream, 0, 1, &code.0.to_be_bytes());
        assert_eq!(!world.dials.is_empty(), again, "{code}");
        if !again {
            assert_eq!(replied(&world.on(client, 1)), "14");
        }
    }
}

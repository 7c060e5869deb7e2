//! Floods of a client over HTTP/2: each ends the connection with a GOAWAY, a count by reason, and one log line.

use super::downstream::*;
use super::*;
use crate::limits::{H2_CLIENT_STREAMS, H2_REQUESTS};

/// The code of the last GOAWAY among frames.
fn goaways(frames: &[(Kind, u8, Vec<u8>)]) -> Vec<ErrorCode> {
    let code = |payload: &[u8]| ErrorCode(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
    frames.iter().filter(|frame| frame.0 == Kind::Goaway).map(|frame| code(&frame.2)).collect()
}

fn open(stream: u32) -> Vec<u8> {
    // The proxy answers itself only after the whole request, and no backend is connected.
    frame_of(Kind::Headers, END_HEADERS, stream, &head(b"POST", &[]))
}

/// A flood: its name in the log, its counter, and the frames of a round.
type Flood = (&'static str, Count, fn(u32) -> Vec<u8>);

#[test]
fn each_flood_is_counted_by_its_reason_and_both_goaways_are_logged_with_a_tally() {
    let cancel = |stream: u32| frame_of(Kind::RstStream, 0, stream, &ErrorCode::CANCEL.0.to_be_bytes());
    let floods: [Flood; 8] = [
        ("PING", Count::H2GoawayPing, |_| frame_of(Kind::Ping, 0, 0, &[0; 8])),
        ("SETTINGS", Count::H2GoawaySettings, |_| frame_of(Kind::Settings, 0, 0, &[])),
        ("PRIORITY", Count::H2GoawayPriority, |_| frame_of(Kind::Priority, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE", Count::H2GoawayWindowUpdate, |_| frame_of(Kind::WindowUpdate, 0, 0, &[0, 0, 0, 1])),
        ("DATA", Count::H2GoawayData, |_| frame_of(Kind::Data, 0, 1, &[])),
        ("CONTINUATION", Count::H2GoawayContinuation, |n| match n {
            0 => frame_of(Kind::Headers, 0, 3, &[]),
            _ => frame_of(Kind::Continuation, 0, 3, &[]),
        }),
        ("by the client", Count::H2GoawayResets, |n| open(2 * n + 3)),
        ("makes us reset", Count::H2GoawayProvoked, |n| open(2 * n + 3)),
    ];
    for (what, count, round) in floods {
        let mut world = World::before_http1();
        let client = world.client();
        world.give(client, &open(1));
        let mut frames = Vec::new();
        for n in 0..5000 {
            world.give(client, &round(n));
            match count {
                Count::H2GoawayResets => world.give(client, &cancel(2 * n + 3)),
                Count::H2GoawayProvoked => world.frame(client, Kind::WindowUpdate, 0, 2 * n + 3, &[0; 4]),
                _ => {}
            }
            frames.extend(world.on(client, 0));
        }
        let (calm, none) = (ErrorCode::ENHANCE_YOUR_CALM, ErrorCode::NO_ERROR);
        // A flood of CONTINUATION ends before three quarters of a budget are spent.
        let expected = if count == Count::H2GoawayContinuation { vec![calm] } else { vec![none, calm] };
        assert_eq!(goaways(&frames), expected, "{what}");
        let block = world.proxy.shared.block;
        assert_eq!(block.get(count), 1, "{what}");
        assert_eq!(block.get(Count::H2GoawayStrained), u64::from(expected.len() == 2), "{what}");
        let log = String::from_utf8(world.proxy.log().text().to_vec()).unwrap();
        let (warnings, ends): (Vec<&str>, Vec<&str>) = log
            .lines()
            .filter(|line| line.contains("GOAWAY"))
            .partition(|line| line.contains("GOAWAY NO_ERROR after "));
        // A client that knows of the shutdown may close its connection, so that the end is never logged.
        assert_eq!(warnings.len() + 1, expected.len(), "{what}: {warnings:?}");
        let &[line] = &ends[..] else { panic!("{what}: {ends:?}") };
        assert!(line.contains(what) && line.contains("127.0.0.1:5000: "), "{line}");
        assert!(line.contains("ENHANCE_YOUR_CALM after ") && line.contains(" HEADERS"), "{line}");
        assert_eq!(world.proxy.requests(), 0, "{what}");
    }
}

#[test]
fn resets_are_counted_by_the_side_or_the_limit_that_is_the_reason() {
    let mut world = World::before_http1();
    let client = world.client();
    for n in 0..=H2_CLIENT_STREAMS {
        world.give(client, &get(2 * n + 1));
    }
    world.frame(client, Kind::RstStream, 0, 1, &ErrorCode::CANCEL.0.to_be_bytes());
    let malformed = head(b"GET", &[(b"connection", b"close")]);
    world.frame(client, Kind::Headers, END_HEADERS | END_STREAM, 2 * H2_CLIENT_STREAMS + 3, &malformed);
    let block = world.proxy.shared.block;
    let counts = [Count::H2ResetsClient, Count::H2ResetsLimit, Count::H2ResetsProxy, Count::H2Streams];
    assert_eq!(counts.map(|count| block.get(count)), [1, 1, 1, u64::from(H2_CLIENT_STREAMS) + 1]);
}

#[test]
fn windows_of_one_byte_end_the_connection_and_small_content_does_not() {
    for (content, updates) in [(100_000, true), (1, false)] {
        let mut world = World::before_http1();
        let client = world.client();
        world.frame(client, Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 1]);
        let mut frames = Vec::new();
        for n in 0..if updates { 1 } else { 1000 } {
            world.give(client, &get(2 * n + 1));
            let backend =
                if world.dials.is_empty() { world.sent.keys().copied().find(|&key| key != client) } else { None };
            let backend = backend.unwrap_or_else(|| world.connected(false));
            world.sent.remove(&backend);
            world.give(backend, format!("HTTP/1.1 200 OK\r\nContent-Length: {content}\r\n\r\n").as_bytes());
            world.give(backend, &vec![b'x'; content.min(50_000)]);
            frames.extend(world.on(client, 0));
        }
        for _ in 0..if updates { 1000 } else { 0 } {
            world.frame(client, Kind::WindowUpdate, 0, 1, &[0, 0, 0, 1]);
            frames.extend(world.on(client, 0));
        }
        assert_eq!(goaways(&frames).last() == Some(&ErrorCode::ENHANCE_YOUR_CALM), updates);
        assert_eq!(world.proxy.shared.block.get(Count::H2GoawayWindows), u64::from(updates));
    }
}

#[test]
fn requests_beyond_the_number_of_a_worker_get_503() {
    let mut world = World::before_http1();
    let client = world.client();
    world.proxy.totals.streams = H2_REQUESTS - 1;
    world.give(client, &[get(1), get(3)].concat());
    assert_eq!(world.proxy.requests(), 1);
    let frames = world.frames(client);
    let content = |stream: u32| frames.iter().any(|(header, _)| header.stream == stream && header.kind == Kind::Data);
    assert!(content(3) && !content(1));
    assert_eq!(world.proxy.shared.block.get(Count::Own503), 1);
    world.proxy.totals.streams -= H2_REQUESTS - 1;
    world.audit();
}

#[test]
fn a_client_that_takes_no_responses_gets_a_bounded_number_of_them() {
    let mut world = World::before_http1();
    let client = world.client();
    world.stalled.push(client);
    // Each gets a status and the end in one frame.
    let call = head(b"POST", &[(b"content-type", b"application/grpc"), (b"expect", b"cake")]);
    for n in 0..20_000 {
        world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 2 * n + 1, &call));
    }
    let queued = world.proxy.connections.get(client).map_or(0, |client| client.output.len());
    assert!(queued < 256 * 1024, "{queued} bytes");
    world.audit();
    // A client that takes them is served.
    let mut world = World::before_http1();
    let client = world.client();
    for n in 0..4 * H2_CLIENT_STREAMS {
        world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 2 * n + 1, &call));
        assert_eq!(kinds(&world.on(client, 2 * n + 1)), [(Kind::Headers, END_HEADERS | END_STREAM)]);
    }
}

#[test]
fn heads_in_pieces_delay_no_other_limit() {
    let piece = |world: &mut World, client: Key, n: u32| {
        // The end of one head, and the beginning of another one.
        let whole = get(2 * n + 1);
        let (front, rest) = whole.split_at(10);
        if n > 0 {
            world.give(client, &get(2 * n - 1)[10..]);
        }
        world.give(client, front);
        assert!(!rest.is_empty());
    };
    for takes in [true, false] {
        let mut world = World::before_http1();
        let client = world.client();
        world.proxy.drain();
        world.carry_out();
        if !takes {
            world.stalled.push(client);
            world.frame(client, Kind::Ping, 0, 0, &[0; 8]);
        }
        let limit_us = if takes { crate::limits::H2_SHUTDOWN_US } else { crate::limits::DEFAULT_RESPONSE_US };
        for n in 0..12 {
            piece(&mut world, client, n);
            world.pass(limit_us / 8);
        }
        match takes {
            // The second GOAWAY is the final one.
            true => assert_eq!(goaways(&world.on(client, 0)).len(), 2),
            false => assert!(world.closed.contains(&client)),
        }
    }
}

//! Backends that decline a stream, and ones that leave a block of fields incomplete.

use super::*;
use crate::limits::{DEFAULT_REQUEST_US, H2_BLOCK_GRACE_US, POOL_IDLE_US, RETRY_FLOOR};

fn reset(world: &mut World, mux_key: Key, stream: u32, code: ErrorCode) {
    world.frame(mux_key, Kind::RstStream, 0, stream, &code.0.to_be_bytes());
}

/// The streams on which requests were sent on a connection since this was last asked.
fn requests(world: &mut World, mux_key: Key) -> Vec<u32> {
    world.frames(mux_key).iter().filter(|(header, _)| header.kind == Kind::Headers).map(|(one, _)| one.stream).collect()
}

fn answer(world: &World, client: Key) -> String {
    String::from_utf8_lossy(world.sent.get(&client).map_or(&[], Vec::as_slice)).into_owned()
}

#[test]
fn a_backend_that_refuses_streams_is_asked_twice_at_once_and_then_within_the_budget() {
    let mut world = World::new(1, false);
    world.plan.retry_percent = 1;
    world.proxy.follow(&world.plan);
    // The few retries a second that are always made.
    let mut rationed = 0;
    for round in 0..2 * RETRY_FLOOR {
        let client = world.request();
        let mux_key = if round == 0 { world.connected(true) } else { world.proxy.upstreams.muxes[0][0] };
        for _ in 0..2 {
            let streams = requests(&mut world, mux_key);
            assert_eq!((streams.len(), world.dials.len()), (1, 0), "at once, on the connection that there is");
            reset(&mut world, mux_key, streams[0], ErrorCode::REFUSED_STREAM);
        }
        assert!(requests(&mut world, mux_key).is_empty());
        if world.dials.is_empty() {
            assert!(answer(&world, client).starts_with("HTTP/1.1 502 "), "{}", answer(&world, client));
            assert!(answer(&world, client).contains("gave the request up"), "{}", answer(&world, client));
            continue;
        }
        rationed += 1;
        let fresh = world.connected(true);
        assert_eq!(requests(&mut world, fresh), [1]);
        world.frame(fresh, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
        assert!(answer(&world, client).starts_with("HTTP/1.1 204 "));
    }
    assert!((RETRY_FLOOR..2 * RETRY_FLOOR).contains(&rationed), "{rationed}");
    assert_eq!(failures(&mut world), 0);
}

#[test]
fn a_refused_stream_goes_to_another_backend_whatever_the_budget() {
    let mut world = World::new(4, false);
    world.plan.retry_percent = 0;
    world.proxy.follow(&world.plan);
    let client = world.request();
    for _ in 0..3 {
        let mux_key = world.connected(true);
        reset(&mut world, mux_key, 1, ErrorCode::REFUSED_STREAM);
    }
    let last = world.connected(true);
    world.frame(last, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert!(answer(&world, client).starts_with("HTTP/1.1 204 "));
}

#[test]
fn a_backend_that_is_configured_for_http_2_and_requires_http_1_is_asked_once() {
    let mut world = World::new(1, false);
    let client = world.request();
    let mux_key = world.connected(true);
    assert_eq!(requests(&mut world, mux_key), [1]);
    reset(&mut world, mux_key, 1, ErrorCode::HTTP_1_1_REQUIRED);
    assert!(requests(&mut world, mux_key).is_empty() && world.dials.is_empty());
    assert!(answer(&world, client).starts_with("HTTP/1.1 502 "));
    assert_eq!(failures(&mut world), 0, "it may be so for one resource");
    // Another backend may serve it.
    let mut world = World::new(2, false);
    let client = world.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    let mux_key = world.connected(true);
    reset(&mut world, mux_key, 1, ErrorCode::HTTP_1_1_REQUIRED);
    let other = world.connected(true);
    world.frame(other, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert!(answer(&world, client).starts_with("HTTP/1.1 204 "));
}

/// The content and the flags of the last frame of a request on a mux.
fn content(world: &mut World, mux_key: Key, stream: u32) -> (Vec<u8>, u8) {
    let frames = world.frames(mux_key);
    let data = frames.iter().filter(|(header, _)| header.stream == stream && header.kind == Kind::Data);
    let flags = data.clone().next_back().map_or(0, |(header, _)| header.flags);
    (data.flat_map(|(_, payload)| payload.clone()).collect(), flags)
}

#[test]
fn a_request_that_was_not_processed_is_sent_again_with_its_content() {
    for (version, kept) in [(true, "0123"), (true, "0123456789"), (false, "0123"), (false, "0123456789")] {
        let mut world = World::new(2, true);
        let client = world.send(&format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{kept}"));
        let first = world.connected(true);
        assert_eq!(content(&mut world, first, 1).0, kept.as_bytes());
        // A GOAWAY that excludes all streams.
        world.frame(first, Kind::Goaway, 0, 0, &[0; 8]);
        let second = world.connected(version);
        world.proxy.check().unwrap();
        let rest = &"0123456789"[kept.len()..];
        world.give(client, rest.as_bytes());
        match version {
            true => {
                assert_eq!(content(&mut world, second, 1), (b"0123456789".to_vec(), END_STREAM), "{kept}");
                world.frame(second, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x88]);
            }
            false => {
                let request = String::from_utf8(world.sent.remove(&second).unwrap()).unwrap();
                assert!(request.ends_with("\r\n\r\n0123456789"), "{request}");
                world.give(second, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
        assert!(answer(&world, client).starts_with("HTTP/1.1 200 "));
        assert_eq!(failures(&mut world), 0);
    }
}

#[test]
fn a_request_whose_content_is_not_kept_is_sent_to_no_other_backend() {
    let long = "x".repeat(crate::limits::KEPT_CONTENT_BYTES + 1);
    let chunked = "0\r\nx-sum: abc\r\n\r\n".to_owned();
    let length = format!("Content-Length: {}", long.len());
    for (field, content) in [(length.as_str(), long), ("Transfer-Encoding: chunked", chunked)] {
        let mut world = World::new(2, true);
        let client = world.send(&format!("POST / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n"));
        let first = world.connected(true);
        world.give(client, content.as_bytes());
        world.frame(first, Kind::Goaway, 0, 0, &[0; 8]);
        assert!(world.dials.is_empty());
        assert!(answer(&world, client).starts_with("HTTP/1.1 502 "), "{field}");
        assert_eq!(failures(&mut world), 0, "the backend is not to blame");
    }
}

#[test]
fn a_block_that_is_not_complete_in_time_ends_its_connection_which_gets_no_streams_meanwhile() {
    // In CONTINUATION frames that trickle, and in a frame of which a part comes.
    for trickles in [true, false] {
        let mut world = World::new(1, false);
        let stuck = world.request();
        let mux_key = world.connected(true);
        requests(&mut world, mux_key);
        if trickles {
            world.frame(mux_key, Kind::Headers, 0, 1, &[0x88]);
        } else {
            world.give(mux_key, &[0, 0, 2, 1, END_HEADERS, 0, 0, 0, 1, 0x88]);
        }
        world.pass(H2_BLOCK_GRACE_US);
        let client = world.request();
        let other = world.connected(true);
        assert_ne!(other, mux_key);
        world.frame(other, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
        assert!(answer(&world, client).starts_with("HTTP/1.1 204 "));
        for _ in 0..9 {
            world.pass(DEFAULT_REQUEST_US / 10);
            if trickles {
                world.frame(mux_key, Kind::Continuation, 0, 1, &[]);
            }
        }
        world.frames(other);
        assert_eq!(answer(&world, stuck), "");
        world.pass(DEFAULT_REQUEST_US / 10 + 100_000);
        let sent = world.frames(mux_key);
        assert!(sent.iter().any(|(header, _)| header.kind == Kind::Goaway), "{sent:?}");
        // There is no other backend that it could go to.
        assert!(answer(&world, stuck).starts_with("HTTP/1.1 502 "), "{}", answer(&world, stuck));
        assert_eq!(failures(&mut world), 1);
    }
}

#[test]
fn each_block_has_the_time_for_itself() {
    let mut world = World::new(1, false);
    let _clients = [world.request(), world.request(), world.request()];
    let mux_key = world.connected(true);
    for stream in [1, 3, 5] {
        let mut bytes = Vec::new();
        if stream > 1 {
            frame::write(&mut bytes, Kind::Continuation, END_HEADERS, stream - 2, &[]);
        }
        frame::write(&mut bytes, Kind::Headers, END_STREAM, stream, &[0x89]);
        world.give(mux_key, &bytes);
        world.pass(DEFAULT_REQUEST_US * 2 / 3);
    }
    assert!(!world.frames(mux_key).iter().any(|(header, _)| header.kind == Kind::Goaway));
}

#[test]
fn a_request_that_leaves_with_its_backend_for_an_idle_connection_is_sent_at_once() {
    let mut world = World::new(2, false);
    world.request();
    let (idle, slot) = *world.dials.last().expect("a connection was asked for");
    world.connected(true);
    world.frame(idle, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    world.frames(idle);
    let client = world.request();
    let (_, other) = world.dials.pop().expect("the other backend's turn");
    assert_ne!(other, slot);
    world.plan.members.retain(|member| usize::from(member.slot) == slot);
    world.proxy.follow(&world.plan);
    world.carry_out();
    let kinds: Vec<Kind> = world.frames(idle).iter().map(|(header, _)| header.kind).collect();
    assert!(kinds.contains(&Kind::Headers), "{kinds:?}");
    world.frame(idle, Kind::Headers, END_HEADERS | END_STREAM, 3, &[0x89]);
    assert!(world.sent[&client].starts_with(b"HTTP/1.1 204 "));
}

#[test]
fn an_idle_connection_whose_time_ends_takes_no_request_with_it_that_comes_in_the_same_turn() {
    let mut world = World::new(2, false);
    world.request();
    let idle = world.connected(true);
    world.frame(idle, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    world.request();
    let (silent, _) = *world.dials.last().expect("the other backend's turn");
    world.now_us += POOL_IDLE_US;
    world.proxy.set_clock(world.now_us, world.now_us);
    world.proxy.ledger.timers.expire(world.now_us, &mut world.proxy.ledger.due);
    let stream = world
        .proxy
        .connections
        .get(silent)
        .and_then(|one| one.codec.mux())
        .and_then(Mux::upstream)
        .map(|one| one.waiting[0]);
    world.proxy.lost(stream.expect("the request waits"), Failure::Unprocessed, false);
    world.proxy.expire();
    world.carry_out();
    assert!(!world.closed.contains(&idle));
    assert_eq!(world.proxy.check(), Ok(()));
}

#[test]
fn a_backend_that_takes_no_goaway_is_closed_in_time() {
    let mut world = World::new(1, false);
    world.request();
    let mux_key = world.connected(true);
    world.stalled.push(mux_key);
    // The block of fields has no end.
    world.frame(mux_key, Kind::Headers, 0, 1, &[0x89]);
    world.pass(DEFAULT_REQUEST_US + 100_000);
    assert!(world.proxy.connections.get(mux_key).is_some_and(Connection::drops_input));
    world.proxy.check().unwrap();
    world.pass(POOL_IDLE_US + 100_000);
    assert!(world.closed.contains(&mux_key));
}

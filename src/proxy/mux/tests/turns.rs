//! Many frames of a client in one read.

use super::downstream::*;
use super::*;
use crate::limits::{H2_CLIENT_STREAMS, H2_IDLE_FRAMES, H2_TURN_FRAMES, H2_TURN_LIST_BYTES, H2_TURN_REQUESTS};

fn cancel(stream: u32) -> Vec<u8> {
    frame_of(Kind::RstStream, 0, stream, &ErrorCode::CANCEL.0.to_be_bytes())
}

#[test]
fn requests_that_arrive_at_once_are_taken_over_several_turns() {
    let mut world = World::before_http1();
    let client = world.client();
    let burst: Vec<u8> = (0..H2_CLIENT_STREAMS).flat_map(|n| get(2 * n + 1)).collect();
    world.give(client, &burst);
    world.audit();
    assert_eq!(world.proxy.requests(), H2_TURN_REQUESTS as usize);
    assert!(world.proxy.room(client).is_none(), "nothing is read before the next turn");
    world.proxy.expire();
    world.carry_out();
    world.audit();
    assert_eq!(world.proxy.requests(), 2 * H2_TURN_REQUESTS as usize);
    world.pass(0);
    world.audit();
    assert_eq!(world.proxy.requests(), H2_CLIENT_STREAMS as usize);
    assert!(world.proxy.room(client).is_some());
}

#[test]
fn fewer_requests_with_large_heads_are_taken_in_a_turn() {
    let mut world = World::before_http1();
    let client = world.client();
    let large = head(b"GET", &[(&b"x"[..], &b"y"[..]); 90]);
    let burst = (0..30).flat_map(|n| frame_of(Kind::Headers, END_HEADERS | END_STREAM, 2 * n + 1, &large));
    world.give(client, &burst.collect::<Vec<u8>>());
    world.audit();
    let (requests, decoded) = world.proxy.work_on(client).expect("it is a mux");
    let most = H2_TURN_REQUESTS * H2_TURN_LIST_BYTES;
    assert!(
        requests < 30 && (most..most + decoded / requests).contains(&decoded),
        "{requests} requests, {decoded} bytes"
    );
    world.pass(0);
    world.audit();
    assert_eq!(world.proxy.requests(), 30);
}

#[test]
fn few_blocks_of_many_fields_are_decoded_in_a_turn_even_if_their_requests_are_refused() {
    let mut world = World::before_http1();
    let client = world.client();
    let mut crumbs = head(b"GET", &[(b"cookie", b"a")]);
    // The crumb is in the dynamic table from the first block on, and a byte repeats it.
    crumbs.extend([0x40, 6]);
    crumbs.extend(b"cookie\x01b");
    world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &crumbs));
    let many = [head(b"GET", &[]), vec![0xbe; 1500]].concat();
    let blocks = 2 * H2_CLIENT_STREAMS;
    let mut next = 3;
    let decoded = |world: &World| world.proxy.work_on(client).expect("it is a mux").1;
    for _ in 0..blocks / 20 {
        let burst = (0..20).flat_map(|n| frame_of(Kind::Headers, END_HEADERS | END_STREAM, next + 2 * n, &many));
        world.give(client, &burst.collect::<Vec<u8>>());
        next += 40;
        let mut before = decoded(&world);
        while world.proxy.room(client).is_none() {
            world.proxy.expire();
            world.carry_out();
            let now = decoded(&world);
            assert!(now - before <= H2_TURN_REQUESTS * H2_TURN_LIST_BYTES + H2_LIST_BYTES as u64, "{before} {now}");
            before = now;
        }
    }
    assert!(world.frames(client).iter().any(|(header, _)| header.kind == Kind::RstStream), "some are refused");
}

#[test]
fn the_end_of_a_client_is_seen_after_all_its_requests() {
    let mut world = World::before_http1();
    let client = world.client();
    let burst: Vec<u8> = (0..2 * H2_TURN_REQUESTS as u32).flat_map(|n| get(2 * n + 1)).collect();
    world.give(client, &burst);
    world.proxy.closing(client);
    world.proxy.ended(client);
    world.carry_out();
    world.pass(0);
    world.audit();
    assert_eq!(world.proxy.requests(), 2 * H2_TURN_REQUESTS as usize);
}

#[test]
fn an_upload_ends_wherever_a_turn_ends() {
    for (pings, count) in
        (0..3).flat_map(|pings| (H2_TURN_FRAMES / 2 - 6..H2_TURN_FRAMES / 2 + 6).map(move |n| (pings, n)))
    {
        let mut world = World::before_http1();
        let client = world.client();
        let mut burst = frame_of(Kind::Ping, 0, 0, &[0; 8]).repeat(pings);
        burst.extend(frame_of(Kind::Headers, END_HEADERS, 1, &head(b"POST", &[])));
        (1..count).for_each(|_| burst.extend(frame_of(Kind::Data, 0, 1, b"8 bytes.")));
        burst.extend(frame_of(Kind::Data, END_STREAM, 1, b"8 bytes."));
        world.give(client, &burst);
        world.pass(0);
        let backend = world.connected(false);
        world.pass(0);
        world.audit();
        assert!(world.sent[&backend].ends_with(b"0\r\n\r\n"), "{pings} and {count} frames");
    }
}

#[test]
fn the_end_of_a_session_waits_for_the_input_before_it() {
    let mut world = World::before_http1();
    let client = world.client();
    let mut burst: Vec<u8> = (0..H2_TURN_REQUESTS as u32 + 1).flat_map(|n| get(2 * n + 1)).collect();
    burst.extend(frame_of(Kind::Headers, END_HEADERS, 99, &head(b"POST", &[])));
    burst.extend(frame_of(Kind::Data, 0, 99, b"content.").repeat(H2_TURN_FRAMES as usize));
    burst.extend(frame_of(Kind::Data, END_STREAM, 99, b"content."));
    world.give(client, &burst);
    // With TLS, the end is reported although the rest was not decoded.
    world.proxy.ended(client);
    world.carry_out();
    world.audit();
    world.pass(0);
    world.audit();
    assert_eq!(world.proxy.requests(), H2_TURN_REQUESTS as usize + 2);
    assert!(world.on(client, 99).iter().all(|frame| frame.0 == Kind::WindowUpdate), "the upload is not cut");
}

#[test]
fn the_end_of_a_session_drops_no_request_that_is_answered_at_once() {
    let mut world = World::new(0, false);
    let client = world.client();
    let burst: Vec<u8> = (0..3 * H2_TURN_REQUESTS as u32).flat_map(|n| get(2 * n + 1)).collect();
    world.give(client, &burst);
    world.proxy.ended(client);
    world.carry_out();
    world.pass(0);
    let replies = world.frames(client).into_iter().filter(|(header, _)| header.kind == Kind::Headers).count();
    assert_eq!(replies, 3 * H2_TURN_REQUESTS as usize);
}

#[test]
fn a_request_that_is_cancelled_at_once_causes_no_connection() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &[get(1), cancel(1), get(3)].concat());
    assert_eq!(world.dials.len(), 1);
    world.connected(false);
    assert_eq!(world.proxy.requests(), 1);
    world.audit();
}

#[test]
fn a_flood_in_one_read_gets_both_goaways() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &frame_of(Kind::Ping, 0, 0, &[0; 8]).repeat(H2_IDLE_FRAMES as usize + 100));
    assert!(world.on(client, 0).iter().all(|frame| frame.0 != Kind::Goaway), "it takes several turns");
    world.pass(0);
    let codes: Vec<_> = world.on(client, 0).into_iter().filter(|frame| frame.0 == Kind::Goaway).collect();
    let codes: Vec<u32> = codes.iter().map(|frame| u32::from_be_bytes(frame.2[4..8].try_into().unwrap())).collect();
    assert_eq!(codes, [ErrorCode::NO_ERROR.0, ErrorCode::ENHANCE_YOUR_CALM.0]);
}

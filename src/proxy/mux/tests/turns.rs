//! Many frames of a client in one read.

use super::downstream::*;
use super::*;
use crate::limits::{
    H2_CLIENT_STREAMS, H2_FRAME_UNITS, H2_IDLE_FRAMES, H2_LIST_UNIT_BYTES, H2_REQUEST_UNITS, H2_TURN_DIALS,
    H2_TURN_UNITS,
};

/// Frames without further work that end a turn.
const FRAMES: usize = (H2_TURN_UNITS / H2_FRAME_UNITS) as usize;
/// Requests that take several turns.
const REQUESTS: u32 = 60;

fn cancel(stream: u32) -> Vec<u8> {
    frame_of(Kind::RstStream, 0, stream, &ErrorCode::CANCEL.0.to_be_bytes())
}

impl World {
    /// The work that was done for a client on requests and their fields, in units.
    fn work(&self, client: Key) -> u64 {
        let mux = self.proxy.connections.get(client).and_then(|one| one.codec.mux()).expect("it is a mux");
        let requests = mux.downstream().map_or(0, |downstream| u64::from(downstream.requests));
        requests * H2_REQUEST_UNITS + mux.h2.decoded_bytes() / H2_LIST_UNIT_BYTES
    }

    /// Takes one turn after the other until all input of a client is decoded. Returns the work in each.
    fn turns(&mut self, client: Key) -> Vec<u64> {
        let mut works = vec![self.work(client)];
        while self.proxy.room(client).is_none() {
            self.proxy.expire();
            self.carry_out();
            self.audit();
            works.push(self.work(client));
        }
        works.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

#[test]
fn requests_that_arrive_at_once_are_taken_over_several_turns() {
    for h2c in [true, false] {
        let mut world = World::new(1, false);
        world.plan.members.iter_mut().for_each(|member| member.h2c = h2c);
        world.proxy.follow(&world.plan);
        let client = world.client();
        world.give(client, &get(1));
        world.connected(h2c);
        let burst: Vec<u8> = (1..H2_CLIENT_STREAMS).flat_map(|n| get(2 * n + 1)).collect();
        world.give(client, &burst);
        world.audit();
        let first = world.proxy.requests() - 1;
        // A connection for each request is more work.
        assert_eq!(first, if h2c { first.clamp(10, 30) } else { H2_TURN_DIALS });
        assert!(world.proxy.room(client).is_none(), "nothing is read before the next turn");
        let works = world.turns(client);
        assert_eq!(world.proxy.requests(), H2_CLIENT_STREAMS as usize);
        assert!(works.len() > 2 && works.iter().all(|&work| work < H2_TURN_UNITS + H2_REQUEST_UNITS), "{works:?}");
    }
}

#[test]
fn fewer_requests_with_large_heads_are_taken_in_a_turn() {
    let mut world = World::new(1, false);
    let client = world.client();
    world.give(client, &get(99));
    world.connected(true);
    let large = head(b"GET", &[(&b"x"[..], &b"y"[..]); 90]);
    let burst = (50..80).flat_map(|n| frame_of(Kind::Headers, END_HEADERS | END_STREAM, 2 * n + 1, &large));
    world.give(client, &burst.collect::<Vec<u8>>());
    world.audit();
    let requests = world.proxy.requests() - 1;
    assert!((5..12).contains(&requests), "{requests} requests are taken");
    world.turns(client);
    assert_eq!(world.proxy.requests(), 31);
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
    for _ in 0..blocks / 20 {
        let burst = (0..20).flat_map(|n| frame_of(Kind::Headers, END_HEADERS | END_STREAM, next + 2 * n, &many));
        world.give(client, &burst.collect::<Vec<u8>>());
        next += 40;
        let most = H2_TURN_UNITS + H2_REQUEST_UNITS + H2_LIST_BYTES as u64 / H2_LIST_UNIT_BYTES;
        assert!(world.turns(client).iter().all(|&work| work <= most));
    }
    assert!(world.frames(client).iter().any(|(header, _)| header.kind == Kind::RstStream), "some are refused");
}

#[test]
fn the_end_of_a_client_is_seen_after_all_its_requests() {
    let mut world = World::before_http1();
    let client = world.client();
    let burst: Vec<u8> = (0..REQUESTS).flat_map(|n| get(2 * n + 1)).collect();
    world.give(client, &burst);
    world.proxy.closing(client);
    world.proxy.ended(client);
    world.carry_out();
    world.pass(0);
    world.audit();
    assert_eq!(world.proxy.requests(), REQUESTS as usize);
}

#[test]
fn an_upload_ends_wherever_a_turn_ends() {
    for (pings, count) in (0..3).flat_map(|pings| (FRAMES / 2 - 6..FRAMES / 2 + 6).map(move |n| (pings, n))) {
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
    let mut burst: Vec<u8> = (0..REQUESTS).flat_map(|n| get(2 * n + 1)).collect();
    burst.extend(frame_of(Kind::Headers, END_HEADERS, 199, &head(b"POST", &[])));
    burst.extend(frame_of(Kind::Data, 0, 199, b"content.").repeat(FRAMES));
    burst.extend(frame_of(Kind::Data, END_STREAM, 199, b"content."));
    world.give(client, &burst);
    // With TLS, the end is reported although the rest was not decoded.
    world.proxy.ended(client);
    world.carry_out();
    world.audit();
    world.pass(0);
    world.audit();
    assert_eq!(world.proxy.requests(), REQUESTS as usize + 1);
    assert!(world.on(client, 199).iter().all(|frame| frame.0 == Kind::WindowUpdate), "the upload is not cut");
}

#[test]
fn the_end_of_a_session_drops_no_request_that_is_answered_at_once() {
    let mut world = World::new(0, false);
    let client = world.client();
    let burst: Vec<u8> = (0..REQUESTS).flat_map(|n| get(2 * n + 1)).collect();
    world.give(client, &burst);
    world.proxy.ended(client);
    world.carry_out();
    world.pass(0);
    let replies = world.frames(client).into_iter().filter(|(header, _)| header.kind == Kind::Headers).count();
    assert_eq!(replies, REQUESTS as usize);
}

#[test]
fn a_request_that_is_cancelled_at_once_causes_no_connection() {
    let mut world = World::before_http1();
    let client = world.client();
    let cancelled = (0..10).flat_map(|n| [get(2 * n + 1), cancel(2 * n + 1)].concat());
    world.give(client, &cancelled.chain(get(99)).collect::<Vec<u8>>());
    assert_eq!(world.dials.len(), 1);
    world.connected(false);
    assert_eq!(world.proxy.requests(), 1);
    world.audit();
}

#[test]
fn a_client_that_cancels_requests_of_earlier_turns_gets_no_more_connections_in_a_turn() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &(0..10).flat_map(|n| get(2 * n + 1)).collect::<Vec<u8>>());
    world.turns(client);
    assert_eq!(world.dials.len(), 10);
    let burst = (0..10).flat_map(|n| [cancel(2 * n + 1), get(2 * n + 21)].concat());
    world.give(client, &burst.collect::<Vec<u8>>());
    assert_eq!(world.dials.len(), 10 + H2_TURN_DIALS);
    world.turns(client);
    assert_eq!(world.dials.len(), 20);
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

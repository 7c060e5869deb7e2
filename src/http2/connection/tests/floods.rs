//! The number of frames of each flood that a connection accepts in either role, and honest traffic that is no
//! flood.

use super::*;
use crate::limits::{H2_BLOCK_FRAMES, H2_LATE_FRAMES_RESET, H2_PROVOKED_RESETS, H2_RESETS};

/// The frames of one round of a flood, by its number.
type Round = fn(u32) -> Vec<u8>;

const GET: &[u8] = &[0x82, 0x84, 0x86];
const OK: &[u8] = &[0x88];

/// The next stream of a client.
fn id(round: u32) -> u32 {
    2 * round + 1
}

fn open(round: u32, flags: u8) -> Vec<u8> {
    frame_of(Kind::Headers, END_HEADERS | flags, id(round), GET)
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame_of(Kind::WindowUpdate, 0, stream, &increment.to_be_bytes())
}

fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame_of(Kind::RstStream, 0, stream, &code.0.to_be_bytes())
}

/// A flood: its name, the frames before it, a round, and the number of frames accepted before the connection
/// ends with ENHANCE_YOUR_CALM.
type Flood = (&'static str, Vec<u8>, Round, u32);

const IDLE: u32 = H2_IDLE_FRAMES;
const RESETS: u32 = H2_RESETS;
const PROVOKED: u32 = H2_PROVOKED_RESETS;

/// Floods that either role has to end. Stream 1 is open, with its head.
fn of_both() -> Vec<Flood> {
    vec![
        ("PING", vec![], |_| frame_of(Kind::Ping, 0, 0, &[0; 8]), IDLE),
        ("PING that acknowledges nothing", vec![], |_| frame_of(Kind::Ping, ACK, 0, &[0; 8]), IDLE),
        ("SETTINGS", vec![], |_| frame_of(Kind::Settings, 0, 0, &[]), IDLE),
        ("SETTINGS ACK", vec![], |_| frame_of(Kind::Settings, ACK, 0, &[]), IDLE),
        ("PRIORITY", vec![], |_| frame_of(Kind::Priority, 0, 1, &[0; 5]), IDLE),
        ("GOAWAY", vec![], |_| frame_of(Kind::Goaway, 0, 0, &[0; 8]), IDLE),
        ("unknown frames", vec![], |_| frame_of(Kind::Unknown, 0, 1, &[]), IDLE),
        ("WINDOW_UPDATE of the connection", vec![], |_| window(0, 1), IDLE),
        ("WINDOW_UPDATE of a stream", vec![], |_| window(1, 1), IDLE),
        ("empty DATA", vec![], |_| frame_of(Kind::Data, 0, 1, &[]), IDLE),
        ("padding", vec![], |_| frame_of(Kind::Data, PADDED, 1, &[3, 0, 0, 0]), IDLE),
        ("empty CONTINUATION", frame_of(Kind::Headers, 0, 1, &[]), |_| frame_of(Kind::Continuation, 0, 1, &[]), 64),
    ]
}

/// Floods of a client. A request that a client opens and that ends without a response is charged, regardless of
/// the side that resets it.
fn of_clients() -> Vec<Flood> {
    let rapid: Round = |n| [open(n, END_STREAM), reset(id(n), ErrorCode::CANCEL)].concat();
    let rapid_with_content: Round = |n| {
        let content = frame_of(Kind::Data, 0, id(n), b"x").repeat(8);
        [open(n, 0), content, reset(id(n), ErrorCode::CANCEL)].concat()
    };
    let made_by_zero: Round = |n| [open(n, END_STREAM), window(id(n), 0)].concat();
    let made_by_overflow: Round = |n| [open(n, END_STREAM), window(id(n), MAX_31)].concat();
    let blocks: Round = |n| {
        let parts = frame_of(Kind::Continuation, 0, id(n), &[]).repeat(H2_BLOCK_FRAMES as usize - 2);
        let last = frame_of(Kind::Continuation, END_HEADERS, id(n), GET);
        [frame_of(Kind::Headers, END_STREAM, id(n), &[]), parts, last].concat()
    };
    vec![
        ("rapid reset", vec![], rapid, 2 * (RESETS + 1) - 1),
        ("rapid reset behind content", vec![], rapid_with_content, 10 * (RESETS + 1) - 1),
        // A zero costs one idle frame, too.
        ("reset by WINDOW_UPDATE 0", vec![], made_by_zero, 2 * (PROVOKED + 1) - 1),
        ("reset by window overflow", vec![], made_by_overflow, 2 * (PROVOKED + 1) - 1),
        ("HEADERS beyond the stream limit", vec![], |n| open(n, END_STREAM), H2_STREAMS + IDLE),
        // A field name with an upper-case letter.
        (
            "malformed heads",
            vec![],
            |n| frame_of(Kind::Headers, END_HEADERS | END_STREAM, id(n), b"\x82\x84\x86\x00\x01A\x01b"),
            PROVOKED,
        ),
        ("small CONTINUATION", vec![], blocks, IDLE + IDLE / (H2_BLOCK_FRAMES - 1) + 1),
        ("trailers that end nothing", open(0, 0), |_| open(0, 0), 1 + IDLE),
        ("content behind the end", open(0, END_STREAM), |_| frame_of(Kind::Data, 0, 1, b"x"), 1 + IDLE),
        (
            "resets of what is closed",
            [open(0, END_STREAM), reset(1, ErrorCode::CANCEL)].concat(),
            |_| reset(1, ErrorCode::CANCEL),
            2 + IDLE,
        ),
    ]
}

/// Floods of a backend. It can end our requests, but not more than there are.
fn of_backends() -> Vec<Flood> {
    vec![
        ("interim responses", vec![], |_| frame_of(Kind::Headers, END_HEADERS, 1, b"\x08\x03103"), IDLE),
        ("resets of what is closed", reset(1, ErrorCode::CANCEL), |_| reset(1, ErrorCode::CANCEL), 1 + IDLE),
        (
            "heads of what is closed",
            reset(1, ErrorCode::CANCEL),
            |_| frame_of(Kind::Headers, END_HEADERS, 1, OK),
            1 + IDLE,
        ),
        ("content of what is closed", reset(1, ErrorCode::CANCEL), |_| frame_of(Kind::Data, 0, 1, b"x"), 1 + IDLE),
        ("ends of what is closed", reset(1, ErrorCode::CANCEL), |_| frame_of(Kind::Data, END_STREAM, 1, &[]), 1 + IDLE),
        ("content before a head", vec![], |_| frame_of(Kind::Data, 0, 3, b"x"), IDLE),
    ]
}

/// The number of frames of a flood that an end takes.
fn taken(end: &mut End, (what, before, round, _): &Flood) -> u32 {
    // SETTINGS have cost one.
    end.h2.budget = Budget::new();
    let mut frames = 0;
    let mut bytes = before.clone();
    let mut next = 0;
    while frames < 100_000 {
        let mut rest = &bytes[..];
        while let Some(header) = frame::Header::read(rest) {
            let (one, behind) = rest.split_at(HEADER_BYTES + header.length as usize);
            end.receive(one);
            end.out.clear();
            end.seen.clear();
            if let Some(error) = end.error {
                assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM, "{what}: {error}");
                return frames;
            }
            (rest, frames) = (behind, frames + 1);
        }
        bytes = round(next);
        next += 1;
    }
    panic!("{what}: no end")
}

#[test]
fn each_flood_ends_after_its_number_of_frames_in_either_role() {
    let server = |_: &Flood| End::ready(Role::Server);
    let served = |_: &Flood| {
        let mut end = End::ready(Role::Server);
        end.receive(&open(0, 0));
        end
    };
    let client = |_: &Flood| {
        let mut end = End::ready(Role::Client);
        [end.request(false), end.request(false)].iter().for_each(|&(id, _)| assert!(id < 5));
        end
    };
    let answered = |flood: &Flood| {
        let mut end = client(flood);
        if !flood.0.contains("CONTINUATION") {
            end.receive(&frame_of(Kind::Headers, END_HEADERS, 1, OK));
        }
        end
    };
    // It knows that the server takes no further streams.
    let leaving = |flood: &Flood| {
        let mut end = server(flood);
        end.h2.farewell(ErrorCode::NO_ERROR, &mut end.out);
        end
    };
    let mut wrong = Vec::new();
    let mut play = |role: &str, flood: &Flood, mut end: End| {
        let frames = taken(&mut end, flood);
        if frames != flood.3 {
            wrong.push(format!("{role}: {}: {frames} frames and not {}", flood.0, flood.3));
        }
    };
    of_both().iter().for_each(|flood| play("server", flood, served(flood)));
    of_clients().iter().for_each(|flood| play("server", flood, server(flood)));
    let behind: Flood = ("HEADERS behind a final GOAWAY", vec![], |n| open(n, END_STREAM), IDLE);
    play("server", &behind, leaving(&behind));
    of_both().iter().for_each(|flood| play("client", flood, answered(flood)));
    of_backends().iter().for_each(|flood| play("client", flood, client(flood)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_shutdown_serves_the_streams_that_were_opened_before_the_client_knew() {
    let mut server = End::ready(Role::Server);
    server.receive(&open(0, END_STREAM));
    server.h2.announce_goaway(&mut server.out);
    let announced = [MAX_31.to_be_bytes(), [0; 4]].concat();
    let ping = frame_of(Kind::Ping, 0, 0, b"idle now");
    assert_eq!(server.out, [frame_of(Kind::Goaway, 0, 0, &announced), ping].concat());
    server.receive(&open(1, END_STREAM));
    server.receive(&frame_of(Kind::Ping, ACK, 0, b"idle now"));
    assert_eq!(server.seen, ["GET 1", "end on 0", "GET 3", "end on 1", "pong"]);
    server.out.clear();
    server.h2.farewell(ErrorCode::NO_ERROR, &mut server.out);
    let last = [3_u32.to_be_bytes(), [0; 4]].concat();
    assert_eq!(server.out, frame_of(Kind::Goaway, 0, 0, &last));
    server.out.clear();
    server.receive(&open(2, END_STREAM));
    assert_eq!(server.out, reset(5, ErrorCode::REFUSED_STREAM));
    // A later GOAWAY does not raise the last stream (RFC 9113, 6.8).
    server.out.clear();
    server.h2.farewell(ErrorCode::PROTOCOL_ERROR, &mut server.out);
    assert_eq!(server.out[HEADER_BYTES..][..4], 3_u32.to_be_bytes());
}

#[test]
fn a_client_that_cancels_many_requests_a_second_is_served() {
    let mut server = End::ready(Role::Server);
    for n in 0..10_000 {
        // These are 40 requests a second, of which it cancels three quarters.
        server.h2.set_clock(u64::from(n) * 25_000);
        server.receive(&open(n, END_STREAM));
        match n % 4 {
            0 => server.respond(id(n), 200, true),
            _ => server.receive(&reset(id(n), ErrorCode::CANCEL)),
        }
        server.out.clear();
    }
    assert_eq!(server.error, None);
}

#[test]
fn a_backend_that_resets_what_we_open_costs_nobody_the_connection() {
    let mut client = End::ready(Role::Client);
    let (long_poll, _) = client.request(true);
    for _ in 0..10_000 {
        let (id, _) = client.request(true);
        client.receive(&reset(id, ErrorCode::REFUSED_STREAM));
        client.out.clear();
    }
    client.receive(&frame_of(Kind::Headers, END_HEADERS | END_STREAM, long_poll, OK));
    assert_eq!(client.error, None);
    assert_eq!(client.seen.last().unwrap(), "end on 0");
}

#[test]
fn late_answers_to_requests_that_we_gave_up_cost_nobody_the_connection() {
    for late in [
        |id: u32| frame_of(Kind::Headers, END_HEADERS | END_STREAM, id, OK),
        |id: u32| {
            let head = frame_of(Kind::Headers, END_HEADERS, id, OK);
            [head, frame_of(Kind::Data, 0, id, b"x"), frame_of(Kind::Data, END_STREAM, id, &[])].concat()
        },
        |id: u32| {
            let head = frame_of(Kind::Headers, END_HEADERS, id, OK);
            [head, frame_of(Kind::Headers, END_HEADERS | END_STREAM, id, b"\x00\x01a\x01b")].concat()
        },
        |id: u32| reset(id, ErrorCode::CANCEL),
    ] {
        let mut client = End::ready(Role::Client);
        let mut given_up = Vec::new();
        for _ in 0..5000 {
            let (id, _) = client.request(true);
            client.h2.forget(id, ErrorCode::CANCEL, &mut client.out);
            given_up.push(id);
        }
        given_up.iter().for_each(|&id| client.receive(&late(id)));
        assert_eq!(client.error, None);
    }
    assert_eq!(H2_LATE_FRAMES_RESET, 3, "as many as the longest of these");
}

#[test]
fn a_backend_that_reads_piece_by_piece_takes_an_upload_of_any_length() {
    let mut client = End::ready(Role::Client);
    client.receive(&window(0, 1 << 20));
    let (id, _) = client.request(false);
    let mut left = 8 << 20;
    while left > 0 {
        let before = left;
        left = client.send(id, left, true);
        client.out.clear();
        assert!(left < before, "the window is open");
        for _ in 0..(before - left) / 64 {
            client.receive(&window(0, 64));
            client.receive(&window(id, 64));
        }
        let odd = ((before - left) % 64) as u32;
        if odd > 0 {
            client.receive(&[window(0, odd), window(id, odd)].concat());
        }
        assert_eq!(client.error, None);
    }
}

#[test]
fn keepalive_pings_last_for_ever() {
    let mut client = End::ready(Role::Client);
    client.request(true);
    for second in 1..100_000 {
        client.h2.set_clock(second * 1_000_000);
        client.receive(&frame_of(Kind::Ping, 0, 0, &[0; 8]));
        client.out.clear();
        assert_eq!(client.error, None);
    }
}

#[test]
fn a_reset_for_a_fault_of_the_client_is_charged_and_one_of_our_own_is_not() {
    let of = |code: ErrorCode| {
        let mut server = End::ready(Role::Server);
        let mut rounds = 0;
        while server.error.is_none() && rounds < 10 * PROVOKED {
            server.receive(&open(rounds, 0));
            server.h2.forget(id(rounds), code, &mut server.out);
            rounds += 1;
        }
        rounds
    };
    assert_eq!(of(ErrorCode::PROTOCOL_ERROR), PROVOKED + 2, "the frame behind the last one is not taken");
    assert_eq!(of(ErrorCode::INTERNAL_ERROR), 10 * PROVOKED);
}

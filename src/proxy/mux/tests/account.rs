//! The memory that clients over HTTP/2 may make a worker hold.

use super::downstream::*;
use super::*;
use crate::limits::{H2_BACKEND_WINDOW_BYTES, H2_CLIENT_STREAMS, H2_PARITY_BYTES, H2_SPARE_BYTES, QUEUE_HIGH_BYTES};

/// SETTINGS that close the windows of streams.
const CLOSED: &[u8] = &[0, 4, 0, 0, 0, 0];

/// A client that has opened this number of streams and closed their windows, and the connections to their backends.
fn stalled(world: &mut World, streams: u32) -> (Key, Vec<Key>) {
    let client = world.client();
    world.frame(client, Kind::Settings, 0, 0, CLOSED);
    let mut backends = Vec::new();
    for n in 0..streams {
        world.give(client, &get(2 * n + 1));
        let backend = world.connected(false);
        world.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        backends.push(backend);
    }
    world.on(client, 0);
    (client, backends)
}

/// Gives as much content as is taken. Returns its length.
fn fill(world: &mut World, backend: Key) -> usize {
    let mut given = 0;
    while world.proxy.wants(backend) && given < 1_000_000 {
        world.give(backend, &[b'x'; 8192]);
        given += 8192;
    }
    given
}

#[test]
fn one_client_borrows_a_part_of_the_budget_and_its_stalled_streams_block_no_other() {
    let mut world = World::before_http1();
    let (client, backends) = stalled(&mut world, H2_CLIENT_STREAMS);
    let given: Vec<usize> = backends.iter().map(|&backend| fill(&mut world, backend)).collect();
    world.audit();
    assert!(given[0] >= QUEUE_HIGH_BYTES, "the first stream has a whole queue");
    assert!(given.iter().all(|&given| given > 0), "each stream has something: {given:?}");
    let lent = world.proxy.totals.lent;
    assert!((1 << 20..4 << 20).contains(&lent), "{lent} bytes are lent");
    // The last stream has a window again.
    let last = 2 * H2_CLIENT_STREAMS - 1;
    world.frame(client, Kind::WindowUpdate, 0, last, &50_000_u32.to_be_bytes());
    let content = |frames: &[(Kind, u8, Vec<u8>)]| {
        frames.iter().filter(|frame| frame.0 == Kind::Data).map(|frame| frame.2.len()).sum::<usize>()
    };
    let mut taken = content(&world.on(client, last));
    for _ in 0..6 {
        world.give(*backends.last().unwrap(), &[b'x'; 8192]);
        taken += content(&world.on(client, last));
    }
    assert_eq!(taken, 50_000);
    world.proxy.failed(client, Failure::Broken(104));
    world.carry_out();
    assert_eq!(world.proxy.totals.lent, 0);
    world.audit();
}

#[test]
fn the_streams_that_waited_longest_are_reset_if_the_budget_is_spent() {
    let mut world = World::before_http1();
    let (first, backends) = stalled(&mut world, H2_CLIENT_STREAMS);
    backends.iter().for_each(|&backend| _ = fill(&mut world, backend));
    world.pass(1_000_000);
    let mut clients = Vec::new();
    while world.proxy.shared.block.get(Count::H2BudgetExhausted) == 0 {
        let lent = world.proxy.totals.lent;
        assert!(clients.len() < 100, "h2_budget_exhausted_total stays 0, and {lent} bytes are lent");
        let (client, backends) = stalled(&mut world, H2_CLIENT_STREAMS);
        backends.iter().for_each(|&backend| _ = fill(&mut world, backend));
        clients.push(client);
        world.audit();
    }
    assert!(world.proxy.totals.lent <= H2_GROWTH_BYTES as usize);
    let resets = |world: &mut World, client: Key| {
        let frames = world.frames(client);
        let calm = ErrorCode::ENHANCE_YOUR_CALM.0.to_be_bytes();
        frames.iter().filter(|(header, payload)| header.kind == Kind::RstStream && payload[..] == calm).count()
    };
    assert!(resets(&mut world, first) > 0, "the first client waits for longest");
    assert_eq!(clients.iter().map(|&client| resets(&mut world, client)).sum::<usize>(), 0);
}

#[test]
fn the_window_of_a_connection_grows_for_an_upload_that_moves_and_waits_for_one_that_does_not() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &frame_of(Kind::Headers, END_HEADERS, 1, &head(b"POST", &[])));
    let backend = world.connected(false);
    let update = |world: &mut World, stream: u32| {
        let updates = world.on(client, stream).into_iter().filter(|frame| frame.0 == Kind::WindowUpdate);
        updates.map(|(.., payload)| u32::from_be_bytes(payload[..4].try_into().unwrap())).sum::<u32>()
    };
    let (mut windows, mut largest) = ([65_535_u32, H2_WINDOW_BYTES], 0);
    for moves in [true, false] {
        if !moves {
            world.stalled.push(backend);
        }
        let mut given = 0;
        while windows.iter().all(|&window| window >= H2_FRAME_BYTES as u32) && given < 8 << 20 {
            world.give(client, &frame_of(Kind::Data, 0, 1, &[b'x'; H2_FRAME_BYTES]));
            world.sent.remove(&backend);
            given += H2_FRAME_BYTES;
            let sent = world.sent.get(&client).cloned().unwrap_or_default();
            windows = windows.map(|window| window - H2_FRAME_BYTES as u32);
            windows[0] += update(&mut world, 0);
            world.sent.insert(client, sent);
            windows[1] += update(&mut world, 1);
            largest = windows[0].max(largest);
        }
        assert_eq!(given >= 8 << 20, moves, "{given} bytes were taken");
        assert!(moves || given < 4 << 20, "{given} bytes wait");
    }
    assert!(largest > 500_000, "{largest}");
    assert!(world.proxy.totals.lent > H2_PARITY_BYTES);
    world.audit();
}

#[test]
fn small_responses_that_wait_for_their_client_occupy_no_blocks() {
    let mut world = World::before_http1();
    let client = world.client();
    world.frame(client, Kind::Settings, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    world.frame(client, Kind::WindowUpdate, 0, 0, &0x7000_0000_u32.to_be_bytes());
    world.stalled.push(client);
    let mut backends = Vec::new();
    for n in 0..H2_CLIENT_STREAMS {
        world.give(client, &get(2 * n + 1));
        backends.push(world.connected(false));
    }
    world.give(backends[0], b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    fill(&mut world, backends[0]);
    for &backend in &backends[1..] {
        world.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        world.give(backend, &[b'x'; 500]);
        world.give(backend, &[b'x'; 500]);
    }
    world.audit();
    let memory: usize =
        world.proxy.connections.keys().filter_map(|key| world.proxy.queued(key)).map(Queue::capacity).sum();
    assert!(memory < 1 << 19, "{memory} bytes are occupied");
    assert!(memory < 2 * (H2_PARITY_BYTES + world.proxy.totals.lent), "{memory} bytes are occupied");
}

#[test]
fn an_incomplete_block_of_fields_is_charged() {
    let mut world = World::before_http1();
    let client = world.client();
    world.give(client, &frame_of(Kind::Headers, 0, 1, &head(b"GET", &[(b"x", &[b'y'; 15_000])])));
    for _ in 0..6 {
        world.give(client, &frame_of(Kind::Continuation, 0, 1, &[0; H2_FRAME_BYTES]));
    }
    world.audit();
    let held = world.proxy.downstream_mut(client).map_or(0, |downstream| downstream.held);
    assert!((7 * H2_FRAME_BYTES - 5000..=H2_PARITY_BYTES).contains(&held), "{held} bytes are charged");
    world.give(client, &frame_of(Kind::Continuation, 0, 1, &[0; H2_FRAME_BYTES]));
    world.give(client, &frame_of(Kind::Continuation, 0, 1, &[0; H2_FRAME_BYTES]));
    assert!(world.frames(client).iter().any(|(header, _)| header.kind == Kind::Goaway), "it is beyond the limit");
}

#[test]
fn a_stream_that_may_borrow_nothing_takes_one_frame() {
    let mut world = World::before_http1();
    let (_, backends) = stalled(&mut world, H2_CLIENT_STREAMS);
    backends.iter().for_each(|&backend| world.give(backend, &[b'x'; 60_000]));
    world.audit();
    let memory: usize =
        world.proxy.connections.keys().filter_map(|key| world.proxy.queued(key)).map(Queue::capacity).sum();
    assert!(memory < 5 << 20, "{memory} bytes are occupied");
}

#[test]
fn large_heads_are_refused_if_the_client_may_borrow_nothing() {
    let mut world = World::before_http1();
    let client = world.client();
    let large = head(b"POST", &[(b"a", &[b'v'; 15_000]), (b"b", &[b'v'; 15_000]), (b"c", &[b'v'; 15_000])]);
    let mut sent = 0;
    for n in 0..H2_CLIENT_STREAMS {
        let mut kind = Kind::Headers;
        let pieces: Vec<&[u8]> = large.chunks(H2_FRAME_BYTES).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let flags = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
            world.give(client, &frame_of(kind, flags, 2 * n + 1, piece));
            world.pass(0);
            kind = Kind::Continuation;
        }
        sent += large.len();
    }
    world.audit();
    let lent = world.proxy.totals.lent;
    assert!(sent > 4 << 20 && lent < 3 << 20, "{lent} bytes are lent");
    let counts = [Count::Own503, Count::H2BudgetExhausted].map(|count| world.proxy.shared.block.get(count));
    assert!(counts[0] > 0 && counts[0] == counts[1], "{counts:?}");
    world.give(client, &get(2 * H2_CLIENT_STREAMS + 1));
    assert_eq!(world.proxy.shared.block.get(Count::H2ResetsLimit), 0, "refused streams take no place");
}

/// Each of the streams may have as much on its way as its window allows. The credit of the connection waited for a mark
/// that the loan of a single client does not reach, so the uploads stood still.
#[test]
fn uploads_that_the_budget_held_back_go_on_when_their_backend_takes_them() {
    let (streams, length) = (60, 200_000);
    let mut world = World::new(1, false);
    let client = world.client();
    (0..streams).for_each(|n| {
        world.give(client, &frame_of(Kind::Headers, END_HEADERS, 2 * n + 1, &head(b"POST", &[])));
    });
    let backend = world.connected(true);
    let mut sent = vec![0; streams as usize];
    let mut windows = vec![65_535; streams as usize];
    let mut window = 65_535;
    let mut upload = |world: &mut World| {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for n in 0..streams as usize {
                let bytes = windows[n].min(window).min(length - sent[n]).min(H2_FRAME_BYTES);
                if bytes > 0 {
                    moved = true;
                    (sent[n], windows[n], window) = (sent[n] + bytes, windows[n] - bytes, window - bytes);
                    world.frame(client, Kind::Data, 0, 2 * n as u32 + 1, &[b'x'; H2_FRAME_BYTES][..bytes]);
                }
                for (header, payload) in world.frames(client) {
                    if header.kind == Kind::WindowUpdate {
                        let more = u32::from_be_bytes(payload[..4].try_into().unwrap()) as usize;
                        match header.stream {
                            0 => window += more,
                            stream => windows[stream as usize / 2] += more,
                        }
                    }
                }
            }
        }
        world.audit();
        sent.iter().sum::<usize>()
    };
    assert!(upload(&mut world) < streams as usize * length, "the budget or the windows hold them back");
    world.frame(backend, Kind::WindowUpdate, 0, 0, &(1_u32 << 26).to_be_bytes());
    for n in 0..streams {
        world.frame(backend, Kind::WindowUpdate, 0, 2 * n + 1, &(1_u32 << 20).to_be_bytes());
        // A client that has nothing to send says nothing.
        world.frames(backend);
    }
    assert_eq!(upload(&mut world), streams as usize * length);
}

/// The windows of streams to a backend cannot be taken back when a client pauses.
#[test]
fn a_client_that_pauses_loses_no_response_of_a_backend_over_http2() {
    let mut world = World::new(1, false);
    let client = world.client();
    world.frame(client, Kind::Settings, 0, 0, &[&[0, 4][..], &(1_u32 << 22).to_be_bytes()].concat());
    world.frame(client, Kind::WindowUpdate, 0, 0, &(1_u32 << 30).to_be_bytes());
    world.give(client, &get(1));
    let backend = world.connected(true);
    let mut windows = vec![H2_BACKEND_WINDOW_BYTES as usize; H2_CLIENT_STREAMS as usize];
    // Sends as much as the windows of some streams admit, and at most so many bytes on each.
    let mut send = |world: &mut World, streams: std::ops::Range<u32>, most: usize| {
        let mut left = vec![most; streams.len()];
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for (n, left) in streams.clone().zip(&mut left) {
                let bytes = windows[n as usize].min(*left).min(H2_FRAME_BYTES);
                if bytes > 0 {
                    moved = true;
                    world.frame(backend, Kind::Data, 0, 2 * n + 1, &[b'x'; H2_FRAME_BYTES][..bytes]);
                    (windows[n as usize], *left) = (windows[n as usize] - bytes, *left - bytes);
                }
                for (header, payload) in world.frames(backend) {
                    if header.kind == Kind::WindowUpdate && header.stream > 0 {
                        windows[header.stream as usize / 2] +=
                            u32::from_be_bytes(payload[..4].try_into().unwrap()) as usize;
                    }
                }
            }
            let sent = world.proxy.queued(client).map_or(0, Queue::len);
            if !world.stalled.contains(&client) && sent > 0 {
                world.proxy.sent(client, sent);
                world.carry_out();
            }
        }
        world.audit();
    };
    let answer = |world: &mut World, n: u32| world.frame(backend, Kind::Headers, END_HEADERS, 2 * n + 1, &[0x88]);
    (1..30).for_each(|n| world.give(client, &get(2 * n + 1)));
    (0..30).for_each(|n| answer(&mut world, n));
    send(&mut world, 0..30, 1 << 20);
    let grown = world.proxy.totals.grown;
    assert!(grown >= H2_SPARE_BYTES / 2, "the windows have grown by {grown} bytes");
    world.stalled.push(client);
    (30..H2_CLIENT_STREAMS).for_each(|n| world.give(client, &get(2 * n + 1)));
    (30..H2_CLIENT_STREAMS).for_each(|n| answer(&mut world, n));
    send(&mut world, 0..H2_CLIENT_STREAMS, usize::MAX);
    let lent = world.proxy.totals.lent;
    assert_eq!(world.proxy.shared.block.get(Count::H2BudgetExhausted), 0, "{lent} bytes are lent");
    assert!(lent > 4 << 20, "the backend has filled its windows: {lent}");
}

#[test]
fn many_streams_without_content_keep_no_client_from_its_uploads() {
    let mut world = World::before_http1();
    let clients: Vec<Key> = (0..4).map(|_| world.client()).collect();
    world.frame(clients[0], Kind::Headers, END_HEADERS, 1, &head(b"POST", &[]));
    let backend = world.connected(false);
    let large = head(b"GET", &[(&b"x"[..], &b"y"[..]); 40]);
    for &client in &clients {
        for n in 1..H2_CLIENT_STREAMS {
            world.frame(client, Kind::Headers, END_HEADERS | END_STREAM, 2 * n + 1, &large);
        }
    }
    world.on(clients[0], 0);
    assert!(world.proxy.totals.lent > 0 && world.proxy.totals.streams > 390);
    // The first client sends five times as much as the first window of its connection admits.
    let mut credit = 0;
    for _ in 0..20 {
        world.frame(clients[0], Kind::Data, 0, 1, &[b'x'; H2_FRAME_BYTES]);
        for (kind, _, payload) in world.on(clients[0], 0) {
            assert_ne!(kind, Kind::Goaway);
            if kind == Kind::WindowUpdate {
                credit += u32::from_be_bytes(payload[..4].try_into().unwrap());
            }
        }
    }
    assert!(credit > 15 * H2_FRAME_BYTES as u32, "{credit} bytes of credit");
    assert!(world.sent.get(&backend).is_some_and(|sent| sent.len() > 20 * H2_FRAME_BYTES));
    world.audit();
}

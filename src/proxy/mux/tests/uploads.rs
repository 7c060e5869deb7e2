//! Content of requests over HTTP/2, and the account of what waits for its consumer.

use super::downstream::*;
use super::*;

/// A client that has opened stream 1 for a POST.
fn uploading(world: &mut World) -> Key {
    let client = world.client();
    world.give(client, &frame_of(Kind::Headers, END_HEADERS, 1, &head(b"POST", &[])));
    client
}

#[test]
fn the_credit_for_an_upload_that_waited_for_its_backend_is_sent() {
    let mut world = World::before_http1();
    let client = uploading(&mut world);
    (0..3).for_each(|_| world.frame(client, Kind::Data, 0, 1, &[b'x'; H2_FRAME_BYTES]));
    assert_eq!(kinds(&world.on(client, 1)), []);
    world.connected(false);
    assert_eq!(kinds(&world.on(client, 1)), [(Kind::WindowUpdate, 0)]);
}

#[test]
fn the_end_of_an_upload_is_charged_while_its_backend_takes_nothing() {
    let mut world = World::before_http1();
    let client = uploading(&mut world);
    let backend = world.connected(false);
    world.stalled.push(backend);
    world.frame(client, Kind::Data, 0, 1, b"abc");
    world.audit();
    world.frame(client, Kind::Data, END_STREAM, 1, b"");
    world.audit();
}

#[test]
fn a_window_that_grew_for_a_client_is_returned_when_the_client_has_taken_the_content() {
    let mut world = World::new(1, false);
    let client = world.client();
    world.frame(client, Kind::Settings, 0, 0, &[&[0, 4][..], &400_000_u32.to_be_bytes()].concat());
    world.frame(client, Kind::WindowUpdate, 0, 0, &(1_u32 << 24).to_be_bytes());
    world.give(client, &get(1));
    let backend = world.connected(true);
    world.frame(backend, Kind::Headers, END_HEADERS, 1, &[0x88]);
    let content = |world: &mut World, bytes: u32| {
        for n in 1..=bytes / H2_FRAME_BYTES as u32 {
            let last = bytes == 4 * H2_WINDOW_BYTES && n == bytes / H2_FRAME_BYTES as u32;
            world.frame(backend, Kind::Data, if last { END_STREAM } else { 0 }, 1, &[0; H2_FRAME_BYTES]);
        }
    };
    content(&mut world, H2_WINDOW_BYTES);
    content(&mut world, 2 * H2_WINDOW_BYTES);
    assert_eq!(world.proxy.totals.grown, 4 * H2_WINDOW_BYTES - H2_BACKEND_WINDOW_BYTES);
    world.stalled.push(client);
    content(&mut world, 4 * H2_WINDOW_BYTES);
    world.audit();
    assert_eq!(world.proxy.totals.grown, 2 * H2_WINDOW_BYTES, "the stream to the backend has ended");
    // The window of the client's stream ends before the content.
    world.stalled.clear();
    world.carry_out();
    let sent = world.proxy.queued(client).map(|queue| queue.slices().flatten().count());
    world.proxy.sent(client, sent.unwrap_or_default());
    world.carry_out();
    world.audit();
    assert_eq!(world.proxy.totals.grown, 0);
}

#[test]
fn a_backend_over_http1_learns_that_a_post_has_no_content() {
    for (method, says_so) in [(&b"POST"[..], true), (b"PUT", true), (b"GET", false), (b"DELETE", false)] {
        let mut world = World::before_http1();
        let client = world.client();
        world.give(client, &frame_of(Kind::Headers, END_HEADERS | END_STREAM, 1, &head(method, &[])));
        let backend = world.connected(false);
        let request = String::from_utf8(world.sent.remove(&backend).unwrap()).unwrap();
        assert_eq!(request.contains("Content-Length: 0\r\n"), says_so, "{request}");
    }
}

#[test]
fn a_mux_stays_until_its_backend_has_an_upload_that_is_answered() {
    for goes in [false, true] {
        let mut world = World::before_http1();
        let client = uploading(&mut world);
        let backend = world.connected(false);
        world.stalled.push(backend);
        world.frame(client, Kind::Data, 0, 1, b"abc");
        world.give(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        world.frame(client, Kind::Data, END_STREAM, 1, b"def");
        world.frame(client, Kind::Goaway, 0, 0, &[0; 8]);
        world.audit();
        assert_eq!((world.proxy.clients(), world.proxy.requests()), (1, 1));
        if goes {
            world.proxy.failed(client, Failure::Broken(104));
            world.carry_out();
            assert_eq!((world.proxy.requests(), world.proxy.connections()), (0, 0));
        } else {
            let queued = world.proxy.queued(backend).map_or(0, |queue| queue.len());
            world.proxy.sent(backend, queued);
            world.carry_out();
            world.proxy.ended(client);
            world.carry_out();
            assert_eq!((world.proxy.requests(), world.proxy.clients()), (0, 0));
        }
        world.audit();
    }
}

#[test]
fn a_stream_is_not_charged_for_the_queue_of_a_backend_that_has_failed() {
    let mut world = World::new(2, false);
    world.plan.members.iter_mut().for_each(|member| member.h2c = false);
    world.proxy.follow(&world.plan);
    let client = world.client();
    world.give(client, &get(1));
    let (backend, _) = world.dials.pop().expect("a connection was asked for");
    world.stalled.push(backend);
    world.proxy.connected(backend, false);
    world.carry_out();
    world.proxy.failed(backend, Failure::Broken(104));
    world.carry_out();
    assert_eq!(world.dials.len(), 1, "the request is tried again");
    world.audit();
}

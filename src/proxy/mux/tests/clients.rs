//! Clients that leave, authenticate, or are answered early, before backends over HTTP/2.

use super::*;

#[test]
fn the_stream_of_a_client_that_has_gone_is_cancelled_and_takes_no_place() {
    let mut world = World::new(1, false);
    world.proxy.settings.timeouts.half_close_us = DEFAULT_CONNECT_US / 4;
    // The stream of one waits for the connection, that of the other is open.
    let (waiting, open) = (world.request(), world.request());
    world.proxy.closing(waiting);
    world.pass(DEFAULT_CONNECT_US / 2);
    assert_eq!(world.closed, [waiting]);
    let (mux_key, _) = world.dials[0];
    let in_line = |world: &World| {
        let mux = world.proxy.connections.get(mux_key).and_then(|mux_key| mux_key.codec.mux());
        mux.and_then(Mux::upstream).map(|mux| mux.waiting.len())
    };
    assert_eq!(in_line(&world), Some(1));
    world.connected(true);
    assert!(world.frames(mux_key).iter().any(|(header, _)| header.kind == Kind::Headers));
    world.proxy.closing(open);
    world.pass(DEFAULT_CONNECT_US / 2);
    assert_eq!(world.closed, [waiting, open]);
    let cancel = ErrorCode::CANCEL.0.to_be_bytes().to_vec();
    let frames = world.frames(mux_key);
    let reset = frames.iter().find(|(header, _)| header.kind == Kind::RstStream);
    assert_eq!(reset.map(|(_, payload)| payload), Some(&cancel), "{frames:?}");
    // The connection serves others.
    world.request();
    assert!(world.dials.is_empty());
}

#[test]
fn a_client_that_authenticates_a_connection_gets_its_own_over_http_1_1() {
    let mut world = World::new(1, true);
    world.request();
    let shared = world.connected(true);
    world.request_with("Authorization: Negotiate YII\r\n");
    let &[(alone, _)] = &world.dials[..] else { panic!("a connection is asked for: {:?}", world.dials) };
    assert!(!world.proxy.offers_http2(alone));
    world.connected(false);
    // A challenge that came over HTTP/2 binds nothing.
    assert_eq!(world.proxy.upstreams.bonds.len(), 2);
    assert!(!world.proxy.upstreams.bonds.contains_key(&shared));
}

#[test]
fn an_upload_goes_on_after_a_complete_response_until_it_is_reset() {
    for reset in [false, true] {
        let mut world = World::new(1, false);
        let client = world.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01");
        let mux_key = world.connected(true);
        let mut block = Vec::new();
        crate::hpack::encode(&mut block, b":status", b"200");
        world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &block);
        assert!(String::from_utf8_lossy(&world.sent[&client]).starts_with("HTTP/1.1 200"));
        world.frames(mux_key);
        if reset {
            world.frame(mux_key, Kind::RstStream, 0, 1, &ErrorCode::NO_ERROR.0.to_be_bytes());
            assert_eq!(world.proxy.requests(), 0);
            assert!(world.proxy.connections.get(client).is_some_and(Connection::drops_input));
            continue;
        }
        world.give(client, b"23456789");
        let frames = world.frames(mux_key);
        let content: Vec<u8> =
            frames.iter().filter(|one| one.0.kind == Kind::Data).flat_map(|one| one.1.clone()).collect();
        assert_eq!(content, b"23456789");
        assert!(frames.iter().any(|(header, _)| header.flags & END_STREAM != 0));
        assert!(frames.iter().all(|(header, _)| header.kind != Kind::RstStream), "{frames:?}");
        assert_eq!(world.proxy.requests(), 0);
        assert!(!world.closed.contains(&client));
    }
}

#[test]
fn interim_responses_that_nobody_gets_put_no_deadline_off_among_content_for_others() {
    let mut world = World::new(1, false);
    let waiting = world.request();
    world.request();
    world.request();
    let mux_key = world.connected(true);
    [3, 5].into_iter().for_each(|stream| world.frame(mux_key, Kind::Headers, END_HEADERS, stream, &[0x88]));
    let limit_us = world.proxy.settings.timeouts.response_us;
    world.pass(limit_us / 2);
    let mut read = Vec::new();
    // The client has not asked for a 100.
    frame::write(&mut read, Kind::Headers, END_HEADERS, 1, b"\x08\x03100");
    [3, 5].into_iter().for_each(|stream| frame::write(&mut read, Kind::Data, 0, stream, b"content"));
    frame::write(&mut read, Kind::Headers, END_HEADERS, 1, b"\x08\x03100");
    world.give(mux_key, &read);
    world.pass(limit_us * 3 / 4);
    let sent = String::from_utf8_lossy(&world.sent[&waiting]);
    assert!(sent.starts_with("HTTP/1.1 504 "), "{sent}");
}

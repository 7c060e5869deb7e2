//! Tunnels: their counts and their ends, proper ones and cuts.

use super::*;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

#[test]
fn a_tunnel_is_a_success_and_is_counted() {
    let mut world = World::new(1, |_| {});
    for _ in 0..5 {
        // A failure from time to time is not three in a row.
        let client = world.asking(GET);
        let (backend, _) = world.dial();
        world.fail(backend, Failure::Connect(111));
        assert!(world.sent(client).contains(" 502 "));
        let (client, _) = world.exchange(UPGRADE, SWITCHING);
        assert!(world.sent(client).starts_with("HTTP/1.1 101 "));
    }
    assert!(!world.log().contains(" down "));
    assert_eq!(world.metric("zzz_lb_requests_total{backend=\"127.0.0.1:9000\",code=\"1xx\"}"), 5);
    assert_eq!(world.metric("zzz_lb_response_duration_seconds_count{"), 5);
}

#[test]
fn a_tunnel_that_cannot_be_sent_into_ends_when_both_sides_have_ended() {
    for client_first in [true, false] {
        let mut world = World::new(1, |_| {});
        let (client, backend) = world.exchange(UPGRADE, SWITCHING);
        world.end(backend);
        assert!(world.did(Output::Finish(client)));
        world.full = true;
        assert!(world.give(client, "hi"));
        if client_first {
            world.end(client);
        }
        world.proxy.unsendable(backend);
        world.carry_out();
        if !client_first {
            world.end(client);
        }
        assert!(world.did(Output::Close(backend)) && world.did(Output::Close(client)), "{client_first}");
        assert_eq!(world.metric("zzz_lb_in_flight{"), 0);
    }
}

#[test]
fn a_cut_tunnel_is_reset_on_the_other_side() {
    // The last byte of the client waits for the backend when the client is reset.
    for is_queued in [false, true] {
        let mut world = World::new(1, |_| {});
        let (client, backend) = world.exchange(UPGRADE, SWITCHING);
        world.full = is_queued;
        assert!(world.give(client, "up"));
        world.fail(client, Failure::Broken(104));
        assert!(world.did(Output::Reset(backend)) && !world.did(Output::Close(backend)), "{is_queued}");
        assert_eq!((world.metric("zzz_lb_in_flight{"), world.proxy.requests()), (0, 0));
    }
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(UPGRADE, SWITCHING);
    world.fail(backend, Failure::Broken(104));
    assert!(world.did(Output::Reset(client)) && !world.did(Output::Close(client)));
}

#[test]
fn a_backend_whose_101_is_on_its_way_gets_a_reset() {
    let mut world = World::new(1, |_| {});
    let client = world.asking(UPGRADE);
    let backend = world.connect();
    world.fail(client, Failure::Broken(104));
    assert!(world.did(Output::Reset(backend)));
    // The end of an ordinary request is marked by its framing.
    let client = world.asking(GET);
    let backend = world.connect();
    world.fail(client, Failure::Broken(104));
    assert!(world.did(Output::Close(backend)));
}

#[test]
fn a_tunnel_that_was_silent_for_too_long_is_reset_on_both_sides() {
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(UPGRADE, SWITCHING);
    world.pass(crate::limits::TUNNEL_IDLE_US + 1_000_000);
    assert!(world.did(Output::Reset(client)) && world.did(Output::Reset(backend)));
}

#[test]
fn a_side_that_has_got_all_bytes_of_a_tunnel_gets_no_reset() {
    // The end was sent before the reset of the other side arrives.
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(UPGRADE, SWITCHING);
    world.end(client);
    assert!(world.did(Output::Finish(backend)));
    world.fail(client, Failure::Broken(104));
    assert!(world.did(Output::Close(backend)) && !world.did(Output::Reset(backend)));
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(UPGRADE, SWITCHING);
    world.end(backend);
    assert!(world.did(Output::Finish(client)));
    world.fail(backend, Failure::Broken(104));
    world.end(client);
    assert!(world.did(Output::Close(client)) && !world.did(Output::Reset(client)));
    // It waits behind bytes that the backend has not taken.
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(UPGRADE, SWITCHING);
    world.full = true;
    assert!(world.give(client, "up"));
    world.end(client);
    world.fail(client, Failure::Broken(104));
    assert!(world.did(Output::Reset(backend)) && !world.did(Output::Finish(backend)));
}

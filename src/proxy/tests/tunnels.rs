//! Tunnels: their counts and their ends.

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

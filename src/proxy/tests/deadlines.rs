//! The event that each connection waits for, and the blame if it does not happen.

use super::*;
use crate::limits::{DEFAULT_RESPONSE_US, TIMER_TICK_US};

#[test]
fn a_client_that_waits_for_a_100_waits_for_the_backend() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    for (heard, content, status, failures) in [
        ("", "", " 504 ", 1),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", "", " 504 ", 1),
        ("HTTP/1.1 100 Continue\r\n\r\n", "", " 408 ", 0),
        ("", "content", " 408 ", 0),
    ] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(request);
        let backend = world.connect();
        assert!(world.give(backend, heard) && world.give(client, content));
        let limit_us = world.proxy.settings.timeouts.response_us;
        world.pass(limit_us - 1);
        assert!(!world.sent(client).contains(status));
        world.pass(TIMER_TICK_US * 2);
        assert!(world.sent(client).contains(status), "{heard:?} {content:?}");
        assert_eq!(world.metric("zzz_lb_failures_total{"), failures);
    }
}

#[test]
fn interim_responses_that_nobody_gets_put_no_deadline_off() {
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    for (request, first, second) in [
        ("GET / HTTP/1.0\r\n\r\n", interim, " 504 "),
        (GET, "HTTP/1.1 100 Continue\r\n\r\n", " 504 "),
        (GET, interim, " 200 "),
        // The bytes behind them do.
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", " 200 "),
    ] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(request);
        let backend = world.connect();
        let limit_us = world.proxy.settings.timeouts.response_us;
        world.pass(limit_us / 2);
        assert!(world.give(backend, first));
        world.pass(limit_us * 3 / 4);
        world.give(backend, OK);
        assert!(world.sent(client).contains(second), "{request:?} {first:?}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_reset_whatever_it_sends() {
    let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhi!";
    // The client has its whole response, or is to get more, or has the first of several.
    for (request, response) in
        [(GET, OK), (part, OK), (part, "HTTP/1.1 200 OK\r\n\r\n"), (GET, "HTTP/1.1 103 Hm\r\n\r\n")]
    {
        let mut world = World::new(1, |_| {});
        let client = world.asking(request);
        let backend = world.connect();
        world.full = true;
        assert!(world.give(backend, response));
        let limit_us = world.proxy.settings.timeouts.response_us;
        for byte in ["G", "E", "T", " "] {
            world.pass(limit_us / 5);
            world.give(client, byte);
        }
        assert!(!world.did(Output::Reset(client)));
        world.pass(limit_us / 5 + TIMER_TICK_US * 2);
        assert!(world.did(Output::Reset(client)), "{request:?} {response:?}");
        assert_eq!(world.metric("zzz_lb_failures_total{"), 0);
    }
}

#[test]
fn a_backend_whose_response_is_not_taken_need_not_take_the_request() {
    let mut world = World::new(1, |_| {});
    let client = world.asking("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    let backend = world.connect();
    world.full = true;
    assert!(world.give(client, "hello"));
    let limit_us = world.proxy.settings.timeouts.response_us;
    world.pass(limit_us / 2);
    assert!(world.give(backend, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"));
    while world.give(backend, &"x".repeat(1000)) {}
    // The client takes something, so its limit restarts.
    world.pass(limit_us / 2);
    world.proxy.sent(client, 1);
    world.pass(limit_us - 1);
    assert!(world.proxy.queued(client).is_some_and(|queue| queue.len() >= QUEUE_HIGH_BYTES));
    world.pass(TIMER_TICK_US * 2);
    assert!(world.did(Output::Reset(client)) && world.did(Output::Close(backend)));
    assert_eq!(world.metric("zzz_lb_failures_total{"), 0);
}

/// The end of a request that is complete with its head once set no deadline on a stream.
#[test]
fn a_stream_without_a_response_ends_in_time() {
    let mut world = World::new(1, |plan| plan.members[0].h2c = true);
    let client = world.asking("PUT / HTTP/1.1\r\nHost: a\r\n\r\n");
    world.connect();
    world.pass(DEFAULT_RESPONSE_US - SECOND_US);
    assert_eq!(world.sent(client), "");
    world.pass(2 * SECOND_US);
    assert!(world.sent(client).starts_with("HTTP/1.1 504 "));
}

/// Passes the limit several times, while the peer acknowledges one of the bytes that the system holds for it, in each half.
fn acknowledges(world: &mut World) {
    let half_us = world.proxy.settings.timeouts.response_us / 2;
    for left in (0..10).rev() {
        world.unacknowledged = Some(1_000_000 + left);
        world.pass(half_us);
        world.proxy.check().unwrap();
    }
}

#[test]
fn a_client_that_acknowledges_bytes_takes_some() {
    let mut world = World::new(1, |_| {});
    let client = world.asking(GET);
    let backend = world.connect();
    world.full = true;
    assert!(world.give(backend, OK));
    acknowledges(&mut world);
    assert!(!world.did(Output::Reset(client)));
    // It acknowledges nothing more.
    world.pass(world.proxy.settings.timeouts.response_us + 2 * TIMER_TICK_US);
    assert!(world.did(Output::Reset(client)));
    world.proxy.check().unwrap();
    assert_eq!(world.metric("zzz_lb_failures_total{"), 0);
}

#[test]
fn a_backend_that_acknowledges_bytes_takes_some() {
    for full in [true, false] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(GET);
        world.full = full;
        world.connect();
        // Either the system takes no more, or it has everything.
        acknowledges(&mut world);
        assert_eq!(world.sent(client), "", "{full}");
        world.full = false;
        world.pass(world.proxy.settings.timeouts.response_us + 2 * TIMER_TICK_US);
        assert!(world.sent(client).starts_with("HTTP/1.1 504 "), "{full}");
    }
}

//! Reused connections and repeated requests.

use super::*;
use crate::limits::{EXPIRIES_PER_TURN, POOL_FRESH_US, RETRY_FLOOR, TIMER_TICK_US};

#[test]
fn a_retry_that_the_budget_refuses_is_not_in_flight() {
    let mut world = World::new(3, |plan| plan.retry_percent = 0);
    for n in 0..RETRY_FLOOR * 20 {
        let client = world.asking(GET);
        while !world.dials.is_empty() {
            let backend = world.connect();
            world.fail(backend, Failure::Closed);
        }
        assert!(world.sent(client).contains(" 502 "), "{n}");
    }
    assert!(world.metric("zzz_lb_retries_refused_total") > 0);
    assert!((0..3).all(|slot| world.proxy.shared.cells.in_flight(slot) == 0));
}

#[test]
fn a_post_never_uses_an_old_pooled_connection() {
    let mut world = World::new(1, |_| {});
    let (_, backend) = world.exchange(GET, OK);
    world.pass(POOL_FRESH_US - TIMER_TICK_US);
    world.asking(POST);
    assert!(world.sent(backend).contains("POST") && world.give(backend, OK));
    world.pass(POOL_FRESH_US + TIMER_TICK_US);
    world.asking(POST);
    let fresh = world.connect();
    assert!(world.sent(fresh).contains("POST") && world.give(fresh, OK));
    // A GET may be sent again if the connection turns out to be closed.
    world.pass(POOL_FRESH_US + TIMER_TICK_US);
    world.asking(GET);
    assert!(world.dials.is_empty() && world.sent(fresh).contains("GET"));
}

#[test]
fn a_retry_never_loses_trailers() {
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n";
    let mut world = World::new(2, |_| {});
    // No backend has seen them, so another one gets them.
    world.asking(put);
    let (dead, _) = world.dial();
    world.fail(dead, Failure::Connect(111));
    let backend = world.connect();
    assert!(world.sent(backend).ends_with("0\r\nX-Sum: 1\r\n\r\n") && world.give(backend, OK));
    // A backend has them, and the proxy does not keep them.
    let client = world.asking(put);
    let backend = if world.dials.is_empty() { world.busy_backend() } else { world.connect() };
    assert!(world.sent(backend).ends_with("0\r\nX-Sum: 1\r\n\r\n"));
    world.fail(backend, Failure::Closed);
    assert!(world.dials.is_empty() && world.sent(client).contains(" 502 "));
}

#[test]
fn expiries_at_once_never_touch_a_new_connection_in_a_reused_slot() {
    let mut world = World::new(1, |_| {});
    let old = [(); 10].map(|()| world.asking("G"));
    world.now_us += world.proxy.settings.timeouts.request_us + 2 * TIMER_TICK_US;
    world.proxy.set_clock(world.now_us, world.now_us);
    world.proxy.expire();
    world.carry_out();
    let (expired, left): (Vec<Key>, Vec<Key>) = old.iter().partition(|&&key| world.did(Output::Finish(key)));
    assert_eq!(expired.len(), EXPIRIES_PER_TURN);
    // The others are closed before their turn, and fresh ones take their slots.
    left.iter().for_each(|&key| world.fail(key, Failure::Broken(104)));
    let new: Vec<Key> = left.iter().map(|_| world.asking("G")).collect();
    let mut places = [&left, &new].map(|keys| keys.iter().map(|key| key.index()).collect::<Vec<_>>());
    places.iter_mut().for_each(|places| places.sort_unstable());
    assert_eq!(places[0], places[1], "the slots are used again");
    world.pass(0);
    for key in new {
        assert!(!world.did(Output::Finish(key)) && world.give(key, &GET[1..]));
        assert_eq!(world.sent(key), "");
    }
}

#[test]
fn a_connection_that_can_no_longer_send_is_not_pooled() {
    let mut world = World::new(1, |_| {});
    let client = world.asking(GET);
    let backend = world.connect();
    world.proxy.unsendable(backend);
    world.carry_out();
    assert!(world.give(backend, OK));
    assert!(world.sent(client).ends_with("ok") && world.did(Output::Close(backend)));
    world.asking(GET);
    world.connect();
}

#[test]
fn pipelining_stops_while_the_client_takes_nothing() {
    let mut world = World::new(1, |_| {});
    let client = world.asking(GET);
    let backend = world.connect();
    world.sent(backend);
    // The content fills the queue, and is read at once.
    let length = QUEUE_HIGH_BYTES - 1000;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX: ");
    let large = format!("{head}{}\r\n\r\n{}", "y".repeat(1000 - head.len() - 4), "x".repeat(length));
    world.full = true;
    assert!(world.give(client, &GET.repeat(3)));
    assert!(world.give(backend, &large));
    // The first response fills the queue, so no further request is decoded.
    assert_eq!((world.proxy.requests(), world.proxy.queued(backend).map(Queue::len)), (0, Some(0)));
    world.pass(0);
    assert_eq!(world.proxy.requests(), 0);
    world.drain();
    for left in [2, 1, 0] {
        assert_eq!(world.sent(backend).matches("GET ").count(), 1, "{left}");
        assert!(world.give(backend, OK));
        assert!(world.sent(client).ends_with("ok"));
    }
    assert_eq!(world.sent(backend), "");
}

#[test]
fn a_connection_that_is_known_to_end_carries_nothing_more() {
    let mut world = World::new(1, |_| {});
    let client = world.asking(GET);
    let backend = world.connect();
    // The response and the end have arrived together, and only the response was read.
    world.proxy.closing(backend);
    assert!(world.give(backend, OK));
    assert!(world.sent(client).ends_with("ok") && world.did(Output::Close(backend)));
    let client = world.asking(POST);
    let backend = world.connect();
    assert!(world.give(backend, OK));
    assert!(world.sent(client).ends_with("ok"));
}

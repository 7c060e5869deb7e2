//! Idle clients: the time of their end, and the last read before it.

use super::*;
use crate::limits::{IDLE_LINGER_US, SECOND_US, TIMER_TICK_US};

/// Returns a client that has had a response and is idle from now on.
fn idle(world: &mut World) -> Key {
    let client = world.asking(GET);
    answer(world);
    world.outputs.clear();
    client
}

/// Responds to the only request under way, over a fresh connection if there is no other.
fn answer(world: &mut World) {
    if !world.dials.is_empty() {
        world.connect();
    }
    let backend = world.busy_backend();
    assert!(world.give(backend, OK));
}

#[test]
fn an_idle_client_is_read_once_more_before_its_end() {
    let mut world = World::new(1, |_| {});
    let client = idle(&mut world);
    let idle_us = world.proxy.settings.timeouts.idle_us;
    world.pass(idle_us - 1);
    assert!(!world.did(Output::Check(client)));
    world.pass(TIMER_TICK_US * 2);
    assert!(world.did(Output::Check(client)) && !world.did(Output::Finish(client)));
    // A request that has arrived in the meantime is served.
    assert!(world.give(client, GET));
    answer(&mut world);
    assert!(world.sent(client).ends_with("ok"));
    world.pass(idle_us + TIMER_TICK_US * 2);
    world.proxy.room(client);
    world.proxy.nothing(client);
    world.carry_out();
    assert!(world.did(Output::Finish(client)) && !world.did(Output::Close(client)));
    // Bytes that arrive too late are dropped without a reset.
    assert!(world.give(client, GET));
    assert_eq!(world.proxy.requests(), 0);
    world.pass(IDLE_LINGER_US + TIMER_TICK_US * 2);
    assert!(world.did(Output::Close(client)));
    assert_eq!(world.proxy.clients(), 0);
}

#[test]
fn the_end_of_an_idle_client_goes_ahead_of_all_else() {
    let mut world = World::new(1, |_| {});
    let clients = [idle(&mut world), idle(&mut world)];
    world.proxy.close_idle(0);
    world.now_us += TIMER_TICK_US;
    world.proxy.set_clock(world.now_us, world.now_us);
    world.proxy.expire();
    for _ in clients {
        let Some(Output::Check(key)) = world.proxy.next_output() else { panic!("an idle client is read") };
        world.proxy.nothing(key);
        assert_eq!(world.proxy.next_output(), Some(Output::Finish(key)));
    }
}

#[test]
fn the_end_of_the_process_counts_from_the_last_request() {
    let mut world = World::new(1, |_| {});
    let long = idle(&mut world);
    world.pass(SECOND_US * 3 / 2);
    let (short, fresh) = (idle(&mut world), world.client());
    let admin = world.proxy.accept_admin(SocketAddr::from(([127, 0, 0, 1], 50_001)));
    world.pass(SECOND_US);
    world.proxy.drain();
    world.proxy.close_idle(2 * SECOND_US);
    // A second call changes nothing.
    world.proxy.close_idle(2 * SECOND_US);
    world.pass(TIMER_TICK_US * 2);
    assert!(world.did(Output::Check(long)));
    assert!(!world.did(Output::Check(short)) && !world.did(Output::Check(fresh)));
    world.pass(SECOND_US);
    assert!(world.did(Output::Check(short)) && world.did(Output::Check(fresh)));
    world.pass(4 * SECOND_US);
    assert!(!world.did(Output::Check(admin)), "who asks how things stand may go on");
}

#[test]
fn a_client_that_becomes_idle_after_the_end_has_begun_is_closed_too() {
    let mut world = World::new(1, |_| {});
    world.proxy.close_idle(SECOND_US);
    let client = world.client();
    world.pass(SECOND_US / 2);
    // Its first byte has arrived: the rest of the head has its own limit.
    assert!(world.give(client, "GET / HT"));
    world.pass(5 * SECOND_US);
    assert!(!world.did(Output::Check(client)));
    assert!(world.give(client, &GET["GET / HT".len()..]));
    let backend = world.connect();
    assert!(world.give(backend, OK));
    assert!(world.sent(client).ends_with("ok"));
    world.pass(SECOND_US + TIMER_TICK_US * 2);
    assert!(world.did(Output::Check(client)));
}

#[test]
fn the_time_for_a_first_head_begins_with_the_connection() {
    let mut world = World::new(1, |_| {});
    let client = world.client();
    let limit_us = world.proxy.settings.timeouts.request_us;
    world.pass(limit_us - SECOND_US);
    assert!(world.give(client, "GET / HT"));
    world.pass(SECOND_US + TIMER_TICK_US * 2);
    assert!(world.sent(client).starts_with("HTTP/1.1 408 "));
}

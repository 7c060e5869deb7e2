//! Clients that end their direction, or leave, before they have their response.

use super::*;
use crate::limits::TIMER_TICK_US;

const HALF_CLOSE_US: u64 = crate::limits::DEFAULT_HALF_CLOSE_US;
/// The precision of timers.
const SLACK_US: u64 = 2 * TIMER_TICK_US;

fn closed(world: &mut World) -> u64 {
    world.metric("zzz_lb_client_aborts_total{reason=\"closed\"}")
}

/// Returns the number of requests that were sent to backends and whose clients left before the response.
fn given_up(world: &mut World) -> u64 {
    world.metric("zzz_lb_requests_total{backend=\"127.0.0.1:9000\",code=\"499\"}")
}

#[test]
fn a_request_without_a_response_goes_on_for_so_long_after_the_fin() {
    for seen_early in [true, false] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(GET);
        let backend = world.connect();
        world.pass(10 * HALF_CLOSE_US);
        // The poller reports the FIN, or a read finds it.
        match seen_early {
            true => world.proxy.closing(client),
            false => world.end(client),
        }
        world.pass(HALF_CLOSE_US - 1);
        assert!(!world.did(Output::Close(backend)));
        world.pass(SLACK_US);
        assert!(world.did(Output::Close(backend)) && world.did(Output::Close(client)), "{seen_early}");
        assert_eq!((closed(&mut world), given_up(&mut world)), (1, 1));
        assert_eq!((world.metric("zzz_lb_in_flight{"), world.metric("zzz_lb_failures_total{")), (0, 0));
    }
}

#[test]
fn a_client_that_only_ended_its_direction_gets_its_responses() {
    let mut world = World::new(1, |_| {});
    let client = world.asking(&GET.repeat(3));
    world.end(client);
    let backend = world.connect();
    // Each of its requests has that time. A response that has begun has no such limit.
    for _ in 0..3 {
        world.pass(HALF_CLOSE_US * 3 / 4);
        assert!(world.give(backend, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"));
        world.pass(2 * HALF_CLOSE_US);
        assert!(world.give(backend, "k"));
        assert!(world.sent(client).ends_with("ok"));
    }
    assert!(world.did(Output::Close(client)) && !world.did(Output::Close(backend)));
    assert_eq!((closed(&mut world), given_up(&mut world)), (0, 0));
}

#[test]
fn an_upload_or_an_interim_response_that_moves_puts_the_limit_off() {
    let mut world = World::new(1, |_| {});
    let client = world.asking("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    let backend = world.connect();
    // The end has arrived, and the content before it is not read yet.
    world.proxy.closing(client);
    for byte in ["a", "b", "c"] {
        world.pass(HALF_CLOSE_US * 3 / 4);
        assert!(world.give(client, byte));
    }
    for _ in 0..3 {
        world.pass(HALF_CLOSE_US * 3 / 4);
        assert!(world.give(backend, "HTTP/1.1 102 Processing\r\n\r\n"));
    }
    assert!(!world.did(Output::Close(backend)));
    world.pass(HALF_CLOSE_US + SLACK_US);
    assert!(world.did(Output::Close(backend)));
    assert_eq!((closed(&mut world), given_up(&mut world)), (1, 1));
}

#[test]
fn a_client_that_has_gone_leaves_the_queue_and_the_dial() {
    let mut world = World::new(1, |plan| {
        plan.members[0].max = 1;
        plan.timeouts.connect_us = 10 * HALF_CLOSE_US;
    });
    let dialling = world.asking(GET);
    let waiting = world.asking(GET);
    let (backend, _) = world.dial();
    for client in [dialling, waiting] {
        world.proxy.closing(client);
    }
    world.pass(HALF_CLOSE_US + SLACK_US);
    for key in [dialling, waiting, backend] {
        assert!(world.did(Output::Close(key)));
    }
    assert_eq!((world.proxy.ledger.waiting.len(), world.dials.len(), world.proxy.requests()), (0, 0, 0));
    assert_eq!((closed(&mut world), given_up(&mut world)), (2, 1));
    assert_eq!((world.metric("zzz_lb_in_flight{"), world.metric("zzz_lb_waits_failed_total")), (0, 0));
}

#[test]
fn a_longer_limit_keeps_nobody_in_the_queue() {
    let mut world = World::new(1, |plan| {
        plan.members[0].max = 1;
        plan.timeouts.half_close_us = 10 * HALF_CLOSE_US;
    });
    let (_, _) = (world.asking(GET), world.connect());
    let client = world.asking(GET);
    world.proxy.closing(client);
    let limit_us = world.proxy.settings.timeouts.connect_us;
    world.pass(limit_us + SLACK_US);
    assert!(world.sent(client).contains(" 503 "));
}

#[test]
fn nothing_is_sent_again_for_a_client_that_has_closed() {
    for used in [false, true] {
        let mut world = World::new(2, |_| {});
        if used {
            world.exchange(GET, OK);
            world.exchange(GET, OK);
        }
        let client = world.asking(GET);
        let backend = if used { world.busy_backend() } else { world.connect() };
        world.proxy.closing(client);
        world.end(backend);
        assert!(world.dials.is_empty(), "{used}");
        assert!(world.sent(client).contains(" 502 "), "it may still read");
    }
    // No backend has seen a request that is sent to another one because the first was unreachable.
    let mut world = World::new(2, |_| {});
    let client = world.asking(GET);
    world.proxy.closing(client);
    let (backend, _) = world.dial();
    world.fail(backend, Failure::Connect(111));
    let backend = world.connect();
    assert!(world.give(backend, OK));
    assert!(world.sent(client).ends_with("ok"));
}

#[test]
fn each_way_to_leave_is_counted_once() {
    let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhi!";
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    type Leave = fn(&mut World, Key);
    let reset: Leave = |world, client| world.fail(client, Failure::Broken(104));
    let broken: Leave = |world, client| world.proxy.broken(client);
    let unsendable: Leave = |world, client| world.proxy.unsendable(client);
    let end: Leave = |world, client| world.end(client);
    let stall: Leave = |world, _| world.pass(world.proxy.settings.timeouts.response_us + SLACK_US);
    for (request, response, leave, reason, waiting) in [
        (GET, "", reset, "reset", 1),
        (GET, "", broken, "reset", 1),
        (GET, begun, unsendable, "reset", 0),
        (part, "", end, "incomplete", 1),
        (part, begun, end, "incomplete", 0),
        (GET, begun, stall, "stalled", 0),
    ] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(request);
        let backend = world.connect();
        world.full = reason == "stalled";
        assert!(world.give(backend, response));
        leave(&mut world, client);
        world.carry_out();
        assert!(world.did(Output::Close(backend)));
        for counted in ["closed", "incomplete", "reset", "stalled"] {
            let count = world.metric(&format!("zzz_lb_client_aborts_total{{reason=\"{counted}\"}}"));
            assert_eq!(count, u64::from(counted == reason), "{counted} {reason}");
        }
        assert_eq!(given_up(&mut world), waiting, "{request:?} {response:?} {reason}");
        assert_eq!((world.metric("zzz_lb_in_flight{"), world.metric("zzz_lb_failures_total{")), (0, 0));
    }
}

#[test]
fn a_client_with_the_whole_response_or_a_tunnel_aborts_nothing() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let switching = "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let mut world = World::new(1, |_| {});
    let (client, _) = world.exchange(GET, OK);
    world.fail(client, Failure::Broken(104));
    let client = world.asking(upgrade);
    let backend = world.busy_backend();
    assert!(world.give(backend, switching));
    world.end(client);
    world.pass(10 * HALF_CLOSE_US);
    assert!(world.give(backend, "a tunnel goes on"));
    assert!(world.sent(client).ends_with("goes on"));
    world.fail(client, Failure::Broken(104));
    for reason in ["closed", "incomplete", "reset", "stalled"] {
        assert_eq!(world.metric(&format!("zzz_lb_client_aborts_total{{reason=\"{reason}\"}}")), 0);
    }
}

//! Groups of backends by route: each is picked from, waits, fails and is replied for by itself.

use super::*;
use crate::config::Route;

/// Four backends: two for a.test, one for a.test/api, and one without a route if `others` is true.
fn world(others: bool, set: impl FnOnce(&mut Plan)) -> World {
    World::new(if others { 4 } else { 3 }, |plan| {
        plan.routes = vec![Route::new("a.test", ""), Route::new("a.test", "/api")];
        plan.takes_others = others;
        for (member, route) in plan.members.iter_mut().zip([0, 0, 1]) {
            member.routes = vec![route];
        }
        set(plan);
    })
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Returns the slot that a request is sent to, and lets it be served.
fn slot(world: &mut World, request: &str) -> usize {
    let client = world.asking(request);
    let (key, slot) = world.dials.pop_front().unwrap_or_else(|| {
        let key = world.busy_backend();
        (key, world.proxy.connections.get(key).and_then(Connection::backend).expect("it is a backend's").slot.into())
    });
    world.proxy.connected(key, false);
    world.carry_out();
    assert!(world.give(key, OK));
    assert!(world.sent(client).starts_with("HTTP/1.1 200 "));
    slot
}

#[test]
fn a_request_goes_to_the_backends_of_the_longest_route_and_else_to_those_without() {
    let mut world = world(true, |_| {});
    let mut turns: Vec<usize> = (0..8).map(|_| slot(&mut world, &get("A.test:80", "/x"))).collect();
    turns.sort_unstable();
    assert_eq!(turns, [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(slot(&mut world, &get("a.test", "/api?x")), 2);
    for request in [get("b.test", "/api"), "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into()] {
        assert_eq!(slot(&mut world, &request), 3);
    }
    // The authority of the target overrides Host, and `*` is the server as a whole.
    assert_eq!(slot(&mut world, "GET http://a.test/api/x HTTP/1.1\r\nHost: b\r\n\r\n"), 2);
    assert!(slot(&mut world, "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n") < 2);
}

#[test]
fn each_group_has_turns_of_its_own() {
    let mut world = world(true, |_| {});
    // With turns in common, every second one would always be the same backend's.
    let turns: Vec<usize> = (0..6)
        .map(|_| {
            slot(&mut world, &get("b.test", "/"));
            slot(&mut world, &get("a.test", "/"))
        })
        .collect();
    assert_eq!((turns.iter().filter(|&&slot| slot == 0).count(), turns.len()), (3, 6), "{turns:?}");
}

#[test]
fn a_request_that_no_backend_is_for_gets_404_and_blames_nobody() {
    let mut world = world(false, |_| {});
    for host in ["b.test", "x.a.test"] {
        let client = world.asking(&get(host, "/"));
        let reply = world.sent(client);
        assert!(
            reply.starts_with("HTTP/1.1 404 ") && reply.contains("no backend serves this host and path"),
            "{reply}"
        );
        // The connection goes on.
        assert!(world.give(client, &get("a.test", "/")));
        let backend = if world.dials.is_empty() { world.busy_backend() } else { world.connect() };
        assert!(world.give(backend, OK));
        assert!(world.sent(client).starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(world.metric("zzz_lb_own_responses_total{code=\"404\"}"), 2);
    assert_eq!(world.metric("zzz_lb_failures_total{"), 0);
}

#[test]
fn a_group_that_is_down_is_tried_and_no_other_replaces_it() {
    let mut world = world(true, |_| {});
    for n in 0..4 {
        let client = world.asking(&get("a.test", "/api"));
        let (key, slot) = world.dial();
        assert_eq!(slot, 2, "{n}");
        world.fail(key, Failure::Connect(111));
        assert!(world.dials.is_empty() && world.sent(client).starts_with("HTTP/1.1 502 "), "{n}");
    }
    let log = world.log();
    assert_eq!(log.matches("no backend for a.test/api is healthy: all are tried").count(), 1, "{log}");
    assert!(slot(&mut world, &get("a.test", "/")) < 2);
    assert_eq!(world.metric("zzz_lb_fail_open_total"), 1);
    assert_eq!(world.log(), "");
}

#[test]
fn a_backend_without_an_address_keeps_its_requests() {
    let mut world = world(true, |plan| _ = plan.members.remove(2));
    let client = world.asking(&get("a.test", "/api"));
    assert!(world.dials.is_empty() && world.sent(client).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_retry_stays_within_its_group() {
    let mut world = world(true, |_| {});
    let client = world.asking(&get("a.test", "/"));
    let mut tried: Vec<usize> = Vec::new();
    while let Some((key, slot)) = world.dials.pop_front() {
        tried.push(slot);
        world.fail(key, Failure::Connect(111));
    }
    tried.sort_unstable();
    assert_eq!(tried, [0, 1]);
    assert!(world.sent(client).starts_with("HTTP/1.1 502 "));
}

#[test]
fn no_group_waits_for_another_one() {
    let mut world = world(true, |plan| plan.members.iter_mut().for_each(|member| member.max = 1));
    let first = world.asking(&get("a.test", "/api"));
    let api = world.connect();
    let waiting = [(); 2].map(|()| world.asking(&get("a.test", "/api")));
    assert!(world.dials.is_empty());
    // The queue of one group holds back nobody else.
    assert_eq!(slot(&mut world, &get("b.test", "/")), 3);
    (0..3).for_each(|_| _ = world.asking(&get("b.test", "/")));
    assert_eq!(world.busy_slots(), [2, 3]);
    // And room in one is of no use to the other.
    assert!(world.give(api, OK));
    assert!(world.sent(first).ends_with("ok"));
    assert_eq!(world.busy_slots(), [2, 3]);
    assert!(world.give(api, OK));
    assert!(world.sent(waiting[0]).ends_with("ok"));
    assert_eq!(world.proxy.check(), Ok(()));
}

#[test]
fn a_client_that_is_bound_to_a_connection_leaves_it_for_another_group() {
    let mut world = world(true, |_| {});
    let ntlm = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: NTLM TlRMTVNTUAAB\r\n\r\n");
    let (client, bound) = world.exchange(&ntlm("a.test"), OK);
    world.sent(bound);
    assert!(world.give(client, &get("b.test", "/")));
    let (_, slot) = world.dial();
    assert_eq!((slot, world.sent(bound).as_str()), (3, ""));
}

#[test]
fn another_plan_decides_the_groups_of_requests_that_wait() {
    let mut plan = None;
    let mut world = world(true, |one| {
        one.members[2].max = 1;
        plan = Some(one.clone());
    });
    world.asking(&get("a.test", "/api"));
    let _api = world.connect();
    let moved = world.asking(&get("a.test", "/api"));
    assert!(world.dials.is_empty());
    // The route is gone, so the request is one for the host.
    let mut plan = plan.expect("it was set");
    plan.routes.pop();
    plan.members[2].routes.clear();
    world.proxy.follow(&plan);
    world.carry_out();
    let (key, slot) = world.dial();
    assert!(slot < 2, "{slot}");
    world.proxy.connected(key, false);
    world.carry_out();
    assert!(world.give(key, OK));
    assert!(world.sent(moved).ends_with("ok"));
    assert_eq!(world.proxy.check(), Ok(()));
    // And if no backend is for it, it gets the reply.
    plan.takes_others = false;
    plan.members.pop();
    plan.members[0].max = 1;
    plan.members[1].max = 1;
    world.proxy.follow(&plan);
    let _busy = [(); 2].map(|()| world.asking(&get("a.test", "/")));
    let left = world.asking(&get("a.test", "/"));
    plan.routes[0] = Route::new("c.test", "");
    world.proxy.follow(&plan);
    world.carry_out();
    assert!(world.sent(left).starts_with("HTTP/1.1 404 "));
}

impl World {
    /// Returns the slots with requests in flight.
    fn busy_slots(&self) -> Vec<usize> {
        let cells = self.proxy.shared.cells;
        (0..cells.slots()).filter(|&slot| cells.in_flight(slot) > 0).collect()
    }
}

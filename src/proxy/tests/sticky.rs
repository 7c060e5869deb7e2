//! The cookie that names the backend of a session.

use super::*;
use crate::config::{Route, Sticky};
use crate::limits::TIMER_TICK_US;

const KEY: [u8; 32] = [7; 32];

fn world(backends: u16, set: impl FnOnce(&mut Plan)) -> World {
    let mut world = World::new(backends, |plan| {
        plan.sticky =
            Some(Sticky { name: "lb".into(), attributes: "; Path=/; HttpOnly; SameSite=Lax".into(), secure: false });
        set(plan);
    });
    world.proxy.set_cookie_key(&KEY);
    world
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// The outcome of a request: the slot of its backend, the head as the backend got it, and the value of the new cookie.
struct Served {
    slot: usize,
    request: String,
    cookie: Option<String>,
}

fn serve_with(world: &mut World, request: &str, response: &str) -> Served {
    let client = world.asking(request);
    let (key, slot) = world.dials.pop_front().unwrap_or_else(|| {
        let key = world.busy_backend();
        (key, world.proxy.connections.get(key).and_then(Connection::backend).expect("it is a backend's").slot.into())
    });
    world.proxy.connected(key, false);
    world.carry_out();
    assert!(world.give(key, response));
    let (request, response) = (world.sent(key), world.sent(client));
    let cookie = response.split("Set-Cookie: lb=").nth(1).map(|rest| {
        let line = rest.lines().next().unwrap_or_default();
        assert!(line.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{line}");
        line.split(';').next().unwrap_or_default().to_owned()
    });
    Served { slot, request, cookie }
}

fn serve(world: &mut World, cookie: &str) -> Served {
    let fields = if cookie.is_empty() { String::new() } else { format!("Cookie: lb={cookie}\r\n") };
    serve_with(world, &get("/", &fields), OK)
}

/// Returns a cookie that names the backend in a slot.
fn cookie_for(world: &mut World, slot: usize) -> String {
    for _ in 0..100 {
        let served = serve(world, "");
        if served.slot == slot {
            return served.cookie.expect("a request without a cookie gets one");
        }
    }
    panic!("no request went to slot {slot}");
}

#[test]
fn a_client_stays_at_its_backend_and_gets_no_other_cookie() {
    let mut world = world(4, |_| {});
    for slot in 0..4 {
        let cookie = cookie_for(&mut world, slot);
        for _ in 0..5 {
            let served = serve(&mut world, &cookie);
            assert_eq!((served.slot, served.cookie), (slot, None));
        }
    }
}

#[test]
fn an_invalid_cookie_is_replaced() {
    let mut world = world(2, |_| {});
    let cookie = cookie_for(&mut world, 1);
    let forged = format!("{}{}", &cookie[..31], if cookie.ends_with('A') { "B" } else { "A" });
    let mut other = self::world(2, |_| {});
    other.proxy.set_cookie_key(&[8; 32]);
    let foreign = cookie_for(&mut other, 1);
    let mut others = self::world(3, |plan| drop(plan.members.drain(..2)));
    let gone = cookie_for(&mut others, 2);
    for cookie in [forged, foreign, gone, "x".into(), "\"\"".into(), String::new()] {
        let slots: Vec<usize> = (0..4)
            .map(|_| {
                let served = serve_with(&mut world, &get("/", &format!("Cookie: lb={cookie}\r\n")), OK);
                assert!(served.cookie.is_some(), "{cookie}");
                served.slot
            })
            .collect();
        assert!(slots.contains(&0) && slots.contains(&1), "{cookie}: {slots:?}");
    }
}

#[test]
fn the_backend_never_gets_the_cookie_and_cannot_set_it() {
    let mut world = world(2, |_| {});
    let cookie = cookie_for(&mut world, 1);
    for (fields, expected) in [
        (format!("Cookie: a=1; lb={cookie};  b=2\r\nX: 1\r\n"), "Cookie: a=1;  b=2\r\nX: 1\r\n"),
        (format!("Cookie: lb={cookie}\r\nX: 1\r\n"), "Host: a\r\nX: 1\r\n"),
        (
            format!("cookie: lb=old; c=3; lb={cookie}\r\nCookie: lb=x; d=\"4\"\r\n"),
            "cookie: c=3\r\nCookie: d=\"4\"\r\n",
        ),
        ("Cookie: lbx=1; b=2\r\n".into(), "Cookie: lbx=1; b=2\r\n"),
    ] {
        let served = serve_with(&mut world, &get("/", &fields), OK);
        assert!(served.request.contains(expected) && !served.request.contains("lb="), "{}", served.request);
    }
    let client = world.asking(&get("/", &format!("Cookie: lb={cookie}\r\n")));
    let backend = world.busy_backend();
    assert!(world.give(
        backend,
        "HTTP/1.1 200 OK\r\nSet-Cookie: lb=mine; Path=/\r\nSet-Cookie: id=7\r\nContent-Length: 0\r\n\r\n"
    ));
    let response = world.sent(client);
    assert!(response.contains("Set-Cookie: id=7\r\n") && !response.contains("lb="), "{response}");
}

#[test]
fn a_backend_of_weight_0_keeps_its_sessions_and_gets_no_others() {
    let mut plan = None;
    let mut world = world(2, |one| plan = Some(one.clone()));
    let cookie = cookie_for(&mut world, 1);
    let mut plan = plan.expect("it was set");
    plan.members[1].weight = 0;
    world.proxy.follow(&plan);
    for _ in 0..4 {
        let served = serve(&mut world, &cookie);
        assert_eq!((served.slot, served.cookie), (1, None));
        assert_eq!(serve(&mut world, "").slot, 0);
    }
    // Also if no other backend may serve.
    plan.members[0].weight = 0;
    world.proxy.follow(&plan);
    assert_eq!(serve(&mut world, &cookie).slot, 1);
    let client = world.asking(GET);
    assert!(world.sent(client).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_down_or_full_backend_is_replaced_and_the_cookie_too() {
    let mut world = world(2, |plan| plan.members[1].max = 1);
    let cookie = cookie_for(&mut world, 1);
    // It is full.
    let _held = world.asking(&get("/", &format!("Cookie: lb={cookie}\r\n")));
    let held = world.busy_backend();
    let client = world.asking(&get("/", &format!("Cookie: lb={cookie}\r\n")));
    let backend = if world.dials.is_empty() { world.backend_of(client) } else { world.connect() };
    assert!(world.give(backend, OK));
    assert!(world.sent(client).contains("Set-Cookie: lb="));
    assert!(world.give(held, OK));
    // It goes down: a retry goes to another backend, whose cookie the client gets.
    for _ in 0..3 {
        world.pass(31_000_000 + TIMER_TICK_US);
        let client = world.asking(&get("/", &format!("Cookie: lb={cookie}\r\n")));
        let (dead, slot) = world.dial();
        assert_eq!(slot, 1);
        world.fail(dead, Failure::Connect(111));
        let backend = world.connect();
        assert!(world.give(backend, OK));
        assert!(world.sent(client).contains("Set-Cookie: lb="));
    }
    assert!(world.log().contains("down after 3 failures"));
    let served = serve(&mut world, &cookie);
    assert!(served.slot == 0 && served.cookie.is_some_and(|new| new != cookie));
}

#[test]
fn a_session_stays_while_every_backend_is_down() {
    let mut world = world(2, |plan| plan.health.fails = 1);
    let cookie = cookie_for(&mut world, 1);
    world.pass(31_000_000);
    let _client = world.asking(GET);
    for _ in 0..2 {
        let (dead, _) = world.dial();
        world.fail(dead, Failure::Connect(111));
    }
    assert!(world.log().contains("no backend is healthy"));
    for _ in 0..4 {
        let served = serve(&mut world, &cookie);
        assert_eq!((served.slot, served.cookie), (1, None));
    }
}

#[test]
fn one_cookie_names_a_backend_for_each_route_of_a_host() {
    let mut world = world(4, |plan| {
        plan.routes = vec![Route::new("a", "/api")];
        plan.members[2].routes = vec![0];
        plan.members[3].routes = vec![0];
    });
    let site = serve(&mut world, "");
    let cookie = site.cookie.expect("it is new");
    // The cookie of the site says nothing about the other group, and is kept.
    let fields = format!("Cookie: lb={cookie}\r\n");
    let api = serve_with(&mut world, &get("/api", &fields), OK);
    let both = api.cookie.expect("the group is new");
    assert!(site.slot < 2 && api.slot >= 2 && both.ends_with(&cookie) && both.len() == 64, "{both}");
    for _ in 0..4 {
        let again = serve(&mut world, &both);
        assert_eq!((again.slot, again.cookie), (site.slot, None));
        let again = serve_with(&mut world, &get("/api", &format!("Cookie: lb={both}\r\n")), OK);
        assert_eq!((again.slot, again.cookie), (api.slot, None));
    }
}

#[test]
fn the_cookie_is_secure_under_https() {
    let sent = |plan: fn(&mut Plan), fields: &str| {
        let mut world = world(1, plan);
        let client = world.asking(&get("/", fields));
        let backend = world.connect();
        assert!(world.give(backend, OK));
        world
            .sent(client)
            .lines()
            .find(|line| line.starts_with("Set-Cookie: "))
            .unwrap_or_default()
            .contains("; Secure")
    };
    let proto = "X-Forwarded-Proto: https\r\n";
    assert!(!sent(|_| {}, "") && !sent(|_| {}, proto), "an untrusted peer says nothing");
    let trusts = |plan: &mut Plan| {
        plan.trust = vec![crate::config::Cidr { address: [127, 0, 0, 1].into(), prefix: 32 }];
    };
    assert!(sent(trusts, proto) && !sent(trusts, ""));
    assert!(sent(|plan| plan.sticky.iter_mut().for_each(|sticky| sticky.secure = true), ""));
}

#[test]
fn a_switch_of_protocols_sets_the_cookie_and_a_local_reply_does_not() {
    let mut world = world(1, |_| {});
    let client = world.asking(&get("/", "Connection: upgrade\r\nUpgrade: websocket\r\n"));
    let backend = world.connect();
    assert!(world.give(backend, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    let response = world.sent(client);
    assert!(response.starts_with("HTTP/1.1 101 ") && response.contains("Set-Cookie: lb="), "{response}");
    let client = world.asking(GET);
    let (dead, _) = world.dial();
    world.fail(dead, Failure::Connect(111));
    let response = world.sent(client);
    assert!(response.starts_with("HTTP/1.1 502 ") && !response.contains("Set-Cookie"), "{response}");
}

#[test]
fn without_a_key_there_is_no_session() {
    let mut world = world(2, |_| {});
    let cookie = cookie_for(&mut world, 1);
    world.proxy.set_cookie_key(&[]);
    let served = serve(&mut world, &cookie);
    assert!(served.cookie.is_none() && !served.request.contains("lb="));
}

impl World {
    /// Returns the backend's connection of a client's request.
    fn backend_of(&self, client: Key) -> Key {
        let exchange = self.proxy.connections.get(client).and_then(|client| self.proxy.exchanges.get(client.exchange?));
        exchange.and_then(|exchange| exchange.backend()).expect("a request is under way")
    }
}

//! Connections to backends that begin with a PROXY header.

use super::*;
use crate::http::proxy_header::{Addresses, Version};

const LOCAL: &str = "198.51.100.2:443";

fn world(backends: u16) -> World {
    World::new(backends, |plan| plan.send_proxy = Some(Version::V1))
}

impl World {
    fn client_at(&mut self, address: &str) -> Key {
        self.proxy.accept(address.parse().unwrap())
    }

    /// Returns the PROXY header of a connection to a backend.
    fn header(&mut self, key: Key) -> String {
        let mut bytes = Vec::new();
        self.proxy.write_header(key, |_| LOCAL.parse().ok(), &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn checked(&self) {
        assert_eq!(self.proxy.check(), Ok(()));
    }
}

#[test]
fn a_connection_carries_requests_of_one_client_only_and_closes_with_it() {
    let mut world = world(1);
    let [one, two] = ["192.0.2.1:1000", "[2001:db8::1]:2000"].map(|address| world.client_at(address));
    assert!(world.give(one, GET));
    let first = world.connect();
    assert_eq!(world.header(first), "PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n");
    assert!(world.give(first, OK));
    world.checked();
    // Another client gets a connection of its own, although one is idle.
    assert!(world.give(two, GET));
    let second = world.connect();
    assert_eq!(world.header(second), "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 2000 443\r\n");
    assert!(world.give(second, OK));
    world.checked();
    // The next requests of each client use its own connection.
    for (client, backend) in [(one, first), (two, second), (one, first)] {
        world.sent(backend);
        assert!(world.give(client, GET));
        assert!(world.sent(backend).starts_with("GET / "));
        world.checked();
        assert!(world.give(backend, OK));
    }
    assert!(world.dials.is_empty());
    world.end(one);
    assert!(world.did(Output::Close(first)) && !world.did(Output::Close(second)));
    world.checked();
    world.end(two);
    assert!(world.did(Output::Close(second)));
    assert!(world.proxy.upstreams.owned.is_empty());
}

#[test]
fn each_backend_of_a_client_gets_the_header_and_so_does_each_retry() {
    let mut world = world(3);
    let client = world.client_at("192.0.2.1:1000");
    for _ in 0..3 {
        assert!(world.give(client, GET));
        let backend = world.connect();
        assert!(world.header(backend).starts_with("PROXY TCP4 192.0.2.1 "));
        assert!(world.give(backend, OK));
    }
    assert!(world.give(client, GET));
    assert!(world.dials.is_empty(), "the connection to the first backend is reused");
    let stale = world.busy_backend();
    world.fail(stale, Failure::Closed);
    let fresh = world.connect();
    assert!(world.header(fresh).starts_with("PROXY TCP4 192.0.2.1 "));
    assert!(world.give(fresh, OK));
    world.checked();
}

#[test]
fn more_clients_may_keep_a_connection_than_a_shared_pool_holds() {
    let mut world = world(1);
    let count = crate::limits::POOL_CONNECTIONS + 2;
    let clients: Vec<Key> = (0..count).map(|_| world.client_at("192.0.2.1:1000")).collect();
    for &client in &clients {
        assert!(world.give(client, GET));
        let backend = world.connect();
        assert!(world.give(backend, OK));
    }
    for client in clients {
        assert!(world.give(client, GET));
        assert!(world.dials.is_empty());
        let backend = world.busy_backend();
        assert!(world.give(backend, OK));
    }
    world.checked();
}

#[test]
fn the_destination_in_the_header_of_a_client_is_passed_on() {
    let mut world = world(1);
    let client = world.client_at("192.0.2.1:1000");
    let [source, destination] = ["203.0.113.7:7", "203.0.113.8:8"].map(|text| text.parse().unwrap());
    world.proxy.identified(client, Some(Addresses { source, destination }));
    assert!(world.give(client, GET));
    let backend = world.connect();
    assert_eq!(world.header(backend), "PROXY TCP4 203.0.113.7 203.0.113.8 7 8\r\n");
    assert!(world.give(backend, OK));
    world.end(client);
    assert!(world.proxy.upstreams.owned.is_empty());
}

#[test]
fn a_client_without_an_address_and_a_probe_are_unknown() {
    let mut world = World::new(1, |plan| {
        plan.send_proxy = Some(Version::V1);
        plan.health.interval_us = 1_000_000;
        plan.health.timeout_us = 60_000_000;
    });
    let client = world.client_at("0.0.0.0:0");
    assert!(world.give(client, GET));
    let backend = world.connect();
    assert_eq!(world.header(backend), "PROXY UNKNOWN\r\n");
    world.pass(2_000_000);
    let (probe, _) = world.dial();
    assert!(world.proxy.connections.get(probe).is_some_and(Connection::is_probe));
    assert_eq!(world.header(probe), "PROXY UNKNOWN\r\n");
}

#[test]
fn connections_from_before_a_change_of_the_option_are_not_used_again() {
    let mut plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 9000))]);
    let mut world = World::new(1, |_| {});
    let one = world.client_at("192.0.2.1:1000");
    for version in [Some(Version::V1), Some(Version::V2), None] {
        // One connection is idle at the change, and the other is busy.
        assert!(world.give(one, GET));
        let idle = world.connect();
        let two = world.asking(GET);
        let busy = world.connect();
        assert!(world.give(idle, OK));
        plan.send_proxy = version;
        world.proxy.follow(&plan);
        world.carry_out();
        assert!(world.did(Output::Close(idle)));
        world.checked();
        assert!(world.give(busy, OK));
        let is_closed = world.did(Output::Close(busy));
        assert_eq!(is_closed, version != Some(Version::V2), "the header of both versions says the same");
        world.end(two);
        assert!(world.did(Output::Close(busy)));
        world.checked();
        assert!(world.give(one, GET));
        let fresh = world.connect();
        assert_eq!(world.proxy.upstreams.send_proxy, version);
        assert!(world.give(fresh, OK));
        world.end(fresh);
        world.checked();
    }
}

#[test]
fn a_connection_that_is_dialled_at_a_change_of_the_option_is_dialled_again() {
    for (before, after) in [(None, Some(Version::V1)), (Some(Version::V1), None)] {
        for (h2c, isolated) in [(false, false), (true, false), (true, true)] {
            let mut plan = Plan::over([9000, 9001].map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
            plan.send_proxy = before;
            plan.members.iter_mut().for_each(|member| member.h2c = h2c);
            let mut world = World::new(2, |own| own.clone_from(&plan));
            let client = world.client_at("192.0.2.1:1000");
            assert!(world.give(client, GET));
            let (mut former, _) = world.dial();
            if isolated {
                let id = world.proxy.exchanges.keys().next().unwrap();
                world.proxy.exchanges.get_mut(id).unwrap().tries.isolated = true;
                world.proxy.failed(former, Failure::Connect(libc::ECONNREFUSED));
                world.carry_out();
                former = world.dial().0;
            }
            plan.send_proxy = after;
            world.proxy.follow(&plan);
            world.carry_out();
            // The event that it is established may have come already.
            assert_eq!(world.header(former), "", "{before:?} {h2c} {isolated}");
            world.proxy.connected(former, false);
            world.carry_out();
            assert!(world.did(Output::Close(former)), "{before:?} {h2c} {isolated}");
            assert_eq!(world.sent(former), "");
            world.checked();
            let fresh = world.dial().0;
            assert!(world.dials.is_empty(), "{before:?} {h2c} {isolated}");
            let header = if after.is_some() { "PROXY TCP4 192.0.2.1 198.51.100.2 1000 443\r\n" } else { "" };
            assert_eq!(world.header(fresh), header, "{h2c} {isolated}");
            world.proxy.connected(fresh, false);
            world.carry_out();
            world.checked();
            if !h2c {
                assert!(world.sent(fresh).starts_with("GET / "));
                assert!(world.give(fresh, OK));
                assert!(world.sent(client).starts_with("HTTP/1.1 200"));
            }
            world.fail(client, Failure::Closed);
            world.checked();
            assert!(world.proxy.upstreams.owned.is_empty());
        }
    }
}

#[test]
fn a_request_on_its_last_try_survives_a_change_of_the_option() {
    let mut plan = Plan::over((0..8).map(|n| SocketAddr::from(([127, 0, 0, 1], 9000 + n))));
    let mut world = World::new(8, |own| own.clone_from(&plan));
    let client = world.asking(GET);
    for _ in 1..crate::limits::TRIES {
        let (key, _) = world.dial();
        world.fail(key, Failure::Connect(libc::ECONNREFUSED));
    }
    let last = world.dial();
    plan.send_proxy = Some(Version::V1);
    world.proxy.follow(&plan);
    world.carry_out();
    assert!(world.did(Output::Close(last.0)));
    let fresh = world.dial();
    assert_eq!(fresh.1, last.1);
    world.proxy.connected(fresh.0, false);
    world.carry_out();
    assert!(world.give(fresh.0, OK));
    assert!(world.sent(client).starts_with("HTTP/1.1 200"));
    world.checked();
}

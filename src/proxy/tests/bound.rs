//! Connections to backends that belong to one client, because they were authenticated.

use super::*;
use crate::limits::POOL_IDLE_US;

const NTLM: &str = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM TlRMTVNTUAAB\r\n\r\n";

fn challenge(fields: &str) -> String {
    format!("HTTP/1.1 401 No\r\n{fields}\r\nContent-Length: 0\r\n\r\n")
}

/// Returns a bound pair of connections: the client's and the backend's.
fn bound(world: &mut World) -> (Key, Key) {
    let (client, backend) = world.exchange(NTLM, OK);
    world.sent(backend);
    (client, backend)
}

#[test]
fn an_authenticated_connection_serves_its_client_alone() {
    for (request, response, is_bound) in [
        (NTLM, OK.to_string(), true),
        ("GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: negotiate YII\r\n\r\n", OK.into(), true),
        (GET, challenge("WWW-Authenticate: Negotiate"), true),
        (GET, challenge("WWW-Authenticate: Basic realm=\"x\", NTLM"), true),
        (GET, challenge("Proxy-Authenticate: Nego2"), true),
        (GET, challenge("WWW-Authenticate: Basic realm=\"NTLM\"\r\nWWW-Authenticate: Kerberos"), true),
        (GET, challenge("WWW-Authenticate: Basic realm=\"NTLM\""), false),
        ("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer NTLM\r\n\r\n", OK.into(), false),
        ("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLMv3 x\r\n\r\n", OK.into(), false),
    ] {
        let mut world = World::new(1, |_| {});
        let (client, backend) = world.exchange(request, &response);
        world.sent(backend);
        let other = world.asking(GET);
        assert_eq!(world.sent(backend).is_empty(), is_bound, "{request:?} {response:?}");
        if !is_bound {
            continue;
        }
        let another = world.connect();
        assert!(world.give(another, OK));
        assert!(world.sent(other).ends_with("ok"));
        // All requests of this client use the same connection, which is closed with the client's.
        for request in [GET, POST] {
            assert!(world.give(client, request));
            assert!(world.sent(backend).contains(&request[..4]), "{request:?}");
            assert!(world.give(backend, OK));
            assert!(world.sent(client).ends_with("ok"));
        }
        assert!(world.dials.is_empty());
        world.end(client);
        assert!(world.did(Output::Close(backend)) && !world.did(Output::Close(another)));
        assert!(world.proxy.upstreams.bonds.is_empty());
    }
}

#[test]
fn a_handshake_stays_with_one_backend() {
    let mut world = World::new(4, |_| {});
    for _ in 0..8 {
        let (client, backend) = bound(&mut world);
        for _ in 0..3 {
            assert!(world.give(client, NTLM));
            assert!(world.sent(backend).contains("NTLM") && world.dials.is_empty());
            assert!(world.give(backend, &challenge("WWW-Authenticate: NTLM TlRMTVNTUAAC")));
        }
    }
}

#[test]
fn a_bound_connection_outlives_the_pool_and_may_end_before_its_client() {
    let mut world = World::new(1, |_| {});
    let (client, backend) = bound(&mut world);
    world.pass(POOL_IDLE_US * 2);
    assert!(world.give(client, GET));
    assert!(world.sent(backend).contains("GET") && world.give(backend, OK));
    world.end(backend);
    assert!(world.did(Output::Close(backend)) && !world.did(Output::Close(client)));
    // The client authenticates on another connection, which is bound then.
    assert!(world.give(client, NTLM));
    let again = world.connect();
    assert!(world.give(again, OK));
    assert_eq!(world.sent(client).matches(" 200 OK").count(), 3);
    assert_eq!(world.proxy.upstreams.bonds.len(), 2);
    // A connection that is known to end carries nothing more.
    world.proxy.closing(again);
    assert!(world.give(client, GET));
    assert!(world.did(Output::Close(again)));
    world.connect();
}

#[test]
fn a_bound_client_waits_for_its_backend_and_holds_nobody_up() {
    let mut world = World::new(2, |plan| plan.members.iter_mut().for_each(|member| member.max = 1));
    let (client, backend) = bound(&mut world);
    // Another client takes the only place of its backend.
    let slot = match world.proxy.connections.get(backend).and_then(Connection::backend) {
        Some(backend) => usize::from(backend.slot),
        _ => unreachable!(),
    };
    let mut busy = Vec::new();
    for _ in 0..2 {
        world.asking(GET);
        let (key, at) = world.dial();
        world.proxy.connected(key, false);
        world.carry_out();
        busy.push((at, key));
    }
    assert!(world.give(client, GET));
    let other = world.asking(GET);
    assert_eq!((world.proxy.ledger.waiting.len(), world.sent(backend).as_str()), (2, ""));
    let of = |at: usize| busy.iter().find(|one| one.0 == at).map(|one| one.1).expect("both are busy");
    // The other backend has room for the request behind it.
    assert!(world.give(of(1 - slot), OK));
    assert!(world.give(of(1 - slot), OK));
    assert!(world.sent(other).ends_with("ok") && world.sent(backend).is_empty());
    assert!(world.give(of(slot), OK));
    assert!(world.sent(backend).contains("GET") && world.give(backend, OK));
    assert!(world.sent(client).ends_with("ok"));
    assert!((0..2).all(|slot| world.proxy.shared.cells.in_flight(slot) == 0));
}

#[test]
fn a_bound_connection_ends_with_its_backend_s_place_in_the_plan() {
    let mut world = World::new(1, |_| {});
    let (client, backend) = bound(&mut world);
    let mut plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 9000))]);
    plan.members[0].generation = 7;
    world.proxy.follow(&plan);
    world.carry_out();
    assert!(world.did(Output::Close(backend)) && !world.did(Output::Close(client)));
    assert!(world.give(client, GET));
    world.connect();
}

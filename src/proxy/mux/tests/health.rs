//! Probes that call grpc.health.v1.

use super::*;
use crate::config::HealthCheck;

/// The log since the last call.
fn log(world: &mut World) -> String {
    let text = String::from_utf8_lossy(world.proxy.log().text()).into_owned();
    world.proxy.log().clear();
    text
}

/// A backend that is probed, with its connection and the stream of the probe.
fn probed(tls: bool, http2: bool) -> (World, Key) {
    let mut world = World::new(1, tls);
    (world.plan.health.check, world.plan.health.service) = (HealthCheck::Grpc, "a.B".into());
    world.plan.loglevel = Level::Debug;
    (world.plan.health.interval_us, world.plan.health.timeout_us) = (1_000_000, 500_000);
    world.proxy.follow(&world.plan.clone());
    while world.dials.is_empty() {
        world.pass(100_000);
    }
    let key = world.connected(http2);
    (world, key)
}

#[test]
fn a_probe_calls_the_health_service_and_passes_with_serving() {
    let mut ok = Vec::new();
    crate::hpack::encode(&mut ok, b"grpc-status", b"0");
    let mut unimplemented = vec![0x88];
    crate::hpack::encode(&mut unimplemented, b"grpc-status", b"12");
    for (content, passes, text) in [
        (Some(&[0, 0, 0, 0, 2, 8, 1][..]), true, ""),
        (Some(&[0, 0, 0, 0, 2, 8, 2]), false, "grpc.health.v1 of a.B -> NOT_SERVING; --health-check grpc"),
        (Some(&[7; 2000]), false, "a malformed message"),
        (None, false, "UNIMPLEMENTED: the backend has no grpc.health.v1"),
    ] {
        let (mut world, key) = probed(false, true);
        let frames = world.frames(key);
        let (head, block) = frames.iter().find(|(header, _)| header.kind == Kind::Headers).unwrap();
        assert_eq!(head.flags, END_HEADERS);
        assert!(block.windows(28).any(|part| part == b"/grpc.health.v1.Health/Check"), "{block:?}");
        let (data, payload) = frames.iter().find(|(header, _)| header.kind == Kind::Data).unwrap();
        assert_eq!((data.flags, payload.as_slice()), (END_STREAM, &b"\0\0\0\0\x05\x0a\x03a.B"[..]));
        match content {
            None => world.frame(key, Kind::Headers, END_HEADERS | END_STREAM, 1, &unimplemented),
            Some(content) => {
                world.frame(key, Kind::Headers, END_HEADERS, 1, &[0x88]);
                // The message may arrive in pieces.
                let (first, second) = content.split_at(3);
                world.frame(key, Kind::Data, 0, 1, first);
                world.frame(key, Kind::Data, 0, 1, second);
                world.frame(key, Kind::Headers, END_HEADERS | END_STREAM, 1, &ok);
            }
        }
        let log = log(&mut world);
        assert!(log.contains(text), "{log}");
        assert_eq!(log.contains("probe of 127.0.0.1:9000: passed"), passes, "{log}");
        assert_eq!(world.proxy.connections(), 0, "nothing of the probe is left");
    }
}

#[test]
fn a_response_without_a_status_and_a_backend_without_http_2_fail() {
    for (end, text) in [("data", "no grpc-status"), ("404", "HTTP status 404"), ("late", "no response within")] {
        let (mut world, key) = probed(false, true);
        match end {
            "data" => {
                world.frame(key, Kind::Headers, END_HEADERS, 1, &[0x88]);
                world.frame(key, Kind::Data, END_STREAM, 1, &[0, 0, 0, 0, 2, 8, 1]);
            }
            "404" => world.frame(key, Kind::Headers, END_HEADERS, 1, &[0x8d]),
            _ => world.pass(700_000),
        }
        let log = log(&mut world);
        assert!(log.contains(text), "{log}");
    }
    let (mut world, key) = probed(true, false);
    let log = log(&mut world);
    assert!(log.contains("the backend speaks HTTP/1.1, and gRPC needs HTTP/2"), "{log}");
    assert!(world.closed.contains(&key));
}

#[test]
fn a_connection_speaks_the_version_of_the_backend_that_it_was_dialled_for() {
    let mut world = World::new(1, true);
    world.request();
    let member = &mut world.plan.members[0];
    (member.generation, member.h2c, member.server_name) = (member.generation + 1, true, String::new());
    world.proxy.follow(&world.plan);
    let (key, _) = world.dials.remove(0);
    world.proxy.connected(key, false);
    world.carry_out();
    let sent = world.sent.remove(&key).unwrap_or_default();
    assert!(!sent.starts_with(PREFACE), "the former backend has chosen HTTP/1.1");
}

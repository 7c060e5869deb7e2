//! Probes: the responses that pass, the ends of a connection that fail, and the backends that they concern.

use super::*;
use crate::config::HostHeader;
use crate::config::{HealthCheck, Statuses};

/// Returns a proxy without requests whose backend is probed once a second.
fn probing(set: impl FnOnce(&mut Plan)) -> World {
    World::new(1, |plan| {
        (plan.health.interval_us, plan.health.timeout_us) = (1_000_000, 500_000);
        set(plan);
    })
}

/// Returns the connection of the next probe.
fn probe(world: &mut World) -> Key {
    while world.dials.is_empty() {
        world.pass(100_000);
    }
    world.connect()
}

/// Returns the numbers of passed and failed probes.
fn counts(world: &mut World) -> (u64, u64) {
    let mut count =
        |result| world.metric(&format!("zzz_lb_probes_total{{backend=\"127.0.0.1:9000\",result=\"{result}\""));
    (count("passed"), count("failed"))
}

fn response(status: u16) -> String {
    format!("HTTP/1.1 {status} Some\r\nContent-Length: 2\r\n\r\nok")
}

#[test]
fn the_status_decides_whether_a_probe_passes() {
    for (status, by_default, with_path, chosen) in [
        (200, true, true, true),
        (399, true, true, false),
        (400, true, false, false),
        (401, true, false, true),
        (499, true, false, false),
        (500, false, false, false),
    ] {
        for (statuses, passes) in [
            (Statuses::range(200, 499), by_default),
            (Statuses::range(200, 399), with_path),
            (Statuses::of(vec![(200, 204), (401, 401)]), chosen),
        ] {
            let mut world = probing(|plan| plan.health.status = statuses.clone());
            let key = probe(&mut world);
            assert_eq!(counts(&mut world), (0, 0));
            world.give(key, &response(status));
            assert_eq!(counts(&mut world), (u64::from(passes), u64::from(!passes)), "{status} {statuses}");
            let log = world.log();
            let told = format!("probe of 127.0.0.1:9000: GET / -> {status}; --health-status {statuses}\n");
            assert_eq!(log.contains(&told), !passes, "{log}");
            assert!(world.did(Output::Close(key)));
        }
    }
}

/// An interim response is not the result, with any number.
#[test]
fn a_199_neither_passes_nor_fails_and_what_follows_decides() {
    for (follows, passed, failed) in [(response(200), 1, 0), (response(500), 0, 1)] {
        let mut world = probing(|_| {});
        let key = probe(&mut world);
        assert!(world.give(key, "HTTP/1.1 199 Some\r\n\r\n"));
        assert_eq!(counts(&mut world), (0, 0));
        world.give(key, &follows);
        assert_eq!(counts(&mut world), (passed, failed));
    }
}

/// Port forwarders accept, reach nobody, and close.
#[test]
fn a_probe_fails_if_its_connection_ends_before_the_response_is_complete() {
    let begun = ["", "HT", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"];
    for h2c in [false, true] {
        for begun in begun {
            for failure in [None, Some(Failure::Broken(104))] {
                let mut world = probing(|plan| plan.members[0].h2c = h2c);
                let key = probe(&mut world);
                if !h2c {
                    assert!(world.give(key, begun));
                }
                match failure {
                    None => world.end(key),
                    Some(failure) => world.fail(key, failure),
                }
                assert_eq!(counts(&mut world), (0, 1), "{h2c} {begun:?} {failure:?}");
                assert_eq!(world.proxy.connections(), world.proxy.clients(), "nothing of the probe is left");
            }
        }
    }
}

#[test]
fn a_probe_is_logged_with_its_request_its_result_and_the_flag() {
    for (fate, told) in [
        ("", "GET /up -> closed before the response was complete; --health-check http"),
        ("SSH-2.0-OpenSSH\r\n", "GET /up -> malformed response: "),
        ("wait", "GET /up -> no response within --health-timeout"),
        ("unconnected", "not connected within --health-timeout"),
        ("refused", "cannot connect: "),
    ] {
        let mut world = probing(|plan| plan.health.path = "/up".into());
        match fate {
            "unconnected" => world.pass(2_000_000),
            "refused" => {
                while world.dials.is_empty() {
                    world.pass(100_000);
                }
                let (key, _) = world.dial();
                world.fail(key, Failure::Connect(111));
            }
            _ => {
                let key = probe(&mut world);
                match fate {
                    "wait" => world.pass(700_000),
                    "" => world.end(key),
                    bytes => _ = world.give(key, bytes),
                }
            }
        }
        let log = world.log();
        assert!(log.contains(&format!("probe of 127.0.0.1:9000: {told}")), "{log}");
    }
}

#[test]
fn the_name_of_a_backend_that_a_probe_cannot_reach_is_looked_up_again() {
    for (failure, suspected) in [(Some(Failure::Connect(111)), true), (None, true), (Some(Failure::Closed), false)] {
        let mut world = probing(|_| {});
        match failure {
            Some(Failure::Closed) => {
                let key = probe(&mut world);
                world.end(key);
            }
            Some(failure) => {
                while world.dials.is_empty() {
                    world.pass(100_000);
                }
                let (key, _) = world.dial();
                world.fail(key, failure);
            }
            None => {
                while world.dials.is_empty() {
                    world.pass(100_000);
                }
                // It does not connect in time.
                world.pass(600_000);
            }
        }
        assert_eq!(counts(&mut world), (0, 1), "{failure:?}");
        let cells = world.proxy.shared.cells;
        assert_eq!((cells.take_suspects(), cells.take_suspect(0)), (suspected, suspected), "{failure:?}");
    }
}

#[test]
fn a_probe_that_only_connects_passes_when_it_is_connected() {
    for h2c in [false, true] {
        let mut world = probing(|plan| (plan.health.check, plan.members[0].h2c) = (HealthCheck::Tcp, h2c));
        let key = probe(&mut world);
        assert_eq!((world.sent(key).as_str(), world.did(Output::Close(key))), ("", true));
        assert_eq!(counts(&mut world), (1, 0));
    }
}

#[test]
fn a_probe_has_the_host_that_is_asked_for() {
    for (host, header, sent) in [
        (None, HostHeader::Preserve, "127.0.0.1:9000"),
        (None, HostHeader::Name("public.test".into()), "public.test"),
        (Some("probe.test"), HostHeader::Name("public.test".into()), "probe.test"),
    ] {
        let mut world = probing(|plan| {
            plan.health.host = host.map(str::to_owned);
            plan.host_header = header.clone();
        });
        let key = probe(&mut world);
        let request = world.sent(key);
        assert!(request.starts_with("GET / HTTP/1.1\r\n") && request.contains(&format!("\r\nHost: {sent}\r\n")));
    }
}

/// The slot may belong to another backend when the response to a probe of the former one arrives.
#[test]
fn a_probe_of_a_slot_s_predecessor_says_nothing_about_its_successor() {
    for (h2c, passes) in [(false, true), (false, false), (true, false)] {
        let mut plan = Plan::over([SocketAddr::from(([127, 0, 0, 1], 9000))]);
        (plan.loglevel, plan.members[0].h2c) = (Level::Debug, h2c);
        (plan.health.interval_us, plan.health.timeout_us) = (1_000_000, 500_000);
        let mut world = probing(|own| *own = plan.clone());
        let key = probe(&mut world);
        plan.members[0].generation += 1;
        world.proxy.follow(&plan);
        world.carry_out();
        match passes {
            true => assert!(world.give(key, OK)),
            false => world.end(key),
        }
        assert!(world.did(Output::Close(key)));
        assert_eq!(counts(&mut world), (0, 0), "{h2c} {passes}");
        assert!(!world.log().contains("probe of"), "{h2c} {passes}");
    }
}

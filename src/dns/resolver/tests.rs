//! The resolver on virtual time, with scripted servers.

mod search;
mod server;

use super::*;
use crate::limits::{DNS_DENIAL_MAX_US, DNS_PORT, DNS_RETRY_MAX_US, DNS_UNRESOLVED_US, NAME_ADDRESSES};
use server::{A, AAAA, Script, World, addresses, ips};

const ONE: &str = "nameserver 10.0.0.1\n";
const TWO: &str = "nameserver 10.0.0.1\nnameserver 10.0.0.2\n";

#[test]
fn both_families_are_asked_and_listed_in_order() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.2", "10.1.0.1", "10.1.0.2", "0.0.0.0", "224.0.0.1"], 60));
    world.scripts.insert(("", "a.test", AAAA), addresses(&["fd00::2", "fd00::1", "::"], 60));
    assert_eq!(world.resolver.state("a.test"), None);
    world.want(&["a.test"]);
    assert_eq!(world.take_asked(), ["10.0.0.1 a.test A", "10.0.0.1 a.test AAAA"]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2"]));
    assert_eq!(world.resolver.state("a.test"), Some(State::Good));
    assert_eq!(world.take_changes(), ["a.test [10.1.0.1, 10.1.0.2, fd00::1, fd00::2]"]);
    assert!(world.sockets.is_empty());
    assert_ne!(world.ids[0], world.ids[1]);
}

#[test]
fn an_answer_is_asked_for_again_when_its_ttl_runs_out() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 20));
    world.want(&["a.test"]);
    world.take_asked();
    world.pass(20 * SECOND_US - 1);
    assert_eq!(world.take_asked(), [""; 0]);
    world.serve("a.test", addresses(&["10.1.0.1", "10.1.0.2"], 20));
    world.pass(1);
    assert_eq!(world.take_asked().len(), 2);
    assert_eq!(world.take_changes(), ["a.test [10.1.0.1]", "a.test [10.1.0.1, 10.1.0.2]"]);
    // Another order is no change.
    world.serve("a.test", addresses(&["10.1.0.2", "10.1.0.1"], 20));
    world.pass(20 * SECOND_US);
    assert_eq!(world.take_changes(), [""; 0]);
}

#[test]
fn ttls_are_held_between_floor_and_ceiling() {
    for (ttl_s, held_us) in [(0, DNS_TTL_MIN_US), (1, DNS_TTL_MIN_US), (86_400, DNS_TTL_MAX_US), (7, 7 * SECOND_US)] {
        let mut world = World::new(ONE, "");
        world.serve("a.test", addresses(&["10.1.0.1"], ttl_s));
        world.want(&["a.test"]);
        assert_eq!(world.resolver.next_deadline_us(), held_us);
        world.take_asked();
        world.pass(held_us);
        assert_eq!(world.take_asked().len(), 2, "{ttl_s}");
    }
}

#[test]
fn a_negative_answer_holds_for_a_second_or_up_to_5_for_a_name_with_addresses() {
    let denied = |world: &mut World, ttl_s| {
        world.serve("a.test", Script::Nothing(false, Some(ttl_s)));
        world.scripts.insert(("", "a.test", AAAA), Script::Nothing(false, Some(ttl_s)));
    };
    for (ttl_s, held_us) in [(0, DNS_TTL_MIN_US), (3, 3 * SECOND_US), (86_400, DNS_DENIAL_MAX_US)] {
        let mut world = World::new(ONE, "");
        denied(&mut world, ttl_s);
        world.want(&["a.test"]);
        assert_eq!(world.resolver.next_deadline_us(), DNS_UNRESOLVED_US, "{ttl_s}: requests fail until it has one");
        world.serve("a.test", addresses(&["10.1.0.1"], 10));
        world.pass(DNS_UNRESOLVED_US);
        assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
        denied(&mut world, ttl_s);
        world.pass(10 * SECOND_US);
        assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
        assert_eq!(world.resolver.next_deadline_us(), world.now_us + held_us, "{ttl_s}");
    }
}

#[test]
fn a_failing_address_triggers_a_rate_limited_lookup_before_the_ttl_expires() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 600));
    world.want(&["a.test", "b.test"]);
    world.pass(5 * SECOND_US);
    world.take_asked();
    world.serve("a.test", addresses(&["10.1.0.2"], 600));
    world.resolver.suspect("a.test", world.now_us);
    world.settle();
    assert_eq!(world.take_asked(), ["10.0.0.1 a.test A", "10.0.0.1 a.test AAAA"]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.2"]));
    for _ in 0..100 {
        world.resolver.suspect("a.test", world.now_us);
        world.resolver.suspect("nobody.test", world.now_us);
        world.settle();
        world.pass(DNS_SUSPECT_US / 50);
    }
    let asked = world.take_asked().iter().filter(|line| line.ends_with("a.test A")).count();
    assert_eq!(asked, 2, "two seconds, two lookups");
    // The expired addresses of one family do not stay because the other is pending.
    world.scripts.insert(("", "a.test", AAAA), Script::Silence);
    world.pass(70 * SECOND_US);
    world.take_asked();
    world.pass(2 * SECOND_US);
    world.serve("a.test", addresses(&["10.1.0.3"], 600));
    world.resolver.suspect("a.test", world.now_us);
    world.settle();
    world.pass(DNS_SUSPECT_US);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.3"]));
}

#[test]
fn names_that_time_out_delay_no_name_that_answers() {
    let mut world = World::new("nameserver 10.0.0.1\noptions timeout:5", "");
    let silent: Vec<&'static str> = (0..500).map(|n| &*format!("silent{n}.test").leak()).collect();
    silent.iter().for_each(|name| {
        world.serve(name, Script::Silence);
        world.scripts.insert(("", name, AAAA), Script::Silence);
    });
    world.serve("good.test", addresses(&["10.1.0.1"], 1));
    world.want(&[&silent[..], &["good.test"]].concat());
    world.pass(500_u64.div_ceil(DNS_LOOKUPS as u64) * DNS_SLOW_US);
    assert_eq!(world.resolver.addresses("good.test"), ips(&["10.1.0.1"]), "not even the first time");
    // Repeated lookups do not delay it either.
    let mut gaps = Vec::new();
    for _ in 0..60 {
        let asked_us = world.resolver.entry("good.test").unwrap().asked_us;
        while world.resolver.entry("good.test").unwrap().asked_us == asked_us {
            world.pass(SECOND_US / 10);
        }
        gaps.push(world.resolver.entry("good.test").unwrap().asked_us - asked_us);
    }
    assert!(gaps.iter().all(|&gap_us| gap_us <= SECOND_US + DNS_SLOW_US), "{gaps:?}");
}

#[test]
fn servers_are_asked_only_over_tcp_on_request() {
    let mut world = World::new("nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions use-vc", "");
    world.serve("a.test", addresses(&["10.1.0.1"], 60));
    world.scripts.insert(("10.0.0.1", "a.test", A), Script::Code(2));
    world.want(&["a.test"]);
    let asked = world.take_asked();
    assert_eq!(asked, ["tcp 10.0.0.1 a.test A", "tcp 10.0.0.1 a.test AAAA", "tcp 10.0.0.2 a.test A"]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
}

#[test]
fn a_domain_that_cannot_be_asked_does_not_keep_a_name_with_a_dot_from_being_found() {
    let conf = "nameserver 10.0.0.1\nsearch broken.test other.test\noptions ndots:5 attempts:1";
    for script in [Script::Code(2), Script::Code(5), Script::Silence] {
        let mut world = World::new(conf, "");
        world.serve("api.example.broken.test", script.clone());
        world.serve("api.example.other.test", addresses(&["10.1.0.9"], 60));
        world.serve("api.example", addresses(&["10.1.0.1"], 60));
        world.want(&["api.example"]);
        world.pass(6 * SECOND_US);
        assert_eq!(world.resolver.addresses("api.example"), ips(&["10.1.0.1"]));
        let changes = world.take_changes();
        assert!(changes.contains(&"api.example [10.1.0.1]".into()) && changes.len() == 2, "{changes:?}");
        let skipped = "api.example skipped api.example.broken.test: ";
        assert!(changes.iter().any(|change| change.starts_with(skipped)), "{changes:?}");
        // The problem is logged once while it lasts.
        world.pass(120 * SECOND_US);
        assert_eq!(world.take_changes(), [""; 0]);
        // Once the domain can be queried, the name with it is used.
        world.serve("api.example.broken.test", addresses(&["10.1.0.2"], 60));
        world.scripts.insert(("", "api.example.broken.test", AAAA), Script::Nothing(true, Some(60)));
        world.pass(70 * SECOND_US);
        assert_eq!(world.take_changes(), ["api.example [10.1.0.2]"]);
    }
    // A failing server does not turn a name without a dot into the name of another host.
    let mut world = World::new(conf, "");
    world.serve("api.broken.test", Script::Code(2));
    world.serve("api", addresses(&["10.1.0.1"], 60));
    world.want(&["api"]);
    assert_eq!(world.take_changes(), ["api failed: server failure"]);
    assert_eq!(world.resolver.failed_as("api").unwrap().to_string(), "api.broken.test");
    // A negative answer for the name itself is not final while the domain may have it.
    let mut world = World::new(conf, "");
    world.serve("api.example.broken.test", Script::Code(2));
    world.want(&["api.example"]);
    assert_eq!(world.take_changes(), ["api.example failed: server failure"]);
}

#[test]
fn aliases_lead_to_addresses() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", Script::Alias("10.1.0.1", 30));
    world.want(&["a.test"]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    assert_eq!(world.resolver.next_deadline_us(), 30 * SECOND_US);
}

#[test]
fn servers_are_asked_in_turn_and_again() {
    let mut world = World::new(TWO, "");
    world.serve("a.test", Script::Silence);
    world.want(&["a.test"]);
    world.take_asked();
    world.pass(19 * SECOND_US);
    assert_eq!(world.take_asked(), ["10.0.0.2 a.test A", "10.0.0.1 a.test A", "10.0.0.2 a.test A"]);
    assert_eq!(world.take_changes(), [""; 0]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(None)));
    world.pass(SECOND_US);
    assert_eq!(world.take_changes(), ["a.test failed: timed out"]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(Some(Reason::TimedOut))));
    assert_eq!(world.ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 5, "each query has an id of its own");
    assert!(world.sockets.is_empty());
}

#[test]
fn another_server_is_asked_if_one_fails() {
    for script in [Script::Code(2), Script::Code(5), Script::Garbage, Script::Error, Script::Silence] {
        let mut world = World::new(TWO, "");
        world.serve("a.test", addresses(&["10.1.0.1"], 60));
        world.scripts.insert(("10.0.0.1", "a.test", A), script);
        world.want(&["a.test"]);
        world.pass(5 * SECOND_US);
        assert_eq!(world.take_asked(), ["10.0.0.1 a.test A", "10.0.0.1 a.test AAAA", "10.0.0.2 a.test A"]);
        assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    }
}

#[test]
fn the_reason_describes_the_last_server() {
    let scripts = [
        (Script::Code(2), Reason::Server(2)),
        (Script::Garbage, Reason::Malformed),
        (Script::Error, Reason::Unreachable),
    ];
    for (script, reason) in scripts {
        let mut world = World::new(TWO, "");
        world.serve("a.test", script);
        world.want(&["a.test"]);
        assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(Some(reason))));
    }
}

#[test]
fn rotation_begins_each_lookup_with_another_server() {
    let mut world = World::new("nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions rotate", "");
    world.serve("a", addresses(&["10.1.0.1"], 60));
    world.serve("b", addresses(&["10.1.0.2"], 60));
    world.want(&["a", "b"]);
    assert_eq!(world.take_asked(), ["10.0.0.1 a A", "10.0.0.1 a AAAA", "10.0.0.2 b A", "10.0.0.2 b AAAA"]);
}

#[test]
fn a_truncated_answer_is_asked_for_over_tcp() {
    let mut world = World::new(ONE, "");
    let many: Vec<IpAddr> = (1..=300_u16).map(|n| IpAddr::from([10, 1, (n >> 8) as u8, n as u8])).collect();
    world.serve("a.test", Script::Long(many.clone()));
    world.want(&["a.test"]);
    assert_eq!(world.take_asked(), ["10.0.0.1 a.test A", "10.0.0.1 a.test AAAA", "tcp 10.0.0.1 a.test A"]);
    assert_eq!(world.resolver.addresses("a.test"), &many[..NAME_ADDRESSES]);
    // Surplus addresses are logged once.
    assert_eq!(world.take_changes()[0], "a.test has 300");
    world.resolver.refresh(world.now_us);
    world.settle();
    assert_eq!(world.take_changes(), [""; 0]);
    assert!(world.sockets.is_empty());
}

/// A resolver with one TCP connection requested.
fn over_tcp() -> (World, Key) {
    let mut world = World::new(TWO, "");
    world.serve("a.test", Script::Long(Vec::new()));
    world.resolver.set_names(&["a.test"], 0);
    let mut connecting = None;
    while let Some(output) = world.resolver.next_output() {
        match output {
            Output::OpenUdp(key, server) => _ = world.sockets.insert(key, (server, false)),
            Output::Close(key) => _ = world.sockets.remove(&key),
            Output::Send(key, bytes) => world.serve_query(key, world.sockets[&key].0, false, &bytes),
            Output::ConnectTcp(key, server) => {
                world.sockets.insert(key, (server, true));
                connecting = Some(key);
            }
            Output::Changed(..) => {}
        }
    }
    (world, connecting.unwrap())
}

#[test]
fn a_broken_connection_is_followed_by_the_next_server() {
    for how in ["refused", "ended", "late", "malformed", "stray"] {
        let (mut world, key) = over_tcp();
        world.scripts.insert(("10.0.0.2", "a.test", A), addresses(&["10.1.0.1"], 60));
        if how != "refused" && how != "late" {
            world.resolver.connected(key, 0);
            assert!(matches!(world.resolver.next_output(), Some(Output::Send(..))));
            world.resolver.received_tcp(key, b"\0", 0);
        }
        match how {
            "refused" => world.resolver.failed(key, 0),
            "ended" => world.resolver.ended(key, 0),
            "late" => world.pass(5 * SECOND_US),
            "malformed" => world.resolver.received_tcp(key, b"\0", 0),
            _ => world.resolver.received_tcp(key, b"\x0cxxxxxxxxxxxxxxxx", 0),
        }
        world.settle();
        assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]), "{how}");
        assert!(world.sockets.is_empty());
    }
}

#[test]
fn answers_to_another_id_or_question_or_from_another_sender_are_not_taken() {
    for part in ["id", "question", "sender"] {
        let mut world = World::new("nameserver 10.0.0.1\noptions attempts:1", "");
        world.serve("a.test", Script::Forged(part));
        world.want(&["a.test"]);
        assert_eq!(world.resolver.addresses("a.test"), ips(&[]), "{part}");
        assert_eq!(world.sockets.len(), 1, "the answer is still waited for");
        let key = *world.sockets.keys().next().unwrap();
        let server = SocketAddr::from(([10, 0, 0, 1], DNS_PORT));
        for n in 1..DNS_STRAYS {
            assert_eq!(world.sockets.len(), 1, "{n}");
            world.resolver.received_udp(key, server, b"?", 0);
            world.settle();
        }
        assert!(world.sockets.is_empty());
        assert_eq!(world.resolver.state("a.test"), Some(State::Unresolved(Some(Reason::Strays))));
    }
}

#[test]
fn one_family_may_fail_or_have_nothing() {
    for script in [Script::Nothing(true, None), Script::Nothing(false, Some(60)), Script::Code(2), Script::Silence] {
        let mut world = World::new(ONE, "");
        world.serve("a.test", addresses(&["10.1.0.1"], 60));
        world.scripts.insert(("", "a.test", AAAA), script);
        world.want(&["a.test"]);
        world.pass(10 * SECOND_US);
        assert_eq!(world.resolver.state("a.test"), Some(State::Good));
        assert_eq!(world.take_changes(), ["a.test [10.1.0.1]"]);
    }
}

#[test]
fn a_family_that_no_server_can_speak_of_stays_as_it_was() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 100));
    world.scripts.insert(("", "a.test", AAAA), addresses(&["fd00::1"], 100));
    world.want(&["a.test"]);
    world.serve("a.test", addresses(&["10.1.0.2"], 100));
    world.scripts.insert(("", "a.test", AAAA), Script::Code(2));
    world.pass(100 * SECOND_US);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.2", "fd00::1"]));
    // It is queried again soon, and reported as removed if it is gone.
    world.scripts.insert(("", "a.test", AAAA), Script::Nothing(true, None));
    world.pass(DNS_RETRY_MAX_US);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.2"]));
}

#[test]
fn a_family_that_is_found_is_followed_while_the_other_is_waited_for() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 1));
    world.scripts.insert(("", "a.test", AAAA), Script::Silence);
    world.want(&["a.test"]);
    assert_eq!(world.take_changes(), ["a.test [10.1.0.1]"]);
    for n in 2..30_u8 {
        let new = format!("10.1.0.{n}").leak();
        world.serve("a.test", addresses(&[new], 1));
        world.pass(SECOND_US);
        assert_eq!(world.take_changes(), [format!("a.test [{new}]")]);
        assert!(world.sockets.len() <= 2, "{:?}", world.sockets);
    }
    // When the other family answers after all, both are used.
    world.scripts.insert(("", "a.test", AAAA), addresses(&["fd00::1"], 60));
    world.pass(11 * SECOND_US);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.29", "fd00::1"]));
    // Both stay as long as no server says otherwise.
    world.scripts.insert(("", "a.test", AAAA), Script::Silence);
    world.pass(100 * SECOND_US);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.29", "fd00::1"]));
    // Removing a name cancels its queries.
    world.want(&[]);
    assert!(world.sockets.is_empty() && world.resolver.next_deadline_us() == NEVER);
}

#[test]
fn the_last_good_addresses_are_kept_until_there_are_better_ones() {
    let mut world = World::new(ONE, "");
    world.serve("a.test", addresses(&["10.1.0.1"], 10));
    world.want(&["a.test"]);
    world.take_changes();
    world.serve("a.test", Script::Nothing(false, Some(3)));
    world.scripts.insert(("", "a.test", AAAA), Script::Nothing(false, Some(4)));
    world.pass(10 * SECOND_US);
    assert_eq!(world.take_changes(), ["a.test failed: no such name"]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Stale(Reason::NoName)));
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    world.take_asked();
    world.pass(3 * SECOND_US - 1);
    assert_eq!(world.take_asked(), [""; 0], "that there is nothing holds for its time");
    world.pass(1);
    assert_eq!(world.take_asked().len(), 2);
    assert_eq!(world.take_changes(), [""; 0], "that it fails still is no news");
    world.serve("a.test", addresses(&["10.1.0.1"], 10));
    world.pass(3 * SECOND_US);
    assert_eq!(world.take_changes(), ["a.test recovered"]);
    assert_eq!(world.resolver.state("a.test"), Some(State::Good));
}

#[test]
fn a_name_without_addresses_differs_from_a_missing_name() {
    let mut world = World::new("nameserver 10.0.0.1\nsearch x", "");
    world.serve("a.x", Script::Nothing(true, Some(60)));
    world.want(&["a", "b"]);
    assert_eq!(world.take_changes(), ["a failed: no addresses", "b failed: no such name"]);
}

#[test]
fn failures_are_tried_again_ever_less_often() {
    let mut world = World::new("nameserver 10.0.0.1\noptions attempts:1", "");
    world.serve("a.test", Script::Code(2));
    world.want(&["a.test"]);
    for _ in 0..10 {
        world.take_asked();
        world.pass(DNS_UNRESOLVED_US);
        assert_eq!(world.take_asked().len(), 2, "one without an address is looked up each second");
    }
    world.serve("a.test", addresses(&["10.1.0.1"], 5));
    world.pass(DNS_UNRESOLVED_US);
    world.serve("a.test", Script::Code(2));
    world.pass(5 * SECOND_US);
    for delay_s in [1, 2, 4, 5, 5, 5] {
        world.take_asked();
        world.pass(delay_s * SECOND_US - 1);
        assert_eq!(world.take_asked(), [""; 0], "{delay_s}");
        world.pass(1);
        assert_eq!(world.take_asked().len(), 2, "{delay_s}");
    }
    // Without a SOA record the lifetime of a negative answer is unknown.
    world.serve("a.test", addresses(&["10.1.0.1"], 5));
    world.pass(5 * SECOND_US);
    world.serve("a.test", Script::Nothing(false, None));
    world.pass(5 * SECOND_US);
    assert_eq!(world.resolver.next_deadline_us(), world.now_us + SECOND_US);
}

#[test]
fn the_hosts_table_comes_before_the_servers_and_is_followed() {
    let mut world = World::new(ONE, "10.2.0.1 a.test\nfd00::9 A.test\n");
    world.serve("a.test", addresses(&["10.1.0.1"], 60));
    world.want(&["a.test"]);
    assert_eq!(world.take_asked(), [""; 0]);
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.2.0.1", "fd00::9"]));
    assert_eq!(world.resolver.next_deadline_us(), NEVER);
    world.resolver.reload_hosts(Hosts::parse(b"10.2.0.2 a.test"), 0);
    world.settle();
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.2.0.2"]));
    world.resolver.reload_hosts(Hosts::default(), 0);
    world.settle();
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
    assert_eq!(world.take_asked().len(), 2);
    // A table entry that blocks the name, while its query is pending.
    world.serve("a.test", Script::Silence);
    world.resolver.refresh(0);
    world.settle();
    assert_eq!(world.sockets.len(), 1);
    world.resolver.reload_hosts(Hosts::parse(b"0.0.0.0 a.test"), 0);
    world.settle();
    assert!(world.sockets.is_empty());
    assert_eq!(world.resolver.state("a.test"), Some(State::Stale(Reason::NoAddresses)));
    assert_eq!(world.resolver.addresses("a.test"), ips(&["10.1.0.1"]));
}

#[test]
fn localhost_is_always_loopback() {
    let mut world = World::new(ONE, "");
    let names = ["localhost", "LocalHost.", "a.b.localhost", "localhost.test"];
    world.want(&names);
    for name in &names[..3] {
        assert_eq!(world.resolver.addresses(name), ips(&["127.0.0.1", "::1"]), "{name}");
    }
    assert_eq!(world.take_asked().len(), 2);
    world.resolver.reload_hosts(Hosts::parse(b"").without_ipv6_loopback(), 0);
    assert_eq!(world.resolver.addresses("localhost"), ips(&["127.0.0.1"]));
    world.resolver.reload_hosts(Hosts::parse(b"127.0.0.1 localhost\n::1 localhost"), 0);
    assert_eq!(world.resolver.addresses("localhost"), ips(&["127.0.0.1", "::1"]));
}

#[test]
fn names_invalid_in_dns_are_not_queried() {
    let mut world = World::new(ONE, "10.1.0.1 a..b");
    world.want(&["", ".", "a..c", "a..b", &"x".repeat(64)]);
    assert_eq!(world.take_asked(), [""; 0]);
    assert_eq!(world.resolver.state("."), Some(State::Unresolved(Some(Reason::NotAName))));
    assert_eq!(world.resolver.addresses("a..b"), ips(&["10.1.0.1"]), "though the table can hold it");
    assert_eq!(world.resolver.next_deadline_us(), NEVER);
}

#[test]
fn names_that_stay_keep_their_answers_and_gone_ones_are_forgotten() {
    let mut world = World::new(ONE, "");
    world.serve("a", addresses(&["10.1.0.1"], 60));
    world.serve("b", Script::Silence);
    world.want(&["a", "b", "a"]);
    assert_eq!(world.sockets.len(), 1);
    world.serve("c", addresses(&["10.1.0.3"], 60));
    world.take_asked();
    world.take_changes();
    world.want(&["c", "a"]);
    assert!(world.sockets.is_empty(), "what was under way for b is given up");
    assert_eq!(world.take_asked(), ["10.0.0.1 c A", "10.0.0.1 c AAAA"]);
    assert_eq!(world.take_changes(), ["c [10.1.0.3]"]);
    assert_eq!(world.resolver.addresses("a"), ips(&["10.1.0.1"]));
    assert_eq!(world.resolver.state("b"), None);
    world.want(&[]);
    assert_eq!(world.resolver.next_deadline_us(), NEVER);
}

#[test]
fn a_changed_resolv_conf_repeats_every_lookup() {
    let mut world = World::new(ONE, "");
    world.serve("a", addresses(&["10.1.0.1"], 60));
    world.scripts.insert(("10.0.0.2", "a", A), addresses(&["10.1.0.2"], 60));
    world.want(&["a"]);
    world.take_asked();
    world.resolver.reload_conf(ResolvConf::parse(ONE.as_bytes()), 0);
    world.settle();
    assert_eq!(world.take_asked(), [""; 0]);
    world.resolver.reload_conf(ResolvConf::parse(b"nameserver 10.0.0.2"), 0);
    world.settle();
    assert_eq!(world.resolver.addresses("a"), ips(&["10.1.0.2"]));
    world.resolver.reload_conf(ResolvConf { servers: Vec::new(), attempts: 0, ..ResolvConf::default() }, 0);
    world.settle();
    assert_eq!(world.asked.last().map(String::as_str), Some("127.0.0.1 a AAAA"));
}

#[test]
fn a_bounded_number_is_under_way_at_once() {
    let mut world = World::new("nameserver 10.0.0.1\nsearch x y z\noptions attempts:1 timeout:1", "");
    let names: Vec<String> = (0..NAMES + 10).map(|n| format!("n{n}")).collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    // Every third name is never answered, so that others have to queue.
    names.iter().step_by(3).for_each(|name| world.serve(format!("{name}.y").leak(), Script::Silence));
    world.want(&names);
    assert_eq!(world.sockets.len(), DNS_LOOKUPS);
    world.pass(5 * SECOND_US);
    let most = DNS_LOOKUPS + DNS_SLOW_LOOKUPS;
    assert!(world.most_sockets <= 2 * most, "{}", world.most_sockets);
    assert_eq!(world.changes.len(), NAMES, "every one came to its turn, and none past the bound");
    let (asking, slow) = (world.resolver.asking, world.resolver.slow);
    assert!(asking <= DNS_LOOKUPS && slow <= DNS_SLOW_LOOKUPS && world.resolver.queries.len() <= 2 * (asking + slow));
    world.want(&[]);
    let resolver = &world.resolver;
    assert_eq!((world.sockets.len(), resolver.asking, resolver.slow, resolver.waiting.len()), (0, 0, 0, 0));
}

#[test]
fn inputs_for_a_closed_socket_are_ignored() {
    let mut world = World::new(ONE, "");
    world.serve("a", Script::Silence);
    world.want(&["a"]);
    let key = *world.sockets.keys().next().unwrap();
    // The socket of a datagram has no connection.
    world.resolver.connected(key, 0);
    world.resolver.received_tcp(key, b"x", 0);
    world.want(&[]);
    world.resolver.connected(key, 0);
    world.resolver.received_tcp(key, b"x", 0);
    world.resolver.received_udp(key, SocketAddr::from(([10, 0, 0, 1], DNS_PORT)), b"x", 0);
    world.resolver.ended(key, 0);
    world.resolver.failed(key, 0);
    world.resolver.expire(u64::MAX);
    assert_eq!(world.resolver.next_output(), None);
}

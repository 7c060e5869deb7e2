//! Requests that belong together go to one backend: by a hash, or by a cookie.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Backend, Balancer, Gate, Mode, PROTOCOLS, Way, modes, wait_until};

/// Returns the content of the response to a GET with these field lines.
fn ask(balancer: &Balancer, path: &str, fields: &str) -> String {
    let mut wire = balancer.connect();
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let response = wire.response("GET");
    assert_eq!(response.status(), 200, "{response:?}\n{}", balancer.log());
    response.text()
}

#[test]
fn requests_with_one_hash_go_to_one_backend_from_every_worker() {
    let hashes: [(&str, fn(usize) -> (String, String)); 3] = [
        ("hash:path", |n| (format!("/{n}?{}", n * 7), String::new())),
        ("hash:header:X-User", |n| ("/".into(), format!("x-user: {n}\r\n"))),
        ("hash:cookie:id", |n| ("/".into(), format!("Cookie: a=b; id={n}\r\n"))),
    ];
    for mode in modes() {
        for (strategy, request) in hashes {
            let backends = ["a", "b", "c", "d"].map(Backend::named);
            let balancer = Balancer::before(mode, &backends.each_ref(), &["-s", strategy]);
            let asked = |n: usize| {
                let (path, fields) = request(n);
                ask(&balancer, &path, &fields)
            };
            let owners: Vec<String> = (0..24).map(asked).collect();
            for _ in 0..3 {
                assert_eq!((0..24).map(asked).collect::<Vec<_>>(), owners, "{mode:?} {strategy}");
            }
            assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), 4, "{strategy}: all serve");
            // Another program with the same backends finds the same ones.
            let other = Balancer::before(Mode::Sp, &backends.each_ref(), &["-s", strategy]);
            assert!((0..24).all(|n| {
                let (path, fields) = request(n);
                ask(&other, &path, &fields) == owners[n]
            }));
        }
    }
}

#[test]
fn a_client_has_one_backend_and_a_trusted_peer_names_the_client() {
    let backends = ["a", "b", "c", "d"].map(Backend::named);
    for mode in modes() {
        let balancer = Balancer::before(mode, &backends.each_ref(), &["-s", "hash:client"]);
        let served: BTreeSet<String> =
            (0..10).map(|n| ask(&balancer, "/", &format!("X-Forwarded-For: 10.0.0.{n}\r\n"))).collect();
        assert_eq!(served.len(), 1, "{mode:?}: one client has claimed to be many");
        let balancer = Balancer::before(mode, &backends.each_ref(), &["-s", "hash:client", "--trust", "127.0.0.1"]);
        let asked = |n: usize| ask(&balancer, "/", &format!("X-Forwarded-For: 9.9.9.9, 10.0.0.{n}\r\n"));
        let owners: Vec<String> = (0..24).map(asked).collect();
        assert_eq!((0..24).map(asked).collect::<Vec<_>>(), owners);
        assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), 4, "{mode:?}");
    }
}

#[test]
fn a_request_without_the_hashed_part_is_picked_by_turn() {
    let backends = ["a", "b"].map(Backend::named);
    for mode in modes() {
        let balancer = Balancer::before(mode, &backends.each_ref(), &["-s", "hash:header:X-User"]);
        let mut counts = BTreeMap::new();
        (0..40).for_each(|_| *counts.entry(ask(&balancer, "/", "X-User:\r\n")).or_insert(0) += 1);
        assert!(counts.values().all(|&count| count == 20), "{mode:?}: {counts:?}");
    }
}

#[test]
fn a_dead_backend_moves_only_its_own_keys() {
    for protocol in PROTOCOLS {
        let mut backends = ["a", "b", "c", "d"].map(Backend::named);
        let ways = backends.each_ref().map(|backend| Way::to(backend, protocol));
        let mut args = vec!["-k", "-s", "hash:path", "--health-fails", "1"];
        ways.iter().for_each(|way| args.extend(["-b", way.spec()]));
        let balancer = Balancer::start(Mode::Mp, &args);
        let asked = |n: usize| ask(&balancer, &format!("/{n}"), "");
        let before: Vec<String> = (0..24).map(asked).collect();
        backends[0].stop();
        let after: Vec<String> =
            (0..24).map(|n| if before[n] == "a" { retried(&balancer, n) } else { asked(n) }).collect();
        for (n, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before != after, before == "a", "{protocol:?} {n}");
        }
    }
}

/// Asks until the dead backend of a gateway, which still accepts connections, is known to be down.
fn retried(balancer: &Balancer, n: usize) -> String {
    let mut served = String::new();
    wait_until("another backend serves", || {
        let mut wire = balancer.connect();
        wire.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = wire.response("GET");
        served = response.text();
        response.status() == 200
    });
    served
}

#[test]
fn one_busy_key_does_not_overload_its_backend() {
    for mode in modes() {
        let gate = Gate::shut();
        let backends = [(); 4].map(|()| Backend::gated(&gate));
        let balancer = Balancer::before(mode, &backends.each_ref(), &["-s", "hash:path"]);
        let clients: Vec<_> = (1..=40)
            .map(|n| {
                let wire = balancer.connect();
                wire.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
                wait_until("it is in flight", || backends.iter().map(Backend::count).sum::<usize>() == n);
                wire
            })
            .collect();
        let mut counts = backends.each_ref().map(Backend::count);
        counts.sort_unstable();
        // 1.25 of the mean of ten is 12.5, and a request may begin below it.
        assert!(counts[3] <= 13 && counts[3] >= 12, "{mode:?}: {counts:?}");
        gate.open();
        for mut wire in clients {
            assert_eq!(wire.response("GET").status(), 200);
        }
    }
}

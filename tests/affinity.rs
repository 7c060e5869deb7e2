//! Requests that belong together go to one backend: by a hash, or by a cookie.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Backend, Balancer, Directory, Gate, Mode, PROTOCOLS, Way, modes, run, wait_until};

/// Returns the content of the response to a GET with these field lines.
fn ask(balancer: &Balancer, path: &str, fields: &str) -> String {
    let mut wire = balancer.connect();
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let response = wire.response("GET");
    assert_eq!(response.status(), 200, "{response:?}\n{}", balancer.log());
    response.text()
}

/// Returns the path and the field lines of a request with a number.
type Numbered = fn(usize) -> (String, String);

#[test]
fn requests_with_one_hash_go_to_one_backend_from_every_worker() {
    let hashes: [(&str, Numbered); 3] = [
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

/// Sends a GET with a cookie. Returns the content and the new cookie, as `NAME=VALUE` and its attributes.
fn visit(balancer: &Balancer, cookie: &str) -> (String, Option<(String, String)>) {
    let mut wire = balancer.connect();
    let field = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n"));
    let response = wire.response("GET");
    assert_eq!(response.status(), 200, "{response:?}\n{}", balancer.log());
    let set = response.value("set-cookie").and_then(|value| value.split_once("; "));
    (response.text(), set.map(|(pair, attributes)| (pair.to_owned(), attributes.to_owned())))
}

/// Returns a cookie for each of some backends, by name.
fn cookies(balancer: &Balancer, count: usize) -> BTreeMap<String, String> {
    let mut cookies = BTreeMap::new();
    wait_until("each backend has served", || {
        let (name, cookie) = visit(balancer, "");
        cookies.insert(name, cookie.expect("a new client gets a cookie").0);
        cookies.len() == count
    });
    cookies
}

#[test]
fn a_cookie_keeps_a_client_at_its_backend_over_each_protocol() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let backends = ["a", "b", "c"].map(Backend::named);
            let ways = backends.each_ref().map(|backend| Way::to(backend, protocol));
            let mut args = vec!["-k", "--sticky", "cookie=lb", "--sticky-attributes", "SameSite=Strict; Max-Age=60"];
            ways.iter().for_each(|way| args.extend(["-b", way.spec()]));
            let balancer = Balancer::start(mode, &args);
            let (_, set) = visit(&balancer, "");
            assert_eq!(set.map(|set| set.1).as_deref(), Some("Path=/; Max-Age=60; HttpOnly; SameSite=Strict"));
            for (name, cookie) in cookies(&balancer, 3) {
                for _ in 0..4 {
                    assert_eq!(visit(&balancer, &format!("a=1; {cookie}; b=2")), (name.clone(), None), "{protocol:?}");
                }
                let backend =
                    backends.iter().find(|backend| backend.count() > 0 && backend.last().value("cookie").is_some());
                let seen = backend.and_then(|backend| backend.last().value("cookie").map(str::to_owned));
                assert_eq!(seen.as_deref(), Some("a=1; b=2"), "{protocol:?} {mode:?}");
            }
        }
    }
}

#[test]
fn machines_with_one_key_accept_each_other_s_cookies_and_others_do_not() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let directory = Directory::new();
    let key = |name: &str, letter: &str| {
        directory.put(name, &format!("{}\n{}\n", letter.repeat(20), letter.repeat(24))).display().to_string()
    };
    let (one, other) = (key("one", "A"), key("other", "B"));
    let start =
        |key: &str| Balancer::before(Mode::Sp, &backends.each_ref(), &["--sticky", "cookie", "--sticky-key", key]);
    let (first, second, stranger) = (start(&one), start(&one), start(&other));
    let random = Balancer::before(Mode::Mp, &backends.each_ref(), &["--sticky", "cookie"]);
    for (name, cookie) in cookies(&first, 3) {
        assert!(cookie.starts_with("zzz_lb="));
        assert_eq!(visit(&second, &cookie), (name, None));
        assert!(visit(&stranger, &cookie).1.is_some() && visit(&random, &cookie).1.is_some());
    }
}

#[test]
fn a_session_survives_a_reload_an_upgrade_and_weight_0() {
    for mode in modes() {
        let backends = ["a", "b"].map(Backend::named);
        let directory = Directory::new();
        let file = |weight: u16| {
            let port = |n: usize| backends[n].spec().rsplit(':').next().expect("a port").to_owned();
            format!(
                r#"{{"backends": [{{"host": "127.0.0.1", "port": {}}},
                    {{"host": "127.0.0.1", "port": {}, "weight": {weight}}}], "sticky": "cookie"}}"#,
                port(0),
                port(1)
            )
        };
        let path = directory.put("lb.json", &file(1));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let cookie = cookies(&balancer, 2).remove("b").expect("both have served");
        directory.put("lb.json", &file(0));
        balancer.wait_for_log("weight 1 -> 0");
        wait_until("no new client gets there", || (0..8).all(|_| visit(&balancer, "").0 == "a"));
        assert_eq!(visit(&balancer, &cookie), ("b".into(), None), "{mode:?}");
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 1)");
        for _ in 0..8 {
            assert_eq!(visit(&balancer, &cookie), ("b".into(), None), "{mode:?}\n{}", balancer.log());
        }
    }
}

#[test]
fn faults_of_the_cookie_s_options_are_found_at_the_start() {
    let directory = Directory::new();
    let short = directory.put("short", "AAAA\n").display().to_string();
    for (args, reason) in [
        (vec!["--sticky", "cookie", "--sticky-key", &short], "a key of 3 bytes; accepted: at least 32"),
        (vec!["--sticky", "cookie", "--sticky-key", "/nonexistent"], "No such file"),
        (vec!["--sticky", "cookie", "--sticky-attributes", "SameSit=Lax"], "did you mean 'samesite'?"),
        (vec!["--sticky", "cokie"], "did you mean 'cookie'?"),
        (vec!["--sticky-attributes", "Secure"], "has no effect without a cookie"),
        (vec!["-s", "hash:clinet"], "did you mean 'hash:client'?"),
        (vec!["-s", "hash:cookie"], "no valid name"),
    ] {
        for more in [&[][..], &["--check"]] {
            let output = run(&[&args[..], more, &["-p", "0"]].concat());
            let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(!output.status.success() && text.contains(reason), "{args:?}: {text}");
        }
    }
}

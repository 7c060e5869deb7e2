//! Retries: requests that are repeated, and requests that never are. No request must be served twice without
//! the client's knowledge.

use crate::smuggling::assert_own_answer;
use crate::support::{
    Backend, Balancer, Directory, Fault, Gate, Mode, PROTOCOLS, VACANT, Way, Wire, modes, processor_ticks, response,
    shrink_queue,
};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Another address that refuses connections, like `VACANT`.
const VACANT_TOO: &str = "127.0.0.2:1";

/// Answers the first request of each connection. It reads later GETs, and every POST, completely and then
/// closes without a response.
fn forgetful(reset: bool) -> Backend {
    Backend::serve(move |mut peer| {
        let mut served = 0;
        while let Some(request) = peer.request() {
            if served > 0 || request.method() == "POST" {
                if reset {
                    peer.reset();
                }
                return;
            }
            served += 1;
            peer.send(response("", b"ok"));
        }
    })
}

#[test]
fn a_get_on_a_stale_connection_is_sent_again() {
    for mode in modes() {
        for reset in [false, true] {
            let backend = forgetful(reset);
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            for n in 0..10 {
                assert_eq!(client.get(&format!("/{n}")).text(), "ok", "{mode:?}, {n}");
            }
        }
    }
}

#[test]
fn a_post_is_never_sent_again() {
    for mode in modes() {
        for reset in [false, true] {
            let backends = [forgetful(reset), forgetful(reset)];
            let balancer = Balancer::before(mode, &backends.each_ref(), &[]);
            let mut client = balancer.connect();
            for n in 0..6 {
                assert_eq!(client.get("/fill").text(), "ok");
                assert_eq!(client.get("/fill").text(), "ok");
                let target = format!("/post-{n}");
                let answer = client.post(&target, b"order");
                assert_own_answer(&format!("{mode:?}, {n}"), &answer, &[502]);
                let delivered: Vec<_> =
                    backends.iter().flat_map(|b| b.requests()).filter(|r| r.target() == target).collect();
                assert_eq!(delivered.len(), 1, "{mode:?}: a POST was delivered {} times", delivered.len());
                if answer.connection_has("close") {
                    assert_eq!(client.end(), Fault::Fin);
                    client = balancer.connect();
                }
            }
        }
    }
}

#[test]
fn a_post_goes_out_on_a_fresh_connection_once_the_pooled_one_is_seen_to_have_ended() {
    let backend = Backend::serve(|mut peer| {
        if let Some(request) = peer.request() {
            peer.send(response("", request.target().as_bytes()));
            peer.shutdown_write();
            // The balancer closes its side when it has seen this end.
            assert_eq!(peer.end(), Fault::Fin);
        }
    });
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    for n in 0..10 {
        let target = format!("/{n}");
        assert_eq!(balancer.connect().post(&target, b"order").text(), target);
        backend.wait_until_idle();
    }
    assert_eq!(backend.count(), 10);
}

#[test]
fn a_connection_that_ends_with_its_response_is_not_reused() {
    let gate = Gate::shut();
    let held = gate.clone();
    let backend = Backend::serve(move |mut peer| match peer.request() {
        Some(request) if request.target() == "/warm" => peer.send(response("Connection: close\r\n", b"warm")),
        Some(request) if request.target() == "/first" => {
            held.pass();
            // The backend closes without announcing it.
            peer.send(response("", b"first"));
        }
        Some(_) => peer.send(response("Connection: close\r\n", b"second")),
        None => {}
    });
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let (mut first, mut second) = (balancer.connect(), balancer.connect());
    assert_eq!(second.get("/warm").text(), "warm");
    first.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
    backend.wait_for_requests(2);
    // While the balancer is stopped, a response arrives together with its end, and after them a request that
    // must not be repeated.
    balancer.signal(libc::SIGSTOP);
    gate.open();
    backend.wait_until_idle();
    second.send("POST /second HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    balancer.signal(libc::SIGCONT);
    assert_eq!(first.response("GET").text(), "first");
    assert_eq!(second.response("POST").text(), "second");
}

#[test]
fn a_backend_that_closes_idle_connections_never_costs_a_get() {
    for mode in modes() {
        // The backend closes as soon as it has answered, so that the next request races with the close.
        let backend = Backend::serve(|mut peer| {
            for _ in 0..1 + peer.nth % 3 {
                if peer.request().is_none() {
                    return;
                }
                peer.send(response("", b"ok"));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for n in 0..300 {
            let answer = client.get(&format!("/{n}"));
            assert_eq!(answer.status(), 200, "{mode:?}, {n}: {answer:?}");
        }
    }
}

#[test]
fn a_refused_connection_sends_any_request_to_the_next_backend_at_once() {
    for mode in modes() {
        let backend = Backend::echo();
        let balancer = Balancer::start(mode, &["-b", VACANT, "-b", &backend.spec(), "-b", VACANT_TOO]);
        let body = vec![b'x'; 200_000];
        for n in 0..10 {
            let answer = balancer.connect().post(&format!("/{n}"), &body);
            assert_eq!(answer.status(), 200, "{mode:?}: {answer:?}");
            assert_eq!(answer.body.bytes, body);
        }
        assert_eq!(backend.count(), 10);
    }
}

#[test]
fn with_every_backend_refusing_the_answer_says_why() {
    for mode in modes() {
        let balancer = Balancer::start(mode, &["-b", VACANT, "-b", VACANT_TOO]);
        let mut client = balancer.connect();
        // After the third, they are known to be down, and used only because there is no other.
        for n in 0..5 {
            let answer = client.get("/");
            assert_own_answer(&format!("{mode:?}, {n}"), &answer, &[502]);
            assert!(!answer.connection_has("close"), "{mode:?}, {n}: the connection goes on: {answer:?}");
        }
    }
}

#[test]
fn a_missing_socket_file_is_a_connect_failure_like_another() {
    let backend = Backend::named("backend");
    let balancer = Balancer::start(Mode::Sp, &["-b", "unix:/nonexistent/zzz.sock", "-b", &backend.spec()]);
    for _ in 0..4 {
        assert_eq!(balancer.get("/"), "backend");
    }
}

#[test]
fn a_backend_that_comes_back_is_used_again() {
    for mode in modes() {
        // At an address whose ports no other test uses while this backend is stopped.
        let mut backend = Backend::named_on("127.0.0.4:0", "first");
        let spec = backend.spec();
        let balancer = Balancer::start(mode, &["-b", &spec]);
        assert_eq!(balancer.get("/"), "first");
        backend.stop();
        crate::support::wait_until("the backend is missed", || balancer.connect().get("/").status() >= 500);
        let again = Backend::serve_on(&spec, |mut peer| {
            while peer.request().is_some() {
                peer.send(response("", b"second"));
            }
        });
        let _again = again.expect("the port is still ours");
        crate::support::wait_until("the backend is back", || balancer.connect().get("/").text() == "second");
    }
}

#[test]
fn once_a_response_has_begun_nothing_is_sent_again() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            if peer.request().is_some() {
                let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client: Wire = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        match client.try_response("GET") {
            Err((Fault::Fin | Fault::Reset, _)) => {}
            Ok(answer) if answer.status() == 502 => {}
            other => panic!("{mode:?}: {other:?}"),
        }
        assert_eq!(backend.count(), 1, "{mode:?}");
    }
}

#[test]
fn once_a_byte_of_a_response_has_come_nothing_is_sent_again() {
    for mode in modes() {
        for begun in ["HTTP/1.1 200 OK\r\nContent-Len", "HTTP/1.1 100 Continue\r\n\r\n"] {
            let backend = || {
                Backend::serve(move |mut peer| {
                    if peer.request().is_some() {
                        let _ = peer.try_send(begun);
                    }
                })
            };
            let backends = [backend(), backend()];
            let balancer = Balancer::before(mode, &backends.each_ref(), &[]);
            assert_own_answer(begun, &balancer.connect().get("/"), &[502]);
            assert_eq!(backends.iter().map(Backend::count).sum::<usize>(), 1, "{mode:?}: {begun:?}");
        }
    }
}

/// The request itself may be the cause of the crash.
#[test]
fn a_request_that_breaks_backends_is_shown_to_few_of_them() {
    for (method, most) in [("GET", 3), ("POST", 1)] {
        let backends: Vec<Backend> = (0..6).map(|_| Backend::serve(|mut peer| drop(peer.request()))).collect();
        let all: Vec<&Backend> = backends.iter().collect();
        let balancer = Balancer::before(Mode::Sp, &all, &[]);
        let mut client = balancer.connect();
        client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        assert_own_answer(method, &client.response(method), &[502]);
        let asked: usize = backends.iter().map(Backend::count).sum();
        assert!((1..=most).contains(&asked), "{method}: {asked} backends were asked");
    }
}

/// Over each protocol alike: what broke the connection may be the request, and no other backend is there.
#[test]
fn a_get_that_breaks_the_only_backend_s_fresh_connection_is_not_sent_again() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let backend = Backend::serve(|mut peer| drop(peer.request()));
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &way.args());
            assert_own_answer("GET", &balancer.connect().get("/"), &[502]);
            assert_eq!(backend.count(), 1, "{protocol:?} {mode:?}");
        }
    }
}

/// A Unix socket with the shortest queue, and its `-b` argument.
fn narrow(directory: &Directory) -> (UnixListener, String) {
    let path = directory.path().join("narrow");
    let listener = UnixListener::bind(&path).expect("the path is free");
    shrink_queue(listener.as_fd(), 0);
    (listener, format!("unix:{}", path.display()))
}

/// The kernel reports the full queue of a Unix socket at once. For TCP it retries itself.
#[test]
fn a_full_queue_is_retried_and_counts_against_no_backend() {
    for mode in modes() {
        let directory = Directory::new();
        let (listener, spec) = narrow(&directory);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let mut peer = Wire::new(crate::support::Socket::Unix(socket));
                if peer.head().is_ok() {
                    std::thread::sleep(Duration::from_millis(30));
                    let _ = peer.try_send(response("Connection: close\r\n", b"one at a time"));
                }
            }
        });
        let balancer = Balancer::start(mode, &["-b", &spec, "--connect-timeout", "20s"]);
        let mut clients: Vec<Wire> = (0..12).map(|_| balancer.connect()).collect();
        clients.iter().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        for client in &mut clients {
            assert_eq!(client.response("GET").text(), "one at a time", "{mode:?}\n{}", balancer.log());
        }
        assert!(!balancer.log().contains("down after"), "{mode:?}\n{}", balancer.log());
    }
}

#[test]
fn a_request_that_meets_a_full_queue_goes_to_another_backend() {
    for mode in modes() {
        let (directory, good) = (Directory::new(), Backend::named("good"));
        let (_listener, spec) = narrow(&directory);
        let _full = UnixStream::connect(&spec["unix:".len()..]).expect("the queue has room for one");
        let balancer = Balancer::start(mode, &["-b", &spec, "-b", &good.spec(), "--connect-timeout", "60s"]);
        let begun = Instant::now();
        for _ in 0..10 {
            assert_eq!(balancer.connect().post("/", b"order").text(), "good", "{mode:?}\n{}", balancer.log());
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{mode:?}: the full one was waited for");
        let log = balancer.wait_for_log("its queue of connections is full");
        assert!(!log.contains("down after"), "{mode:?}\n{log}");
    }
}

#[test]
fn a_queue_that_stays_full_fails_within_the_connect_timeout() {
    for mode in modes() {
        let directory = Directory::new();
        let (_listener, spec) = narrow(&directory);
        let _full = UnixStream::connect(&spec["unix:".len()..]).expect("the queue has room for one");
        let balancer = Balancer::start(mode, &["-b", &spec, "--connect-timeout", "500ms"]);
        let used = || balancer.serving().iter().map(|&pid| processor_ticks(pid)).sum::<u64>();
        let before = used();
        for _ in 0..4 {
            let answer = balancer.connect().get("/");
            assert_own_answer(&format!("{mode:?}"), &answer, &[503]);
            assert!(answer.text().contains("the backend cannot be reached"), "{answer:?}");
        }
        balancer.wait_for_log("its queue of connections is full");
        let used = used() - before;
        assert!(used < 60, "{mode:?}: it spins: {used} ticks of 200");
        assert!(!balancer.log().contains("down after"), "{mode:?}\n{}", balancer.log());
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

//! Connections to backends are reused if possible, and never shared by two exchanges.

use crate::support::{Backend, Balancer, Fault, Framing, Gate, Mode, modes, response, send_signal, wait_until};

#[test]
fn sequential_requests_share_one_backend_connection() {
    let backend = Backend::echo();
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    for n in 0..20 {
        assert_eq!(balancer.connect().post(&format!("/{n}"), &vec![b'x'; n * 1000]).status(), 200);
    }
    assert_eq!((backend.count(), backend.connections()), (20, 1));
}

#[test]
fn one_client_uses_one_backend_connection() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    let mut client = balancer.connect();
    for n in 0..20 {
        assert_eq!(client.get(&format!("/{n}")).text(), "backend");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_response_that_says_close_is_the_connections_last() {
    for mode in modes() {
        // The backend says close but does not close. Its word counts.
        let backend = Backend::replying(response("Connection: close\r\n", b"ok"));
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for n in 1..=5 {
            let answer = client.get("/");
            assert!(!answer.connection_has("close"), "a backend's close is not the client's: {answer:?}");
            assert_eq!(backend.connections(), n, "{mode:?}");
        }
        backend.wait_until_idle();
    }
}

#[test]
fn round_robin_gives_each_backend_its_turn() {
    for mode in modes() {
        let backends = [Backend::named("a"), Backend::named("b"), Backend::named("c")];
        let balancer = Balancer::before(mode, &backends.each_ref(), &[]);
        let mut client = balancer.connect();
        let mut order = String::new();
        for _ in 0..30 {
            order.push_str(&client.get("/").text());
        }
        assert!(["abc", "bca", "cab"].iter().any(|turn| order == turn.repeat(10)), "{mode:?}: {order}");
        assert!(backends.iter().all(|backend| backend.count() == 10));
    }
}

#[test]
fn every_strategy_reaches_every_backend() {
    for strategy in ["round_robin", "weighted", "random", "least_requests"] {
        let backends = [Backend::named("a"), Backend::named("b"), Backend::named("c")];
        let balancer = Balancer::before(Mode::Sp, &backends.each_ref(), &["-s", strategy]);
        let mut client = balancer.connect();
        for _ in 0..60 {
            assert_eq!(client.get("/").status(), 200);
        }
        let counts = backends.each_ref().map(|backend| backend.count());
        assert!(counts.iter().all(|&count| count > 0), "{strategy}: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 60);
    }
}

#[test]
fn no_response_reaches_the_wrong_client() {
    for mode in modes() {
        let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
        let balancer = Balancer::before(mode, &backends.each_ref(), &[]);
        std::thread::scope(|scope| {
            for thread in 0..64 {
                let balancer = &balancer;
                scope.spawn(move || {
                    let mut client = balancer.connect();
                    for n in 0..10 {
                        let own = format!("/{thread}-{n}");
                        let answer = client.post(&own, own.repeat(n * 10).as_bytes());
                        assert_eq!(answer.value("Echo-Target"), Some(own.as_str()), "{mode:?}");
                        assert_eq!(answer.text(), own.repeat(n * 10), "{mode:?}");
                    }
                });
            }
        });
        let served: usize = backends.iter().map(Backend::count).sum();
        assert_eq!(served, 640, "each request was sent once");
    }
}

#[test]
fn a_client_that_has_ended_its_side_still_gets_its_response() {
    for mode in modes() {
        let gate = Gate::shut();
        let for_backend = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                assert!(for_backend.pass());
                peer.send(response("", &request.body.bytes));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        client.shutdown_write();
        backend.wait_for_requests(1);
        // A hasty balancer would give up in this time. The response is right without it too.
        assert!(client.silent_for(std::time::Duration::from_millis(100)), "{mode:?}");
        gate.open();
        assert_eq!(client.response("POST").text(), "hello", "{mode:?}");
        assert_eq!(client.end(), Fault::Fin);
    }
}

#[test]
fn a_client_that_resets_ends_its_request_at_the_backend() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/wait" {
                    assert!(matches!(peer.end(), Fault::Fin | Fault::Reset), "the balancer goes too");
                    return;
                }
                peer.send(response("", b"ok"));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let client = balancer.connect();
        client.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(1);
        client.reset();
        backend.wait_until_idle();
        assert_eq!(balancer.get("/"), "ok", "{mode:?}");
    }
}

#[test]
fn a_client_that_leaves_a_download_ends_it_at_the_backend() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            if peer.request().is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
                while peer.try_send([b'd'; 1 << 16]).is_ok() {}
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.head().is_ok() && client.exactly(1 << 20).is_ok());
        drop(client);
        backend.wait_until_idle();
        assert_eq!(backend.connections(), 1, "{mode:?}: and it is not asked for again");
    }
}

#[test]
fn an_idle_client_holds_no_backend_connection_from_others() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut clients: Vec<_> = (0..50).map(|_| balancer.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "backend");
    }
    assert_eq!(backend.connections(), 1, "an idle client has given its backend connection back");
}

#[test]
fn connections_of_a_dead_worker_are_closed() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    balancer.get("/");
    assert_eq!(backend.open(), 1);
    for worker in balancer.workers() {
        assert!(send_signal(worker, libc::SIGKILL));
    }
    wait_until("pooled connections end with the worker", || backend.open() == 0);
    assert_eq!(balancer.get("/"), "backend", "and who comes next makes another");
}

#[test]
fn connections_of_a_process_that_ends_are_closed() {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let backend = Backend::named("backend");
        let mut balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
        balancer.get("/");
        assert_eq!(backend.open(), 1);
        balancer.signal(signal);
        balancer.wait();
        wait_until("pooled connections end with the process", || backend.open() == 0);
    }
}

#[test]
fn an_upload_and_a_download_run_at_once() {
    let backend = Backend::serve(|mut peer| {
        let Some(_) = peer.request_head() else { return };
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Each byte is answered before the next is sent.
        for _ in 0..50 {
            let byte = peer.exactly(1).expect("the next byte");
            peer.send([b"1\r\n", byte.as_slice(), b"\r\n"].concat());
        }
        peer.send("0\r\n\r\n");
    });
    for mode in modes() {
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n");
        let head = |client: &mut crate::support::Wire| client.head().expect("the head comes at once");
        client.send("a");
        assert_eq!(head(&mut client).response_framing("POST"), Ok(Framing::Chunked));
        let mut body = crate::support::BodyReader::new(Framing::Chunked);
        for n in 0..50_u8 {
            assert_eq!(body.piece(&mut client), Ok(Some(vec![if n == 0 { b'a' } else { b'0' + n }])), "{mode:?}");
            if n < 49 {
                client.send([b'1' + n]);
            }
        }
        assert_eq!(body.piece(&mut client), Ok(None));
    }
}

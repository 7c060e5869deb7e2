//! Clients that leave before their response, and clients that only end their own direction.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::support::{Backend, Balancer, Fault, Framing, Gate, PROTOCOLS, Way, Wire, modes, response, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A backend that responds only once the gate is open.
fn slow(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::serve(move |mut peer| {
        while peer.request().is_some() {
            gate.pass();
            if peer.try_send(response("", b"late")).is_err() {
                return;
            }
        }
    })
}

fn aborts(balancer: &Balancer, reason: &str) -> u64 {
    balancer.metric("zzz_lb_client_aborts_total", reason)
}

#[test]
fn requests_of_clients_that_have_gone_are_given_up() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            // The backend never responds, and waits for the end of each connection or stream.
            let backend = Backend::serve(|mut peer| {
                peer.request();
                peer.rest();
            });
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &[way.args(), vec!["--half-close", "300ms"]].concat());
            let clients: Vec<Wire> = (0..30).map(|_| balancer.connect()).collect();
            clients.iter().for_each(|client| client.send(GET));
            backend.wait_for_requests(30);
            assert_eq!(balancer.metric("zzz_lb_in_flight", ""), 30, "{protocol:?} {mode:?}");
            drop(clients);
            backend.wait_until_idle();
            wait_until("nothing is in flight", || balancer.metric("zzz_lb_in_flight", "") == 0);
            assert_eq!(aborts(&balancer, "closed"), 30, "{protocol:?} {mode:?}");
            assert_eq!(balancer.metric("zzz_lb_requests_total", "499"), 30, "{protocol:?} {mode:?}");
            assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{protocol:?} {mode:?}");
        }
    }
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    for mode in modes() {
        let gate = Gate::shut();
        let for_script = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/poll" {
                    for_script.pass();
                }
                if peer.try_send(response("", b"ok")).is_err() {
                    return;
                }
            }
        });
        let spec = format!("{},max=2", backend.spec());
        let balancer = Balancer::start(mode, &["-b", &spec, "--half-close", "300ms"]);
        let polls: Vec<Wire> = (0..2).map(|_| balancer.connect()).collect();
        polls.iter().for_each(|client| client.send("GET /poll HTTP/1.1\r\nHost: x\r\n\r\n"));
        backend.wait_for_requests(2);
        // More requests than the limit allows. Their clients leave while they are queued.
        let waiting: Vec<Wire> = (0..5).map(|_| balancer.connect()).collect();
        waiting.iter().for_each(|client| client.send("GET /poll HTTP/1.1\r\nHost: x\r\n\r\n"));
        wait_until("they wait", || balancer.metric("zzz_lb_waits_total", "") == 5);
        drop((polls, waiting));
        let mut client = balancer.connect();
        assert_eq!(client.get("/").text(), "ok", "{mode:?}\n{}", balancer.log());
        wait_until("all are given up", || aborts(&balancer, "closed") == 7);
        assert_eq!(balancer.metric("zzz_lb_waits_failed_total", ""), 0, "{mode:?}");
        gate.open();
    }
}

#[test]
fn a_client_that_ends_its_direction_gets_its_response() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let gate = Gate::shut();
            let backend = slow(&gate);
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &[way.args(), vec!["--half-close", "20s"]].concat());
            let mut client = balancer.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi{GET}"));
            client.shutdown_write();
            backend.wait_for_requests(1);
            // By now the balancer has seen the end, or soon will.
            std::thread::sleep(Duration::from_millis(50));
            gate.open();
            for method in ["POST", "GET"] {
                assert_eq!(client.response(method).text(), "late", "{protocol:?} {mode:?}");
            }
            assert_eq!(client.end(), Fault::Fin, "{protocol:?} {mode:?}");
            assert_eq!(aborts(&balancer, ""), 0, "{protocol:?} {mode:?}");
        }
    }
}

#[test]
fn a_response_that_has_begun_goes_on_after_the_fin_and_ends_with_a_reset() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let gate = Gate::shut();
            let for_script = gate.clone();
            let backend = Backend::serve(move |mut peer| {
                if peer.request().is_none() {
                    return;
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun");
                for_script.pass();
                while peer.try_send([b'x'; 1000]).is_ok() {}
            });
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &[way.args(), vec!["--half-close", "50ms"]].concat());
            let [mut patient, gone] = [(); 2].map(|()| balancer.connect());
            for client in [&patient, &gone] {
                client.send(GET);
            }
            wait_until("both are under way", || balancer.metric("zzz_lb_requests_total", "2xx") == 2);
            gone.reset();
            wait_until("the reset one is given up", || balancer.metric("zzz_lb_in_flight", "") == 1);
            assert_eq!(aborts(&balancer, "reset"), 1, "{protocol:?} {mode:?}");
            patient.shutdown_write();
            let ended = Instant::now();
            wait_until("the limit has passed", || ended.elapsed() > Duration::from_millis(300));
            gate.open();
            assert_eq!(patient.response("GET").body.bytes.len(), 1_000_000, "{protocol:?} {mode:?}");
            assert_eq!((aborts(&balancer, ""), aborts(&balancer, "closed")), (1, 0), "{protocol:?} {mode:?}");
        }
    }
}

#[test]
fn nothing_is_sent_to_another_backend_for_a_client_that_has_closed() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let gate = Gate::shut();
            let for_script = gate.clone();
            let failing = Backend::serve(move |mut peer| {
                if peer.request().is_some_and(|request| request.target() == "/gone") {
                    for_script.pass();
                }
            });
            let good = Backend::named("good");
            let (first, second) = (Way::to(&failing, protocol), Way::to(&good, protocol));
            let second = format!("{},backup", second.spec());
            let args = ["-k", "-b", first.spec(), "-b", &second, "--health-interval", "off", "--half-close", "20s"];
            let balancer = Balancer::start(mode, &args);
            assert_eq!(balancer.connect().get("/").text(), "good", "{protocol:?} {mode:?}");
            let client = balancer.connect();
            client.send("GET /gone HTTP/1.1\r\nHost: x\r\n\r\n");
            failing.wait_for_requests(2);
            drop(client);
            std::thread::sleep(Duration::from_millis(50));
            gate.open();
            wait_until("it is over", || balancer.metric("zzz_lb_in_flight", "") == 0);
            assert_eq!(good.count(), 1, "{protocol:?} {mode:?}");
        }
    }
}

#[test]
fn an_upload_that_ends_early_is_an_abort_and_a_tunnel_is_none() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            let Some(head) = peer.request_head() else { return };
            if head.has("Upgrade") {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
                // After the client's end the tunnel continues in the other direction.
                let (bytes, _) = peer.rest();
                std::thread::sleep(Duration::from_millis(300));
                peer.send(bytes);
            } else {
                let _ = peer.body(Framing::Length(100));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &["--half-close", "100ms"]);
        let mut client = balancer.connect();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello");
        client.shutdown_write();
        assert_eq!(client.response("POST").status(), 400, "{mode:?}");
        wait_until("it is counted", || aborts(&balancer, "incomplete") == 1);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(client.response("GET").status(), 101, "{mode:?}");
        client.send("ping");
        client.socket().shutdown(Shutdown::Write);
        assert_eq!(client.rest().0, b"ping", "{mode:?}");
        assert_eq!(aborts(&balancer, ""), 1, "{mode:?}");
    }
}

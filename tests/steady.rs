//! Resources that must not grow or spin over time: descriptors, processor time, an unread log.

use crate::support::{
    Backend, Balancer, Exit, Fault, Gate, Mode, command, modes, open_descriptors, processor_ticks, response, wait_until,
};
use std::time::Duration;

/// The processor time of all serving processes, in ticks.
fn ticks(balancer: &Balancer) -> u64 {
    balancer.serving().into_iter().map(processor_ticks).sum()
}

/// Watches for 40 ticks; the lapse is the subject of the test. A process that spins uses about as many.
#[track_caller]
fn assert_at_rest(balancer: &Balancer, what: &str) {
    let before = ticks(balancer);
    std::thread::sleep(Duration::from_millis(400));
    let used = ticks(balancer) - before;
    assert!(used < 12, "{what}: it spins: {used} ticks of 40");
}

#[test]
fn connections_that_wait_cost_no_processor_time() {
    for mode in modes() {
        let gate = Gate::shut();
        let for_backend = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            let Some(request) = peer.request_head() else { return };
            match request.target() {
                "/tunnel" => {
                    peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
                    peer.shutdown_write();
                }
                // The backend's FIN follows its response, which the client does not read.
                "/unread" => {
                    let body = vec![b'd'; 1 << 20];
                    let _ = peer.try_send(response("Connection: close\r\n", &body));
                    peer.shutdown_write();
                }
                _ => {}
            }
            assert!(for_backend.pass());
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let upgrade = "Connection: Upgrade\r\nUpgrade: x\r\n";
        let ask = |path: &str, lines: &str| {
            let client = balancer.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
            client
        };
        let half_closed = ask("/wait", "");
        half_closed.shutdown_write();
        let mut tunnel = ask("/tunnel", upgrade);
        assert_eq!(tunnel.response("GET").status(), 101);
        let unread = ask("/unread", "");
        let uploading = ask("/upload", "Content-Length: 1000000\r\n");
        let _ = uploading.try_send([b'u'; 5000]);
        let silent = balancer.connect();
        let partial = balancer.connect();
        partial.send("GET / HT");
        backend.wait_for_requests(4);
        assert_at_rest(&balancer, &format!("{mode:?}"));
        drop((half_closed, unread, silent));
        partial.shutdown_write();
        assert_at_rest(&balancer, &format!("{mode:?}, after some have left"));
        gate.open();
    }
}

/// Causes one of each event that ends a connection in its own way.
fn mishaps(balancer: &Balancer) {
    let send = |bytes: &str| {
        let client = balancer.connect();
        client.send(bytes);
        client
    };
    assert!(send("GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").try_response("GET").is_ok());
    assert!(send("GET /close HTTP/1.1\r\nHost: x\r\n\r\n").try_response("GET").is_ok());
    assert!(send("GET /garbage HTTP/1.1\r\nHost: x\r\n\r\n").try_response("GET").is_ok());
    assert!(send("GET /cut HTTP/1.1\r\nHost: x\r\n\r\n").try_response("GET").is_err());
    assert!(send("GET /silent HTTP/1.1\r\nHost: x\r\n\r\n").try_response("GET").is_ok());
    assert!(send("BAD\r\n\r\n").try_response("GET").is_ok());
    assert!(send("GET /slow HTTP/1.1\r\nHost").try_response("GET").is_ok());
    send("GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").reset();
    send("POST /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\npart").reset();
    drop(send("POST /ok HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"));
    drop(send("GET / HT"));
    send("GET / HT").shutdown_write();
    let mut tunnel = send("GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(tunnel.response("GET").status(), 101);
    tunnel.reset();
}

#[test]
fn no_descriptor_is_left_behind() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                let sent = match request.target() {
                    "/garbage" => peer.try_send("garbage\r\n\r\n"),
                    "/cut" => return peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"),
                    "/close" => return peer.send(response("Connection: close\r\n", b"ok")),
                    "/silent" => return assert!(matches!(peer.end(), Fault::Fin | Fault::Reset)),
                    "/tunnel" => {
                        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                        return assert!(matches!(peer.end(), Fault::Fin | Fault::Reset));
                    }
                    _ => peer.try_send(response("", b"ok")),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        let args = ["--response-timeout", "200ms", "--request-timeout", "200ms", "--idle-timeout", "200ms"];
        let balancer = Balancer::before(mode, &[&backend], &args);
        assert_eq!(balancer.get("/warm"), "ok");
        let before: usize = balancer.serving().into_iter().map(open_descriptors).sum();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..3).for_each(|_| mishaps(&balancer)));
            }
        });
        // The remaining descriptors are those of the pools, and the backend has the same number open.
        wait_until("all descriptors but the pools' are closed", || {
            let now: usize = balancer.serving().into_iter().map(open_descriptors).sum();
            now <= before + backend.open()
        });
        assert!(backend.open() <= 40, "{} connections kept", backend.open());
        assert_eq!(balancer.get("/after"), "ok");
    }
}

#[test]
fn a_log_without_a_reader_stops_nothing() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let mut command = command(&["-p", "0", "--host", "127.0.0.1", "-b", &backend.spec(), "--trace", "-l", "debug"]);
        command.args(mode.args());
        let (mut balancer, log) = Balancer::read_by_hand(command);
        drop(log);
        let mut client = balancer.connect();
        for n in 0..20 {
            assert_eq!(client.get(&format!("/{n}")).text(), "backend", "{mode:?}");
        }
        drop(client);
        assert!(balancer.runs(), "{mode:?}: it still runs");
        assert_eq!(balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

#[test]
fn a_refused_request_is_answered_in_spite_of_much_data_after_it() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\nTransfer-Encoding: chunked\r\n\r\n";
    for _ in 0..10 {
        let mut client = balancer.connect();
        client.send(head);
        // Everything is sent before anything is read: a reset would destroy the response.
        for _ in 0..16 {
            let _ = client.try_send([b'u'; 1 << 16]);
        }
        assert_eq!(client.response("POST").status(), 400);
    }
    assert_eq!(backend.connections(), 0);
}

/// A write to a full pipe blocked the whole loop, and the master could no longer pass a signal on.
#[test]
fn a_log_reader_that_stalls_stops_nothing() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let mut command = command(&["-p", "0", "--host", "127.0.0.1", "-b", &backend.spec(), "--trace"]);
        command.args(mode.args());
        let (balancer, _log) = Balancer::read_by_hand(command);
        let mut client = balancer.connect();
        // This trace is many times larger than the pipe.
        for _ in 0..20 {
            assert_eq!(client.post("/", &[b'x'; 20_000]).status(), 200, "{mode:?}");
        }
        drop(client);
        assert_eq!(balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

//! The choice of a backend: rotation and weights over all workers, backups, and limits of backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::{Backend, Balancer, Gate, Mode, modes, response, wait_until};

fn served(balancer: &Balancer, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(balancer.get("/")).or_default() += 1;
    }
    counts
}

#[test]
fn turns_are_taken_over_all_workers_together() {
    for mode in modes() {
        let backends = ["a", "b", "c"].map(Backend::named);
        let balancer = Balancer::before(mode, &backends.each_ref(), &[]);
        let counts = served(&balancer, 150);
        assert!(counts.values().all(|n| n.abs_diff(50) <= 1), "{mode:?}: {counts:?}");
    }
}

#[test]
fn weights_hold_over_all_workers_together() {
    for mode in modes() {
        let backends = ["a", "b", "c"].map(Backend::named);
        let specs: Vec<String> =
            backends.iter().zip([1, 2, 5]).map(|(one, weight)| format!("{},weight={weight}", one.spec())).collect();
        let args: Vec<&str> = specs.iter().flat_map(|spec| ["-b", spec]).collect();
        for strategy in [&[][..], &["-s", "round_robin"], &["-s", "weighted"], &["-s", "least_requests"]] {
            let balancer = Balancer::start(mode, &[&args[..], strategy].concat());
            let counts: Vec<usize> = served(&balancer, 400).into_values().collect();
            assert_eq!(counts, [50, 100, 250], "{mode:?} {strategy:?}");
        }
    }
}

#[test]
fn a_backup_serves_when_no_other_is_up() {
    for mode in modes() {
        let mut first = Backend::named("first");
        let backup = Backend::named("backup");
        let spec = format!("{},backup", backup.spec());
        let balancer = Balancer::before(mode, &[&first], &["-b", &spec]);
        assert_eq!(served(&balancer, 20).get("backup"), None);
        first.stop();
        assert_eq!(served(&balancer, 20).get("backup"), Some(&20), "{mode:?}");
    }
}

/// A backend that holds requests until the gate opens, and counts the requests held at once.
fn holding(gate: &Gate) -> (Backend, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, told) = (gate.clone(), most.clone());
    let backend = Backend::serve(move |mut peer| {
        while peer.request().is_some() {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            gate.pass();
            now.fetch_sub(1, SeqCst);
            if peer.try_send(response("", b"ok")).is_err() {
                return;
            }
        }
    });
    (backend, told)
}

#[test]
fn a_backend_s_limit_holds_over_all_workers_and_others_wait() {
    for mode in modes() {
        let gate = Gate::shut();
        let (backend, most) = holding(&gate);
        let spec = format!("{},max=3", backend.spec());
        let balancer = Balancer::start(mode, &["-b", &spec, "--connect-timeout", "20s"]);
        let mut clients: Vec<_> = (0..12).map(|_| balancer.connect()).collect();
        clients.iter().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        backend.wait_for_requests(3);
        wait_until("the rest waits", || balancer.metric("zzz_lb_waits_total", "") == 9);
        gate.open();
        for client in &mut clients {
            assert_eq!(client.response("GET").text(), "ok", "{mode:?}");
        }
        assert_eq!(most.load(SeqCst), 3, "{mode:?}");
        assert_eq!(balancer.metric("zzz_lb_in_flight", ""), 0);
    }
}

#[test]
fn a_request_that_waits_too_long_gets_503_with_retry_after() {
    for mode in modes() {
        let gate = Gate::shut();
        let (backend, _) = holding(&gate);
        let spec = format!("{},max=1", backend.spec());
        let balancer = Balancer::start(mode, &["-b", &spec, "--connect-timeout", "300ms"]);
        let mut first = balancer.connect();
        first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(1);
        let start = Instant::now();
        let refused = balancer.connect().get("/");
        assert_eq!((refused.status(), refused.value("Retry-After")), (503, Some("1")), "{mode:?}");
        assert!(start.elapsed() >= Duration::from_millis(290));
        gate.open();
        assert_eq!(first.response("GET").text(), "ok");
        assert_eq!(balancer.metric("zzz_lb_waits_failed_total", ""), 1);
    }
}

#[test]
fn a_client_that_leaves_while_queued_takes_no_slot() {
    for mode in modes() {
        let gate = Gate::shut();
        let (backend, _) = holding(&gate);
        let spec = format!("{},max=1", backend.spec());
        let balancer = Balancer::start(mode, &["-b", &spec, "--connect-timeout", "20s"]);
        let ask = || {
            let client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            client
        };
        let mut first = ask();
        backend.wait_for_requests(1);
        let gone = ask();
        wait_until("it waits", || balancer.metric("zzz_lb_waits_total", "") == 1);
        gone.reset();
        // The remaining clients are the first one and the one that reads this metric.
        wait_until("it is seen to have gone", || balancer.metric("zzz_lb_client_connections", "") == 2);
        let mut behind = ask();
        wait_until("another waits behind it", || balancer.metric("zzz_lb_waits_total", "") == 2);
        gate.open();
        assert_eq!(first.response("GET").text(), "ok");
        assert_eq!(behind.response("GET").text(), "ok", "{mode:?}");
        assert_eq!(balancer.get("/"), "ok", "{mode:?}");
        assert_eq!(backend.count(), 3, "{mode:?}: that of who went is not sent");
        assert_eq!(balancer.metric("zzz_lb_waits_failed_total", ""), 0);
        assert_eq!(balancer.metric("zzz_lb_in_flight", ""), 0);
    }
}

#[test]
fn the_less_busy_is_preferred() {
    let gate = Gate::shut();
    let (slow, _) = holding(&gate);
    let quick = Backend::named("quick");
    let balancer = Balancer::before(Mode::Mp, &[&slow, &quick], &["-s", "least_requests"]);
    let clients: Vec<_> = (0..20)
        .map(|n| {
            let client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            wait_until("it is there", || slow.count() + quick.count() == n + 1);
            wait_until("only what is held is in flight", || {
                balancer.metric("zzz_lb_in_flight", "") == slow.count() as u64
            });
            client
        })
        .collect();
    assert!(slow.count() <= 1, "{} of 20 went to the one that is busy", slow.count());
    gate.open();
    drop(clients);
}

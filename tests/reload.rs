//! The configuration file, followed at run time.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::{Backend, Balancer, Directory, Exit, Gate, Mode, Wire, modes, response, wait_until};
use zzz_lb::limits::{BACKENDS, SLOTS};

fn file(backends: &[&Backend], more: &str) -> String {
    let specs: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.spec())).collect();
    format!("{{\"backends\": [{}]{more}}}", specs.join(", "))
}

#[test]
fn backends_come_and_go_with_the_file() {
    for mode in modes() {
        let (a, b) = (Backend::named("a"), Backend::named("b"));
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let mut client = balancer.connect();
        assert_eq!(client.get("/").text(), "a");
        // Written in place, replaced by rename, and written again.
        fs::write(&path, file(&[&b], "")).unwrap();
        let log = balancer.wait_for_log("+1 -1 ~0 backends: added ");
        assert!(log.contains("; removed ") && log.is_ascii(), "{log}");
        wait_until("the other serves", || client.get("/").text() == "b");
        a.wait_until_idle();
        let before = a.count();
        (0..10).for_each(|_| assert_eq!(client.get("/").text(), "b", "{mode:?}"));
        directory.put("lb.json", &file(&[&b, &a], ""));
        balancer.wait_for_log("+1 -0 ~0 backends");
        wait_until("both serve", || client.get("/").text() == "a");
        assert!(a.count() > before);
        assert_eq!(balancer.metric("zzz_lb_reloads_total", "done"), 2);
    }
}

#[test]
fn a_config_map_is_followed_through_its_links() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let directory = Directory::new();
    let version = |n: usize| {
        fs::create_dir(directory.file(&format!("..{n}"))).unwrap();
        fs::write(directory.file(&format!("..{n}/lb.json")), file(&[&backends[n]], "")).unwrap();
        symlink(format!("..{n}"), directory.file("..data_tmp")).unwrap();
        fs::rename(directory.file("..data_tmp"), directory.file("..data")).unwrap();
    };
    version(0);
    symlink("..data/lb.json", directory.file("lb.json")).unwrap();
    let balancer = Balancer::with_file(Mode::Mp, &directory.file("lb.json"), &[]);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        if n > 0 {
            version(n);
            fs::remove_dir_all(directory.path().join(format!("..{}", n - 1))).unwrap();
        }
        wait_until("the mounted version serves", || balancer.get("/") == name);
    }
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported_with_line_and_column() {
    for mode in modes() {
        let a = Backend::named("a");
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        directory.put("lb.json", "{\"backends\": [\n  {\"host\": \"127.0.0.1\", \"prt\": 1}\n]}");
        balancer.wait_for_log(&format!("err config: {}:2:25: unknown key 'prt'", path.display()));
        balancer.wait_for_log("the configuration before stays");
        assert_eq!(balancer.get("/"), "a");
        fs::remove_file(&path).unwrap();
        balancer.wait_for_log("No such file");
        assert_eq!(balancer.get("/"), "a");
        assert_eq!(balancer.metric("zzz_lb_reloads_total", "refused"), 2);
        // Later changes are still followed.
        let b = Backend::named("b");
        directory.put("lb.json", &file(&[&b], ""));
        wait_until("the file that is back holds", || balancer.get("/") == "b");
    }
}

#[test]
fn a_removed_backend_finishes_its_requests() {
    for mode in modes() {
        let gate = Gate::shut();
        let held = gate.clone();
        let a = Backend::serve(move |mut peer| {
            while peer.request().is_some() {
                held.pass();
                peer.send(response("", b"late"));
            }
        });
        let b = Backend::named("b");
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        a.wait_for_requests(1);
        directory.put("lb.json", &file(&[&b], ""));
        balancer.wait_for_log("+1 -1 ~0 backends");
        wait_until("both workers follow", || balancer.metric("zzz_lb_plan_edition", "") == 2);
        assert_eq!(balancer.get("/"), "b");
        gate.open();
        assert_eq!(client.response("GET").text(), "late", "{mode:?}");
        a.wait_until_idle();
        assert_eq!(client.get("/").text(), "b");
    }
}

#[test]
fn a_backend_that_stays_keeps_its_connection_and_its_counts() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let directory = Directory::new();
    let path = directory.put("lb.json", &file(&[&a], ""));
    let balancer = Balancer::with_file(Mode::Sp, &path, &[]);
    let mut client = balancer.connect();
    (0..5).for_each(|_| assert_eq!(client.get("/").text(), "a"));
    directory.put("lb.json", &file(&[&a, &b], ""));
    wait_until("the one added serves", || client.get("/").text() == "b");
    assert_eq!(client.get("/").text(), "a");
    assert_eq!(a.connections(), 1);
    assert!(balancer.metric("zzz_lb_requests_total", &a.spec()) >= 6);
}

#[test]
fn settings_change_with_the_file_and_fixed_ones_are_reported() {
    for mode in modes() {
        let gate = Gate::shut();
        let held = gate.clone();
        let a = Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/hold" {
                    held.pass();
                    return;
                }
                peer.send(response("", b"a"));
            }
        });
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        assert_eq!(balancer.get("/"), "a");
        directory.put("lb.json", &file(&[&a], ", \"response_timeout\": \"100ms\", \"user\": \"nobody\""));
        balancer.wait_for_log("user cannot change while it runs: that needs another start");
        wait_until("the new limit holds", || balancer.metric("zzz_lb_plan_edition", "") == 2);
        assert_eq!(balancer.connect().get("/hold").status(), 504, "{mode:?}");
        gate.open();
    }
}

#[test]
fn a_listener_is_added_by_a_reload_and_removed_by_an_upgrade() {
    for mode in modes() {
        let a = Backend::named("a");
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let mut kept = balancer.connect();
        assert_eq!(kept.get("/").text(), "a");
        // A port that somebody has is refused, and nothing changes.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = taken.local_addr().expect("bound");
        let listen = format!(", \"listen\": [\"{address}\"]");
        directory.put("lb.json", &file(&[&a], &listen));
        balancer.wait_for_log(&format!("cannot listen on {address}"));
        balancer.wait_for_log("refused: the configuration before stays");
        drop(taken);
        let pid = balancer.pid();
        balancer.signal(libc::SIGHUP);
        balancer.wait_for_log("listeners were added, and none was removed: an upgrade opens them now");
        balancer.wait_for_log("has taken over (generation 1)");
        assert_eq!(Wire::tcp(address).get("/").text(), "a", "{mode:?}");
        assert_eq!((kept.get("/").text(), balancer.get("/"), balancer.pid()), ("a".into(), "a".into(), pid));
        // Clients may wait on a listener, so a reload closes none.
        directory.put("lb.json", &file(&[&a], ""));
        balancer.wait_for_log("listen cannot change while it runs: that needs an upgrade (SIGUSR2)");
        assert_eq!(Wire::tcp(address).get("/").text(), "a", "{mode:?}");
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("has taken over (generation 2)");
        wait_until("nobody listens", || std::net::TcpStream::connect(address).is_err());
        assert_eq!(balancer.get("/"), "a");
    }
}

/// Workers from before the upgrade close the listener that was removed after a while. From the first moment, they accept
/// nobody from the one that stays: they would keep such clients, and so would not end.
#[test]
fn an_upgrade_that_removes_a_listener_moves_the_clients_of_the_others_at_once() {
    for mode in modes() {
        let a = Backend::named("a");
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ", \"listen\": [\"127.0.0.1:0\"]"));
        let balancer = Balancer::with_file(mode, &path, &["-l", "debug"]);
        let removed = balancer.listener(1);
        let workers = if mode == Mode::Sp { 1 } else { balancer.workers().len() };
        directory.put("lb.json", &file(&[&a], ""));
        balancer.wait_for_log("listen cannot change while it runs");
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("has taken over (generation 1)");
        let connect = |_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let mut client = balancer.connect();
            assert_eq!(client.get("/").text(), "a", "{mode:?}");
            client
        };
        let mut clients: Vec<Wire> = (0..40).map(connect).collect();
        // The first ones may have come before the signal to the old workers.
        clients.drain(..10);
        wait_until("the old workers have ended", || balancer.log().matches(" has drained").count() == workers);
        assert!(std::net::TcpStream::connect(removed).is_err(), "{mode:?}");
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "a", "{mode:?}"));
    }
}

#[test]
fn hup_reads_the_file_again() {
    for mode in modes() {
        let a = Backend::named("a");
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        balancer.signal(libc::SIGHUP);
        balancer.wait_for_log("+0 -0 ~0 backends: ");
        assert_eq!(balancer.get("/"), "a");
    }
}

/// Becomes true when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn no_request_fails_while_backends_change() {
    for mode in modes() {
        let (a, b) = (Backend::named("a"), Backend::named("b"));
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The clients end in any case.
            let _ended = SetOnDrop(&done);
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = balancer.connect();
                    while !done.load(SeqCst) {
                        assert_eq!(client.get("/").status(), 200);
                    }
                });
            }
            for n in 1..=30 {
                directory.put("lb.json", &file(&[if n % 2 == 0 { &a } else { &b }], ""));
                wait_until("it is taken up", || balancer.log().matches("+1 -1").count() == n);
            }
        });
    }
}

/// A file of `count` backends without listeners; each letter gives different ones.
fn crowd(letter: char, count: usize) -> String {
    let one = |n: usize| format!("\"127.{}.{}.{}:1\"", letter as u32, n / 256, n % 256);
    let specs: Vec<String> = (0..count).map(one).collect();
    format!("{{\"backends\": [{}]}}", specs.join(", "))
}

#[test]
fn the_maximum_of_backends_can_be_replaced_by_others() {
    for mode in modes() {
        let directory = Directory::new();
        let path = directory.put("lb.json", &crowd('a', 1024));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let swapped = |count| {
            let done = || balancer.log().matches("+1024 -1024 ~0 backends").count() == count;
            wait_until("there is room for them", done);
        };
        for (count, letter) in (1..SLOTS / BACKENDS).zip('b'..) {
            directory.put("lb.json", &crowd(letter, BACKENDS));
            swapped(count);
        }
        // So many more within seconds are too many: they wait until the released slots are free.
        directory.put("lb.json", &crowd('z', BACKENDS));
        balancer.wait_for_log("warn config: too many addresses have changed within seconds");
        if mode == Mode::Sp {
            swapped(SLOTS / BACKENDS);
        }
        // Another file replaces the one that waits.
        let a = Backend::named("a");
        directory.put("lb.json", &file(&[&a], ""));
        balancer.wait_for_log("+1 -1024 ~0 backends");
        wait_until("all follow", || balancer.connect().get("/").text() == "a");
        assert_eq!(balancer.metric("zzz_lb_reloads_total", "refused"), 0);
    }
}

#[test]
fn more_addresses_than_there_may_be_are_refused_whole() {
    let directory = Directory::new();
    let path = directory.put("lb.json", &crowd('a', 1025));
    let output = crate::support::run(&["-p", "0", "-c", path.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("1024"), "{stderr}");
    for mode in modes() {
        let a = Backend::named("a");
        directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        directory.put("lb.json", &crowd('b', 1025));
        balancer.wait_for_log("refused: the configuration before stays");
        assert_eq!(balancer.get("/"), "a");
        assert_eq!(balancer.metric("zzz_lb_plan_edition", ""), 1);
    }
}

#[test]
fn settings_that_change_take_effect() {
    for mode in modes() {
        let (a, b) = (Backend::named("a"), Backend::named("b"));
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let balancer = Balancer::with_file(mode, &path, &[]);
        let mut edition = 1;
        let mut set = |text: &str| {
            directory.put("lb.json", text);
            edition += 1;
            balancer.wait_for_log("lb.json: +");
            wait_until("it is taken up", || balancer.metric("zzz_lb_plan_edition", "") == edition);
        };
        // Each is visible in the backend's requests, from either worker.
        let sent = |part: &dyn Fn(&crate::support::Message) -> bool| {
            wait_until("it is followed", || {
                let mut client = balancer.connect();
                client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
                client.response("GET");
                a.requests().last().is_some_and(part)
            });
        };
        set(&file(&[&a], ", \"via\": \"edge\""));
        sent(&|request| request.value("Via") == Some("1.1 edge"));
        set(&file(&[&a], ", \"host_header\": \"backend\""));
        sent(&|request| request.value("Host") == Some(&a.spec()) && request.value("Via").is_none());
        set(&file(&[&a], ", \"trust\": [\"127.0.0.0/8\"]"));
        sent(&|request| request.value("X-Forwarded-For") == Some("1.2.3.4, 127.0.0.1"));
        set(&file(&[&a], ", \"trace\": true"));
        wait_until("messages are dumped", || {
            balancer.get("/seen");
            balancer.log().contains("GET /seen")
        });
        let weighted =
            format!("{{\"backends\": [\"{},weight=3\", \"{}\"], \"strategy\": \"weighted\"}}", a.spec(), b.spec());
        set(&weighted);
        wait_until("shares are those of the weights", || {
            let told: Vec<String> = (0..40).map(|_| balancer.get("/")).collect();
            told.iter().filter(|name| *name == "a").count() == 30
        });
        // From then on only errors are logged.
        directory.put("lb.json", &file(&[&a], ", \"loglevel\": \"err\""));
        wait_until("it is taken up", || balancer.metric("zzz_lb_plan_edition", "") == edition + 1);
        let told = || balancer.log().matches("info config: ").count() as u64;
        wait_until("the earlier edition is reported", || told() == edition - 1);
        balancer.signal(libc::SIGHUP);
        wait_until("it is read again", || balancer.metric("zzz_lb_plan_edition", "") == edition + 2);
        assert_eq!(told(), edition - 1, "{}", balancer.log());
    }
}

/// The master and a worker that cuts a request also follow the new level.
#[test]
fn every_process_follows_the_level_of_the_log() {
    for mode in modes() {
        let gate = Gate::shut();
        let held = gate.clone();
        let a = Backend::serve(move |mut peer| {
            while peer.request().is_some() {
                held.pass();
            }
        });
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let mut balancer = Balancer::with_file(mode, &path, &["--drain-timeout", "100ms", "--health-interval", "off"]);
        let edition = balancer.metric("zzz_lb_plan_edition", "");
        directory.put("lb.json", &file(&[&a], ", \"loglevel\": \"err\""));
        wait_until("it is taken up", || balancer.metric("zzz_lb_plan_edition", "") == edition + 1);
        let client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        a.wait_for_requests(1);
        let told = |log: &str| log.matches(" process: ").count();
        let before = told(&balancer.log());
        balancer.signal(libc::SIGTERM);
        assert_eq!(balancer.wait(), Exit::Status(1), "{mode:?}");
        let log = balancer.whole_log();
        assert_eq!(told(&log), before, "{mode:?}: {log}");
        gate.open();
    }
}

#[test]
fn the_target_of_probes_changes_with_the_file() {
    for mode in modes() {
        let a = Backend::named("a");
        let directory = Directory::new();
        let path = directory.put("lb.json", &file(&[&a], ""));
        let _balancer = Balancer::with_file(mode, &path, &["--health-interval", "100ms"]);
        a.wait_for_requests(1);
        directory.put("lb.json", &file(&[&a], ", \"health_path\": \"/up\""));
        wait_until("it is asked for", || a.requests().last().is_some_and(|probe| probe.target() == "/up"));
    }
}

#[test]
fn a_backend_of_weight_0_finishes_its_requests_and_gets_no_new_ones() {
    for mode in modes() {
        let gate = Gate::shut();
        let held = gate.clone();
        let a = Backend::named("a");
        let b = Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/hold" {
                    held.pass();
                }
                peer.send(response("", b"b"));
            }
        });
        let directory = Directory::new();
        let file = |weights: [u16; 2]| {
            let one = |backend: &Backend, weight: u16| format!("\"{},weight={weight}\"", backend.spec());
            let backends = format!("{}, {}", one(&a, weights[0]), one(&b, weights[1]));
            directory.put("lb.json", &format!("{{\"backends\": [{backends}]}}"))
        };
        let balancer = Balancer::with_file(mode, &file([0, 1]), &["--admin", "0"]);
        let mut client = balancer.connect();
        client.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        b.wait_for_requests(1);
        assert_eq!(a.count(), 0, "{mode:?}");
        file([1, 0]);
        wait_until("requests go to the other", || balancer.get("/") == "a");
        (0..10).for_each(|_| assert_eq!(balancer.get("/"), "a", "{mode:?}"));
        gate.open();
        assert_eq!(client.response("GET").text(), "b", "{mode:?}");
        assert_eq!(client.get("/").text(), "a", "{mode:?}: on the same connection");
        file([0, 0]);
        wait_until("nobody serves", || balancer.connect().get("/").status() == 503);
        let ready = Wire::tcp(balancer.admin()).get("/readyz");
        assert_eq!((ready.status(), ready.text().contains("no backends")), (503, true), "{mode:?}");
    }
}

#[test]
fn a_file_may_say_that_there_are_no_backends_yet() {
    for mode in modes() {
        let backend = Backend::named("a");
        let directory = Directory::new();
        let path = directory.put("lb.json", "{\"backends\": []}");
        let balancer = Balancer::with_file(mode, &path, &["--admin", "0"]);
        let ready = || Wire::tcp(balancer.admin()).get("/readyz").status();
        assert_eq!((balancer.connect().get("/").status(), ready()), (503, 503), "{mode:?}");
        directory.put("lb.json", &format!("{{\"backends\": [\"{}\"]}}", backend.spec()));
        wait_until("it serves", || balancer.connect().get("/").status() == 200);
        assert_eq!(ready(), 200, "{mode:?}");
        directory.put("lb.json", "{\"backends\": []}");
        wait_until("it serves no more", || balancer.connect().get("/").status() == 503);
        assert_eq!(ready(), 503, "{mode:?}");
    }
}

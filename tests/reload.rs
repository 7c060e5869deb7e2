//! The configuration file, followed while the program runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::{Backend, Balancer, Directory, Gate, Mode, modes, response, wait_until};

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
        // Written in place, renamed over, and once more.
        fs::write(&path, file(&[&b], "")).unwrap();
        balancer.wait_for_log("+1 \u{2212}1 ~0 backends");
        wait_until("the other serves", || client.get("/").text() == "b");
        a.wait_until_idle();
        let before = a.count();
        (0..10).for_each(|_| assert_eq!(client.get("/").text(), "b", "{mode:?}"));
        directory.put("lb.json", &file(&[&b, &a], ""));
        balancer.wait_for_log("+1 \u{2212}0 ~0 backends");
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
fn a_broken_file_changes_nothing_and_is_told_by_line_and_column() {
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
        // And it is followed on.
        let b = Backend::named("b");
        directory.put("lb.json", &file(&[&b], ""));
        wait_until("the file that is back holds", || balancer.get("/") == "b");
    }
}

#[test]
fn a_removed_backend_finishes_what_it_has() {
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
        balancer.wait_for_log("+1 \u{2212}1 ~0 backends");
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
fn settings_change_with_the_file_and_what_is_fixed_is_told() {
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
        balancer.wait_for_log("user cannot change while it runs");
        wait_until("the new limit holds", || balancer.metric("zzz_lb_plan_edition", "") == 2);
        assert_eq!(balancer.connect().get("/hold").status(), 504, "{mode:?}");
        gate.open();
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
        balancer.wait_for_log("+0 \u{2212}0 ~0 backends");
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
            // However this ends, the clients do too.
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
                wait_until("it is taken up", || balancer.log().matches("+1 \u{2212}1").count() == n);
            }
        });
    }
}

/// A file of `count` backends where nobody listens, others for each letter.
fn crowd(letter: char, count: usize) -> String {
    let one = |n: usize| format!("\"127.{}.{}.{}:1\"", letter as u32, n / 256, n % 256);
    let specs: Vec<String> = (0..count).map(one).collect();
    format!("{{\"backends\": [{}]}}", specs.join(", "))
}

#[test]
fn as_many_backends_as_there_may_be_are_swapped_for_as_many_others() {
    for mode in modes() {
        let directory = Directory::new();
        let path = directory.put("lb.json", &crowd('a', 1024));
        let balancer = Balancer::with_file(mode, &path, &[]);
        directory.put("lb.json", &crowd('b', 1024));
        balancer.wait_for_log("+1024 \u{2212}1024 ~0 backends");
        // So many more within seconds are too many: they wait until those that went are done with.
        directory.put("lb.json", &crowd('c', 1024));
        balancer.wait_for_log("warn config: too many addresses have changed within seconds");
        if mode == Mode::Sp {
            let done = || balancer.log().matches("+1024 \u{2212}1024 ~0 backends").count() == 2;
            wait_until("there is room for them", done);
        }
        // One that came meanwhile takes their place.
        let a = Backend::named("a");
        directory.put("lb.json", &file(&[&a], ""));
        balancer.wait_for_log("+1 \u{2212}1024 ~0 backends");
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

//! Too many clients, too slow clients, too few descriptors: others are served, nothing spins.

use crate::smuggling::assert_own_answer;
use crate::support::{Backend, Balancer, Fault, Mode, Wire, modes, processor_ticks, resident_kib, wait_until};
use std::time::{Duration, Instant};

/// Which of these connections have an answer waiting.
fn answered(clients: &mut [Option<Wire>], seen: &mut [bool]) -> usize {
    for (client, seen) in clients.iter_mut().zip(seen.iter_mut()) {
        if let Some(client) = client.as_mut().filter(|_| !*seen) {
            *seen = !client.silent_for(Duration::from_millis(10));
        }
    }
    seen.iter().filter(|&&seen| seen).count()
}

#[test]
fn past_max_connections_accepting_pauses_and_resumes() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--max-connections", "4"]);
        let mut clients: Vec<Option<Wire>> = (0..16).map(|_| Some(balancer.connect())).collect();
        let mut seen = vec![false; clients.len()];
        for client in clients.iter().flatten() {
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        let mut served = 0;
        wait_until("every client is served in its time", || {
            let open = answered(&mut clients, &mut seen);
            assert!(open <= 4, "{mode:?}: {open} held at once");
            // Those that are served go, and make room for others.
            for n in 0..clients.len() {
                if std::mem::take(&mut seen[n]) {
                    let mut client = clients[n].take().expect("it was answered");
                    assert_eq!(client.response("GET").text(), "backend");
                    served += 1;
                }
            }
            served == 16
        });
    }
}

#[test]
fn connections_past_the_limit_wait_while_it_is_reached() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &["--max-connections", "3"]);
    let mut held: Vec<Wire> = (0..3).map(|_| balancer.connect()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").text(), "backend");
    }
    let mut waiting = balancer.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let before = processor_ticks(balancer.pid());
    assert!(waiting.silent_for(Duration::from_millis(500)), "a fourth is not served");
    let used = processor_ticks(balancer.pid()) - before;
    assert!(used < 15, "it spins while it waits: {used} ticks of 50");
    for client in &mut held {
        assert_eq!(client.get("/").text(), "backend", "those held are served on");
    }
    held.pop();
    assert_eq!(waiting.response("GET").text(), "backend");
}

#[test]
fn running_out_of_descriptors_pauses_accepting() {
    let backend = Backend::named("backend");
    let balancer = Balancer::with_open_files(40, &["-b", &backend.spec()]);
    let mut clients: Vec<Wire> = (0..60).map(|_| balancer.connect()).collect();
    for client in &clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    for client in &mut clients {
        let answer = client.response("GET");
        assert!(matches!(answer.status(), 200 | 502 | 503), "{answer:?}");
    }
    // As many idle ones as there is room for, and more: it waits without spinning.
    let idle: Vec<Wire> = (0..60).map(|_| balancer.connect()).collect();
    let before = processor_ticks(balancer.pid());
    std::thread::sleep(Duration::from_millis(500));
    let used = processor_ticks(balancer.pid()) - before;
    assert!(used < 15, "it spins: {used} ticks of 50");
    drop(idle);
    wait_until("it serves again", || balancer.connect().get("/").status() == 200);
}

#[test]
fn slow_clients_do_not_stop_others_and_are_answered_408() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--request-timeout", "1500ms"]);
        let mut slow: Vec<Wire> = (0..200).map(|_| balancer.connect()).collect();
        for client in &slow {
            client.send("GET / HTTP/1.1\r\n");
        }
        let start = Instant::now();
        let mut worst = Duration::ZERO;
        let mut client = balancer.connect();
        while start.elapsed() < Duration::from_millis(1000) {
            let asked = Instant::now();
            assert_eq!(client.get("/").text(), "backend");
            worst = worst.max(asked.elapsed());
            for client in slow.iter().step_by(7) {
                let _ = client.try_send("y");
            }
        }
        assert!(worst < Duration::from_millis(800), "{mode:?}: a request took {worst:?}");
        for client in &mut slow {
            assert_own_answer("a slow head", &client.response("GET"), &[408]);
            assert!(matches!(client.end(), Fault::Fin | Fault::Reset));
        }
        assert_eq!(backend.connections(), 1, "nothing of the slow ones reached the backend");
    }
}

#[test]
fn idle_connections_cost_little_memory() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut clients: Vec<Wire> = (0..20).map(|_| balancer.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "backend");
    }
    let before = resident_kib(balancer.pid());
    let mut more: Vec<Wire> = (0..400).map(|_| balancer.connect()).collect();
    for client in &mut more {
        assert_eq!(client.get("/").text(), "backend");
    }
    let grown = resident_kib(balancer.pid()).saturating_sub(before);
    // A 64 KiB buffer for each would be 25 MiB; this is a debug build, so the bound is a rough one.
    assert!(grown < 2048, "400 idle connections cost {grown} KiB");
}

#[test]
fn max_connections_holds_over_all_workers_together() {
    let backend = Backend::named("backend");
    let args = ["--max-connections", "3", "-w", "4", "--mode", "mp", "-b", &backend.spec()];
    let balancer = Balancer::spawn({
        let mut command = crate::support::command(&["-p", "0", "--host", "127.0.0.1"]);
        command.args(args);
        command
    });
    let mut clients: Vec<Option<Wire>> = (0..24).map(|_| Some(balancer.connect())).collect();
    let mut seen = vec![false; clients.len()];
    for client in clients.iter().flatten() {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wait_until("every worker holds its share", || answered(&mut clients, &mut seen) >= 3);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(answered(&mut clients, &mut seen), 3);
}

#[test]
fn a_lack_of_descriptors_is_told_once() {
    let backend = Backend::named("backend");
    let balancer = Balancer::with_open_files(40, &["--max-connections", "1000", "-b", &backend.spec()]);
    let clients: Vec<Wire> = (0..60).map(|_| balancer.connect()).collect();
    std::thread::sleep(Duration::from_millis(600));
    let told = balancer.log().matches("accepting pauses").count();
    assert!(told <= 1, "told {told} times:\n{}", balancer.log());
    drop(clients);
    wait_until("it serves again", || balancer.get("/") == "backend");
}

/// Runs it where the system's limit of shared memory is set so; `None` where no such place can be made.
fn run_under(limit: &str, value: &str) -> Option<std::process::Output> {
    let inner = crate::support::command(&["-p", "0", "-b", "127.0.0.1:1"]);
    let mut shell = std::process::Command::new("unshare");
    let script = format!("echo {value} > /proc/sys/kernel/{limit} || exit 99; exec \"$0\" \"$@\"");
    shell.args(["-i", "/bin/sh", "-c", &script]).arg(inner.get_program()).args(inner.get_args());
    let output = shell.output().ok()?;
    (output.status.code() != Some(99) && !String::from_utf8_lossy(&output.stderr).contains("unshare")).then_some(output)
}

#[test]
fn a_system_that_gives_no_shared_memory_is_told_of_with_its_limit() {
    for (limit, value) in [("shmmax", "4096"), ("shmmni", "0"), ("shmall", "1")] {
        let Some(output) = run_under(limit, value) else {
            eprintln!("no limits of its own can be had here: not tested");
            return;
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let told = stderr.contains("of memory with the workers") && stderr.contains(&format!("kernel.{limit}"));
        assert!(told, "{limit}: {stderr}");
    }
}

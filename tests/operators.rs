//! Log and deployment from an operator's view: the journal, lost lines, the check of a running host, a reload
//! by systemd, and the variables that Kubernetes sets.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::support::{Backend, Balancer, Directory, Exit, Mode, command, modes, run, wait_until};

/// Runs a balancer that logs to a file. Returns the whole log.
fn log_in_file(mode: Mode, backend: &Backend, stream: impl Fn(&File) -> String) -> String {
    let directory = Directory::new();
    let path = directory.file("log");
    let file = File::create(&path).expect("a file");
    let mut command = command(&["-p", "0", "--host", "127.0.0.1", "-b", &backend.spec()]);
    command.args(mode.args()).env("JOURNAL_STREAM", stream(&file)).stderr(file);
    let mut child = command.spawn().expect("the binary starts");
    let log = || std::fs::read_to_string(&path).expect("a log of text");
    wait_until("it serves", || log().contains("listening on "));
    assert!(crate::support::send_signal(child.id() as i32, libc::SIGTERM));
    assert!(child.wait().expect("it ends").success());
    log()
}

#[test]
fn lines_for_the_journal_have_a_priority_and_no_time() {
    let backend = Backend::named("a");
    for mode in modes() {
        let of = |file: &File| file.metadata().expect("a file has some");
        let log = log_in_file(mode, &backend, |file| format!("{}:{}", of(file).dev(), of(file).ino()));
        assert!(log.contains("<6>info process: listening on "), "{mode:?}: {log}");
        assert!(log.lines().all(|line| line.starts_with('<') && line[2..].starts_with('>')), "{mode:?}: {log}");
        // Another stream is the journal: stderr was redirected.
        let log = log_in_file(mode, &backend, |file| format!("{}:{}", of(file).dev(), of(file).ino() + 1));
        assert!(log.lines().all(|line| line.starts_with("20") && line.contains("Z info ")), "{mode:?}: {log}");
    }
}

/// The report of lost lines had no time, and came only with the next line of the same process.
#[test]
fn lost_lines_are_reported_with_their_time_by_the_process_that_lost_them() {
    for mode in modes() {
        let backend = Backend::named("a");
        let mut command = command(&["-p", "0", "--host", "127.0.0.1", "-b", &backend.spec(), "--trace"]);
        command.args(mode.args());
        let (balancer, mut log) = Balancer::read_by_hand(command);
        let mut client = balancer.connect();
        for _ in 0..20 {
            assert_eq!(client.post("/", &[b'x'; 20_000]).status(), 200, "{mode:?}");
        }
        drop(client);
        let serving = balancer.serving();
        // The report comes as soon as there is space, even without another line.
        let (mut text, mut bytes) = (String::new(), [0; 4096]);
        while !text.contains(": stderr was full\n") {
            let count = log.read(&mut bytes).expect("a log");
            assert!(count > 0, "{mode:?}: it never reports");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
            // Earlier text is not needed.
            text.drain(..text.len().saturating_sub(2 * bytes.len()));
        }
        let line = text.lines().find(|line| line.ends_with(": stderr was full")).expect("just seen");
        let (time, rest) = line.split_once(" warn log: process ").unwrap_or_else(|| panic!("{mode:?}: {line}"));
        assert!(time.ends_with('Z') && time.starts_with("20"), "{mode:?}: {line}");
        assert!(serving.iter().any(|pid| rest.starts_with(&format!("{pid} lost "))), "{mode:?}: {line}");
        let (from, to) = rest.rsplit_once(" from ").and_then(|(_, span)| span.split_once(" to ")).expect("a span");
        assert!(from.starts_with("20") && from <= &to[..from.len()], "{mode:?}: {line}");
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        assert_eq!(balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

#[test]
fn the_check_of_a_balancer_that_runs_warns_and_exits_0() {
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &["--admin", "0"]);
        let (port, admin) = (balancer.address().port().to_string(), balancer.admin());
        let checked =
            run(&["--check", "-p", &port, "--host", "127.0.0.1", "--admin", &admin.to_string(), "-b", &backend.spec()]);
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{mode:?}: {told}");
        for address in [balancer.address(), admin] {
            let warning = format!(" warn check: cannot listen on {address} now: Address already in use");
            assert!(told.contains(&warning), "{mode:?}: {told}");
        }
        assert_eq!(balancer.get("/"), "a", "{mode:?}: it goes on");
    }
}

/// Does the same as systemd for `systemctl reload`: runs the lines one after another, until one fails.
fn reload(unit: &str, program: &str, file: &Path, pid: i32) -> bool {
    let lines: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecReload=")).collect();
    assert!(!lines.is_empty());
    lines.into_iter().all(|line| {
        let mut words = line.split(' ').map(|word| match word {
            "/usr/local/bin/load_balancer" => program.to_owned(),
            "/etc/load_balancer/lb.json" => file.display().to_string(),
            "$MAINPID" => pid.to_string(),
            other => other.to_owned(),
        });
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).env_clear().env("LB_PORT", "0").env("LB_HOST", "127.0.0.1");
        command.output().expect("it starts").status.success()
    })
}

/// `systemctl reload` reported success even for an invalid file.
#[test]
fn a_reload_by_systemd_fails_for_a_file_that_is_refused() {
    let unit = include_str!("../deploy/load_balancer.service");
    let program = env!("CARGO_BIN_EXE_load_balancer");
    for mode in modes() {
        let (one, two, directory) = (Backend::named("one"), Backend::named("two"), Directory::new());
        let path = directory.put("lb.json", &format!("{{\"backends\": [\"{}\"]}}", one.spec()));
        let balancer = Balancer::with_file(mode, &path, &[]);
        directory.put("lb.json", &format!("{{\"backends\": [\"{}\"]}}", two.spec()));
        assert!(reload(unit, program, &path, balancer.pid()), "{mode:?}");
        wait_until("it has reloaded", || balancer.get("/") == "two");
        directory.put("lb.json", "{\"backends\": [\"a:1:2\"]}");
        assert!(!reload(unit, program, &path, balancer.pid()), "{mode:?}");
        assert_eq!(balancer.get("/"), "two", "{mode:?}");
    }
}

/// A Service named lb made every start in its namespace fail.
#[test]
fn service_variables_of_kubernetes_are_ignored_with_a_warning() {
    for mode in modes() {
        let backend = Backend::named("a");
        let mut command = command(&["--host", "127.0.0.1", "-p", "0", "-b", &backend.spec()]);
        command.args(mode.args());
        command.env("LB_PORT", "tcp://10.0.0.1:80").env("LB_SERVICE_HOST", "10.0.0.1").env("LB_WORKER", "3");
        let balancer = Balancer::spawn(command);
        let log = balancer.log();
        assert!(log.contains(" warn config: LB_PORT, LB_SERVICE_HOST: ignored, as Kubernetes sets that"), "{log}");
        assert!(log.contains(" warn config: unknown variable LB_WORKER is ignored; did you mean LB_WORKERS?"), "{log}");
        assert_eq!(balancer.get("/"), "a", "{mode:?}");
    }
    // The option keeps its default then.
    let mut check = command(&["--check", "-b", "127.0.0.1:1"]);
    let output = check.env("LB_PORT", "tcp://10.0.0.1:80").output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("listener  0.0.0.0:8080\n"), "{output:?}");
}

#[test]
fn pods_do_without_service_links() {
    for text in
        [include_str!("../deploy/kubernetes/deployment.yaml"), include_str!("../deploy/kubernetes/sidecar.yaml")]
    {
        let pods = text.lines().filter(|line| line.trim() == "containers:").count();
        assert!(pods > 0);
        assert_eq!(text.lines().filter(|line| line.trim() == "enableServiceLinks: false").count(), pods, "{text}");
    }
}

//! The command line: accepted and refused arguments, and the wording of errors.

use crate::support::{Backend, Balancer, Directory, Wire, command, modes, run, send_signal, wait_until};
use std::process::Output;

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts a usage error: exit status 2 and one line that contains each of `parts`.
#[track_caller]
fn assert_usage_error(args: &[&str], parts: &[&str]) {
    let output = run(args);
    let text = err(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{args:?}: one line: {text}");
    assert_eq!(out(&output), "", "{args:?}: nothing on stdout");
    for part in parts {
        assert!(text.contains(part), "{args:?}: {part:?} is not in {text}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for flag in ["-h", "--help"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(err(&output), "");
        let text = out(&output);
        for option in [
            "-p",
            "--port",
            "--host",
            "-b",
            "--backend",
            "-w",
            "--workers",
            "-s",
            "--strategy",
            "-l",
            "--loglevel",
            "-t",
            "--trace",
            "-m",
            "--mode",
            "--demo",
            "--connect-timeout",
            "--request-timeout",
            "--response-timeout",
            "--idle-timeout",
            "--half-close",
            "--drain-timeout",
            "--max-connections",
            "--host-header",
            "--trust",
            "--via",
            "--user",
            "-c",
            "--config",
            "--check",
            "--health-path",
            "--health-interval",
            "--health-timeout",
            "--health-fails",
            "--health-passes",
            "--health-5xx",
            "--slow-start",
            "--retry-budget",
            "--admin",
            "-h",
            "--help",
            "-V",
            "--version",
        ] {
            assert!(text.contains(option), "{option} is not in:\n{text}");
        }
        assert!(!text.contains("--access-log"), "it does not exist yet");
    }
    for flag in ["-V", "--version"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).contains(env!("CARGO_PKG_VERSION")), "{}", out(&output));
    }
}

#[test]
fn an_unknown_option_is_named_with_the_nearest_known() {
    assert_usage_error(&["--prot", "80"], &["--prot", "--port"]);
    assert_usage_error(&["--backends", "a:1"], &["--backends", "--backend"]);
    assert_usage_error(&["--stratgy=random"], &["--stratgy", "--strategy"]);
    assert_usage_error(&["--insecur"], &["--insecur", "--insecure"]);
    assert_usage_error(&["-z"], &["-z"]);
    assert_usage_error(&["--zzzzzzzzzzzzzzzz"], &["--zzzzzzzzzzzzzzzz"]);
}

#[test]
fn a_bad_value_is_named_with_the_accepted_values() {
    assert_usage_error(&["-p", "http"], &["-p", "http"]);
    assert_usage_error(&["--port", "65536"], &["--port", "65536", "65535"]);
    assert_usage_error(&["--port=-1"], &["--port", "-1"]);
    assert_usage_error(&["--port="], &["--port"]);
    assert_usage_error(&["-p"], &["-p"]);
    assert_usage_error(&["--port"], &["--port"]);
    assert_usage_error(&["--host", "not an ip"], &["--host", "not an ip"]);
    assert_usage_error(&["-w", "0"], &["-w", "0"]);
    assert_usage_error(&["-w", "many"], &["-w", "many"]);
    assert_usage_error(&["-s", "robin"], &["-s", "robin", "round_robin", "weighted", "random", "least_requests"]);
    assert_usage_error(&["-l", "loud"], &["-l", "loud", "err", "warn", "info", "debug"]);
    assert_usage_error(&["-m", "tp"], &["-m", "tp", "mp", "sp"]);
    assert_usage_error(&["--connect-timeout", "2"], &["--connect-timeout", "2", "ms"]);
    assert_usage_error(&["--connect-timeout", "2d"], &["--connect-timeout", "2d"]);
    assert_usage_error(&["--idle-timeout=-2s"], &["--idle-timeout", "-2s"]);
    assert_usage_error(&["--max-connections", "0"], &["--max-connections", "0"]);
    assert_usage_error(&["--trust", "10.0.0.0/33"], &["--trust", "10.0.0.0/33"]);
    assert_usage_error(&["--trust", "everyone"], &["--trust", "everyone"]);
    assert_usage_error(&["--via", "a b"], &["--via", "a b"]);
    assert_usage_error(&["--host-header", "a b"], &["--host-header", "a b"]);
    assert_usage_error(&["--trace=maybe"], &["--trace", "maybe"]);
    assert_usage_error(&["--health-path", "up"], &["--health-path", "up", "/"]);
    assert_usage_error(&["--health-interval", "5"], &["--health-interval", "5", "ms", "off"]);
    assert_usage_error(&["--health-timeout", "off"], &["--health-timeout", "off", "ms"]);
    assert_usage_error(&["--health-fails", "0"], &["--health-fails", "0", "1000"]);
    assert_usage_error(&["--health-passes", "1001"], &["--health-passes", "1001", "1000"]);
    assert_usage_error(&["--slow-start", "long"], &["--slow-start", "long", "off"]);
    assert_usage_error(&["--retry-budget", "101"], &["--retry-budget", "101", "100"]);
    assert_usage_error(&["--admin", "nowhere.invalid:9100"], &["--admin", "nowhere.invalid:9100", "/etc/hosts"]);
    assert_usage_error(&["--config", ""], &["--config", "file"]);
    assert_usage_error(&["stray"], &["stray"]);
    assert_usage_error(&["--", "stray"], &["stray"]);
}

#[test]
fn all_errors_of_a_command_line_are_reported_one_per_line() {
    let output = run(&["--prot", "80", "-w", "0", "-b", "host", "-s", "robin"]);
    let text = err(&output);
    assert_eq!((output.status.code(), out(&output)), (Some(2), String::new()));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (line, option) in lines.iter().zip(["--prot", "--workers '0'", "--backend 'host'", "--strategy 'robin'"]) {
        assert!(line.starts_with("load_balancer: ") && line.contains(option), "{line}");
    }
}

#[test]
fn a_bad_backend_is_named_with_the_accepted_form() {
    for spec in [
        "",
        "host",
        "host:",
        ":0",
        "70000",
        "host:0",
        "host:65536",
        "host:http",
        "ho st:80",
        "[::1]",
        "[::1:80",
        "::1:80",
        "unix:",
        "ftp://host:80",
        "host:80/path",
        "host:80,weight=-1",
        "host:80,weight=x",
        "host:80,wieght=2",
        "host:80,backup=1",
        "host:80,max=0",
        "host:80,max=1000001",
        "host:80,",
        "http://host:80/api/",
        "host:80,other:81",
    ] {
        assert_usage_error(&["-b", spec], &["-b", spec]);
    }
    let output = run(&["-b", "http://user:secret@host:80"]);
    assert!(err(&output).contains("user name or password") && !err(&output).contains("secret"), "{output:?}");
}

#[test]
fn tls_without_authorities_is_refused_at_once() {
    for spec in ["https://127.0.0.1:8443", "127.0.0.1:443", "https://127.0.0.1"] {
        let args = ["-p", "0", "-b", spec, "--ca-file", "/nowhere.pem"];
        assert_usage_error(&args, &["no certificate authorities", "--ca-file /nowhere.pem"]);
    }
}

#[test]
fn authorities_are_read_even_if_no_backend_speaks_tls_yet() {
    let args = ["-p", "0", "-b", "127.0.0.1:1", "--ca-file", "/nowhere.pem"];
    assert_usage_error(&args, &["no certificate authorities", "--ca-file /nowhere.pem"]);
}

#[test]
fn a_pipe_is_no_configuration_and_never_waited_for() {
    let directory = Directory::new();
    let pipe = directory.file("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let pipe = pipe.to_str().expect("a path of ours");
    assert_usage_error(&["-c", pipe], &["--config", pipe, "not a regular file"]);
    assert_usage_error(&["--check", "-c", pipe], &["--config", pipe, "not a regular file"]);
    let args = ["-p", "0", "-b", "https://127.0.0.1:1", "--ca-file", pipe];
    assert_usage_error(&args, &["no certificate authorities", "not a regular file"]);
}

#[test]
fn names_of_this_host_are_listened_on() {
    let backend = Backend::named("backend");
    let args = ["-p", "0", "--host", "localhost", "--admin", "localhost:0", "-b", &backend.spec(), "-m", "sp"];
    let balancer = Balancer::spawn(command(&args));
    assert_eq!(balancer.get("/"), "backend");
    assert!(balancer.address().ip().is_loopback() && balancer.admin().ip().is_loopback());
    let asked = run(&["healthcheck", &format!("localhost:{}/livez", balancer.admin().port())]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
}

#[test]
fn a_start_without_the_standard_descriptors_works() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let directory = Directory::new();
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it has one").port();
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-", env!("CARGO_BIN_EXE_load_balancer")]);
        shell.args(["--host", "127.0.0.1", "-p", &port.to_string(), "-b", &backend.spec()]).args(mode.args());
        let mut child = shell.env_clear().current_dir(directory.file(".")).spawn().expect("a shell runs");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        wait_until("it listens", || std::net::TcpStream::connect(address).is_ok());
        let mut client = Wire::tcp(address);
        for _ in 0..5 {
            assert_eq!(client.get("/").text(), "backend", "{mode:?}");
        }
        drop(client);
        assert!(send_signal(child.id() as i32, libc::SIGTERM));
        assert_eq!(child.wait().expect("a child can be waited for").code(), Some(0), "{mode:?}");
    }
}

#[test]
fn contradictory_options_are_refused() {
    assert_usage_error(&["--mode", "sp", "-w", "4", "-b", "127.0.0.1:1"], &["-w", "sp"]);
    assert_usage_error(&["--mode", "sp", "--watchdog", "5s", "-b", "127.0.0.1:1"], &["--watchdog", "sp"]);
    assert_usage_error(&["--demo", "-b", "127.0.0.1:1"], &["--demo"]);
    assert_usage_error(&["-p", "8081", "--admin", "0.0.0.0:8081"], &["--admin", "0.0.0.0:8081", "8081"]);
    assert_usage_error(&["-b", "127.0.0.1:1", "-b", "http://127.0.0.1:1"], &["-b", "127.0.0.1:1", "once"]);
}

#[test]
fn values_come_attached_or_apart_and_options_end_at_two_dashes() {
    let backend = Backend::named("backend");
    let spec = backend.spec();
    for args in [
        vec!["-p", "0", "--host", "127.0.0.1", "--backend", &spec, "--mode", "sp"],
        vec!["--port=0", "--host=127.0.0.1", &format!("--backend={spec}"), "--mode=sp", "--"],
        vec!["-p0", "--host", "127.0.0.1", &format!("-b{spec}"), "-msp"],
    ] {
        let balancer = Balancer::spawn(command(&args));
        assert_eq!(balancer.get("/"), "backend", "{args:?}");
    }
}

#[test]
fn an_option_beats_the_environment_and_the_environment_the_default() {
    let backend = Backend::named("backend");
    let spec = backend.spec();
    let mut from_environment = command(&[]);
    from_environment.envs([("LB_PORT", "0"), ("LB_HOST", "127.0.0.1"), ("LB_MODE", "sp"), ("LB_BACKEND", &spec)]);
    let balancer = Balancer::spawn(from_environment);
    assert_eq!(balancer.get("/"), "backend");
    assert!(balancer.address().ip().is_loopback());
    assert_eq!(balancer.workers(), []);

    let mut both = command(&["-p", "0", "--host", "127.0.0.1", "-b", &spec, "-m", "sp"]);
    both.envs([("LB_PORT", "1"), ("LB_HOST", "192.0.2.1"), ("LB_MODE", "mp")]);
    assert_eq!(Balancer::spawn(both).get("/"), "backend");

    let mut wrong = command(&["-b", &spec]);
    wrong.env("LB_PORT", "http").stderr(std::process::Stdio::piped());
    let output = wrong.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("LB_PORT") && err(&output).contains("http"), "{}", err(&output));
}

#[test]
fn without_a_backend_the_two_default_ones_are_named() {
    let balancer = Balancer::spawn(command(&["-p", "0", "--host", "127.0.0.1", "-m", "sp"]));
    let log = balancer.wait_for_log("127.0.0.1:9002");
    assert!(log.contains("127.0.0.1:9001"), "{log}");
}

#[test]
fn log_lines_carry_time_level_and_module() {
    let balancer = Balancer::spawn(command(&["-p", "0", "--host", "127.0.0.1", "-m", "sp", "-b", "127.0.0.1:1"]));
    for line in balancer.log().lines() {
        let mut words = line.splitn(4, ' ');
        let (time, level, module) = (words.next(), words.next(), words.next());
        assert!(time.is_some_and(|time| time.len() == 24 && time.ends_with('Z')), "{line}");
        assert!(level.is_some_and(|level| ["err", "warn", "info", "debug"].contains(&level)), "{line}");
        assert!(module.is_some_and(|module| module.ends_with(':')), "{line}");
    }
}

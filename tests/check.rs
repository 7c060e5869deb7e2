//! `--check`: the plan on stdout, every problem on stderr, and the exit status.

use crate::support::{Backend, Directory, PROTOCOLS, VACANT, Way, command, ignore_when_full, response, run, skipped};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;

use zzz_lb::shared::Region;

/// Returns the lines of stdout and stderr, and the exit status.
fn check(args: &[&str]) -> (Vec<String>, Vec<String>, Option<i32>) {
    let all: Vec<&str> = ["--check"].iter().chain(args).copied().collect();
    told(&run(&all))
}

fn told(output: &Output) -> (Vec<String>, Vec<String>, Option<i32>) {
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    (lines(&output.stdout), lines(&output.stderr), output.status.code())
}

/// A port with a listener that never answers. Its address is used by no other test, because those expect some
/// ports of 127.0.0.1 to be free.
fn taken() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.2:0").expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    (listener, address)
}

/// A line of the plan without its time.
fn timeless(line: &str) -> &str {
    line.split_once(" reachable (").map_or(line, |(address, time)| {
        assert!(time.strip_suffix(" ms)").is_some_and(|ms| ms.parse::<f64>().is_ok()), "{line}");
        address
    })
}

#[test]
fn the_plan_lists_the_settings_and_their_sources() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let (one_at, two_at) = (one.spec(), two.spec());
    let directory = Directory::new();
    let text = format!("{{\n  \"strategy\": \"random\",\n  \"backends\": [\"{one_at},weight=2,backup,max=9\"]\n}}\n");
    let file = directory.put("lb.json", &text).display().to_string();
    let second = format!("localhost:{}", two_at.rsplit(':').next().expect("a port"));
    let (lines, warnings, status) =
        check(&["-c", &file, "-b", &second, "-p", "0", "--host", "127.0.0.1", "-w", "3", "--admin", "0"]);
    assert_eq!((warnings, status), (vec![], Some(0)));
    let lines: Vec<&str> = lines.iter().map(|line| timeless(line)).collect();
    let path = file.as_str();
    let expected = [
        "listener  127.0.0.1:0, any free port",
        "admin     127.0.0.1:0, any free port",
        "mode      mp, 3 workers",
        "strategy  random",
        &format!("backend   {second}: HTTP/1.1, no TLS, weight 1"),
        &format!("            {two_at}"),
        &format!("backend   {one_at}: HTTP/1.1, no TLS, weight 2, backup, max 9"),
        &format!("            {one_at}"),
    ];
    assert_eq!(lines[..expected.len()], expected);
    let settings = &lines[expected.len()..];
    assert!(settings.iter().all(|line| line.starts_with("setting   ")), "{settings:?}");
    for setting in [
        "port = 0 (--port)".to_owned(),
        "workers = 3 (--workers)".to_owned(),
        format!("config = {path} (--config)"),
        format!("strategy = random ({path}:2:15)"),
        format!("backend = {one_at},weight=2,backup,max=9 ({path}:3:16)"),
        "health-interval = off (LB_HEALTH_INTERVAL)".to_owned(),
    ] {
        assert!(settings.contains(&format!("setting   {setting}").as_str()), "{setting}: {settings:?}");
    }
    assert!(!settings.iter().any(|line| line.contains("--check")), "{settings:?}");
    assert_eq!((one.count(), two.count()), (0, 0), "they are dialled, and sent nothing");
}

#[test]
fn a_backend_that_cannot_be_reached_is_a_warning() {
    let (listener, _) = taken();
    let (silent, _held) = ignore_when_full(&listener);
    let (silent, socket) = (silent.to_string(), "unix:/nonexistent/socket");
    let (lines, warnings, status) = check(&[
        "-p",
        "0",
        "-m",
        "sp",
        "--connect-timeout",
        "100ms",
        "-b",
        VACANT,
        "-b",
        &silent,
        "-b",
        socket,
        "-b",
        "nothing.invalid:80",
    ]);
    assert_eq!(status, Some(0), "{warnings:?}");
    assert!(lines.contains(&"mode      sp, one process".to_owned()), "{lines:?}");
    for (at, reason) in [
        (VACANT, "Connection refused"),
        (silent.as_str(), "no answer within 100 ms"),
        (socket, "No such file or directory"),
    ] {
        assert!(lines.contains(&format!("            {at} unreachable ({reason})")), "{lines:?}");
        assert!(warnings.iter().any(|line| line.contains(" warn ") && line.contains(at) && line.contains(reason)));
    }
    assert!(lines.iter().any(|line| line.starts_with("            unresolved (")), "{lines:?}");
    assert!(warnings.iter().any(|line| line.contains("nothing.invalid cannot be looked up")), "{warnings:?}");
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[test]
fn an_account_that_is_not_there_is_a_problem_and_an_address_in_use_is_not() {
    let ((_one, port), (_two, admin)) = (taken(), taken());
    let backend = Backend::named("backend");
    let (lines, problems, status) = check(&[
        "--host",
        "127.0.0.2",
        "-p",
        &port.port().to_string(),
        "--admin",
        &admin.to_string(),
        "--user",
        "no-such-user",
        "-b",
        &backend.spec(),
    ]);
    assert_eq!(status, Some(2));
    let parts = [
        format!(" warn check: cannot listen on {port} now: Address already in use"),
        format!(" warn check: cannot listen on {admin} now: Address already in use"),
        "load_balancer: --user no-such-user: there is no user".to_owned(),
    ];
    assert_eq!(problems.len(), parts.len(), "{problems:?}");
    for (problem, part) in problems.iter().zip(&parts) {
        assert!(problem.contains(part), "{problem}");
    }
    assert!(lines.iter().any(|line| line.contains(" reachable (")), "the plan is printed nevertheless: {lines:?}");
}

#[test]
fn problems_of_every_kind_are_reported_together() {
    let (_listener, port) = taken();
    let directory = Directory::new();
    let file = directory.put("lb.json", "{\"workers\": 0, \"prot\": 80}").display().to_string();
    let port_text = port.port().to_string();
    let args = ["--host", "127.0.0.2", "-p", &port_text, "-s", "robin", "-b", "a:1", "-b", "A:1", "-c", &file];
    let (lines, problems, status) = check(&args);
    assert_eq!((lines, status), (vec![], Some(2)), "what would run is not known");
    let parts = [
        "--strategy 'robin': unknown".to_owned(),
        format!("{file}:1:13: workers '0'"),
        format!("{file}:1:16: unknown key 'prot'"),
        "--backend 'A:1': the same backend".to_owned(),
    ];
    // The address in use is a warning, which comes first.
    let (in_use, problems) = problems.split_first().expect("there are some");
    assert!(in_use.contains(&format!(" warn check: cannot listen on {port} now: Address already in use")), "{in_use}");
    assert_eq!(problems.len(), parts.len(), "{problems:?}");
    for (problem, part) in problems.iter().zip(&parts) {
        assert!(problem.starts_with(&format!("load_balancer: {part}")), "{problem}");
    }
}

#[test]
fn no_default_is_reported_if_a_given_value_is_invalid() {
    for args in [["-p", "http", "--admin", "8080"], ["--prot", "8081", "--admin", "8080"]] {
        let (_, problems, status) = check(&args);
        assert_eq!(status, Some(2));
        assert!(!problems.iter().any(|line| line.contains("0.0.0.0:8080")), "{problems:?}");
    }
}

#[test]
fn more_addresses_than_there_is_room_for_are_a_problem() {
    let specs: Vec<String> = (1..=1025).map(|port| format!("127.0.0.1:{}", port + 10_000)).collect();
    let args: Vec<&str> = specs.iter().flat_map(|spec| ["-b", spec]).chain(["-p", "0"]).collect();
    let (lines, problems, status) = check(&args);
    assert_eq!((lines.len(), problems.len(), status), (0, 1, Some(2)), "{problems:?}");
    assert!(problems[0].contains("too many are given") && problems[0].contains("at most 1024"), "{problems:?}");
}

#[test]
fn the_demo_and_the_default_backends_are_listed() {
    let (lines, warnings, status) = check(&["--demo", "-p", "0"]);
    assert_eq!((warnings, status), (vec![], Some(0)));
    assert_eq!(lines.iter().filter(|line| line.starts_with("backend   the demo's own")).count(), 2, "{lines:?}");
    let (lines, _, status) = check(&["-p", "0"]);
    assert_eq!(status, Some(0));
    assert!(
        lines.contains(&"backend   127.0.0.1:9002: HTTP/1.1, no TLS, weight 1, by default".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn the_environment_can_ask_for_a_check() {
    let backend = Backend::named("backend");
    let mut asked = command(&["-p", "0", "-b", &backend.spec()]);
    asked.env("LB_CHECK", "1");
    let (lines, warnings, status) = told(&asked.output().expect("it runs"));
    assert_eq!((warnings, status), (vec![], Some(0)));
    assert!(lines[0].starts_with("listener"), "{lines:?}");
}

/// Shared memory was tried for fewer workers than configured.
#[test]
fn shared_memory_is_tried_for_all_workers() {
    let most = (Region::bytes(64) + Region::bytes(160)) / 2;
    let script = format!("echo {most} > /proc/sys/kernel/shmmax && exec \"$0\" \"$@\"");
    let asked = |args: &[&str]| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec unshare --ipc sh -c \"$@\"", "sh", &script]);
        shell.args([env!("CARGO_BIN_EXE_load_balancer"), "-p", "0", "-b", VACANT]);
        told(&shell.args(args).output().expect("a shell can be run"))
    };
    let (_, warnings, status) = asked(&["--check", "-w", "1"]);
    if status != Some(0) {
        return skipped(format_args!("no limit of shared memory can be set here: {warnings:?}"));
    }
    for args in [&["--check", "-w", "16"][..], &["-w", "16"]] {
        let (_, problems, status) = asked(args);
        assert_ne!(status, Some(0), "{args:?}: {problems:?}");
        assert!(problems.iter().any(|line| line.contains("(more than kernel.shmmax)")), "{args:?}: {problems:?}");
    }
}

/// A backend that answers 200 to requests for `/up` of one host, and 404 to all others.
fn picky() -> Backend {
    Backend::serve(|mut peer| {
        while let Some(request) = peer.request() {
            let passes = request.target() == "/up" && request.value("Host") == Some("app.example");
            let status = if passes { "200 OK" } else { "404 Not Found" };
            // An interim response decides nothing, and the probe does not wait for content.
            let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
            peer.send(format!("{interim}HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\nabc"));
        }
    })
}

/// Checks a backend with probes on. Returns the line of its address, the warnings, and the status.
fn probed(args: &[&str]) -> (String, Vec<String>, Option<i32>) {
    let (lines, warnings, status) = check(&[&["-p", "0", "--health-interval", "1s"], args].concat());
    let address = lines.iter().skip_while(|line| !line.starts_with("backend")).nth(1);
    (address.cloned().unwrap_or_default(), warnings, status)
}

#[test]
fn each_backend_is_probed_as_a_start_would_probe_it() {
    let backend = picky();
    for protocol in PROTOCOLS {
        let way = Way::to(&backend, protocol);
        let probe = |more: &[&str]| probed(&[&way.args()[..], more].concat());
        let (line, warnings, status) = probe(&["--health-path", "/up", "--health-host", "app.example"]);
        assert!(line.contains(" reachable (") && line.ends_with(", GET /up -> 200"), "{protocol:?}: {line}");
        assert_eq!((warnings, status), (vec![], Some(0)), "{protocol:?}");
        // Without a path, any response below 500 passes.
        let (line, warnings, _) = probe(&[]);
        assert!(line.ends_with(", GET / -> 404") && warnings.is_empty(), "{protocol:?}: {line} {warnings:?}");
        let (line, warnings, status) = probe(&["--health-path", "/up"]);
        let reason = "unhealthy (GET /up -> 404; --health-status 200-399)";
        assert!(line.ends_with(reason), "{protocol:?}: {line}");
        assert_eq!((warnings.len(), status), (1, Some(0)), "{protocol:?}: {warnings:?}");
        assert!(warnings[0].contains(" warn check: backend ") && warnings[0].contains(" is unhealthy at "));
        assert!(warnings[0].ends_with("(GET /up -> 404; --health-status 200-399)"), "{warnings:?}");
        // A probe of type tcp sends no request, and neither does a start without probes.
        let before = backend.count();
        for none in ["tcp", "off"] {
            let (line, warnings, _) = probe(&["--health-check", none]);
            assert!(line.contains(" reachable (") && !line.contains("GET"), "{protocol:?} {none}: {line}");
            assert_eq!(warnings, [""; 0], "{protocol:?} {none}");
        }
        assert_eq!(backend.count(), before, "{protocol:?}");
    }
}

#[test]
fn a_unix_socket_is_probed_too() {
    let directory = Directory::new();
    let backend = Backend::serve_unix(&directory.file("backend.sock"), |mut peer| {
        while peer.request().is_some() {
            peer.send(response("", b"well"));
        }
    });
    let (line, warnings, status) = probed(&["-b", &backend.spec()]);
    assert!(line.ends_with(", GET / -> 200"), "{line}");
    assert_eq!((warnings, status), (vec![], Some(0)));
    assert_eq!(backend.last().values("Host"), ["localhost"]);
}

#[test]
fn a_probe_without_a_response_is_a_warning_that_says_why() {
    let half = Backend::serve(|mut peer| {
        peer.request_head();
        peer.send("HTTP/1.1 20");
    });
    let other = Backend::serve(|mut peer| {
        // The preface of HTTP/2 is not an HTTP/1 request, so it is read as bytes.
        peer.send("SSH-2.0-OpenSSH_9.2\r\n");
        peer.rest();
    });
    let (listener, silent) = taken();
    for (spec, reason) in [
        (half.spec(), "GET / -> closed before the response was complete; --health-check http"),
        (other.spec(), "GET / -> malformed response: "),
        (format!("h2c://{}", other.spec()), "GET / -> broke HTTP/2: "),
        (silent.to_string(), "GET / -> no response within --health-timeout"),
        (format!("h2c://{silent}"), "GET / -> no response within --health-timeout"),
    ] {
        let (line, warnings, status) = probed(&["--health-timeout", "300ms", "-b", &spec]);
        assert!(line.contains(&format!(" unhealthy ({reason}")), "{spec}: {line}");
        assert_eq!((warnings.len(), status), (1, Some(0)), "{warnings:?}");
        assert!(warnings[0].contains(reason), "{warnings:?}");
    }
    drop(listener);
}

/// Runs a shell with these lines in /etc/hosts; `None` if that is impossible here.
fn with_hosts(directory: &Directory, text: &str, args: &[&str]) -> Option<Output> {
    let hosts = directory.put("hosts", text);
    let script = "mount --bind \"$0\" /etc/hosts || exit 99; exec \"$@\"";
    let mut shell = std::process::Command::new("unshare");
    shell.args(["--mount", "sh", "-c", script]).arg(hosts).arg(env!("CARGO_BIN_EXE_load_balancer"));
    let output = shell.args(args).output().ok()?;
    (output.status.code() != Some(99) && !String::from_utf8_lossy(&output.stderr).contains("unshare")).then_some(output)
}

#[test]
fn of_a_name_with_a_dead_address_the_other_is_probed() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skipped("no IPv6 here");
    }
    let backend = picky();
    let spec = backend.spec().replace("127.0.0.1", "localhost");
    let port = spec.rsplit(':').next().expect("a port");
    let directory = Directory::new();
    let args = ["--check", "-p", "0", "--health-host", "app.example", "--health-path", "/up", "-b", &spec];
    let Some(output) = with_hosts(&directory, "127.0.0.1 localhost\n::1 localhost\n", &args) else {
        return skipped("/etc/hosts cannot be replaced here");
    };
    let (lines, warnings, status) = told(&output);
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    let well = format!("127.0.0.1:{port} reachable (");
    assert!(lines.iter().any(|line| line.starts_with(&well) && line.ends_with("GET /up -> 200")), "{lines:?}");
    let dead = format!("[::1]:{port} unreachable (Connection refused)");
    assert!(lines.contains(&dead.as_str()), "{lines:?}");
    assert_eq!((warnings.len(), status), (1, Some(0)), "{warnings:?}");
    assert!(warnings[0].contains(&format!("backend {spec} is unreachable at [::1]:{port}")), "{warnings:?}");
}

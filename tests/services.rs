//! Service managers and containers: notifications, passed listeners, and the health check for an image without
//! another client.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Backend, Balancer, DEADLINE, Directory, Exit, VACANT, Wire, command, modes, run, wait_until};

struct Manager(UnixDatagram);

impl Manager {
    /// The next waiting notification, except heartbeats.
    fn heard(&self) -> Option<String> {
        self.0.set_nonblocking(true).expect("a socket can be");
        let mut bytes = [0; 500];
        let texts = std::iter::from_fn(|| {
            let length = self.0.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        });
        texts.into_iter().find(|text| text != "WATCHDOG=1\n")
    }

    /// Waits for the next notification, except heartbeats.
    #[track_caller]
    fn hears(&self) -> String {
        self.0.set_read_timeout(Some(DEADLINE)).expect("not zero");
        loop {
            let mut bytes = [0; 500];
            let length = self.0.recv(&mut bytes).expect("something is said in time");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text != "WATCHDOG=1\n" {
                return text;
            }
        }
    }
}

#[test]
fn a_service_manager_gets_status_notifications() {
    for mode in modes() {
        let (backend, directory) = (Backend::named("a"), Directory::new());
        let manager = Manager(UnixDatagram::bind(directory.file("notify")).expect("a socket"));
        let path = directory.put("lb.json", &format!("{{\"backends\": [\"{}\"]}}", backend.spec()));
        let mut command = command(&["--host", "127.0.0.1", "-p", "0", "-c", path.to_str().expect("ours")]);
        command.args(mode.args()).env("NOTIFY_SOCKET", directory.file("notify"));
        let mut balancer = Balancer::spawn(command);
        let ready = manager.hears();
        let status = format!("STATUS=serving 1 backend at {}\n", balancer.address());
        assert!(ready.starts_with("READY=1\n") && ready.contains(&status), "{mode:?}: {ready}");
        for signal in [libc::SIGHUP, libc::SIGUSR2, libc::SIGHUP] {
            balancer.signal(signal);
            let reloading = manager.hears();
            assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{mode:?}: {reloading}");
            assert!(manager.hears().starts_with("READY=1\n"), "{mode:?}");
            assert_eq!(balancer.get("/"), "a");
        }
        let client = balancer.connect();
        balancer.signal(libc::SIGTERM);
        assert!(manager.hears().starts_with("STOPPING=1\n"), "{mode:?}");
        // A reload during the drain does not make it ready again.
        directory.put("lb.json", &format!("{{\"backends\": [\"{},weight=2\"]}}", backend.spec()));
        balancer.wait_for_log("~1 backends");
        drop(client);
        assert_eq!(balancer.wait(), Exit::Status(0));
        assert_eq!(manager.heard(), None, "{mode:?}");
    }
}

#[test]
fn a_service_manager_with_a_watchdog_gets_heartbeats() {
    for mode in modes() {
        let directory = Directory::new();
        let manager = UnixDatagram::bind(directory.file("notify")).expect("a socket");
        manager.set_read_timeout(Some(DEADLINE)).expect("not zero");
        let mut command = command(&["--host", "127.0.0.1", "-p", "0"]);
        command.args(mode.args()).env("NOTIFY_SOCKET", directory.file("notify")).env("WATCHDOG_USEC", "100000");
        let _balancer = Balancer::spawn(command);
        let mut beats = 0;
        while beats < 5 {
            let mut bytes = [0; 500];
            let length = manager.recv(&mut bytes).expect("it goes on");
            beats += usize::from(&bytes[..length] == b"WATCHDOG=1\n");
        }
    }
}

#[test]
fn listeners_that_are_passed_on_are_taken_and_survive_upgrades() {
    for mode in modes() {
        let backend = Backend::named("a");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        let kept = listener.try_clone().expect("a copy");
        let mut shell = Command::new("/bin/sh");
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_load_balancer"), "-b", &backend.spec()]).args(mode.args());
        shell.env_clear().env("LB_HEALTH_INTERVAL", "off").stdin(Stdio::from(OwnedFd::from(listener)));
        // A client that connected before any worker ran is served.
        let mut early = Wire::tcp(address);
        let balancer = Balancer::spawn(shell);
        assert_eq!(balancer.address(), address, "{mode:?}");
        assert_eq!(early.get("/").text(), "a");
        drop(early);
        for generation in 1..=3 {
            balancer.signal(libc::SIGUSR2);
            balancer.wait_for_log(&format!("(generation {generation})"));
            for _ in 0..20 {
                assert_eq!(balancer.get("/"), "a", "{mode:?}");
            }
        }
        assert_eq!(balancer.stop(), Exit::Status(0));
        // The manager still has the listener open, so a client waits for the next program.
        TcpStream::connect(address).expect("the manager keeps it open");
        drop(kept);
    }
}

#[test]
fn a_listener_of_a_start_beside_those_that_are_passed_on_is_reported_as_not_opened() {
    for mode in modes() {
        let (backend, listener) = (Backend::named("a"), TcpListener::bind("127.0.0.1:0").expect("a port"));
        let mut shell = Command::new("/bin/sh");
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_load_balancer"), "-b", &backend.spec()]);
        shell.args(["--listen", "127.0.0.1:1", "--admin", "127.0.0.1:0"]).args(mode.args());
        shell.env_clear().env("LB_HEALTH_INTERVAL", "off").stdin(Stdio::from(OwnedFd::from(listener)));
        let balancer = Balancer::spawn(shell);
        let log = balancer.wait_for_log(" warn config: not listened on: 127.0.0.1:1: LISTEN_FDS has the listeners");
        assert_eq!(log.matches("not listened on").count(), 1, "{mode:?}: {log}");
        assert_eq!(balancer.get("/"), "a", "{mode:?}");
    }
}

#[test]
fn a_listener_added_to_those_that_are_passed_on_is_reported_as_not_opened() {
    for mode in modes() {
        let (backend, directory) = (Backend::named("a"), Directory::new());
        let file = |more: &str| format!("{{\"backends\": [\"{}\"]{more}}}", backend.spec());
        let path = directory.put("lb.json", &file(""));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut shell = Command::new("/bin/sh");
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_load_balancer"), "-c"]).arg(path).args(mode.args());
        shell.env_clear().env("LB_HEALTH_INTERVAL", "off").stdin(Stdio::from(OwnedFd::from(listener)));
        let balancer = Balancer::spawn(shell);
        for generation in 0..2 {
            directory.put("lb.json", &file(", \"listen\": [\"127.0.0.1:1\"]"));
            let text = "not listened on: 127.0.0.1:1: LISTEN_FDS has the listeners for clients";
            wait_until("the log has it", || balancer.log().matches(text).count() == generation + 1);
            // The next reload ends after an upgrade that this one had asked for.
            directory.put("lb.json", &file(", \"trace\": true"));
            wait_until("it is taken back", || balancer.log().matches("trace off -> on").count() == generation + 1);
            assert!(
                !balancer.log().contains("an upgrade opens them now") && !balancer.log().contains("needs an upgrade")
            );
            assert_eq!(balancer.log().matches("has taken over").count(), generation, "{mode:?}");
            directory.put("lb.json", &file(""));
            wait_until("it is taken back", || balancer.log().matches("trace on -> off").count() == generation + 1);
            balancer.signal(libc::SIGUSR2);
            balancer.wait_for_log(&format!("has taken over (generation {})", generation + 1));
        }
        assert_eq!(balancer.get("/"), "a");
    }
}

#[test]
fn unsuitable_descriptors_are_refused() {
    let directory = Directory::new();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let unix = UnixDatagram::bind(directory.file("unix")).expect("a socket");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let connected = TcpStream::connect(listener.local_addr().expect("it has one")).expect("it listens");
    let nothing = std::fs::File::open("/dev/null").expect("it is there");
    for (fd, kind) in [
        (OwnedFd::from(nothing), "no socket"),
        (datagrams.into(), "a UDP socket"),
        (unix.into(), "a Unix socket"),
        (connected.into(), "a TCP socket that does not listen"),
    ] {
        let mut shell = Command::new("/bin/sh");
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" 3<&0 0</dev/null";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_load_balancer")]).env_clear().stdin(Stdio::from(fd));
        let output = shell.output().expect("a shell runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = format!("LISTEN_FDS: descriptor 3: it is {kind}; accepted: a listening TCP socket");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&text), "{output:?}");
    }
}

#[test]
fn a_health_check_reports_by_its_exit_status() {
    let asked = |argument: &str| run(&["healthcheck", argument]);
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &["--admin", "0", "--drain-delay", "10s"]);
        let admin = balancer.admin();
        let well = asked(&admin.to_string());
        assert!(well.status.code() == Some(0) && well.stderr.is_empty(), "{well:?}");
        assert_eq!(asked(&format!("{}/livez", admin.port())).status.code(), Some(0));
        assert_eq!(asked(&format!("http://{}/x", balancer.address())).status.code(), Some(0), "the backend's answer");
        assert_eq!(asked(&format!("{admin}/nothing")).status.code(), Some(1));
        balancer.signal(libc::SIGTERM);
        wait_until("it is not ready", || asked(&admin.to_string()).status.code() == Some(1));
        let told = asked(&admin.to_string());
        assert!(String::from_utf8_lossy(&told.stderr).ends_with("/readyz: status 503\n"), "{told:?}");
        assert_eq!(asked(&format!("{admin}/livez")).status.code(), Some(0));
    }
    let refused = asked(VACANT);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("refused"), "{refused:?}");
    // A listener that accepts the connection and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let begun = std::time::Instant::now();
    assert_eq!(asked(&silent.local_addr().expect("it has one").to_string()).status.code(), Some(1));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let usage = asked("nowhere");
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("healthcheck 'nowhere': malformed"), "{usage:?}");
}

/// The number of sockets that listen on a port of this machine.
fn listening(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the system tells of its sockets");
    let wanted = format!(":{port:04X}");
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 0A is TCP_LISTEN.
    rows.by_ref().filter(|row| row.len() > 3 && row[1].ends_with(&wanted) && row[3] == "0A").count()
}

/// Additional workers had listeners of their own, unknown to the manager. Connections queued there were lost
/// with them.
#[test]
fn more_workers_have_the_manager_s_listeners_and_no_others() {
    let (backend, directory) = (Backend::named("a"), Directory::new());
    let file = |more: &str| format!("{{\"backends\": [\"{}\"], {more}}}", backend.spec());
    let path = directory.put("lb.json", &file("\"workers\": 1"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    let mut shell = Command::new("/bin/sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_load_balancer"), "-m", "mp", "-c"]).arg(path);
    shell.env_clear().env("LB_HEALTH_INTERVAL", "off").stdin(Stdio::from(OwnedFd::from(listener)));
    let balancer = Balancer::spawn(shell);
    for (generation, workers) in [(1, 3), (2, 1), (3, 2)] {
        directory.put("lb.json", &file(&format!("\"workers\": {workers}")));
        balancer.wait_for_log("workers cannot change while it runs");
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log(&format!("(generation {generation})"));
        wait_until("there are so many workers", || balancer.workers().len() == workers);
        assert_eq!(listening(address.port()), 1, "{workers} workers");
        (0..10).for_each(|_| assert_eq!(balancer.get("/"), "a"));
    }
    assert_eq!(balancer.stop(), Exit::Status(0));
}

/// A manager that was notified of an upgrade is also notified when a program serves, whichever it is.
#[test]
fn a_service_manager_hears_that_an_upgrade_has_failed() {
    for mode in modes() {
        let (backend, directory) = (Backend::named("a"), Directory::new());
        let manager = Manager(UnixDatagram::bind(directory.file("notify")).expect("a socket"));
        let program = env!("CARGO_BIN_EXE_load_balancer");
        let path = directory.put("lb.json", &format!("{{\"backends\": [\"{}\"]}}", backend.spec()));
        std::os::unix::fs::symlink(program, directory.file("lb")).expect("a link can be made");
        let mut command = Command::new(directory.file("lb"));
        command.args(["--host", "127.0.0.1", "-p", "0", "-c"]).arg(&path).args(mode.args());
        command.env_clear().env("LB_HEALTH_INTERVAL", "off").env("NOTIFY_SOCKET", directory.file("notify"));
        let mut balancer = Balancer::spawn(command);
        assert!(manager.hears().starts_with("READY=1\n"), "{mode:?}");
        // The new program has too few descriptors to serve.
        let takes_over = format!("ulimit -n 9; exec {program} \"$@\"");
        let asked = format!("[ \"$ZZZ_LB_PREFLIGHT\" ] && exec {program} \"$@\"");
        let script = directory.put("script", &format!("#!/bin/sh\n{asked}\n{takes_over}\n"));
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it can be made a program");
        std::fs::rename(&script, directory.file("lb")).expect("it can be renamed");
        balancer.signal(libc::SIGUSR2);
        assert!(manager.hears().starts_with("RELOADING=1\n"), "{mode:?}");
        let ready = manager.hears();
        assert!(ready.starts_with("READY=1\nSTATUS=an upgrade failed: served by "), "{mode:?}: {ready}");
        balancer.signal(libc::SIGTERM);
        assert!(manager.hears().starts_with("STOPPING=1\n"), "{mode:?}");
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    }
}

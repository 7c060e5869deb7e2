//! Keys that only root can read, with `--user`: they are read before root is given up, and the log says that a change of
//! them cannot be. The key of the cookie is one of them.

use std::io::BufRead;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use zzz_lb::base64::{Alphabet, decode};

use crate::support::certificate::{Spec, self_signed};
use crate::support::{
    Backend, Balancer, Directory, Mode, Pid, Wire, command, modes, run, skipped, user_ids, wait_until,
};

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is our file");
}

#[test]
fn a_key_that_only_root_can_read_is_served_and_its_change_is_refused_in_words() {
    if user_ids(std::process::id() as i32)[1] != 0 {
        return skipped("only root has privileges to drop");
    }
    for mode in modes() {
        let directory = Directory::new();
        allow(directory.path(), 0o755);
        let inner = directory.path().join("private");
        std::fs::create_dir(&inner).expect("a directory");
        let (certificate, key) = (directory.path().join("a.pem"), inner.join("a.key"));
        let renew = || {
            let issued = self_signed(&Spec { names: &["a.test"], ..Spec::new("a.test") });
            std::fs::write(&certificate, issued.pem()).expect("a file");
            std::fs::write(&key, issued.key_pem()).expect("a file");
            allow(&key, 0o600);
        };
        renew();
        allow(&inner, 0o700);
        let [certificate_at, key_at] = [&certificate, &key].map(|path| path.display().to_string());
        let args = ["--tls-cert", &certificate_at, "--tls-key", &key_at, "--user", "nobody", "--admin", "0"];
        let output = run(&[&["--check", "-p", "0", "--host", "127.0.0.1", "-b", "127.0.0.1:1"], &args[..]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let denied = |log: &str| log.matches(&format!("{key_at}: Permission denied (os error 13): user ")).count();
        assert_eq!((output.status.code(), denied(&errors)), (Some(0), 1), "{errors}");
        assert!(errors.contains(" has to be able to read it, or its changes are not served"), "{errors}");
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &args);
        let served = || {
            let url = format!("https://127.0.0.1:{}/", balancer.address().port());
            let curl = Command::new("curl").args(["-sk", "--max-time", "20", &url]).output();
            curl.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let counted = || {
            let metrics = Wire::tcp(balancer.admin()).get("/metrics").text();
            let (_, rest) =
                metrics.split_once("zzz_lb_certificate_reloads_total{result=\"refused\"} ").expect("it is there");
            rest.lines().next().and_then(|count| count.parse::<u64>().ok()).expect("a number")
        };
        let Ok(content) = served() else { return skipped("curl is absent") };
        assert_eq!(content, "backend", "{mode:?}");
        let told = format!(" info tls: --tls-key {key_at}: Permission denied");
        balancer.wait_for_log(&told);
        // The key has not changed, so nothing is wrong, after a reload and an upgrade too.
        balancer.signal(libc::SIGHUP);
        balancer.wait_for_log("certificates and keys are read again");
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 1)");
        assert_eq!(balancer.log().matches(&told).count(), 2, "{mode:?}: {}", balancer.log());
        let alarmed = balancer.log().lines().any(|line| line.contains(" err ") || line.contains("stays"));
        assert!(!alarmed, "{mode:?}: {}", balancer.log());
        assert_eq!(counted(), 0, "{mode:?}");
        // The certificate beside it is damaged for a while.
        let good = std::fs::read(&certificate).expect("a file");
        std::fs::write(&certificate, "no PEM").expect("a file");
        balancer.wait_for_log(&format!(" err tls: --tls-cert {certificate_at}: there is no BEGIN CERTIFICATE"));
        wait_until("it is counted", || counted() == 1);
        std::fs::write(&certificate, good).expect("a file");
        // Now it has changed.
        renew();
        balancer.wait_for_log(&format!(" err tls: --tls-cert {certificate_at}: --tls-key {key_at}: Permission denied"));
        wait_until("it is counted", || counted() == 2);
        balancer.signal(libc::SIGHUP);
        wait_until("the reason is logged and counted again", || counted() == 3);
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 2)");
        assert_eq!(served().expect("it is there"), "backend", "{mode:?}: after an upgrade");
        // The user gets access.
        allow(&inner, 0o755);
        allow(&key, 0o644);
        balancer.signal(libc::SIGHUP);
        balancer.wait_for_log("another certificate is served, for a.test");
        assert_eq!(served().expect("it is there"), "backend", "{mode:?}");
    }
}

#[test]
fn a_key_of_the_cookie_that_only_root_can_read_is_used_and_stays_over_reloads() {
    if user_ids(std::process::id() as i32)[1] != 0 {
        return skipped("only root has privileges to drop");
    }
    for mode in modes() {
        let (a, b) = (Backend::named("a"), Backend::named("b"));
        let directory = Directory::new();
        allow(directory.path(), 0o755);
        let key = directory.put("cookie.key", &"A".repeat(44));
        allow(&key, 0o600);
        let key_at = key.display().to_string();
        let file = |weight: u16| {
            let port = |backend: &Backend| backend.spec().rsplit(':').next().expect("a port").to_owned();
            let backends = [&a, &b]
                .map(|backend| format!(r#"{{"host": "127.0.0.1", "port": {}, "weight": {weight}}}"#, port(backend)));
            let path = directory.put("lb.json", &format!(r#"{{"backends": [{}]}}"#, backends.join(", ")));
            allow(&path, 0o644);
            path
        };
        let path = file(1);
        let args = ["--sticky", "cookie", "--sticky-key", &key_at, "--user", "nobody"];
        let denied = format!("--sticky-key {key_at}: Permission denied (os error 13)");
        let output = run(&[&["--check", "-p", "0", "--host", "127.0.0.1", "-b", "127.0.0.1:1"], &args[..]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), errors.matches(&denied).count()), (Some(0), 1), "{errors}");
        let balancer = Balancer::with_file(mode, &path, &args);
        let count = || balancer.log().matches(&denied).count();
        assert_eq!(count(), 1, "{mode:?}: {}", balancer.log());
        file(2);
        balancer.wait_for_log("weight 1 -> 2");
        wait_until("the reload names the file", || count() == 2);
        balancer.signal(libc::SIGHUP);
        wait_until("HUP names the file", || count() > 2);
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 1)");
        assert_eq!(count(), 4, "{mode:?}: {}", balancer.log());
        let is_alarm = |line: &str| line.contains("refused") || line.contains(" err ");
        assert!(!balancer.log().lines().any(is_alarm), "{mode:?}: {}", balancer.log());
    }
}

/// True if the writable memory of a process has these bytes.
fn has_in_memory(pid: Pid, bytes: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("root may read it");
    maps.lines().any(|line| {
        let mut words = line.split(' ');
        let (range, access) = (words.next().expect("a range"), words.next().expect("its access"));
        let (from, to) = range.split_once('-').expect("two addresses");
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).expect("an address"));
        let mut content = vec![0; (to - from) as usize];
        if !access.starts_with("rw") || memory.read_exact_at(&mut content, from).is_err() {
            return false;
        }
        let mut rest = &content[..];
        while rest.skip_until(bytes[0]).is_ok_and(|skipped| skipped > 0) {
            if rest.starts_with(&bytes[1..]) {
                return true;
            }
        }
        false
    })
}

#[test]
fn the_backends_of_the_demo_have_no_keys_and_are_the_user_s() {
    if user_ids(std::process::id() as i32)[1] != 0 || cfg!(not(target_os = "linux")) {
        return skipped("only root on Linux reads the memory of other processes");
    }
    let issued = self_signed(&Spec { names: &["a.test"], ..Spec::new("a.test") });
    let directory = Directory::new();
    let files = [("a.pem", issued.pem()), ("a.key", issued.key_pem()), ("cookie.key", "lb0Key+/".repeat(8))];
    let [certificate, key, cookie] = files.map(|(name, text)| {
        let path = directory.put(name, &text);
        allow(&path, 0o600);
        path.display().to_string()
    });
    let cookie_key = decode(Alphabet::Standard, "lb0Key+/".repeat(8).as_bytes()).expect("it is base64");
    for (mode, name) in [(Mode::Mp, "mp"), (Mode::Sp, "sp")] {
        let args = ["--demo", "-p", "0", "--host", "127.0.0.1", "--mode", name, "--user", "nobody", "--tls-cert"];
        let keys = [&certificate[..], "--tls-key", &key, "--sticky", "cookie", "--sticky-key", &cookie];
        let balancer = Balancer::spawn(command(&[&args[..], &keys[..]].concat()));
        let secrets = [&cookie_key[..], &issued.key[issued.key.len() - 32..]];
        assert!(secrets.iter().all(|secret| has_in_memory(balancer.pid(), secret)), "{mode:?}: the test finds keys");
        let log = balancer.wait_for_log("backend two is ");
        let pids = log.lines().filter(|line| line.contains("demo: backend")).map(|line| {
            let (_, rest) = line.rsplit_once("(pid ").expect("its number");
            rest.trim_end_matches(')').parse::<Pid>().expect("a number")
        });
        let pids: Vec<Pid> = pids.collect();
        assert_eq!(pids.len(), 2, "{log}");
        for pid in pids {
            wait_until("the user is changed", || user_ids(pid)[1] == user_ids(balancer.pid())[1]);
            for secret in secrets {
                assert!(!has_in_memory(pid, secret), "{mode:?}");
            }
        }
        assert_eq!(balancer.stop(), crate::support::Exit::Status(0));
    }
}

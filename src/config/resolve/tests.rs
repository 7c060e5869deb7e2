//! Options that make a configuration, and options that contradict each other.

use super::super::{Address, Member, Plan, keep_fixed};
use super::*;
use crate::args::flags::Preset;
use crate::args::{Command, parse};
use std::ffi::OsString;

fn options(line: &str) -> Options {
    match parse(line.split_whitespace().map(OsString::from), &|_| None) {
        Ok(Command::Run(options)) => options,
        got => panic!("{line}: {got:?}"),
    }
}

fn config(line: &str) -> Config {
    resolve(options(line)).expect(line)
}

fn refused(line: &str) -> Vec<String> {
    resolve(options(line)).expect_err(line).iter().map(Error::to_string).collect()
}

fn names(line: &str) -> Vec<String> {
    config(line).backends.into_iter().map(|backend| backend.name).collect()
}

#[test]
fn nothing_given_makes_a_whole_configuration() {
    let config = config("");
    let traffic = Listen::plain("0.0.0.0:8080".parse().unwrap(), Purpose::Traffic);
    assert_eq!(config.listen, [traffic]);
    assert!(config.default_backends && !config.demo && !config.trace && !config.check);
    assert_eq!(names(""), ["127.0.0.1:9001", "127.0.0.1:9002"]);
    assert_eq!((config.workers, config.max_connections, config.via, config.user), (None, None, None, None));
    assert_eq!((config.file, config.changed), (None, vec![]));
}

#[test]
fn the_defaults_told_are_those_filled_in() {
    let mut line = String::new();
    for flag in FLAGS {
        if let Preset::Value(text) = flag.default {
            line += &format!("--{} {text} ", flag.long);
        }
    }
    assert_eq!(config(&line), config(""));
    let told = FLAGS.iter().find(|flag| flag.long == "backend").unwrap().default;
    assert_eq!(told, Preset::Told("127.0.0.1:9001 and 127.0.0.1:9002"));
    assert_eq!(names("").join(" and "), told.text());
}

#[test]
fn given_options_are_in_the_configuration() {
    let config = config(
        "-p 0 --host [::] -b 10.0.0.1:80,weight=3,backup,max=9 -w 2 -s random -l warn -t --idle-timeout 1s \
         --user nobody --max-connections 9 --host-header backend --trust 10.0.0.0/8 --via edge --health-path /up \
         --health-interval off --health-timeout 1s --health-fails 7 --health-passes 8 --health-5xx \
         --slow-start 1m --retry-budget 0 --admin 9100 --check -c lb.json",
    );
    assert_eq!(config.address(Purpose::Traffic), Some("[::]:0".parse().unwrap()));
    let backend = &config.backends[0];
    assert_eq!((backend.name.as_str(), backend.weight, backend.backup, backend.max), ("10.0.0.1:80", 3, true, 9));
    assert!(!config.default_backends && config.trace && config.check);
    assert_eq!((config.workers, config.max_connections), (Some(2), Some(9)));
    assert_eq!((config.strategy, config.loglevel), (Strategy::named("random").unwrap(), Level::Warn));
    assert_eq!((config.timeouts.idle_us, config.timeouts.drain_us), (1_000_000, 25_000_000));
    assert_eq!(config.host_header, HostHeader::Backend);
    assert!(config.trust[0].contains(Ipv4Addr::new(10, 1, 1, 1).into()));
    assert_eq!((config.via.as_deref(), config.user.as_deref()), (Some("edge"), Some("nobody")));
    let path = "/up".to_owned();
    let (check, status, host) = (HealthCheck::Http, Statuses::range(200, 399), None);
    let service = String::new();
    let (interval_us, timeout_us) = (0, 1_000_000);
    let health =
        Health { check, path, service, status, host, interval_us, timeout_us, fails: 7, passes: 8, count_5xx: true };
    assert_eq!(config.health, health);
    assert_eq!((config.slow_start_us, config.retry_percent), (60_000_000, 0));
    assert_eq!(config.address(Purpose::Admin), Some("127.0.0.1:9100".parse().unwrap()));
    assert_eq!(config.file, Some("lb.json".into()));
}

#[test]
fn settings_that_differ_from_their_defaults_are_kept_with_their_sources() {
    let changed = config("--check -p 8080 --idle-timeout 75000ms -s random -t -b a:1,weight=2 -b b:1").changed;
    let told: Vec<String> =
        changed.iter().map(|setting| format!("{}={} {}", setting.name, setting.value, setting.source)).collect();
    assert_eq!(
        told,
        ["strategy=random --strategy", "trace=on --trace", "backend=a:1,weight=2 --backend", "backend=b:1 --backend"]
    );
}

#[test]
fn a_backend_s_own_host_is_as_written() {
    let config = config("-b http://api:81,weight=2 -b unix:/run/s");
    let own: Vec<&str> = config.backends.iter().map(Backend::authority).collect();
    assert_eq!(own, ["api:81", "localhost"]);
}

#[test]
fn the_demo_has_two_backends_of_its_own_and_takes_no_others() {
    let config = config("--demo");
    assert!(config.demo && !config.default_backends);
    assert_eq!(names("--demo"), ["127.0.0.1:0", "127.0.0.1:0"]);
    let refused = refused("-b 10.0.0.1:80 --demo");
    assert!(refused[0].starts_with("--demo and --backend are contradictory"), "{refused:?}");
}

#[test]
fn a_probe_passes_below_500_unless_a_path_or_statuses_are_given() {
    let health = |line: &str| config(line).health;
    let status = |line: &str| health(line).status.to_string();
    assert_eq!(status(""), "200-499");
    assert_eq!(status("--health-path /"), "200-399");
    assert_eq!(status("--health-path /up --health-status 200,401"), "200,401");
    assert_eq!(status("--health-status 200-204"), "200-204");
    assert_eq!(health("--health-host a.test:1").host.as_deref(), Some("a.test:1"));
    assert_eq!(health("--health-check off --health-path /up").interval_us, 0);
    let tcp = health("--health-check tcp");
    assert_eq!((tcp.check, tcp.interval_us), (HealthCheck::Tcp, DEFAULT_HEALTH_INTERVAL_US));
    for other in ["--health-path /up", "--health-status 200", "--health-host a"] {
        let refused = refused(&format!("--health-check tcp {other}"));
        assert!(refused[0].contains("has no effect with --health-check 'tcp'"), "{refused:?}");
    }
    let grpc = health("--health-check grpc:a.B --health-host x -b h2c://a:1 -b https://b:1");
    assert_eq!((grpc.check, grpc.service.as_str()), (HealthCheck::Grpc, "a.B"));
    for (line, text) in [
        ("-b h2c://a:1 --health-path /up", "--health-path has no effect with --health-check 'grpc'"),
        ("-b h2c://a:1 --health-status 200", "--health-status has no effect with"),
        ("-b h2c://a:1 -b b:1", "--backend 'b:1': speaks HTTP/1.1, and --health-check 'grpc' needs HTTP/2"),
        ("", "the default backends: speaks HTTP/1.1"),
    ] {
        let refused = refused(&format!("--health-check grpc {line}"));
        assert!(refused[0].contains(text), "{refused:?}");
    }
}

#[test]
fn one_process_has_no_workers() {
    config("-m sp -w 1");
    let refused = refused("-m sp -w 2");
    assert!(refused[0].starts_with("--workers '2': contradicts mode sp"), "{refused:?}");
}

#[test]
fn a_backend_stands_once_however_it_is_written() {
    config("-b a:1 -b a:2 -b b:1 -b unix:/a -b unix:/b");
    let twice = "--backend 'A:1': the same backend as at --backend; accepted: each once";
    let routed = refused("-b a:1,for=x.test -b a:1,for=y.test");
    assert_eq!(routed.len(), 1);
    let with_all = "accepted: each once, with all its routes, as in a:1,for=a.test,for=b.test";
    assert!(routed[0].ends_with(with_all), "{routed:?}");
    assert_eq!(refused("-b a:1 -b http://A:1,weight=2"), [twice]);
    assert_eq!(refused("-b [::1]:1 -b [0:0::1]:01 -b unix:/a -b unix:/a").len(), 2);
}

#[test]
fn the_admin_port_is_not_where_clients_connect() {
    for line in ["--admin 8080", "-p 1 --host 127.0.0.1 --admin 0.0.0.0:1", "--host [::] --admin 127.0.0.1:8080"] {
        let refused = refused(line);
        assert!(refused[0].starts_with("--admin '") && refused[0].contains("another port"), "{refused:?}");
    }
    for line in ["--admin 8081", "-p 0 --admin 0", "--admin [::1]:8080", "--host 127.0.0.1 --admin 127.0.0.2:8080"] {
        config(line);
    }
}

#[test]
fn every_contradiction_is_told() {
    assert_eq!(refused("--demo -b a:1 -b a:1 -m sp -w 2 --admin 8080").len(), 4);
}

#[test]
fn a_listener_for_proxy_headers_needs_a_peer_that_may_send_one() {
    let expected =
        "--listen '127.0.0.1:81': no peer may send a PROXY header; accepted: --trust with the peers, or no proxy";
    assert_eq!(refused("--listen 127.0.0.1:81,proxy"), [expected]);
    assert!(config("--listen 127.0.0.1:81,proxy --trust ::1").listen[1].proxy_header);
}

#[test]
fn settings_that_need_new_listeners_or_processes_are_fixed() {
    let same = "-b b:2 -s random -l debug -t --idle-timeout 1s --via x --trust ::1 --health-fails 9 --slow-start 1s \
                --drain-idle 1s --drain-delay 1s --watchdog off --retry-budget 1 --host-header backend";
    let kept = |line: &str| {
        let mut config = config(line);
        (keep_fixed(&mut config, &self::config("")), config)
    };
    assert_eq!(kept(same), (vec![], config(same)));
    let other = "-p 1 --host ::1 --max-connections 1 --admin 2 -w 1 -m sp --user nobody --ca-file /a -k --tls-trace";
    let (names, config) = kept(other);
    let expected = ["port", "host", "admin", "max-connections", "workers", "mode", "user", "ca-file", "insecure"];
    assert_eq!(names, [&expected[..], &["tls-trace"]].concat());
    assert_eq!(Config { changed: Vec::new(), ..config }, Config { changed: Vec::new(), ..self::config("") });
    assert_eq!(kept("--demo").0, ["demo"]);
}

/// Valid values of options that differ from their defaults.
const OTHERS: &[&str] = &[
    "--port 1",
    "--host ::1",
    "--max-connections 9",
    "--listen 9",
    "--admin 9",
    "--tls-cert a",
    "--tls-dev",
    "--tls-min 1.3 --tls-cert a",
    "--tls-strict-sni --tls-cert a",
    "--tls-client-optional --tls-client-ca a --tls-cert a",
    "--hsts 1h --tls-cert a",
    "--metrics-path /m",
    "--metrics-detail address",
    "--backend b:2,weight=2,backup,max=3",
    "--strategy random",
    "--strategy hash:cookie:id",
    "--sticky cookie",
    "--sticky-attributes Secure --sticky cookie",
    "--retry-budget 1",
    "--slow-start 1s",
    "--demo",
    "--ca-file /a",
    "--insecure",
    "--health-check tcp",
    "--health-path /up",
    "--health-status 200",
    "--health-host a",
    "--health-interval 1s",
    "--health-timeout 1s",
    "--health-fails 9",
    "--health-passes 9",
    "--health-5xx",
    "--host-header backend",
    "--trust ::1",
    "--send-proxy v2",
    "--via x",
    "--request-id off",
    "--connect-timeout 1s",
    "--request-timeout 1s",
    "--response-timeout 1s",
    "--idle-timeout 1s",
    "--half-close 1s",
    "--drain-timeout 1s",
    "--drain-idle 1s",
    "--drain-delay 1s",
    "--watchdog off",
    "--workers 9",
    "--mode sp",
    "--user nobody",
    "--loglevel debug",
    "--trace",
    "--tls-trace",
    "--config a.json",
];

/// The plan of a configuration that has been taken up in place of the default one.
fn plan(mut config: Config) -> (Vec<&'static str>, Plan) {
    let fixed = keep_fixed(&mut config, &self::config(""));
    let at = |backend: &Backend| backend.address().unwrap_or(Address::Unix("/".into()));
    let members = config.backends.iter().map(|backend| Member::new(backend, at(backend), false)).collect();
    (fixed, Plan::new(&config, 0, members, Vec::new()))
}

#[test]
fn every_option_is_told_to_be_fixed_or_reaches_the_workers() {
    let (_, before) = plan(config(""));
    // The files of these reach the workers as secrets, and a redirect needs another option, which is not fixed.
    let others =
        ["check", "help", "version", "tls-key", "tls-client-ca", "tls-ticket-key", "sticky-key", "http-redirect"];
    for flag in FLAGS.iter().filter(|flag| !others.contains(&flag.long)) {
        let named = |line: &&&str| line.split(' ').next() == Some(&format!("--{}", flag.long));
        let line = OTHERS.iter().find(named).unwrap_or_else(|| panic!("--{} is not in the table", flag.long));
        let (fixed, plan) = plan(config(line));
        // The path of the followed file is on the command line only.
        let is_fixed = fixed == [flag.long] || flag.long == "config";
        assert_eq!(is_fixed, plan == before, "{line}");
        assert_eq!(Plan::decode(&plan.encode()), Some(plan), "{line}");
    }
}

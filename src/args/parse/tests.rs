//! Tests of the parser of arguments.

use super::*;
use crate::args::{Given, HostHeader, Mode};
use crate::balance::strategy::Strategy;
use crate::limits::BACKENDS;
use crate::log::Level;
use crate::metrics::Detail;
use std::os::unix::ffi::OsStringExt;

fn with_env(line: &str, variables: &[(&str, &str)]) -> Result<Command, Refused> {
    let env = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| OsString::from(value))
    };
    parse(line.split_whitespace().map(OsString::from), &env)
}

fn options(line: &str) -> Options {
    match with_env(line, &[]) {
        Ok(Command::Run(options)) => options,
        got => panic!("{line}: {got:?}"),
    }
}

/// The errors, one line each.
fn told(result: Result<Command, Refused>) -> Vec<String> {
    result.expect_err("something is wrong").errors.iter().map(Error::to_string).collect()
}

/// The only error.
fn error(line: &str) -> String {
    let mut told = told(with_env(line, &[]));
    assert_eq!(told.len(), 1, "{line}: {told:?}");
    told.remove(0)
}

fn value<T>(given: Option<Given<T>>) -> T {
    given.expect("it was given").value
}

#[test]
fn no_arguments_give_empty_options() {
    assert_eq!(options(""), Options::default());
    assert_eq!(options("--"), Options::default());
}

#[test]
fn takes_every_form() {
    for line in ["--port 81", "--port=81", "-p 81", "-p81", "-p=81"] {
        assert_eq!(options(line).port, Some(Given { value: 81, source: Source::CommandLine("port") }), "{line}");
    }
    let got = options("-t --demo -b a:1 -bb:2 --backend=c:3,weight=2 -- ");
    assert!(value(got.trace) && value(got.demo));
    let names: Vec<String> = got.backends.into_iter().map(|given| given.value.name).collect();
    assert_eq!(names, ["a:1", "b:2", "c:3"]);
}

#[test]
fn switches_may_have_a_value_and_stand_together() {
    for (line, trace) in [("--trace=1", true), ("--trace=off", false), ("-t=yes", true), ("-t=0", false)] {
        assert_eq!(value(options(line).trace), trace, "{line}");
    }
    let got = options("-kt -b a:1");
    assert!(value(got.trace) && value(got.insecure));
    for line in ["-ktp80", "-tkp80", "-ktp=80", "-ktp 80"] {
        let got = options(line);
        assert!(value(got.trace) && value(got.insecure) && value(got.port) == 80, "{line}");
    }
    assert_eq!(with_env("-th", &[]), Ok(Command::Help));
}

#[test]
fn messages_about_backends_name_the_fault() {
    let said = |spec: &str| {
        let text = error(&format!("-b {spec}"));
        text.split_once("; accepted: ").map(|(start, rest)| (start.to_owned(), rest.to_owned())).unwrap()
    };
    let user = said("http://user:secret@h:1");
    assert_eq!(user.0, "--backend '...@h:1': a user name or password is not supported");
    assert!(said("http://h:1/api/").0.contains("a path is not supported"));
    assert!(said("ftp://h:1").0.contains("the scheme is not http://, https:// or h2c://"));
    assert!(said("a:1,b:2").0.contains("two backends in one"));
    assert!(said("a:1,wieght=2").1.ends_with("; did you mean 'weight'?"));
    assert!(error("-w -1").contains("out of range"));
}

#[test]
fn takes_every_option() {
    let got = options(
        "-p 0 --host [::1] -b localhost:9001 -w 4 -s least_requests -l debug -t -m sp \
         --connect-timeout 1ms --request-timeout 2s --response-timeout 3m --idle-timeout 4h \
         --half-close 5s --drain-timeout 24h --max-connections 1 --host-header example.com --trust 10.0.0.0/8 \
         --trust ::1 --via edge --user nobody:nogroup -c lb.json --check --health-path /up \
         --health-interval off --health-timeout 1s --health-fails 1000 --health-passes 1 --health-5xx \
         --slow-start 10s --admin [::1]:9100 --retry-budget 100 --drain-idle 3s --drain-delay 5s \
         --watchdog off --metrics-path off --metrics-detail address",
    );
    assert_eq!((value(got.port), value(got.workers), value(got.max_connections)), (0, 4, 1));
    assert_eq!(value(got.host), "::1".parse::<std::net::IpAddr>().unwrap());
    assert_eq!(value(got.strategy), (Strategy::named("least_requests").unwrap(), None));
    assert_eq!((value(got.loglevel), value(got.mode)), (Level::Debug, Mode::Sp));
    let durations =
        [got.connect_us, got.request_us, got.response_us, got.idle_us, got.half_close_us, got.drain_us].map(value);
    assert_eq!(durations, [1_000, 2_000_000, 180_000_000, 14_400_000_000, 5_000_000, 86_400_000_000]);
    assert_eq!(value(got.host_header), HostHeader::Name("example.com".into()));
    assert_eq!(got.trust.iter().map(|given| given.value.prefix).collect::<Vec<u8>>(), [8, 128]);
    assert_eq!((value(got.config), value(got.check)), ("lb.json".into(), true));
    assert_eq!((value(got.health_path), value(got.health_interval_us)), ("/up".into(), 0));
    assert_eq!((value(got.health_timeout_us), value(got.slow_start_us)), (1_000_000, 10_000_000));
    assert_eq!((value(got.health_fails), value(got.health_passes), value(got.health_5xx)), (1000, 1, true));
    assert_eq!((value(got.admin), value(got.retry_percent)), (Some("[::1]:9100".parse().unwrap()), 100));
    assert_eq!((value(got.metrics_path), value(got.metrics_detail)), (None, Detail::Address));
    assert_eq!((value(got.drain_delay_us), value(got.watchdog_us)), (5_000_000, 0));
    assert_eq!((value(got.via), value(got.user)), ("edge".into(), "nobody:nogroup".into()));
}

#[test]
fn help_and_version_end_the_parsing() {
    for line in ["-h", "--help", "-p 1 --help --nonsense"] {
        assert_eq!(with_env(line, &[("LB_PORT", "x")]), Ok(Command::Help), "{line}");
    }
    assert_eq!(with_env("-V", &[]), Ok(Command::Version));
    assert_eq!(with_env("--version", &[]), Ok(Command::Version));
    assert!(with_env("--nonsense --help", &[]).is_err());
}

#[test]
fn an_option_hides_its_variable_and_a_variable_the_default() {
    let variables = [("LB_PORT", "90"), ("LB_BACKEND", " a:1  b:2,weight=3 "), ("LB_TRACE", "1"), ("LB_DEMO", "0")];
    let Ok(Command::Run(got)) = with_env("", &variables) else { panic!("not run") };
    assert_eq!(got.port, Some(Given { value: 90, source: Source::Environment("LB_PORT") }));
    assert_eq!(got.backends.len(), 2);
    assert!(value(got.trace) && !value(got.demo));
    let told: Vec<String> =
        got.settings.iter().map(|setting| format!("{} {} {}", setting.name, setting.value, setting.source)).collect();
    let backends = ["backend a:1 LB_BACKEND", "backend b:2,weight=3 LB_BACKEND"];
    assert_eq!(told, ["port 90 LB_PORT", backends[0], backends[1], "demo off LB_DEMO", "trace on LB_TRACE"]);
    let Ok(Command::Run(got)) = with_env("-p 91 -b c:3", &variables) else { panic!("not run") };
    assert_eq!(got.port, Some(Given { value: 91, source: Source::CommandLine("port") }));
    assert_eq!(got.backends.len(), 1);
}

#[test]
fn an_empty_variable_is_none_and_a_wrong_one_is_named() {
    assert_eq!(with_env("", &[("LB_PORT", ""), ("LB_BACKEND", " ")]), Ok(Command::Run(Options::default())));
    let said = |name, text| told(with_env("", &[(name, text)])).remove(0);
    assert_eq!(said("LB_PORT", "80x"), "LB_PORT '80x': malformed; accepted: a number from 0 to 65535");
    assert_eq!(said("LB_TRACE", "maybe"), "LB_TRACE 'maybe': malformed; accepted: 1 or 0");
    assert!(said("LB_BACKEND", "a:1 b").starts_with("LB_BACKEND 'b': no port; accepted: host:port"));
    assert!(with_env("-p 80", &[("LB_PORT", "80x")]).is_ok());
}

#[test]
fn an_error_names_the_option_the_value_and_the_accepted_values() {
    assert_eq!(error("-p 65536"), "--port '65536': out of range; accepted: a number from 0 to 65535");
    assert_eq!(error("-w 0"), "--workers '0': out of range; accepted: a number from 1 to 1024");
    let strategies = FLAGS.iter().find(|flag| flag.long == "strategy").unwrap().accepts;
    assert_eq!(
        error("-s round-robin"),
        format!("--strategy 'round-robin': unknown; accepted: {strategies}; did you mean 'round_robin'?")
    );
    assert_eq!(error("-l chatty"), "--loglevel 'chatty': unknown; accepted: err, warn, info, debug");
    assert_eq!(
        error("--connect-timeout 5"),
        "--connect-timeout '5': a number without a unit; \
         accepted: 1ms to 24h, such as 500ms, 2s, 1m or 1h; did you mean '5s'?"
    );
    let hsts = error("--hsts 31536000");
    assert!(hsts.starts_with("--hsts '31536000': a number without a unit; "), "{hsts}");
    assert!(hsts.ends_with("; did you mean '31536000s'?"), "{hsts}");
    assert!(error("--idle-timeout 90000").ends_with(" 1m or 1h"), "as seconds, it is too long");
    assert_eq!(error("--port="), "--port '': malformed; accepted: a number from 0 to 65535");
}

#[test]
fn all_errors_are_reported_and_valid_options_are_kept() {
    let line = "-p http --prot 80 -b a -b a:1 --trace=maybe stray --check -w 2 -w 3 -s";
    let Err(refused) = with_env(line, &[("LB_PORT", "x"), ("LB_VIA", "a b"), ("LB_TRUST", "x ::1 y")]) else {
        panic!("it is wrong")
    };
    let starts = [
        "--port 'http': malformed",
        "unknown option '--prot'; did you mean '--port'?",
        "--backend 'a': no port",
        "--trace has 'maybe'",
        "unexpected argument 'stray'",
        "--workers is given twice",
        "--strategy needs a value",
        "LB_TRUST 'x'",
        "LB_TRUST 'y'",
        "LB_VIA 'a b'",
    ];
    let told = told(Err(refused.clone()));
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
    let options = *refused.options;
    assert_eq!((options.port, options.backends.len(), options.trust.len()), (None, 1, 1));
    assert_eq!((value(options.workers), value(options.check)), (2, true));
}

#[test]
fn the_number_of_errors_is_bounded() {
    for piece in ["-z ", "x ", "-p ", "-- "] {
        let count = told(with_env(&piece.repeat(100_000), &[])).len();
        assert!((1..=2 * LINE_PROBLEMS).contains(&count), "{piece}: {count}");
    }
    let variables = "x ".repeat(10_000);
    assert_eq!(told(with_env("", &[("LB_BACKEND", &variables)])).len(), LINE_PROBLEMS);
}

#[test]
fn an_unknown_option_gets_the_nearest_name() {
    assert_eq!(error("--prot 80"), "unknown option '--prot'; did you mean '--port'?");
    assert_eq!(error("--backends=a:1"), "unknown option '--backends'; did you mean '--backend'?");
    assert_eq!(error("--log-level info"), "unknown option '--log-level'; did you mean '--loglevel'?");
    assert_eq!(error("--work 3"), "unknown option '--work'; did you mean '--workers'?");
    assert_eq!(error("-port 80"), "unknown option '-port'; did you mean '--port'?");
    assert_eq!(error("-v"), "unknown option '-v'; did you mean '-V'?");
    assert_eq!(error("-x"), "unknown option '-x'; --help lists the options");
    assert_eq!(error("-é"), "unknown option '-é'; --help lists the options");
    assert_eq!(error("--frobnicate"), "unknown option '--frobnicate'; --help lists the options");
    assert_eq!(error("--="), "unknown option '--'; --help lists the options");
}

#[test]
fn options_of_later_versions_do_not_exist() {
    assert!(error("--access-log").starts_with("unknown option"));
}

#[test]
fn refuses_missing_superfluous_and_repeated_values_and_stray_arguments() {
    assert_eq!(error("-p"), "--port needs a value; accepted: a number from 0 to 65535");
    assert!(error("-b -p 80").starts_with("--backend needs a value; accepted: host:port"));
    assert_eq!(error("--trace=maybe"), "--trace has 'maybe'; accepted: --trace alone, or 1 or 0");
    assert_eq!(error("-tp"), "--port needs a value; accepted: a number from 0 to 65535");
    assert_eq!(error("-tx"), "unknown option '-x'; --help lists the options");
    assert_eq!(error("-tt"), "--trace is given twice, which is contradictory; accepted: once");
    assert_eq!(error("-p 1 --port=1"), "--port is given twice, which is contradictory; accepted: once");
    assert_eq!(error("-t -t"), "--trace is given twice, which is contradictory; accepted: once");
    let stray = "unexpected argument 'a:1'; only options are accepted, and a backend is given as -b HOST:PORT";
    assert_eq!(error("a:1"), stray);
    assert_eq!(error("-- a:1"), stray);
    assert!(error("-").starts_with("unexpected argument '-'"));
    assert!(told(parse([OsString::new()], &|_| None))[0].starts_with("unexpected argument ''"));
}

#[test]
fn lists_are_bounded() {
    let line = "-b a:1 ".repeat(BACKENDS);
    assert_eq!(options(&line).backends.len(), BACKENDS);
    assert!(error(&(line + "-b a:1")).contains("too many are given"));
}

#[test]
fn bytes_that_are_not_utf8_are_refused_without_harm() {
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let said = |argv: Vec<OsString>| told(parse(argv, &|_| None)).remove(0);
    assert!(said(vec![bytes(b"--po\xffrt")]).starts_with("argument '--po\u{fffd}rt' is not UTF-8"));
    assert!(said(vec![bytes(b"\xff")]).starts_with("argument '\u{fffd}' is not UTF-8"));
    assert!(said(vec!["--".into(), bytes(b"\xff")]).starts_with("unexpected argument '\u{fffd}'"));
    assert!(said(vec!["-p".into(), bytes(b"8\xff\n")]).starts_with("--port '8\u{fffd}\\x0a': not UTF-8;"));
    let env = |name: &str| (name == "LB_VIA").then(|| bytes(b"\xff"));
    assert!(told(parse([], &env))[0].starts_with("LB_VIA '\u{fffd}': not UTF-8;"));
}

#[test]
fn no_arguments_make_it_panic_or_speak_in_two_lines() {
    let mut random = crate::collections::random::Random::new(7);
    let pieces: Vec<&[u8]> = vec![
        b"-",
        b"--",
        b"=",
        b"p",
        b"port",
        b"backend",
        b"b",
        b":",
        b"[",
        b"]",
        b"1",
        b"9001",
        b",",
        b"weight",
        b"unix:/",
        b"http://",
        b"\xff",
        b"\n",
        b"\xc3\xa9",
        b"s",
        b"ms",
        b"trust",
        b"/",
        b"::",
        b"10.0.0.1",
        b"-h",
    ];
    for _ in 0..20_000 {
        let mut argv = Vec::new();
        for _ in 0..random.below(4) {
            let mut argument = Vec::new();
            for _ in 0..random.below(6) {
                argument.extend_from_slice(pieces[random.below(pieces.len() as u64) as usize]);
            }
            argv.push(OsString::from_vec(argument));
        }
        if let Err(refused) = parse(argv, &|_| None) {
            assert!(!refused.errors.is_empty());
            assert!(refused.errors.iter().all(|error| error.to_string().lines().count() == 1));
        }
    }
}

//! Tests of the configuration file.

use super::*;
use crate::args::{Command, parse};
use crate::config::{self, Config, Purpose};
use std::ffi::OsString;

fn options(line: &str) -> Options {
    match parse(line.split_whitespace().map(OsString::from), &|name| (name == "LB_VIA").then(|| "env".into())) {
        Ok(Command::Run(options)) => options,
        got => panic!("{line}: {got:?}"),
    }
}

fn over(line: &str, text: &str) -> Config {
    match read(text.as_bytes(), "lb.json", options(line)) {
        Ok(options) => config::resolve(options).expect(text),
        Err(problems) => panic!("{text}: {}", problems[0]),
    }
}

fn problems(line: &str, text: &str) -> Vec<String> {
    let problems = read(text.as_bytes(), "lb.json", options(line)).expect_err(text);
    problems.iter().map(FileError::to_string).collect()
}

#[track_caller]
fn refused(text: &str, told: &str) {
    assert_eq!(problems("", text), [told], "{text}");
}

#[test]
fn backends_are_objects_or_strings_and_add_up_with_those_of_the_command_line() {
    let config = over(
        "-b a:1",
        r#"{"backends": [
            {"host": "127.0.0.1", "port": 9001},
            {"port": 9002, "host": "::1", "weight": 2},
            {"host": "10.0.0.7", "port": 8443, "backup": true, "max": 100},
            {"unix": "/run/s", "backup": false},
            "http://[::2]:80,weight=3"
        ]}"#,
    );
    let told: Vec<String> = config
        .backends
        .iter()
        .map(|backend| format!("{} {} {} {}", backend.name, backend.weight, backend.backup, backend.max))
        .collect();
    assert_eq!(
        told,
        [
            "a:1 1 false 0",
            "127.0.0.1:9001 1 false 0",
            "[::1]:9002 2 false 0",
            "10.0.0.7:8443 1 true 100",
            "unix:/run/s 1 false 0",
            "[::2]:80 3 false 0"
        ]
    );
    let places: Vec<String> = config.changed.iter().map(|setting| setting.source.place()).collect();
    assert_eq!(places[..4], ["--backend", "LB_VIA", "lb.json:2:13", "lb.json:3:13"]);
    assert_eq!(config.changed[4].value, "10.0.0.7:8443,backup,max=100");
}

#[test]
fn every_option_that_may_stand_in_a_file_is_taken_as_its_type() {
    let config = over(
        "",
        r#"{"port": 81, "host": "::1", "max_connections": 5, "admin": "9100", "metrics_path": "/m",
            "metrics_detail": "address", "strategy": "random",
            "sticky": "cookie", "sticky_key": "k", "sticky_attributes": "Secure",
            "retry_budget": 30, "slow_start": "1s", "health_check": "off", "health_path": "/up", "health_status": "200", "health_host": "a",
            "health_interval": "off",
            "health_timeout": "1s", "health_fails": 4, "health_passes": 5, "health_5xx": true,
            "host_header": "backend", "send_proxy": "v1", "trust": ["10.0.0.0/8", "::1"], "connect_timeout": "1s",
            "request_timeout": "1s", "response_timeout": "1s", "idle_timeout": "1s", "drain_timeout": "1s",
            "half_close": "1s",
            "drain_idle": "3s", "drain_delay": "1s", "watchdog": "off", "workers": 3, "mode": "mp", "user": "nobody", "loglevel": "debug", "trace": true, "ca_file": "/ca.pem",
            "insecure": true, "tls_trace": true, "request_id": "off",
            "listen": ["9"], "http_redirect": "82", "tls_cert": ["a"], "tls_key": "b", "tls_min": "1.3", "tls_strict_sni": true, "tls_client_ca": "c",
            "tls_client_optional": true, "tls_ticket_key": "d", "hsts": "1d", "tls_dev": false}"#,
    );
    assert_eq!((config.address(Purpose::Traffic), config.max_connections), ("[::1]:81".parse().ok(), Some(5)));
    assert_eq!((config.workers, config.retry_percent, config.trust.len()), (Some(3), 30, 2));
    assert!(config.trace && config.health.count_5xx && config.default_backends);
    // All of them, and LB_VIA; each with its source.
    // A generated certificate does not stand beside others.
    let known = FLAGS.iter().filter(|flag| may_stand(flag) && flag.long != "tls-dev").count();
    assert_eq!(config.changed.len(), known + 1);
    assert_eq!(config.changed[1].source.to_string(), "lb.json:1:10: port");
    assert_eq!(over("", "{}").backends.len(), 2);
}

#[test]
fn a_bare_number_is_a_port_or_a_version_of_tls() {
    let text = r#"{"admin": 9100, "http_redirect": 82, "listen": [9443, "9444,tls"], "tls_cert": "a", "tls_min": 1.3}"#;
    let config = over("", text);
    let ports: Vec<u16> = config.listen.iter().map(|listen| listen.address.port()).collect();
    assert_eq!(ports, [8080, 9443, 9444, 82, 9100]);
    assert_eq!(config.tls.rules.min, crate::args::TlsVersion::Tls13);
    assert_eq!(over("", r#"{"listen": 9443}"#).listen[1].address.port(), 9443);
    for (text, begin) in [
        (r#"{"admin": true}"#, "lb.json:1:11: admin: found true; accepted: a string or a number: a port"),
        (r#"{"admin": 70000}"#, "lb.json:1:11: admin '70000': "),
        (r#"{"via": 1}"#, "lb.json:1:9: via: found a number; accepted: a string: "),
    ] {
        let problems = problems("", text);
        assert!(problems.len() == 1 && problems[0].starts_with(begin), "{problems:?}");
    }
}

#[test]
fn the_command_line_and_the_environment_come_before_the_file() {
    let text = r#"{"port": 81, "via": "file", "trust": ["::1"], "trace": true, "idle_timeout": "1s"}"#;
    let config = over("-p 80 --trust 10.0.0.0/8 --trust 10.1.0.0/16", text);
    assert_eq!((config.listen[0].address.port(), config.via.as_deref(), config.trust.len()), (80, Some("env"), 2));
    assert_eq!((config.trace, config.timeouts.idle_us), (true, 1_000_000));
    // A hidden value is still checked.
    assert_eq!(problems("-p 80", r#"{"port": 99999}"#).len(), 1);
}

#[test]
fn a_syntax_error_is_reported_with_its_position() {
    refused("{\n  \"port\": 80,\n}", "lb.json:3:1: found '}', expected a key in double quotation marks");
    refused("", "lb.json:1:1: found the end of the text, expected a value");
    refused("[]", "lb.json:1:1: found an array; accepted: an object of settings, as in {\"backends\": [...]}");
}

#[test]
fn unknown_keys_get_the_nearest_known() {
    refused("{\n \"prot\": 1}", "lb.json:2:2: unknown key 'prot'; did you mean 'port'?");
    refused("{\"max-connections\": 1}", "lb.json:1:2: unknown key 'max-connections'; did you mean 'max_connections'?");
    refused("{\"backend\": []}", "lb.json:1:2: unknown key 'backend'; did you mean 'backends'?");
    let accepted = "accepted: backends, and the options that --help lists, with underscores";
    refused("{\"frob\\n\": 1}", &format!("lb.json:1:2: unknown key 'frob\\x0a'; {accepted}"));
    refused("{\"help\": true}", &format!("lb.json:1:2: unknown key 'help'; {accepted}"));
    refused(
        "{\"backends\": [{\"host\": \"a\", \"port\": 1, \"wieght\": 2}]}",
        "lb.json:1:40: unknown key 'wieght' of a backend; \
         accepted: host, port, unix, weight, backup, max, tls, h2c, for; did you mean 'weight'?",
    );
    refused(
        "{\"backends\": [{\"host\": \"a\", \"port\": 1, \"colour\": 2}]}",
        "lb.json:1:40: unknown key 'colour' of a backend; accepted: host, port, unix, weight, backup, max, tls, h2c, for",
    );
}

#[test]
fn keys_that_have_no_place_here_say_why() {
    refused(
        "{\"demo\": true}",
        "lb.json:1:2: 'demo' has no place in a file; accepted: --demo on the command line, or LB_DEMO in the environment",
    );
    for key in ["config", "check"] {
        assert!(problems("", &format!("{{\"{key}\": 1}}"))[0].contains("has no place in a file"), "{key}");
    }
    refused("{\"access_log\": \"f\"}", "lb.json:1:2: 'access_log' is not in this version; accepted: no such key");
    refused(
        "{\"backends\": [{\"host\": \"a\", \"port\": 1, \"sni\": true}]}",
        "lb.json:1:40: 'sni' is not in this version; accepted: no such key",
    );
}

#[test]
fn keys_stand_once() {
    refused("{\"port\": 1,\n\"port\": 1}", "lb.json:2:1: key 'port' stands at 1:2 already; accepted: once");
    refused(
        "{\"backends\": [{\"host\": \"a\", \"port\": 1, \"port\": 2}]}",
        "lb.json:1:40: key 'port' stands at 1:29 already; accepted: once",
    );
}

#[test]
fn values_of_the_wrong_type_say_what_is_accepted() {
    refused("{\"port\": \"80\"}", "lb.json:1:10: port: found a string; accepted: a number from 0 to 65535");
    refused("{\"trace\": 1}", "lb.json:1:11: trace: found a number; accepted: true or false");
    refused(
        "{\"max_connections\": null}",
        "lb.json:1:21: max_connections: found null; accepted: a number from 1 to 10000000",
    );
    refused(
        "{\"idle_timeout\": 5}",
        "lb.json:1:18: idle_timeout: found a number; accepted: a string: 1ms to 24h, such as 500ms, 2s, 1m or 1h",
    );
    for text in ["{\"trust\": 1}", "{\"trust\": [1]}", "{\"backends\": {}}", "{\"backends\": [1]}"] {
        assert!(problems("", text)[0].contains(": found "), "{text}");
    }
    let backend = |part: &str| problems("", &format!("{{\"backends\": [{{\"host\": \"a\", \"port\": 1, {part}}}]}}"));
    assert_eq!(backend("\"backup\": 1"), ["lb.json:1:50: backup: found a number; accepted: true or false"]);
    assert_eq!(backend("\"max\": \"1\""), ["lb.json:1:47: max: found a string; accepted: a number from 1 to 1000000"]);
}

#[test]
fn values_out_of_bounds_say_what_is_accepted() {
    let port = "a number from 0 to 65535";
    refused("{\"port\": 65536}", &format!("lb.json:1:10: port '65536': out of range; accepted: {port}"));
    refused("{\"port\": 80.5}", &format!("lb.json:1:10: port '80.5': malformed; accepted: {port}"));
    refused("{\"port\": -1}", &format!("lb.json:1:10: port '-1': out of range; accepted: {port}"));
    refused("{\"port\": 1e5}", &format!("lb.json:1:10: port '100000': out of range; accepted: {port}"));
    let huge = &problems("", "{\"port\": 1e300}")[0];
    assert!(huge.ends_with(&format!("...': out of range; accepted: {port}")), "{huge}");
    let strategies = FLAGS.iter().find(|flag| flag.long == "strategy").unwrap().accepts;
    refused("{\"strategy\": \"robin\"}", &format!("lb.json:1:14: strategy 'robin': unknown; accepted: {strategies}"));
    assert!(problems("", "{\"trust\": [\"::1\", \"all\"]}")[0].starts_with("lb.json:1:19: trust 'all': malformed;"));
    assert!(
        problems("", "{\"backends\": [\"a\"]}")[0].starts_with("lb.json:1:15: backends 'a': no port; accepted: host")
    );
    let tls = |parts: &str| over("", &format!("{{\"backends\": [{{\"host\": \"a\", {parts}}}]}}")).backends[0].tls;
    assert!(tls("\"port\": 443") && tls("\"port\": 1, \"tls\": true") && !tls("\"port\": 443, \"tls\": false"));
    let host = |host: &str| problems("", &format!("{{\"backends\": [{{\"host\": \"{host}\", \"port\": 1}}]}}"));
    assert!(host("a:1")[0].contains("the host has a port, which is a key of its own: \"port\""));
    assert!(host("http://a")[0].contains("the host has a scheme"));
    for wrong in ["", "a,backup", "a b", "[a]", "a\\u0000"] {
        assert!(host(wrong)[0].contains("neither an address nor a name"), "{wrong}");
    }
}

#[test]
fn the_parts_of_a_backend_have_to_fit_together() {
    for (parts, told) in [
        ("", "found neither a host nor a socket"),
        ("\"weight\": 2", "found neither a host nor a socket"),
        ("\"host\": \"a\"", "found a host without a port"),
        ("\"port\": 1", "found a port without a host"),
        ("\"unix\": \"/s\", \"port\": 1", "found a socket with a host or a port"),
        ("\"unix\": \"/s\", \"host\": \"a\", \"port\": 1", "found a socket with a host or a port"),
    ] {
        let accepted = "{\"host\": ..., \"port\": ...} or {\"unix\": ...}";
        refused(
            &format!("{{\"backends\": [{{{parts}}}]}}"),
            &format!("lb.json:1:15: backends: {told}; accepted: {accepted}"),
        );
    }
}

#[test]
fn an_empty_list_of_backends_is_none_and_no_list_is_the_default_ones() {
    let text = "{\"backends\": []}";
    let config = over("", text);
    assert!(config.backends.is_empty() && !config.default_backends);
    assert_eq!(over("-b a:1", text).backends.len(), 1);
    assert!(over("--demo", text).demo);
}

#[test]
fn every_problem_is_told_in_the_order_of_the_text() {
    let told = problems(
        "",
        "{\"prot\": 1,\n\"port\": \"x\",\n\"backends\": [{\"host\": 1, \"port\": 0}, \"a:0\"],\n\"via\": \"a b\",\n\"via\": 1}",
    );
    let places: Vec<&str> = told.iter().filter_map(|line| line.strip_prefix("lb.json:")?.split(": ").next()).collect();
    assert_eq!(places, ["1:2", "2:9", "3:23", "3:34", "3:38", "4:8", "5:1"], "{told:#?}");
    let many = format!("{{{}\"x\": 1}}", (0..1000).map(|n| format!("\"x{n}\": 1, ")).collect::<String>());
    let told = problems("", &many);
    assert_eq!(told.len(), FILE_PROBLEMS + 1);
    assert!(told[FILE_PROBLEMS].contains("the rest is not told"));
}

#[test]
fn a_contradiction_names_its_positions() {
    let contradictions = |line: &str, text: &str| -> Vec<String> {
        let options = read(text.as_bytes(), "lb.json", options(line)).expect(text);
        config::resolve(options).expect_err(text).iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        contradictions("-b a:1", "{\"backends\": [\"A:1\", {\"host\": \"b\", \"port\": 1}, \"b:1\"]}"),
        [
            "lb.json:1:15: backends 'A:1': the same backend as at --backend; accepted: each once",
            "lb.json:1:48: backends 'b:1': the same backend as at lb.json:1:22; accepted: each once"
        ]
    );
    let told = contradictions("--demo", "{\"backends\": [\"a:1\"]}");
    assert!(told[0].starts_with("--demo and lb.json:1:15 are contradictory"), "{told:?}");
    let told = contradictions("-m sp", "{\"workers\": 2, \"admin\": \"8080\"}");
    assert!(told[0].starts_with("lb.json:1:13: workers '2': contradicts mode sp"), "{told:?}");
    assert!(told[1].starts_with("lb.json:1:25: admin '127.0.0.1:8080': clients connect there"), "{told:?}");
}

#[test]
fn more_backends_than_there_may_be_are_refused() {
    let text = |count: usize| {
        let all: Vec<String> =
            (1..=count).map(|port| format!("{{\"host\": \"a\", \"port\": {}}}", 1000 + port)).collect();
        format!("{{\"backends\": [{}]}}", all.join(","))
    };
    assert_eq!(over("", &text(crate::limits::BACKENDS)).backends.len(), crate::limits::BACKENDS);
    let told = problems("-b b:1", &text(crate::limits::BACKENDS));
    assert!(told.len() == 1 && told[0].contains("backends 'a:2024': too many are given"), "{told:?}");
}

#[test]
fn no_text_makes_it_panic_or_speak_in_two_lines() {
    let mut random = crate::collections::random::Random::new(11);
    let keys: Vec<String> = FLAGS.iter().map(key_of).chain(BACKEND_KEYS.map(str::to_owned)).collect();
    let values = [
        "1",
        "-1",
        "1.5",
        "true",
        "null",
        "\"\"",
        "\"off\"",
        "\"a:1\"",
        "\"\\n\\u0000\"",
        "[]",
        "{}",
        "[\"::1\", 1]",
        "[{\"host\": \"a\", \"port\": 1}, {\"unix\": \"/s\", \"max\": 0}]",
    ];
    for _ in 0..5_000 {
        let mut text = String::from("{");
        for _ in 0..random.below(5) {
            let key = match random.below(8) {
                0 => BACKENDS.to_owned(),
                1 => "\u{202e}x\\n".to_owned(),
                _ => keys[random.below(keys.len() as u64) as usize].clone(),
            };
            let value = values[random.below(values.len() as u64) as usize];
            text += &format!("\"{key}\": {value}{}", if random.below(10) == 0 { "" } else { ", " });
        }
        let text = text.strip_suffix(", ").unwrap_or(&text).to_owned() + "}";
        match read(text.as_bytes(), "lb\n.json", Options::default()) {
            Ok(options) => drop(config::resolve(options)),
            Err(problems) => {
                for problem in &problems {
                    let line = problem.to_string();
                    assert!(line.starts_with("lb\\x0a.json:1:") && line.lines().count() == 1, "{line}");
                }
            }
        }
    }
}

#[test]
fn the_worst_text_is_read_in_no_time() {
    let many = |one: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for n in 0.. {
            let one = one(n);
            if text.len() + one.len() + 100 > crate::limits::JSON_BYTES {
                break;
            }
            text += &one;
        }
        text
    };
    // A limit of a minute for milliseconds of work: quadratic work would exceed it.
    let start = std::time::Instant::now();
    for text in [
        format!("{{{}\"x\": 1}}", many(&|n| format!("\"{n:x}\":1,"))),
        format!("{{{}\"x\": 1}}", many(&|_| "\"x\":1,".into())),
        format!("{{\"backends\": [{{{}\"x\": 1}}]}}", many(&|n| format!("\"{n:x}\":1,"))),
        format!("{{\"backends\": [{}1]}}", many(&|_| "{},".into())),
        format!("{{\"trust\": [{}1]}}", many(&|_| "\"::1\",".into())),
    ] {
        assert!(text.len() < crate::limits::JSON_BYTES);
        assert_eq!(problems("", &text).len(), FILE_PROBLEMS + 1);
    }
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn a_whole_number_is_one_however_it_is_written() {
    for (text, port) in [("20.0", 20), ("1e3", 1000), ("1.5E+3", 1500), ("80", 80), ("0.0", 0), ("-0", 0)] {
        assert_eq!(over("", &format!("{{\"port\": {text}}}")).listen[0].address.port(), port, "{text}");
    }
    let parts = "{\"backends\": [{\"host\": \"a\", \"port\": 8.0e1, \"weight\": 2.0, \"max\": 1e2}]}";
    let backend = &over("", parts).backends[0];
    assert_eq!((backend.name.as_str(), backend.weight, backend.max), ("a:80", 2, 100));
}

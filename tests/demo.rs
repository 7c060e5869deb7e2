//! `--demo`: the balancer with two built-in backends.

use crate::support::{Balancer, Exit, Mode, command, modes};
use std::collections::BTreeSet;

fn demo(mode: Mode) -> Balancer {
    let mode = if mode == Mode::Mp { "mp" } else { "sp" };
    Balancer::spawn(command(&["--demo", "-p", "0", "--host", "127.0.0.1", "--mode", mode]))
}

/// The string value of a key at any depth of a JSON text.
fn string_value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{key}\""))?;
    rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()
}

#[test]
fn both_backends_answer_with_a_json_account_and_their_names() {
    for mode in modes() {
        let balancer = demo(mode);
        let mut client = balancer.connect();
        let mut names = BTreeSet::new();
        for n in 0..8 {
            client.send(format!(
                "POST /some/path?n={n} HTTP/1.1\r\nHost: demo.example\r\nX-Demo: quote\"d\r\nContent-Length: 5\r\n\r\nhello"
            ));
            let answer = client.response("POST");
            assert_eq!(answer.status(), 200);
            assert!(
                answer.value("Content-Type").is_some_and(|kind| kind.starts_with("application/json")),
                "{answer:?}"
            );
            let text = answer.text();
            assert!(text.starts_with('{') && text.trim_end().ends_with('}'), "{text}");
            assert_eq!(string_value(&text, "method"), Some("POST"), "{text}");
            assert!(text.contains(&format!("/some/path?n={n}")) && text.contains("demo.example"), "{text}");
            assert!(text.contains("quote\\\"d"), "a quote is escaped: {text}");
            names.insert(string_value(&text, "backend").unwrap_or_else(|| panic!("no name in {text}")).to_string());
        }
        assert_eq!(names.len(), 2, "{mode:?}: {names:?}");
    }
}

#[test]
fn suggests_a_command_and_ends_all_its_processes() {
    for mode in modes() {
        let balancer = demo(mode);
        let address = balancer.address().to_string();
        let log = balancer.wait_for_log("curl");
        assert!(log.lines().any(|line| line.contains("curl") && line.contains(&address)), "{log}");
        assert!(balancer.get("/").contains("backend"));
        assert_eq!(balancer.stop(), Exit::Status(0));
    }
}

#[test]
fn a_demo_echoes_bodies_of_any_size_and_head_requests() {
    let balancer = demo(Mode::Sp);
    let mut client = balancer.connect();
    for size in [0, 1, 8193, 300_000] {
        assert_eq!(client.post("/sized", &vec![b'x'; size]).status(), 200, "{size} bytes");
    }
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response("HEAD").status(), 200);
    assert_eq!(client.get("/").status(), 200);
}

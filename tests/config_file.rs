//! The configuration file at the start: its settings apply, and errors end the program with status 2 and one
//! line each.

use crate::support::{Backend, Balancer, Directory, command, run};
use std::process::Output;

/// The lines of an exit with status 2, without the program's name.
#[track_caller]
fn refused(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(output.stdout, b"", "nothing on stdout");
    let without_name = |line: &str| line.strip_prefix("load_balancer: ").expect("each line begins so").to_owned();
    text.lines().map(without_name).collect()
}

#[test]
fn the_file_applies_unless_another_source_has_the_option() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let port = one.spec().rsplit(':').next().expect("a port").to_owned();
    let directory = Directory::new();
    let text = format!(
        r#"{{"backends": [{{"host": "127.0.0.1", "port": {port}}}], "host": "127.0.0.1", "port": 1, "mode": "sp"}}"#
    );
    let file = directory.put("lb.json", &text).display().to_string();
    let balancer = Balancer::spawn(command(&["-c", &file, "-p", "0", "-b", &two.spec()]));
    assert_eq!(balancer.workers(), []);
    let mut answers = [balancer.get("/"), balancer.get("/")];
    answers.sort();
    assert_eq!(answers, ["one", "two"], "backends of the file and others add up");

    let mut by_environment = command(&["-p", "0"]);
    by_environment.env("LB_CONFIG", &file);
    assert_eq!(Balancer::spawn(by_environment).get("/"), "one");
}

#[test]
fn every_problem_of_a_file_is_reported_with_its_position() {
    let text =
        "{\n  \"prot\": 80,\n  \"backends\": [{\"host\": \"127.0.0.1\", \"port\": \"9001\"}],\n  \"port\": 65536\n}\n";
    let directory = Directory::new();
    let file = directory.put("lb.json", text).display().to_string();
    for args in [vec!["-c", &file], vec!["--check", "-c", &file], vec!["-p", "80", "-c", &file]] {
        let lines = refused(&run(&args));
        assert_eq!(
            lines,
            [
                format!("{file}:2:3: unknown key 'prot'; did you mean 'port'?"),
                format!("{file}:3:46: port: found a string; accepted: a number from 1 to 65535"),
                format!("{file}:4:11: port '65536': out of range; accepted: a number from 0 to 65535"),
            ]
        );
    }
}

#[test]
fn a_text_that_is_no_json_is_one_line() {
    for (text, told) in [
        ("{\"port\": 80,}", ":1:13: found '}', expected a key in double quotation marks"),
        ("", ":1:1: found the end of the text, expected a value"),
        ("\u{feff}{}", ":1:1: found a byte order mark, expected UTF-8 without one"),
        ("port: 80", ":1:1: found 'p', expected a value"),
    ] {
        let directory = Directory::new();
        let file = directory.put("lb.json", text).display().to_string();
        assert_eq!(refused(&run(&["-c", &file])), [format!("{file}{told}")]);
    }
    let directory = Directory::new();
    let file = directory.put("lb.json", &[b' '; 1024 * 1024 + 1]).display().to_string();
    let lines = refused(&run(&["-c", &file]));
    assert!(lines.len() == 1 && lines[0].contains("more than 1048576 bytes"), "{lines:?}");
}

#[test]
fn a_path_that_cannot_be_read_is_named_with_the_reason() {
    let directory = std::env::temp_dir();
    let directory = directory.to_str().expect("a path of letters");
    for (path, reason) in [("/nonexistent/lb.json", "No such file"), (directory, "not a regular file")] {
        let lines = refused(&run(&["--config", path]));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with(&format!("--config '{path}': {reason}")), "{lines:?}");
    }
}

#[test]
fn contradictions_of_file_and_command_line_are_reported() {
    let directory = Directory::new();
    let file = directory.put("lb.json", "{\"backends\": [\"127.0.0.1:9001\"], \"workers\": 2}").display().to_string();
    let lines = refused(&run(&["-c", &file, "-b", "127.0.0.1:9001", "-m", "sp"]));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{file}:1:45: workers '2': contradicts mode sp")), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{file}:1:15: backends '127.0.0.1:9001'")), "{lines:?}");
    assert!(lines[1].contains("--backend"), "{lines:?}");
}

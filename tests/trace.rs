//! `--trace`: the transferred messages in the log, with secrets masked.

use crate::support::{Backend, Balancer, Mode, chunked, modes, response};

const SECRETS: [&str; 4] = ["s3cret-bearer", "s3cret-cookie", "s3cret-proxy", "s3cret-set"];

/// One dump: its label, and its bytes from the hex columns.
struct Dump {
    label: String,
    bytes: Vec<u8>,
}

/// The dumps in a log. Each of their lines must have the documented format.
fn dumps(log: &str) -> Vec<Dump> {
    let mut dumps: Vec<Dump> = Vec::new();
    for line in log.lines() {
        let Some(row) = line.strip_prefix("  ") else {
            if line.contains(" trace ") {
                dumps.push(Dump { label: line.to_string(), bytes: Vec::new() });
            }
            continue;
        };
        let dump = dumps.last_mut().unwrap_or_else(|| panic!("a row without a label: {line}"));
        let (columns, ascii) = row.split_once("  |").unwrap_or_else(|| panic!("no ASCII column: {line}"));
        let (offset, hex) = columns.split_at(8);
        assert_eq!(usize::from_str_radix(offset, 16), Ok(dump.bytes.len()), "{line}");
        let bytes: Vec<u8> =
            hex.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).expect("two hex digits")).collect();
        assert!((1..=16).contains(&bytes.len()), "{line}");
        // Two spaces before the first byte and before the ninth.
        assert!(hex.starts_with("  "), "{line}");
        assert!(bytes.len() <= 8 || &hex[2 + 8 * 3 - 1..2 + 8 * 3 + 1] == "  ", "a gap after eight: {line}");
        let shown: String = bytes.iter().map(|b| if (0x20..0x7f).contains(b) { *b as char } else { '.' }).collect();
        assert_eq!(ascii.trim_end_matches('|'), shown.trim_end_matches('|'), "{line}");
        dump.bytes.extend_from_slice(&bytes);
    }
    for dump in &dumps {
        let count = dump.label.rsplit_once('(').and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        assert_eq!(count, Some(dump.bytes.len()), "{}", dump.label);
    }
    dumps
}

/// Sends one request with secrets and bodies in both directions. Returns the whole log after the program has
/// ended.
fn traced(mode: Mode, args: &[&str]) -> String {
    let backend = Backend::replying(response(
        "Set-Cookie: id=s3cret-set; HttpOnly\r\nX-Plain: plain-response-field\r\n",
        b"the body of the response",
    ));
    let mut balancer = Balancer::before(mode, &[&backend], args);
    let mut client = balancer.connect();
    client.send(
        "POST /traced-path HTTP/1.1\r\nHost: x\r\nauthorization: Bearer s3cret-bearer\r\nCookie: id=s3cret-cookie\r\n\
         Proxy-Authorization: Basic s3cret-proxy\r\nX-Plain: plain-request-field\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    client.send(chunked(&[b"the body of the request"], &[]));
    assert_eq!(client.response("POST").text(), "the body of the response");
    drop(client);
    balancer.signal(libc::SIGTERM);
    balancer.wait();
    balancer.whole_log()
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[test]
fn every_message_is_dumped_in_both_directions() {
    for mode in modes() {
        let log = traced(mode, &["--trace"]);
        let dumps = dumps(&log);
        let with = |part: &str| dumps.iter().filter(|dump| holds(&dump.bytes, part)).count();
        for part in ["/traced-path", "plain-request-field", "the body of the request"] {
            assert!(with(part) >= 1, "{mode:?}: {part} is in no dump of\n{log}");
        }
        for part in ["plain-response-field", "the body of the response"] {
            assert!(with(part) >= 1, "{mode:?}: {part} is in no dump of\n{log}");
        }
        for dump in &dumps {
            assert!(dump.label.contains("client") || dump.label.contains("backend"), "{}", dump.label);
            assert!(dump.label.chars().any(|c| c.is_ascii_digit()), "the connection's id: {}", dump.label);
        }
    }
}

#[test]
fn secrets_are_masked_unless_debugging() {
    for mode in modes() {
        let log = traced(mode, &["--trace"]);
        let dumps = dumps(&log);
        for secret in SECRETS {
            assert!(!log.contains(secret), "{mode:?}: {secret} in the log");
            assert!(!dumps.iter().any(|dump| holds(&dump.bytes, secret)), "{mode:?}: {secret} in\n{log}");
        }
        assert!(dumps.iter().any(|dump| holds(&dump.bytes.to_ascii_lowercase(), "\r\nauthorization:")), "names stay");
        let log = traced(mode, &["--trace", "-l", "debug"]);
        let dumps = self::dumps(&log);
        for secret in SECRETS {
            assert!(dumps.iter().any(|dump| holds(&dump.bytes, secret)), "{mode:?}: {secret} not in\n{log}");
        }
    }
}

#[test]
fn nothing_is_dumped_unasked() {
    for mode in modes() {
        let log = traced(mode, &["-l", "debug"]);
        assert!(dumps(&log).is_empty(), "{log}");
        for secret in SECRETS {
            assert!(!log.contains(secret), "{secret} in\n{log}");
        }
    }
}

#[test]
fn refused_messages_are_dumped_with_masked_secrets() {
    for mode in modes() {
        let backend = Backend::replying("HTTP/1.1 nonsense\r\n\r\n");
        let mut balancer = Balancer::before(mode, &[&backend], &["-t"]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\nAuthorization : s3cret-bearer\r\nX: y\r\n\r\n");
        assert_eq!(client.response("GET").status(), 400);
        for secret in ["Authorization: Bearer\r\n s3cret-a\r\n\ts3cret-b", "Y: z\rCookie: s3cret-c"] {
            let mut client = balancer.connect();
            client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{secret}\r\nX: y\r\n\r\n"));
            assert_eq!(client.response("GET").status(), 400);
        }
        let mut client = balancer.connect();
        assert_eq!(client.get("/").status(), 502);
        drop(client);
        balancer.signal(libc::SIGTERM);
        balancer.wait();
        let dumps = dumps(&balancer.whole_log());
        // Each worker writes its own lines, so they may not be in the order of the responses.
        let refused = dumps.iter().filter(|dump| dump.label.contains(": refused"));
        let (responses, requests): (Vec<_>, Vec<_>) = refused.partition(|dump| dump.label.contains(" for #"));
        assert_eq!((requests.len(), responses.len()), (3, 1), "{mode:?}");
        for name in ["Authorization *", "Authorization*", "Cookie*"] {
            assert!(requests.iter().any(|dump| holds(&dump.bytes, name)), "{mode:?}: {name}");
        }
        for dump in requests {
            let text = String::from_utf8_lossy(&dump.bytes);
            assert!(text.contains("X: y") && !text.contains("s3cret"), "{text}");
            assert!(dump.label.contains("from client 127.0.0.1:"), "{}", dump.label);
        }
        assert!(responses[0].bytes.starts_with(b"HTTP/1.1 nonsense"));
    }
}

//! The JSON account of a request that a demo backend answers with (RFC 8259).

use std::fmt::Write;

use super::request::Request;
use crate::limits::DEMO_BODY_BYTES;

/// The account, for people to read: a member a line. Fields are pairs in an array, since their
/// order and repetition count. A short body that is text is shown whole.
pub(super) fn json(backend: &str, request: &Request) -> String {
    let mut out = String::from("{\n  \"backend\": ");
    quote(&mut out, backend);
    let members = [("method", &request.method), ("target", &request.target), ("version", &request.version)];
    for (name, value) in members {
        // Writing to a String cannot fail.
        let _ = write!(out, ",\n  \"{name}\": ");
        quote(&mut out, value);
    }
    out.push_str(",\n  \"headers\": [");
    for (index, (name, value)) in request.fields.iter().enumerate() {
        out.push_str(if index == 0 { "\n    [" } else { ",\n    [" });
        quote(&mut out, name);
        out.push_str(", ");
        quote(&mut out, value);
        out.push(']');
    }
    let end = if request.fields.is_empty() { "" } else { "\n  " };
    let _ = write!(out, "{end}],\n  \"body\": {{\"length\": {}", request.length);
    if request.length <= DEMO_BODY_BYTES as u64
        && let Ok(text) = std::str::from_utf8(&request.beginning)
    {
        out.push_str(", \"text\": ");
        quote(&mut out, text);
    }
    out.push_str("}\n}\n");
    out
}

/// Adds a JSON string (RFC 8259, 7).
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Beyond the requirements of JSON: DEL and C1 controls, which a terminal might execute.
            c if c.is_control() => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)], body: &[u8]) -> Request {
        Request {
            method: "POST".to_string(),
            target: "/a?b".to_string(),
            version: "HTTP/1.1".to_string(),
            fields: fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            length: body.len() as u64,
            beginning: body[..body.len().min(DEMO_BODY_BYTES + 1)].to_vec(),
        }
    }

    #[test]
    fn tells_everything_in_order() {
        let text = json("one", &request(&[("Host", "x"), ("A", "1"), ("A", "2")], b"hi\n"));
        let expected = r#"{
  "backend": "one",
  "method": "POST",
  "target": "/a?b",
  "version": "HTTP/1.1",
  "headers": [
    ["Host", "x"],
    ["A", "1"],
    ["A", "2"]
  ],
  "body": {"length": 3, "text": "hi\n"}
}
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn escapes_what_json_and_terminals_would_trip_over() {
        let mut out = String::new();
        quote(&mut out, "a\"b\\c\u{1}\u{1b}\u{7f}\u{9b}é");
        assert_eq!(out, r#""a\"b\\c\u0001\u001b\u007f\u009bé""#);
    }

    #[test]
    fn long_and_binary_bodies_are_only_counted() {
        for body in [vec![b'x'; DEMO_BODY_BYTES + 1], vec![0xff, 0xfe]] {
            let text = json("one", &request(&[], &body));
            assert!(text.contains(&format!("\"body\": {{\"length\": {}}}", body.len())), "{text}");
        }
        assert!(json("one", &request(&[], &[b'x'; DEMO_BODY_BYTES])).contains("\"text\": \"xxx"));
    }

    #[test]
    fn without_fields_the_list_is_empty() {
        assert!(json("one", &request(&[], b"")).contains("\"headers\": [],"));
    }
}

//! JSON from any bytes. Accepted text has positions within the text, in order, and survives writing and
//! parsing. An error has a position within the text and fits on one line.

use zzz_lb::json::{self, Kind, Number, Position, Value};
use zzz_lb::limits::JSON_DEPTH;

/// Panics if a position is outside the text, or if a second parse differs.
pub fn run(data: &[u8]) {
    let lines = data.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let longest = data.split(|&byte| byte == b'\n').map(<[u8]>::len).max().unwrap_or_default();
    let within =
        |at: Position| (1..=lines).contains(&(at.line as usize)) && (1..=longest + 1).contains(&(at.column as usize));
    match json::parse(data) {
        Err(error) => {
            assert!(within(error.at), "{:?}", error.at);
            assert_eq!(error.to_string().lines().count(), 1);
        }
        Ok(value) => {
            let mut last = Position { line: 0, column: 0 };
            places(&value, 0, &mut |at| {
                assert!(within(at) && at > last, "{at:?} after {last:?}");
                last = at;
            });
            let mut text = String::new();
            write(&value, &mut text);
            let again = json::parse(text.as_bytes()).expect("what was read can be read again");
            assert!(same(&value, &again), "{value:?} became {again:?}");
        }
    }
}

/// Visits every position: of the value, then of its parts.
fn places(value: &Value, depth: usize, see: &mut dyn FnMut(Position)) {
    assert!(depth <= JSON_DEPTH);
    see(value.at);
    match &value.kind {
        Kind::Array(items) => items.iter().for_each(|item| places(item, depth + 1, see)),
        Kind::Object(members) => members.iter().for_each(|member| {
            see(member.at);
            places(&member.value, depth + 1, see);
        }),
        _ => {}
    }
}

fn write(value: &Value, out: &mut String) {
    match &value.kind {
        Kind::Null => out.push_str("null"),
        Kind::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
        Kind::Number(number) => out.push_str(&number.to_string()),
        Kind::String(text) => quote(text, out),
        Kind::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Kind::Object(members) => {
            out.push('{');
            for (i, member) in members.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                quote(&member.key, out);
                out.push(':');
                write(&member.value, out);
            }
            out.push('}');
        }
    }
}

/// Writes each UTF-16 unit as an escape, so that escapes are parsed too.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    text.encode_utf16().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
    out.push('"');
}

/// True if the values are equal except for their positions.
fn same(a: &Value, b: &Value) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Array(a), Kind::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Kind::Object(a), Kind::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && same(&a.value, &b.value))
        }
        // Compares bits, so that zeros keep their sign.
        (Kind::Number(Number::Float(a)), Kind::Number(Number::Float(b))) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

//! The parser. It has one function for each production of the grammar (RFC 8259, 2 to 7). The depth is bounded,
//! and with it the recursion.
//!
//! Invariant: the position is that of the byte `at`. It is updated with every byte, so that reading it is free.

use super::{Error, Found, Kind, Member, Number, Position, Value};
use crate::limits::{JSON_BYTES, JSON_DEPTH};

const VALUE: &str = "a value";
const AFTER_ITEM: &str = "',' or ']'";
const AFTER_MEMBER: &str = "',' or '}'";
const KEY: &str = "a key in double quotation marks";
const DIGIT: &str = "a digit";
const PAIR: &str = "a whole surrogate pair, as in \\ud834\\udd1e";

/// Parses a whole text of at most [`JSON_BYTES`] as one value.
pub fn parse(text: &[u8]) -> Result<Value, Error> {
    if text.len() > JSON_BYTES {
        return Err(Error { at: Position::START, found: Found::Size, expected: "at most 1 MiB" });
    }
    let valid = match std::str::from_utf8(text) {
        Ok(valid) => valid,
        Err(error) => return Err(not_utf8(text, error.valid_up_to())),
    };
    if valid.starts_with('\u{feff}') {
        let expected = "UTF-8 without one";
        return Err(Error { at: Position::START, found: Found::ByteOrderMark, expected });
    }
    let mut parser = Parser { text: valid, at: 0, position: Position::START, depth: 0 };
    parser.space();
    let value = parser.value(VALUE)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.error("nothing after the value")),
    }
}

/// The error for the byte at `up_to`, the first one that is not UTF-8.
fn not_utf8(text: &[u8], up_to: usize) -> Error {
    let valid = String::from_utf8_lossy(&text[..up_to]);
    let mut parser = Parser { text: &valid, at: 0, position: Position::START, depth: 0 };
    parser.pass(valid.len());
    // The byte order marks of UTF-16 are not UTF-8.
    let marked = up_to == 0 && matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    let found = if marked { Found::ByteOrderMark } else { Found::Byte(text[up_to]) };
    Error { at: parser.position, found, expected: "UTF-8 throughout" }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    position: Position,
    /// Open arrays and objects.
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Advances over bytes, which must exist.
    fn pass(&mut self, bytes: usize) {
        for &byte in &self.text.as_bytes()[self.at..self.at + bytes] {
            if byte == b'\n' {
                self.position = Position { line: self.position.line + 1, column: 1 };
            } else if byte & 0xc0 != 0x80 {
                self.position.column += 1;
            }
        }
        self.at += bytes;
    }

    /// Advances over the byte if it is next.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.pass(1);
        }
        is_next
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.pass(1);
        }
    }

    /// The error for the text at the current position.
    fn error(&self, expected: &'static str) -> Error {
        let found = self.text[self.at..].chars().next().map_or(Found::End, Found::Character);
        Error { at: self.position, found, expected }
    }

    fn value(&mut self, expected: &'static str) -> Result<Value, Error> {
        let at = self.position;
        let kind = match self.peek() {
            Some(b'{') => self.nested(Parser::object)?,
            Some(b'[') => self.nested(Parser::array)?,
            Some(b'"') => Kind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => Kind::Number(self.number()?),
            Some(b't') => self.word("true", Kind::Bool(true))?,
            Some(b'f') => self.word("false", Kind::Bool(false))?,
            Some(b'n') => self.word("null", Kind::Null)?,
            _ => return Err(self.error(expected)),
        };
        Ok(Value { at, kind })
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<Kind, Error> {
        for byte in word.bytes() {
            if !self.takes(byte) {
                return Err(self.error(word));
            }
        }
        Ok(kind)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Kind, Error>) -> Result<Kind, Error> {
        if self.depth == JSON_DEPTH {
            return Err(Error { at: self.position, found: Found::Depth, expected: "fewer" });
        }
        self.depth += 1;
        self.pass(1);
        self.space();
        let kind = read(self)?;
        self.depth -= 1;
        Ok(kind)
    }

    fn array(&mut self) -> Result<Kind, Error> {
        let mut items = Vec::new();
        if self.takes(b']') {
            return Ok(Kind::Array(items));
        }
        let mut expected = "a value or ']'";
        loop {
            items.push(self.value(expected)?);
            expected = VALUE;
            self.space();
            if self.takes(b']') {
                return Ok(Kind::Array(items));
            } else if !self.takes(b',') {
                return Err(self.error(AFTER_ITEM));
            }
            self.space();
        }
    }

    fn object(&mut self) -> Result<Kind, Error> {
        let mut members = Vec::new();
        if self.takes(b'}') {
            return Ok(Kind::Object(members));
        }
        let mut expected = "a key in double quotation marks, or '}'";
        loop {
            let at = self.position;
            if self.peek() != Some(b'"') {
                return Err(self.error(expected));
            }
            expected = KEY;
            let key = self.string()?;
            self.space();
            if !self.takes(b':') {
                return Err(self.error("':'"));
            }
            self.space();
            let value = self.value(VALUE)?;
            members.push(Member { at, key, value });
            self.space();
            if self.takes(b'}') {
                return Ok(Kind::Object(members));
            } else if !self.takes(b',') {
                return Err(self.error(AFTER_MEMBER));
            }
            self.space();
        }
    }

    /// Reads a string from its opening to its closing quotation mark.
    fn string(&mut self) -> Result<String, Error> {
        self.pass(1);
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\').unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.pass(plain);
            match self.peek() {
                Some(b'"') => {
                    self.pass(1);
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("no control character in a string; an escape such as \\n")),
                None => return Err(self.error("'\"', which ends the string")),
            }
        }
    }

    /// Reads an escape from its backslash to its end.
    fn escape(&mut self) -> Result<char, Error> {
        let at = self.position;
        self.pass(1);
        let escaped = match self.peek() {
            Some(same @ (b'"' | b'\\' | b'/')) => char::from(same),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(at),
            _ => return Err(self.error("one of \" \\ / b f n r t u after a backslash")),
        };
        self.pass(1);
        Ok(escaped)
    }

    /// Reads an escape from its `u` to its last digit; for the first half of a surrogate pair, to the end of
    /// the second half.
    fn unicode(&mut self, at: Position) -> Result<char, Error> {
        self.pass(1);
        let unit = self.four_digits()?;
        let half = |unit| Error { at, found: Found::Surrogate(unit), expected: PAIR };
        let paired = matches!(unit, 0xd800..0xdc00) && self.text[self.at..].starts_with("\\u");
        let mut units = vec![unit];
        if paired {
            self.pass(2);
            units.push(self.four_digits()?);
        }
        let mut decoded = char::decode_utf16(units);
        match (decoded.next(), decoded.next()) {
            (Some(Ok(c)), None) => Ok(c),
            _ => Err(half(unit)),
        }
    }

    fn four_digits(&mut self) -> Result<u16, Error> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let digit = digit.ok_or_else(|| self.error("four hexadecimal digits after \\u"))?;
            // A hexadecimal digit has four bits.
            unit = unit << 4 | digit as u16;
            self.pass(1);
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Number, Error> {
        let (start, at) = (self.at, self.position);
        let negative = self.takes(b'-');
        if self.takes(b'0') {
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.error("no digit after a leading 0"));
            }
        } else {
            self.digits()?;
        }
        let mut whole = true;
        if self.takes(b'.') {
            whole = false;
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            whole = false;
            let _ = self.takes(b'+') || self.takes(b'-');
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        let exact = match (whole, negative) {
            (true, false) => text.parse().ok().map(Number::Unsigned),
            (true, true) => text.parse().ok().filter(|&number| number < 0).map(Number::Negative),
            (false, _) => None,
        };
        match (exact, text.parse::<f64>()) {
            (Some(number), _) => Ok(number),
            (None, Ok(number)) if number.is_finite() => Ok(Number::Float(number)),
            (None, _) => Err(Error { at, found: Found::Huge, expected: "one up to 1.797e308 either way" }),
        }
    }

    /// Reads at least one digit.
    fn digits(&mut self) -> Result<(), Error> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.error(DIGIT));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.pass(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {}: {error}", error.at)).kind
    }

    #[track_caller]
    fn refused(text: impl AsRef<[u8]>, told: &str) {
        let error = parse(text.as_ref()).expect_err(told);
        assert_eq!(format!("{}: {error}", error.at), told);
    }

    #[test]
    fn whole_numbers_are_exact_and_others_doubles() {
        assert_eq!(kind("18446744073709551615"), Kind::Number(Number::Unsigned(u64::MAX)));
        assert_eq!(kind("18446744073709551616"), Kind::Number(Number::Float(18446744073709551616.0)));
        assert_eq!(kind("-9223372036854775808"), Kind::Number(Number::Negative(i64::MIN)));
        assert_eq!(kind("-0"), Kind::Number(Number::Float(-0.0)));
        assert_eq!(kind("80.0"), Kind::Number(Number::Float(80.0)));
        assert_eq!(kind("8e1"), Kind::Number(Number::Float(80.0)));
        assert_eq!(kind("1e-9999"), Kind::Number(Number::Float(0.0)));
        let shown = ["7", "-7", "80.0", "1e300"].map(|text| match kind(text) {
            Kind::Number(number) => number.to_string(),
            kind => panic!("{kind:?}"),
        });
        assert_eq!(shown, ["7", "-7", "80.0", "1e300"]);
        refused("1e309", "1:1: found a number too large, expected one up to 1.797e308 either way");
    }

    #[test]
    fn escapes_are_resolved_and_half_a_pair_is_refused() {
        assert_eq!(
            kind(r#""\"\\\/\b\f\n\r\tA\u00e9\ud834\udd1e\u0000""#),
            Kind::String("\"\\/\u{8}\u{c}\n\r\tAé𝄞\0".into())
        );
        let pair = "found \\ud800, half a surrogate pair, expected a whole surrogate pair, as in \\ud834\\udd1e";
        for text in [r#"["\ud800"]"#, r#"["\uD800x"]"#, r#"["\ud800\n"]"#, r#"["\ud800\ud800"]"#, r#"["\ud800\u0041"]"#]
        {
            refused(text, &format!("1:3: {pair}"));
        }
        refused(r#""\udd1e""#, &format!("1:2: {}", pair.replace("\\ud800", "\\udd1e")));
        refused(r#""\u12g4""#, "1:6: found 'g', expected four hexadecimal digits after \\u");
        refused(r#""\x""#, "1:3: found 'x', expected one of \" \\ / b f n r t u after a backslash");
    }

    #[test]
    fn values_and_keys_know_their_line_and_their_column_in_characters() {
        let text = "{\r\n  \"é𝄞\": [true,\n null], \"b\": 1\n}";
        let Kind::Object(members) = kind(text) else { panic!("no object") };
        let places: Vec<String> =
            members.iter().map(|member| format!("{} {} {}", member.key, member.at, member.value.at)).collect();
        assert_eq!(places, ["é𝄞 2:3 2:9", "b 3:9 3:14"]);
        let Kind::Array(items) = &members[0].value.kind else { panic!("no array") };
        assert_eq!(items.iter().map(|item| item.at.to_string()).collect::<Vec<_>>(), ["2:10", "3:2"]);
    }

    #[test]
    fn an_object_keeps_every_member() {
        let Kind::Object(members) = kind(r#"{"a": 1, "a": 2}"#) else { panic!("no object") };
        assert_eq!(members.len(), 2);
    }

    #[test]
    fn an_error_has_position_found_and_expected_text() {
        refused("", "1:1: found the end of the text, expected a value");
        refused("{\"a\" 1}", "1:6: found '1', expected ':'");
        refused("{\"a\": 1,}", "1:9: found '}', expected a key in double quotation marks");
        refused("{'a': 1}", "1:2: found a single quotation mark, expected a key in double quotation marks, or '}'");
        refused("[1,\n2,]", "2:3: found ']', expected a value");
        refused("[1 2]", "1:4: found '2', expected ',' or ']'");
        refused("{\"a\": 1\n\"b\": 2}", "2:1: found '\"', expected ',' or '}'");
        refused("[] x", "1:4: found 'x', expected nothing after the value");
        refused("[tru]", "1:5: found ']', expected true");
        refused("01", "1:2: found '1', expected no digit after a leading 0");
        refused("[-]", "1:3: found ']', expected a digit");
        refused("1.", "1:3: found the end of the text, expected a digit");
        refused("\"ab", "1:4: found the end of the text, expected '\"', which ends the string");
        let control = "expected no control character in a string; an escape such as \\n";
        refused("\"a\nb\"", &format!("1:3: found the end of the line, {control}"));
        refused("\"\x1b\"", &format!("1:2: found the character U+001B, {control}"));
        refused("// x\n{}", "1:1: found '/', expected a value");
        refused("[\u{a0}1]", "1:2: found the character U+00A0, expected a value or ']'");
    }

    #[test]
    fn only_utf8_without_a_mark_is_taken() {
        refused("\u{feff}{}", "1:1: found a byte order mark, expected UTF-8 without one");
        refused(b"\xff\xfe[\0]\0", "1:1: found a byte order mark, expected UTF-8 throughout");
        refused(b"[\n\"\xc3\xa9\xff\"]", "2:3: found the byte 0xff, which is not UTF-8, expected UTF-8 throughout");
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(nested(JSON_DEPTH).as_bytes()).is_ok());
        refused(
            nested(JSON_DEPTH + 1),
            "1:65: found more than 64 arrays and objects within each other, expected fewer",
        );
        assert!(parse("[".repeat(JSON_BYTES).as_bytes()).is_err());
        // Siblings do not add to the depth.
        assert!(parse(format!("[{}[]]", "[{}],".repeat(1000)).as_bytes()).is_ok());
        let mut long = b"[]".to_vec();
        long.resize(JSON_BYTES, b' ');
        assert!(parse(&long).is_ok());
        long.push(b' ');
        refused(&long, "1:1: found a text of more than 1048576 bytes, expected at most 1 MiB");
    }
}

//! Separates Rust text into code, string literals and comments, line by line.

/// One line of a source file. Each part has the other parts removed.
#[derive(Debug, Default, PartialEq)]
pub struct Line {
    /// The code. A string literal leaves its two quotation marks.
    pub code: String,
    /// The contents of string literals.
    pub text: String,
    /// The comment with its slashes; empty if there is none.
    pub comment: String,
}

/// The position of the lexer between two characters.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    Text,
    /// A raw string, with the number of `#` that end it.
    RawText(usize),
    Comment,
}

/// Splits a source text into lines. Strings may span lines. Block comments are not supported, because the code
/// has none.
pub fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut state = State::Code;
    for row in text.lines() {
        let mut line = Line::default();
        let mut rest = row;
        while let Some(c) = rest.chars().next() {
            let taken = match state {
                State::Code => in_code(rest, &mut state, &mut line),
                State::Text => in_text(rest, &mut state, &mut line),
                State::RawText(hashes) => {
                    let end = format!("\"{}", "#".repeat(hashes));
                    let ends = rest.starts_with(&end);
                    if ends {
                        state = State::Code;
                        line.code.push('"');
                    } else {
                        line.text.push(c);
                    }
                    if ends { end.len() } else { c.len_utf8() }
                }
                State::Comment => {
                    line.comment.push_str(rest);
                    rest.len()
                }
            };
            rest = &rest[taken..];
        }
        if state == State::Comment {
            state = State::Code;
        }
        line.text.push(' ');
        lines.push(line);
    }
    lines
}

/// Reads the next part of code. Returns its length in bytes.
fn in_code(rest: &str, state: &mut State, line: &mut Line) -> usize {
    if rest.starts_with("//") {
        *state = State::Comment;
        return 0;
    }
    let follows_name = line.code.ends_with(|c: char| c.is_alphanumeric() && c != 'b' || c == '_');
    if let Some(raw) = rest.strip_prefix('r').filter(|_| !follows_name) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            *state = State::RawText(hashes);
            line.code.push('"');
            return 2 + hashes;
        }
    }
    let c = rest.chars().next().unwrap_or(' ');
    if c == '"' {
        *state = State::Text;
    }
    if c == '\'' {
        // A character literal, and not a lifetime: it may contain a quotation mark.
        let mut inside = rest[1..].chars();
        let literal = match (inside.next(), inside.next()) {
            (Some('\\'), _) => rest[3..].find('\'').map(|at| 3 + at + 1),
            (Some(c), Some('\'')) => Some(1 + c.len_utf8() + 1),
            _ => None,
        };
        if let Some(length) = literal {
            line.code.push_str("' '");
            return length;
        }
    }
    line.code.push(c);
    c.len_utf8()
}

/// Reads the next part of a string literal. Returns its length in bytes.
fn in_text(rest: &str, state: &mut State, line: &mut Line) -> usize {
    let mut chars = rest.chars();
    match chars.next() {
        Some('"') => {
            *state = State::Code;
            line.code.push('"');
            line.text.push(' ');
            1
        }
        Some('\\') => {
            line.text.push(' ');
            1 + chars.next().map_or(0, char::len_utf8)
        }
        c => {
            let c = c.unwrap_or(' ');
            line.text.push(c);
            c.len_utf8()
        }
    }
}

#[test]
fn code_text_and_comments_are_separated() {
    let text =
        "let a = \"b // c\\\" d\"; // e \"f\"\nlet g = r#\"h \"i\"#; let j = '\"'; k(b'\\'', 'l');\n\"m \\\n  n\" o";
    let parts: Vec<(String, String, String)> = lines(text)
        .into_iter()
        .map(|line| (line.code, line.text.split_whitespace().collect::<Vec<_>>().join(" "), line.comment))
        .collect();
    let part = |code: &str, text: &str, comment: &str| (code.to_owned(), text.to_owned(), comment.to_owned());
    assert_eq!(parts[0], part("let a = \"\"; ", "b // c d", "// e \"f\""));
    assert_eq!(parts[1], part("let g = \"\"; let j = ' '; k(b' ', ' ');", "h \"i", ""));
    assert_eq!(parts[2], part("\"", "m", ""));
    assert_eq!(parts[3], part("\" o", "n", ""));
}

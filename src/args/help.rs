//! The texts generated from the table of options: `--help`, `--version`, and the README's table.
//!
//! To update the README's table after a change to [`FLAGS`], run `cargo test readme`: the failing test prints
//! the table to put between the lines `<!-- flags -->` and `<!-- /flags -->`.

use std::fmt::Write as _;

use super::flags::{FLAGS, Flag};

/// The width of the help text.
const WIDTH: usize = 96;
/// The column of the descriptions. An option wider than this has its description on the next line.
const COLUMN: usize = 30;

/// The output of `--help`, with a final line feed.
pub fn text() -> String {
    let mut out = String::from(
        "Usage: load_balancer -b HOST:PORT [-b HOST:PORT]... [-p PORT] [OPTION]...\n\
         Example: load_balancer -b localhost:9001 -b localhost:9002 -p 8080\n\
         Health check of a running balancer: load_balancer healthcheck [[IP:]PORT[/PATH]]\n",
    );
    let mut group = None;
    for flag in FLAGS {
        if group != Some(flag.group) {
            group = Some(flag.group);
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{}:\n", flag.group.title());
        }
        entry(&mut out, flag);
    }
    out.push('\n');
    for paragraph in [
        "Each option is also a variable of the environment: LB_PORT for --port, LB_MAX_CONNECTIONS for \
         --max-connections, and so on. A switch is 1 or 0 there, and a repeatable option is a list with spaces \
         between its values. In a configuration file the keys are \"port\", \"max_connections\" and so on, and \
         \"backends\". The command line overrides the environment, the environment overrides the file, and the \
         file overrides the default. Backends of the file are added to those given elsewhere.",
        "Exit status: 0 done or drained, 1 failed while running, 2 wrong options or configuration.",
    ] {
        wrap(&mut out, paragraph.split(' '), 0);
    }
    out
}

/// The output of `--version`, with a final line feed.
pub fn version() -> String {
    format!("load_balancer {}\n", env!("CARGO_PKG_VERSION"))
}

/// The README's table of options in Markdown, with a final line feed.
pub fn readme_table() -> String {
    let mut out = String::from("| option | environment | default | meaning |\n|---|---|---|---|\n");
    for flag in FLAGS {
        let env = if flag.env.is_empty() { String::new() } else { format!("`{}`", flag.env) };
        let cells = [format!("`{}`", names(flag)), env, flag.default.text().into(), flag.help.into()];
        for cell in cells {
            // A bar would end the cell, even between backquotes.
            let cell = cell.replace('|', "\\|");
            let _ = if cell.is_empty() { write!(out, "| ") } else { write!(out, "| {cell} ") };
        }
        out.push_str("|\n");
    }
    out
}

/// `-p, --port N`.
fn names(flag: &Flag) -> String {
    let mut names = flag.short.map_or(String::new(), |short| format!("-{short}, "));
    let _ = write!(names, "--{}", flag.long);
    if !flag.placeholder.is_empty() {
        let _ = write!(names, " {}", flag.placeholder);
    }
    names
}

/// Writes the lines of an option.
fn entry(out: &mut String, flag: &Flag) {
    let indent = if flag.short.is_some() { "  " } else { "      " };
    let left = format!("{indent}{}", names(flag));
    let meaning = flag.help.replace('`', "");
    let default = match flag.default.text() {
        "" => None,
        text => Some(format!("[default: {text}]")),
    };
    if left.len() + 2 > COLUMN {
        let _ = write!(out, "{left}\n{:COLUMN$}", "");
    } else {
        let _ = write!(out, "{left:COLUMN$}");
    }
    wrap(out, meaning.split(' ').chain(default.as_deref()), COLUMN);
}

/// Writes words up to the width, continues at the column, and ends the line.
fn wrap<'a>(out: &mut String, words: impl Iterator<Item = &'a str>, column: usize) {
    let mut at = column;
    for word in words {
        if at > column && at + 1 + word.len() > WIDTH {
            let _ = write!(out, "\n{:column$}", "");
            at = column;
        } else if at > column {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_begins_with_usage_and_example_and_names_every_option() {
        let text = text();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("Usage: load_balancer -b HOST:PORT"));
        assert!(lines.next().unwrap().ends_with("load_balancer -b localhost:9001 -b localhost:9002 -p 8080"));
        for flag in FLAGS {
            assert!(text.contains(&format!("{} ", names(flag))), "{}", flag.long);
        }
        assert!(text.ends_with('\n') && !text.contains('`'));
    }

    #[test]
    fn help_fits_its_width_and_its_columns_are_aligned() {
        for line in text().lines() {
            assert!(line.len() <= WIDTH && line == line.trim_end(), "{line:?}");
            if line.trim_start().starts_with('-') {
                let bytes = line.as_bytes();
                assert!(bytes[COLUMN - 1] == b' ' && bytes[COLUMN] != b' ', "{line:?}");
            }
        }
    }

    #[test]
    fn version_is_the_package_s() {
        assert_eq!(version(), format!("load_balancer {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn readme_has_the_table_of_options() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).expect("README.md stands beside Cargo.toml");
        let table = readme.split_once("<!-- flags -->\n").and_then(|(_, rest)| rest.split_once("<!-- /flags -->"));
        let table = table.map(|(table, _)| table.trim_matches('\n'));
        let expected = readme_table();
        assert!(
            table == Some(expected.trim_matches('\n')),
            "README.md must have this between the lines `<!-- flags -->` and `<!-- /flags -->`:\n\n{expected}"
        );
    }
}

//! The rules of the house, checked: structure, uses between files, and prose. Each rule is a function from sources
//! to complaints. [`every_rule_finds_its_planted_fault`] proves that none is blind.

use std::path::{Path, PathBuf};

mod cycles;
mod lexer;
mod prose;
mod structure;

/// Directories with Rust code.
const RUST: [&str; 4] = ["src", "tests", "benches", "fuzz"];

/// Pages and scripts that people read.
const PAGES: [&str; 5] = ["README.md", "ARCHITECTURE.md", "Makefile", "deploy", ".ci"];

struct Source {
    /// The path below the repository, with slashes.
    path: String,
    text: String,
    /// The text without the tests at its foot; empty for a file of tests or a page.
    code: String,
}

impl Source {
    fn new(path: &str, text: String) -> Source {
        let is_tests = path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
        let code = if is_tests || !path.ends_with(".rs") { String::new() } else { without_tests(&text) };
        Source { path: path.to_owned(), text, code }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The first part of the path below src, which determines the layer.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a file, or the files below a directory, except build output and fuzz corpora.
fn collect(path: &Path, wanted: fn(&str) -> bool, found: &mut Vec<Source>) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a directory can be read");
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.file_name().is_some_and(|name| name != "target" && name != "corpus") {
                collect(&path, wanted, found);
            }
        }
        return;
    }
    let below = path.strip_prefix(root()).expect("it is below the root").to_string_lossy().into_owned();
    if wanted(&below) {
        found.push(Source::new(&below, std::fs::read_to_string(path).expect("a source file can be read")));
    }
}

/// The text up to the test module at its foot.
fn without_tests(text: &str) -> String {
    let foot = ["\n#[cfg(test)]\nmod ", "\n#[cfg(all(test"].iter().filter_map(|mark| text.find(mark)).min();
    text[..foot.unwrap_or(text.len())].to_string()
}

fn rust(below: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    below.iter().for_each(|name| collect(&root().join(name), |path| path.ends_with(".rs"), &mut found));
    assert!(!found.is_empty());
    found
}

/// All Rust code, and the pages.
fn everything() -> Vec<Source> {
    let mut found = rust(&RUST);
    PAGES.iter().for_each(|name| collect(&root().join(name), |_| true, &mut found));
    found
}

/// Lines of code with their numbers, without comments and the contents of strings.
fn code_lines(code: &str) -> impl Iterator<Item = (usize, String)> {
    lexer::lines(code).into_iter().enumerate().map(|(n, line)| (n + 1, line.code))
}

/// True if `text` has `word` with no letter or digit on either side.
fn mentions(text: &str, word: &str) -> bool {
    let part_of_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let after = text[at + word.len()..].chars().next();
        !part_of_name(text[..at].chars().next_back()) && (word.ends_with(':') || !part_of_name(after))
    })
}

#[track_caller]
fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn each_layer_uses_only_the_layers_above_it() {
    assert_none("layers", &structure::layers_used_upwards(&rust(&["src"])));
}

#[test]
fn files_open_with_their_purpose_and_stay_short() {
    assert_none("files", &structure::long_files(&rust(&RUST)));
}

#[test]
fn functions_stay_short() {
    assert_none("functions", &structure::long_functions(&rust(&["src"])));
}

#[test]
fn pure_modules_use_no_system() {
    assert_none("purity", &structure::impure_modules(&rust(&["src"])));
}

#[test]
fn only_the_codec_and_mux_name_a_version_of_http() {
    assert_none("versions", &structure::versions_outside_the_codec(&rust(&["src"])));
}

#[test]
fn unsafe_is_only_in_allowed_places_and_justified() {
    assert_none("unsafe", &structure::unjustified_unsafe(&rust(&["src", "benches"])));
}

#[test]
fn nothing_unwraps_and_every_expect_states_an_invariant() {
    assert_none("unwrap", &structure::unwraps(&rust(&["src"])));
}

#[test]
fn the_top_of_the_repository_has_only_listed_entries() {
    let entries = std::fs::read_dir(root()).expect("the root can be read");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert_none("unexpected at the top", &structure::unlisted_entries(names));
}

#[test]
fn no_struct_has_more_than_three_flags() {
    assert_none("flags", &structure::many_flags(&rust(&["src"])));
}

#[test]
fn no_two_files_use_each_other() {
    assert_none("cycles", &cycles::pairs(&rust(&["src"])));
}

#[test]
fn comments_messages_and_pages_have_no_banned_words() {
    assert_none("words", &prose::banned_words(&everything()));
}

#[test]
fn comments_do_not_open_with_a_clause() {
    assert_none("clauses", &prose::clauses(&rust(&RUST)));
}

#[test]
fn names_of_tests_do_not_open_with_a_clause() {
    assert_none("names", &prose::clauses_of_names(&rust(&RUST)));
}

/// A rule, and sources of which only the first set breaks it.
type Plant = (&'static str, fn(&[Source]) -> Vec<String>, &'static [(&'static str, &'static str)], &'static str);

/// The last part of each entry is a harmless text for the path of the first source.
const PLANTS: &[Plant] = &[
    (
        "a lower layer",
        structure::layers_used_upwards,
        &[("src/json/a.rs", "use crate::worker::A;")],
        "use crate::limits::A;",
    ),
    (
        "two modules of a layer",
        structure::layers_used_upwards,
        &[("src/http1/a.rs", "use crate::http2::A;"), ("src/http2/a.rs", "use crate::{http1::A};")],
        "",
    ),
    ("an unknown module", structure::layers_used_upwards, &[("src/nowhere/a.rs", "//! A.")], ""),
    ("no purpose", structure::long_files, &[("src/a.rs", "// A.\n")], "//! A.\n"),
    ("a system call", structure::impure_modules, &[("src/http/a.rs", "use crate::sys::clock;")], "use crate::http::A;"),
    ("std of the system", structure::impure_modules, &[("src/http/a.rs", "use std::{fs, io};")], "use std::{fmt, io};"),
    (
        "the clock",
        structure::impure_modules,
        &[("src/http/a.rs", "let a = Instant::now();")],
        "let a = \"Instant\"; // Instant",
    ),
    (
        "a version of HTTP",
        structure::versions_outside_the_codec,
        &[("src/proxy/a.rs", "use crate::http2::A;")],
        "use crate::http::A;",
    ),
    ("unsafe elsewhere", structure::unjustified_unsafe, &[("src/http/a.rs", "unsafe { a() }")], "\"unsafe\" // unsafe"),
    (
        "unsafe without a reason",
        structure::unjustified_unsafe,
        &[("src/sys/a.rs", "unsafe { a() }")],
        "// SAFETY: a.\nunsafe { a() }",
    ),
    ("an unwrap", structure::unwraps, &[("src/a.rs", "a.unwrap();")], "\".unwrap()\""),
    ("a bare expectation", structure::unwraps, &[("src/a.rs", "a.expect(\"ok\");")], "a.expect(\"the list has one\");"),
    (
        "four flags",
        structure::many_flags,
        &[("src/a.rs", "pub struct A {\n    a: bool,\n    pub b: bool,\n    c: bool,\n    d: bool,\n}\n")],
        "struct A {\n    a: bool,\n    b: bool,\n    c: bool,\n}\nstruct B {\n    d: bool,\n}\n",
    ),
    (
        "two files",
        cycles::pairs,
        &[("src/a/b.rs", "use super::{c::{C, D as E}};"), ("src/a/c.rs", "fn f() { crate::a::b::g() }")],
        "pub use super::c::C;\n//! use super::c::C;",
    ),
    (
        "a module and its child",
        cycles::pairs,
        &[("src/a/mod.rs", "mod b;\nuse self::b::{B};"), ("src/a/b.rs", "use super::A;\nstruct B(A);")],
        "mod b;\npub use b::B;",
    ),
    ("a banned word", prose::banned_words, &[("src/a.rs", "// It reads\n// anew.")], "// It reads again."),
    ("a banned word in a message", prose::banned_words, &[("src/a.rs", "f(\"it is told\");")], "f(\"it is logged\");"),
    ("a banned word on a page", prose::banned_words, &[("README.md", "All but for one.")], "All except one."),
    ("a clause", prose::clauses, &[("src/a.rs", "/// Who reads.")], "/// The reader."),
    ("a clause in a comment", prose::clauses, &[("src/a.rs", "a(); // True. What it\n")], "a(); // Why?\n"),
    (
        "a clause in a later paragraph",
        prose::clauses,
        &[("src/a.rs", "//! A.\n//!\n//! - Where b.")],
        "//! A\n//! where b.",
    ),
    (
        "a clause as a name",
        prose::clauses_of_names,
        &[("src/a.rs", "    fn what_is_refused() {")],
        "    fn whatever() {",
    ),
];

#[test]
fn every_rule_finds_its_planted_fault() {
    for (fault, rule, planted, harmless) in PLANTS {
        let mut sources: Vec<Source> =
            planted.iter().map(|(path, text)| Source::new(path, (*text).to_owned())).collect();
        assert!(!rule(&sources).is_empty(), "{fault} is not found");
        if !harmless.is_empty() {
            sources[0] = Source::new(planted[0].0, (*harmless).to_owned());
            assert_none(&format!("the opposite of {fault}"), &rule(&sources));
        }
    }
    let long = Source::new("src/a.rs", format!("//! A.\n{}", "\n".repeat(600)));
    assert!(!structure::long_files(&[long]).is_empty(), "a long file is not found");
    let body = |lines: usize| Source::new("src/a.rs", format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines)));
    assert!(!structure::long_functions(&[body(69)]).is_empty(), "a long function is not found");
    assert_none("a function of 70 lines", &structure::long_functions(&[body(68)]));
    assert!(!structure::unlisted_entries(["junk".to_owned()].into_iter()).is_empty(), "junk is not found");
}

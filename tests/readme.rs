//! The pages for readers, compared with the program: the options, metrics, log lines, `make` targets and files that
//! they name exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use zzz_lb::args::FLAGS;
use zzz_lb::metrics::{Count, Global, Metric, OwnTime, PairState, SlotCount, SlotState, SlotTime};

/// The options of other programs that the pages show.
const FOREIGN_OPTIONS: [&str; 13] = [
    "all-targets",
    "args",
    "bind",
    "kill-whom",
    "lib",
    "name",
    "nocapture",
    "now",
    "release",
    "sanitizer",
    "stop-timeout",
    "test",
    "tests",
];

/// Made by `make bench-save`, and not kept.
const MADE: [&str; 1] = ["benches/baseline/"];

/// The heading of the table of failures in README.md.
const FAILURES: &str = "| status | cause in the log |";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect(name)
}

/// The words of a text that begin with a mark, without it, up to a character that is not in `more`.
fn words_after<'a>(text: &'a str, mark: &'a str, more: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(mark).map(move |(at, _)| {
        let rest = &text[at + mark.len()..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && !more.contains(c));
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn metrics() -> impl Iterator<Item = &'static Metric> {
    let tables = [
        Count::METRICS,
        Global::METRICS,
        SlotCount::METRICS,
        SlotState::METRICS,
        PairState::METRICS,
        OwnTime::METRICS,
        SlotTime::METRICS,
    ];
    tables.into_iter().flatten()
}

/// The text of all source files below a directory.
fn source_text(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory of the source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            source_text(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[track_caller]
fn assert_known<'a>(what: &str, named: impl Iterator<Item = &'a str>, known: &BTreeSet<&str>) {
    let named: BTreeSet<&str> = named.filter(|name| !name.is_empty()).collect();
    assert!(!named.is_empty(), "{what}: none is named");
    let unknown: Vec<_> = named.difference(known).collect();
    assert!(unknown.is_empty(), "{what} that do not exist: {unknown:?}");
}

#[test]
fn options_in_the_pages_exist() {
    let known = FLAGS.iter().map(|flag| flag.long).chain(FOREIGN_OPTIONS).collect();
    for name in ["README.md", "ARCHITECTURE.md", "deploy/README.md"] {
        let text = page(name);
        assert_known(name, words_after(&text, " --", "-").chain(words_after(&text, "`--", "-")), &known);
    }
}

#[test]
fn metrics_in_the_pages_exist() {
    let readme = page("README.md");
    let known = metrics().map(|metric| metric.family).chain(["build_info"]).collect();
    assert_known("metrics", words_after(&readme, "zzz_lb_", "_"), &known);
    // The metrics of a process are one row.
    for family in known.iter().filter(|family| !family.starts_with("process_")) {
        assert!(readme.contains(&format!("`zzz_lb_{family}`")), "README.md does not list zzz_lb_{family}");
    }
    for label in ["reason", "result", "code"] {
        let mark = format!("{{{label}=\"");
        let labels: Vec<&str> = metrics().map(|metric| metric.label).collect();
        let known = labels.iter().filter_map(|text| text.strip_prefix(&mark[1..])?.strip_suffix('"')).collect();
        assert_known(label, words_after(&readme, &mark, "_"), &known);
    }
}

#[test]
fn causes_in_the_table_of_failures_are_those_of_the_log() {
    let mut source = String::new();
    source_text(&root().join("src"), &mut source);
    let readme = page("README.md");
    let (_, table) = readme.split_once(FAILURES).expect("README.md has the table of failures");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let cause = row.split('`').nth(1).expect("a cause in backquotes").trim_end_matches("...");
        // Numbers come from constants, so only the words around them are in the source.
        let parts = cause.split(|c: char| c.is_ascii_digit() && !cause.contains("HTTP/1.1"));
        for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
            assert!(source.contains(part), "no log line has {part:?}: {row}");
        }
    }
}

#[test]
fn make_targets_in_the_pages_exist() {
    let makefile = page("Makefile");
    let known = makefile.lines().filter_map(|line| line.split_once(": ").or(line.split_once(":"))?.0.into());
    let known = known.collect::<BTreeSet<&str>>();
    for name in ["README.md", "ARCHITECTURE.md"] {
        let text = page(name);
        assert_known(name, words_after(&text, "`make ", "-").chain(words_after(&text, "\nmake ", "-")), &known);
    }
}

#[test]
fn files_in_the_pages_exist() {
    for name in ["README.md", "ARCHITECTURE.md"] {
        let text = page(name);
        let paths = text.split('`').skip(1).step_by(2).filter(|word| {
            let below = ["src/", "tests/", "fuzz/", "benches/", "deploy/", ".ci/"];
            below.iter().any(|top| word.starts_with(top)) && !word.contains(char::is_whitespace)
        });
        for path in paths.filter(|path| !path.contains("NAME") && !path.contains('*') && !MADE.contains(path)) {
            assert!(root().join(path.trim_end_matches('/')).exists(), "{name}: {path} does not exist");
        }
    }
}

/// True if `path`, such as `proxy::mux::close` or `shared::MAGIC`, is a module, or an item that a module's text names.
fn is_in_source(path: &str) -> bool {
    let mut at = root().join("src");
    for part in path.split("::") {
        let module = at.join(part);
        if module.is_dir() || module.with_extension("rs").is_file() {
            at = module;
            continue;
        }
        let mut text = String::new();
        if at.is_dir() {
            source_text(&at, &mut text);
        }
        text += &std::fs::read_to_string(at.with_extension("rs")).unwrap_or_default();
        return text.contains(part);
    }
    true
}

#[test]
fn modules_in_the_pages_exist() {
    let text = page("ARCHITECTURE.md");
    let is_path = |word: &&str| {
        let is_name = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
        word.contains("::") && word.split("::").all(is_name)
    };
    let paths: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_path).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        // A type's item, as in `Proxy::follow`, may be in any module.
        let path = path.split("::").skip_while(|part| part.starts_with(char::is_uppercase)).collect::<Vec<_>>();
        assert!(is_in_source(&path.join("::")), "ARCHITECTURE.md: {path:?} does not exist");
    }
}

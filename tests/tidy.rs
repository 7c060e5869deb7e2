//! The rules of the house, checked: layers, sizes, purity, unsafe. (`.ci/check-release` asks cargo
//! about dependencies.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Modules that touch nothing: no system, no sockets, no clock, no environment.
const PURE: [&str; 11] =
    ["args", "balance", "config", "dns", "hpack", "http", "http1", "http2", "json", "metrics", "proxy"];

/// What of std a pure module must not use.
const IMPURE_STD: [&str; 5] = ["env", "fs", "os", "process", "thread"];

/// What a pure module must not mention.
const IMPURE: [&str; 8] =
    ["Instant", "SystemTime", "TcpListener", "TcpStream", "UdpSocket", "UnixStream", "libc::", "rustls"];

/// Where `unsafe` may stand.
const UNSAFE: [&str; 2] = ["src/sys", "src/http1/scan"];

/// What may stand at the top of the repository.
const TOP: [&str; 17] = [
    ".cargo",
    ".ci",
    ".git",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "benches",
    "deploy",
    "fuzz",
    "rustfmt.toml",
    "src",
    "target",
    "tests",
];

struct Source {
    /// Below the repository, with slashes.
    path: String,
    text: String,
    /// What stands before the tests at the file's foot; nothing of a file of tests.
    code: String,
}

impl Source {
    /// The first part of its path below src: the module, by which layers are told.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != "corpus") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file can be read");
            let path = path.strip_prefix(root()).expect("it is below the root").to_string_lossy().into_owned();
            let is_tests = path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/");
            let code = if is_tests { String::new() } else { without_tests(&text) };
            found.push(Source { path, text, code });
        }
    }
}

/// The text up to the test module at its foot.
fn without_tests(text: &str) -> String {
    let foot = ["\n#[cfg(test)]\nmod ", "\n#[cfg(all(test"].iter().filter_map(|mark| text.find(mark)).min();
    text[..foot.unwrap_or(text.len())].to_string()
}

fn sources(below: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for directory in below {
        collect(&root().join(directory), &mut found);
    }
    assert!(!found.is_empty());
    found
}

/// Code lines with their numbers, comments and what stands in string literals left out.
fn code_lines(code: &str) -> impl Iterator<Item = (usize, String)> {
    code.lines().enumerate().map(|(n, line)| (n + 1, without_text(line)))
}

fn without_text(line: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => _ = chars.next(),
            '\'' if !quoted && chars.peek() == Some(&'"') => _ = chars.next(),
            '"' => {
                quoted = !quoted;
                out.push(c);
            }
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if !quoted => out.push(c),
            _ => {}
        }
    }
    out
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

/// The table of layers in src/lib.rs: the number of each module's layer.
fn layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).expect("there is a lib.rs");
    let mut layers = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let Some((number, rest)) = row.split_once("  ") else { continue };
        let Ok(number) = number.trim().parse() else { continue };
        for name in rest.split("  ").map(str::trim) {
            let module = root().join("src").join(name);
            if !name.is_empty() && (module.is_dir() || module.with_extension("rs").is_file()) {
                layers.insert(name.to_string(), number);
            }
        }
    }
    layers
}

/// The modules of this crate that a file uses.
fn used_modules(source: &Source) -> BTreeSet<String> {
    used_of(source, &["crate::", "zzz_lb::"])
}

/// The names that stand behind one of these marks, as in `crate::NAME` and `crate::{NAME, …}`.
fn used_of(source: &Source, marks: &[&str]) -> BTreeSet<String> {
    let code: String = code_lines(&source.code).map(|(_, line)| line + " ").collect();
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut used = BTreeSet::new();
    for mark in marks {
        for (at, _) in code.match_indices(mark) {
            let rest = &code[at + mark.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                used.insert(name(rest));
                continue;
            };
            let (mut depth, mut start) = (0, 0);
            for (n, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        used.insert(name(&group[start..n]));
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.insert(name(&group[start..n]));
                        start = n + 1;
                    }
                    _ => {}
                }
            }
        }
    }
    used.remove("");
    used
}

#[test]
fn each_layer_uses_only_the_layers_above_it() {
    let layers = layers();
    let mut broken = Vec::new();
    let mut beside: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources(&["src"]).iter().filter(|source| source.module() != "lib") {
        let module = source.module();
        let Some(own) = layers.get(module) else {
            broken.push(format!("{}: {module} is not in the table of src/lib.rs", source.path));
            continue;
        };
        for used in used_modules(source) {
            match layers.get(&used) {
                Some(layer) if layer > own => {
                    broken.push(format!("{}: layer {own} uses {used} of layer {layer}", source.path))
                }
                Some(layer) if layer == own && used != module => {
                    beside.entry(module.to_string()).or_default().insert(used);
                }
                _ => {}
            }
        }
    }
    // Within a layer a module may use another, but never both each other.
    for (module, used) in &beside {
        for other in used {
            if beside.get(other).is_some_and(|back| back.contains(module)) {
                broken.push(format!("{module} and {other}, of one layer, use each other"));
            }
        }
    }
    assert_none("layers", &broken);
}

#[test]
fn files_open_with_their_purpose_and_stay_short() {
    let mut broken = Vec::new();
    for source in sources(&["src", "tests", "benches", "fuzz"]) {
        if !source.text.starts_with("//!") {
            broken.push(format!("{}: does not open with //!", source.path));
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            broken.push(format!("{}: {lines} lines", source.path));
        }
    }
    assert_none("files", &broken);
}

#[test]
fn functions_stay_short() {
    let mut broken = Vec::new();
    for source in sources(&["src"]) {
        let lines: Vec<&str> = source.code.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = mentions(&without_text(line), "fn") && !line.trim_start().starts_with("//");
            if !starts || line.trim_end().ends_with([';', '}']) {
                continue;
            }
            // The code is formatted: a function ends with the first brace at its own depth.
            let end = lines[n..].iter().position(|l| l.starts_with(&format!("{}}}", " ".repeat(indent))));
            let length = end.map_or(0, |end| end + 1);
            if length > FUNCTION_LINES {
                broken.push(format!("{}:{}: {length} lines", source.path, n + 1));
            }
        }
    }
    assert_none("functions", &broken);
}

#[test]
fn pure_modules_use_no_system() {
    let mut broken = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| PURE.contains(&source.module())) {
        let of_ours = used_modules(source).contains("sys").then(|| "crate::sys".to_owned());
        let of_std = used_of(source, &["std::"]).into_iter().filter(|name| IMPURE_STD.contains(&name.as_str()));
        let used = of_ours.into_iter().chain(of_std.map(|name| format!("std::{name}")));
        broken.extend(used.map(|used| format!("{}: {used}", source.path)));
        for (n, line) in code_lines(&source.code) {
            for word in IMPURE.iter().filter(|word| mentions(&line, word)) {
                broken.push(format!("{}:{n}: {word}", source.path));
            }
        }
    }
    assert_none("purity", &broken);
}

/// The rest of the proxy does not know which version a connection speaks.
#[test]
fn only_the_codec_and_mux_name_a_version_of_http() {
    let mut broken = Vec::new();
    let knows = |path: &str| path == "src/proxy/codec.rs" || path.starts_with("src/proxy/mux/");
    for source in sources(&["src/proxy"]).iter().filter(|source| !knows(&source.path)) {
        let used = used_of(source, &["crate::"]).into_iter().filter(|name| name == "http1" || name == "http2");
        broken.extend(used.map(|used| format!("{}: {used}", source.path)));
        for (n, line) in code_lines(&source.code) {
            if line.contains("http1::") || line.contains("http2::") {
                broken.push(format!("{}:{n}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none("versions", &broken);
}

#[test]
fn unsafe_is_only_in_allowed_places_and_justified() {
    let mut broken = Vec::new();
    for source in sources(&["src", "benches"]) {
        let lines: Vec<&str> = source.code.lines().collect();
        let allowed = UNSAFE.iter().any(|place| source.path.starts_with(place));
        for (n, line) in code_lines(&source.code) {
            if !mentions(&line, "unsafe") {
                continue;
            }
            if !allowed {
                broken.push(format!("{}:{n}: unsafe", source.path));
            }
            // The reason stands in the comment right above, or in the docs of an unsafe function.
            let above = lines[..n].iter().rev().take(12).any(|l| l.contains("SAFETY") || l.contains("# Safety"));
            if line.contains("unsafe {") && !above {
                broken.push(format!("{}:{n}: no SAFETY line", source.path));
            }
        }
    }
    assert_none("unsafe", &broken);
}

#[test]
fn nothing_unwraps_and_every_expect_states_an_invariant() {
    let mut broken = Vec::new();
    for source in sources(&["src"]) {
        for (n, line) in source.code.lines().enumerate() {
            let code = without_text(line);
            if [".unwrap()", "todo!(", "unimplemented!(", "dbg!("].iter().any(|word| code.contains(word)) {
                broken.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
            if let Some((_, rest)) = line.split_once(".expect(\"").filter(|_| code.contains(".expect(")) {
                let said = rest.split('"').next().unwrap_or("");
                if said.split(' ').count() < 3 {
                    broken.push(format!("{}:{}: expect says no invariant: {said:?}", source.path, n + 1));
                }
            }
        }
    }
    assert_none("unwrap", &broken);
}

#[test]
fn the_top_of_the_repository_has_only_listed_entries() {
    let entries = std::fs::read_dir(root()).expect("the root can be read");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let broken: Vec<String> = names.filter(|name| !TOP.contains(&name.as_str())).collect();
    assert_none("unexpected at the top", &broken);
}

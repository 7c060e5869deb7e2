//! Rules of structure: layers, sizes, purity, unsafe code, flags. (`.ci/check-release` checks dependencies.)

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, code_lines, mentions, root};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// Modules that use no system calls, sockets, clock or environment.
const PURE: [&str; 13] = [
    "args", "balance", "base64", "config", "digest", "dns", "hpack", "http", "http1", "http2", "json", "metrics",
    "proxy",
];

/// Modules of std that a pure module must not use.
const IMPURE_STD: [&str; 5] = ["env", "fs", "os", "process", "thread"];

/// Names that a pure module must not contain.
const IMPURE: [&str; 8] =
    ["Instant", "SystemTime", "TcpListener", "TcpStream", "UdpSocket", "UnixStream", "libc::", "rustls"];

/// Places in which `unsafe` is allowed.
const UNSAFE: [&str; 2] = ["src/sys", "src/http1/scan"];

/// Entries at the top of the repository.
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

/// Structs that may have any number of flags, because each is one option of the user.
const PARSED_OPTIONS: [&str; 2] = ["Config", "Options"];

/// The highest number of flags in a struct. More usually hide an enum, or a struct of related facts.
const FLAGS: usize = 3;

/// Structs of the proxy that may have two flags at most. Their states are enums.
const TWO_FLAGS: [&str; 2] = ["Connection", "Exchange"];

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

/// The names after one of these marks, as in `crate::NAME` and `crate::{NAME, …}`.
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

/// Finds modules that use a lower layer, and modules of one layer that use each other.
pub fn layers_used_upwards(sources: &[Source]) -> Vec<String> {
    let layers = layers();
    let mut broken = Vec::new();
    let mut beside: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.module() != "lib") {
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
    broken
}

/// Finds files that are too long, or do not open with their purpose.
pub fn long_files(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        if !source.text.starts_with("//!") {
            broken.push(format!("{}: does not open with //!", source.path));
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            broken.push(format!("{}: {lines} lines", source.path));
        }
    }
    broken
}

/// Finds functions that are too long.
pub fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let lines: Vec<&str> = source.code.lines().collect();
        for ((n, line), (_, code)) in lines.iter().enumerate().zip(code_lines(&source.code)) {
            let indent = line.len() - line.trim_start().len();
            let starts = mentions(&code, "fn");
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
    broken
}

/// Finds uses of the system in pure modules.
pub fn impure_modules(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| PURE.contains(&source.module())) {
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
    broken
}

/// Finds files of the proxy, other than the codec and the mux, that depend on a version of HTTP.
pub fn versions_outside_the_codec(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    let knows = |path: &str| path == "src/proxy/codec.rs" || path.starts_with("src/proxy/mux/");
    for source in sources.iter().filter(|source| source.module() == "proxy" && !knows(&source.path)) {
        let used = used_of(source, &["crate::"]).into_iter().filter(|name| name == "http1" || name == "http2");
        broken.extend(used.map(|used| format!("{}: {used}", source.path)));
        for (n, line) in code_lines(&source.code) {
            if line.contains("http1::") || line.contains("http2::") {
                broken.push(format!("{}:{n}: {}", source.path, line.trim()));
            }
        }
    }
    broken
}

/// Finds `unsafe` outside its allowed places, or without a reason.
pub fn unjustified_unsafe(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let lines: Vec<&str> = source.code.lines().collect();
        let allowed = UNSAFE.iter().any(|place| source.path.starts_with(place));
        for (n, line) in code_lines(&source.code) {
            if !mentions(&line, "unsafe") {
                continue;
            }
            if !allowed {
                broken.push(format!("{}:{n}: unsafe", source.path));
            }
            // The reason is in the comment above, or in the docs of an unsafe function.
            let above = lines[..n].iter().rev().take(12).any(|l| l.contains("SAFETY") || l.contains("# Safety"));
            if line.contains("unsafe {") && !above {
                broken.push(format!("{}:{n}: no SAFETY line", source.path));
            }
        }
    }
    broken
}

/// Finds unwraps, leftovers, and expectations that state no invariant.
pub fn unwraps(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        for ((n, line), (_, code)) in source.code.lines().enumerate().zip(code_lines(&source.code)) {
            if [".unwrap()", "todo!(", "unimplemented!(", "dbg!("].iter().any(|word| code.contains(word)) {
                broken.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
            if let Some((_, rest)) = line.split_once(".expect(\"").filter(|_| code.contains(".expect(")) {
                let said = rest.split('"').next().unwrap_or("");
                if said.split(' ').count() < 3 {
                    broken.push(format!("{}:{}: expect states no invariant: {said:?}", source.path, n + 1));
                }
            }
        }
    }
    broken
}

/// Finds unexpected entries at the top of the repository.
pub fn unlisted_entries(names: impl Iterator<Item = String>) -> Vec<String> {
    names.filter(|name| !TOP.contains(&name.as_str())).collect()
}

/// Finds structs with too many flags.
pub fn many_flags(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let mut found: Option<(String, usize)> = None;
        for (n, line) in code_lines(&source.code) {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            if let Some(at) = words.iter().position(|word| *word == "struct") {
                found = words.get(at + 1).map(|name| ((*name).to_owned(), 0));
            }
            let Some((name, flags)) = &mut found else { continue };
            *flags += usize::from(line.trim_end().ends_with(": bool,"));
            if line.starts_with('}') || line.trim() == "}" || line.trim_end().ends_with(';') {
                let most =
                    if source.path.starts_with("src/proxy/") && TWO_FLAGS.contains(&name.as_str()) { 2 } else { FLAGS };
                if *flags > most && !PARSED_OPTIONS.contains(&name.as_str()) {
                    broken.push(format!("{}:{n}: {name} has {flags} flags", source.path));
                }
                found = None;
            }
        }
    }
    broken
}

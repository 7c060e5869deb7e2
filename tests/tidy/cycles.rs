//! No two files use each other: a reader can start with the file that uses none of the others.
//!
//! A file uses another if it imports an item of it, or names one by its path (`crate::`, `super::`, `self::`).
//! Two uses do not count, because they add no knowledge in that direction:
//!
//! - A re-export (`pub use`): the module passes a name on and does not use it.
//! - A type of an enclosing module that the file implements (`impl Proxy` in `proxy/queue.rs`): the file is a part
//!   of that type, and Rust has no other way to divide a type among files.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;
use super::lexer;

/// The path of a module, as in `["proxy", "mux"]`.
type Module = Vec<String>;

/// Finds pairs of files that use each other.
pub fn pairs(sources: &[Source]) -> Vec<String> {
    let files: BTreeMap<Module, &Source> =
        sources.iter().filter(|source| !source.code.is_empty()).map(|source| (module(&source.path), source)).collect();
    let mut uses: BTreeMap<(&Module, &Module), BTreeSet<String>> = BTreeMap::new();
    for (own, source) in &files {
        let code: String = lexer::lines(&source.code).iter().map(|line| format!("{} ", line.code)).collect();
        for path in paths(&code) {
            let Some((target, item)) = resolve(&path, own, &files) else { continue };
            let implements = own.starts_with(target) && is_implemented(&code, &item);
            if target != own && !implements {
                uses.entry((own, target)).or_default().insert(item);
            }
        }
    }
    let mut broken = Vec::new();
    for ((one, other), items) in uses.iter().filter(|((one, other), _)| one < other) {
        if let Some(back) = uses.get(&(*other, *one)) {
            let (one, other) = (&files[*one].path, &files[*other].path);
            broken.push(format!("{one} uses {items:?} of {other}, which uses {back:?} of it"));
        }
    }
    broken
}

/// The module that a file below `src` is.
fn module(path: &str) -> Module {
    let below = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let mut parts: Module = below.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    if parts == ["lib"] { Vec::new() } else { parts }
}

/// The paths that code uses: those of private `use` declarations, and those in expressions and types.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let start = statement.rfind("use ").filter(|&at| {
            let before = statement[..at].trim_end();
            before.is_empty() || before.ends_with(['}', ']', ')', '{', ';']) || before.ends_with("pub")
        });
        let Some(at) = start else {
            rest.push_str(statement);
            continue;
        };
        let before = statement[..at].trim_end();
        rest.push_str(before);
        rest.push(' ');
        let is_public = before.ends_with("pub") || before.ends_with(')') && before.contains("pub(");
        if !is_public {
            expand(statement[at + 4..].trim_end_matches(';'), "", &mut found);
        }
    }
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in rest.match_indices(start) {
            let before = rest[..at].chars().next_back();
            // A visibility, as in `pub(in crate::proxy)`, uses nothing.
            let is_visibility = rest[..at].ends_with("(in ");
            if is_visibility || before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let end = rest[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            found.push(rest[at..at + end.unwrap_or(rest.len() - at)].trim_end_matches(':').to_owned());
        }
    }
    found
}

/// Expands the groups of a `use` declaration: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(declaration: &str, before: &str, found: &mut Vec<String>) {
    let declaration = declaration.trim();
    let Some(open) = declaration.find('{') else {
        let name = declaration.split(" as ").next().unwrap_or("").trim();
        if !name.is_empty() {
            found.push(format!("{before}{name}"));
        }
        return;
    };
    let before = format!("{before}{}", &declaration[..open]);
    let inside = &declaration[open + 1..declaration.rfind('}').unwrap_or(declaration.len())];
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inside[start..at], &before, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&inside[start..], &before, found);
}

/// The file that a path leads to, and the item in it; `None` if it leads out of the crate.
fn resolve<'a>(path: &str, own: &Module, files: &'a BTreeMap<Module, &Source>) -> Option<(&'a Module, String)> {
    let mut names: Vec<&str> = path.split("::").map(str::trim).collect();
    let mut full: Module = match names[0] {
        "crate" => Vec::new(),
        "super" | "self" => own.clone(),
        child if files.contains_key(&[own.as_slice(), &[child.to_owned()]].concat()) => own.clone(),
        _ => return None,
    };
    while names.first() == Some(&"super") {
        full.pop();
        names.remove(0);
    }
    names.retain(|name| !matches!(*name, "crate" | "self"));
    full.extend(names.iter().map(|name| (*name).to_owned()));
    let length = (1..=full.len()).rev().find(|&length| files.contains_key(&full[..length]))?;
    let (target, _) = files.get_key_value(&full[..length])?;
    Some((target, full[length..].join("::")))
}

/// True if the code has an `impl` of this type.
fn is_implemented(code: &str, item: &str) -> bool {
    let name = item.split("::").next().unwrap_or(item);
    code.match_indices("impl").any(|(at, _)| {
        let head = code[at + 4..].split('{').next().unwrap_or("");
        let target = head.rsplit(" for ").next().unwrap_or(head);
        let target = target.trim().rsplit("> ").next().unwrap_or(target);
        target.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

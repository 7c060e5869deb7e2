//! The configuration file: JSON whose keys are `backends` and the long names of options, with underscores.
//!
//! [`read`] adds the file's options to those of the command line and the environment, which have precedence. Backends
//! add up. The option's own setter parses a value, so every option in `FLAGS` can be in the file. Every problem is
//! reported, up to a limit, and a file with a problem has no effect. Values that the command line hides are checked
//! too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::args::backend::{self, Backend, Target};
use crate::args::flags::Set;
use crate::args::{self, FLAGS, Fault, Flag, Options, Shown, Source, add_backend, give, nearest};
use crate::collections::order;
use crate::http::route::Route;
use crate::json::{self, Kind, Member, Number, Position, Value};
use crate::limits::FILE_PROBLEMS;

/// Options that belong to the command line and the environment alone.
const NOT_HERE: [&str; 3] = ["config", "check", "demo"];
/// Keys of later versions.
const ABSENT: [&str; 2] = ["tls", "access_log"];
/// A backend's keys of later versions.
const ABSENT_IN_BACKEND: [&str; 4] = ["ca_file", "insecure", "sni", "protocol"];
/// A backend's keys.
const BACKEND_KEYS: [&str; 9] = ["host", "port", "unix", "weight", "backup", "max", "tls", "h2c", "for"];

const BACKENDS: &str = "backends";
const BACKENDS_ACCEPTED: &str =
    "an array of backends, each {\"host\": ..., \"port\": ...} or {\"unix\": ...} or a string as -b takes it";
const BACKEND_ACCEPTED: &str = "{\"host\": ..., \"port\": ...} or {\"unix\": ...}";

/// A problem of a file; always its author's fault. Displayed, it is one line that begins with
/// `FILE:LINE:COLUMN: `, for any content of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file's path, as messages show it.
    pub path: Arc<str>,
    /// Its position.
    pub at: Position,
    /// The problem.
    pub problem: Problem,
}

/// The kinds of problems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is no JSON.
    Json(json::Error),
    /// No option is called that: the key, and the one probably meant.
    UnknownKey(String, Option<String>),
    /// No backend has such a key: the key, and the one probably meant.
    UnknownInBackend(String, Option<String>),
    /// A duplicate key, and the position of the first.
    Twice(String, Position),
    /// An option that has no place in a file.
    NotHere(&'static Flag),
    /// A key of a later version.
    Absent(&'static str),
    /// A value of the wrong type.
    Type {
        /// The key of the value; empty for the whole file.
        key: String,
        /// The type found.
        found: &'static str,
        /// The accepted values.
        accepts: String,
    },
    /// A value that the option does not take; knows its place itself.
    Value(args::Error),
    /// A backend whose parts contradict each other; the description.
    Backend(&'static str),
    /// More problems than are reported.
    More,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its source contains the position.
        if let Problem::Value(error) = &self.problem {
            return write!(f, "{error}");
        }
        write!(f, "{}:{}: ", Shown(&self.path), self.at)?;
        match &self.problem {
            Problem::Json(error) => write!(f, "{error}"),
            Problem::UnknownKey(key, Some(nearest)) => {
                write!(f, "unknown key '{}'; did you mean '{nearest}'?", Shown(key))
            }
            Problem::UnknownKey(key, None) => write!(
                f,
                "unknown key '{}'; accepted: backends, and the options that --help lists, with underscores",
                Shown(key)
            ),
            Problem::UnknownInBackend(key, nearest) => {
                write!(f, "unknown key '{}' of a backend; accepted: {}", Shown(key), BACKEND_KEYS.join(", "))?;
                nearest.iter().try_for_each(|nearest| write!(f, "; did you mean '{nearest}'?"))
            }
            Problem::Twice(key, first) => {
                write!(f, "key '{}' stands at {first} already; accepted: once", Shown(key))
            }
            Problem::NotHere(flag) => write!(
                f,
                "'{}' has no place in a file; accepted: --{0} on the command line, or {} in the environment",
                flag.long, flag.env
            ),
            Problem::Absent(key) => write!(f, "'{key}' is not in this version; accepted: no such key"),
            Problem::Type { key, found, accepts } if key.is_empty() => write!(f, "found {found}; accepted: {accepts}"),
            Problem::Type { key, found, accepts } => write!(f, "{key}: found {found}; accepted: {accepts}"),
            Problem::Backend(what) => write!(f, "backends: {what}; accepted: {BACKEND_ACCEPTED}"),
            Problem::More => write!(f, "more than {FILE_PROBLEMS} problems; the rest is not told"),
            Problem::Value(_) => Ok(()),
        }
    }
}

impl std::error::Error for FileError {}

/// Adds the options of this text to `options`. `path` is the file's name in messages. Errors are in the order
/// of the text; there is at least one.
pub fn read(text: &[u8], path: &str, options: Options) -> Result<Options, Vec<FileError>> {
    let path: Arc<str> = path.into();
    let mut reader = Reader {
        given: options.settings.iter().map(|setting| setting.name).collect(),
        hidden: Options { hosts: options.hosts.clone(), ..Options::default() },
        options,
        path,
        problems: Vec::new(),
    };
    match json::parse(text) {
        Ok(value) => reader.file(&value),
        Err(error) => reader.problem(error.at, Problem::Json(error)),
    }
    let told = reader.problems.len().min(FILE_PROBLEMS);
    order::sort_few(&mut reader.problems[..told], |one, other| one.at > other.at);
    if reader.problems.is_empty() { Ok(reader.options) } else { Err(reader.problems) }
}

struct Reader {
    path: Arc<str>,
    options: Options,
    /// Options that were given before the file was read.
    given: Vec<&'static str>,
    /// Receives the values that other sources hide.
    hidden: Options,
    problems: Vec<FileError>,
}

impl Reader {
    fn problem(&mut self, at: Position, problem: Problem) {
        let problem = match self.problems.len() {
            FILE_PROBLEMS => Problem::More,
            _ if self.full() => return,
            _ => problem,
        };
        self.problems.push(FileError { path: self.path.clone(), at, problem });
    }

    /// True if no more problems are reported, so that parsing can stop.
    fn full(&self) -> bool {
        self.problems.len() > FILE_PROBLEMS
    }

    fn source(&self, at: Position, key: &'static str) -> Source {
        Source::File { path: self.path.clone(), at, key }
    }

    fn wrong_type(&mut self, key: &str, value: &Value, accepts: impl Into<String>) {
        let key = key.replace('-', "_");
        self.problem(value.at, Problem::Type { key, found: value.kind.name(), accepts: accepts.into() });
    }

    fn file(&mut self, value: &Value) {
        let Kind::Object(members) = &value.kind else {
            return self.wrong_type("", value, "an object of settings, as in {\"backends\": [...]}");
        };
        for member in self.distinct(members) {
            if self.full() {
                return;
            }
            let option = FLAGS.iter().find(|flag| key_of(flag) == member.key);
            match option {
                _ if member.key == BACKENDS => self.backends(&member.value),
                Some(flag) if NOT_HERE.contains(&flag.long) => self.problem(member.at, Problem::NotHere(flag)),
                Some(flag) if may_stand(flag) => self.option(flag, &member.value),
                _ => {
                    let known: Vec<String> = FLAGS.iter().filter(|flag| may_stand(flag)).map(key_of).collect();
                    let known = known.iter().map(String::as_str).chain([BACKENDS]);
                    self.unknown(member, &ABSENT, known, Problem::UnknownKey);
                }
            }
        }
    }

    fn unknown<'a>(
        &mut self,
        member: &Member,
        absent: &[&'static str],
        known: impl Iterator<Item = &'a str>,
        problem: fn(String, Option<String>) -> Problem,
    ) {
        let problem = match absent.iter().find(|absent| **absent == member.key) {
            Some(absent) => Problem::Absent(absent),
            // Dashes are a likely typo for underscores.
            None => {
                let near = nearest(&member.key.replace('-', "_"), known).map(str::to_owned);
                problem(member.key.clone(), near)
            }
        };
        self.problem(member.at, problem);
    }

    /// The members without duplicate keys, and the first of each duplicate. The others are reported.
    fn distinct<'a>(&mut self, members: &'a [Member]) -> Vec<&'a Member> {
        let mut first = BTreeMap::new();
        let mut distinct = Vec::new();
        for member in members {
            match first.get(member.key.as_str()) {
                None => {
                    first.insert(member.key.as_str(), member.at);
                    distinct.push(member);
                }
                Some(&at) => self.problem(member.at, Problem::Twice(member.key.clone(), at)),
            }
        }
        distinct
    }

    fn option(&mut self, flag: &'static Flag, value: &Value) {
        let kind = if NUMBERS.contains(&flag.long) { "a string or a number" } else { "a string" };
        match (flag.set, &value.kind) {
            (Set::Switch(_), Kind::Bool(on)) => self.give(flag, if *on { "on" } else { "off" }, value.at),
            (Set::Switch(_), _) => self.wrong_type(flag.long, value, "true or false"),
            (Set::Number(_), Kind::Number(number)) => self.give(flag, &digits(*number), value.at),
            (Set::Number(_), _) => self.wrong_type(flag.long, value, flag.accepts),
            (Set::Value(_), Kind::String(text)) => self.give(flag, text, value.at),
            (_, Kind::Number(number)) if NUMBERS.contains(&flag.long) => self.give(flag, &digits(*number), value.at),
            (Set::Value(_), _) => self.wrong_type(flag.long, value, format!("{kind}: {}", flag.accepts)),
            (Set::Repeatable(_), Kind::Array(items)) => {
                for item in items {
                    match &item.kind {
                        _ if self.full() => return,
                        Kind::String(text) => self.give(flag, text, item.at),
                        Kind::Number(number) if NUMBERS.contains(&flag.long) => {
                            self.give(flag, &digits(*number), item.at);
                        }
                        _ => self.wrong_type(flag.long, item, format!("{kind}: {}", flag.accepts)),
                    }
                }
            }
            // One value needs no array.
            (Set::Repeatable(_), Kind::String(text)) => self.give(flag, text, value.at),
            (Set::Repeatable(_), _) => {
                self.wrong_type(flag.long, value, format!("{kind}, or an array of these: {}", flag.accepts));
            }
            (Set::Help | Set::Version, _) => {}
        }
    }

    fn give(&mut self, flag: &'static Flag, text: &str, at: Position) {
        let source = self.source(at, flag.long);
        let hidden = self.given.contains(&flag.long);
        let options = if hidden { &mut self.hidden } else { &mut self.options };
        if let Err(error) = give(flag, text, source, options) {
            self.problem(at, Problem::Value(error));
        }
    }

    fn backends(&mut self, value: &Value) {
        let Kind::Array(items) = &value.kind else {
            return self.wrong_type(BACKENDS, value, BACKENDS_ACCEPTED);
        };
        self.options.no_default_backends = true;
        for item in items {
            let source = self.source(item.at, BACKENDS);
            let (read, text) = match &item.kind {
                _ if self.full() => return,
                Kind::String(text) => (backend::backend(text), text.clone()),
                Kind::Object(members) => match self.backend(item.at, members) {
                    Some(spec) => (Ok(spec), String::new()),
                    None => continue,
                },
                _ => {
                    self.wrong_type(BACKENDS, item, BACKEND_ACCEPTED.to_owned() + " or a string as -b takes it");
                    continue;
                }
            };
            let text = read.as_ref().map_or(text, Backend::to_string);
            if let Err(fault) = read.and_then(|spec| add_backend(spec, source, &mut self.options)) {
                let accepts = FLAGS.iter().find(|flag| flag.long == "backend").map_or("", |flag| flag.accepts);
                self.refuse(item.at, BACKENDS, &text, fault, accepts);
            }
        }
    }

    fn refuse(&mut self, at: Position, key: &'static str, value: &str, fault: Fault, accepts: &'static str) {
        let source = self.source(at, key);
        self.problem(at, Problem::Value(args::Error::Value { source, value: value.to_owned(), fault, accepts }));
    }

    /// Reads a backend given in parts; `None` if a part is wrong, which is reported.
    fn backend(&mut self, at: Position, members: &[Member]) -> Option<Backend> {
        let before = self.problems.len();
        let mut parts = Parts::default();
        for member in self.distinct(members) {
            let value = &member.value;
            match member.key.as_str() {
                "host" => parts.host = self.text("host", value, HOST, backend::at_host),
                "unix" => {
                    parts.unix = self.text("unix", value, UNIX, |path| Ok((path.to_owned(), backend::unix(path)?)))
                }
                "port" => parts.port = self.number("port", value, PORT, backend::port),
                "weight" => parts.weight = self.number("weight", value, WEIGHT, backend::weight),
                "max" => parts.max = self.number("max", value, MAX, backend::max),
                "backup" => match value.kind {
                    Kind::Bool(backup) => parts.backup = backup,
                    _ => self.wrong_type("backup", value, "true or false"),
                },
                "tls" => match value.kind {
                    Kind::Bool(tls) => parts.tls = Some(tls),
                    _ => self.wrong_type("tls", value, "true or false"),
                },
                "for" => parts.routes = self.routes(value),
                "h2c" => match value.kind {
                    Kind::Bool(h2c) => parts.h2c = h2c,
                    _ => self.wrong_type("h2c", value, "true or false"),
                },
                _ => {
                    let known = BACKEND_KEYS.into_iter();
                    self.unknown(member, &ABSENT_IN_BACKEND, known, Problem::UnknownInBackend);
                }
            }
        }
        if self.problems.len() > before {
            return None;
        }
        match parts.spec() {
            Ok(spec) => Some(spec),
            Err(what) => {
                self.problem(at, Problem::Backend(what));
                None
            }
        }
    }

    /// Reads the routes of a backend: one, or a list of them.
    fn routes(&mut self, value: &Value) -> Vec<Route> {
        let items = match &value.kind {
            Kind::Array(items) if items.is_empty() => {
                self.wrong_type("for", value, FOR);
                return Vec::new();
            }
            Kind::Array(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let mut routes = Vec::new();
        for item in items {
            if let Some(route) = self.text("for", item, FOR, backend::route)
                && let Err(fault) = backend::add_route(&mut routes, route)
            {
                self.refuse(item.at, "for", "", fault, FOR);
            }
        }
        routes
    }

    fn text<T>(
        &mut self,
        key: &'static str,
        value: &Value,
        accepts: &'static str,
        read: fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let Kind::String(text) = &value.kind else {
            self.wrong_type(key, value, accepts);
            return None;
        };
        read(text).map_err(|fault| self.refuse(value.at, key, text, fault, accepts)).ok()
    }

    fn number<T>(
        &mut self,
        key: &'static str,
        value: &Value,
        accepts: &'static str,
        read: fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let Kind::Number(number) = &value.kind else {
            self.wrong_type(key, value, accepts);
            return None;
        };
        let text = digits(*number);
        read(&text).map_err(|fault| self.refuse(value.at, key, &text, fault, accepts)).ok()
    }
}

/// Options whose value may be a number, although it is a text in general. A bare number is a port or a version there.
const NUMBERS: [&str; 4] = ["admin", "http-redirect", "listen", "tls-min"];
const HOST: &str = "a string: an IP address or a name";
const UNIX: &str = "a string: the absolute path of a socket";
const PORT: &str = "a number from 1 to 65535";
const WEIGHT: &str = "a number from 0 to 65535";
const MAX: &str = "a number from 1 to 1000000";
const FOR: &str = "a string, or an array of strings: HOST or HOST/PREFIX";

/// The parts of a backend's object.
#[derive(Default)]
struct Parts {
    host: Option<(String, crate::args::Host)>,
    unix: Option<(String, Target)>,
    port: Option<u16>,
    weight: Option<u16>,
    max: Option<u32>,
    backup: bool,
    tls: Option<bool>,
    h2c: bool,
    routes: Vec<Route>,
}

impl Parts {
    /// The backend of these parts, or how they do not fit together.
    fn spec(self) -> Result<Backend, &'static str> {
        let (name, target) = match (self.host, self.port, self.unix) {
            (Some((name, host)), Some(port), None) => (format!("{name}:{port}"), Target::Tcp(host, port)),
            (None, None, Some((path, target))) => (format!("unix:{path}"), target),
            (Some(_), None, None) => return Err("found a host without a port"),
            (None, Some(_), None) => return Err("found a port without a host"),
            (None, None, None) => return Err("found neither a host nor a socket"),
            (_, _, Some(_)) => return Err("found a socket with a host or a port"),
        };
        if self.tls == Some(true) && matches!(target, Target::Unix(_)) {
            return Err("found a socket with tls");
        }
        if self.tls == Some(true) && self.h2c {
            return Err("found h2c with tls");
        }
        let tls = !self.h2c && self.tls.unwrap_or(backend::means_tls(&target));
        let (weight, max) = (self.weight.unwrap_or(1), self.max.unwrap_or_default());
        Ok(Backend { name, target, weight, backup: self.backup, max, tls, h2c: self.h2c, routes: self.routes })
    }
}

/// A number as options take it: a whole one is digits, however the file writes it (RFC 8259, 6).
fn digits(number: Number) -> String {
    match number {
        // Negative zero is zero.
        Number::Float(float) if float.fract() == 0.0 => format!("{:.0}", float + 0.0),
        number => number.to_string(),
    }
}

/// The key of an option in the file.
fn key_of(flag: &Flag) -> String {
    flag.long.replace('-', "_")
}

/// True if an option has a key.
fn may_stand(flag: &Flag) -> bool {
    let has_other = flag.long == "backend" || NOT_HERE.contains(&flag.long);
    !has_other && !matches!(flag.set, Set::Help | Set::Version)
}

#[cfg(test)]
mod tests;

//! From arguments and environment to options.
//!
//! `--name value`, `--name=value`, `-n value`, `-nvalue` and `-n=value` are the forms. The first
//! thing wrong ends it, as `--help` and `--version` do; the environment is looked at last, and
//! only for what the command line leaves open. No value that any option takes begins with a dash,
//! so an argument that does is never one: `-b -p 80` lacks a backend.

use std::ffi::{OsStr, OsString};

use super::flags::{Set, give};
use super::nearest::nearest;
use super::{Command, Error, FLAGS, Fault, Flag, Options, Source};

/// Reads the arguments, without the program's name, then the environment through `env`, where an
/// empty variable counts as none.
pub fn parse(
    argv: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Command, Error> {
    let mut options = Options::default();
    let mut given = vec![false; FLAGS.len()];
    let mut argv = argv.into_iter();
    while let Some(argument) = argv.next() {
        let argument = argument.to_str().ok_or_else(|| Error::NotUtf8(argument.to_string_lossy().into_owned()))?;
        if argument == "--" {
            match argv.next() {
                None => break,
                Some(extra) => return Err(Error::Positional(extra.to_string_lossy().into_owned())),
            }
        }
        let (index, attached) = option(argument)?;
        let flag = &FLAGS[index];
        if given[index] && !matches!(flag.set, Set::Repeatable(_)) {
            return Err(Error::Repeated(flag));
        }
        given[index] = true;
        let source = Source::CommandLine(flag.long);
        match (flag.set, attached) {
            (Set::Switch(_) | Set::Help | Set::Version, Some(value)) => {
                return Err(Error::SuperfluousValue(flag, value.to_owned()));
            }
            (Set::Help, None) => return Ok(Command::Help),
            (Set::Version, None) => return Ok(Command::Version),
            (Set::Switch(_), None) => give(flag, "on", source, &mut options)?,
            (Set::Value(_) | Set::Number(_) | Set::Repeatable(_), Some(text)) => {
                give(flag, text, source, &mut options)?;
            }
            (Set::Value(_) | Set::Number(_) | Set::Repeatable(_), None) => {
                let value = argv.next().filter(|value| !begins_with_dash(value)).ok_or(Error::MissingValue(flag))?;
                let text = utf8(flag, &source, &value)?;
                give(flag, text, source, &mut options)?;
            }
        }
    }
    for (flag, _) in FLAGS.iter().zip(given).filter(|(flag, given)| !given && !flag.env.is_empty()) {
        if let Some(value) = env(flag.env) {
            environment(flag, &value, &mut options)?;
        }
    }
    Ok(Command::Run(options))
}

/// Takes an option's value from its variable.
fn environment(flag: &'static Flag, value: &OsStr, options: &mut Options) -> Result<(), Error> {
    let source = Source::Environment(flag.env);
    let text = utf8(flag, &source, value)?.trim_ascii();
    match flag.set {
        Set::Repeatable(_) => {
            text.split_ascii_whitespace().try_for_each(|one| give(flag, one, source.clone(), options))
        }
        _ if text.is_empty() => Ok(()),
        _ => give(flag, text, source, options),
    }
}

/// Which option an argument names, and the value attached to it.
fn option(argument: &str) -> Result<(usize, Option<&str>), Error> {
    if let Some(body) = argument.strip_prefix("--") {
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        return match FLAGS.iter().position(|flag| flag.long == name) {
            Some(index) => Ok((index, value)),
            None => Err(unknown_long("--", name)),
        };
    }
    let body = argument.strip_prefix('-').unwrap_or_default();
    let Some(letter) = body.chars().next() else { return Err(Error::Positional(argument.to_owned())) };
    let name = body.split_once('=').map_or(body, |(name, _)| name);
    // `-port 80` means `--port 80`, and not `-p ort`.
    if FLAGS.iter().any(|flag| flag.long == name) {
        return Err(unknown_long("-", name));
    }
    match FLAGS.iter().position(|flag| flag.short == Some(letter)) {
        Some(index) => {
            let attached = &body[letter.len_utf8()..];
            let value = attached.strip_prefix('=').unwrap_or(attached);
            Ok((index, (!attached.is_empty()).then_some(value)))
        }
        None => Err(unknown_short(letter, name)),
    }
}

fn unknown_long(dashes: &str, name: &str) -> Error {
    let nearest = nearest(name, FLAGS.iter().map(|flag| flag.long)).map(|long| format!("--{long}"));
    Error::UnknownOption { option: format!("{dashes}{name}"), nearest }
}

fn unknown_short(letter: char, name: &str) -> Error {
    let same = |flag: &&Flag| flag.short.is_some_and(|short| short.eq_ignore_ascii_case(&letter));
    match FLAGS.iter().find(same).and_then(|flag| flag.short) {
        Some(short) => Error::UnknownOption { option: format!("-{letter}"), nearest: Some(format!("-{short}")) },
        None if name.chars().count() > 1 => unknown_long("-", name),
        None => Error::UnknownOption { option: format!("-{letter}"), nearest: None },
    }
}

/// Whether an argument must be an option. A negative number is none: it is a value, and wrong.
fn begins_with_dash(value: &OsStr) -> bool {
    match value.as_encoded_bytes() {
        [b'-', digit, ..] => !digit.is_ascii_digit(),
        bytes => bytes.starts_with(b"-"),
    }
}

fn utf8<'a>(flag: &'static Flag, source: &Source, value: &'a OsStr) -> Result<&'a str, Error> {
    value.to_str().ok_or_else(|| Error::Value {
        source: source.clone(),
        value: value.to_string_lossy().into_owned(),
        fault: Fault::NotUtf8,
        accepts: flag.accepts,
    })
}

#[cfg(test)]
mod tests;

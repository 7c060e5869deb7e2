//! Parses arguments and environment into options.
//!
//! Accepted forms: `--name value`, `--name=value`, `-n value`, `-nvalue` and `-n=value`. Switches can be
//! combined after one dash, as in `-kt`, and can have the value that their variables have, as in `--trace=1`.
//! `--help` and `--version` end the parsing, unless there was an error before them. The environment is read
//! last, and only for options that are not on the command line. No option's value begins with a dash, so an
//! argument that does is never a value: `-b -p 80` lacks a backend.
//!
//! Every error is reported once, up to a limit. The argument after an unknown option is taken for its value,
//! and an option with an invalid value counts as given.

use std::ffi::{OsStr, OsString};
use std::iter::Peekable;

use super::flags::{Set, give};
use super::healthcheck;
use super::nearest::nearest;
use super::value;
use super::variables::is_service_link;
use super::{Command, Error, FLAGS, Fault, Flag, Options, Source};
use crate::dns::hosts::Hosts;
use crate::limits::LINE_PROBLEMS;

/// Arguments or variables with errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// At least one error, in the order of reading.
    pub errors: Vec<Error>,
    /// The valid options.
    pub options: Box<Options>,
}

/// Parses the arguments, without the program's name, and then the environment through `env`. An empty variable
/// counts as absent.
pub fn parse(
    argv: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Command, Refused> {
    parse_with(argv, env, Hosts::default())
}

/// Like [`parse`], with the hosts table for options that accept its names.
pub fn parse_with(
    argv: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<OsString>,
    hosts: Hosts,
) -> Result<Command, Refused> {
    let mut argv = argv.into_iter().peekable();
    if argv.next_if(|first| first == healthcheck::NAME).is_some() {
        let refused = |error| Refused { errors: vec![error], options: Box::default() };
        return healthcheck::parse(argv, env, &hosts).map_err(refused);
    }
    let mut options = Options { hosts, ..Options::default() };
    let mut given = vec![false; FLAGS.len()];
    let mut errors = Vec::new();
    while let Some(argument) = argv.next().filter(|_| errors.len() < LINE_PROBLEMS) {
        if argument == "--" {
            let stray = argv.by_ref().take(LINE_PROBLEMS);
            errors.extend(stray.map(|extra| Error::Positional(extra.to_string_lossy().into_owned())));
            break;
        }
        match take(&argument, &mut argv, &mut given, &mut options) {
            Ok(None) => {}
            Ok(Some(command)) if errors.is_empty() => return Ok(command),
            Ok(Some(_)) => break,
            Err(error) => errors.push(error),
        }
    }
    for (flag, _) in FLAGS.iter().zip(given).filter(|(flag, given)| !given && !flag.env.is_empty()) {
        if let Some(value) = env(flag.env).filter(|value| !is_service_link(flag.env, value)) {
            errors.extend(environment(flag, &value, &mut options));
        }
    }
    if errors.is_empty() { Ok(Command::Run(options)) } else { Err(Refused { errors, options: Box::new(options) }) }
}

/// Parses an argument, and the next one if it is the value. Returns a command that ends the parsing, if there
/// is one.
fn take(
    argument: &OsStr,
    argv: &mut Peekable<impl Iterator<Item = OsString>>,
    given: &mut [bool],
    options: &mut Options,
) -> Result<Option<Command>, Error> {
    let argument = argument.to_str().ok_or_else(|| Error::NotUtf8(argument.to_string_lossy().into_owned()))?;
    let mut apart = || argv.next_if(|value| !begins_with_dash(value));
    let (index, attached) = match option(argument) {
        Ok(option) => option,
        Err(error) => {
            if matches!(error, Error::UnknownOption { .. }) && !argument.contains('=') {
                apart();
            }
            return Err(error);
        }
    };
    let flag = &FLAGS[index];
    let source = Source::CommandLine(flag.long);
    let again = std::mem::replace(&mut given[index], true) && !matches!(flag.set, Set::Repeatable(_));
    let value = match (flag.set, attached) {
        (Set::Switch(_), Attached::Value(text)) if value::switch(text).is_ok() => OsString::from(text),
        (Set::Switch(_) | Set::Help | Set::Version, Attached::Value(value)) => {
            return Err(Error::SuperfluousValue(flag, value.to_owned()));
        }
        (Set::Help, _) => return Ok(Some(Command::Help)),
        (Set::Version, _) => return Ok(Some(Command::Version)),
        (Set::Switch(_), _) => OsString::from("on"),
        (_, Attached::Value(text) | Attached::Letters(text)) => OsString::from(text),
        (_, Attached::Nothing) => apart().ok_or(Error::MissingValue(flag))?,
    };
    if again {
        return Err(Error::Repeated(flag));
    }
    give(flag, utf8(flag, &source, &value)?, source, options)?;
    // More switches may follow, as in -kt.
    match (flag.set, attached) {
        (Set::Switch(_), Attached::Letters(letters)) => take(format!("-{letters}").as_ref(), argv, given, options),
        _ => Ok(None),
    }
}

/// Parses an option's value from its variable. Returns the errors.
fn environment(flag: &'static Flag, value: &OsStr, options: &mut Options) -> Vec<Error> {
    let source = Source::Environment(flag.env);
    let text = match utf8(flag, &source, value) {
        Ok(text) => text.trim_ascii(),
        Err(error) => return vec![error],
    };
    let mut take = |text| give(flag, text, source.clone(), options).err();
    match flag.set {
        Set::Repeatable(_) => text.split_ascii_whitespace().filter_map(take).take(LINE_PROBLEMS).collect(),
        _ if text.is_empty() => Vec::new(),
        _ => take(text).into_iter().collect(),
    }
}

/// The text attached to an option's name.
#[derive(Clone, Copy)]
enum Attached<'a> {
    Nothing,
    /// A value after `=`.
    Value(&'a str),
    /// Text directly after a letter: a value, or more letters.
    Letters(&'a str),
}

/// The option of an argument, and the text attached to it.
fn option(argument: &str) -> Result<(usize, Attached<'_>), Error> {
    if let Some(body) = argument.strip_prefix("--") {
        let whole = (body, Attached::Nothing);
        let (name, value) = body.split_once('=').map_or(whole, |(name, value)| (name, Attached::Value(value)));
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
            let attached = match &body[letter.len_utf8()..] {
                "" => Attached::Nothing,
                text => text.strip_prefix('=').map_or(Attached::Letters(text), Attached::Value),
            };
            Ok((index, attached))
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

/// True if an argument must be an option. A negative number is an invalid value instead.
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

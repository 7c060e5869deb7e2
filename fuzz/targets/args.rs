//! The command line and the environment. Any words are parsed, twice with the same result, or refused with
//! errors of one line each.
//!
//! The input is a list of words, one per line. After an empty line they are variables in the form NAME=VALUE.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use zzz_lb::args::{self, Command};
use zzz_lb::config;
use zzz_lb::limits::LINE_PROBLEMS;

/// Panics if two results differ, or an error does not fit on a line.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// Like [`run`], with a fault planted in the words before the second parse.
pub fn run_with(data: &[u8], plant: fn(&mut Vec<OsString>)) {
    let text = |bytes: &[u8]| OsString::from_vec(bytes.iter().copied().filter(|&byte| byte != 0).collect());
    let mut lines = data.split(|&byte| byte == b'\n');
    let words: Vec<OsString> = lines.by_ref().take_while(|line| !line.is_empty()).map(text).collect();
    let variables: Vec<(&[u8], OsString)> = lines
        .filter_map(|line| {
            let at = line.iter().position(|&byte| byte == b'=')?;
            Some((&line[..at], text(&line[at + 1..])))
        })
        .collect();
    let variable = |name: &str| {
        let found = variables.iter().find(|(other, _)| *other == name.as_bytes());
        found.map(|(_, value)| value.clone())
    };
    let read = args::parse(words.clone(), &variable);
    let mut again = words;
    plant(&mut again);
    assert_eq!(args::parse(again, &variable), read, "read twice, and not the same");
    match read {
        Ok(Command::Run(options)) => {
            if let Err(errors) = config::resolve(options) {
                are_shown(&errors);
            }
        }
        Ok(_) => {}
        Err(refused) => are_shown(&refused.errors),
    }
}

/// Checks that the errors are not empty, not too many, and without control characters.
fn are_shown(errors: &[impl ToString]) {
    assert!(!errors.is_empty() && errors.len() <= 2 * LINE_PROBLEMS + 1, "{} errors", errors.len());
    for error in errors {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
    }
}

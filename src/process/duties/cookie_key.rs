//! The key of the cookie that names backends: from its file, or random. It is published with the secrets, so all workers
//! have it, and it holds over reloads and upgrades. If the user is not allowed to read the file, the key before stays:
//! a start reads it while the user may still be root.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use super::{Duties, secrets};
use crate::base64::{Alphabet, decode};
use crate::config::{Config, Secret, Secrets};
use crate::limits::{STICKY_KEY_BYTES, STICKY_KEY_FILE_BYTES};
use crate::log::Level;
use crate::sys::{entropy, file};

/// The reason why there is no key.
#[derive(Debug)]
enum Problem {
    /// The user is not allowed to read the file.
    Denied(String),
    /// The file has no key, or it cannot be read for another reason.
    Unusable(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Problem::Denied(text) | Problem::Unusable(text)) = self;
        f.write_str(text)
    }
}

/// Returns the key for a configuration. `before`: the one that holds, which may be empty.
fn key_for(config: &Config, before: &Secret) -> Result<Secret, Problem> {
    match &config.sticky_key {
        _ if config.sticky.is_none() => Ok(before.clone()),
        Some(path) => read(path),
        None if !before.0.is_empty() => Ok(before.clone()),
        None => {
            let mut secret = vec![0; STICKY_KEY_BYTES];
            let filled = entropy::fill(&mut secret);
            filled.map_err(|error| Problem::Unusable(format!("cannot make a key for the cookie: {error}")))?;
            Ok(Secret(secret))
        }
    }
}

/// Reads a key from its file: base64 in either alphabet, with any white space.
fn read(path: &Path) -> Result<Secret, Problem> {
    let about = |error: &dyn fmt::Display| format!("--sticky-key {}: {error}", path.display());
    let contents = file::read(path, STICKY_KEY_FILE_BYTES).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => Problem::Denied(about(&error)),
        _ => Problem::Unusable(about(&error)),
    })?;
    if contents.len() > STICKY_KEY_FILE_BYTES {
        return Err(Problem::Unusable(about(&format_args!("more than {STICKY_KEY_FILE_BYTES} bytes"))));
    }
    key_in(&contents).map_err(|text| Problem::Unusable(about(&text)))
}

fn key_in(contents: &[u8]) -> Result<Secret, String> {
    let text: Vec<u8> = contents.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes = decode(Alphabet::Standard, &text).or_else(|| decode(Alphabet::Url, &text));
    match bytes {
        None => Err("no base64, as `openssl rand -base64 32` writes it".to_owned()),
        Some(bytes) if bytes.len() < STICKY_KEY_BYTES => {
            Err(format!("a key of {} bytes; accepted: at least {STICKY_KEY_BYTES}", bytes.len()))
        }
        Some(bytes) => Ok(Secret(bytes)),
    }
}

/// Tries whether a start could use the key of a configuration. The error is the reason.
pub(in crate::process) fn check(config: &Config) -> Result<(), String> {
    key_for(config, &Secret::default()).map(drop).map_err(|problem| problem.to_string())
}

/// Reads all secrets while the user may still be root, for [`Duties::begin`]. Those that cannot be used are absent, which
/// is reported later.
pub(in crate::process) fn read_early(config: &Config) -> Vec<u8> {
    let cookie_key = key_for(config, &Secret::default()).unwrap_or_default();
    Secrets { cookie_key, ..secrets::read_early(&config.tls) }.encode()
}

impl Duties {
    /// Publishes the key for the configuration, if there is a cookie.
    pub(super) fn begin_cookie_key(&mut self) -> Result<(), String> {
        let before = self.kept_secrets().cookie_key.clone();
        let cookie_key = match key_for(&self.config, &before) {
            Err(Problem::Denied(text)) if !before.0.is_empty() => {
                self.journal.line(Level::Err, "config", format_args!("{text}: the key before stays"));
                before
            }
            key => key.map_err(|problem| problem.to_string())?,
        };
        if cookie_key.0.is_empty() {
            return Ok(());
        }
        self.publish_secrets(Secrets { cookie_key, ..self.kept_secrets().clone() })
    }

    /// Tries whether the key of another configuration can be used. The error is the reason.
    pub(super) fn try_cookie_key(&self, config: &Config) -> Result<(), String> {
        let before = &self.kept_secrets().cookie_key;
        match key_for(config, before) {
            Err(Problem::Denied(_)) if config.sticky_key == self.config.sticky_key && !before.0.is_empty() => Ok(()),
            key => key.map(drop).map_err(|problem| problem.to_string()),
        }
    }

    /// Reads the key again, because the configuration has changed or a user wants it. A bad file changes nothing.
    pub(super) fn reload_cookie_key(&mut self) {
        if let Err(problem) = self.begin_cookie_key() {
            self.journal.line(Level::Err, "config", format_args!("{problem}: the key before stays"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_base64_of_enough_bytes() {
        let text = "AAAAAAAAAAAAAAAAAAAA\n AAAAAAAAAAAAAAAAAAAAAAA=\n";
        assert_eq!(key_in(text.as_bytes()), Ok(Secret(vec![0; 32])));
        assert_eq!(key_in("-_-_".repeat(11).as_bytes()).map(|key| key.0.len()), Ok(33));
        assert!(key_in(b"AAAA").is_err_and(|error| error == "a key of 3 bytes; accepted: at least 32"));
        for bad in ["not base64!", "AAAAA=", "\u{0}"] {
            assert!(key_in(bad.as_bytes()).is_err_and(|error| error.starts_with("no base64")), "{bad}");
        }
        assert!(key_in(b"").is_err());
    }
}

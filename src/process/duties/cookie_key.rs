//! The key of the cookie that names backends: from its file, or random. It is published with the secrets, so all workers
//! have it, and it holds over reloads and upgrades. If the user is not allowed to read the file, the key before stays:
//! a start reads it while the user may still be root.

use std::path::Path;

use super::secrets::files::{self, FileError};
use super::{Duties, secrets};
use crate::base64::{Alphabet, decode};
use crate::config::{Config, Files, Secret, Secrets};
use crate::limits::{STICKY_KEY_BYTES, STICKY_KEY_FILE_BYTES};
use crate::log::Level;
use crate::sys::entropy;

/// Returns the key for a configuration. `before`: the one that holds, which may be empty.
fn key_for(config: &Config, before: &Secret) -> Result<Secret, FileError> {
    match &config.sticky_key {
        _ if config.sticky.is_none() => Ok(before.clone()),
        Some(path) => read(path)
            .map_err(|error| FileError { text: format!("--sticky-key {}: {}", path.display(), error.text), ..error }),
        None if !before.0.is_empty() => Ok(before.clone()),
        None => {
            let mut secret = vec![0; STICKY_KEY_BYTES];
            let filled = entropy::fill(&mut secret);
            filled.map_err(|error| FileError::new(format_args!("cannot make a key for the cookie: {error}")))?;
            Ok(Secret(secret))
        }
    }
}

/// Reads a key from its file: base64 in either alphabet, with any white space.
fn read(path: &Path) -> Result<Secret, FileError> {
    let contents = files::read(path, STICKY_KEY_FILE_BYTES)?;
    key_in(&contents).map_err(FileError::new)
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
    key_for(config, &Secret::default()).map(drop).map_err(|error| error.text)
}

/// Reads all secrets while the user may still be root, for [`Duties::begin`]. Those that cannot be used are absent, which
/// is reported later.
pub(in crate::process) fn read_early(config: &Config) -> Vec<u8> {
    let cookie_key = key_for(config, &Secret::default()).unwrap_or_default();
    let early = secrets::read_early(&config.tls);
    let source = config.sticky_key.as_ref().filter(|_| !cookie_key.0.is_empty());
    let files = Files { cookie_key: secrets::name_of(source), ..early.files.clone() };
    Secrets { cookie_key, files, ..early }.encode()
}

impl Duties {
    /// Publishes the key for the configuration, if there is a cookie.
    pub(super) fn begin_cookie_key(&mut self) -> Result<(), String> {
        if self.config.sticky.is_none() {
            return Ok(());
        }
        let before = self.kept_secrets().clone();
        let source = secrets::name_of(self.config.sticky_key.as_ref());
        let cookie_key = match key_for(&self.config, &before.cookie_key) {
            Err(error) if self.may_keep(&error, &source) => {
                // A start has read it as root, so this is no fault.
                self.journal.line(Level::Info, "config", format_args!("{}", error.text));
                before.cookie_key.clone()
            }
            key => key.map_err(|error| error.text)?,
        };
        let files = Files { cookie_key: source, ..before.files.clone() };
        self.publish_secrets(Secrets { cookie_key, files, ..before })
    }

    /// True if the key that holds is that of this file, which the user is not allowed to read any more.
    fn may_keep(&self, error: &FileError, source: &str) -> bool {
        error.denied.is_some() && self.kept_secrets().files.cookie_key == source
    }

    /// Tries whether the key of another configuration can be used. The error is the reason.
    pub(super) fn try_cookie_key(&self, config: &Config) -> Result<(), String> {
        match key_for(config, &self.kept_secrets().cookie_key) {
            Err(error) if self.may_keep(&error, &secrets::name_of(config.sticky_key.as_ref())) => Ok(()),
            key => key.map(drop).map_err(|error| error.text),
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

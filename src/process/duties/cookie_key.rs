//! The key of the cookie that names backends: from its file, or random. It is published with the secrets, so all workers
//! have it, and it holds over reloads and upgrades.

use std::path::Path;

use super::Duties;
use crate::base64::{Alphabet, decode};
use crate::config::{Config, Secret, Secrets};
use crate::limits::{STICKY_KEY_BYTES, STICKY_KEY_FILE_BYTES};
use crate::log::Level;
use crate::sys::{entropy, file};

/// Returns the key for a configuration. `before`: the one that holds, which may be empty. The error is the reason.
fn key_for(config: &Config, before: &Secret) -> Result<Secret, String> {
    match &config.sticky_key {
        _ if config.sticky.is_none() => Ok(before.clone()),
        Some(path) => read(path).map_err(|error| format!("--sticky-key {}: {error}", path.display())),
        None if !before.0.is_empty() => Ok(before.clone()),
        None => {
            let mut secret = vec![0; STICKY_KEY_BYTES];
            entropy::fill(&mut secret).map_err(|error| format!("cannot make a key for the cookie: {error}"))?;
            Ok(Secret(secret))
        }
    }
}

/// Reads a key from its file: base64 in either alphabet, with any white space.
fn read(path: &Path) -> Result<Secret, String> {
    let contents = file::read(path, STICKY_KEY_FILE_BYTES).map_err(|error| error.to_string())?;
    if contents.len() > STICKY_KEY_FILE_BYTES {
        return Err(format!("more than {STICKY_KEY_FILE_BYTES} bytes"));
    }
    key_in(&contents)
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
    key_for(config, &Secret::default()).map(drop)
}

impl Duties {
    /// Publishes the key for the configuration, if there is a cookie.
    pub(super) fn begin_cookie_key(&mut self) -> Result<(), String> {
        let cookie_key = key_for(&self.config, &self.kept_secrets().cookie_key)?;
        if cookie_key.0.is_empty() {
            return Ok(());
        }
        self.publish_secrets(Secrets { cookie_key, ..self.kept_secrets().clone() })
    }

    /// Tries whether the key of another configuration can be used. The error is the reason.
    pub(super) fn try_cookie_key(&self, config: &Config) -> Result<(), String> {
        key_for(config, &self.kept_secrets().cookie_key).map(drop)
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

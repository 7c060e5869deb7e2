//! The files of the secrets: reading them, and the reasons why one cannot be used.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::{PairFiles, Secret, Tls};
use crate::limits::{CLIENT_AUTHORITIES, CLIENT_AUTHORITY_FILE_BYTES, PAIR_FILE_BYTES};
use crate::sys::{self, file};
use crate::tls::pair::{self, Pair, Unusable};
use crate::tls::tickets;

/// The options that name the files.
pub(in crate::process) const CERTIFICATE: &str = "--tls-cert";
const KEY: &str = "--tls-key";
pub(in crate::process) const CLIENT_CA: &str = "--tls-client-ca";
pub(in crate::process::duties) const TICKET_KEY: &str = "--tls-ticket-key";

/// The reason why a file cannot be used. It names the file only if that is not the one asked for.
#[derive(Debug)]
pub(in crate::process) struct FileError {
    pub(in crate::process) text: String,
    /// The file that the user is not allowed to read, if that is the reason. The file itself may be good: a start reads it
    /// while the user may still be root.
    pub(in crate::process::duties) denied: Option<PathBuf>,
}

impl FileError {
    /// A reason that is no lack of permission.
    pub(in crate::process::duties) fn new(text: impl ToString) -> FileError {
        FileError { text: text.to_string(), denied: None }
    }

    fn about(self, option: &str, path: &Path) -> FileError {
        FileError { text: format!("{option} {}: {}", path.display(), self.text), ..self }
    }
}

/// Reads a file of at most `most` bytes.
pub(in crate::process::duties) fn read(path: &Path, most: usize) -> Result<Vec<u8>, FileError> {
    let contents = file::read(path, most).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            let (user, _) = sys::user::current();
            let text = format!("{error}: user {user} has to be able to read it, or its changes are not served");
            FileError { text, denied: Some(path.to_path_buf()) }
        }
        _ => FileError::new(error),
    })?;
    let size = if most < 1024 { format!("{most} bytes") } else { format!("{} KiB", most >> 10) };
    if contents.len() > most { Err(FileError::new(format_args!("more than {size}"))) } else { Ok(contents) }
}

/// Reads the seed of the keys of session tickets from its file.
pub(super) fn read_seed(path: &Path) -> Result<Secret, FileError> {
    let contents = read(path, PAIR_FILE_BYTES)?;
    tickets::seed(&contents).map(|seed| Secret(seed.to_vec())).map_err(FileError::new)
}

/// Reads a pair from its files. The error is about the certificate's file, and names that of the key.
pub(in crate::process) fn read_pair(files: &PairFiles) -> Result<Pair, FileError> {
    let certificate = read(&files.certificate, PAIR_FILE_BYTES)?;
    let key = match files.key == files.certificate {
        true => None,
        false => Some(read(&files.key, PAIR_FILE_BYTES).map_err(|error| error.about(KEY, &files.key))?),
    };
    Pair::from_pem(&certificate, key.as_deref()).map_err(|error| match key {
        Some(_) => FileError::new(format_args!("{error} (key: {})", files.key.display())),
        None if error == Unusable::NoKey => FileError::new(format_args!("{error}; --tls-key names another file")),
        None => FileError::new(error),
    })
}

/// True if the file of a pair's certificates has the chain of this pair. The error is that of this file.
pub(super) fn has_chain(files: &PairFiles, pair: &Pair) -> Result<bool, FileError> {
    let contents = read(&files.certificate, PAIR_FILE_BYTES)?;
    let chain = pair::certificates_of(&contents).map_err(FileError::new)?;
    if chain.is_empty() { Err(FileError::new(Unusable::NoCertificate)) } else { Ok(chain == pair.chain()) }
}

/// Reads the authorities of clients from their file.
pub(in crate::process) fn read_authorities(path: &Path) -> Result<Vec<Vec<u8>>, FileError> {
    let contents = read(path, CLIENT_AUTHORITY_FILE_BYTES)?;
    let certificates = pair::certificates_of(&contents).map_err(FileError::new)?;
    match certificates.len() {
        0 => Err(FileError::new("there is no BEGIN CERTIFICATE")),
        count if count > CLIENT_AUTHORITIES => {
            Err(FileError::new(format_args!("more than {CLIENT_AUTHORITIES} certificates")))
        }
        _ => Ok(certificates.iter().map(|certificate| certificate.to_vec()).collect()),
    }
}

/// All files of the secrets of TLS.
pub(super) fn all(tls: &Tls) -> impl Iterator<Item = &Path> {
    named(tls).map(|(_, path)| path)
}

/// All files of the secrets of TLS, with their options.
fn named(tls: &Tls) -> impl Iterator<Item = (&'static str, &Path)> {
    let pairs = tls.pairs.iter().flat_map(|pair| [(CERTIFICATE, &pair.certificate), (KEY, &pair.key)]);
    let others = [(CLIENT_CA, &tls.client_ca), (TICKET_KEY, &tls.ticket_key)];
    let others = others.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
    pairs.chain(others).map(|(option, path)| (option, path.as_path()))
}

/// Returns a line about each file of the secrets of TLS that this user cannot follow.
pub(in crate::process) fn unreadable(tls: &Tls) -> Vec<String> {
    let is_certificate = |path: &Path| tls.pairs.iter().any(|pair| pair.certificate == path);
    // The content of a file is not looked at. One that is absent now is another problem.
    let denied = |path: &Path| read(path, CLIENT_AUTHORITY_FILE_BYTES).err().filter(|error| error.denied.is_some());
    let error = |(option, path): (&str, &Path)| denied(path).map(|error| error.about(option, path).text);
    named(tls).filter(|(option, path)| *option != KEY || !is_certificate(path)).filter_map(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_file_is_none_that_the_user_is_denied() {
        let tls = Tls { ticket_key: Some("/absent/file".into()), ..Tls::default() };
        assert_eq!(unreadable(&tls), [""; 0]);
    }
}

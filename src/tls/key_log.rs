//! Sessions' secrets in a file, for who reads captured packets: the format that `SSLKEYLOGFILE` stands
//! for. Whoever has the file can read everything, so it is written only where `--tls-trace` was asked
//! for too, and nobody else may read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustls::KeyLog;

/// Secrets appended to a file, each in one write, so that those of several workers do not mix.
#[derive(Debug)]
pub(super) struct KeyFile(File);

impl KeyFile {
    /// Opens a file to append to, made with access for its owner alone.
    pub(super) fn open(path: &Path) -> io::Result<KeyFile> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(KeyFile)
    }
}

impl KeyLog for KeyFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        for (bytes, end) in [(client_random, ' '), (secret, '\n')] {
            bytes.iter().for_each(|byte| line.push_str(&format!("{byte:02x}")));
            line.push(end);
        }
        // A full disk costs the line, and no request.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_appended_to_a_file_of_its_owner_s() {
        let path = std::env::temp_dir().join(format!("zzz-lb-key-log-{}", std::process::id()));
        for _ in 0..2 {
            KeyFile::open(&path).unwrap().log("CLIENT_RANDOM", &[0, 0x1f], &[0xff]);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "CLIENT_RANDOM 001f ff\nCLIENT_RANDOM 001f ff\n");
        assert_eq!(mode & 0o777, 0o600);
        assert!(KeyFile::open(Path::new("/nonexistent/file")).is_err());
    }
}

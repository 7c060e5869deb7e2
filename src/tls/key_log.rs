//! The secrets of sessions in a file, for tools that decrypt captured packets, in the format of `SSLKEYLOGFILE`. The file
//! reveals everything that was sent. So it is written only with `--tls-trace`, and only its owner may read it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustls::KeyLog;

/// A file to which secrets are appended. Each is one write, so that those of several workers do not mix.
#[derive(Debug)]
pub(super) struct KeyFile(File);

impl KeyFile {
    /// Opens the file, or creates it with access for its owner only.
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
        // If the disk is full, the line is lost, and the request continues.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_appended_to_a_file_that_only_its_owner_reads() {
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

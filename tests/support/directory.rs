//! A temporary directory, removed with its owner.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The directory.
pub struct Directory(PathBuf);

impl Directory {
    /// Creates a directory.
    pub fn new() -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("load-balancer-test-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory can be made");
        Directory(path)
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes `text` to a file atomically.
    pub fn put(&self, name: &str, text: &(impl AsRef<[u8]> + ?Sized)) -> PathBuf {
        let path = self.file(name);
        let fresh = self.file("fresh");
        fs::write(&fresh, text).expect("a file can be written");
        fs::rename(&fresh, &path).expect("a file can be renamed");
        path
    }

    /// Writes a program atomically, as an installer does. A child process writes it: tests that start processes
    /// at the same time would inherit a descriptor of ours, and a program that is open for writing cannot be
    /// executed (ETXTBSY).
    pub fn put_program(&self, name: &str, contents: &[u8], permissions: u32) -> PathBuf {
        let (path, fresh) = (self.file(name), self.file("fresh"));
        let mut install = Command::new("install");
        install.arg("-m").arg(format!("{permissions:o}")).arg("/dev/stdin").arg(&fresh).stdin(Stdio::piped());
        let mut child = install.spawn().expect("install runs");
        child.stdin.take().expect("piped").write_all(contents).expect("it takes all");
        assert!(child.wait().expect("it ends").success(), "install");
        fs::rename(&fresh, &path).expect("a file can be renamed");
        path
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

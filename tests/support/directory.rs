//! A directory of a test's own, gone with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The directory.
pub struct Directory(PathBuf);

impl Directory {
    /// A fresh one.
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

    /// Makes `text` a file's contents, all at once.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        let fresh = self.file("fresh");
        fs::write(&fresh, text).expect("a file can be written");
        fs::rename(&fresh, &path).expect("a file can be renamed");
        path
    }

    /// Itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

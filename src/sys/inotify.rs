//! Changes in directories, by inotify(7).

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::limits::INOTIFY_BYTES;

/// What may mean that a name in a directory stands for something else, or the directory itself.
const CHANGES: u32 = libc::IN_CREATE
    | libc::IN_CLOSE_WRITE
    | libc::IN_MODIFY
    | libc::IN_ATTRIB
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF
    | libc::IN_ONLYDIR;

/// Bytes of an event before its name (`struct inotify_event`).
const EVENT: usize = 16;

/// One watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watched(i32);

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    fd: OwnedFd,
}

impl Inotify {
    /// A fresh instance, non-blocking. EMFILE where the user has too many.
    pub fn new() -> io::Result<Inotify> {
        // SAFETY: takes an integer.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nothing else owns it.
        Ok(Inotify { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// What to poll for readability.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Watches a directory. The same one, by whatever name, is watched once. ENOENT, ENOTDIR,
    /// EACCES, and ENOSPC where the user watches too many.
    pub fn watch(&self, directory: &Path) -> io::Result<Watched> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: the path ends with NUL, and lives.
        let watched = unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), path.as_ptr(), CHANGES) };
        if watched < 0 { Err(io::Error::last_os_error()) } else { Ok(Watched(watched)) }
    }

    /// Watches a directory no more. One that is gone is so already.
    pub fn unwatch(&self, watched: Watched) {
        // SAFETY: takes integers; one that is no watch is refused.
        unsafe { libc::inotify_rm_watch(self.fd.as_raw_fd(), watched.0) };
    }

    /// Takes what has happened: of each event the directory, and the name in it, empty for the
    /// directory itself. `None` for the directory where events were lost.
    pub fn take(&mut self, mut happened: impl FnMut(Option<Watched>, &[u8])) {
        let mut bytes = [0_u8; INOTIFY_BYTES];
        loop {
            // SAFETY: the kernel writes at most the given number of bytes, which is the array's size.
            let n = unsafe { libc::read(self.fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            let Ok(n @ 1..) = usize::try_from(n) else { return };
            let mut rest = &bytes[..n];
            while let Some((head, behind)) = rest.split_first_chunk::<EVENT>() {
                let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let length = (number(12) as usize).min(behind.len());
                let name = behind[..length].split(|&byte| byte == 0).next().unwrap_or_default();
                let lost = number(4) & libc::IN_Q_OVERFLOW != 0;
                happened((!lost).then_some(Watched(number(0).cast_signed())), name);
                rest = &behind[length..];
            }
        }
    }
}

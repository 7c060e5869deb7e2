//! Reports changes in directories and of files, by inotify(7).

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::changes::{Aspect, Kind};
use crate::limits::{INOTIFY_BYTES, INOTIFY_READS};

impl Aspect {
    fn mask(self) -> u32 {
        let itself = libc::IN_DELETE_SELF | libc::IN_MOVE_SELF | libc::IN_MASK_ADD;
        let names =
            libc::IN_CREATE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO | libc::IN_DELETE | libc::IN_ONLYDIR | itself;
        match self {
            Aspect::Names => names,
            // IN_MODIFY would report each write to any file of the directory, and there may be many. Written
            // content counts once the file is closed, and the file itself is watched for the rest.
            Aspect::Files => names | libc::IN_CLOSE_WRITE,
            Aspect::File => libc::IN_CLOSE_WRITE | libc::IN_MODIFY | libc::IN_ATTRIB | itself,
        }
    }
}

/// The size of an event without its name (`struct inotify_event`).
const EVENT: usize = 16;

/// A watched directory or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watched(i32);

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    fd: OwnedFd,
}

impl Inotify {
    /// Creates a non-blocking instance. EMFILE if the user has too many.
    pub fn new() -> io::Result<Inotify> {
        // SAFETY: takes an integer.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nothing else owns it.
        Ok(Inotify { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The descriptor, to be polled for readability.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Watches a directory or a file. Several paths to the same file share one watch. Errors: ENOENT, ENOTDIR,
    /// EACCES, and ENOSPC if the user watches too many.
    pub fn watch(&self, path: &Path, aspect: Aspect) -> io::Result<Watched> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path ends with NUL, and lives.
        let watched = unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), path.as_ptr(), aspect.mask()) };
        if watched < 0 { Err(io::Error::last_os_error()) } else { Ok(Watched(watched)) }
    }

    /// Stops watching. A deleted file is no longer watched, which is not an error.
    pub fn unwatch(&self, watched: Watched) {
        // SAFETY: takes integers. The kernel refuses an unknown watch.
        unsafe { libc::inotify_rm_watch(self.fd.as_raw_fd(), watched.0) };
    }

    /// Takes the events that have occurred: the watched item, the name in that directory (empty for the item
    /// itself), and the kind. The item is `None` if events were lost. If there are many events, some are left
    /// and the descriptor stays readable.
    pub fn take(&mut self, mut happened: impl FnMut(Option<Watched>, &[u8], Kind)) {
        let mut bytes = [0_u8; INOTIFY_BYTES];
        for _ in 0..INOTIFY_READS {
            // SAFETY: the kernel writes at most the given number of bytes, which is the array's size.
            let n = unsafe { libc::read(self.fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            let Ok(n @ 1..) = usize::try_from(n) else { return };
            let mut rest = &bytes[..n];
            while let Some((head, behind)) = rest.split_first_chunk::<EVENT>() {
                let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let length = (number(12) as usize).min(behind.len());
                let name = behind[..length].split(|&byte| byte == 0).next().unwrap_or_default();
                let kind = kind(number(4));
                happened((kind != Kind::Lost).then_some(Watched(number(0).cast_signed())), name, kind);
                rest = &behind[length..];
            }
        }
    }
}

fn kind(mask: u32) -> Kind {
    if mask & libc::IN_Q_OVERFLOW != 0 {
        Kind::Lost
    } else if mask & libc::IN_MODIFY != 0 {
        Kind::Written
    } else if mask & (libc::IN_CREATE | libc::IN_ATTRIB) != 0 {
        Kind::Begun
    } else {
        Kind::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("zzz-lb-inotify-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).unwrap();
        place
    }

    /// The events so far. inotify reports a change before the call that made it returns.
    fn taken(inotify: &mut Inotify) -> Vec<(Option<Watched>, String, Kind)> {
        let mut taken = Vec::new();
        inotify.take(|watched, name, kind| taken.push((watched, String::from_utf8_lossy(name).into_owned(), kind)));
        taken
    }

    #[test]
    fn reports_the_kind_and_the_name_of_a_change() {
        let place = place("names");
        let mut inotify = Inotify::new().unwrap();
        let files = inotify.watch(&place, Aspect::Files).unwrap();
        assert_eq!(inotify.watch(&place, Aspect::Names).unwrap(), files);
        assert!(taken(&mut inotify).is_empty());
        fs::write(place.join("a"), "1").unwrap();
        fs::rename(place.join("a"), place.join("b")).unwrap();
        fs::remove_file(place.join("b")).unwrap();
        fs::remove_dir(&place).unwrap();
        let of = |name: &str, kind| (Some(files), name.to_string(), kind);
        let wanted = [
            of("a", Kind::Begun),
            of("a", Kind::Done),
            of("a", Kind::Done),
            of("b", Kind::Done),
            of("b", Kind::Done),
            of("", Kind::Done),
            of("", Kind::Done),
        ];
        assert_eq!(taken(&mut inotify), wanted);
        assert!(inotify.watch(&place, Aspect::Names).is_err());
        inotify.unwatch(files);
    }

    #[test]
    fn a_file_is_watched_through_all_its_names() {
        let place = place("links");
        fs::create_dir(place.join("elsewhere")).unwrap();
        fs::write(place.join("a"), "1").unwrap();
        fs::hard_link(place.join("a"), place.join("elsewhere/b")).unwrap();
        let mut inotify = Inotify::new().unwrap();
        inotify.watch(&place, Aspect::Files).unwrap();
        fs::write(place.join("elsewhere/b"), "2").unwrap();
        assert!(taken(&mut inotify).is_empty(), "the directory knows nothing of it");
        let file = inotify.watch(&place.join("a"), Aspect::File).unwrap();
        fs::write(place.join("elsewhere/b"), "3").unwrap();
        assert_eq!(taken(&mut inotify).last(), Some(&(Some(file), String::new(), Kind::Done)));
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_storm_is_taken_in_parts() {
        let place = place("storm");
        let mut inotify = Inotify::new().unwrap();
        inotify.watch(&place, Aspect::Names).unwrap();
        // Each file causes an event at least twice as long as one without a name.
        let files = INOTIFY_READS * INOTIFY_BYTES / EVENT;
        for n in 0..files {
            fs::write(place.join(format!("{n}")), "").unwrap();
        }
        let first = taken(&mut inotify).len();
        assert!(first > 0 && first < files, "{first} of {files}");
        let mut sum = first;
        loop {
            match taken(&mut inotify).len() {
                0 => break,
                n => sum += n,
            }
        }
        assert_eq!(sum, files);
        fs::remove_dir_all(&place).unwrap();
    }
}

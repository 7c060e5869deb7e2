//! Becoming another program, as the same process.

#![allow(unsafe_code)]

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;

use super::signal;

/// The program that this process was started as, which by now may be another file.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// What was started, by the name it was started by: a link that has been turned to another file
    /// leads there. `None` where that cannot be told.
    pub fn started() -> Option<Program> {
        let arguments: Vec<OsString> = env::args_os().collect();
        let name = Path::new(arguments.first()?);
        let searched = || {
            let directories = env::var_os("PATH")?;
            env::split_paths(&directories).map(|directory| directory.join(name)).find(|path| path.is_file())
        };
        let path = match name.as_os_str().as_bytes().contains(&b'/') {
            true if name.is_absolute() => Some(name.to_owned()),
            true => env::current_dir().ok().map(|directory| directory.join(name)),
            false => searched(),
        };
        Some(Program { path: path.or_else(|| env::current_exe().ok())?, arguments })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was started with, its name among them.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Makes it this process's program, with a variable besides those of the environment, and these
    /// descriptors left open. All signals are blocked in it, so that none is lost or ends it before it
    /// can heed any. Returns only where that fails, and then nothing has changed.
    pub fn become_it(&self, variable: (&str, &str), kept: &[BorrowedFd<'_>]) -> io::Error {
        match self.try_become(variable, kept) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_become(&self, variable: (&str, &str), kept: &[BorrowedFd<'_>]) -> io::Result<std::convert::Infallible> {
        let path = text(self.path.as_os_str().as_bytes().to_vec())?;
        let arguments = self.arguments.iter().map(|one| text(one.clone().into_vec()));
        let arguments = arguments.collect::<io::Result<Vec<CString>>>()?;
        let others = env::vars_os().filter(|(name, _)| name != OsStr::new(variable.0));
        let all = others.chain([(variable.0.into(), variable.1.into())]);
        let environment = all.map(|(name, value)| text([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let environment = environment.collect::<io::Result<Vec<CString>>>()?;
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|one| one.as_ptr()).chain([ptr::null()]).collect()
        };
        let (arguments_at, environment_at) = (pointers(&arguments), pointers(&environment));
        let before = signal::block_all()?;
        for fd in kept {
            set_flags(fd.as_raw_fd(), 0)?;
        }
        // SAFETY: all three are live: a string with its NUL, and two arrays of such that end with a
        // null pointer, which the kernel only reads.
        unsafe { libc::execve(path.as_ptr(), arguments_at.as_ptr(), environment_at.as_ptr()) };
        let error = io::Error::last_os_error();
        for fd in kept {
            set_flags(fd.as_raw_fd(), libc::FD_CLOEXEC)?;
        }
        signal::restore(before)?;
        Err(error)
    }
}

/// A descriptor that the program before left open: this process's own from now on, and closed where
/// it becomes yet another. EBADF where there is none of that number. A number may be taken once.
pub fn take_left_open(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    set_flags(fd, libc::FD_CLOEXEC)?;
    // SAFETY: it is open, for its flags could be set, and above the standard three; the program
    // before left it to this one, which takes it once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_flags(fd: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes integers.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn text(bytes: Vec<u8>) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_cannot_be_run_changes_nothing() {
        let program = Program { path: "/nowhere/at/all".into(), arguments: vec!["x".into()] };
        let (kept, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = program.become_it(("NAME", "value"), &[kept.as_fd()]);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        // SAFETY: takes integers.
        assert_eq!(unsafe { libc::fcntl(kept.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        assert!(std::env::var_os("NAME").is_none());
    }

    #[test]
    fn a_program_is_found_by_the_name_it_was_started_by() {
        let program = Program::started().unwrap();
        assert!(program.path().is_absolute() && program.path().is_file());
    }

    #[test]
    fn what_is_not_open_cannot_be_taken() {
        assert!(take_left_open(-1).is_err());
        assert!(take_left_open(1_000_000).is_err());
        assert!(take_left_open(2).is_err());
    }
}

//! Replaces the program of this process (execve).

#![allow(unsafe_code)]

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use super::{fork, signal};

/// The program file that this process was started from. Meanwhile the path may lead to another file.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program under the path it was started by. If that path is a symbolic link that now leads to another
    /// file, that file is meant. `None` if the path is unknown.
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

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces this process's program. The new program gets one additional environment variable and inherits
    /// these descriptors. It starts with all signals blocked, so that none is lost or kills it before its
    /// handlers are installed. Signals that arrived earlier and were not taken are pending in it. Returns only
    /// on failure, and then nothing has changed.
    pub fn exec(&self, variable: (&str, &str), kept: &[BorrowedFd<'_>]) -> io::Error {
        match Image::new(self, variable, variable.0).and_then(|image| Ok((image, signal::block_all()?))) {
            Ok((image, before)) => {
                let opened = kept.iter().try_for_each(|fd| set_flags(fd.as_raw_fd(), 0));
                signal::send_again();
                let error = opened.err().unwrap_or_else(|| image.run());
                // Neither call fails, because the descriptors are open and the mask was valid before.
                kept.iter().for_each(|fd| drop(set_flags(fd.as_raw_fd(), libc::FD_CLOEXEC)));
                let _ = signal::restore(before);
                error
            }
            Err(error) => error,
        }
    }

    /// A command that runs the program as a child, with one additional environment variable and without
    /// another. The child is killed when this process ends. A file that the kernel cannot execute is not passed
    /// to a shell.
    pub fn command(&self, variable: (&str, &str), without: &str) -> io::Result<Command> {
        let image = Image::new(self, variable, without)?;
        let parent = fork::current();
        let mut command = Command::new(&self.path);
        // SAFETY: the process has one thread, so its copy may do anything that the process itself may do.
        unsafe { command.pre_exec(move || fork::die_with(parent).and_then(|()| Err(image.run()))) };
        Ok(command)
    }
}

/// The arguments of execve.
struct Image {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Image {
    fn new(program: &Program, variable: (&str, &str), without: &str) -> io::Result<Image> {
        let arguments = program.arguments.iter().map(|one| text(one.clone().into_vec()));
        let others = env::vars_os().filter(|(name, _)| name != OsStr::new(variable.0) && name != OsStr::new(without));
        let all = others.chain([(variable.0.into(), variable.1.into())]);
        let environment = all.map(|(name, value)| text([name.as_bytes(), b"=", value.as_bytes()].concat()));
        Ok(Image {
            path: text(program.path.as_os_str().as_bytes().to_vec())?,
            arguments: arguments.collect::<io::Result<_>>()?,
            environment: environment.collect::<io::Result<_>>()?,
        })
    }

    /// Calls execve. Returns only on failure.
    fn run(&self) -> io::Error {
        let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|one| one.as_ptr()).chain([ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        // SAFETY: all three are live: a string with its NUL, and two arrays of such strings, each with a null
        // pointer at its end. The kernel only reads them.
        unsafe { libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Takes ownership of a descriptor that the previous program left open. It is closed if this process executes
/// another program. EBADF if the number is not open. A number must be taken only once.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    set_flags(fd, libc::FD_CLOEXEC)?;
    // SAFETY: the descriptor is open, because its flags could be set, and above the standard three. The
    // previous program left it to this one, and the caller takes it once.
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
    fn a_failed_exec_changes_nothing() {
        let program = Program { path: "/nowhere/at/all".into(), arguments: vec!["x".into()] };
        let (kept, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = program.exec(("NAME", "value"), &[kept.as_fd()]);
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        // SAFETY: takes integers.
        assert_eq!(unsafe { libc::fcntl(kept.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        assert!(std::env::var_os("NAME").is_none());
    }

    #[test]
    fn a_descriptor_that_is_not_open_changes_nothing() {
        let program = Program { path: "/nowhere/at/all".into(), arguments: vec!["x".into()] };
        let (kept, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        // SAFETY: the only call that uses it fails, because the number is not open.
        let none = unsafe { BorrowedFd::borrow_raw(1_000_000) };
        let error = program.exec(("NAME", "value"), &[kept.as_fd(), none]);
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        // SAFETY: takes integers.
        assert_eq!(unsafe { libc::fcntl(kept.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        assert_eq!(blocked.trim().trim_matches('0'), "", "no signal is blocked any more");
    }

    #[test]
    fn a_program_is_found_by_the_name_it_was_started_by() {
        let program = Program::started().unwrap();
        assert!(program.path().is_absolute() && program.path().is_file());
    }

    #[test]
    fn only_open_descriptors_can_be_taken() {
        assert!(take_inherited(-1).is_err());
        assert!(take_inherited(1_000_000).is_err());
        assert!(take_inherited(2).is_err());
    }
}

//! Processes: fork, kill, reap.
//!
//! A process that forks has one thread. Signals are blocked during a fork. They stay blocked in the child until
//! it installs its own handlers (`signal::Signals::install` and its variants), so that no signal is lost and
//! none is written to the parent's pipe.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::io;

use super::signal;

/// A process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(libc::pid_t);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The side of a fork.
#[derive(Clone, Copy, Debug)]
pub enum Fork {
    /// The new process. All its signals are blocked.
    Child,
    /// The process that forked, with its child's id.
    Parent(Pid),
}

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// An exit status, 0 to 255.
    Status(i32),
    /// A signal.
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Status(status) => write!(f, "exit status {status}"),
            Ended::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

impl Pid {
    /// The child with this process id, forked by the previous program of this process.
    pub fn of_child(number: i32) -> Pid {
        Pid(number)
    }

    /// The process id as a number.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// The id of this process.
pub fn current() -> Pid {
    // SAFETY: takes nothing and cannot fail.
    Pid(unsafe { libc::getpid() })
}

/// Copies this process. EAGAIN or ENOMEM if the system lacks resources.
pub fn fork() -> io::Result<Fork> {
    let before = signal::block_all()?;
    // SAFETY: the process has one thread (module invariant), so no lock is held by a thread that the child
    // would lack. The child finds everything in the state that it had here.
    let result = unsafe { libc::fork() };
    if result == 0 {
        return Ok(Fork::Child);
    }
    let error = io::Error::last_os_error();
    signal::restore(before)?;
    if result < 0 { Err(error) } else { Ok(Fork::Parent(Pid(result))) }
}

/// Makes the kernel kill this process when `parent`, which forked it, ends. A change of the user resets this,
/// so the final user must be set before. An error if the parent is already gone.
pub fn die_with(parent: Pid) -> io::Result<()> {
    // SAFETY: this prctl takes integers alone.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // If the parent ended before the call above, no signal is sent.
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::getppid() } == parent.0 { Ok(()) } else { Err(io::Error::other("its parent process has ended")) }
}

/// Sets the name of this process in `ps` and `top`, cut to 15 bytes. Only a convenience, so failure is ignored.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // SAFETY: the pointer is to a string with its NUL, which the kernel copies.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr() as libc::c_ulong, 0, 0, 0) };
    }
}

/// Tells a worker to read the memory that it shares with its master. A worker that has ended is not an error.
pub fn look(pid: Pid) {
    send(pid, super::signal::look_order());
}

/// Tells a worker to drain, by a signal that only the master sends. A worker that has ended is not an error.
pub fn drain(pid: Pid) {
    send(pid, super::signal::drain_order());
}

/// Tells a worker that others have replaced it, so it drains. A second signal makes it close its idle clients.
/// A worker that has ended is not an error.
pub fn retire(pid: Pid) {
    send(pid, super::signal::retire_order());
}

/// Kills a process (SIGKILL). A process that has ended is not an error.
pub fn kill(pid: Pid) {
    send(pid, libc::SIGKILL);
}

fn send(pid: Pid, number: libc::c_int) {
    // SAFETY: takes two integers. A Pid identifies one process: it came from fork or wait, here or in the
    // previous program.
    unsafe { libc::kill(pid.0, number) };
}

/// Reaps one child that has ended, including inherited orphans: as process 1 of a container or as a subreaper,
/// this process becomes their parent. `None` if no child has ended.
pub fn reap() -> Option<(Pid, Ended)> {
    loop {
        let mut status = 0;
        // SAFETY: the call writes one int, to a live local.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid > 0 {
            let ended = if libc::WIFSIGNALED(status) {
                Ended::Signal(libc::WTERMSIG(status))
            } else {
                Ended::Status(libc::WEXITSTATUS(status))
            };
            return Some((Pid(pid), ended));
        }
        if pid == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Reaps every child that has ended, for a process that ignores its children.
pub fn reap_all() {
    while reap().is_some() {}
}

/// Ends this process without running exit handlers or flushing buffers inherited from its parent.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

//! Processes: making them, ending them, hearing of their end.
//!
//! A process that forks has one thread. Signals are blocked over a fork, and stay so in the
//! child until it installs handling of its own (`signal::Signals::install` and its like), so that
//! none is lost and none goes down the parent's pipe.

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

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug)]
pub enum Fork {
    /// The new process, with all signals blocked.
    Child,
    /// The process that forked, and its child's id.
    Parent(Pid),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an exit status, 0 to 255.
    Status(i32),
    /// By a signal.
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
    /// The child of this number, which the program that this process was before has forked.
    pub fn of_child(number: i32) -> Pid {
        Pid(number)
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// This process.
pub fn current() -> Pid {
    // SAFETY: takes nothing and cannot fail.
    Pid(unsafe { libc::getpid() })
}

/// Makes a copy of this process. EAGAIN or ENOMEM where the system has no room for it.
pub fn fork() -> io::Result<Fork> {
    let before = signal::block_all()?;
    // SAFETY: the process has one thread (module invariant), so no lock is held by a thread that
    // the child would lack, and everything the child finds is in the state it had here.
    let result = unsafe { libc::fork() };
    if result == 0 {
        return Ok(Fork::Child);
    }
    let error = io::Error::last_os_error();
    signal::restore(before)?;
    if result < 0 { Err(error) } else { Ok(Fork::Parent(Pid(result))) }
}

/// Has this process killed when `parent`, which forked it, ends: to be called once the process
/// has its final user, since changing that undoes it. An error where the parent is gone already.
pub fn die_with(parent: Pid) -> io::Result<()> {
    // SAFETY: this prctl takes integers alone.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // A parent that ended before the call above sends nothing.
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::getppid() } == parent.0 { Ok(()) } else { Err(io::Error::other("its parent process has ended")) }
}

/// Names this process in `ps` and `top`; what exceeds 15 bytes is cut off. A courtesy: failing
/// does no harm and is not told.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // SAFETY: the pointer is to a string with its NUL, which the kernel copies from.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr() as libc::c_ulong, 0, 0, 0) };
    }
}

/// Tells a worker to look at what it shares with its master.
pub fn look(pid: Pid) {
    send(pid, super::signal::look_order());
}

/// Tells a worker to drain, by the signal that only a master sends. One that has ended already
/// is not an error.
pub fn drain(pid: Pid) {
    send(pid, super::signal::drain_order());
}

/// Tells a worker that others have taken its place: it is to drain. Told again, it closes its idle clients. One that has ended already is
/// not an error.
pub fn retire(pid: Pid) {
    send(pid, super::signal::retire_order());
}

/// Ends a process (SIGKILL). One that has ended already is not an error.
pub fn kill(pid: Pid) {
    send(pid, libc::SIGKILL);
}

fn send(pid: Pid, number: libc::c_int) {
    // SAFETY: takes two integers. A Pid is that of one process: it came from fork or wait, here or in
    // the program before.
    unsafe { libc::kill(pid.0, number) };
}

/// A child that has ended and was not heard of yet, whoever forked it: as process 1 of a
/// container, or as a subreaper, this process inherits orphans. `None` when there is none now.
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

/// Reaps every child that has ended, for a process that need not know of any.
pub fn reap_all() {
    while reap().is_some() {}
}

/// Ends this process without running or flushing anything that it has from its parent.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

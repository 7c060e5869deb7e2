//! Signals as input of a poll loop.
//!
//! A handler counts a signal and writes a byte to a pipe; both are async-signal-safe. The loop polls the pipe
//! and takes the counted signals. The pipe only wakes the loop and the counts carry the information, so a full
//! pipe loses nothing. Each process has one set of counts and one pipe. A forked child creates its own with
//! `install`. Until then its signals are blocked.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use libc::{c_int, sigset_t};

/// The meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM or QUIT: drain and exit. A second one: exit immediately.
    Terminate,
    /// INT: like Terminate, from a terminal.
    Interrupt,
    /// CHLD: a child has ended.
    Child,
    /// HUP: reload the configuration.
    Hangup,
    /// USR1: reopen log files.
    Reopen,
    /// USR2: upgrade in place.
    Upgrade,
    /// From the master to a worker: the shared memory has changed.
    Look,
    /// From the master to a worker: others have replaced it, so it drains. A second one: the whole program
    /// ends, so the worker closes its idle clients.
    Retire,
}

/// Every signal in the order of its discriminant. `take` returns them in this order.
const SIGNALS: [Signal; 8] = [
    Signal::Terminate,
    Signal::Interrupt,
    Signal::Child,
    Signal::Hangup,
    Signal::Reopen,
    Signal::Upgrade,
    Signal::Look,
    Signal::Retire,
];

/// The numbers of the signals that are caught, with their meaning.
const NUMBERS: [(c_int, Signal); 7] = [
    (libc::SIGTERM, Signal::Terminate),
    (libc::SIGQUIT, Signal::Terminate),
    (libc::SIGINT, Signal::Interrupt),
    (libc::SIGCHLD, Signal::Child),
    (libc::SIGHUP, Signal::Hangup),
    (libc::SIGUSR1, Signal::Reopen),
    (libc::SIGUSR2, Signal::Upgrade),
];

/// Signals that arrived and are not yet taken, by the signal's discriminant.
static ARRIVED: [AtomicU32; SIGNALS.len()] = [const { AtomicU32::new(0) }; SIGNALS.len()];
/// The write end of the pipe, for the handlers; negative if there is no pipe.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// The signal handlers of this process, and the read end of the pipe. Dropping it disconnects the handlers from
/// the pipe.
#[derive(Debug)]
pub struct Signals {
    wake: OwnedFd,
    woken: OwnedFd,
}

impl Signals {
    /// Catches every [`Signal`], ignores SIGPIPE, and unblocks all signals. Signals that arrived earlier and
    /// were not taken are still returned.
    pub fn install() -> io::Result<Signals> {
        Signals::install_with(|_| true)
    }

    /// Like `install`, for a worker: it ignores signals to the whole process group, or sent by mistake, and
    /// reacts only to the master's.
    pub fn install_in_worker() -> io::Result<Signals> {
        // The handlers come before the unblocking. Otherwise an early signal from the master would kill the
        // worker.
        set_action(drain_order(), handler())?;
        set_action(look_order(), handler())?;
        set_action(retire_order(), handler())?;
        // All signals have been blocked since the fork, so the counted ones arrived at the parent.
        block_all()?;
        for count in &ARRIVED {
            count.store(0, Ordering::Relaxed);
        }
        Signals::install_with(|_| false)
    }

    fn install_with(caught: impl Fn(Signal) -> bool) -> io::Result<Signals> {
        let (woken, wake) = pipe()?;
        block_all()?;
        WAKE.store(wake.as_raw_fd(), Ordering::Relaxed);
        for (number, signal) in NUMBERS {
            let ignored = if signal == Signal::Child { libc::SIG_DFL } else { libc::SIG_IGN };
            set_action(number, if caught(signal) { handler() } else { ignored })?;
        }
        set_action(libc::SIGPIPE, libc::SIG_IGN)?;
        restore(Mask(empty_set()))?;
        Ok(Signals { wake, woken })
    }

    /// The descriptor to poll. When it is readable, `take` must be called until it returns `None`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// Takes one signal. Every arrival of Terminate, Interrupt and Retire is returned; repeated arrivals of the
    /// others are returned once. Must be called until it returns `None`.
    pub fn take(&mut self) -> Option<Signal> {
        self.drain();
        SIGNALS.into_iter().find(|&signal| {
            let count = &ARRIVED[signal as usize];
            match signal {
                Signal::Terminate | Signal::Interrupt | Signal::Retire => {
                    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrivals| arrivals.checked_sub(1)).is_ok()
                }
                _ => count.swap(0, Ordering::Relaxed) > 0,
            }
        })
    }

    /// Waits until a signal arrives or `other` is readable, at most for `timeout`; `None` waits forever. It may
    /// return early.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up, so that a deadline has passed when the wait ends.
        let timeout_ms = timeout.map_or(-1, |t| c_int::try_from(t.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX));
        // poll ignores a negative descriptor.
        let mut polled = [self.woken.as_raw_fd(), other.map_or(-1, |fd| fd.as_raw_fd())].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the pointer is to live pollfds, as many as the count says.
        if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Empties the pipe. This must happen before the counts are read: a signal that arrives between the two
    /// then wakes the loop again.
    fn drain(&mut self) {
        let mut bytes = [0u8; 64];
        loop {
            // SAFETY: the kernel writes at most the given number of bytes, which is the array's size.
            let read = unsafe { libc::read(self.woken.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            if read < bytes.len() as isize {
                return;
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Handlers must not write to a descriptor that is about to be closed, unless a later pipe has replaced
        // this one. A handler runs on this thread, so it has either finished before this line or sees its
        // effect.
        let _ = WAKE.compare_exchange(self.wake.as_raw_fd(), -1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// For a forked process without a poll loop: TERM, QUIT and KILL end it, and all other signals that this
/// program uses are ignored. No signal is blocked.
pub fn end_on_terminate() -> io::Result<()> {
    for (number, signal) in NUMBERS {
        let ends = matches!(signal, Signal::Terminate | Signal::Child);
        set_action(number, if ends { libc::SIG_DFL } else { libc::SIG_IGN })?;
    }
    restore(Mask(empty_set()))
}

/// Raises again the signals that arrived and were not taken. All signals are blocked, so they become pending
/// and survive an exec.
pub(super) fn send_again() {
    for (number, signal) in NUMBERS {
        let count = &ARRIVED[signal as usize];
        // A pending signal arrives only once, so QUIT, which has the same meaning, represents a second TERM.
        let came = match signal {
            Signal::Terminate => {
                count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrivals| arrivals.checked_sub(1)).is_ok()
            }
            _ => count.swap(0, Ordering::Relaxed) > 0,
        };
        if came {
            // SAFETY: takes two integers, and the process is this one.
            unsafe { libc::kill(libc::getpid(), number) };
        }
    }
}

/// The signal with which a master tells a worker to drain. It is a real-time signal: no other program sends it,
/// and none is merged with a pending one.
pub(super) fn drain_order() -> c_int {
    libc::SIGRTMIN()
}

/// The signal with which a master tells a worker to read the shared memory.
pub(super) fn look_order() -> c_int {
    libc::SIGRTMIN() + 1
}

/// The signal with which a master tells a worker that others have replaced it.
pub(super) fn retire_order() -> c_int {
    libc::SIGRTMIN() + 2
}

fn handler() -> libc::sighandler_t {
    on_signal as extern "C" fn(c_int) as libc::sighandler_t
}

extern "C" fn on_signal(number: c_int) {
    let known = NUMBERS.iter().find(|(caught, _)| *caught == number).map(|&(_, signal)| signal);
    let ordered = || match number {
        number if number == drain_order() => Some(Signal::Terminate),
        number if number == look_order() => Some(Signal::Look),
        number if number == retire_order() => Some(Signal::Retire),
        _ => None,
    };
    let Some(signal) = known.or_else(ordered) else { return };
    ARRIVED[signal as usize].fetch_add(1, Ordering::Relaxed);
    let wake = WAKE.load(Ordering::Relaxed);
    if wake >= 0 {
        // SAFETY: write is async-signal-safe, and the byte is live. `wake` is the pipe's descriptor, which
        // `Signals` keeps open as long as it is stored in WAKE. errno belongs to this thread; it is restored
        // because the interrupted code may be about to read it. A full pipe returns EAGAIN and contains enough
        // bytes to wake the loop.
        unsafe {
            let errno = libc::__errno_location();
            let kept = *errno;
            libc::write(wake, [0u8].as_ptr().cast(), 1);
            *errno = kept;
        }
    }
}

/// A set of blocked signals.
#[derive(Clone, Copy)]
pub(super) struct Mask(sigset_t);

/// Blocks all signals. Returns the previous mask.
pub(super) fn block_all() -> io::Result<Mask> {
    let mut all = empty_set();
    let mut before = empty_set();
    // SAFETY: both pointers are to live sets; sigfillset writes one, pthread_sigmask reads it and
    // writes the other.
    let result = unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before)
    };
    if result == 0 { Ok(Mask(before)) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Sets the mask of blocked signals.
pub(super) fn restore(mask: Mask) -> io::Result<()> {
    // SAFETY: the first pointer is to a live set. The second is null, so nothing is written.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask.0, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

fn empty_set() -> sigset_t {
    // SAFETY: all zeroes is a valid value of this array of integers, and sigemptyset then writes
    // a live local.
    unsafe {
        let mut set: sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        set
    }
}

fn set_action(number: c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of the struct. The handler is SIG_DFL, SIG_IGN or `on_signal`, whose
    // signature is the one without SA_SIGINFO. The pointers are to live locals, or null so that nothing is
    // written.
    let result = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigfillset(&mut action.sa_mask);
        libc::sigaction(number, &action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A non-blocking, close-on-exec pipe: the read end and the write end.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the call writes two ints, to an array of two.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors were just made, and nothing else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{self, Fork};
    use crate::sys::shm::Segment;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    fn raise(number: c_int) {
        // SAFETY: takes an integer; the signal goes to this thread, where it is caught.
        assert_eq!(unsafe { libc::raise(number) }, 0);
    }

    /// Takes a signal, except the ends of other tests' children.
    fn take(signals: &mut Signals) -> Option<Signal> {
        std::iter::from_fn(|| signals.take()).find(|&signal| signal != Signal::Child)
    }

    // One test, because handlers, counts and pipe belong to the process.
    #[test]
    fn each_termination_is_taken_and_other_signals_once() {
        let mut signals = Signals::install().unwrap();
        assert_eq!(take(&mut signals), None);
        for number in [libc::SIGHUP, libc::SIGHUP, libc::SIGTERM, libc::SIGQUIT, libc::SIGINT, libc::SIGUSR2] {
            raise(number);
        }
        signals.wait(None, None).unwrap();
        let taken: Vec<Signal> = std::iter::from_fn(|| take(&mut signals)).collect();
        assert_eq!(taken, [Signal::Terminate, Signal::Terminate, Signal::Interrupt, Signal::Hangup, Signal::Upgrade]);

        // More than the pipe holds. Nothing blocks, and no other signal is lost.
        for _ in 0..70_000 {
            raise(libc::SIGUSR1);
        }
        raise(libc::SIGTERM);
        assert_eq!(take(&mut signals), Some(Signal::Terminate));
        while let Some(signal) = take(&mut signals) {
            assert_eq!(signal, Signal::Reopen);
        }

        // A later pipe replaces this one. Dropping the earlier one does not undo that.
        let mut later = Signals::install().unwrap();
        drop(signals);
        raise(libc::SIGHUP);
        later.wait(None, None).unwrap();
        assert_eq!(take(&mut later), Some(Signal::Hangup));

        // Restores the default actions for the other tests of this process.
        for (number, _) in NUMBERS {
            set_action(number, libc::SIG_DFL).unwrap();
        }
    }

    /// The forked worker of the test below. It counts in shared memory the signals that it takes, and ends when
    /// the master sends the signal. It must not allocate, because it is a fork of a process with several threads.
    fn be_a_worker(looks: &AtomicU64, others: &AtomicU64, ready: &AtomicU64) -> u8 {
        let Ok(mut signals) = Signals::install_in_worker() else { return 2 };
        ready.store(1, Ordering::Release);
        loop {
            if signals.wait(None, Some(Duration::from_secs(20))).is_err() {
                return 3;
            }
            while let Some(signal) = signals.take() {
                match signal {
                    Signal::Look => looks.fetch_add(1, Ordering::Release),
                    Signal::Terminate => return 0,
                    _ => others.fetch_add(1, Ordering::Release),
                };
            }
        }
    }

    #[test]
    fn a_worker_reacts_only_to_signals_of_its_master() {
        let cells = Segment::create(64).unwrap().cells();
        let (looks, others, ready) = (&cells[0], &cells[1], &cells[2]);
        let Fork::Parent(pid) = fork::fork().unwrap() else { fork::exit_now(be_a_worker(looks, others, ready)) };
        let id: libc::pid_t = pid.to_string().parse().unwrap();
        let until = |cell: &AtomicU64, wanted: u64| {
            let begun = Instant::now();
            while cell.load(Ordering::Acquire) < wanted {
                assert!(begun.elapsed().as_secs() < 10, "never {wanted}");
                std::thread::yield_now();
            }
        };
        until(ready, 1);
        for round in 1..=3 {
            // Signals that a terminal or a service manager sends to the whole group.
            for (number, _) in NUMBERS {
                // SAFETY: takes two integers, and the process is the one just forked.
                assert_eq!(unsafe { libc::kill(id, number) }, 0);
            }
            fork::look(pid);
            until(looks, round);
        }
        assert_eq!(others.load(Ordering::Acquire), 0);
        fork::drain(pid);
        let mut status = -1;
        // SAFETY: the call writes one int, to a live local.
        assert_eq!(unsafe { libc::waitpid(id, &mut status, 0) }, id);
        assert_eq!(status, 0, "it ended in order");
    }
}

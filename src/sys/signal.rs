//! Signals as input of a poll loop.
//!
//! A handler counts a signal's arrival and writes a byte to a pipe, both async-signal-safe; the
//! loop polls the pipe and takes what was counted. The pipe only wakes, the counts tell, so a
//! full pipe loses nothing. There is one set of counts and one pipe per process: a child that was
//! forked makes its own with `install`, signals being blocked from the fork until then.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use libc::{c_int, sigset_t};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM or QUIT: drain and exit; a second one: exit now.
    Terminate,
    /// INT: the same, from a terminal.
    Interrupt,
    /// CHLD: a child has ended.
    Child,
    /// HUP: read configuration again.
    Hangup,
    /// USR1: reopen log files.
    Reopen,
    /// USR2: upgrade in place.
    Upgrade,
    /// To a worker, from its master: there is something new in the memory that they share.
    Look,
    /// To a worker, from its master: others have taken its place, and it is to drain. A second one: the whole
    /// program ends, and its idle clients are not waited for any longer.
    Retire,
}

/// Every signal in the order of its discriminant, which is the order `take` gives them in.
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

/// Signal numbers that are caught, with what they ask for.
const NUMBERS: [(c_int, Signal); 7] = [
    (libc::SIGTERM, Signal::Terminate),
    (libc::SIGQUIT, Signal::Terminate),
    (libc::SIGINT, Signal::Interrupt),
    (libc::SIGCHLD, Signal::Child),
    (libc::SIGHUP, Signal::Hangup),
    (libc::SIGUSR1, Signal::Reopen),
    (libc::SIGUSR2, Signal::Upgrade),
];

/// Arrivals not yet taken, by the signal's discriminant.
static ARRIVED: [AtomicU32; SIGNALS.len()] = [const { AtomicU32::new(0) }; SIGNALS.len()];
/// The pipe's end that handlers write to; negative where there is none.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Catches this process's signals while it lives.
#[derive(Debug)]
pub struct Signals {
    wake: OwnedFd,
    woken: OwnedFd,
}

impl Signals {
    /// Catches every [`Signal`], ignores SIGPIPE, and unblocks all signals. What has come before, and
    /// was not taken, is given still.
    pub fn install() -> io::Result<Signals> {
        Signals::install_with(|_| true)
    }

    /// The same for a worker, which ignores whatever else could be sent to a whole process group
    /// or to it by mistake, and heeds the master's orders alone.
    pub fn install_in_worker() -> io::Result<Signals> {
        // Before anything is unblocked, or an early order would end the worker.
        set_action(drain_order(), handler())?;
        set_action(look_order(), handler())?;
        set_action(retire_order(), handler())?;
        // All are blocked since the fork: what is counted here has come to the parent.
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

    /// What to poll for readability: then, take signals until there is none.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }

    /// One signal that has come. Of Terminate, Interrupt and Retire each arrival is given, the others
    /// once however often they came. To be called until it returns `None`.
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

    /// Waits for a signal, or for `other` to be readable, at most for `timeout`; `None` waits for
    /// ever. It may return early.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up, so that what was waited for is due afterwards.
        let timeout_ms = timeout.map_or(-1, |t| c_int::try_from(t.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX));
        // A negative descriptor is passed over.
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

    /// Empties the pipe. Before the counts are read, never after: a signal that comes between
    /// the two wakes the loop once more.
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
        // Unless another pipe has taken this one's place, handlers must not write to a
        // descriptor that is about to be closed. A handler runs on this very thread, so it
        // has either finished before this or sees it.
        let _ = WAKE.compare_exchange(self.wake.as_raw_fd(), -1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// For a forked process without a poll loop: TERM, QUIT and KILL end it, every other signal that
/// this program knows is ignored; nothing is blocked.
pub fn end_on_terminate() -> io::Result<()> {
    for (number, signal) in NUMBERS {
        let ends = matches!(signal, Signal::Terminate | Signal::Child);
        set_action(number, if ends { libc::SIG_DFL } else { libc::SIG_IGN })?;
    }
    restore(Mask(empty_set()))
}

/// Sends this process again what has come and was not taken. All signals are blocked: it is pending
/// then, and survives that this process becomes another program.
pub(super) fn send_again() {
    for (number, signal) in NUMBERS {
        let count = &ARRIVED[signal as usize];
        // Two of TERM are told from one by QUIT, which asks for the same.
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

/// The signal by which a master tells a worker to drain. It is a real-time signal: nobody else
/// sends one, and none is lost to another that is pending.
pub(super) fn drain_order() -> c_int {
    libc::SIGRTMIN()
}

/// The signal by which a master tells a worker to look at what they share.
pub(super) fn look_order() -> c_int {
    libc::SIGRTMIN() + 1
}

/// The signal by which a master tells a worker that others have taken its place.
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
        // SAFETY: write is async-signal-safe, and the byte lives. `wake` is the pipe's, which
        // `Signals` holds open for as long as it is to be found here. errno is this thread's own;
        // it is put back because the code interrupted may be about to read it. A full pipe fails
        // with EAGAIN and has bytes enough to wake the loop.
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

/// Blocks all signals; returns what was blocked before.
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

/// Blocks what `mask` says and nothing else.
pub(super) fn restore(mask: Mask) -> io::Result<()> {
    // SAFETY: the first pointer is to a live set; a null second one asks for nothing back.
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
    // SAFETY: all zeroes is a valid value of the struct. The handler is SIG_DFL, SIG_IGN or
    // `on_signal`, which has the signature that goes without SA_SIGINFO. The pointers are to
    // live locals, or null to ask for nothing back.
    let result = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigfillset(&mut action.sa_mask);
        libc::sigaction(number, &action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A non-blocking, close-on-exec pipe: the end to read from, and the end to write to.
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

    /// What is taken, but for the ends of other tests' children.
    fn take(signals: &mut Signals) -> Option<Signal> {
        std::iter::from_fn(|| signals.take()).find(|&signal| signal != Signal::Child)
    }

    // One test, since handlers, counts and pipe are the process's.
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

        // More than the pipe holds: nothing blocks, and nothing else is lost.
        for _ in 0..70_000 {
            raise(libc::SIGUSR1);
        }
        raise(libc::SIGTERM);
        assert_eq!(take(&mut signals), Some(Signal::Terminate));
        while let Some(signal) = take(&mut signals) {
            assert_eq!(signal, Signal::Reopen);
        }

        // A pipe made later takes over, and the older one's end does not undo that.
        let mut later = Signals::install().unwrap();
        drop(signals);
        raise(libc::SIGHUP);
        later.wait(None, None).unwrap();
        assert_eq!(take(&mut later), Some(Signal::Hangup));

        // The other tests of this process can be interrupted again.
        for (number, _) in NUMBERS {
            set_action(number, libc::SIG_DFL).unwrap();
        }
    }

    /// What a forked worker does in the test below: it tells in shared memory of what it takes, and
    /// ends in order when it is told to. It allocates nothing, for it has one of several threads.
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
    fn a_worker_heeds_its_master_and_nobody_else() {
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
            // What a terminal, a service manager or a slip sends to a whole group.
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

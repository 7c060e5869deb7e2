//! Taking connections in: as many as there may be, as fast as others can wait for.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use super::{ADMIN, Accepting, Pauses, Worker};
use crate::collections::slab::Key;
use crate::limits::{ACCEPT_PAUSE_US, ACCEPT_STEADY_US, ACCEPT_STREAK, ACCEPTS_PER_TURN, ADMIN_CONNECTIONS, SECOND_US};
use crate::log::Level;
use crate::metrics::Count;
use crate::proxy::Failure;
use crate::sys;

/// Stands in for a client's address that the system did not tell.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Worker<'_> {
    /// Accepts one connection per event: an accept that finds none still costs a system call. Accepts
    /// more in a turn the longer connections have been waiting.
    pub(super) fn accept(&mut self, at: usize) -> io::Result<()> {
        self.accept_streak += 1;
        for _ in 0..(1 + self.accept_streak / ACCEPT_STREAK).min(ACCEPTS_PER_TURN) {
            if self.accepting != Accepting::Open {
                return Ok(());
            }
            if self.proxy.clients() >= self.max_connections {
                let most = self.max_connections;
                self.note_pause(format_args!(
                    "{most} clients are connected, as many as this worker may have \
                                              (--max-connections)"
                ));
                return self.pause_accepting(0);
            }
            let Some(listener) = self.listener(at) else { return Ok(()) };
            match sys::socket::accept(listener.as_fd()) {
                Ok((fd, address)) => {
                    self.note_accepting();
                    self.admit(fd, address, at);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_streak = 0;
                    return Ok(());
                }
                Err(error) if sys::socket::is_exhausted(&error) => {
                    if self.make_room() {
                        continue;
                    }
                    self.note_pause(format_args!("{error}"));
                    return self.pause_accepting(self.now_us + ACCEPT_PAUSE_US);
                }
                // That connection is gone already; the next may be well.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes in a client that came to the listener of this number, and reads at once: a deferred connection
    /// has its request with it.
    pub(super) fn admit(&mut self, fd: OwnedFd, address: Option<SocketAddr>, listener: usize) {
        let key = self.proxy.accept_on(address.unwrap_or(UNKNOWN), listener as u16);
        self.hold(key, fd);
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.readable = true;
            self.read(key);
            self.carry_out();
        }
    }

    /// Whether the program that follows has no use for a listener: it ends the deferral, and nothing else
    /// does while a worker accepts.
    pub(super) fn is_listener_given_up(&self) -> bool {
        self.listeners.iter().any(|listener| !sys::listen::is_deferred(listener.as_fd()))
    }

    fn hold(&mut self, key: Key, fd: OwnedFd) {
        match self.reactor.register(fd.as_fd(), key.to_token()) {
            Ok(()) => self.sockets.insert(key, fd, false),
            Err(error) => {
                self.proxy.failed(key, Failure::Broken(error.raw_os_error().unwrap_or(0)));
                self.carry_out();
            }
        }
    }

    /// Gives up an idle connection to a backend for one that is wanted now; whether there was any.
    pub(super) fn make_room(&mut self) -> bool {
        let evicted = self.proxy.evict_idle();
        self.carry_out();
        evicted
    }

    /// Logs that accepting pauses, unless it paused a moment ago.
    fn note_pause(&mut self, why: fmt::Arguments<'_>) {
        let now_us = self.now_us;
        match &mut self.pauses {
            Some(pauses) => (pauses.last_us, pauses.count) = (now_us, pauses.count + 1),
            None => {
                self.pauses = Some(Pauses { began_us: now_us, last_us: now_us, count: 1 });
                self.proxy.log().line(Level::Warn, "worker", format_args!("accepting pauses: {why}"));
            }
        }
    }

    /// Logs that connections are accepted again, once they have been for a while.
    fn note_accepting(&mut self) {
        if let Some(Pauses { began_us, last_us, count }) = self.pauses
            && self.now_us > last_us + ACCEPT_STEADY_US
        {
            self.pauses = None;
            let (plural, seconds) = (if count == 1 { "" } else { "s" }, (last_us - began_us).div_ceil(SECOND_US));
            let text = format_args!("accepting again: it paused {count} time{plural} in {seconds} s");
            self.proxy.log().line(Level::Info, "worker", text);
        }
    }

    fn pause_accepting(&mut self, until_us: u64) -> io::Result<()> {
        self.listeners.iter().try_for_each(|listener| self.reactor.unwatch(listener.as_fd()))?;
        self.set_accepting(Accepting::Paused(until_us));
        self.watch_spares();
        Ok(())
    }

    pub(super) fn set_accepting(&mut self, accepting: Accepting) {
        self.accepting = accepting;
        self.block.set(Count::Accepting, (accepting == Accepting::Open).into());
    }

    pub(super) fn resume_accepting(&mut self) -> io::Result<()> {
        if let Accepting::Paused(until_us) = self.accepting
            && self.now_us >= until_us
            && self.proxy.clients() < self.max_connections
        {
            self.watch_listeners()?;
            self.set_accepting(Accepting::Open);
            self.watch_spares();
            let now_us = self.now_us;
            self.pauses.iter_mut().for_each(|pauses| pauses.last_us = now_us);
        }
        if self.admin_from_us.is_some_and(|from_us| self.now_us >= from_us) {
            self.watch_admin()?;
        }
        Ok(())
    }

    /// Accepts from the admin's listener, which all workers share: another may have been faster.
    /// Whether there may be more.
    pub(super) fn accept_admin(&mut self) -> io::Result<bool> {
        let Some(listener) = &self.admin else { return Ok(false) };
        match sys::socket::accept(listener.as_fd()) {
            Ok((fd, address)) => {
                if self.proxy.admins() < ADMIN_CONNECTIONS {
                    let key = self.proxy.accept_admin(address.unwrap_or(UNKNOWN));
                    self.hold(key, fd);
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if sys::socket::is_exhausted(&error) && !self.make_room() => {
                self.note_pause(format_args!("{error}"));
                self.pause_admin(self.now_us + ACCEPT_PAUSE_US).map(|()| false)
            }
            // That connection is gone already, or there is room for it now.
            Err(_) => Ok(true),
        }
    }

    fn pause_admin(&mut self, until_us: u64) -> io::Result<()> {
        if self.admin_from_us.replace(until_us).is_none()
            && let Some(admin) = &self.admin
        {
            self.reactor.unwatch(admin.as_fd())?;
        }
        Ok(())
    }

    pub(super) fn watch_admin(&mut self) -> io::Result<()> {
        self.admin_from_us = None;
        self.admin.as_ref().map_or(Ok(()), |admin| self.reactor.watch(admin.as_fd(), ADMIN))
    }
}

/// Has the system hold connections back until their clients send, or no longer. A refusal costs speed and nothing
/// else.
pub(super) fn set_deferral<'a>(listeners: impl Iterator<Item = &'a OwnedFd>, deferred: bool) {
    for listener in listeners {
        let _ = sys::listen::defer_accept(listener.as_fd(), deferred);
    }
}

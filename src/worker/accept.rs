//! Accepts connections, up to the limits of clients and descriptors.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use super::listener::{Accepting, Listener};
use super::socket::Sending;
use super::{Pauses, Worker};
use crate::collections::slab::Key;
use crate::config::{Listen, Purpose};
use crate::limits::{ACCEPT_PAUSE_US, ACCEPT_STEADY_US, ACCEPT_STREAK, ACCEPTS_PER_TURN, ADMIN_CONNECTIONS, SECOND_US};
use crate::log::Level;
use crate::proxy::Failure;
use crate::sys;

/// The address of a client if the system does not know it.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Worker<'_> {
    /// Accepts one connection per event: an accept that finds none still costs a system call. Accepts
    /// more in a turn the longer connections have been waiting.
    pub(super) fn accept(&mut self, at: usize) -> io::Result<()> {
        self.accept_streak += 1;
        for _ in 0..(1 + self.accept_streak / ACCEPT_STREAK).min(ACCEPTS_PER_TURN) {
            let Some(listener) = self.open_listener(at) else { return Ok(()) };
            let listen = listener.listen;
            if listen.is_public() && self.proxy.clients() >= self.max_connections {
                let most = self.max_connections;
                self.note_pause(format_args!(
                    "{most} clients are connected, as many as this worker may have (--max-connections)"
                ));
                return self.pause_accepting(true, 0);
            }
            match sys::socket::accept(listener.socket.as_fd()) {
                Ok((fd, address)) => {
                    self.note_accepting();
                    if listen.is_public() && self.proxy.clients() + self.tls.leaving.len() >= self.max_connections {
                        self.tls.leaving.give_up();
                    }
                    self.admit(fd, address, listen, at);
                }
                // All workers share the admin port: another one may have been faster.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_streak = 0;
                    return Ok(());
                }
                Err(error) if sys::socket::is_exhausted(&error) => {
                    if self.make_room() {
                        continue;
                    }
                    self.note_pause(format_args!("{error}"));
                    return self.pause_accepting(listen.is_public(), self.now_us + ACCEPT_PAUSE_US);
                }
                // This connection is gone already. The next one may not be.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes in a connection to the listener of this number, and reads at once: a deferred connection has its request
    /// with it. Closes a connection too many to the admin port.
    pub(super) fn admit(&mut self, fd: OwnedFd, address: Option<SocketAddr>, listen: Listen, number: usize) {
        let address = address.unwrap_or(UNKNOWN);
        let key = match listen.purpose {
            Purpose::Traffic | Purpose::Redirect { .. } => self.proxy.accept_on(address, number as u16),
            Purpose::Admin if self.proxy.admins() >= ADMIN_CONNECTIONS => return,
            Purpose::Admin => self.proxy.accept_admin(address),
        };
        self.hold(key, fd);
        if listen.tls && !listen.proxy_header && !self.accept_session(key) {
            // The certificates cannot be used, which was logged.
            self.proxy.failed(key, Failure::Closed);
            return self.carry_out();
        }
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.readable = true;
            self.read(key);
            self.carry_out();
        }
    }

    fn hold(&mut self, key: Key, fd: OwnedFd) {
        match self.reactor.register(fd.as_fd(), key.to_token()) {
            Ok(()) => self.sockets.insert(key, fd, Sending::Writable),
            Err(error) => {
                self.proxy.failed(key, Failure::Broken(error.raw_os_error().unwrap_or(0)));
                self.carry_out();
            }
        }
    }

    /// Closes an idle connection to a backend, so that its descriptor is free, or else a socket that only sends the rest of
    /// a session. Returns false if there is neither.
    pub(super) fn make_room(&mut self) -> bool {
        let evicted = self.proxy.evict_idle();
        self.carry_out();
        evicted || self.tls.leaving.give_up()
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

    /// Logs that connections are accepted again, once no listener has paused for a while.
    fn note_accepting(&mut self) {
        if let Some(Pauses { began_us, last_us, count }) = self.pauses
            && self.now_us > last_us + ACCEPT_STEADY_US
            && self.own_listeners().all(|own| own.accepting == Accepting::Open)
        {
            self.pauses = None;
            let (plural, seconds) = (if count == 1 { "" } else { "s" }, (last_us - began_us).div_ceil(SECOND_US));
            let text = format_args!("accepting again: it paused {count} time{plural} in {seconds} s");
            self.proxy.log().line(Level::Info, "worker", text);
        }
    }
}

/// Makes the system hold connections back until their clients send, or no longer. A refusal costs only speed.
pub(super) fn set_deferral<'a>(listeners: impl Iterator<Item = &'a Listener>, deferred: bool) {
    for listener in listeners {
        let _ = sys::listen::defer_accept(listener.socket.as_fd(), deferred);
    }
}

//! Moves bytes between the sockets and the proxy, and carries out the proxy's outputs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::Worker;
use super::encryption::Encryption;
use super::socket::Sending;
use crate::collections::slab::Key;
use crate::config::Address;
use crate::http::session_error::SessionError;
use crate::limits::{READ_BYTES, READS_PER_TURN};
use crate::proxy::{Failure, Output};
use crate::reactor::Event;
use crate::sys::{self, Hangup};

impl Worker<'_> {
    pub(super) fn handle(&mut self, key: Key, event: Event) {
        let Some(socket) = self.sockets.get_mut(key) else { return self.tls.leaving.flush(key, self.now_us) };
        socket.ended |= event.hangup != Hangup::None;
        socket.readable |= event.readable;
        if event.hangup != Hangup::None {
            self.proxy.closing(key);
        }
        // Readability may have been reported before the connection was established.
        let is_connecting = socket.sending == Sending::Connecting;
        let readable = event.readable || is_connecting;
        if is_connecting {
            if !event.writable {
                return;
            }
            socket.sending = Sending::Writable;
            let (code, server_name) = (
                sys::socket::take_error(socket.fd.as_fd()),
                socket.encryption.as_mut().and_then(|encryption| encryption.server_name.take()),
            );
            match (code, server_name) {
                (0, _) if !self.send_header(key) => {}
                (0, Some(name)) => self.begin_session(key, &name),
                (0, None) => self.proxy.connected(key, false),
                (code, _) => {
                    self.trace_session(key, |trace, _, now_us| {
                        trace.connect_failed(&io::Error::from_raw_os_error(code), now_us);
                    });
                    self.proxy.failed(key, Failure::Connect(code));
                }
            }
            self.carry_out();
        } else if event.writable && socket.sending == Sending::Blocked {
            socket.sending = Sending::Writable;
            self.send(key);
        }
        if readable {
            self.read(key);
        }
        if event.hangup == Hangup::Failed && self.sockets.get_mut(key).is_some_and(|socket| socket.readable) {
            self.proxy.broken(key);
        }
        self.carry_out();
    }

    /// Reads once, if there may be data and the proxy has room.
    pub(super) fn read(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.secure().is_some() {
            return self.read_secure(key);
        }
        if !socket.readable || socket.sending == Sending::Connecting {
            return;
        }
        let Some(room) = self.proxy.room(key) else { return self.identify(key) };
        let wanted = room.len().min(READ_BYTES);
        match sys::socket::receive(socket.fd.as_fd(), &mut room[..wanted]) {
            Ok(0) => {
                socket.readable = false;
                match socket.error {
                    0 => self.proxy.ended(key),
                    code => self.proxy.failed(key, Failure::Broken(code)),
                }
            }
            Ok(n) => {
                if n < wanted && !socket.ended {
                    socket.readable = false;
                } else {
                    self.ready.push_back(key);
                }
                if n == READ_BYTES {
                    sys::socket::acknowledge_now(socket.fd.as_fd());
                }
                self.proxy.received(key, n);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable = false;
                self.proxy.nothing(key);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.ready.push_back(key);
                self.proxy.nothing(key);
            }
            Err(error) => {
                socket.readable = false;
                self.proxy.failed(key, Failure::Broken(error.raw_os_error().unwrap_or(0)));
            }
        }
    }

    /// Sends queued data until the socket accepts no more.
    pub(super) fn send(&mut self, key: Key) {
        loop {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            if socket.secure().is_some() {
                return self.send_secure(key);
            }
            if socket.sending != Sending::Writable {
                return;
            }
            let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) else { return };
            // The end then travels with the last bytes instead of in a packet of its own.
            let more = self.proxy.is_ending(key);
            match sys::socket::send(socket.fd.as_fd(), queue.slices(), more) {
                Ok(n) => self.proxy.sent(key, n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.sending = Sending::Blocked;
                    self.proxy.blocked(key);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // The peer's earlier data can still be read. EPIPE follows an end of its direction. Any
                    // other error is reported only once, and a read would mistake the result for a normal end.
                    let code = error.raw_os_error().unwrap_or(0);
                    if code != libc::EPIPE {
                        socket.error = code;
                    }
                    socket.sending = Sending::Blocked;
                    socket.readable = true;
                    self.ready.push_back(key);
                    self.proxy.unsendable(key);
                }
            }
        }
    }

    /// Does all that the proxy asks for.
    pub(super) fn carry_out(&mut self) {
        let mut reads = 0;
        while let Some(output) = self.proxy.next_output() {
            match output {
                Output::Connect(key, slot) => self.connect(key, slot),
                Output::Send(key) => self.send(key),
                Output::SendLater(key) => self.late.push(key),
                Output::Receive(key) if reads < READS_PER_TURN => {
                    reads += 1;
                    self.read(key);
                }
                Output::Receive(key) => self.ready.push_back(key),
                Output::Check(key) => {
                    if let Some(socket) = self.sockets.get_mut(key) {
                        socket.readable = true;
                    }
                    self.read(key);
                }
                Output::Measure(key, socket) => {
                    let socket = self.sockets.get_mut(socket);
                    let bytes = socket.and_then(|socket| sys::socket::unacknowledged(socket.fd.as_fd()));
                    self.proxy.measured(key, bytes);
                }
                Output::Finish(key) => self.finish(key),
                Output::Close(key) => self.close(key),
                Output::Reset(key) => {
                    self.note_unfinished(key, Some(SessionError::Closed));
                    if let Some(socket) = self.sockets.remove(key) {
                        sys::socket::reset_on_close(socket.fd.as_fd());
                    }
                }
            }
        }
    }

    /// Sends what was collected for muxes.
    pub(super) fn send_late(&mut self) {
        while let Some(key) = self.late.pop() {
            self.send(key);
            self.carry_out();
        }
    }

    /// Begins to connect to the backend in a slot.
    fn dial(&self, key: Key, slot: usize) -> io::Result<OwnedFd> {
        let begun = match self.proxy.address(slot) {
            Some(Address::Tcp(address)) => sys::socket::connect_tcp(*address),
            Some(Address::Unix(path)) => sys::socket::connect_unix(path),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        begun.and_then(|fd| self.reactor.register(fd.as_fd(), key.to_token()).map(|()| fd))
    }

    pub(super) fn connect(&mut self, key: Key, slot: usize) {
        let mut begun = self.dial(key, slot);
        // An idle connection to a backend gives way first, and the proxy then asks for this one again.
        while begun.as_ref().is_err_and(sys::socket::is_exhausted)
            && !self.proxy.has_idle()
            && self.tls.leaving.give_up()
        {
            begun = self.dial(key, slot);
        }
        match begun {
            Ok(fd) => {
                self.sockets.insert(key, fd, Sending::Connecting);
                if let Some(name) = self.proxy.server_name(slot).map(str::to_owned) {
                    let trace = self.tls.trace.then(|| self.begin_trace(key, slot));
                    if let Some(socket) = self.sockets.get_mut(key) {
                        let encryption = Encryption { server_name: Some(name), trace, secure: None };
                        socket.encryption = Some(Box::new(encryption));
                    }
                }
                self.write_trace(key);
            }
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(0);
                let failure = match code {
                    _ if sys::socket::is_exhausted(&error) => Failure::Exhausted(code),
                    libc::EAGAIN => Failure::Busy,
                    _ => Failure::Connect(code),
                };
                self.proxy.failed(key, failure);
            }
        }
    }
}

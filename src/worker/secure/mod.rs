//! Sockets whose bytes are encrypted: reading, writing and closing, for either side.
//!
//! The worker encrypts the bytes that the proxy queued, and decrypts the bytes of the socket. States of a session as the
//! proxy knows it: [`Phase`]. Invariants:
//!
//! - Ciphertext is read only after all plaintext was taken, so the buffers are bounded.
//! - Our direction ends after the socket has taken all ciphertext. The proxy may have removed the connection by then
//!   (`leaving`).

mod downstream;
mod flush;
mod leaving;
mod upstream;

use std::io;
use std::os::fd::AsFd;

use self::downstream::Downstream;
use self::flush::Flushed;
use self::leaving::Leaving;
use self::upstream::BackendTls;
use super::Worker;
use super::encryption::{Phase, Secure};
use super::socket::{Sending, Socket};
use crate::collections::slab::Key;
use crate::config::Config;
use crate::limits::{SEND_SLICES, TLS_LEAVING, TLS_READ_BYTES};
use crate::proxy::Failure;
use crate::sys::{self, clock};
use crate::tls;
use crate::tls::session::Session;
use crate::tls::trace::Trace;

/// The part that all sessions of a worker share.
pub(super) struct Tls {
    upstream: BackendTls,
    downstream: Downstream,
    /// True if sessions are logged (`--tls-trace`).
    pub(super) trace: bool,
    /// The bytes that were read last.
    ciphertext: Vec<u8>,
    /// The buffer that replaces `ciphertext` when a session keeps it.
    spare: Vec<u8>,
    pub(super) leaving: Leaving,
}

impl Tls {
    pub(super) fn new(backends: Option<tls::client::Config>, config: &Config) -> Tls {
        Tls {
            upstream: BackendTls::new(backends, config),
            downstream: Downstream::default(),
            trace: config.tls_trace,
            ciphertext: Vec::new(),
            spare: Vec::new(),
            leaving: Leaving::new(TLS_LEAVING),
        }
    }
}

/// The result of reading from the socket.
enum Arrival {
    Bytes(usize),
    Nothing,
    End,
    Broken(i32),
}

impl Worker<'_> {
    /// Reads and decrypts, if there may be bytes and the proxy has room.
    pub(super) fn read_secure(&mut self, key: Key) {
        let Some(secure) = self.sockets.get_mut(key).and_then(Socket::secure_mut) else { return };
        let mut arrival = Arrival::Nothing;
        if secure.session.readable() == 0 {
            if secure.session.failure().is_some() {
                return self.tell_failure(key);
            }
            arrival = if secure.rest.is_empty() { self.arrive(key) } else { Arrival::Bytes(0) };
            if let Arrival::Bytes(n) = arrival
                && !self.decrypt(key, n)
            {
                return;
            }
        }
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(secure) = socket.encryption.as_mut().and_then(|own| own.secure.as_mut()) else { return };
        if secure.session.readable() > 0 {
            let Some(room) = self.proxy.room(key) else { return };
            // One block at a time, although the session may have more: each response in it takes a block until it is
            // sent, and those of more blocks would not fit into the processor's cache.
            let n = secure.session.read(room);
            if secure.phase == Phase::Established {
                secure.phase = Phase::Heard;
            }
            // The failure is reported after the earlier bytes.
            let failed = secure.session.readable() == 0 && secure.session.failure().is_some();
            // The peer's close_notify follows these bytes. The next turn reports it, without the end of the
            // socket.
            let closed = secure.session.received_close_notify();
            if secure.session.readable() > 0 || !secure.rest.is_empty() || socket.readable || closed {
                self.ready.push_back(key);
            }
            if n > 0 {
                self.proxy.received(key, n)
            } else {
                self.proxy.nothing(key)
            }
            if failed {
                self.tell_failure(key);
            }
            return;
        }
        let closed = secure.session.received_close_notify();
        if matches!(arrival, Arrival::Bytes(_)) && !closed && (socket.readable || !secure.rest.is_empty()) {
            self.ready.push_back(key);
        }
        match arrival {
            Arrival::Bytes(_) | Arrival::Nothing if closed => {
                if std::mem::replace(&mut secure.phase, Phase::Ended) != Phase::Ended {
                    self.proxy.ended(key);
                }
            }
            Arrival::Bytes(_) | Arrival::Nothing => {}
            Arrival::Broken(_) if secure.is_client && secure.is_handshaking() => {
                let _ = secure.session.ended();
                self.tell_failure(key);
            }
            Arrival::Broken(code) => self.proxy.failed(key, Failure::Broken(code)),
            Arrival::End => match secure.session.ended() {
                Ok(()) => self.proxy.ended(key),
                Err(_) if secure.is_client && secure.phase == Phase::Handshaking => self.tell_failure(key),
                Err(failure) if secure.phase == Phase::Handshaking => self.proxy.failed(key, Failure::Tls(failure)),
                // The last message may be truncated, unless it states its own length.
                Err(_) => self.proxy.failed(key, Failure::Closed),
            },
        }
    }

    /// Reads the socket into the worker's buffer.
    fn arrive(&mut self, key: Key) -> Arrival {
        self.tls.ciphertext.resize(TLS_READ_BYTES, 0);
        let Some(socket) = self.sockets.get_mut(key) else { return Arrival::Nothing };
        if !socket.readable {
            return Arrival::Nothing;
        }
        match sys::socket::receive(socket.fd.as_fd(), &mut self.tls.ciphertext) {
            Ok(0) => {
                socket.readable = false;
                Arrival::End
            }
            Ok(n) => {
                socket.readable = n == TLS_READ_BYTES || socket.ended;
                Arrival::Bytes(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable = false;
                Arrival::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.ready.push_back(key);
                Arrival::Nothing
            }
            Err(error) => {
                socket.readable = false;
                Arrival::Broken(error.raw_os_error().unwrap_or(0))
            }
        }
    }

    /// Passes the first `n` bytes of the worker's buffer to the session, or the rest that it kept if `n` is 0. Returns
    /// true if the connection may be read.
    fn decrypt(&mut self, key: Key, n: usize) -> bool {
        let Some(secure) = self.sockets.get_mut(key).and_then(Socket::secure_mut) else { return false };
        let (buffer, spare) = (&mut self.tls.ciphertext, &mut self.tls.spare);
        let taken = if n > 0 {
            secure.session.received(&buffer[..n]).inspect(|&taken| secure.rest.keep(taken, n, buffer, spare))
        } else {
            secure.session.received(secure.rest.bytes()).inspect(|&taken| secure.rest.pass(taken, spare))
        };
        let established = taken.is_ok() && secure.phase == Phase::Handshaking && !secure.session.is_handshaking();
        if established {
            secure.phase = Phase::Established;
        }
        let http2 = secure.session.alpn() == Some(tls::HTTP_2);
        let is_readable = secure.phase != Phase::Handshaking && secure.session.readable() > 0;
        let answers = secure.session.wants_send();
        let is_client = secure.is_client;
        self.observe_session(key);
        if taken.is_err() {
            // The peer may get an alert with the reason.
            self.send_secure(key);
            if !is_readable {
                self.tell_failure(key);
            }
            return is_readable;
        }
        if established && is_client {
            self.tell_client_secured(key, http2);
        } else if established {
            self.tell_secured(key);
            self.proxy.connected(key, http2);
        }
        // The peer may wait for these bytes at any time, not only during the handshake (RFC 5246, section 7.2.2). But a
        // client that has sent its request with the end of its handshake waits for nothing but the response: its ticket
        // goes with that.
        if (established || answers) && !(established && is_client && is_readable) {
            self.send_secure(key);
        }
        true
    }

    /// Encrypts the bytes that are queued, and sends the bytes of the session, until the socket takes no more.
    pub(super) fn send_secure(&mut self, key: Key) {
        loop {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            match socket.flush() {
                Flushed::All => {}
                Flushed::Full => return self.proxy.blocked(key),
                Flushed::Broken => {
                    // Bytes that the peer sent before it left can still be read.
                    socket.readable = true;
                    self.ready.push_back(key);
                    return self.proxy.unsendable(key);
                }
            }
            let Some(secure) = socket.encryption.as_mut().and_then(|own| own.secure.as_mut()) else { return };
            let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) else { return };
            let slices: Vec<io::IoSlice<'_>> = queue.slices().take(SEND_SLICES).map(io::IoSlice::new).collect();
            let n = secure.session.write(&slices);
            if n == 0 {
                return;
            }
            self.proxy.sent(key, n);
        }
    }

    /// Ends our direction of a connection, behind all bytes that wait to be sent.
    pub(super) fn finish(&mut self, key: Key) {
        self.close_session(key);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        match socket.secure_mut() {
            Some(secure) if secure.session.wants_send() => secure.finishing = true,
            _ => sys::socket::finish(socket.fd.as_fd()),
        }
    }

    /// Closes a connection. If our direction is finishing, the socket stays until its last bytes are sent.
    pub(super) fn close(&mut self, key: Key) {
        self.note_unfinished(key, None);
        self.close_session(key);
        self.trace_session(key, |trace, _, now_us| trace.given_up(&"it is closed", now_us));
        let Some(socket) = self.sockets.remove(key) else { return };
        // The rest of the last response to a client may not have been sent.
        let waits = |secure: &Secure| secure.is_client && secure.session.wants_send();
        if socket.sending != Sending::Broken && socket.secure().is_some_and(|secure| secure.finishing || waits(secure))
        {
            self.tls.leaving.add(key, socket, self.now_us);
        }
    }

    /// Sends the peer a close_notify, if the socket takes it.
    fn close_session(&mut self, key: Key) {
        if let Some(secure) = self.sockets.get_mut(key).and_then(Socket::secure_mut) {
            secure.session.close_notify();
            self.observe_session(key);
            self.send_secure(key);
        }
    }

    /// Begins the trace of a session with the backend in a slot.
    pub(super) fn begin_trace(&self, key: Key, slot: usize) -> Trace {
        let mut trace = Trace::new(&format!("backend {} #{}.{key}", self.proxy.label(slot), self.index));
        trace.connect_begun(clock::monotonic_us());
        trace
    }

    /// Begins the trace of a session with a client.
    fn begin_client_trace(&self, key: Key) -> Trace {
        Trace::new(&format!("client {} #{}.{key}", self.proxy.client_text(key), self.index))
    }

    /// Lets the trace of a connection look at its session, if there are both.
    fn observe_session(&mut self, key: Key) {
        self.trace_session(key, |trace, session, now_us| {
            session.into_iter().for_each(|session| trace.observe(session, now_us));
        });
    }

    /// Calls `tell` with the trace of a connection, its session if it has begun, and the time. Does nothing
    /// without a trace.
    pub(super) fn trace_session(&mut self, key: Key, tell: impl FnOnce(&mut Trace, Option<&mut Session>, u64)) {
        if !self.tls.trace {
            return;
        }
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(encryption) = &mut socket.encryption else { return };
        let Some(trace) = &mut encryption.trace else { return };
        let session = encryption.secure.as_mut().map(|secure| &mut secure.session);
        tell(trace, session, clock::monotonic_us());
        self.write_trace(key);
    }

    /// Logs the new lines of a trace.
    pub(super) fn write_trace(&mut self, key: Key) {
        let encryption = self.sockets.get_mut(key).and_then(|socket| socket.encryption.as_mut());
        let trace = encryption.and_then(|encryption| encryption.trace.as_mut());
        for line in trace.map(|trace| trace.take_lines()).unwrap_or_default() {
            self.proxy.log().trace("tls", format_args!("{line}"));
        }
    }
}

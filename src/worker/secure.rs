//! Sockets whose bytes are encrypted: what the session has to say goes out, what comes is decrypted,
//! and the proxy sees the bytes in between. What is left over waits in bounded buffers: ciphertext
//! is read only when all plaintext has been taken.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::Worker;
use crate::collections::slab::Key;
use crate::config::Config;
use crate::limits::{SEND_SLICES, TLS_READ_BYTES};
use crate::log::Level;
use crate::proxy::{Failure, Words};
use crate::sys::{self, clock};
use crate::tls;
use crate::tls::certificate::Certificate;
use crate::tls::session::Session;
use crate::tls::trace::Trace;

/// A session, and what it could not take yet of what came.
#[derive(Debug)]
pub(super) struct Secure {
    session: Session,
    rest: Vec<u8>,
    /// The proxy has been told that the connection stands.
    told: bool,
    /// It has been told that the peer has said all.
    ended: bool,
}

/// What a worker has for all of its sessions.
pub(super) struct Tls {
    /// What sessions with backends share, where some speak TLS.
    shared: Option<tls::config::Config>,
    /// The same for sessions that are to be HTTP/1.1.
    http1: Option<tls::config::Config>,
    ca_file: Option<PathBuf>,
    insecure: bool,
    /// Sessions are told of.
    pub(super) trace: bool,
    /// What has just come of a connection.
    ciphertext: Vec<u8>,
}

impl Tls {
    pub(super) fn new(shared: Option<tls::config::Config>, config: &Config) -> Tls {
        let (insecure, trace) = (config.insecure, config.tls_trace);
        Tls { shared, http1: None, ca_file: config.ca_file.clone(), insecure, trace, ciphertext: Vec::new() }
    }
}

/// What became of reading from the socket.
enum Arrival {
    Bytes(usize),
    Nothing,
    End,
    Broken(i32),
}

impl Worker<'_> {
    /// A connection has been made to a backend that speaks TLS: the handshake begins.
    pub(super) fn begin_session(&mut self, key: Key, name: &str) {
        let http2 = self.proxy.offers_http2(key);
        if !http2 && self.tls.http1.is_none() {
            self.tls.http1 = self.tls.shared.as_ref().map(|tls| tls.with_alpn(&[tls::HTTP_1]));
        }
        let begun = match if http2 { &self.tls.shared } else { &self.tls.http1 } {
            Some(config) => Session::new(config, name).map_err(|failure| Words::new(&failure)),
            None => Err(Words::new(&"there are no certificate authorities to verify it with")),
        };
        match begun {
            Ok(session) => {
                if let Some(socket) = self.sockets.get_mut(key) {
                    socket.secure = Some(Box::new(Secure { session, rest: Vec::new(), told: false, ended: false }));
                }
                self.trace_session(key, |trace, session, now_us| {
                    session.into_iter().for_each(|session| trace.connected(session, now_us));
                });
                self.send_secure(key);
            }
            Err(words) => self.proxy.failed(key, Failure::Tls(words)),
        }
    }

    /// Makes what sessions share, where there is a backend that speaks TLS and it is not made yet.
    pub(super) fn prepare_tls(&mut self) {
        if self.tls.shared.is_some() || !self.proxy.speaks_tls() {
            return;
        }
        match tls::client(self.tls.ca_file.as_deref(), self.tls.insecure, self.tls.trace) {
            Ok(config) => self.tls.shared = Some(config),
            Err(error) => self.proxy.log().line(Level::Err, "tls", format_args!("{error}")),
        }
    }

    /// Reads and decrypts, where there may be something and the proxy has room.
    pub(super) fn read_secure(&mut self, key: Key) {
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure.as_mut()) else { return };
        let mut arrival = Arrival::Nothing;
        if secure.session.readable() == 0 {
            arrival = if secure.rest.is_empty() { self.arrive(key) } else { Arrival::Bytes(0) };
            if let Arrival::Bytes(n) = arrival
                && !self.decrypt(key, n)
            {
                return;
            }
        }
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(secure) = socket.secure.as_mut() else { return };
        if secure.session.readable() > 0 {
            let Some(room) = self.proxy.room(key) else { return };
            let n = secure.session.read(room);
            // The end that was said behind it is told next, whether or not the socket's comes.
            let closed = secure.session.received_close_notify();
            if secure.session.readable() > 0 || !secure.rest.is_empty() || socket.readable || closed {
                self.ready.push_back(key);
            }
            return if n > 0 { self.proxy.received(key, n) } else { self.proxy.nothing(key) };
        }
        let closed = secure.session.received_close_notify();
        if matches!(arrival, Arrival::Bytes(_)) && !closed && (socket.readable || !secure.rest.is_empty()) {
            self.ready.push_back(key);
        }
        match arrival {
            Arrival::Bytes(_) | Arrival::Nothing if closed => {
                if !std::mem::replace(&mut secure.ended, true) {
                    self.proxy.ended(key);
                }
            }
            Arrival::Bytes(_) | Arrival::Nothing => {}
            Arrival::Broken(code) => self.proxy.failed(key, Failure::Broken(code)),
            Arrival::End => match secure.session.ended() {
                Ok(()) => self.proxy.ended(key),
                Err(failure) if !secure.told => self.proxy.failed(key, Failure::Tls(Words::new(&failure))),
                // What came may be cut short, and nothing in it could tell.
                Err(_) => self.proxy.failed(key, Failure::Closed),
            },
        }
    }

    /// Reads what has come into the worker's own buffer.
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

    /// Gives what was kept back, or else the first `n` bytes of the worker's buffer, to the session;
    /// whether that goes on.
    fn decrypt(&mut self, key: Key, n: usize) -> bool {
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure.as_mut()) else { return false };
        let taken = if n > 0 {
            let bytes = &self.tls.ciphertext[..n];
            secure.session.received(bytes).inspect(|&taken| secure.rest.extend_from_slice(&bytes[taken..]))
        } else {
            secure.session.received(&secure.rest).inspect(|&taken| drop(secure.rest.drain(..taken)))
        };
        let stands = taken.is_ok() && !secure.session.is_handshaking() && !std::mem::replace(&mut secure.told, true);
        let (told, http2) = (secure.told, secure.session.alpn() == Some(tls::HTTP_2));
        self.observe_session(key);
        if let Err(failure) = taken {
            // An alert may tell the peer why.
            self.send_secure(key);
            if failure.is_of_protocol() && !told && !self.proxy.offers_http2(key) {
                self.proxy.refuses_http1(key);
            } else {
                let failure = if told { Failure::Broken(0) } else { Failure::Tls(Words::new(&failure)) };
                self.proxy.failed(key, failure);
            }
            return false;
        }
        if stands {
            self.tell_secured(key);
            self.proxy.connected(key, http2);
        } else if !told {
            self.send_secure(key);
        }
        if stands {
            self.send_secure(key);
        }
        true
    }

    /// Tells the proxy of a session that was just agreed on.
    fn tell_secured(&mut self, key: Key) {
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure.as_ref()) else { return };
        let resumed = secure.session.is_resumed() == Some(true);
        // One that is resumed shows none.
        let leaf = secure.session.certificates().first().filter(|_| !resumed);
        let expiry_s = leaf.and_then(|leaf| Certificate::read(leaf).ok()).map(|leaf| leaf.not_after_s());
        self.proxy.secured(key, resumed, expiry_s.and_then(|seconds| u64::try_from(seconds).ok()));
    }

    /// Encrypts what is queued, and sends what the session has to say, until the socket takes no more.
    pub(super) fn send_secure(&mut self, key: Key) {
        loop {
            let Some(socket) = self.sockets.get_mut(key) else { return };
            let Some(secure) = socket.secure.as_mut() else { return };
            while secure.session.wants_send() {
                if !socket.writable {
                    return;
                }
                let fd = socket.fd.as_fd();
                let sent = secure
                    .session
                    .send(|slices| sys::socket::send(fd, slices.iter().take(SEND_SLICES).map(|slice| &**slice), false));
                match sent {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable = false,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        socket.writable = false;
                        socket.readable = true;
                        self.ready.push_back(key);
                        return self.proxy.unsendable(key);
                    }
                }
            }
            let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) else { return };
            let slices: Vec<io::IoSlice<'_>> = queue.slices().take(SEND_SLICES).map(io::IoSlice::new).collect();
            let n = secure.session.write(&slices);
            if n == 0 {
                return;
            }
            self.proxy.sent(key, n);
        }
    }

    /// Says to the peer that nothing more comes, as far as the socket takes it.
    pub(super) fn close_session(&mut self, key: Key) {
        if let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure.as_mut()) {
            secure.session.close_notify();
            self.observe_session(key);
            self.send_secure(key);
        }
    }

    /// Begins to tell of a session with the backend in a slot.
    pub(super) fn begin_trace(&self, key: Key, slot: usize) -> Box<Trace> {
        let mut trace = Trace::new(&format!("backend {} #{}.{key}", self.proxy.label(slot), self.index));
        trace.connect_begun(clock::monotonic_us());
        Box::new(trace)
    }

    /// Has the trace of a connection look at its session, where there are both.
    fn observe_session(&mut self, key: Key) {
        self.trace_session(key, |trace, session, now_us| {
            session.into_iter().for_each(|session| trace.observe(session, now_us));
        });
    }

    /// Tells something of a session, where that is wanted: `tell` gets its trace, the session where there
    /// is one yet, and the time.
    pub(super) fn trace_session(&mut self, key: Key, tell: impl FnOnce(&mut Trace, Option<&mut Session>, u64)) {
        if !self.tls.trace {
            return;
        }
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(trace) = &mut socket.trace else { return };
        let session = socket.secure.as_mut().map(|secure| &mut secure.session);
        tell(trace, session, clock::monotonic_us());
        self.write_trace(key);
    }

    /// Writes down what a trace has to tell.
    pub(super) fn write_trace(&mut self, key: Key) {
        let trace = self.sockets.get_mut(key).and_then(|socket| socket.trace.as_mut());
        for line in trace.map(|trace| trace.take_lines()).unwrap_or_default() {
            self.proxy.log().trace("tls", format_args!("{line}"));
        }
    }
}

//! Sockets whose bytes are encrypted: what the session has to say goes out, what comes is decrypted,
//! and the proxy sees the bytes in between. What is left over waits in bounded buffers: ciphertext
//! is read only when all plaintext has been taken; and our direction ends once the socket has taken all
//! ciphertext, even where the proxy is done with the connection by then.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use super::Worker;
use super::socket::Socket;
use crate::collections::slab::Key;
use crate::config::Config;
use crate::http::proxy_error::ProxyError;
use crate::limits::{SEND_SLICES, TLS_LEAVING, TLS_LEAVING_US, TLS_READ_BYTES};
use crate::log::Level;
use crate::proxy::{Failure, FailureText};
use crate::sys::{self, clock};
use crate::tls;
use crate::tls::certificate::Certificate;
use crate::tls::session::Session;
use crate::tls::trace::Trace;

/// A session, and what it could not take yet of what came.
#[derive(Debug)]
pub(super) struct Secure {
    session: Session,
    rest: Rest,
    /// The proxy has been told that the connection stands.
    told: bool,
    /// The peer has said something over it.
    heard: bool,
    /// The proxy has been told that the peer has said all.
    ended: bool,
    /// Our direction ends once the socket has taken all that the session has to send.
    finishing: bool,
}

/// Ciphertext that a session has not taken yet. It stays in the buffer that it was read into, which is lent by the worker,
/// so that no byte is copied.
#[derive(Debug, Default)]
struct Rest {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// Keeps a part of the worker's buffer, which is replaced by its spare one. There was no rest before.
    fn keep(&mut self, from: usize, to: usize, buffer: &mut Vec<u8>, spare: &mut Vec<u8>) {
        if from < to {
            *self = Rest { buffer: std::mem::replace(buffer, std::mem::take(spare)), from, to };
        }
    }

    /// The session has taken so many bytes. A session without a rest holds no memory for it.
    fn pass(&mut self, taken: usize, spare: &mut Vec<u8>) {
        self.from += taken;
        if self.is_empty() {
            *spare = std::mem::take(self).buffer;
        }
    }
}

/// A socket whose connection is gone, and that still has the last of our direction to send.
struct Leaving {
    key: Key,
    socket: Socket,
    until_us: u64,
}

/// What a worker has for all of its sessions.
pub(super) struct Tls {
    /// What sessions with backends share, where some speak TLS.
    shared: Option<tls::client::Config>,
    /// The same for sessions that are to be HTTP/1.1.
    http1: Option<tls::client::Config>,
    /// Which reading of the authorities' certificates is in it, as the plan counts them.
    authorities: u64,
    ca_file: Option<PathBuf>,
    insecure: bool,
    /// Sessions are told of.
    pub(super) trace: bool,
    /// What has just come of a connection.
    ciphertext: Vec<u8>,
    /// The buffer that takes its place when a session keeps it.
    spare: Vec<u8>,
    /// The oldest first.
    leaving: VecDeque<Leaving>,
}

impl Tls {
    pub(super) fn new(shared: Option<tls::client::Config>, config: &Config) -> Tls {
        let (insecure, trace) = (config.insecure, config.tls_trace);
        let (ca_file, leaving) = (config.ca_file.clone(), VecDeque::new());
        let (ciphertext, spare) = (Vec::new(), Vec::new());
        // It was made before the process had read them again.
        Tls { shared, http1: None, authorities: 0, ca_file, insecure, trace, ciphertext, spare, leaving }
    }

    /// When `expire` is to be called, in microseconds; `u64::MAX` for never.
    pub(super) fn next_us(&self) -> u64 {
        self.leaving.front().map_or(u64::MAX, |leaving| leaving.until_us)
    }

    /// Closes what was left to send the last of it, and took too long.
    pub(super) fn expire(&mut self, now_us: u64) {
        while self.next_us() <= now_us {
            self.leaving.pop_front();
        }
    }

    /// Sockets whose connections are gone, and that still have something to send.
    pub(super) fn leaving(&self) -> impl ExactSizeIterator<Item = (Key, BorrowedFd<'_>)> {
        self.leaving.iter().map(|leaving| (leaving.key, leaving.socket.fd.as_fd()))
    }

    /// Such a socket may take more.
    pub(super) fn flush(&mut self, key: Key) {
        let at = self.leaving.iter().position(|leaving| leaving.key == key);
        if let Some(leaving) = at.and_then(|at| self.leaving.get_mut(at)) {
            leaving.socket.writable = true;
            if leaving.socket.flush() != Flushed::Full {
                self.leaving.retain(|leaving| leaving.key != key);
            }
        }
    }
}

/// What became of sending what a session has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    /// It was all sent.
    All,
    /// The socket takes no more for now.
    Full,
    /// It takes nothing any more.
    Broken,
}

impl Socket {
    /// Sends what its session has to say, and ends our direction behind it where that is to end.
    fn flush(&mut self) -> Flushed {
        let Some(secure) = self.encryption.as_mut().and_then(|own| own.secure.as_mut()) else { return Flushed::All };
        while secure.session.wants_send() {
            if !self.writable {
                return Flushed::Full;
            }
            let fd = self.fd.as_fd();
            let sent = secure
                .session
                .send(|slices| sys::socket::send(fd, slices.iter().take(SEND_SLICES).map(|slice| &**slice), false));
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.writable = false;
                    secure.finishing = false;
                    return Flushed::Broken;
                }
            }
        }
        if std::mem::take(&mut secure.finishing) {
            sys::socket::finish(self.fd.as_fd());
        }
        Flushed::All
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
            Some(config) => {
                Session::connect(config, name).map_err(|failure| (failure.error(), FailureText::new(&failure)))
            }
            None => {
                let words = FailureText::new(&"there are no certificate authorities to verify it with");
                Err((ProxyError::TlsCertificate, words))
            }
        };
        match begun {
            Ok(session) => {
                if let Some(encryption) = self.sockets.get_mut(key).and_then(|socket| socket.encryption.as_mut()) {
                    encryption.secure = Some(Secure {
                        session,
                        rest: Rest::default(),
                        told: false,
                        heard: false,
                        ended: false,
                        finishing: false,
                    });
                }
                self.trace_session(key, |trace, session, now_us| {
                    session.into_iter().for_each(|session| trace.connected(session, now_us));
                });
                self.send_secure(key);
            }
            Err((error, words)) => self.proxy.failed(key, Failure::Tls(error, words)),
        }
    }

    /// Makes what sessions share, where there is a backend that speaks TLS and it is not made yet, or is
    /// not of this reading of the authorities' certificates.
    pub(super) fn prepare_tls(&mut self, authorities: u64) {
        let is_current = self.tls.authorities == authorities && self.tls.shared.is_some();
        if is_current || !self.proxy.speaks_tls() {
            return;
        }
        self.tls.authorities = authorities;
        match tls::client::configure(self.tls.ca_file.as_deref(), self.tls.insecure, self.tls.trace) {
            Ok(config) => (self.tls.shared, self.tls.http1) = (Some(config), None),
            Err(error) => self.proxy.log().line(Level::Err, "tls", format_args!("{error}")),
        }
    }

    /// Reads and decrypts, where there may be something and the proxy has room.
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
            // One part of what the session takes at once: the responses in it each take a block until they are sent,
            // and those of more parts would not fit into the processor's cache.
            let n = secure.session.read(room);
            secure.heard = true;
            // It fails behind what came before.
            let failed = secure.session.readable() == 0 && secure.session.failure().is_some();
            // The end that was said behind it is told next, whether or not the socket's comes.
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
                if !std::mem::replace(&mut secure.ended, true) {
                    self.proxy.ended(key);
                }
            }
            Arrival::Bytes(_) | Arrival::Nothing => {}
            Arrival::Broken(code) => self.proxy.failed(key, Failure::Broken(code)),
            Arrival::End => match secure.session.ended() {
                Ok(()) => self.proxy.ended(key),
                Err(failure) if !secure.told => {
                    self.proxy.failed(key, Failure::Tls(failure.error(), FailureText::new(&failure)))
                }
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
        let Some(secure) = self.sockets.get_mut(key).and_then(Socket::secure_mut) else { return false };
        let (buffer, spare) = (&mut self.tls.ciphertext, &mut self.tls.spare);
        let taken = if n > 0 {
            secure.session.received(&buffer[..n]).inspect(|&taken| secure.rest.keep(taken, n, buffer, spare))
        } else {
            secure.session.received(secure.rest.bytes()).inspect(|&taken| secure.rest.pass(taken, spare))
        };
        let stands = taken.is_ok() && !secure.session.is_handshaking() && !std::mem::replace(&mut secure.told, true);
        let (told, http2) = (secure.told, secure.session.alpn() == Some(tls::HTTP_2));
        let (holds, answers) = (told && secure.session.readable() > 0, secure.session.wants_send());
        self.observe_session(key);
        if taken.is_err() {
            // An alert may tell the peer why.
            self.send_secure(key);
            if !holds {
                self.tell_failure(key);
            }
            return holds;
        }
        if stands {
            self.tell_secured(key);
            self.proxy.connected(key, http2);
        }
        // The peer may wait for what its session has to say to it, whenever that is (RFC 5246, 7.2.2).
        if stands || answers {
            self.send_secure(key);
        }
        true
    }

    /// Tells the proxy that a session has failed, and why.
    fn tell_failure(&mut self, key: Key) {
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure()) else { return };
        let Some(failure) = secure.session.failure() else { return };
        if failure.is_of_protocol() && !secure.told && !self.proxy.offers_http2(key) {
            return self.proxy.refuses_http1(key);
        }
        let refused = failure.as_refused_handshake().filter(|_| !secure.heard);
        self.proxy.failed(
            key,
            match (refused, secure.told) {
                (Some(refused), _) => Failure::Tls(refused.error(), FailureText::new(&refused)),
                (None, true) => Failure::Session(FailureText::new(&failure)),
                (None, false) => Failure::Tls(failure.error(), FailureText::new(&failure)),
            },
        );
    }

    /// Tells the proxy of a session that was just agreed on.
    fn tell_secured(&mut self, key: Key) {
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure()) else { return };
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
            match socket.flush() {
                Flushed::All => {}
                Flushed::Full => return,
                Flushed::Broken => {
                    // What the peer sent before it went can still be read.
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

    /// Ends our direction of a connection, behind all that is still to be sent.
    pub(super) fn finish(&mut self, key: Key) {
        self.close_session(key);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        match socket.secure_mut() {
            Some(secure) if secure.session.wants_send() => secure.finishing = true,
            _ => sys::socket::finish(socket.fd.as_fd()),
        }
    }

    /// Closes a connection. Where our direction was ended properly, what is still to be sent goes first.
    pub(super) fn close(&mut self, key: Key) {
        self.close_session(key);
        self.trace_session(key, |trace, _, now_us| trace.given_up(&"it is closed", now_us));
        let Some(socket) = self.sockets.remove(key) else { return };
        let finishing = socket.secure().is_some_and(|secure| secure.finishing);
        if finishing && self.tls.leaving.len() < TLS_LEAVING {
            let until_us = self.now_us.saturating_add(TLS_LEAVING_US);
            self.tls.leaving.push_back(Leaving { key, socket, until_us });
        }
    }

    /// Says to the peer that nothing more comes, as far as the socket takes it.
    fn close_session(&mut self, key: Key) {
        if let Some(secure) = self.sockets.get_mut(key).and_then(Socket::secure_mut) {
            secure.session.close_notify();
            self.observe_session(key);
            self.send_secure(key);
        }
    }

    /// Begins to tell of a session with the backend in a slot.
    pub(super) fn begin_trace(&self, key: Key, slot: usize) -> Trace {
        let mut trace = Trace::new(&format!("backend {} #{}.{key}", self.proxy.label(slot), self.index));
        trace.connect_begun(clock::monotonic_us());
        trace
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
        let Some(encryption) = &mut socket.encryption else { return };
        let Some(trace) = &mut encryption.trace else { return };
        let session = encryption.secure.as_mut().map(|secure| &mut secure.session);
        tell(trace, session, clock::monotonic_us());
        self.write_trace(key);
    }

    /// Writes down what a trace has to tell.
    pub(super) fn write_trace(&mut self, key: Key) {
        let encryption = self.sockets.get_mut(key).and_then(|socket| socket.encryption.as_mut());
        let trace = encryption.and_then(|encryption| encryption.trace.as_mut());
        for line in trace.map(|trace| trace.take_lines()).unwrap_or_default() {
            self.proxy.log().trace("tls", format_args!("{line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_keeps_the_buffer_that_it_came_in_and_returns_it() {
        let (mut rest, mut spare) = (Rest::default(), Vec::new());
        let mut buffer = vec![1; TLS_READ_BYTES];
        let memory = buffer.as_ptr();
        rest.keep(TLS_READ_BYTES, TLS_READ_BYTES, &mut buffer, &mut spare);
        assert!(rest.is_empty() && buffer.as_ptr() == memory, "there is none");
        buffer[2..5].copy_from_slice(b"abc");
        rest.keep(2, 5, &mut buffer, &mut spare);
        assert_eq!((rest.bytes(), buffer.capacity()), (&b"abc"[..], 0));
        rest.pass(1, &mut spare);
        assert_eq!((rest.bytes(), spare.capacity()), (&b"bc"[..], 0));
        rest.pass(2, &mut spare);
        assert!(rest.is_empty() && rest.buffer.capacity() == 0);
        assert_eq!(spare.as_ptr(), memory);
        // The next session that keeps a rest leaves it to the worker.
        let mut other = Rest::default();
        let mut read = vec![2; TLS_READ_BYTES];
        other.keep(0, 1, &mut read, &mut spare);
        assert_eq!((read.as_ptr(), spare.capacity()), (memory, 0));
    }
}

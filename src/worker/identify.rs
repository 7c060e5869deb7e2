//! Reads the PROXY header of a client, and sends that of a connection to a backend.
//!
//! The worker looks at the bytes without taking them (MSG_PEEK), so they stay in the
//! socket until the header is complete, and no buffer is needed for a part of it. Events are edge-triggered: a look that
//! finds a part is repeated when further bytes arrive, and not before.

use std::io;
use std::os::fd::AsFd;

use super::Worker;
use crate::collections::slab::Key;
use crate::http::proxy_header;
use crate::limits::PROXY_HEADER_BYTES;
use crate::proxy::{Failure, Unidentified};
use crate::sys;

impl Worker<'_> {
    /// Looks for the PROXY header of a client, if it is due, and reads on behind it.
    pub(super) fn identify(&mut self, key: Key) {
        let Some(listen) = self.proxy.awaits_header(key) else { return };
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let mut bytes = [0; PROXY_HEADER_BYTES];
        let n = match sys::socket::peek(socket.fd.as_fd(), &mut bytes) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable = false;
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.ready.push_back(key),
            Err(_) => return self.proxy.unidentified(key, None),
        };
        match proxy_header::read(&bytes[..n]) {
            Ok(Some(header)) => {
                // The bytes are there, so one call takes them all.
                let taken = sys::socket::receive(socket.fd.as_fd(), &mut bytes[..header.length]);
                if !matches!(taken, Ok(n) if n == header.length) {
                    return self.proxy.unidentified(key, Some(Unidentified::Incomplete));
                }
                self.proxy.identified(key, header.addresses);
                if listen.tls && !self.accept_session(key) {
                    // The certificates cannot be used, which was logged.
                    return self.proxy.failed(key, Failure::Closed);
                }
                self.read(key);
            }
            Ok(None) if n == 0 => self.proxy.unidentified(key, None),
            Ok(None) if socket.ended => self.proxy.unidentified(key, Some(Unidentified::Incomplete)),
            Ok(None) => socket.readable = false,
            Err(error) => self.proxy.unidentified(key, Some(Unidentified::Malformed(error))),
        }
    }

    /// Sends the PROXY header of a connection to a backend that is established, if there is to be one. Returns false if
    /// the connection has failed.
    pub(super) fn send_header(&mut self, key: Key) -> bool {
        let mut bytes = Vec::new();
        let sockets = &mut self.sockets;
        let local = |client| sys::socket::local_address(sockets.get_mut(client)?.fd.as_fd());
        self.proxy.write_header(key, local, &mut bytes);
        let Some(socket) = self.sockets.get_mut(key).filter(|_| !bytes.is_empty()) else { return true };
        // The first bytes behind the header share its packet.
        let code = match sys::socket::send(socket.fd.as_fd(), std::iter::once(&bytes[..]), true) {
            Ok(n) if n == bytes.len() => return true,
            // A socket that has sent nothing has room for a header.
            Ok(_) => libc::ENOBUFS,
            Err(error) => error.raw_os_error().unwrap_or(0),
        };
        self.proxy.failed(key, Failure::Connect(code));
        false
    }
}

//! Reads the PROXY header of a client. The worker looks at the bytes without taking them (MSG_PEEK), so they stay in the
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
                self.proxy.identified(key, header.addresses.map(|addresses| addresses.source));
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
}

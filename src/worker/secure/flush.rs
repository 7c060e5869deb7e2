//! Sends the bytes of a session. The proxy may have removed the connection by then.

use std::io;
use std::os::fd::AsFd;

use crate::limits::SEND_SLICES;
use crate::sys;
use crate::worker::socket::{Sending, Socket};

/// The result of sending the bytes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// All bytes were sent.
    All,
    /// The socket takes no more bytes for now.
    Full,
    /// The socket takes no bytes any more.
    Broken,
}

impl Socket {
    /// Sends the bytes of its session. If our direction is finishing, it ends behind the last byte.
    pub(super) fn flush(&mut self) -> Flushed {
        let Some(secure) = self.encryption.as_mut().and_then(|own| own.secure.as_mut()) else { return Flushed::All };
        while secure.session.wants_send() {
            if self.sending != Sending::Writable {
                return Flushed::Full;
            }
            let fd = self.fd.as_fd();
            let sent = secure
                .session
                .send(|slices| sys::socket::send(fd, slices.iter().take(SEND_SLICES).map(|slice| &**slice), false));
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.sending = Sending::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.sending = Sending::Broken;
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

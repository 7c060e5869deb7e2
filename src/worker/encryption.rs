//! The part of a socket that only TLS has: its session, and the ciphertext that the session has not taken.
//!
//! States of a session as the proxy knows it: [`Phase`]. A session that begins is `Handshaking`; it never returns to an
//! earlier state.

use crate::tls::session::Session;
use crate::tls::trace::Trace;

/// The parts of a socket that only TLS has.
#[derive(Debug)]
pub(super) struct Encryption {
    /// The name that the certificate of the peer must have. It is taken when the session begins.
    pub(super) server_name: Option<String>,
    /// The lines for `--tls-trace`, if it is on.
    pub(super) trace: Option<Trace>,
    /// The session, once it has begun.
    pub(super) secure: Option<Secure>,
}

/// The state of a session as the proxy knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake has not ended.
    Handshaking,
    /// The proxy may use the connection. The peer has sent no byte over it.
    Established,
    /// The peer has sent a byte over it.
    Heard,
    /// The proxy knows that the peer has ended its direction.
    Ended,
}

/// A session, and the ciphertext that it has not taken yet.
#[derive(Debug)]
pub(super) struct Secure {
    pub(super) session: Session,
    pub(super) rest: Rest,
    pub(super) phase: Phase,
    /// True if our direction of the socket ends after it has taken all bytes of the session.
    pub(super) finishing: bool,
    /// True if the peer is a client.
    pub(super) is_client: bool,
}

impl Secure {
    pub(super) fn new(session: Session, is_client: bool) -> Secure {
        Secure { session, rest: Rest::default(), phase: Phase::Handshaking, finishing: false, is_client }
    }

    /// True if the handshake is under way.
    pub(super) fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshaking && self.session.failure().is_none()
    }
}

/// Ciphertext that a session has not taken yet. It stays in the worker's buffer into which it was read, so that no byte
/// is copied.
#[derive(Debug, Default)]
pub(super) struct Rest {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Rest {
    pub(super) fn is_empty(&self) -> bool {
        self.from == self.to
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// Keeps a part of the worker's buffer, and replaces the buffer by the spare one. There was no rest before.
    pub(super) fn keep(&mut self, from: usize, to: usize, buffer: &mut Vec<u8>, spare: &mut Vec<u8>) {
        if from < to {
            *self = Rest { buffer: std::mem::replace(buffer, std::mem::take(spare)), from, to };
        }
    }

    /// Removes the bytes that the session has taken. An empty rest returns its buffer.
    pub(super) fn pass(&mut self, taken: usize, spare: &mut Vec<u8>) {
        self.from += taken;
        if self.is_empty() {
            *spare = std::mem::take(self).buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TLS_READ_BYTES;

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
        // The next session that keeps a rest gets this buffer from the worker.
        let mut other = Rest::default();
        let mut read = vec![2; TLS_READ_BYTES];
        other.keep(0, 1, &mut read, &mut spare);
        assert_eq!((read.as_ptr(), spare.capacity()), (memory, 0));
    }
}

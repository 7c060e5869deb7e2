//! One connection to a backend as a machine: bytes in, bytes out.
//!
//! ```text
//! socket → received → (decrypted) → read → proxy
//! proxy  → write  → (encrypted)  → send → socket
//! ```
//!
//! States: handshaking, established, and for each direction closed (`close_notify`); failed from
//! any of them, for good. Invariants:
//!
//! - Before the handshake's end no plaintext is taken, so that a request whose backend cannot be
//!   verified was not given to it and may go elsewhere.
//! - What waits in either direction is bounded ([`TLS_SEND_BYTES`], [`TLS_RECEIVE_BYTES`]); who
//!   does not take what waits finds that no more is accepted. Messages of the handshake are bounded
//!   by the library, at 64 KiB.
//! - After a failure there may be an alert to send, and there may be plaintext to read that came
//!   before; nothing else happens.

use std::io::{self, IoSlice, Read as _, Write};
use std::sync::Arc;

use rustls::client::ClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, Error, HandshakeKind, ProtocolVersion};

use super::config::{self, Config};
use super::failure::{Alert, During, Failure, Plain};
use crate::limits::{TLS_ALERTS, TLS_RECEIVE_BYTES, TLS_SEND_BYTES};

/// Bytes that tell what comes: the header of a TLS record, and of an HTTP/2 frame up to its flags.
const FIRST_BYTES: usize = 5;
/// The record types of TLS, from change_cipher_spec to application_data.
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 20..=23;
/// The record type of alerts.
const ALERT_RECORD: u8 = 21;
/// An alert that is not encrypted: the header of its record, its level and what it says.
const PLAIN_ALERT_BYTES: usize = 7;

/// Which way an alert went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    Received,
    /// To the peer.
    Sent,
}

/// One connection to a backend.
#[derive(Debug)]
pub struct Session {
    connection: ClientConnection,
    config: Config,
    name: ServerName<'static>,
    failed: Option<Failure>,
    /// Decrypted bytes that nobody has taken.
    readable: usize,
    received_close_notify: bool,
    sent_close_notify: bool,
    first: [u8; FIRST_BYTES],
    first_len: u8,
    /// The leaf that was refused.
    refused: Option<CertificateDer<'static>>,
    alerts: Vec<(Direction, Alert)>,
}

impl Session {
    /// Begins a session with the backend of this name: a host's name, which is sent as SNI, or an
    /// address, which is not (RFC 6066, section 3); an IPv6 address may stand in brackets. What
    /// the handshake sends first waits to be sent.
    ///
    /// # Errors
    /// [`Failure::Name`] where no certificate can be for the name, [`Failure::Internal`] where
    /// there are no random numbers.
    pub fn new(config: &Config, name: &str) -> Result<Session, Failure> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(bare.to_string()).map_err(|_| Failure::Name)?;
        let connection = ClientConnection::new(Arc::clone(&config.client), name.clone());
        let mut connection = connection.map_err(|error| match Failure::of(&error, During::Handshake) {
            Failure::Name => Failure::Name,
            _ => Failure::Internal,
        })?;
        connection.set_buffer_limit(Some(TLS_SEND_BYTES));
        Ok(Session {
            connection,
            config: config.clone(),
            name,
            failed: None,
            readable: 0,
            received_close_notify: false,
            sent_close_notify: false,
            first: [0; FIRST_BYTES],
            first_len: 0,
            refused: None,
            alerts: Vec::new(),
        })
    }

    /// Takes what came from the peer: all of it, or less where plaintext has to be read first.
    /// What comes after the peer's `close_notify` is dropped. There may be something to send after.
    ///
    /// # Errors
    /// The session has failed, now or before. There may be an alert to send, and plaintext to read
    /// that came before.
    pub fn received(&mut self, ciphertext: &[u8]) -> Result<usize, Failure> {
        let taken = self.take_first(ciphertext)?;
        if usize::from(self.first_len) < FIRST_BYTES {
            return Ok(taken);
        }
        self.take(&ciphertext[taken..]).map(|more| taken + more)
    }

    /// The socket has ended.
    ///
    /// # Errors
    /// [`Failure::Closed`] within the handshake, [`Failure::Truncated`] where the peer has not said
    /// before that it is done: HTTP that knows its length by itself need not care.
    pub fn ended(&mut self) -> Result<(), Failure> {
        match self.failed {
            Some(failure) => Err(failure),
            None if self.received_close_notify => Ok(()),
            None if self.is_handshaking() => Err(self.fail(Failure::Closed)),
            None => Err(self.fail(Failure::Truncated)),
        }
    }

    /// Moves decrypted bytes into `room`, and says how many: 0 where there are none.
    pub fn read(&mut self, room: &mut [u8]) -> usize {
        let count = self.connection.reader().read(room).unwrap_or(0);
        self.readable = self.readable.saturating_sub(count);
        count
    }

    /// Decrypted bytes that wait to be read.
    pub fn readable(&self) -> usize {
        self.readable
    }

    /// Encrypts as many of these bytes as there is room for, the slices as if they were one, and
    /// says how many: 0 while the handshake goes on, when what waits has to be sent first, and
    /// after a failure or [`Session::close_notify`].
    pub fn write(&mut self, plaintext: &[IoSlice<'_>]) -> usize {
        if self.failed.is_some() || self.sent_close_notify || self.is_handshaking() {
            return 0;
        }
        self.connection.writer().write_vectored(plaintext).unwrap_or(0)
    }

    /// Whether there is something to send.
    pub fn wants_send(&self) -> bool {
        self.connection.wants_write()
    }

    /// Hands what waits to be sent to `send`, once, which says how much of it it took, and gives
    /// that back. Where nothing waits, `send` is not called.
    ///
    /// # Errors
    /// Those of `send`; nothing counts as sent then.
    pub fn send(&mut self, send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        self.connection.write_tls(&mut Sink(send))
    }

    /// Says that nothing more will be written; that has to be sent. What was written before goes
    /// first, and the peer may still send.
    pub fn close_notify(&mut self) {
        if !self.sent_close_notify && self.failed.is_none() {
            self.sent_close_notify = true;
            self.connection.send_close_notify();
            self.note_alert(Direction::Sent, AlertDescription::CloseNotify);
        }
    }

    /// Whether the peer has said that it will send nothing more.
    pub fn received_close_notify(&self) -> bool {
        self.received_close_notify
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<Failure> {
        self.failed
    }

    /// The application protocol that the peer chose, once it has; none where it speaks no ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The version that was agreed on, by its usual short name; none before the peer's choice.
    pub fn version(&self) -> Option<&'static str> {
        match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            // No other is offered.
            _ => None,
        }
    }

    /// Whether the handshake took up an earlier session; none before its end.
    pub fn is_resumed(&self) -> Option<bool> {
        if self.is_handshaking() {
            return None;
        }
        self.connection.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    /// The certificates that the peer sent, its own first, or of a refused chain its own alone;
    /// nothing before they came.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        match &self.refused {
            Some(leaf) => std::slice::from_ref(leaf),
            None => self.connection.peer_certificates().unwrap_or_default(),
        }
    }

    /// What verification says of the peer's certificates now, whether or not it decided: with
    /// `--insecure` it does not.
    pub fn verification(&self) -> Result<(), Failure> {
        match self.failed {
            Some(failure @ Failure::Certificate(_)) => Err(failure),
            _ => self.config.judge(self.certificates(), &self.name),
        }
    }

    /// Whether any certificate is accepted.
    pub fn is_insecure(&self) -> bool {
        self.config.is_insecure()
    }

    /// The library's connection, for what only the trace tells.
    pub(super) fn connection(&self) -> &ClientConnection {
        &self.connection
    }

    /// The protocols offered.
    pub(super) fn offered(&self) -> &[Vec<u8>] {
        &self.config.client.alpn_protocols
    }

    /// Whom the certificate has to be for.
    pub(super) fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// The alerts since this was last asked. Of those received, the ones that only warn are not
    /// seen, save `close_notify`.
    pub fn take_alerts(&mut self) -> Vec<(Direction, Alert)> {
        std::mem::take(&mut self.alerts)
    }

    /// Keeps the first few bytes back until they tell what comes, so that what is not TLS is called
    /// by its name and gets no alert, and hands them on then. How many of these it took.
    fn take_first(&mut self, ciphertext: &[u8]) -> Result<usize, Failure> {
        let at = usize::from(self.first_len);
        let count = ciphertext.len().min(FIRST_BYTES - at);
        if count == 0 || self.failed.is_some() {
            return Ok(0);
        }
        self.first[at..at + count].copy_from_slice(&ciphertext[..count]);
        self.first_len += count as u8;
        if at + count == FIRST_BYTES {
            if let Some(plain) = not_tls(self.first) {
                return Err(self.fail(Failure::NotTls(plain)));
            }
            let first = self.first;
            self.take(&first)?;
        }
        Ok(count)
    }

    fn take(&mut self, ciphertext: &[u8]) -> Result<usize, Failure> {
        let mut taken = 0;
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        while taken < ciphertext.len() {
            if self.received_close_notify {
                return Ok(ciphertext.len());
            }
            if self.readable > TLS_RECEIVE_BYTES {
                break;
            }
            match self.connection.read_tls(&mut &ciphertext[taken..]) {
                // None taken, and none to be read before: that would go on for ever.
                Ok(0) | Err(_) if self.readable == 0 => return Err(self.fail(Failure::BadRecord(self.during()))),
                Ok(0) | Err(_) => break,
                Ok(count) => taken += count,
            }
            self.process()?;
        }
        Ok(taken)
    }

    fn process(&mut self) -> Result<(), Failure> {
        // Whatever another session left.
        drop(config::take_refused());
        let during = self.during();
        match self.connection.process_new_packets() {
            Ok(state) => {
                self.readable = state.plaintext_bytes_to_read();
                if state.peer_has_closed() && !self.received_close_notify {
                    self.received_close_notify = true;
                    self.note_alert(Direction::Received, AlertDescription::CloseNotify);
                    if during == During::Handshake && self.is_handshaking() {
                        return Err(self.fail(Failure::Closed));
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.refused = config::take_refused();
                self.note_alert_of(&error);
                let failure = match &error {
                    Error::InvalidCertificate(error) => config::refusal(error, self.refused.as_ref()),
                    error => Failure::of(error, during),
                };
                Err(self.fail(failure))
            }
        }
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        *self.failed.get_or_insert(failure)
    }

    fn during(&self) -> During {
        if self.is_handshaking() { During::Handshake } else { During::Data }
    }

    fn note_alert(&mut self, direction: Direction, alert: AlertDescription) {
        if self.alerts.len() < TLS_ALERTS {
            self.alerts.push((direction, Alert(alert)));
        }
    }

    /// Notes the alert that an error was or has caused.
    fn note_alert_of(&mut self, error: &Error) {
        if let Error::AlertReceived(alert) = error {
            return self.note_alert(Direction::Received, *alert);
        }
        let mut plain = None;
        let look = |slices: &[IoSlice<'_>]| {
            plain = slices.last().and_then(|record| plain_alert(record));
            Err(io::ErrorKind::WouldBlock.into())
        };
        // It only looks: what waits is still to be sent after.
        let waits = self.wants_send();
        let _ = self.send(look);
        if let Some(alert) = plain.or_else(|| encrypted_alert(error)).filter(|_| waits) {
            self.note_alert(Direction::Sent, alert);
        }
    }
}

/// What came instead of TLS, if it was not TLS. All its versions have a 3 in front.
fn not_tls(first: [u8; FIRST_BYTES]) -> Option<Plain> {
    match first {
        [kind, 3, ..] if RECORD_TYPES.contains(&kind) => None,
        [b'H', b'T', b'T', b'P', b'/'] => Some(Plain::Http),
        // A short frame of the type SETTINGS without flags (RFC 9113, section 4.1).
        [0, 0, _, 4, 0] => Some(Plain::Http2),
        _ => Some(Plain::Unknown),
    }
}

fn plain_alert(record: &[u8]) -> Option<AlertDescription> {
    let is_alert = record.len() == PLAIN_ALERT_BYTES && record[0] == ALERT_RECORD;
    is_alert.then(|| AlertDescription::from(record[PLAIN_ALERT_BYTES - 1]))
}

/// What the library says by an alert that is encrypted, where that follows from the error.
fn encrypted_alert(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::InvalidCertificate(error) => Some(error.clone().into()),
        Error::InvalidMessage(message) => Some((*message).into()),
        Error::DecryptError => Some(AlertDescription::BadRecordMac),
        Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            Some(AlertDescription::UnexpectedMessage)
        }
        _ => None,
    }
}

/// Gives the library's slices to a closure.
struct Sink<F>(F);

impl<F: FnMut(&[IoSlice<'_>]) -> io::Result<usize>> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // The library counts on no more than all of it being taken.
        let all = slices.iter().map(|slice| slice.len()).sum();
        (self.0)(slices).map(|count| count.min(all))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

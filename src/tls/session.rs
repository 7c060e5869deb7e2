//! One TLS connection as a machine, for either role: bytes go in, bytes come out.
//!
//! ```text
//! socket → received → (decrypted) → read → proxy
//! proxy  → write  → (encrypted)  → send → socket
//! ```
//!
//! States: handshaking, then established. Each direction closes by its `close_notify`. Any state can become failed, and
//! a failed session stays so. Invariants:
//!
//! - Before the end of the handshake no plaintext is accepted. So no request was given to a backend that could not be
//!   verified, and the request may go to another backend.
//! - The bytes that wait in either direction are bounded ([`TLS_SEND_BYTES`], [`TLS_RECEIVE_BYTES`]): no more are
//!   accepted until some were taken. The library bounds messages of the handshake at 64 KiB.
//! - Records without content are bounded: those of one kind by the library, and any mix of them here (`records`).
//! - A failed session may have an alert to send, and plaintext to read that came before the failure. It accepts and
//!   makes nothing else.

mod first;
mod records;

use std::io::{self, IoSlice, Read as _, Write};
use std::sync::Arc;

use rustls::client::ClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{AcceptedAlert, Acceptor};
use rustls::{AlertDescription, CommonState, Connection, Error, HandshakeKind, ProtocolVersion};

use self::first::{FIRST_BYTES, not_tls, request, response};
use self::records::Records;
use super::client::{self, Config};
use super::failure::{Alert, During, Failure, Flood};
use super::pair::Pair;
use super::server;
use crate::limits::{TLS_ALERTS, TLS_RECEIVE_BYTES, TLS_SEND_BYTES};

/// The record type of alerts.
const ALERT_RECORD: u8 = 21;
/// The size of an alert that is not encrypted: the header of its record, its level and its description.
const PLAIN_ALERT_BYTES: usize = 7;

/// The alert unrecognized_name, which is fatal and not encrypted (RFC 6066, section 3).
const UNRECOGNIZED_NAME: [u8; PLAIN_ALERT_BYTES] = [ALERT_RECORD, 3, 3, 0, 2, 2, 112];

/// The alert decode_error, which is fatal and not encrypted.
const DECODE_ERROR: [u8; PLAIN_ALERT_BYTES] = [ALERT_RECORD, 3, 3, 0, 2, 2, 50];

/// The direction of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    Received,
    /// To the peer.
    Sent,
}

/// The peer.
#[derive(Debug)]
enum Side {
    /// A backend: it has to prove its name.
    Backend {
        config: Config,
        name: ServerName<'static>,
        /// The leaf of the chain that was refused.
        refused: Option<CertificateDer<'static>>,
    },
    /// A client.
    Client {
        /// The pair that was chosen for it.
        pair: Option<Arc<Pair>>,
        /// The name that it asked for, if it was refused before its session began.
        refused: Option<Box<str>>,
    },
}

/// The library's part of a session.
enum Machine {
    /// The ClientHello of a client is not complete.
    Accepting { acceptor: Acceptor, config: server::Config },
    /// The pair was chosen, or the peer is a backend.
    Connected(Connection),
    /// The ClientHello was refused. The alert waits to be sent.
    Refused { alert: Vec<u8> },
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Machine::Accepting { .. } => "Accepting",
            Machine::Connected(_) => "Connected",
            Machine::Refused { .. } => "Refused",
        })
    }
}

/// One TLS connection.
#[derive(Debug)]
pub struct Session {
    machine: Machine,
    side: Side,
    failed: Option<Failure>,
    /// The count of decrypted bytes that wait to be read.
    readable: usize,
    records: Records,
    received_close_notify: bool,
    sent_close_notify: bool,
    first: [u8; FIRST_BYTES],
    first_len: u8,
    alerts: Vec<(Direction, Alert)>,
}

impl Session {
    /// Begins a session with the backend of this name. A host name is sent as SNI, an address is not (RFC 6066,
    /// section 3). An IPv6 address may have brackets. The first message of the handshake waits to be sent.
    ///
    /// # Errors
    /// [`Failure::Name`]: no certificate can be for the name. [`Failure::Internal`]: there are no random numbers.
    pub fn connect(config: &Config, name: &str) -> Result<Session, Failure> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(bare.to_string()).map_err(|_| Failure::Name)?;
        let connection = ClientConnection::new(Arc::clone(&config.client), name.clone());
        let connection = connection.map_err(|error| match Failure::of(&error, During::Handshake) {
            Failure::Name => Failure::Name,
            _ => Failure::Internal,
        })?;
        Ok(Session::new(connected(connection.into()), Side::Backend { config: config.clone(), name, refused: None }))
    }

    /// Begins a session with a client, which sends the first message of the handshake.
    pub fn accept(config: &server::Config) -> Session {
        let machine = Machine::Accepting { acceptor: Acceptor::default(), config: config.clone() };
        Session::new(machine, Side::Client { pair: None, refused: None })
    }

    /// Begins a session with a client, with a configuration of the library.
    #[cfg(test)]
    fn accept_with(config: &Arc<rustls::ServerConfig>) -> Session {
        let connection =
            rustls::ServerConnection::new(Arc::clone(config)).expect("tests pass a configuration with a certificate");
        Session::new(connected(connection.into()), Side::Client { pair: None, refused: None })
    }

    fn new(machine: Machine, side: Side) -> Session {
        Session {
            machine,
            side,
            failed: None,
            readable: 0,
            records: Records::default(),
            received_close_notify: false,
            sent_close_notify: false,
            first: [0; FIRST_BYTES],
            first_len: 0,
            alerts: Vec::new(),
        }
    }

    /// Takes bytes from the peer, and returns their count. It takes fewer if plaintext has to be read first. Bytes after
    /// the peer's `close_notify` are dropped. There may be bytes to send afterwards.
    ///
    /// # Errors
    /// The session has failed, now or before. There may be an alert to send, and plaintext to read that came before.
    pub fn received(&mut self, ciphertext: &[u8]) -> Result<usize, Failure> {
        let taken = self.take_first(ciphertext)?;
        if usize::from(self.first_len) < FIRST_BYTES {
            return Ok(taken);
        }
        let first = self.first;
        let held = if taken > 0 { &first[..] } else { &[] };
        self.take(held, &ciphertext[taken..]).map(|more| taken + more)
    }

    /// Notes the end of the socket.
    ///
    /// # Errors
    /// [`Failure::Closed`] during the handshake. [`Failure::Truncated`] if a backend sent no `close_notify`: an HTTP
    /// message that states its own length is not affected.
    pub fn ended(&mut self) -> Result<(), Failure> {
        match self.failed {
            Some(failure) => Err(failure),
            None if self.received_close_notify => Ok(()),
            None if self.is_handshaking() => Err(self.fail(Failure::Closed)),
            // Each request of a client states its own length, so none can be truncated unnoticed. The client may still
            // take its response, so the session goes on.
            None if matches!(self.side, Side::Client { .. }) => Ok(()),
            None => Err(self.fail(Failure::Truncated)),
        }
    }

    /// Moves decrypted bytes into `room`, and returns their count.
    pub fn read(&mut self, room: &mut [u8]) -> usize {
        let Machine::Connected(connection) = &mut self.machine else { return 0 };
        let count = connection.reader().read(room).unwrap_or(0);
        self.readable = self.readable.saturating_sub(count);
        count
    }

    /// Returns the count of decrypted bytes that wait to be read.
    pub fn readable(&self) -> usize {
        self.readable
    }

    /// Encrypts as many bytes of these slices as there is room for, and returns their count. It is 0 during the
    /// handshake, after a failure, after [`Session::close_notify`], and if bytes have to be sent first.
    pub fn write(&mut self, plaintext: &[IoSlice<'_>]) -> usize {
        if self.failed.is_some() || self.sent_close_notify || self.is_handshaking() {
            return 0;
        }
        let Machine::Connected(connection) = &mut self.machine else { return 0 };
        connection.writer().write_vectored(plaintext).unwrap_or(0)
    }

    /// True if there are bytes to send.
    pub fn wants_send(&self) -> bool {
        match &self.machine {
            Machine::Accepting { .. } => false,
            Machine::Connected(connection) => connection.wants_write(),
            Machine::Refused { alert } => !alert.is_empty(),
        }
    }

    /// Calls `send` once with the bytes to send, and returns the count of those that `send` took. Without bytes to send
    /// it does not call `send`.
    ///
    /// # Errors
    /// The errors of `send`. Then no byte counts as sent.
    pub fn send(&mut self, send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        match &mut self.machine {
            Machine::Connected(connection) => connection.write_tls(&mut Sink(send)),
            Machine::Refused { alert } if !alert.is_empty() => {
                let count = Sink(send).write(alert)?;
                alert.drain(..count);
                Ok(count)
            }
            _ => Ok(0),
        }
    }

    /// Ends our direction by a `close_notify`, which waits to be sent behind the bytes that were written before. The
    /// peer may still send.
    pub fn close_notify(&mut self) {
        if self.sent_close_notify || self.failed.is_some() {
            return;
        }
        self.sent_close_notify = true;
        // A client whose ClientHello is not complete has begun no session.
        if let Machine::Connected(connection) = &mut self.machine {
            connection.send_close_notify();
            self.note_alert(Direction::Sent, AlertDescription::CloseNotify);
        }
    }

    /// True if the peer has ended its direction.
    pub fn received_close_notify(&self) -> bool {
        self.received_close_notify
    }

    /// True until the end of the handshake.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_none_or(CommonState::is_handshaking)
    }

    /// Returns the reason of the failure of a failed session.
    pub fn failure(&self) -> Option<Failure> {
        self.failed
    }

    /// Returns the application protocol that was agreed on. `None`: it is not agreed on yet, or the peer has no ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.common()?.alpn_protocol()
    }

    /// Returns the usual short name of the version that was agreed on. `None`: it is not agreed on yet.
    pub fn version(&self) -> Option<&'static str> {
        match self.common()?.protocol_version()? {
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            // There are no other versions in the configuration.
            _ => None,
        }
    }

    /// True if the handshake resumed an earlier session. `None`: the handshake has not ended.
    pub fn is_resumed(&self) -> Option<bool> {
        if self.is_handshaking() {
            return None;
        }
        self.common()?.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    /// Returns the certificates of the peer, the leaf first. Of a refused chain it has the leaf only.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        match &self.side {
            Side::Backend { refused: Some(leaf), .. } => std::slice::from_ref(leaf),
            _ => self.common().and_then(CommonState::peer_certificates).unwrap_or_default(),
        }
    }

    /// Verifies the certificates of a backend now. With `--insecure` this result had no effect. A client's
    /// certificates were verified during the handshake.
    ///
    /// # Errors
    /// [`Failure::Certificate`]: they are not valid for the backend.
    pub fn verification(&self) -> Result<(), Failure> {
        match (self.failed, &self.side) {
            (Some(failure @ Failure::Certificate(_)), _) => Err(failure),
            (_, Side::Backend { config, name, .. }) => config.judge(self.certificates(), name),
            (_, Side::Client { .. }) => Ok(()),
        }
    }

    /// True if every certificate of the backend is accepted.
    pub fn is_insecure(&self) -> bool {
        matches!(&self.side, Side::Backend { config, .. } if config.is_insecure())
    }

    /// Returns the pair that was chosen for a client. `None`: its ClientHello is not complete, or was refused.
    pub fn pair(&self) -> Option<&Arc<Pair>> {
        match &self.side {
            Side::Client { pair, .. } => pair.as_ref(),
            Side::Backend { .. } => None,
        }
    }

    /// Returns the name that a client asked for (SNI), in lower case. `None`: it asked for none, or its ClientHello is
    /// not complete.
    pub fn server_name(&self) -> Option<&str> {
        match (&self.machine, &self.side) {
            (Machine::Connected(Connection::Server(connection)), _) => connection.server_name(),
            (_, Side::Client { refused, .. }) => refused.as_deref(),
            _ => None,
        }
    }

    /// Returns the state of the library. `None`: the ClientHello is not complete, or was refused.
    pub(super) fn common(&self) -> Option<&CommonState> {
        match &self.machine {
            Machine::Connected(connection) => Some(connection),
            _ => None,
        }
    }

    /// Returns the name that a backend has to prove, and the protocols that were offered to it.
    pub(super) fn offer(&self) -> Option<(&ServerName<'static>, &[Vec<u8>])> {
        match &self.side {
            Side::Backend { config, name, .. } => Some((name, &config.client.alpn_protocols)),
            Side::Client { .. } => None,
        }
    }

    /// Returns the count of records that the peer has sent.
    pub fn records(&self) -> u32 {
        self.records.count()
    }

    /// Takes the alerts since the last call. A received warning is not among them, except `close_notify`.
    pub fn take_alerts(&mut self) -> Vec<(Direction, Alert)> {
        std::mem::take(&mut self.alerts)
    }

    /// Holds the first bytes until they tell TLS from other protocols. So the failure names the other protocol, and its
    /// peer gets no alert. Returns the count of the bytes that were taken.
    fn take_first(&mut self, ciphertext: &[u8]) -> Result<usize, Failure> {
        let at = usize::from(self.first_len);
        let count = ciphertext.len().min(FIRST_BYTES - at);
        if count == 0 || self.failed.is_some() {
            return Ok(0);
        }
        self.first[at..at + count].copy_from_slice(&ciphertext[..count]);
        self.first_len += count as u8;
        if at + count == FIRST_BYTES {
            let plain = match self.side {
                Side::Backend { .. } => not_tls(self.first, response),
                Side::Client { .. } => not_tls(self.first, request),
            };
            if let Some(plain) = plain {
                return Err(self.fail(Failure::NotTls(plain)));
            }
        }
        Ok(count)
    }

    /// Passes bytes to the library: those that were held, and those behind them. Returns the count of the latter that
    /// were taken.
    fn take(&mut self, mut held: &[u8], ciphertext: &[u8]) -> Result<usize, Failure> {
        let mut taken = 0;
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        while !held.is_empty() || taken < ciphertext.len() {
            if self.received_close_notify {
                return Ok(ciphertext.len());
            }
            if self.readable > TLS_RECEIVE_BYTES {
                break;
            }
            // One read gets both, so that the library's buffer does not grow for the few bytes that were held.
            let mut both = Both(held, &ciphertext[taken..]);
            let read = match &mut self.machine {
                Machine::Accepting { acceptor, .. } => acceptor.read_tls(&mut both),
                Machine::Connected(connection) => connection.read_tls(&mut both),
                Machine::Refused { .. } => Ok(0),
            };
            match read {
                // The library takes no byte, and no read could change that: the record is too long.
                Ok(0) | Err(_) if self.readable == 0 => return Err(self.refuse_length()),
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let more = count - held.len();
                    self.records.pass(held);
                    self.records.pass(&ciphertext[taken..taken + more]);
                    taken += more;
                }
            }
            held = &[];
            let (before, during) = (self.readable, self.during());
            self.process()?;
            let content = self.readable.saturating_sub(before);
            if !self.records.settle(during, content) {
                return Err(self.fail(Failure::Flood(Flood::Records)));
            }
        }
        Ok(taken)
    }

    /// Chooses the pair for a client, once its ClientHello is complete.
    fn choose(&mut self) -> Result<(), Failure> {
        let Machine::Accepting { acceptor, config } = &mut self.machine else { return Ok(()) };
        let accepted = match acceptor.accept() {
            Ok(None) => return Ok(()),
            Ok(Some(accepted)) => accepted,
            Err((error, alert)) => return Err(self.refuse(&error, alert)),
        };
        let hello = accepted.client_hello();
        self.side = Side::Client { pair: None, refused: hello.server_name().map(Box::from) };
        let Some((chosen, config)) = config.choose(&hello) else {
            self.machine = Machine::Refused { alert: UNRECOGNIZED_NAME.to_vec() };
            self.note_alert(Direction::Sent, AlertDescription::UnrecognisedName);
            return Err(self.fail(Failure::UnknownName));
        };
        let (chosen, config) = (Arc::clone(chosen), Arc::clone(config));
        match accepted.into_connection(config) {
            Ok(connection) => {
                self.side = Side::Client { pair: Some(chosen), refused: None };
                self.machine = connected(connection.into());
                Ok(())
            }
            Err((error, alert)) => Err(self.refuse(&error, alert)),
        }
    }

    /// Ends a session whose peer has sent a message that is longer than the library accepts. The library has no alert for
    /// the first message of a client.
    fn refuse_length(&mut self) -> Failure {
        let during = self.during();
        if matches!(self.machine, Machine::Accepting { .. }) {
            self.machine = Machine::Refused { alert: DECODE_ERROR.to_vec() };
            self.note_alert(Direction::Sent, AlertDescription::DecodeError);
        }
        self.fail(Failure::BadRecord(during))
    }

    /// Ends a session whose ClientHello the library refuses.
    fn refuse(&mut self, error: &Error, mut alert: AcceptedAlert) -> Failure {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail.
        let _ = alert.write_all(&mut bytes);
        // The library has none for a message that is too long.
        if bytes.is_empty() && matches!(error, Error::InvalidMessage(_)) {
            bytes.extend_from_slice(&DECODE_ERROR);
        }
        self.machine = Machine::Refused { alert: bytes };
        self.note_alert_of(error);
        self.fail(Failure::of(error, During::Handshake))
    }

    fn process(&mut self) -> Result<(), Failure> {
        self.choose()?;
        let during = self.during();
        let Machine::Connected(connection) = &mut self.machine else { return Ok(()) };
        // An earlier session on this thread may have left a certificate.
        drop(client::take_refused());
        match connection.process_new_packets() {
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
                let leaf = client::take_refused();
                self.note_alert_of(&error);
                let failure = match &error {
                    Error::InvalidCertificate(error) => client::refusal(error, leaf.as_ref()),
                    error => Failure::of(error, during),
                };
                if let Side::Backend { refused, .. } = &mut self.side {
                    *refused = leaf;
                }
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
            self.alerts.push((direction, Alert(alert.into())));
        }
    }

    /// Notes the alert that was received as this error, or is sent because of it.
    fn note_alert_of(&mut self, error: &Error) {
        if let Error::AlertReceived(alert) = error {
            return self.note_alert(Direction::Received, *alert);
        }
        let mut plain = None;
        let look = |slices: &[IoSlice<'_>]| {
            plain = slices.last().and_then(|record| plain_alert(record));
            Err(io::ErrorKind::WouldBlock.into())
        };
        // The closure only looks at the bytes: they still wait to be sent afterwards.
        let waits = self.wants_send();
        let _ = self.send(look);
        if let Some(alert) = plain.or_else(|| encrypted_alert(error)).filter(|_| waits) {
            self.note_alert(Direction::Sent, alert);
        }
    }
}

fn plain_alert(record: &[u8]) -> Option<AlertDescription> {
    let is_alert = record.len() == PLAIN_ALERT_BYTES && record[0] == ALERT_RECORD;
    is_alert.then(|| AlertDescription::from(record[PLAIN_ALERT_BYTES - 1]))
}

/// Returns the description of an encrypted alert, if it follows from the error.
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

/// Bounds the bytes that wait in a connection.
fn connected(mut connection: Connection) -> Machine {
    connection.set_buffer_limit(Some(TLS_SEND_BYTES));
    Machine::Connected(connection)
}

/// Two slices of bytes, which one read gets.
struct Both<'a>(&'a [u8], &'a [u8]);

impl io::Read for Both<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(room)?;
        Ok(count + self.1.read(&mut room[count..])?)
    }
}

/// Passes the slices of the library to a closure.
struct Sink<F>(F);

impl<F: FnMut(&[IoSlice<'_>]) -> io::Result<usize>> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // The library relies on a count that is no greater than the sum.
        let all = slices.iter().map(|slice| slice.len()).sum();
        (self.0)(slices).map(|count| count.min(all))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The record of each request, and the log line of a request that failed:
//!
//! ```text
//! request: CLIENT METHOD PATH -> OUTCOME id=ID backend=NAME address=ADDRESS tries=N cause="CAUSE" after N ms
//! ```
//!
//! OUTCOME is a status; `200 cut` if a response with that status was cut after its head; or `retried` if only one try
//! failed. An unknown part is `-`. `address` and `tries` are left out if they add nothing. A gRPC call has
//! `grpc-status=N` behind the id if the proxy has made its status. PATH has no query. The
//! number of lines is limited for each backend and cause (`log::repeats`). Suppressed lines are reported as `request:
//! ... and N more in 1 s backend=NAME cause="CAUSE"`, and those about connections of clients as `client: ... and N more
//! in 1 s cause="CAUSE"`.
//!
//! The head stays in the memory of the exchange until the exchange is removed, so the line costs a successful request
//! nothing.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use super::Proxy;
use super::abort::{Abort, CLIENT_CLOSED_REQUEST};
use super::connection::{ClientEnd, Peer};
use super::failure::Failure;
use super::identity::Unidentified;
use super::progress::Progress;
use super::reply::LocalReply;
use crate::collections::slab::Key;
use crate::http::framing::Kind as RequestKind;
use crate::http::grpc::Status;
use crate::http::head::Start;
use crate::http::message_error::MessageError;
use crate::http::proxy_header;
use crate::http::session_error::{FailedHandshake, Flood, PROXY_HEADER_HINT, Plain, SessionError};
use crate::limits::{LOG_PATH_BYTES, METHOD_BYTES, SECOND_US};
use crate::log::Level;
use crate::log::repeats::Suppressed;
use crate::metrics::OwnTime;

/// The cause of a request that was cut by the end of the program.
pub(super) const STOPPED: &str = "the program stopped";

/// The data recorded about one request until its exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the request's head arrived, in microseconds.
    pub began_us: u64,
    /// When the request was last written to a backend, in microseconds; 0 if it was not.
    pub sent_us: u64,
    /// When the exchange ended, in microseconds; 0 before that.
    pub ended_us: u64,
    /// The status of the response; 499 if the client left before it. 0 until it is known.
    pub status: u16,
    /// The status of a gRPC call, if it is known.
    pub grpc_status: Option<Status>,
    /// The slot of the last try.
    pub slot: Option<u16>,
    /// Content bytes that arrived from the client.
    pub received: u64,
    /// Content bytes that arrived from the backend or were generated as a page. A local reply has none.
    pub sent: u64,
    /// The reason for the end of the exchange.
    pub reason: Option<Reason>,
}

/// The reason for which an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The backend's response was complete.
    Complete,
    /// The proxy generated the response as a page.
    Page,
    /// A tunnel ended.
    Tunnel,
    /// The proxy replied itself, or cut the response for the reason that this reply has.
    Replied(LocalReply),
    /// The client left.
    ClientLeft(Abort),
    /// The program stopped.
    Stopped,
}

impl Record {
    pub(super) fn new(began_us: u64) -> Record {
        let (sent_us, ended_us, status, grpc_status, slot) = (0, 0, 0, None, None);
        Record { began_us, sent_us, ended_us, status, grpc_status, slot, received: 0, sent: 0, reason: None }
    }
}

impl Reason {
    /// Returns the local reply for a client whose response has not begun.
    pub(super) fn reply(self) -> Option<LocalReply> {
        match self {
            Reason::Replied(reply) => Some(reply),
            Reason::ClientLeft(Abort::Incomplete) => Some(LocalReply::Refused(MessageError::BodyCutShort)),
            _ => None,
        }
    }

    /// Returns the status and the message at the end of a gRPC call whose response is incomplete.
    pub(super) fn call_end(self) -> Option<(Status, String)> {
        match self {
            Reason::Stopped => Some((Status::UNAVAILABLE, STOPPED.into())),
            reason => reason.reply().map(|reply| (reply.grpc_status(), reply.words())),
        }
    }

    /// Returns the status that stands for the response if it has not begun.
    fn status(self) -> Option<u16> {
        match (self.reply(), self) {
            (Some(reply), _) => Some(reply.status()),
            (None, Reason::ClientLeft(_) | Reason::Stopped) => Some(CLIENT_CLOSED_REQUEST),
            (None, _) => None,
        }
    }

    /// Returns the cause that is logged. A reply that is a page has none.
    fn cause(self) -> Option<Cause> {
        match (self.reply(), self) {
            (Some(reply), _) => Some(Cause::of(reply)).filter(|_| !reply.is_page()),
            (None, Reason::ClientLeft(Abort::Stalled)) => Some(Cause::ClientStalled),
            (None, Reason::ClientLeft(_)) => Some(Cause::ClientGone),
            (None, Reason::Stopped) => Some(Cause::Stopped),
            (None, _) => None,
        }
    }

    /// True if the client's connection is reset at once, even if bytes are queued.
    pub(super) fn cuts_at_once(self) -> bool {
        matches!(self, Reason::ClientLeft(Abort::Stalled) | Reason::Stopped | Reason::Tunnel)
    }
}

/// The cause of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The proxy replied itself.
    Answered(LocalReply),
    /// The backend failed.
    Failed(Failure),
    /// The backend responded with this status.
    Responded(u16),
    /// The client has left.
    ClientGone,
    /// The client took nothing of its response for too long.
    ClientStalled,
    /// The program stopped.
    Stopped,
    /// A client over HTTP/2 has broken the protocol, or exceeds a limit.
    Http2(&'static str),
    /// A client has sent too many TLS records without content.
    TlsFlood(Flood),
    /// The client was not identified.
    Unidentified(Unidentified),
    /// A TLS handshake with a client has failed.
    Handshake(FailedHandshake),
}

/// The outcome of a request for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A response with this status; 499 if there is none because the client has left.
    Status(u16),
    /// A response with this status was cut after its head.
    Cut(u16),
    /// None yet: the request was tried again.
    Retried,
}

/// The kind of a log line: the backend's slot, the cause, and whether the request was tried again. Lines about
/// retries are a kind of their own, so they hide no failed request.
pub(super) type Kind = (Option<u16>, Cause, bool);

impl Cause {
    /// Returns the cause of a local reply.
    pub(super) fn of(answer: LocalReply) -> Cause {
        match answer {
            LocalReply::Failed(failure) => Cause::Failed(failure),
            answer => Cause::Answered(answer),
        }
    }

    /// The module of a line about a client's connection; `None` for a request.
    fn module(self) -> Option<&'static str> {
        match self {
            Cause::Http2(_) | Cause::TlsFlood(_) | Cause::Unidentified(_) => Some("client"),
            Cause::Handshake(_) => Some("tls"),
            _ => None,
        }
    }

    /// A fault of a client is no fault of the service.
    pub(super) fn level(self) -> Level {
        match self {
            Cause::Answered(LocalReply::Redirect) => Level::Debug,
            Cause::Answered(answer) if answer.status() < 500 => Level::Info,
            Cause::Answered(LocalReply::Refused(_) | LocalReply::DeadlinePassed) => Level::Info,
            Cause::Responded(_) | Cause::ClientStalled | Cause::Http2(_) | Cause::TlsFlood(_) => Level::Info,
            // These have a line of their own, or are nobody's fault: checkers only connect.
            Cause::Handshake(FailedHandshake(Some(
                SessionError::Closed | SessionError::NotTls(Plain::Request | Plain::Http2) | SessionError::Flood(_),
            ))) => Level::Debug,
            Cause::Handshake(_) => Level::Info,
            Cause::ClientGone => Level::Debug,
            Cause::Answered(_) | Cause::Failed(_) | Cause::Stopped | Cause::Unidentified(_) => Level::Warn,
        }
    }
}

impl Proxy {
    /// True if a line about a cause is to be written: its level is logged, and lately there were few of its kind.
    pub(super) fn admits_line(&mut self, kind: Kind) -> bool {
        let (_, cause, _) = kind;
        self.log.enabled(cause.level()) && self.ledger.repeats.admits(kind, self.now_us)
    }

    /// Logs that the request of an exchange has failed, or one try of it.
    pub(super) fn log_exchange(&mut self, id: Key, outcome: Outcome, cause: Cause) {
        let Some(slot) = self.exchanges.living(id).map(|exchange| exchange.record.slot) else { return };
        if !self.admits_line((slot, cause, outcome == Outcome::Retried)) {
            return;
        }
        let Some(exchange) = self.exchanges.living(id) else { return };
        let head = exchange.saved.view();
        let path = if let Start::Request { path, .. } = head.head.start { head.get(path) } else { &[] };
        let mut text = self.cause_text(cause);
        if cause == Cause::Answered(LocalReply::Misdirected) {
            text.push_str(&self.hosts_text(exchange.client, head));
        }
        let line = Line {
            client: self.client_address(exchange.client),
            method: head.method(),
            path,
            outcome,
            id: exchange.id().unwrap_or_default(),
            grpc_status: exchange.record.grpc_status,
            cause: Text(&text).to_string(),
            tries: exchange.tries.count(),
            took_us: Some(self.now_us.saturating_sub(exchange.record.began_us)),
        };
        let backend = slot.map_or_else(|| " backend=-".into(), |slot| self.backend_text(slot));
        self.log.line(cause.level(), "request", format_args!("{}", line.with(&backend)));
    }

    /// Logs an error reply to a client without an exchange. `bytes`: the beginning of its request.
    pub(super) fn log_refused(&mut self, key: Key, bytes: &[u8], id: Option<&[u8]>, answer: LocalReply) {
        let cause = Cause::of(answer);
        if !self.admits_line((None, cause, false)) {
            return;
        }
        let mut words = first_line(bytes).split(|byte| *byte == b' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut text = self.cause_text(cause);
        if matches!(answer, LocalReply::Refused(_)) && proxy_header::may_begin(bytes) {
            text = format!("{text}: {PROXY_HEADER_HINT}");
        }
        let line = Line {
            client: self.client_address(key),
            method,
            path,
            outcome: Outcome::Status(answer.status()),
            id: id.unwrap_or_default(),
            grpc_status: self.is_call(key).then(|| answer.grpc_status()),
            cause: Text(&text).to_string(),
            tries: 0,
            took_us: None,
        };
        self.log.line(cause.level(), "request", format_args!("{}", line.with(" backend=-")));
    }

    /// Completes the record of an exchange that is about to be removed: counts it, logs a failure, and keeps the record
    /// if records are kept. The end of a tunnel or a page, and the rest of an upload after the response, are no failures.
    pub(super) fn complete_record(&mut self, id: Key, reason: Reason) {
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        let waiting = exchange.response == Progress::Waiting;
        let failed = !exchange.is_tunnel() && !exchange.is_page() && exchange.response != Progress::Ended;
        let cause = reason.cause().filter(|_| failed);
        let (slot, status) = (exchange.upstream.slot(), exchange.record.status);
        let outcome = match reason.status() {
            Some(status) if waiting => Outcome::Status(status),
            _ => Outcome::Cut(status),
        };
        if let Outcome::Status(status) = outcome {
            exchange.record.status = status;
        }
        if exchange.facts.kind == RequestKind::Grpc && failed {
            exchange.record.grpc_status = reason.call_end().map(|(status, _)| status);
        }
        exchange.record.ended_us = self.now_us;
        exchange.record.reason = Some(reason);
        if reason == Reason::Complete {
            self.shared.block.observe(OwnTime::Request, self.now_us.saturating_sub(exchange.record.began_us));
        }
        if let Some(records) = &mut self.ledger.records {
            records.push(exchange.record);
        }
        if let (Reason::ClientLeft(abort), true) = (reason, failed) {
            self.shared.block.add(abort.count(), 1);
            if let Some(slot) = slot.filter(|_| waiting) {
                self.shared.block.add_response(slot.into(), CLIENT_CLOSED_REQUEST);
            }
        }
        if let Some(cause) = cause {
            self.log_exchange(id, outcome, cause);
        }
    }

    /// Keeps the record of each exchange that ends from now on, until `take_records` takes it.
    pub fn keep_records(&mut self) {
        self.ledger.records.get_or_insert_default();
    }

    /// Takes the records of the exchanges that have ended since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.ledger.records.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Logs a failure of a backend that no line about a request reports.
    pub(super) fn log_backend(&mut self, slot: u16, failure: Failure) {
        if self.admits_line((Some(slot), Cause::Failed(failure), true)) {
            let text = format!("{}: {failure}", self.upstreams.label(slot.into()));
            self.log.line(Level::Warn, "backend", format_args!("{text}"));
        }
    }

    /// Logs that a client was closed because it was not identified.
    pub(super) fn log_unidentified(&mut self, key: Key, reason: Unidentified) {
        let cause = Cause::Unidentified(reason);
        if self.admits_line((None, cause, false)) {
            let peer = self.client_address(key).map_or_else(String::new, |peer| peer.to_string());
            self.log.line(cause.level(), "client", format_args!("{peer}: closed: {reason}"));
        }
    }

    /// Returns when `report_repeats` has something to log, in microseconds; `u64::MAX` for never.
    pub(super) fn next_report_us(&self) -> u64 {
        self.ledger.repeats.report_us()
    }

    /// Logs the numbers of suppressed lines of all windows that have ended.
    pub(super) fn report_repeats(&mut self) {
        while let Some(suppressed) = self.ledger.repeats.take_due(self.now_us) {
            self.log_suppressed(suppressed);
        }
    }

    /// Logs all numbers of suppressed lines that were not reported yet, because nothing more will be logged.
    pub fn finish_log(&mut self) {
        while let Some(suppressed) = self.ledger.repeats.take_any(self.now_us) {
            self.log_suppressed(suppressed);
        }
    }

    fn log_suppressed(&mut self, suppressed: Suppressed<Kind>) {
        let (count, span) = (suppressed.count, Span(suppressed.window_us));
        let Some((slot, cause, retried)) = suppressed.key else {
            let text = format_args!("... and {count} more in {span} of other kinds");
            return self.log.line(Level::Warn, "request", text);
        };
        let module = cause.module();
        let backend = match (slot, module) {
            (Some(slot), _) => self.backend_text(slot),
            (None, None) => " backend=-".into(),
            (None, Some(_)) => String::new(),
        };
        let cause_text = Text(&self.cause_text(cause)).to_string();
        let retried = if retried { " retried" } else { "" };
        let text = format_args!("... and {count} more{retried} in {span}{backend} cause=\"{cause_text}\"");
        self.log.line(cause.level(), module.unwrap_or("request"), text);
    }

    fn cause_text(&self, cause: Cause) -> String {
        match cause {
            Cause::Answered(LocalReply::NoBackend) => {
                format!("{}{}", LocalReply::NoBackend.words(), self.settings.unresolved)
            }
            Cause::Answered(answer) => answer.words(),
            Cause::Failed(failure) => failure.to_string(),
            Cause::Responded(status) => format!("the backend answered {status}"),
            Cause::TlsFlood(flood) => flood.to_string(),
            Cause::ClientGone => "the client has gone".into(),
            Cause::ClientStalled => "the client takes nothing of the response".into(),
            Cause::Stopped => STOPPED.into(),
            Cause::Http2(reason) => reason.into(),
            Cause::Unidentified(reason) => reason.to_string(),
            Cause::Handshake(failed) => failed.to_string(),
        }
    }

    pub(super) fn client_address(&self, key: Key) -> Option<SocketAddr> {
        match self.connections.get(key)?.peer {
            Peer::Client(ClientEnd { address, port, .. }) => Some(SocketAddr::new(address.to_canonical(), port)),
            Peer::Backend(_) => None,
        }
    }

    /// True if the request on a client's stream is a gRPC call.
    fn is_call(&self, key: Key) -> bool {
        self.connections.get(key).is_some_and(|client| client.codec.asks_grpc())
    }

    /// Returns a backend's name, and its address if the two differ.
    fn backend_text(&self, slot: u16) -> String {
        let label = self.upstreams.label(slot.into());
        match label.strip_suffix(')').and_then(|label| label.rsplit_once(" (")) {
            Some((name, address)) => format!(" backend={} address={address}", Word(name.as_bytes(), usize::MAX)),
            None => format!(" backend={}", Word(label.as_bytes(), usize::MAX)),
        }
    }
}

/// Returns the part of a request's first line that is logged.
pub(super) fn first_line(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = bytes[begin..].split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    // This leaves room for a truncated method, a truncated path and their marks.
    &line[..line.len().min(METHOD_BYTES + LOG_PATH_BYTES + 3)]
}

/// The parts of a line that do not concern the backend.
struct Line<'a> {
    client: Option<SocketAddr>,
    method: &'a [u8],
    path: &'a [u8],
    outcome: Outcome,
    id: &'a [u8],
    grpc_status: Option<Status>,
    cause: String,
    tries: usize,
    took_us: Option<u64>,
}

impl Line<'_> {
    /// Returns the line with the text about the backend.
    fn with(&self, backend: &str) -> String {
        let path = self.path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = match self.client {
            Some(client) => write!(text, "{client}"),
            None => write!(text, "-"),
        };
        let (method, path) = (Word(self.method, METHOD_BYTES), Word(path, LOG_PATH_BYTES));
        let _ = write!(text, " {method} {path} -> {} id={}", self.outcome, Word(self.id, usize::MAX));
        if let Some(status) = self.grpc_status {
            let _ = write!(text, " grpc-status={}", status.0);
        }
        text.push_str(backend);
        if self.tries > 1 {
            let _ = write!(text, " tries={}", self.tries);
        }
        let _ = write!(text, " cause=\"{}\"", self.cause);
        if let Some(took_us) = self.took_us {
            let _ = write!(text, " after {}", Milliseconds(took_us));
        }
        text
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Status(status) => write!(f, "{status}"),
            Outcome::Cut(status) => write!(f, "{status} cut"),
            Outcome::Retried => write!(f, "retried"),
        }
    }
}

/// Bytes as one word of ASCII with a maximal length. Other bytes are escaped.
pub(super) struct Word<'a>(pub(super) &'a [u8], pub(super) usize);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(self.1)];
        if shown.is_empty() {
            return f.write_char('-');
        }
        for &byte in shown {
            match byte {
                b'"' | b'\\' => write!(f, "\\x{byte:02x}")?,
                byte if byte.is_ascii_graphic() => f.write_char(char::from(byte))?,
                byte => write!(f, "\\x{byte:02x}")?,
            }
        }
        if shown.len() < self.0.len() { f.write_str("...") } else { Ok(()) }
    }
}

/// Text within quotation marks, in ASCII.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'"' => f.write_char('\'')?,
                b' '..=b'~' => f.write_char(char::from(byte))?,
                byte => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

/// Microseconds as milliseconds, with tenths if there are few.
struct Milliseconds(u64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            few if few < 10_000 => write!(f, "{}.{} ms", few / 1000, few / 100 % 10),
            many => write!(f, "{} ms", many / 1000),
        }
    }
}

/// The length of a window: in seconds, or in milliseconds if it is shorter than a second.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            short if short < SECOND_US => write!(f, "{} ms", short / 1000),
            long => write!(f, "{} s", (long + SECOND_US / 2) / SECOND_US),
        }
    }
}

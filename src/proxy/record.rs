//! A request that failed, as a line of the log:
//!
//! ```text
//! request: CLIENT METHOD PATH -> OUTCOME id=ID backend=NAME address=ADDRESS tries=N cause="CAUSE" after N ms
//! ```
//!
//! OUTCOME is a status; `200 cut` if a response with that status was cut after its head; or `retried` if only
//! one try failed. A part that is not known is `-`, `address` and `tries` are left out if they say nothing
//! more, and PATH has no query. Lines are limited by backend and cause (`log::repeats`); the lines that were
//! suppressed are reported as `request: ... and N more in 1 s backend=NAME cause="CAUSE"`.
//!
//! The head is in the memory of the exchange until that is removed, so a request that does not fail costs
//! nothing here.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use super::connection::{ClientEnd, Peer};
use super::exchange::{Exchange, Progress};
use super::reply::LocalReply;
use super::{Failure, Proxy};
use crate::collections::slab::Key;
use crate::http::head::Start;
use crate::limits::{LOG_PATH_BYTES, METHOD_BYTES, SECOND_US};
use crate::log::Level;
use crate::log::repeats::Suppressed;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The balancer answered it.
    Answered(LocalReply),
    /// The backend failed it.
    Failed(Failure),
    /// The backend answered with this status.
    Responded(u16),
    /// The client has gone.
    ClientGone,
    /// The client took nothing of its response for too long.
    ClientStalled,
    /// The program stopped.
    Stopped,
}

/// How a request ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered with this status; 499 if it was not answered, as nobody waits for that.
    Status(u16),
    /// A response with this status was cut after its head.
    Cut(u16),
    /// Not at all: it was tried again.
    Retried,
}

/// What tells lines of one kind from others: the slot of the backend, if there is one, and the cause. That
/// a request was tried again is another kind, so that it hides no failed request.
pub(super) type Kind = (Option<u16>, Cause, bool);

impl Cause {
    /// The cause that an answer of our own has.
    pub(super) fn of(answer: LocalReply) -> Cause {
        match answer {
            LocalReply::Failed(failure) => Cause::Failed(failure),
            answer => Cause::Answered(answer),
        }
    }

    /// What a client does is no fault of the service.
    fn level(self) -> Level {
        match self {
            Cause::Answered(answer) if answer.status() < 500 => Level::Info,
            Cause::Answered(LocalReply::Refused(_)) => Level::Info,
            Cause::Responded(_) | Cause::ClientStalled => Level::Info,
            Cause::ClientGone => Level::Debug,
            Cause::Answered(_) | Cause::Failed(_) | Cause::Stopped => Level::Warn,
        }
    }
}

impl Proxy {
    /// Logs that the request of an exchange has failed, or a try of it.
    pub(super) fn log_exchange(&mut self, id: Key, outcome: Outcome, cause: Cause) {
        let Some(exchange) = self.exchanges.get(id) else { return };
        let (slot, level) = (exchange.assigned, cause.level());
        if !self.log.enabled(level) || !self.repeats.admits((slot, cause, outcome == Outcome::Retried), self.now_us) {
            return;
        }
        let head = exchange.saved.view();
        let path = if let Start::Request { path, .. } = head.head.start { head.get(path) } else { &[] };
        let line = Line {
            client: self.client_address(exchange.client),
            method: head.method(),
            path,
            outcome,
            id: exchange.id().unwrap_or_default(),
            cause: Text(&self.cause_text(cause)).to_string(),
            tries: exchange.tries,
            took_us: Some(self.now_us.saturating_sub(exchange.began_us)),
        };
        let backend = slot.map_or_else(|| " backend=-".into(), |slot| self.backend_text(slot));
        self.log.line(level, "request", format_args!("{}", line.with(&backend)));
    }

    /// Logs that a client was answered with an error though it has no exchange. `bytes`: the beginning of its
    /// request.
    pub(super) fn log_refused(&mut self, key: Key, bytes: &[u8], id: Option<&[u8]>, answer: LocalReply) {
        let cause = Cause::of(answer);
        if !self.log.enabled(cause.level()) || !self.repeats.admits((None, cause, false), self.now_us) {
            return;
        }
        let mut words = first_line(bytes).split(|byte| *byte == b' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let line = Line {
            client: self.client_address(key),
            method,
            path,
            outcome: Outcome::Status(answer.status()),
            id: id.unwrap_or_default(),
            cause: Text(&self.cause_text(cause)).to_string(),
            tries: 0,
            took_us: None,
        };
        self.log.line(cause.level(), "request", format_args!("{}", line.with(" backend=-")));
    }

    /// Logs that the client of an exchange is not waited for any more.
    pub(super) fn log_abandoned(&mut self, id: Key, cause: Cause) {
        let Some(exchange) =
            self.exchanges.get(id).filter(|one| !one.tunnel && one.local.is_none() && one.response != Progress::Ended)
        else {
            return;
        };
        let outcome = exchange.cut_or(499);
        self.log_exchange(id, outcome, cause);
    }

    /// Logs that a backend has failed, without a request that failed with it.
    pub(super) fn log_backend(&mut self, slot: u16, failure: Failure) {
        if self.log.enabled(Level::Warn) && self.repeats.admits((Some(slot), Cause::Failed(failure), true), self.now_us)
        {
            let text = format!("{}: {failure}", self.label(slot.into()));
            self.log.line(Level::Warn, "backend", format_args!("{text}"));
        }
    }

    /// When `report_repeats` has something to log, in microseconds; `u64::MAX` for never.
    pub(super) fn next_report_us(&self) -> u64 {
        self.repeats.report_us()
    }

    /// Logs how many lines were suppressed in the windows that have ended.
    pub(super) fn report_repeats(&mut self) {
        while let Some(suppressed) = self.repeats.take_due(self.now_us) {
            self.log_suppressed(suppressed);
        }
    }

    /// Logs how many lines were suppressed and not reported yet, because nothing more will be logged.
    pub fn finish_log(&mut self) {
        while let Some(suppressed) = self.repeats.take_any(self.now_us) {
            self.log_suppressed(suppressed);
        }
    }

    fn log_suppressed(&mut self, suppressed: Suppressed<Kind>) {
        let (count, span) = (suppressed.count, Span(suppressed.window_us));
        let Some((slot, cause, retried)) = suppressed.key else {
            let text = format_args!("... and {count} more in {span} of other kinds");
            return self.log.line(Level::Warn, "request", text);
        };
        let backend = slot.map_or_else(|| " backend=-".into(), |slot| self.backend_text(slot));
        let cause_text = Text(&self.cause_text(cause)).to_string();
        let retried = if retried { " retried" } else { "" };
        let text = format_args!("... and {count} more{retried} in {span}{backend} cause=\"{cause_text}\"");
        self.log.line(cause.level(), "request", text);
    }

    fn cause_text(&self, cause: Cause) -> String {
        match cause {
            Cause::Answered(LocalReply::NoBackend) => format!("{}{}", LocalReply::NoBackend.words(), self.unresolved),
            Cause::Answered(answer) => answer.words(),
            Cause::Failed(failure) => failure.to_string(),
            Cause::Responded(status) => format!("the backend answered {status}"),
            Cause::ClientGone => "the client has gone".into(),
            Cause::ClientStalled => "the client takes nothing of the response".into(),
            Cause::Stopped => "the program stopped".into(),
        }
    }

    fn client_address(&self, key: Key) -> Option<SocketAddr> {
        match self.connections.get(key)?.peer {
            Peer::Client(ClientEnd { address, port, .. }) => Some(SocketAddr::new(address.to_canonical(), port)),
            Peer::Backend(_) => None,
        }
    }

    /// A backend's name, and its address if that says more.
    fn backend_text(&self, slot: u16) -> String {
        let label = self.label(slot.into());
        match label.strip_suffix(')').and_then(|label| label.rsplit_once(" (")) {
            Some((name, address)) => format!(" backend={} address={address}", Word(name.as_bytes(), usize::MAX)),
            None => format!(" backend={}", Word(label.as_bytes(), usize::MAX)),
        }
    }
}

impl Exchange {
    /// How the exchange ends if it ends now: `status` if its response has not begun.
    pub(super) fn cut_or(&self, status: u16) -> Outcome {
        if self.response == Progress::Waiting { Outcome::Status(status) } else { Outcome::Cut(self.status) }
    }
}

/// The part that is logged of the first line of a request.
pub(super) fn first_line(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = bytes[begin..].split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    // Room for a method and a path that are cut, and for what shows that.
    &line[..line.len().min(METHOD_BYTES + LOG_PATH_BYTES + 3)]
}

/// The parts of a line that do not concern the backend.
struct Line<'a> {
    client: Option<SocketAddr>,
    method: &'a [u8],
    path: &'a [u8],
    outcome: Outcome,
    id: &'a [u8],
    cause: String,
    tries: u8,
    took_us: Option<u64>,
}

impl Line<'_> {
    /// The line, with what is said about the backend.
    fn with(&self, backend: &str) -> String {
        let path = self.path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = match self.client {
            Some(client) => write!(text, "{client}"),
            None => write!(text, "-"),
        };
        let (method, path) = (Word(self.method, METHOD_BYTES), Word(path, LOG_PATH_BYTES));
        let _ = write!(text, " {method} {path} -> {} id={}{backend}", self.outcome, Word(self.id, usize::MAX));
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

/// Bytes as one word of ASCII, of so many bytes at most: what is no visible character is escaped.
struct Word<'a>(&'a [u8], usize);

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
struct Text<'a>(&'a str);

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

/// How long a window was: in seconds, unless it was shorter than one.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            short if short < SECOND_US => write!(f, "{} ms", short / 1000),
            long => write!(f, "{} s", (long + SECOND_US / 2) / SECOND_US),
        }
    }
}

//! The `--tls-trace` of one connection to a backend, or of a client.
//!
//! The caller passes times, and lets it inspect the session after each turn. It makes lines, which are queued
//! until they are taken. Times are microseconds of any monotonic clock. It is not part of the session, so that
//! it costs nothing if it is off.
//!
//! States: new, connecting, handshaking, established, done. Only the first line of each kind is made, except
//! for alerts, so there are never more than [`TLS_TRACE_LINES`].

use std::fmt::{self, Write as _};

use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, ProtocolVersion};

use super::certificate::Certificate;
use super::failure::Failure;
use super::session::{Direction, Session};
use crate::limits::TLS_TRACE_LINES;
use crate::log::timestamp;

/// The trace of one connection.
#[derive(Debug, Default)]
pub struct Trace {
    /// The prefix of each line: the peer.
    label: String,
    state: State,
    lines: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    New,
    Connecting {
        since_us: u64,
    },
    Handshaking {
        since_us: u64,
    },
    Established,
    Done,
}

impl Trace {
    /// A trace whose lines begin with `label`, which should name the peer and its address.
    pub fn new(label: &str) -> Trace {
        Trace { label: label.to_string(), ..Trace::default() }
    }

    /// A connection is being made.
    pub fn connect_begun(&mut self, now_us: u64) {
        self.state = State::Connecting { since_us: now_us };
        self.line(format_args!("TCP connect begins"));
    }

    /// It could not be made.
    pub fn connect_failed(&mut self, why: &dyn fmt::Display, now_us: u64) {
        if let State::Connecting { since_us } = self.state {
            self.state = State::Done;
            self.line(format_args!(
                "TCP connect failed after {}: {why}",
                Milliseconds(now_us.saturating_sub(since_us))
            ));
        }
    }

    /// It was made, and the handshake begins.
    pub fn connected(&mut self, session: &Session, now_us: u64) {
        if let State::Connecting { since_us } = self.state {
            self.line(format_args!("TCP connected in {}", Milliseconds(now_us.saturating_sub(since_us))));
        }
        self.state = State::Handshaking { since_us: now_us };
        let Some((name, protocols)) = session.offer() else {
            return self.line(format_args!("handshake begins"));
        };
        let sni = match name {
            ServerName::DnsName(name) => name.as_ref(),
            _ => "none (an address)",
        };
        let mut offered = String::new();
        for protocol in protocols {
            let comma = if offered.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(offered, "{comma}{}", protocol.escape_ascii());
        }
        let offered = if offered.is_empty() { "none" } else { &offered };
        self.line(format_args!("handshake begins: SNI {sni}, ALPN offered {offered}"));
    }

    /// Must be called after the session received bytes, and when it is closed. Adds lines for the end of the
    /// handshake, a failure, and alerts.
    pub fn observe(&mut self, session: &mut Session, now_us: u64) {
        if let State::Handshaking { since_us } = self.state
            && !session.is_handshaking()
        {
            self.state = State::Established;
            self.established(session, now_us.saturating_sub(since_us));
        }
        for (direction, alert) in session.take_alerts() {
            let way = if direction == Direction::Sent { "sent" } else { "received" };
            self.line(format_args!("alert {way}: {alert}"));
        }
        match (self.state, session.failure()) {
            (State::Handshaking { since_us }, Some(failure)) => {
                self.failed(session, failure, now_us.saturating_sub(since_us));
            }
            (State::Established, Some(failure)) => self.line(format_args!("session failed: {failure}")),
            _ => return,
        }
        self.state = State::Done;
    }

    /// The handshake was given up for a reason of our own, as a time limit.
    pub fn given_up(&mut self, why: &dyn fmt::Display, now_us: u64) {
        if let State::Handshaking { since_us } = self.state {
            self.state = State::Done;
            self.line(format_args!(
                "handshake given up after {}: {why}",
                Milliseconds(now_us.saturating_sub(since_us))
            ));
        }
    }

    /// The lines since the last call, without line ends. The log must escape the text that the peer chose.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn established(&mut self, session: &Session, took_us: u64) {
        let Some(connection) = session.common() else { return };
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        };
        let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown");
        let group = connection.negotiated_key_exchange_group();
        let group = group.and_then(|group| group.name().as_str()).unwrap_or("none");
        let alpn = session.alpn().map_or("none".to_string(), |protocol| protocol.escape_ascii().to_string());
        let kind = match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => "resumed",
            Some(HandshakeKind::FullWithHelloRetryRequest) => "full with a retry",
            _ => "full",
        };
        let took = Milliseconds(took_us);
        // To a backend, the name was in the line before.
        let is_client = session.pair().is_some();
        let sni = if is_client { format!(", SNI {}", session.server_name().unwrap_or("none")) } else { String::new() };
        self.line(format_args!(
            "handshake done in {took}: {version}, cipher suite {suite}, group {group}{sni}, ALPN {alpn}, {kind}"
        ));
        if is_client && session.certificates().is_empty() {
            return self.line(format_args!("the client has no certificate"));
        }
        self.certificate(session);
        match (session.verification(), session.is_insecure(), session.is_resumed()) {
            (Err(failure), true, _) => self.line(format_args!("not verified (--insecure): {failure}")),
            (Ok(()), true, _) => self.line(format_args!("not verified (--insecure), but would pass")),
            (_, false, Some(true)) => self.line(format_args!("verified when the session began")),
            (_, false, _) => self.line(format_args!("verified")),
        }
    }

    fn failed(&mut self, session: &Session, failure: Failure, took_us: u64) {
        self.certificate(session);
        self.line(format_args!("handshake ended after {}: {failure}", Milliseconds(took_us)));
    }

    fn certificate(&mut self, session: &Session) {
        let Some(der) = session.certificates().first() else { return };
        match Certificate::read(der) {
            Ok(certificate) => {
                let time = |seconds: i64| Time(seconds);
                self.line(format_args!(
                    "certificate: subject {}, issuer {}, names {}, valid {} to {}",
                    certificate.subject(),
                    certificate.issuer(),
                    certificate.shown_names(),
                    time(certificate.not_before_s()),
                    time(certificate.not_after_s())
                ));
            }
            Err(malformed) => self.line(format_args!("certificate: {malformed}")),
        }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        if self.lines.len() < TLS_TRACE_LINES {
            self.lines.push(format!("{}: {text}", self.label));
        }
    }
}

/// A duration given in microseconds.
struct Milliseconds(u64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1000, self.0 % 1000)
    }
}

/// A time given in seconds since 1970, to the second.
struct Time(i64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(us) = u64::try_from(self.0).ok().and_then(|seconds| seconds.checked_mul(1_000_000)) else {
            return f.write_str("before 1970");
        };
        let stamp = timestamp(us);
        // Without the thousandths.
        write!(f, "{}Z", std::str::from_utf8(&stamp[..19]).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_times() {
        assert_eq!(Milliseconds(12_034).to_string(), "12.034 ms");
        assert_eq!(Time(1_583_020_799).to_string(), "2020-02-29T23:59:59Z");
        assert_eq!(Time(253_402_300_799).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Time(-1).to_string(), "before 1970");
    }
}

//! Sessions with clients: their configuration, which follows the table of secrets, their begin and their results.
//!
//! A session begins when a connection is accepted on a listener with TLS. The deadline for the first request covers the
//! handshake. A failed handshake is counted by its reason, and ends nothing but the connection. No backend is blamed.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::Tls;
use crate::base64::{self, Alphabet};
use crate::collections::slab::Key;
use crate::config::{Secrets, TlsRules, TlsVersion};
use crate::http::session_error::{FailedHandshake, Plain, SessionError};
use crate::limits::CLIENT_CERTIFICATE_FIELD_BYTES;
use crate::log::Level;
use crate::metrics::{Certificate, Count};
use crate::proxy::{Failure, Secured};
use crate::shared::Region;
use crate::tls::pair::Pair;
use crate::tls::server::{self, Authorities, Settings};
use crate::tls::session::Session;
use crate::tls::tickets::Keys;
use crate::worker::Worker;
use crate::worker::encryption::{Encryption, Phase, Secure};

/// The part that all sessions with clients share.
#[derive(Default)]
pub(super) struct Downstream {
    /// `None`: there is no certificate.
    config: Option<server::Config>,
    /// The edition of the secrets in this configuration.
    edition: u64,
    /// The rules in this configuration.
    rules: TlsRules,
}

impl Tls {
    /// True if the configuration for clients has the secrets that hold now.
    pub(in crate::worker) fn is_current(&self, region: Region) -> bool {
        self.downstream.edition == region.secrets().edition()
    }
}

impl Worker<'_> {
    /// Makes the configuration of sessions with clients if the secrets or the rules have changed. Sessions that have
    /// begun keep theirs. `rules`: those of the plan, if that has changed.
    pub(in crate::worker) fn follow_secrets(&mut self, rules: Option<TlsRules>) {
        let rules = rules.unwrap_or(self.tls.downstream.rules);
        if self.tls.is_current(self.region) && rules == self.tls.downstream.rules {
            return;
        }
        let (edition, bytes) = self.region.secrets().read();
        let Some(bytes) = bytes else { return };
        (self.tls.downstream.edition, self.tls.downstream.rules) = (edition, rules);
        let secrets = Secrets::decode(&bytes);
        if let Some(secrets) = &secrets {
            self.proxy.set_cookie_key(&secrets.cookie_key.0);
            if secrets.pairs.is_empty() {
                return;
            }
        }
        let made = secrets.and_then(|secrets| configure(&secrets, rules, self.tls.trace));
        let Some((config, shown)) = made else {
            let text = format_args!("secrets {edition} cannot be used: the certificates before stay");
            return self.proxy.log().line(Level::Err, "tls", text);
        };
        self.proxy.set_certificates(config.names(), config.requests_certificates(), shown);
        self.tls.downstream.config = Some(config);
    }

    /// Begins a session with a client that was accepted. Returns false if there is no certificate.
    pub(in crate::worker) fn accept_session(&mut self, key: Key) -> bool {
        let Some(config) = &self.tls.downstream.config else { return false };
        let session = Session::accept(config);
        let trace = self.tls.trace.then(|| self.begin_client_trace(key));
        if let Some(socket) = self.sockets.get_mut(key) {
            let secure = Some(Secure::new(session, true));
            socket.encryption = Some(Box::new(Encryption { server_name: None, trace, secure }));
        }
        self.trace_session(key, |trace, session, now_us| {
            session.into_iter().for_each(|session| trace.connected(session, now_us));
        });
        true
    }

    /// Reports to the proxy that the handshake with a client has ended.
    pub(super) fn tell_client_secured(&mut self, key: Key, http2: bool) {
        let needs_facts = self.proxy.needs_facts();
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure()) else { return };
        let session = &secure.session;
        self.block.add(
            match (session.version(), session.is_resumed() == Some(true)) {
                (Some("TLSv1.3"), false) => Count::Handshakes13Full,
                (Some("TLSv1.3"), true) => Count::Handshakes13Resumed,
                (_, false) => Count::Handshakes12Full,
                (_, true) => Count::Handshakes12Resumed,
            },
            1,
        );
        let facts = needs_facts.then(|| {
            let (leaf, issuers) = session
                .certificates()
                .split_first()
                .map_or((&[][..], &[][..]), |(leaf, issuers)| (std::slice::from_ref(leaf), issuers));
            Box::new(Secured {
                server_name: session.server_name().map(Into::into),
                names: session.pair().map(|pair| Arc::clone(pair.names())).unwrap_or_default(),
                leaf: field(leaf),
                chain: field(issuers),
            })
        });
        self.proxy.client_secured(key, http2, facts);
    }

    /// Reports the failure of a session with a client. A client that does not speak TLS gets a reply that says so.
    pub(super) fn tell_client_failure(&mut self, key: Key, failure: SessionError, phase: Phase) {
        if phase == Phase::Handshaking {
            self.note_failed_handshake(key, Some(failure));
        }
        if let SessionError::Flood(flood) = failure {
            let records = self.sockets.get_mut(key).and_then(|socket| socket.secure().map(|own| own.session.records()));
            self.proxy.note_tls_flood(key, flood, records.unwrap_or_default());
        }
        if matches!(failure, SessionError::NotTls(Plain::Request | Plain::Http2)) {
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.encryption = None;
            }
            return self.proxy.refuse_plain(key);
        }
        self.proxy.failed(key, Failure::Closed);
    }

    /// Notes that a handshake with a client, if there is one, ends without a result.
    pub(in crate::worker) fn note_unfinished(&mut self, key: Key, failure: Option<SessionError>) {
        let is_unfinished = |secure: &Secure| secure.is_client && secure.is_handshaking();
        if self.sockets.get_mut(key).and_then(|socket| socket.secure()).is_some_and(is_unfinished) {
            self.note_failed_handshake(key, failure);
        }
    }

    /// Counts a handshake that has failed, and has it logged. `None`: it has taken too long.
    pub(super) fn note_failed_handshake(&mut self, key: Key, failure: Option<SessionError>) {
        let count = match failure {
            None => Count::HandshakesFailedTimeout,
            Some(SessionError::Closed) => Count::HandshakesFailedClosed,
            Some(SessionError::NotTls(_)) => Count::HandshakesFailedPlain,
            Some(SessionError::UnknownName) => Count::HandshakesFailedName,
            Some(SessionError::Incompatible(_)) => Count::HandshakesFailedCommon,
            Some(SessionError::Certificate(_)) => Count::HandshakesFailedCertificate,
            Some(SessionError::Refused(..)) => Count::HandshakesFailedAlert,
            Some(_) => Count::HandshakesFailedOther,
        };
        self.block.add(count, 1);
        let session = self.sockets.get_mut(key).and_then(|socket| socket.secure()).map(|secure| &secure.session);
        self.proxy.note_handshake(key, FailedHandshake(failure), session.and_then(|session| session.server_name()));
    }
}

/// Returns certificates as a field has them (RFC 9440, section 2.1); empty if there are none, or if they are too large for
/// the head of a request.
fn field(certificates: &[CertificateDer<'static>]) -> Box<[u8]> {
    let mut value = Vec::new();
    for certificate in certificates {
        let comma: &[u8] = if value.is_empty() { b"" } else { b", " };
        value.extend_from_slice(comma);
        value.push(b':');
        base64::encode_into(Alphabet::Standard, certificate, &mut value);
        value.push(b':');
    }
    if value.len() > CLIENT_CERTIFICATE_FIELD_BYTES { Box::default() } else { value.into() }
}

/// Makes a configuration of secrets, and the certificates as the metrics show them. `None`: this program cannot use the
/// secrets. The process that published them has checked them, so they may only be those of another program.
fn configure(secrets: &Secrets, rules: TlsRules, trace: bool) -> Option<(server::Config, Vec<Certificate>)> {
    let pairs = secrets.pairs.iter().map(|pair| Pair::decode(&pair.bytes.0).map(Arc::new));
    let pairs = pairs.collect::<Result<Vec<_>, _>>().ok()?;
    let authorities: Vec<_> = secrets.client_authorities.iter().map(|der| der.clone().into()).collect();
    let optional = rules.client_optional;
    let key_log = std::env::var_os("SSLKEYLOGFILE").filter(|path| trace && !path.is_empty());
    let settings = Settings {
        pairs: &pairs,
        clients: (!authorities.is_empty()).then_some(Authorities { certificates: &authorities, optional }),
        strict_sni: rules.strict_sni,
        minimum: match rules.min {
            TlsVersion::Tls12 => server::Version::Tls12,
            TlsVersion::Tls13 => server::Version::Tls13,
        },
        alpn: &[crate::tls::HTTP_2, crate::tls::HTTP_1],
        keys: &Keys::decode(&secrets.tickets.0)?,
        key_log: key_log.as_deref().map(Path::new),
    };
    let shown = secrets.pairs.iter().zip(&pairs).map(|(stored, pair)| Certificate {
        name: stored.source.clone(),
        expiry_s: pair.not_after_s().try_into().unwrap_or_default(),
    });
    Some((server::Config::new(&settings).ok()?, shown.collect()))
}

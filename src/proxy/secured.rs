//! The TLS sessions of clients, as far as they decide about requests: the host that a connection is for, and the
//! certificate of the client. The sessions themselves are the worker's.
//!
//! A request is misdirected (421, RFC 9110, 15.5.20) in two cases only. Another certificate covers its host, and the one
//! of its connection does not. Or clients are asked for certificates, and its host is not the one that the connection was
//! made for. So a single certificate that is reached by an address or by an internal name is served.

use std::sync::Arc;

use super::Proxy;
use super::record::{Cause, Text, Word};
use super::reply::LocalReply;
use crate::collections::slab::Key;
use crate::http::certificate_names::CertificateNames;
use crate::http::forward::ClientCertificate;
use crate::http::head::HeadRef;
use crate::http::session_error::{FailedHandshake, Flood};
use crate::limits::HOST_NAME_BYTES;
use crate::metrics::{Certificate, Count};

/// The facts about the TLS session of one client.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// The host that the client has asked for (RFC 6066, section 3). `None`: it has asked for none.
    pub server_name: Option<Box<str>>,
    /// The names of the certificate that the client has got.
    pub names: Arc<CertificateNames>,
    /// The client's certificate as the value of Client-Cert; empty if it has sent none.
    pub leaf: Box<[u8]>,
    /// Its issuers as the value of Client-Cert-Chain; empty if it has sent none.
    pub chain: Box<[u8]>,
}

/// The certificates that clients are served with, and the sessions of clients.
#[derive(Debug, Default)]
pub(super) struct Secures {
    /// The names of each certificate.
    names: Vec<Arc<CertificateNames>>,
    /// Clients are asked for certificates.
    asks_certificates: bool,
    /// The sessions by the index of their connection. Most need no facts.
    sessions: Vec<Option<Box<Secured>>>,
}

impl Secures {
    /// True if clients are asked for certificates.
    pub(super) fn asks_certificates(&self) -> bool {
        self.asks_certificates
    }

    /// Returns the certificate of a client as fields.
    pub(super) fn certificate(&self, at: usize) -> ClientCertificate<'_> {
        let session = self.sessions.get(at).and_then(|session| session.as_deref());
        session.map(|session| ClientCertificate { leaf: &session.leaf, chain: &session.chain }).unwrap_or_default()
    }

    /// Forgets the session of a connection that has gone.
    pub(super) fn forget(&mut self, at: usize) {
        if let Some(session) = self.sessions.get_mut(at) {
            *session = None;
        }
    }

    fn is_misdirected(&self, at: usize, authority: &[u8]) -> bool {
        let Some(Some(session)) = self.sessions.get(at) else { return false };
        let Ok(host) = std::str::from_utf8(host_of(authority)) else { return false };
        let host = host.strip_suffix('.').unwrap_or(host);
        match session.server_name.as_deref() {
            Some(name) if name.eq_ignore_ascii_case(host) => false,
            Some(_) if self.asks_certificates => true,
            _ => !session.names.covers(host) && self.names.iter().any(|names| names.covers(host)),
        }
    }
}

/// Returns an authority without its port.
fn host_of(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|&byte| byte == b':');
    match colon.map(|at| authority.split_at(at)) {
        Some((host, port)) if port[1..].iter().all(u8::is_ascii_digit) => host,
        _ => authority,
    }
}

impl Proxy {
    /// Takes over other certificates for clients. `asks_certificates`: clients are asked for theirs. `shown`: for the
    /// metrics.
    pub fn set_certificates(
        &mut self,
        names: Vec<Arc<CertificateNames>>,
        asks_certificates: bool,
        shown: Vec<Certificate>,
    ) {
        (self.secures.names, self.secures.asks_certificates) = (names, asks_certificates);
        self.settings.set_certificates(shown);
    }

    /// True if requests of a session with a client depend on facts about it.
    pub fn needs_facts(&self) -> bool {
        self.secures.asks_certificates || self.secures.names.len() > 1
    }

    /// Returns the address of a client for people.
    pub fn client_text(&self, key: Key) -> String {
        self.client_address(key).map_or_else(|| "-".to_owned(), |address| address.to_string())
    }

    /// Handles the end of a client's handshake. `http2`: it has selected HTTP/2.
    pub fn client_secured(&mut self, key: Key, http2: bool, facts: Option<Box<Secured>>) {
        if self.connections.get(key).is_none() {
            return;
        }
        if facts.is_some() {
            let sessions = &mut self.secures.sessions;
            sessions.resize_with(sessions.len().max(key.index() + 1), || None);
            sessions[key.index()] = facts;
        }
        if http2 {
            self.become_http2(key);
            self.resume();
        }
    }

    /// Replies to a client that does not speak TLS, although its listener does. Its connection goes on without TLS, and
    /// ends with the reply.
    pub fn refuse_plain(&mut self, key: Key) {
        if self.connections.get(key).is_some() {
            self.answer_client(key, LocalReply::PlainHttp, &[]);
        }
        self.resume();
    }

    /// Counts and logs that a client has sent too many TLS records without content. Its connection ends. `records`: the
    /// count of all records that it has sent.
    pub fn note_tls_flood(&mut self, key: Key, flood: Flood, records: u32) {
        let count = match flood {
            Flood::KeyUpdates => Count::TlsFloodKeyUpdates,
            Flood::EmptyRecords => Count::TlsFloodEmptyRecords,
            Flood::Warnings => Count::TlsFloodWarnings,
            Flood::Renegotiation => Count::TlsFloodRenegotiation,
            Flood::Records => Count::TlsFloodRecords,
        };
        self.shared.block.add(count, 1);
        let cause = Cause::TlsFlood(flood);
        if self.admits_line((None, cause, false)) {
            let client = self.client_text(key);
            self.log.line(cause.level(), "client", format_args!("{client}: {flood}: closed after {records} records"));
        }
    }

    /// Logs that a handshake with a client has failed. `server_name`: the host that the client has asked for.
    pub fn note_handshake(&mut self, key: Key, failed: FailedHandshake, server_name: Option<&str>) {
        let cause = Cause::Handshake(failed);
        if self.admits_line((None, cause, false)) {
            let (client, name) = (self.client_text(key), server_name.map_or(Text("-"), Text));
            self.log.line(cause.level(), "tls", format_args!("client {client}: {failed} (SNI {name})"));
        }
    }

    /// Says for which host a connection was made, and which one its request names.
    pub(super) fn hosts_text(&self, client: Key, head: HeadRef<'_>) -> String {
        let session = self.secures.sessions.get(self.carrier(client).index()).and_then(|session| session.as_deref());
        let name = session.and_then(|session| session.server_name.as_deref()).unwrap_or("-");
        let host = Word(head.authority().unwrap_or_default(), HOST_NAME_BYTES).to_string();
        format!(" (Host {host}, SNI {})", Text(name))
    }

    /// Returns the connection that carries a client's requests: its own, or that of its mux.
    pub(super) fn carrier(&self, client: Key) -> Key {
        let stream = self.connections.get(client).and_then(|one| one.codec.stream());
        stream.map_or(client, |stream| stream.mux)
    }

    /// True if a request has come over a connection that is not for its host.
    pub(super) fn is_misdirected(&self, client: Key, head: HeadRef<'_>) -> bool {
        let authority = head.authority().filter(|_| !self.secures.sessions.is_empty());
        authority.is_some_and(|authority| self.secures.is_misdirected(self.carrier(client).index(), authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(hosts: &[&str]) -> Arc<CertificateNames> {
        let mut names = CertificateNames::default();
        hosts.iter().for_each(|host| names.add_host(host.as_bytes()));
        Arc::new(names)
    }

    fn secures(server_name: Option<&str>, asks_certificates: bool) -> Secures {
        let all = vec![names(&["a.test", "*.a.test"]), names(&["b.test"])];
        let facts = Secured { server_name: server_name.map(Into::into), names: all[0].clone(), ..Secured::default() };
        Secures { names: all, asks_certificates, sessions: vec![None, Some(Box::new(facts))] }
    }

    #[test]
    fn a_request_is_misdirected_if_another_certificate_covers_its_host_and_its_own_does_not() {
        let secures = secures(Some("a.test"), false);
        let is_misdirected = |host: &str| secures.is_misdirected(1, host.as_bytes());
        for host in ["b.test", "B.TEST:443", "b.test.", "b.test.:8443"] {
            assert!(is_misdirected(host), "{host}");
        }
        for host in
            ["a.test", "A.test:1", "x.a.test", "c.test", "127.0.0.1:443", "[::1]:443", "[::1]", "", ":", "b.test:x"]
        {
            assert!(!is_misdirected(host), "{host}");
        }
        assert!(!secures.is_misdirected(0, b"b.test") && !secures.is_misdirected(9, b"b.test"), "there are no facts");
    }

    #[test]
    fn with_client_certificates_a_connection_is_for_the_host_that_it_was_made_for_alone() {
        let is_misdirected = |name, host: &str| secures(name, true).is_misdirected(1, host.as_bytes());
        assert!(!is_misdirected(Some("a.test"), "A.test.:443"));
        assert!(is_misdirected(Some("a.test"), "x.a.test") && is_misdirected(Some("a.test"), "c.test"));
        // A client that has connected to an address has asked for no host.
        assert!(!is_misdirected(None, "127.0.0.1") && !is_misdirected(None, "a.test"));
        assert!(is_misdirected(None, "b.test"));
    }
}

//! Sessions with backends: the configuration, the begin of the handshake, and its result for the proxy.

use std::path::PathBuf;

use crate::collections::slab::Key;
use crate::config::Config;
use crate::http::session_error::SessionError;
use crate::log::Level;
use crate::proxy::Failure;
use crate::tls;
use crate::tls::certificate::Certificate;
use crate::tls::session::Session;
use crate::worker::Worker;
use crate::worker::encryption::{Phase, Secure};

/// The part that all sessions with backends share.
pub(super) struct BackendTls {
    /// `None`: no backend speaks TLS, or there are no authorities.
    config: Option<tls::client::Config>,
    /// The same for connections that have to use HTTP/1.1, once there is one.
    http1: Option<tls::client::Config>,
    /// The plan's count of how often the certificates of the authorities were read, for this configuration.
    authorities: u64,
    ca_file: Option<PathBuf>,
    insecure: bool,
}

impl BackendTls {
    pub(super) fn new(backends: Option<tls::client::Config>, config: &Config) -> BackendTls {
        // The configuration was made before the certificates were read again for the first time.
        let authorities = 0;
        BackendTls {
            config: backends,
            http1: None,
            authorities,
            ca_file: config.ca_file.clone(),
            insecure: config.insecure,
        }
    }

    /// Returns the configuration that offers HTTP/2, or the one that does not.
    fn config(&mut self, http2: bool) -> Option<&tls::client::Config> {
        if http2 {
            return self.config.as_ref();
        }
        if self.http1.is_none() {
            self.http1 = self.config.as_ref().map(|config| config.with_alpn(&[tls::HTTP_1]));
        }
        self.http1.as_ref()
    }
}

impl Worker<'_> {
    /// Begins the handshake on a connection to a backend that speaks TLS.
    pub(in crate::worker) fn begin_session(&mut self, key: Key, name: &str) {
        let http2 = self.proxy.offers_http2(key);
        let begun = match self.tls.upstream.config(http2) {
            Some(config) => Session::connect(config, name),
            None => Err(SessionError::NoAuthorities),
        };
        match begun {
            Ok(session) => {
                if let Some(encryption) = self.sockets.get_mut(key).and_then(|socket| socket.encryption.as_mut()) {
                    encryption.secure = Some(Secure::new(session, false));
                }
                self.trace_session(key, |trace, session, now_us| {
                    session.into_iter().for_each(|session| trace.connected(session, now_us));
                });
                self.send_secure(key);
            }
            Err(error) => self.proxy.failed(key, Failure::Tls(error)),
        }
    }

    /// Makes the configuration of sessions with backends, if a backend speaks TLS. An existing one is replaced if the
    /// certificates of the authorities were read again since.
    pub(in crate::worker) fn prepare_tls(&mut self, authorities: u64) {
        let upstream = &mut self.tls.upstream;
        let is_current = upstream.authorities == authorities && upstream.config.is_some();
        if is_current || !self.proxy.speaks_tls() {
            return;
        }
        upstream.authorities = authorities;
        match tls::client::configure(upstream.ca_file.as_deref(), upstream.insecure, self.tls.trace) {
            Ok(config) => (upstream.config, upstream.http1) = (Some(config), None),
            Err(error) => self.proxy.log().line(Level::Err, "tls", format_args!("{error}")),
        }
    }

    /// Reports the failure of a session to the proxy.
    pub(super) fn tell_failure(&mut self, key: Key) {
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure()) else { return };
        let Some(failure) = secure.session.failure() else { return };
        if secure.is_client {
            let phase = secure.phase;
            return self.tell_client_failure(key, failure, phase);
        }
        let is_handshaking = secure.phase == Phase::Handshaking;
        if failure.is_of_protocol() && is_handshaking && !self.proxy.offers_http2(key) {
            return self.proxy.refuses_http1(key);
        }
        let is_unheard = matches!(secure.phase, Phase::Handshaking | Phase::Established);
        let refused = failure.as_refused_handshake().filter(|_| is_unheard);
        self.proxy.failed(
            key,
            match (refused, is_handshaking) {
                (Some(refused), _) => Failure::Tls(refused),
                (None, false) => Failure::Session(failure),
                (None, true) => Failure::Tls(failure),
            },
        );
    }

    /// Reports to the proxy that the handshake of a session has ended.
    pub(super) fn tell_secured(&mut self, key: Key) {
        let Some(secure) = self.sockets.get_mut(key).and_then(|socket| socket.secure()) else { return };
        let resumed = secure.session.is_resumed() == Some(true);
        // The backend sends no certificate when it resumes a session.
        let leaf = secure.session.certificates().first().filter(|_| !resumed);
        let expiry_s = leaf.and_then(|leaf| Certificate::read(leaf).ok()).map(|leaf| leaf.not_after_s());
        self.proxy.secured(key, resumed, expiry_s.and_then(|seconds| u64::try_from(seconds).ok()));
    }
}

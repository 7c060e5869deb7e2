//! What all sessions with backends share: versions, suites, verification, resumption.
//!
//! A [`Config`] is made when the program starts or reloads, and is cheap to clone. Verification
//! knows three outcomes: the chain leads to a root, and the leaf is for the name; the leaf itself
//! is in `--ca-file`, and is for the name (a self-signed certificate of a test or an appliance,
//! which no chain can lead to); or it is refused. `insecure` accepts any chain, and still has the
//! peer prove that it holds the leaf's key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, version};

use super::algorithm;
use super::certificate::Certificate;
use super::failure::{BadCertificate, Failure};
use super::key_log::KeyFile;
use super::roots::Roots;
use crate::limits::{ALPN_PROTOCOLS, TLS_SESSIONS};

/// What a configuration is made of.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The roots to verify with. Without any and not `insecure`, every certificate is refused.
    pub roots: Roots,
    /// `--insecure`: any certificate is accepted.
    pub insecure: bool,
    /// The protocols offered by ALPN, the preferred first; the first few count.
    pub alpn: &'a [&'a [u8]],
    /// The file that the secrets of sessions are appended to: for `--tls-trace` alone.
    pub key_log: Option<&'a Path>,
}

/// What all sessions with backends share.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) client: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

/// A configuration could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The library refuses its own defaults.
    Library,
    /// The file for secrets cannot be written to, and why.
    KeyLog(PathBuf, String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Library => f.write_str("TLS cannot be configured"),
            Unusable::KeyLog(path, why) => write!(f, "SSLKEYLOGFILE {}: {why}", path.display()),
        }
    }
}

impl Config {
    /// Makes a configuration.
    ///
    /// # Errors
    /// When the file for secrets cannot be opened, or the library refuses it.
    pub fn new(settings: Settings<'_>) -> Result<Config, Unusable> {
        let provider = Arc::new(provider());
        let verifier = Arc::new(Verifier::new(settings.roots, settings.insecure, &provider)?);
        let builder = ClientConfig::builder_with_provider(provider);
        let builder =
            builder.with_protocol_versions(&[&version::TLS13, &version::TLS12]).map_err(|_| Unusable::Library)?;
        let mut client = builder.dangerous().with_custom_certificate_verifier(verifier.clone()).with_no_client_auth();
        client.resumption = Resumption::in_memory_sessions(TLS_SESSIONS);
        client.alpn_protocols = alpn(settings.alpn);
        if let Some(path) = settings.key_log {
            let file = KeyFile::open(path).map_err(|error| Unusable::KeyLog(path.into(), error.to_string()))?;
            client.key_log = Arc::new(file);
        }
        Ok(Config { client: Arc::new(client), verifier })
    }

    /// The same, offering other protocols; sessions made with one can be resumed with the other.
    pub fn with_alpn(&self, protocols: &[&[u8]]) -> Config {
        let mut client = ClientConfig::clone(&self.client);
        client.alpn_protocols = alpn(protocols);
        Config { client: Arc::new(client), verifier: self.verifier.clone() }
    }

    /// Whether any certificate is accepted.
    pub fn is_insecure(&self) -> bool {
        self.verifier.insecure
    }

    /// What verification says of a chain now, leaf first, whether or not it decides.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Failure> {
        let [leaf, issuers @ ..] = chain else { return Err(Failure::Certificate(BadCertificate::None)) };
        let verdict = self.verifier.judge(leaf, issuers, name, UnixTime::now());
        verdict.map_err(|error| refusal(&error, Some(leaf)))
    }
}

/// A refused certificate in our words: those whose chain leads nowhere because they have signed
/// themselves are told apart, as there the remedy is another.
pub(super) fn refusal(error: &CertificateError, leaf: Option<&CertificateDer<'_>>) -> Failure {
    use CertificateError as E;
    let parsed = leaf.and_then(|leaf| Certificate::read(leaf).ok());
    let told = match error {
        E::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. } => {
            algorithm::named(signature_algorithm_id)
        }
        E::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id, public_key_algorithm_id, ..
        } => algorithm::named(public_key_algorithm_id).or_else(|| algorithm::named(signature_algorithm_id)),
        _ => None,
    };
    let bad = BadCertificate::of(error);
    let may_be = matches!(bad, BadCertificate::Signature | BadCertificate::Unusable | BadCertificate::UnknownIssuer);
    let shown = || parsed.as_ref().and_then(Certificate::unverifiable).filter(|_| may_be);
    if let Some(algorithm) = told.or_else(shown) {
        return Failure::Certificate(BadCertificate::Algorithm(algorithm));
    }
    let bad = match bad {
        BadCertificate::UnknownIssuer | BadCertificate::Unusable
            if parsed.is_some_and(|leaf| leaf.is_self_issued()) =>
        {
            BadCertificate::SelfSigned
        }
        bad => bad,
    };
    Failure::Certificate(bad)
}

thread_local! {
    /// The leaf refused last. The library does not keep it, and the log and the trace are to say
    /// what it was. It verifies within the call that hands it the peer's bytes, so that whoever
    /// made this call finds here what was refused in it.
    static REFUSED: RefCell<Option<CertificateDer<'static>>> = const { RefCell::new(None) };
}

/// The leaf that was refused on this thread since this was last asked.
pub(super) fn take_refused() -> Option<CertificateDer<'static>> {
    REFUSED.take()
}

fn alpn(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().take(ALPN_PROTOCOLS).map(|protocol| protocol.to_vec()).collect()
}

/// ring, with AES-128 before AES-256: as strong as the key exchange before it, and a quarter
/// cheaper, and most servers take what the client prefers. Browsers do the same.
fn provider() -> CryptoProvider {
    use ring::cipher_suite::*;
    let cipher_suites = vec![
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

/// Verifies chains with the roots, or with the certificates that were given themselves.
#[derive(Debug)]
struct Verifier {
    /// None without roots: then no chain is good.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are trusted as they are.
    given: BTreeSet<Vec<u8>>,
    insecure: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(roots: Roots, insecure: bool, provider: &Arc<CryptoProvider>) -> Result<Verifier, Unusable> {
        let Roots { store, certificates: given, .. } = roots;
        let chains = |store: RootCertStore| {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
            builder.build().map_err(|_| Unusable::Library)
        };
        let chains = if store.is_empty() { None } else { Some(chains(store)?) };
        Ok(Verifier { chains, given, insecure, provider: provider.clone() })
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        if self.given.contains(leaf.as_ref()) {
            return judge_given(leaf, name, now);
        }
        let Some(chains) = &self.chains else { return Err(CertificateError::UnknownIssuer) };
        match chains.verify_server_cert(leaf, issuers, name, &[], now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(error)) => Err(error),
            Err(_) => Err(CertificateError::BadEncoding),
        }
    }
}

/// A certificate that is trusted as it is still has to be for the name, and of this time.
fn judge_given(leaf: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let dates = Certificate::read(leaf).map_err(|_| CertificateError::BadEncoding)?;
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now_s < dates.not_before_s() {
        return Err(CertificateError::NotValidYet);
    }
    if now_s > dates.not_after_s() {
        return Err(CertificateError::Expired);
    }
    match ParsedCertificate::try_from(leaf).and_then(|parsed| verify_server_name(&parsed, name)) {
        Ok(()) => Ok(()),
        Err(Error::InvalidCertificate(error)) => Err(error),
        Err(_) => Err(CertificateError::BadEncoding),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        match self.judge(leaf, issuers, name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => {
                REFUSED.set(Some(leaf.clone().into_owned()));
                Err(Error::InvalidCertificate(error))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms);
        verified.inspect_err(|_| REFUSED.set(Some(leaf.clone().into_owned())))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms);
        verified.inspect_err(|_| REFUSED.set(Some(leaf.clone().into_owned())))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

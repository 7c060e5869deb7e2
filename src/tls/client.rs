//! The part that all sessions with backends share: versions, suites, verification, resumption.
//!
//! A [`Config`] is made when the program starts or reloads, and is cheap to clone. A certificate is accepted in two
//! cases. Either the chain leads to a root and the leaf is for the backend's name. Or the leaf itself is in `--ca-file`
//! and is for the name: a self-signed certificate of a test or an appliance has no chain. Every other certificate is
//! refused. With `insecure` every chain is accepted, but the peer still has to prove that it holds the leaf's key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, version};

use super::algorithm;
use super::certificate::Certificate;
use super::failure::{BadCertificate, Failure};
use super::key_log::KeyFile;
use super::provider::provider;
use super::roots::{Roots, Sources};
use super::{HTTP_1, HTTP_2};
use crate::limits::{ALPN_PROTOCOLS, TLS_SESSIONS};

/// The input of a configuration.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The roots to verify with. If there are none, every certificate is refused, except with `insecure`.
    pub roots: Roots,
    /// True if every certificate is accepted (`--insecure`).
    pub insecure: bool,
    /// The protocols to offer by ALPN, the preferred one first. At most [`ALPN_PROTOCOLS`] are offered.
    pub alpn: &'a [&'a [u8]],
    /// The file to which the secrets of sessions are appended, for `--tls-trace`.
    pub key_log: Option<&'a Path>,
}

/// The part that all sessions with backends share.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) client: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

/// The reason for which no configuration could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The library refused its own defaults.
    Library,
    /// The file for secrets cannot be written, for the reason given.
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

/// Makes a configuration that offers HTTP/2 and HTTP/1.1. Its roots are those of the file, or else those of the
/// environment and the system. With `insecure` there are none. `log_secrets`: the secrets of sessions are appended to
/// the file of the variable `SSLKEYLOGFILE`, if it is set.
///
/// # Errors
/// There are no roots: the text names the places that were searched. Or the file for secrets cannot be written.
pub fn configure(ca_file: Option<&Path>, insecure: bool, log_secrets: bool) -> Result<Config, String> {
    let roots = match insecure {
        true => Roots::none(),
        false => Roots::read(&Sources::from_environment(ca_file)).map_err(|none| none.to_string())?,
    };
    let key_log = std::env::var_os("SSLKEYLOGFILE").filter(|path| log_secrets && !path.is_empty());
    let settings = Settings { roots, insecure, alpn: &[HTTP_2, HTTP_1], key_log: key_log.as_deref().map(Path::new) };
    Config::new(settings).map_err(|error| error.to_string())
}

impl Config {
    /// Makes a configuration.
    ///
    /// # Errors
    /// The file for secrets cannot be opened, or the library refuses its defaults.
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

    /// Returns the same configuration with other protocols to offer. Each can resume the sessions of the other.
    pub fn with_alpn(&self, protocols: &[&[u8]]) -> Config {
        let mut client = ClientConfig::clone(&self.client);
        client.alpn_protocols = alpn(protocols);
        Config { client: Arc::new(client), verifier: self.verifier.clone() }
    }

    /// True if every certificate is accepted.
    pub fn is_insecure(&self) -> bool {
        self.verifier.insecure
    }

    /// Verifies a chain, the leaf first, even if every certificate is accepted.
    pub(super) fn judge(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Failure> {
        let [leaf, issuers @ ..] = chain else { return Err(Failure::Certificate(BadCertificate::None)) };
        let verdict = self.verifier.judge(leaf, issuers, name, UnixTime::now());
        verdict.map_err(|error| refusal(&error, Some(leaf)))
    }
}

/// Names the fault of a refused certificate. A self-signed certificate is named as such, because its remedy differs
/// from that of an unknown issuer.
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
    /// The leaf that was refused last. The library does not keep it, but the log and the trace show it. The library
    /// verifies during the call that passes it the peer's bytes, so the caller finds here the leaf of this call.
    static REFUSED: RefCell<Option<CertificateDer<'static>>> = const { RefCell::new(None) };
}

/// Takes the leaf that was refused on this thread since the last call.
pub(super) fn take_refused() -> Option<CertificateDer<'static>> {
    REFUSED.take()
}

fn alpn(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().take(ALPN_PROTOCOLS).map(|protocol| protocol.to_vec()).collect()
}

/// Verifies chains with the roots, or compares the leaf with the certificates that were given.
#[derive(Debug)]
struct Verifier {
    /// `None`: there are no roots, so no chain is accepted.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates that are trusted without a chain.
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

/// Verifies a certificate that is trusted without a chain: it still has to be for the name, and valid now.
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

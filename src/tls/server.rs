//! The part that all sessions with clients share: pairs of certificate and key, client authorities, tickets.
//!
//! A [`Config`] is made when the program starts or its secrets change, and is cheap to clone. Each pair has a
//! configuration of the library of its own. A session reads the ClientHello first (`rustls::server::Acceptor`), chooses
//! the pair, and continues with its configuration. So tickets are bound to the pair without a side channel, and the
//! session knows its pair.
//!
//! The pair is chosen in this order: the exact name, a wildcard of one label, the first pair. If several pairs have the
//! name, the first one that the client can verify is taken, and one that is not RSA before one that is: its signature
//! costs a tenth. With strict SNI, a client without a name, or with an unknown one, is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use super::key_log::KeyFile;
use super::pair::Pair;
use super::provider::provider;
use super::tickets::{Ciphers, Keys, Ticketer};
use crate::digest;
use crate::http::certificate_names::{CertificateNames, parent};

/// The input of a configuration.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The pairs to serve. The first one serves clients without a known name.
    pub pairs: &'a [Arc<Pair>],
    /// Set if certificates of clients are requested.
    pub clients: Option<Authorities<'a>>,
    /// True if clients without a known name are refused (`--tls-strict-sni`).
    pub strict_sni: bool,
    /// The lowest version (`--tls-min`).
    pub minimum: Version,
    /// The protocols to accept by ALPN, the preferred one first.
    pub alpn: &'a [&'a [u8]],
    /// The keys of session tickets.
    pub keys: &'a Keys,
    /// The file to which the secrets of sessions are appended, for `--tls-trace`.
    pub key_log: Option<&'a Path>,
}

/// The authorities that certificates of clients are verified with.
#[derive(Clone, Copy, Debug)]
pub struct Authorities<'a> {
    /// The certificates in `--tls-client-ca`.
    pub certificates: &'a [CertificateDer<'static>],
    /// True if clients without a certificate are accepted (`--tls-client-optional`).
    pub optional: bool,
}

/// The lowest version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The reason for which no configuration could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is no pair.
    NoPair,
    /// The file of client authorities has no certificate.
    NoAuthority,
    /// The certificate with this number, from 1 on, is no authority that can be used.
    Authority(usize),
    /// The library refused its own defaults.
    Library,
    /// The file for secrets cannot be written, for the reason given.
    KeyLog(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::NoPair => f.write_str("there is no certificate"),
            Unusable::NoAuthority => f.write_str("there is no BEGIN CERTIFICATE"),
            Unusable::Authority(number) => write!(f, "certificate {number} cannot be used as an authority"),
            Unusable::Library => f.write_str("TLS cannot be configured"),
            Unusable::KeyLog(why) => write!(f, "SSLKEYLOGFILE: {why}"),
        }
    }
}

/// The part that all sessions with clients share.
#[derive(Clone, Debug)]
pub struct Config(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    served: Vec<Served>,
    /// The places in `served` of the pairs with a name, as it is in the certificate.
    by_name: BTreeMap<String, Vec<usize>>,
    strict_sni: bool,
    requests_certificates: bool,
}

/// A pair and its configurations of the library.
#[derive(Debug)]
struct Served {
    pair: Arc<Pair>,
    /// The suite is chosen in our order: AES-128 before AES-256, which costs a quarter more.
    own_order: Arc<ServerConfig>,
    /// The suite is chosen in the client's order, for clients that prefer ChaCha20 because they lack instructions for
    /// AES.
    client_order: Arc<ServerConfig>,
}

impl Config {
    /// Makes a configuration.
    ///
    /// # Errors
    /// There is no pair, or an authority cannot be used, or the file for secrets cannot be opened.
    pub fn new(settings: &Settings<'_>) -> Result<Config, Unusable> {
        let provider = Arc::new(provider());
        let verifier = match settings.clients {
            Some(authorities) => Some(verifier(authorities, &provider)?),
            None => None,
        };
        let versions: &[&SupportedProtocolVersion] = match settings.minimum {
            Version::Tls12 => &[&version::TLS13, &version::TLS12],
            Version::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(|_| Unusable::Library)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let first = settings.pairs.first().ok_or(Unusable::NoPair)?;
        let mut common = builder.with_cert_resolver(resolver(first));
        common.alpn_protocols = settings.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // Sessions are resumed by tickets alone: they work in every process.
        common.session_storage = Arc::new(NoServerSessionStorage {});
        // A client of a balancer reconnects. It does not open several connections at once, as a browser may.
        common.send_tls13_tickets = 1;
        common.max_early_data_size = 0;
        if let Some(path) = settings.key_log {
            let file = KeyFile::open(path).map_err(|error| Unusable::KeyLog(error.to_string()))?;
            common.key_log = Arc::new(file);
        }
        let ciphers = Arc::new(Ciphers::new(settings.keys));
        let domain = domain(settings.clients);
        let serve = |pair: &Arc<Pair>| {
            let mut config = common.clone();
            config.cert_resolver = resolver(pair);
            let binding = digest::sha256(&[pair.digest(), &domain]);
            config.ticketer = Arc::new(Ticketer::new(&ciphers, binding));
            let client_order = Arc::new(config.clone());
            config.ignore_client_order = true;
            Served { pair: Arc::clone(pair), own_order: Arc::new(config), client_order }
        };
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, pair) in settings.pairs.iter().enumerate() {
            pair.names().hosts().for_each(|name| by_name.entry(name.to_string()).or_default().push(at));
        }
        Ok(Config(Arc::new(Inner {
            served: settings.pairs.iter().map(serve).collect(),
            by_name,
            strict_sni: settings.strict_sni,
            requests_certificates: settings.clients.is_some(),
        })))
    }

    /// Returns the pairs in their order.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = &Arc<Pair>> {
        self.0.served.iter().map(|served| &served.pair)
    }

    /// Returns the names of each pair.
    pub fn names(&self) -> Vec<Arc<CertificateNames>> {
        self.pairs().map(|pair| Arc::clone(pair.names())).collect()
    }

    /// True if certificates of clients are requested.
    pub fn requests_certificates(&self) -> bool {
        self.0.requests_certificates
    }

    /// Chooses the pair for a client, and returns it with its configuration. `None`: the client is refused, because
    /// there is no pair for its name.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> Option<(&Arc<Pair>, &Arc<ServerConfig>)> {
        let served = self.served(hello)?;
        let is_aes = |suite: &CipherSuite| {
            matches!(
                suite,
                CipherSuite::TLS13_AES_128_GCM_SHA256
                    | CipherSuite::TLS13_AES_256_GCM_SHA384
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            )
        };
        let known = |suite: &&CipherSuite| {
            served.own_order.crypto_provider().cipher_suites.iter().any(|own| own.suite() == **suite)
        };
        let prefers_aes = hello.cipher_suites().iter().find(known).is_none_or(is_aes);
        Some((&served.pair, if prefers_aes { &served.own_order } else { &served.client_order }))
    }

    fn served(&self, hello: &ClientHello<'_>) -> Option<&Served> {
        let inner = &*self.0;
        let named = hello.server_name().and_then(|name| self.named(name));
        let candidates = match named {
            Some(candidates) => candidates,
            None if inner.strict_sni => return None,
            // Pairs with the first name of the first pair are its counterparts with another kind of key.
            None => self.pairs().next()?.names().hosts().next().and_then(|name| self.named(name)).unwrap_or(&[0]),
        };
        let is_usable = |served: &&Served| candidates.len() == 1 || can_verify(hello, served);
        let candidates = candidates.iter().filter_map(|&at| inner.served.get(at));
        let usable = candidates.clone().filter(is_usable);
        // The sort is stable, so the order of the configuration decides among equals.
        usable.min_by_key(|served| served.pair.is_rsa()).or_else(|| candidates.clone().next())
    }

    /// Returns the places of the pairs for a host name.
    fn named(&self, name: &str) -> Option<&[usize]> {
        let by_name = &self.0.by_name;
        let wildcard = || by_name.get(&format!("*.{}", parent(name)?));
        by_name.get(name).or_else(wildcard).map(Vec::as_slice)
    }
}

/// True if the client can verify signatures of the pair's key, and has a suite for it.
fn can_verify(hello: &ClientHello<'_>, served: &Served) -> bool {
    let key = &served.pair.certified().key;
    let suites = &served.own_order.crypto_provider().cipher_suites;
    let mut common = suites.iter().filter(|suite| hello.cipher_suites().contains(&suite.suite()));
    common.any(|suite| suite.usable_for_signature_algorithm(key.algorithm()))
        && key.choose_scheme(hello.signature_schemes()).is_some()
}

fn resolver(pair: &Pair) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(Arc::clone(pair.certified())))
}

/// Makes the verifier of certificates of clients. The names of the authorities are sent to the client, so that it can
/// choose among its certificates.
fn verifier(
    authorities: Authorities<'_>,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Unusable> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in authorities.certificates.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|_| Unusable::Authority(at + 1))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if authorities.optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|_| Unusable::NoAuthority)
}

/// Returns a hash of the rules for certificates of clients.
fn domain(authorities: Option<Authorities<'_>>) -> [u8; digest::SHA256_LENGTH] {
    let Some(authorities) = authorities else { return digest::sha256(&[]) };
    let hashes: Vec<_> = authorities.certificates.iter().map(|certificate| digest::sha256(&[certificate])).collect();
    let mut parts: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    parts.push(if authorities.optional { b"optional" } else { b"required" });
    digest::sha256(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::issue::{Spec, self_signed};

    fn pair(names: &[&str]) -> Arc<Pair> {
        let issued = self_signed(&Spec { names, ..Spec::new("server") });
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(issued.key.clone());
        Arc::new(Pair::new(vec![issued.der.into()], key.into()).unwrap())
    }

    #[test]
    fn a_name_leads_to_its_exact_pair_then_to_a_wildcard_of_one_label() {
        let pairs = [pair(&["first.test"]), pair(&["*.a.test"]), pair(&["x.a.test", "b.test"])];
        let keys = Keys::derived(&[7; 32], 0);
        let (strict_sni, minimum) = (false, Version::Tls12);
        let settings =
            Settings { pairs: &pairs, clients: None, strict_sni, minimum, alpn: &[], keys: &keys, key_log: None };
        let config = Config::new(&settings).unwrap();
        let named = |name: &str| config.named(name).map(<[usize]>::to_vec);
        assert_eq!(named("first.test"), Some(vec![0]));
        assert_eq!(named("y.a.test"), Some(vec![1]));
        assert_eq!(named("x.a.test"), Some(vec![2]));
        for unknown in ["a.test", "z.y.a.test", "c.test", ""] {
            assert_eq!(named(unknown), None, "{unknown}");
        }
        assert_eq!(Config::new(&Settings { pairs: &[], ..settings }).map(drop), Err(Unusable::NoPair));
    }
}

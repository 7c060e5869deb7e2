//! TLS with clients, as it is configured: the files of certificates and keys, and the rules for sessions.

use std::fmt;
use std::path::PathBuf;

use crate::args::{Given, Options, Source, TlsVersion};

/// TLS with clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The files of certificates and keys. The first pair serves clients without a known name.
    pub pairs: Vec<PairFiles>,
    /// True if the certificate is generated.
    pub dev: bool,
    /// The file with the authorities of clients, if clients are asked for certificates.
    pub client_ca: Option<PathBuf>,
    /// The file from which the keys of tickets are derived, if they are not random.
    pub ticket_key: Option<PathBuf>,
    /// The rules for sessions.
    pub rules: TlsRules,
}

/// The files of a certificate chain and its key. They may be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The file of the chain.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

/// The rules for sessions with clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsRules {
    /// The lowest version.
    pub min: TlsVersion,
    /// True if clients without a known name are refused.
    pub strict_sni: bool,
    /// True if clients that are asked for a certificate need not have one.
    pub client_optional: bool,
    /// The time of Strict-Transport-Security in seconds. `None`: that field is not sent.
    pub strict_transport_s: Option<u64>,
}

impl Tls {
    /// Takes TLS with clients out of the options.
    pub(super) fn of(options: &Options) -> Tls {
        let is_on = |given: &Option<Given<bool>>| given.as_ref().is_some_and(|given| given.value);
        let file = |given: &Option<Given<PathBuf>>| given.as_ref().map(|given| given.value.clone());
        let keys = options.tls_keys.iter().map(Some).chain(std::iter::repeat(None));
        let pair = |(certificate, key): (&Given<PathBuf>, Option<&Given<PathBuf>>)| PairFiles {
            certificate: certificate.value.clone(),
            key: key.unwrap_or(certificate).value.clone(),
        };
        Tls {
            pairs: options.tls_certs.iter().zip(keys).map(pair).collect(),
            dev: is_on(&options.tls_dev),
            client_ca: file(&options.tls_client_ca),
            ticket_key: file(&options.tls_ticket_key),
            rules: TlsRules {
                min: options.tls_min.as_ref().map(|given| given.value).unwrap_or_default(),
                strict_sni: is_on(&options.tls_strict_sni),
                client_optional: is_on(&options.tls_client_optional),
                strict_transport_s: options.hsts_s.as_ref().and_then(|given| given.value),
            },
        }
    }

    /// True if there is a certificate for clients.
    pub fn has_certificate(&self) -> bool {
        self.dev || !self.pairs.is_empty()
    }
}

/// The reason why options for TLS with clients contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// There are keys, but not one for each certificate.
    Keys {
        /// The source of the first key.
        source: Source,
        /// The number of certificates.
        certificates: usize,
        /// The number of keys.
        keys: usize,
    },
    /// A generated certificate stands beside others.
    DevWithCertificates {
        /// The source of the option for a generated certificate.
        dev: Source,
        /// The source of the first certificate.
        certificate: Source,
    },
    /// An option has no effect without a certificate.
    WithoutCertificate {
        /// The source of that option.
        source: Source,
    },
    /// An option about client certificates has no effect without authorities.
    WithoutAuthorities {
        /// The source of that option.
        source: Source,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Keys { source, certificates, keys } => write!(
                f,
                "{source}: certificates: {certificates}, keys: {keys}; accepted: a --tls-key for each --tls-cert, in the same \
                 order, or none if each file of a certificate has its key"
            ),
            TlsError::DevWithCertificates { dev, certificate } => write!(
                f,
                "{} and {} are contradictory, as the first one generates a certificate; accepted: one of them",
                dev.place(),
                certificate.place()
            ),
            TlsError::WithoutCertificate { source } => write!(
                f,
                "{source}: has no effect without a certificate; accepted: with --tls-cert (and --tls-key) or --tls-dev"
            ),
            TlsError::WithoutAuthorities { source } => {
                write!(f, "{source}: has no effect without authorities; accepted: with --tls-client-ca")
            }
        }
    }
}

/// Finds contradictions between individually valid options.
pub(super) fn contradictions(options: &Options) -> Vec<TlsError> {
    let mut errors = Vec::new();
    let (certificates, keys) = (options.tls_certs.len(), options.tls_keys.len());
    if let Some(Given { source, .. }) = options.tls_keys.first().filter(|_| keys != certificates) {
        errors.push(TlsError::Keys { source: source.clone(), certificates, keys });
    }
    let switch = |given: &Option<Given<bool>>| given.as_ref().filter(|given| given.value).map(|one| one.source.clone());
    let file = |given: &Option<Given<PathBuf>>| given.as_ref().map(|given| given.source.clone());
    let dev = switch(&options.tls_dev);
    if let (Some(dev), Some(certificate)) = (&dev, options.tls_certs.first()) {
        let (dev, certificate) = (dev.clone(), certificate.source.clone());
        errors.push(TlsError::DevWithCertificates { dev, certificate });
    }
    let optional = switch(&options.tls_client_optional);
    if dev.is_none() && certificates == 0 && keys == 0 {
        let min = options.tls_min.as_ref().filter(|given| given.value != TlsVersion::default());
        let hsts = options.hsts_s.as_ref().filter(|given| given.value.is_some());
        let others = [
            min.map(|given| given.source.clone()),
            switch(&options.tls_strict_sni),
            file(&options.tls_client_ca),
            optional,
            file(&options.tls_ticket_key),
            hsts.map(|given| given.source.clone()),
        ];
        errors.extend(others.into_iter().flatten().map(|source| TlsError::WithoutCertificate { source }));
    } else if let Some(source) = optional.filter(|_| options.tls_client_ca.is_none()) {
        errors.push(TlsError::WithoutAuthorities { source });
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};
    use crate::config::resolve;

    fn resolved(line: &str) -> Result<Tls, Vec<String>> {
        let options = match parse(line.split_whitespace().map(Into::into), &|_| None) {
            Ok(Command::Run(options)) => options,
            other => panic!("{line}: {other:?}"),
        };
        let config = resolve(options).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>());
        config.map(|config| {
            assert_eq!(config.listen[0].tls, config.tls.has_certificate());
            config.tls
        })
    }

    #[test]
    fn keys_belong_to_certificates_in_their_order_or_are_in_the_same_files() {
        let pair = |certificate: &str, key: &str| PairFiles { certificate: certificate.into(), key: key.into() };
        let pairs = |line: &str| resolved(line).unwrap().pairs;
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("--tls-cert a"), [pair("a", "a")]);
        assert_eq!(pairs("--tls-cert a --tls-cert b"), [pair("a", "a"), pair("b", "b")]);
        let both = "--tls-cert a --tls-key ak --tls-cert b --tls-key bk";
        assert_eq!(pairs(both), [pair("a", "ak"), pair("b", "bk")]);
        for line in ["--tls-key a", "--tls-cert a --tls-cert b --tls-key bk", "--tls-cert a --tls-key b --tls-key c"] {
            let refused = resolved(line).unwrap_err();
            assert!(
                refused.len() == 1 && refused[0].contains("a --tls-key for each --tls-cert"),
                "{line}: {refused:?}"
            );
        }
    }

    #[test]
    fn rules_are_those_given() {
        let line = "--tls-cert a --tls-min 1.3 --tls-strict-sni --tls-client-ca c --tls-client-optional \
                    --tls-ticket-key t --hsts 365d";
        let tls = resolved(line).unwrap();
        assert_eq!((tls.client_ca, tls.ticket_key), (Some("c".into()), Some("t".into())));
        let (min, strict_transport_s) = (TlsVersion::Tls13, Some(365 * 86_400));
        assert_eq!(tls.rules, TlsRules { min, strict_sni: true, client_optional: true, strict_transport_s });
        assert!(resolved("--tls-dev").unwrap().dev);
    }

    #[test]
    fn options_without_an_effect_are_refused() {
        for option in [
            "--tls-min 1.3",
            "--tls-strict-sni",
            "--tls-client-ca c",
            "--tls-client-optional",
            "--tls-ticket-key t",
            "--hsts 1h",
        ] {
            let refused = resolved(option).unwrap_err();
            assert!(refused.len() == 1 && refused[0].contains("without a certificate"), "{option}: {refused:?}");
        }
        assert_eq!(resolved("--tls-min 1.2 --hsts off"), Ok(Tls::default()));
        assert!(resolved("--tls-dev --tls-client-optional").unwrap_err()[0].contains("without authorities"));
        assert!(resolved("--tls-dev --tls-cert a").unwrap_err()[0].contains("contradictory"));
    }
}

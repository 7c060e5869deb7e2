//! Algorithms of certificates that cannot be verified here, by name: ring has neither P-521, nor Ed448, nor ECDSA with
//! another hash than SHA-256 and SHA-384, nor RSA keys below 2,048 bits, nor keys that are for RSASSA-PSS alone.
//!
//! The library decides about certificates. Here, the log and `--check` get the reasons.

use rustls::pki_types::SignatureVerificationAlgorithm;

use super::provider::provider;
pub use crate::http::session_error::Algorithm;
use crate::limits::RSA_BITS;

/// The beginning of the identifiers of RSA in all its uses.
const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];

/// The algorithms of DER object identifiers whose signatures or keys cannot be verified.
const NAMES: [(&[u8], &str); 13] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01], "ECDSA with SHA-1"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x01], "ECDSA with SHA-224"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], "ECDSA with SHA-512"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04], "RSA with MD5"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], "RSA with SHA-1"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0e], "RSA with SHA-224"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], "RSASSA-PSS"),
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "secp256k1"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x21], "P-224"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01], "P-192"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x03], "DSA"),
];

/// The names of those that are broken or too short.
const WEAK: [&str; 6] = ["ECDSA with SHA-1", "RSA with MD5", "RSA with SHA-1", "P-224", "P-192", "DSA"];

/// The algorithm of an AlgorithmIdentifier's contents, if it is broken or too short.
pub(super) fn weak(identifier: &[u8]) -> Option<Algorithm> {
    named(identifier).filter(|algorithm| matches!(algorithm, Algorithm::Named(name) if WEAK.contains(name)))
}

/// True if a key has made a signature over a message. The algorithms are the contents of their AlgorithmIdentifiers.
/// `None`: the algorithm cannot be verified.
pub(super) fn verify(key: &[u8], public: &[u8], algorithm: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let known = provider().signature_verification_algorithms.all;
    let is_for = |one: &&&dyn SignatureVerificationAlgorithm| {
        *one.public_key_alg_id() == *key && *one.signature_alg_id() == *algorithm
    };
    let algorithm = known.iter().find(is_for)?;
    Some(algorithm.verify_signature(public, message, signature).is_ok())
}

/// The name of an algorithm by the contents of a key's or signature's AlgorithmIdentifier: the curve, if it is
/// one of those, otherwise the algorithm. `None` if it can be verified or is unknown.
pub(super) fn named(identifier: &[u8]) -> Option<Algorithm> {
    // With its header or without.
    let contents = match identifier {
        [0x30, length, rest @ ..] if usize::from(*length) == rest.len() => rest,
        bare => bare,
    };
    let of = |oid: &[u8]| NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| Algorithm::Named(name));
    let (first, rest) = object(contents)?;
    // A curve is the parameter of a key's algorithm.
    object(rest).and_then(|(curve, _)| of(curve)).or_else(|| of(first))
}

/// An object identifier at this position, and the bytes after it.
fn object(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match bytes {
        [0x06, length, rest @ ..] => rest.split_at_checked(usize::from(*length)),
        _ => None,
    }
}

/// True if a key's algorithm is rsaEncryption.
pub(super) fn is_rsa(identifier: &[u8]) -> bool {
    object(identifier).is_some_and(|(oid, _)| oid.strip_prefix(&RSA) == Some(&[1]))
}

/// RSA, if a signature of this length was made with a key that is too short.
pub(super) fn short_rsa(identifier: &[u8], signature_bytes: usize) -> Option<Algorithm> {
    let (oid, _) = object(identifier)?;
    let bits = 8 * signature_bytes;
    (oid.starts_with(&RSA) && bits < *RSA_BITS.start()).then_some(Algorithm::Rsa(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificate::Certificate;
    use crate::tls::client::{Config, Settings};
    use crate::tls::failure::Failure;
    use crate::tls::roots::{Roots, Sources};
    use rustls::pki_types::{CertificateDer, ServerName};

    /// A leaf as openssl made it, and the authority that signed it.
    type Chain = (&'static [u8], &'static [u8]);

    /// The result of verifying a leaf below the CA that signed it.
    fn judged((leaf, authority): Chain, name: &str) -> Failure {
        let path = std::env::temp_dir().join(format!("zzz-{}-{name}.pem", std::process::id()));
        std::fs::write(&path, crate::tls::issue::pem("CERTIFICATE", authority)).unwrap();
        let roots = Roots::read(&Sources::from_environment(Some(&path)));
        std::fs::remove_file(&path).unwrap();
        let roots = roots.unwrap_or_else(|_| panic!("{name}: the authority can be read"));
        let config = Config::new(Settings { roots, insecure: false, alpn: &[], key_log: None }).unwrap();
        let leaf = CertificateDer::from(leaf.to_vec());
        config.judge(&[leaf], &ServerName::try_from("localhost").unwrap()).unwrap_err()
    }

    #[test]
    fn unverifiable_algorithms_are_named() {
        let chains: [(&str, Chain, &str); 5] = [
            (
                "p521",
                (include_bytes!("unverifiable/p521.der"), include_bytes!("unverifiable/p521-ca.der")),
                "ECDSA with SHA-512",
            ),
            (
                "sha512",
                (include_bytes!("unverifiable/sha512.der"), include_bytes!("unverifiable/sha512-ca.der")),
                "ECDSA with SHA-512",
            ),
            ("pss", (include_bytes!("unverifiable/pss.der"), include_bytes!("unverifiable/pss-ca.der")), "RSASSA-PSS"),
            ("ed448", (include_bytes!("unverifiable/ed448.der"), include_bytes!("unverifiable/ed448-ca.der")), "Ed448"),
            (
                "rsa1024",
                (include_bytes!("unverifiable/rsa1024.der"), include_bytes!("unverifiable/rsa1024-ca.der")),
                "RSA with 1024 bits",
            ),
        ];
        for (name, chain, algorithm) in chains {
            let told = judged(chain, name).to_string();
            assert_eq!(told, format!("certificate that cannot be verified here: {algorithm}"), "{name}");
        }
    }

    #[test]
    fn the_key_of_a_certificate_is_named_by_its_curve() {
        let key = |der: &'static [u8]| Certificate::read(der).unwrap().unverifiable().map(|one| one.to_string());
        assert_eq!(key(include_bytes!("unverifiable/p521-ca.der")).as_deref(), Some("P-521"));
        assert_eq!(key(include_bytes!("unverifiable/ed448-ca.der")).as_deref(), Some("Ed448"));
        assert_eq!(key(include_bytes!("unverifiable/pss-ca.der")).as_deref(), Some("RSASSA-PSS"));
        assert_eq!(key(include_bytes!("unverifiable/rsa1024-ca.der")).as_deref(), Some("RSA with 1024 bits"));
        let issued = crate::tls::issue::Authority::new("Root").issue(&crate::tls::issue::Spec::new("a.test"));
        assert_eq!(Certificate::read(&issued.der).unwrap().unverifiable(), None);
    }

    #[test]
    fn malformed_identifiers_are_not_named() {
        for bytes in [&b""[..], b"\x06", b"\x06\x09\x2b", b"\x30\x00", b"\x05\x00"] {
            assert_eq!((named(bytes), short_rsa(bytes, 1)), (None, None), "{bytes:x?}");
        }
    }
}

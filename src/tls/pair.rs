//! A certificate chain and the key of its leaf, which the program serves: read from PEM or from bytes of its own.
//!
//! A [`Pair`] exists only if the key belongs to the leaf and can sign. So a file that is half written, or whose
//! counterpart was not replaced yet, never becomes a pair. Files are read elsewhere.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureAlgorithm};

use super::algorithm::Algorithm;
use super::certificate::{Certificate, Name};
use crate::digest;
use crate::http::certificate_names::CertificateNames;
use crate::limits::{CHAIN_CERTIFICATES, PAIR_BYTES};

/// A certificate chain and its key.
pub struct Pair {
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
    names: Arc<CertificateNames>,
    not_after_s: i64,
    digest: [u8; digest::SHA256_LENGTH],
}

/// The reason for which bytes are no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// There is no section with a certificate.
    NoCertificate,
    /// There is no section with a key, in the file that should have it.
    NoKey,
    /// The key needs a passphrase.
    Encrypted,
    /// A section is not PEM: it has no end, or its text is not base64.
    NotPem(Part),
    /// The certificate with this number, from 1 on, is malformed.
    Certificate(usize),
    /// The key is malformed, or is of a kind that ring does not sign with.
    Key,
    /// The key of the leaf is of a kind that ring does not sign with.
    Algorithm(Algorithm),
    /// The key belongs to no certificate.
    Mismatch,
    /// The key belongs to the certificate with this number, from 1 on, and not to the first one.
    Order(usize),
    /// There are too many certificates, or too many bytes of them.
    TooLarge,
    /// The bytes are not those that [`Pair::encode`] writes.
    Encoding,
}

/// A part of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificates.
    Certificates,
    /// The key.
    Key,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::NoCertificate => f.write_str("there is no BEGIN CERTIFICATE"),
            Unusable::NoKey => f.write_str(
                "there is no private key: no BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY",
            ),
            Unusable::Encrypted => {
                f.write_str("the key needs a passphrase; `openssl pkey -in FILE -out NEW` writes it without one")
            }
            Unusable::NotPem(Part::Certificates) => f.write_str("the certificates are not PEM up to the end"),
            Unusable::NotPem(Part::Key) => f.write_str("the key is not PEM up to the end"),
            Unusable::Certificate(number) => write!(f, "certificate {number} is malformed"),
            Unusable::Key => f.write_str(
                "the key is malformed, or not one of RSA (2048 to 4096 bits), ECDSA (P-256, P-384) and Ed25519",
            ),
            Unusable::Algorithm(algorithm) => write!(
                f,
                "the key of the certificate is {algorithm}; usable are RSA (2048 to 4096 bits), ECDSA (P-256, P-384) \
                 and Ed25519"
            ),
            Unusable::Mismatch => f.write_str("certificate and key do not belong together"),
            Unusable::Order(number) => {
                write!(f, "the key belongs to certificate {number}, which has to be the first one in the file")
            }
            Unusable::TooLarge => write!(
                f,
                "the chain has more than {CHAIN_CERTIFICATES} certificates, or more than {} KiB",
                PAIR_BYTES >> 10
            ),
            Unusable::Encoding => f.write_str("the stored certificate cannot be read"),
        }
    }
}

impl Pair {
    /// Reads a pair from PEM. Without `key`, the key is in the same file as the certificates. The first certificate is
    /// the leaf, and the first key counts. Sections of other kinds are passed over.
    ///
    /// # Errors
    /// A part is missing or malformed, or they do not belong together.
    pub fn from_pem(certificates: &[u8], key: Option<&[u8]>) -> Result<Pair, Unusable> {
        let chain = certificates_of(certificates)?;
        if chain.is_empty() {
            return Err(Unusable::NoCertificate);
        }
        Pair::new(chain, key_of(key.unwrap_or(certificates))?)
    }

    /// Makes a pair of certificates, the leaf first, and a key.
    ///
    /// # Errors
    /// As for [`Pair::from_pem`].
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Pair, Unusable> {
        let bytes = chain.iter().map(|certificate| certificate.len()).sum::<usize>() + key.secret_der().len();
        if chain.len() > CHAIN_CERTIFICATES || bytes > PAIR_BYTES {
            return Err(Unusable::TooLarge);
        }
        let malformed = chain.iter().position(|certificate| Certificate::read(certificate).is_err());
        if let Some(at) = malformed {
            return Err(Unusable::Certificate(at + 1));
        }
        let leaf = chain.first().ok_or(Unusable::NoCertificate)?.clone();
        let leaf = Certificate::read(&leaf).map_err(|_| Unusable::Certificate(1))?;
        if let Some(algorithm) = leaf.unsupported_key() {
            return Err(Unusable::Algorithm(algorithm));
        }
        let signing = any_supported_type(&key).map_err(|_| Unusable::Key)?;
        let mut names = CertificateNames::default();
        for name in leaf.names() {
            match name {
                Name::Dns(name) => names.add_host(name),
                Name::Ip(address) => names.add_address(address),
            }
        }
        let not_after_s = leaf.not_after_s();
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => return Err(mismatch(certified)),
            Err(Error::InconsistentKeys(_)) => return Err(Unusable::Key),
            Err(_) => return Err(Unusable::Certificate(1)),
        }
        let digest = digest::sha256(&[&certified.cert[0]]);
        Ok(Pair { certified: Arc::new(certified), key, names: Arc::new(names), not_after_s, digest })
    }

    /// Returns the certificates, the leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Returns the names of the leaf.
    pub fn names(&self) -> &Arc<CertificateNames> {
        &self.names
    }

    /// Returns the time at which the leaf expires, in seconds since 1970.
    pub fn not_after_s(&self) -> i64 {
        self.not_after_s
    }

    /// Returns a hash of the leaf, and so of its key. Two pairs with one hash have one identity for clients.
    pub fn digest(&self) -> &[u8; digest::SHA256_LENGTH] {
        &self.digest
    }

    /// Returns a short name for people: the first name of the leaf, or else its subject.
    pub fn label(&self) -> String {
        match Certificate::read(&self.chain()[0]) {
            Ok(leaf) => leaf.names().next().map_or_else(|| leaf.subject(), |name| name.to_string()),
            // The certificate was read before.
            Err(malformed) => malformed.to_string(),
        }
    }

    /// True if the key is RSA.
    pub fn is_rsa(&self) -> bool {
        self.certified.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Returns the name of the key's algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self.certified.key.algorithm() {
            SignatureAlgorithm::RSA => "RSA",
            SignatureAlgorithm::ED25519 => "Ed25519",
            // The library signs with no others.
            _ => "ECDSA",
        }
    }

    /// Returns the chain and the key as the library takes them.
    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Appends the pair as bytes, with its key, for processes of this program.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.key {
            PrivateKeyDer::Pkcs1(_) => 1,
            PrivateKeyDer::Sec1(_) => 2,
            _ => 8,
        };
        out.push(kind);
        push(out, self.key.secret_der());
        self.chain().iter().for_each(|certificate| push(out, certificate));
    }

    /// Reads a pair from all of the bytes that [`Pair::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are malformed, or this program cannot use the pair.
    pub fn decode(bytes: &[u8]) -> Result<Pair, Unusable> {
        let (&kind, mut rest) = bytes.split_first().ok_or(Unusable::Encoding)?;
        let key = take(&mut rest).ok_or(Unusable::Encoding)?.to_vec();
        let key = match kind {
            1 => PrivatePkcs1KeyDer::from(key).into(),
            2 => PrivateSec1KeyDer::from(key).into(),
            8 => PrivatePkcs8KeyDer::from(key).into(),
            _ => return Err(Unusable::Encoding),
        };
        let mut chain = Vec::new();
        while !rest.is_empty() {
            let certificate = take(&mut rest).ok_or(Unusable::Encoding)?;
            chain.push(CertificateDer::from(certificate.to_vec()));
        }
        Pair::new(chain, key)
    }
}

/// Secrets are not printed.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({})", self.names)
    }
}

/// Returns the certificates of a file in PEM, in their order.
///
/// # Errors
/// [`Unusable::NotPem`]: the file is not PEM up to its end.
pub fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem);
    let mut certificates = Vec::new();
    for section in sections {
        let (kind, der) = section.map_err(|_| match is_encrypted(pem) {
            true => Unusable::Encrypted,
            false => Unusable::NotPem(Part::Certificates),
        })?;
        if kind == SectionKind::Certificate {
            certificates.push(CertificateDer::from(der));
        }
    }
    Ok(certificates)
}

fn key_of(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Unusable> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted(pem) => Err(Unusable::Encrypted),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => Err(Unusable::NoKey),
        Err(_) => Err(Unusable::NotPem(Part::Key)),
    }
}

/// True if a section says that it is encrypted (RFC 7468, section 11, and RFC 1421, section 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let lines = pem.split(|&byte| byte == b'\n');
    let mut marks = [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"].into_iter();
    let found = |mark: &[u8]| lines.clone().any(|line| line.starts_with(mark));
    marks.any(found)
}

/// Names the certificate that the key belongs to.
fn mismatch(mut certified: CertifiedKey) -> Unusable {
    for number in 2..=certified.cert.len() {
        certified.cert.remove(0);
        if certified.keys_match().is_ok() {
            return Unusable::Order(number);
        }
    }
    Unusable::Mismatch
}

/// Appends bytes with their length before them.
fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    // The bytes are at most PAIR_BYTES.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Takes bytes with their length before them.
fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *from = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests;

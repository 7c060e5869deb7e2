//! Certificates that are created when a test runs, so that none expires in the repository: a small DER writer
//! and Ed25519 keys, signed by the same library that verifies.
//!
//! The tests of `src/tls` include this file by its path.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::PrivatePkcs8KeyDer;

const SEQUENCE: u8 = 0x30;
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";

/// The contents of a certificate. Times are `YYYYMMDDHHMMSS`, in UTC.
pub struct Spec<'a> {
    pub subject: &'a str,
    /// Host names and addresses.
    pub names: &'a [&'a str],
    pub not_before: &'a str,
    pub not_after: &'a str,
    /// True if it may sign others.
    pub is_authority: bool,
}

impl<'a> Spec<'a> {
    /// A certificate with a long validity and without names.
    pub fn new(subject: &'a str) -> Spec<'a> {
        Spec { subject, names: &[], not_before: "20200101000000", not_after: "21200101000000", is_authority: false }
    }
}

/// A certificate and its key, both in DER.
#[derive(Clone)]
pub struct Issued {
    pub der: Vec<u8>,
    /// PKCS#8.
    pub key: Vec<u8>,
}

impl Issued {
    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }
}

/// A CA.
pub struct Authority {
    name: String,
    key: Vec<u8>,
    /// The CA's own certificate.
    pub der: Vec<u8>,
}

impl Authority {
    /// Creates a self-signed CA.
    pub fn new(name: &str) -> Authority {
        let Issued { der, key } = self_signed(&Spec { is_authority: true, ..Spec::new(name) });
        Authority { name: name.to_string(), key, der }
    }

    /// A CA signed by this one.
    pub fn intermediate(&self, name: &str) -> Authority {
        self.intermediate_of(&Spec::new(name))
    }

    /// A CA signed by this one, as `spec` says.
    pub fn intermediate_of(&self, spec: &Spec<'_>) -> Authority {
        let Issued { der, key } = self.issue(&Spec { is_authority: true, ..*spec });
        Authority { name: spec.subject.to_string(), key, der }
    }

    /// The CA's own certificate as PEM.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    /// A certificate signed by this CA.
    pub fn issue(&self, spec: &Spec<'_>) -> Issued {
        let key = new_key();
        Issued { der: certificate(spec, &self.name, &key, &self.key), key }
    }
}

/// A certificate signed by its own key.
pub fn self_signed(spec: &Spec<'_>) -> Issued {
    let key = new_key();
    Issued { der: certificate(spec, spec.subject, &key, &key), key }
}

/// A PKCS#8 Ed25519 key. Each call gives another. It is predictable, which does not matter here.
fn new_key() -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut key = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    key.extend([count, !count, u64::from(std::process::id()), 7].iter().flat_map(|part| part.to_be_bytes()));
    key
}

fn certificate(spec: &Spec<'_>, issuer: &str, key: &[u8], issuer_key: &[u8]) -> Vec<u8> {
    let signing = |key: &[u8]| any_eddsa_type(&PrivatePkcs8KeyDer::from(key)).expect("it is an Ed25519 key");
    let public = signing(key).public_key().expect("an Ed25519 key has one").to_vec();
    let validity = der(SEQUENCE, &[&time(spec.not_before), &time(spec.not_after)]);
    let body = der(
        SEQUENCE,
        &[
            // Version 3, and a serial number taken from the key.
            b"\xa0\x03\x02\x01\x02",
            &der(0x02, &[b"\x01", &key[key.len() - 32..][..8]]),
            ED25519,
            &name(issuer),
            &validity,
            &name(spec.subject),
            &public,
            &der(0xa3, &[&der(SEQUENCE, &[&extensions(spec)])]),
        ],
    );
    let signer = signing(issuer_key).choose_scheme(&[SignatureScheme::ED25519]).expect("it signs with Ed25519");
    let signature = signer.sign(&body).expect("Ed25519 signs anything");
    der(SEQUENCE, &[&body, ED25519, &der(0x03, &[b"\0", &signature])])
}

fn extensions(spec: &Spec<'_>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if spec.is_authority {
        // basicConstraints, critical: CA.
        extensions.extend(b"\x30\x0f\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x05\x30\x03\x01\x01\xff");
    } else {
        // basicConstraints, critical: not a CA. The list of extensions must not be empty.
        extensions.extend(b"\x30\x0c\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x02\x30\x00");
    }
    if !spec.names.is_empty() {
        let names: Vec<Vec<u8>> = spec.names.iter().map(|name| alternative_name(name)).collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let value = der(0x04, &[&der(SEQUENCE, &names)]);
        extensions.extend(der(SEQUENCE, &[b"\x06\x03\x55\x1d\x11", &value]));
    }
    extensions
}

fn alternative_name(name: &str) -> Vec<u8> {
    match name.parse() {
        Ok(std::net::IpAddr::V4(ip)) => der(0x87, &[&ip.octets()]),
        Ok(std::net::IpAddr::V6(ip)) => der(0x87, &[&ip.octets()]),
        Err(_) => der(0x82, &[name.as_bytes()]),
    }
}

fn name(common: &str) -> Vec<u8> {
    let attribute = |last: u8, text: &str| {
        let attribute = der(SEQUENCE, &[&der(0x06, &[&[0x55, 0x04, last]]), &der(0x0c, &[text.as_bytes()])]);
        der(0x31, &[&attribute])
    };
    der(SEQUENCE, &[&attribute(10, "Tests"), &attribute(3, common)])
}

/// The format depends on the year (RFC 5280, 4.1.2.5).
fn time(text: &str) -> Vec<u8> {
    let year: u32 = text[..4].parse().expect("a time begins with a year");
    match year {
        1950..2050 => der(0x17, &[&text.as_bytes()[2..], b"Z"]),
        _ => der(0x18, &[text.as_bytes(), b"Z"]),
    }
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(parts.concat());
    out
}

/// `bytes` as PEM under `label`.
pub fn pem(label: &str, bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in bytes.chunks(48) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for n in 0..4 {
                let digit = char::from(DIGITS[(bits >> (18 - 6 * n)) as usize & 63]);
                text.push(if n <= three.len() { digit } else { '=' });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

//! A certificate for development (`--tls-dev`): generated, self-signed, for this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::pair::Pair;
use crate::limits::{DEV_VALIDITY_S, SECOND_US};
use crate::log::timestamp;

const SEQUENCE: u8 = 0x30;
/// The algorithm ecdsa-with-SHA256 (RFC 5758, section 3.2).
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// The algorithm of a key on P-256 (RFC 5480, section 2.1).
const EC_P256: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
/// basicConstraints, critical: it is no authority.
const NO_AUTHORITY: &[u8] = b"\x30\x0c\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x02\x30\x00";
/// extKeyUsage: serverAuth.
const FOR_SERVERS: &[u8] = b"\x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01";

/// Generates a certificate for localhost and for this host name, and its key.
///
/// # Errors
/// There are no random numbers.
pub fn pair(host: &str) -> Result<Pair, String> {
    let unusable = |_| "no certificate can be generated: there are no random numbers".to_owned();
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(unusable)?;
    let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random);
    let signing = signing.map_err(|error| error.to_string())?;
    let mut serial = [0; 16];
    random.fill(&mut serial).map_err(unusable)?;
    // A serial number is positive, and its first byte is not 0 (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 1;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let validity = [time(now_s.saturating_sub(3600)), time(now_s + DEV_VALIDITY_S)].concat();
    let name = name("load_balancer --tls-dev");
    let public = [&[0], signing.public_key().as_ref()].concat();
    let body = [
        &b"\xa0\x03\x02\x01\x02"[..],
        &der(0x02, &serial),
        ECDSA_SHA256,
        &name,
        &der(SEQUENCE, &validity),
        &name,
        &der(SEQUENCE, &[EC_P256, &der(0x03, &public)].concat()),
        &der(0xa3, &der(SEQUENCE, &[NO_AUTHORITY, FOR_SERVERS, &alternative_names(host)].concat())),
    ];
    let body = der(SEQUENCE, &body.concat());
    let signature = signing.sign(&random, &body).map_err(unusable)?;
    let signature = der(0x03, &[&[0], signature.as_ref()].concat());
    let certificate = der(SEQUENCE, &[&body, ECDSA_SHA256, &signature].concat());
    let key = PrivatePkcs8KeyDer::from(key.as_ref().to_vec());
    Pair::new(vec![CertificateDer::from(certificate)], key.into()).map_err(|error| error.to_string())
}

fn alternative_names(host: &str) -> Vec<u8> {
    let mut names = der(0x82, b"localhost");
    if host != "localhost" && !host.is_empty() && host.is_ascii() {
        names.extend(der(0x82, host.as_bytes()));
    }
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        match address {
            IpAddr::V4(v4) => names.extend(der(0x87, &v4.octets())),
            IpAddr::V6(v6) => names.extend(der(0x87, &v6.octets())),
        }
    }
    let value = der(0x04, &der(SEQUENCE, &names));
    der(SEQUENCE, &[&b"\x06\x03\x55\x1d\x11"[..], &value].concat())
}

fn name(common: &str) -> Vec<u8> {
    let attribute = [&b"\x06\x03\x55\x04\x03"[..], &der(0x0c, common.as_bytes())].concat();
    der(SEQUENCE, &der(0x31, &der(SEQUENCE, &attribute)))
}

/// Writes a time in seconds since 1970 as `YYMMDDHHMMSSZ` (RFC 5280, section 4.1.2.5.1). This form has no year from 2050
/// on.
fn time(seconds: u64) -> Vec<u8> {
    let stamp = timestamp(seconds.saturating_mul(SECOND_US));
    let mut text: Vec<u8> = stamp[2..19].iter().copied().filter(u8::is_ascii_digit).collect();
    text.push(b'Z');
    der(0x17, &text)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..0x80 => out.push(length as u8),
        length @ 0x80..0x100 => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_certificate_is_for_this_machine_and_each_is_another() {
        let one = pair("dev-box").unwrap();
        assert_eq!(one.names().to_string(), "localhost, dev-box, 127.0.0.1, ::1");
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!(one.not_after_s() > now_s + DEV_VALIDITY_S as i64 - 60);
        assert_ne!(one.digest(), pair("").unwrap().digest());
        assert_eq!(pair("").unwrap().names().to_string(), "localhost, 127.0.0.1, ::1");
    }
}

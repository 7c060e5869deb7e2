//! The contents of a certificate (X.509, RFC 5280): subject, issuer, validity, names.
//!
//! For the log, the trace and `--check`: no decision to trust depends on it. Pure,
//! without allocation until text is made, and each byte is read a bounded number of times. Only DER is
//! accepted: definite lengths, in the shortest form, at most 2^32 - 1.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::algorithm::{self, Algorithm};
use crate::limits::{RSA_BITS, SHOWN_CERTIFICATE_NAMES, SHOWN_SUBJECT_CHARS};

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, constructed: the version of a certificate.
const VERSION: u8 = 0xa0;
/// `[3]`, constructed: its extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[2]`: a DNS name among the alternative names.
const DNS_NAME: u8 = 0x82;
/// `[7]`: an IP address among them.
const IP_ADDRESS: u8 = 0x87;
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
/// id-ce-basicConstraints, 2.5.29.19.
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
/// Attribute types of 2.5.4 that have a short name (RFC 4514, section 3), by their last number.
const ATTRIBUTES: [(u8, &str); 7] =
    [(3, "CN"), (5, "serialNumber"), (6, "C"), (7, "L"), (8, "ST"), (10, "O"), (11, "OU")];

/// The bytes are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a certificate")
    }
}

/// Parts of a certificate, as ranges of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    /// The contents of the subject's alternative names; empty if there are none.
    names: &'a [u8],
    /// It may sign others (RFC 5280, section 4.2.1.9).
    is_authority: bool,
    not_before_s: i64,
    not_after_s: i64,
    /// The contents of the AlgorithmIdentifiers of its key and of its signature, and the signature's size in bytes.
    key: &'a [u8],
    /// The key without its algorithm; empty if there is none.
    public_key: &'a [u8],
    signature: &'a [u8],
    /// The signature itself, and the bytes that it is over.
    signature_value: &'a [u8],
    signed: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate in DER, trailing bytes refused (RFC 5280, section 4.1).
    pub fn read(der: &'a [u8]) -> Result<Certificate<'a>, Malformed> {
        let mut outside = Reader(der);
        let mut whole = Reader(outside.take(SEQUENCE)?);
        outside.end()?;
        let content = whole.0;
        let mut body = Reader(whole.take(SEQUENCE)?);
        let signed = &content[..content.len() - whole.0.len()];
        let signature = whole.take(SEQUENCE)?;
        // The first byte is the count of unused bits in the last one: 0.
        let signature_value = whole.take(BIT_STRING)?.get(1..).unwrap_or_default();
        body.take_if(VERSION)?;
        body.take(INTEGER)?;
        body.take(SEQUENCE)?;
        let issuer = body.take(SEQUENCE)?;
        let mut validity = Reader(body.take(SEQUENCE)?);
        let not_before_s = validity.time()?;
        let not_after_s = validity.time()?;
        let subject = body.take(SEQUENCE)?;
        let mut key_info = Reader(body.take(SEQUENCE)?);
        let key = key_info.take(SEQUENCE)?;
        let public_key = key_info.take_if(BIT_STRING)?.and_then(|bits| bits.get(1..)).unwrap_or_default();
        // Two optional identifiers, which are practically unused, precede the extensions.
        body.take_if(0x81)?;
        body.take_if(0x82)?;
        let (names, is_authority) = match body.take_if(EXTENSIONS)? {
            Some(extensions) => read_extensions(extensions)?,
            None => (&[][..], false),
        };
        Ok(Certificate {
            issuer,
            subject,
            names,
            is_authority,
            not_before_s,
            not_after_s,
            key,
            public_key,
            signature,
            signature_value,
            signed,
        })
    }

    /// True if the certificate names itself as its issuer: nearly always self-signed.
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// The algorithm of its key, or else of its signature, if it cannot be verified.
    pub fn unverifiable(&self) -> Option<Algorithm> {
        let signed = || algorithm::named(self.signature).filter(|_| !self.signed_by_supported_pss());
        let short = || algorithm::short_rsa(self.signature, self.signature_value.len());
        algorithm::named(self.key).or_else(signed).or_else(short)
    }

    /// Returns the algorithm of its key, if ring cannot sign with a key of this kind.
    pub fn unsupported_key(&self) -> Option<Algorithm> {
        let size = || self.rsa_bits().filter(|bits| !RSA_BITS.contains(bits)).map(Algorithm::Rsa);
        algorithm::named(self.key).or_else(size)
    }

    /// Returns the algorithm of its key or signature that is broken or too short. A certificate that has signed itself is
    /// trusted for other reasons, so its signature does not matter.
    pub fn weakness(&self) -> Option<Algorithm> {
        let bits = || self.rsa_bits().filter(|bits| bits < RSA_BITS.start()).map(Algorithm::Rsa);
        let short = || algorithm::short_rsa(self.signature, self.signature_value.len());
        let signed = || algorithm::weak(self.signature).or_else(short).filter(|_| !self.is_self_issued());
        algorithm::weak(self.key).or_else(bits).or_else(signed)
    }

    /// True if it may sign other certificates.
    pub fn is_authority(&self) -> bool {
        self.is_authority
    }

    /// True if it names another one as its issuer.
    pub fn names_issuer(&self, issuer: &Certificate<'_>) -> bool {
        self.issuer == issuer.subject
    }

    /// True if the key of another certificate has signed this one. `None`: the algorithm cannot be verified.
    pub fn is_signed_by(&self, issuer: &Certificate<'_>) -> Option<bool> {
        // ring verifies with larger RSA keys than it signs with, but with no smaller ones.
        if issuer.rsa_bits().is_some_and(|bits| bits < *RSA_BITS.start()) {
            return None;
        }
        algorithm::verify(issuer.key, issuer.public_key, self.signature, self.signed, self.signature_value)
    }

    /// Returns its issuer as encoded, without its header.
    pub fn issuer_name(&self) -> &'a [u8] {
        self.issuer
    }

    /// Returns the bits of its key's modulus, if its key is RSA (RFC 8017, appendix A.1.1).
    pub fn rsa_bits(&self) -> Option<usize> {
        if !algorithm::is_rsa(self.key) {
            return None;
        }
        let modulus = Reader(self.public_key).take(SEQUENCE).and_then(|key| Reader(key).take(INTEGER)).ok()?;
        let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        let first = modulus.first()?;
        Some(8 * modulus.len() - first.leading_zeros() as usize)
    }

    /// True if the signature is RSASSA-PSS with an ordinary RSA key, which can be verified.
    fn signed_by_supported_pss(&self) -> bool {
        algorithm::named(self.signature) == Some(Algorithm::Named("RSASSA-PSS")) && algorithm::named(self.key).is_none()
    }

    /// When it becomes valid, in seconds since 1970.
    pub fn not_before_s(&self) -> i64 {
        self.not_before_s
    }

    /// When it expires, in seconds since 1970; it is valid until the end of that second.
    pub fn not_after_s(&self) -> i64 {
        self.not_after_s
    }

    /// Its subject as text, `CN=a, O=b` in the encoded order, truncated if it is long.
    pub fn subject(&self) -> String {
        distinguished(self.subject)
    }

    /// Its issuer as text, in the same form.
    pub fn issuer(&self) -> String {
        distinguished(self.issuer)
    }

    /// The DNS names and addresses that it is for; names of other kinds are left out.
    pub fn names(&self) -> Names<'a> {
        Names(Reader(self.names))
    }

    /// Returns the first names as text, and the count of the others.
    pub fn shown_names(&self) -> String {
        let mut text = String::new();
        for name in self.names().take(SHOWN_CERTIFICATE_NAMES) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{name}", if text.is_empty() { "" } else { ", " });
        }
        match self.names().count() {
            0 => text.push_str("none"),
            count if count > SHOWN_CERTIFICATE_NAMES => {
                let _ = write!(text, " and {} more", count - SHOWN_CERTIFICATE_NAMES);
            }
            _ => {}
        }
        text
    }
}

/// A name that a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A host's name, perhaps with `*` as its first label; the bytes are as sent.
    Dns(&'a [u8]),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Dns(name) => write!(f, "{}", name.escape_ascii()),
            Name::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

/// The names of a certificate; ends early at malformed data.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a>(Reader<'a>);

impl<'a> Iterator for Names<'a> {
    type Item = Name<'a>;

    fn next(&mut self) -> Option<Name<'a>> {
        loop {
            match self.0.element().ok()? {
                (DNS_NAME, name) => return Some(Name::Dns(name)),
                (IP_ADDRESS, bytes) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
                        return Some(Name::Ip(Ipv4Addr::from(v4).into()));
                    }
                    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
                        return Some(Name::Ip(Ipv6Addr::from(v6).into()));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Returns the contents of the alternative names, and true if the certificate may sign others.
fn read_extensions(extensions: &[u8]) -> Result<(&[u8], bool), Malformed> {
    let mut outer = Reader(extensions);
    let mut list = Reader(outer.take(SEQUENCE)?);
    let (mut names, mut is_authority) = (&[][..], false);
    while !list.0.is_empty() {
        let mut extension = Reader(list.take(SEQUENCE)?);
        let oid = extension.take(OID)?;
        extension.take_if(BOOLEAN)?;
        let value = extension.take(OCTET_STRING)?;
        if oid == SUBJECT_ALT_NAME {
            names = Reader(value).take(SEQUENCE)?;
        } else if oid == BASIC_CONSTRAINTS {
            let flag = Reader(Reader(value).take(SEQUENCE)?).take_if(BOOLEAN)?;
            is_authority = flag.is_some_and(|flag| flag != [0]);
        }
    }
    Ok((names, is_authority))
}

/// A distinguished name as text. The peer chose its contents, so special characters are escaped.
fn distinguished(name: &[u8]) -> String {
    let mut text = String::new();
    let mut sets = Reader(name);
    while let Ok(set) = sets.take(SET) {
        let mut attributes = Reader(set);
        while let Ok(attribute) = attributes.take(SEQUENCE) {
            let mut attribute = Reader(attribute);
            let (Ok(oid), Ok((tag, value))) = (attribute.take(OID), attribute.element()) else { break };
            if !text.is_empty() {
                text.push_str(", ");
            }
            push_type(&mut text, oid);
            text.push('=');
            push_value(&mut text, tag, value);
            if let Some((cut, _)) = text.char_indices().nth(SHOWN_SUBJECT_CHARS) {
                text.truncate(cut);
                text.push('…');
                return text;
            }
        }
    }
    if text.is_empty() {
        text.push_str("empty");
    }
    text
}

fn push_type(text: &mut String, oid: &[u8]) {
    let known = match oid {
        [0x55, 0x04, last] => ATTRIBUTES.iter().find(|(number, _)| number == last),
        _ => None,
    };
    match known {
        Some((_, name)) => text.push_str(name),
        // RFC 4514 would have it in dots; that is more than the trace needs.
        None => oid.iter().take(16).for_each(|byte| _ = write!(text, "{byte:02x}")),
    }
}

fn push_value(text: &mut String, tag: u8, value: &[u8]) {
    // No character has more than four bytes.
    let value = &value[..value.len().min(4 * SHOWN_SUBJECT_CHARS)];
    let plain = |c: char| !c.is_control() && c != ',' && c != '\\';
    match tag {
        UTF8_STRING | PRINTABLE_STRING | TELETEX_STRING | IA5_STRING => {
            for c in String::from_utf8_lossy(value).chars() {
                match c {
                    c if plain(c) => text.push(c),
                    ',' | '\\' => text.extend(['\\', c]),
                    c => text.extend(c.escape_unicode()),
                }
            }
        }
        BMP_STRING => {
            let units = value.as_chunks::<2>().0.iter().map(|unit| u16::from_be_bytes(*unit));
            let chars = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
            text.extend(chars.map(|c| if plain(c) { c } else { '?' }));
        }
        _ => text.push('?'),
    }
}

/// DER not read yet.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The tag and contents of the next element. Tags longer than one byte do not occur in certificates.
    fn element(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let [tag, length, rest @ ..] = self.0 else { return Err(Malformed) };
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (length, rest) = match *length {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f)).ok_or(Malformed)?;
                let length = bytes.iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
                // DER requires the shortest form: no leading zero, and the long form only if necessary.
                if bytes[0] == 0 || length < 0x80 {
                    return Err(Malformed);
                }
                (usize::try_from(length).map_err(|_| Malformed)?, rest)
            }
            _ => return Err(Malformed),
        };
        let (contents, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok((*tag, contents))
    }

    /// The contents of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let (found, contents) = self.element()?;
        if found == tag { Ok(contents) } else { Err(Malformed) }
    }

    /// The contents of the next element, if it has this tag.
    fn take_if(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// A time, in seconds since 1970: in UTC and to the second, as certificates have to have it
    /// (RFC 5280, section 4.1.2.5).
    fn time(&mut self) -> Result<i64, Malformed> {
        let (tag, text) = self.element()?;
        let [digits @ .., b'Z'] = text else { return Err(Malformed) };
        let (year, rest) = match (tag, digits.len()) {
            (UTC_TIME, 12) => {
                let year = number(&digits[..2])?;
                (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
            }
            (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
            _ => return Err(Malformed),
        };
        let part = |at: usize, most: i64| number(&rest[at..at + 2]).ok().filter(|value| *value <= most);
        let (month, day) = (part(0, 12).ok_or(Malformed)?, part(2, 31).ok_or(Malformed)?);
        let (hour, minute) = (part(4, 23).ok_or(Malformed)?, part(6, 59).ok_or(Malformed)?);
        let second = part(8, 59).ok_or(Malformed)?;
        if month == 0 || day == 0 {
            return Err(Malformed);
        }
        Ok(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }
}

fn number(digits: &[u8]) -> Result<i64, Malformed> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + i64::from(digit - b'0')),
        _ => Err(Malformed),
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, with years that begin in March so
/// that the leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::issue::{Authority, Spec};

    #[test]
    fn reads_what_was_written() {
        let authority = Authority::new("Test Root, of \u{1}");
        let spec = Spec {
            names: &["a.test", "*.b.test", "127.0.0.1", "::1"],
            not_before: "20200229235959",
            not_after: "21000301000000",
            ..Spec::new("a.test")
        };
        let issued = authority.issue(&spec);
        let certificate = Certificate::read(&issued.der).unwrap();
        assert_eq!(certificate.subject(), "O=Tests, CN=a.test");
        assert_eq!(certificate.issuer(), "O=Tests, CN=Test Root\\, of \\u{1}");
        assert!(!certificate.is_self_issued());
        assert_eq!(certificate.not_before_s(), 1_583_020_799);
        assert_eq!(certificate.not_after_s(), 4_107_542_400);
        let shown: Vec<String> = certificate.names().map(|name| name.to_string()).collect();
        assert_eq!(shown, ["a.test", "*.b.test", "127.0.0.1", "::1"]);
        let root = Certificate::read(&authority.der).unwrap();
        assert!(root.is_self_issued());
        assert_eq!(root.shown_names(), "none");
    }

    #[test]
    fn shows_some_of_many_names() {
        let names: Vec<String> = (0..SHOWN_CERTIFICATE_NAMES + 3).map(|n| format!("n{n}.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let issued = Authority::new("Root").issue(&Spec { names: &names, ..Spec::new("x") });
        let shown = Certificate::read(&issued.der).unwrap().shown_names();
        assert!(shown.starts_with("n0.test, n1.test") && shown.ends_with(" and 3 more"), "{shown}");
    }

    #[test]
    fn cuts_a_long_subject() {
        let issued = Authority::new("Root").issue(&Spec::new(&"\u{e9}".repeat(5000)));
        let subject = Certificate::read(&issued.der).unwrap().subject();
        assert!(subject.starts_with("O=Tests, CN=\u{e9}") && subject.ends_with('…'));
        assert!(subject.chars().count() <= SHOWN_SUBJECT_CHARS + 1);
    }

    #[test]
    fn refuses_what_is_cut_off_or_runs_on() {
        let der = Authority::new("Root").issue(&Spec::new("a.test")).der;
        for length in 0..der.len() {
            assert_eq!(Certificate::read(&der[..length]).err(), Some(Malformed), "cut at {length}");
        }
        let mut longer = der.clone();
        longer.push(0);
        assert!(Certificate::read(&longer).is_err());
    }

    #[test]
    fn refuses_lengths_that_are_not_in_the_shortest_form() {
        for bytes in [&b"\x30\x81\x01\x00"[..], b"\x30\x82\x00\x80", b"\x30\x80\x00\x00", b"\x30\x85\0\0\0\0\0"] {
            let mut padded = bytes.to_vec();
            padded.resize(200, 0);
            assert!(Reader(&padded).element().is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn reads_times_of_both_forms() {
        let time = |tag: u8, text: &str| {
            let mut der = vec![tag, text.len() as u8];
            der.extend_from_slice(text.as_bytes());
            Reader(&der).time()
        };
        assert_eq!(time(UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(time(UTC_TIME, "491231235959Z"), Ok(2_524_607_999));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Ok(-631_152_000));
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Ok(253_402_300_799));
        assert_eq!(time(GENERALIZED_TIME, "00000101000000Z"), Ok(-62_167_219_200));
        for wrong in ["7001010000Z", "700101000000", "701301000000Z", "700100000000Z", "70010100000aZ"] {
            assert_eq!(time(UTC_TIME, wrong), Err(Malformed), "{wrong}");
        }
    }
}

//! Certificates: any bytes as a certificate, and as the subject and alternative names of one. The results stay
//! within their limits, and text chosen by a peer is harmless when it is shown.

use zzz_lb::limits::{SHOWN_CERTIFICATE_NAMES, SHOWN_SUBJECT_CHARS};
use zzz_lb::tls::certificate::Certificate;
use zzz_lb::tls::chain;

/// The earliest representable second, in the year 0, in seconds since 1970.
const EARLIEST_S: i64 = -62_167_219_200;
/// One past the latest, in the year 9999, with a margin for days past the end of December.
const LATEST_S: i64 = 253_402_300_800 + 31 * 86_400;

/// Panics if a limit is exceeded.
pub fn run(data: &[u8]) {
    check(data);
    let around = around(data);
    check(&around);
    if data.len() < 10_000 {
        assert!(Certificate::read(&around).is_ok(), "what is around them is right");
    }
}

fn check(der: &[u8]) {
    let Ok(certificate) = Certificate::read(der) else { return };
    for text in [certificate.subject(), certificate.issuer()] {
        assert!(text.chars().count() <= SHOWN_SUBJECT_CHARS + 1 && !text.is_empty());
        assert!(!text.contains(char::is_control));
    }
    for time_s in [certificate.not_before_s(), certificate.not_after_s()] {
        assert!((EARLIEST_S..LATEST_S).contains(&time_s));
    }
    let _ = certificate.unverifiable().map(|algorithm| algorithm.to_string());
    let _ = (certificate.is_authority(), certificate.weakness(), certificate.is_signed_by(&certificate));
    let findings = chain::examine([der, der, &around(&der[..der.len().min(500)])], 0, |name| name.len() % 2 == 0);
    assert!(findings.len() <= 3 * 4 && findings.iter().all(|finding| (1..=3).contains(&finding.number)));
    assert!(findings.iter().all(|finding| !finding.to_string().contains(char::is_control)));
    assert!(chain::examine_authorities([der], 0).len() <= 3);
    let count = certificate.names().count();
    assert!(count <= der.len() / 2);
    let shown = certificate.shown_names();
    assert!(shown.is_ascii() && !shown.contains(|c: char| c.is_control()));
    let more = format!(" and {} more", count.saturating_sub(SHOWN_CERTIFICATE_NAMES));
    assert!(count <= SHOWN_CERTIFICATE_NAMES || shown.ends_with(&more));
}

/// A certificate made from the data: the first byte is the length of the subject, and the rest are the names.
fn around(data: &[u8]) -> Vec<u8> {
    let (length, rest) = data.split_first().unwrap_or((&0, &[]));
    let (subject, names) = rest.split_at(rest.len().min(usize::from(*length)));
    let validity = [der(0x17, &[b"200101000000Z"]), der(0x18, &[b"21000101000000Z"])].concat();
    let names = der(0x04, &[&der(0x30, &[names])]);
    let extension = der(0x30, &[b"\x06\x03\x55\x1d\x11", &names]);
    let extensions = der(0xa3, &[&der(0x30, &[&extension])]);
    let body = [
        b"\x02\x01\x01\x30\x00\x30\x00",
        &der(0x30, &[&validity])[..],
        &der(0x30, &[subject]),
        b"\x30\x02\x30\x00",
        &extensions,
    ];
    der(0x30, &[&der(0x30, &body), b"\x30\x00\x03\x01\x00"])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let mut out = vec![tag];
    match contents.len() {
        length @ 0..0x80 => out.push(length as u8),
        length @ 0x80..0x100 => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(contents);
    out
}

//! The faults of certificates that are served, as `--check` and a start report them.
//!
//! A chain is the leaf and its issuers, each behind the certificate that it has signed (RFC 8446, section 4.4.2). The root
//! may be left out. The program serves any chain: clients judge it, and not all of them in the same way. So a fault here
//! is a warning, except that all clients refuse a leaf outside of its validity. They may build a path without an
//! intermediate certificate that has expired.

use std::fmt;

use super::algorithm::Algorithm;
use super::certificate::Certificate;
use crate::collections::order;
use crate::limits::{EXPIRY_LOGGED_S, EXPIRY_WARNING_S};

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

/// A fault of one certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The number of the certificate in its file, from 1 on.
    pub number: usize,
    /// The fault.
    pub fault: Fault,
}

/// A fault of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has expired, this many seconds ago.
    Expired(i64),
    /// It becomes valid in this many seconds.
    NotYetValid(i64),
    /// It expires in this many seconds.
    Expires(i64),
    /// It is the issuer of the certificate with this number, and is not directly behind that.
    OutOfOrder(usize),
    /// It is no issuer of another one.
    Unrelated,
    /// Its issuer, with this name, is neither in the file nor a root.
    NoIssuer(String),
    /// The certificate with this number has the name of its issuer, and has not signed it.
    NotSigned(usize),
    /// Its key or its signature is weak.
    Weak(Algorithm),
    /// It is for no name.
    NoNames,
    /// An authority for clients may not sign others. The name of its issuer; `None`: it has signed itself.
    NoAuthority(Option<String>),
}

impl Finding {
    /// True if no client accepts the chain.
    pub fn is_fatal(&self) -> bool {
        self.number == 1 && self.is_invalid()
    }

    /// True if the time is outside of the certificate's validity.
    fn is_invalid(&self) -> bool {
        matches!(self.fault, Fault::Expired(_) | Fault::NotYetValid(_))
    }

    /// True if a start or a reload logs it, and not only `--check`.
    pub fn is_urgent(&self) -> bool {
        self.is_invalid()
            || matches!(self.fault, Fault::Expires(left_s) if left_s < EXPIRY_LOGGED_S)
            || matches!(self.fault, Fault::OutOfOrder(_) | Fault::NoAuthority(Some(_)))
    }
}

/// Says which certificate it is, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} ", self.number)?;
        match &self.fault {
            Fault::Expired(ago_s) => write!(f, "expired {} ago: renew it", Span(*ago_s)),
            Fault::NotYetValid(in_s) => write!(f, "is not valid yet, but in {}: check the clock", Span(*in_s)),
            Fault::Expires(in_s) => write!(f, "expires in {}: renew it", Span(*in_s)),
            Fault::OutOfOrder(of) => {
                write!(f, "is out of order: it is the issuer of certificate {of}; put it directly behind that")
            }
            Fault::Unrelated => f.write_str("does not belong to the chain of certificate 1: remove it"),
            Fault::NoIssuer(issuer) => write!(
                f,
                "has an issuer that is neither in the file nor a root of this system ({issuer}): append the \
                 intermediate certificates, unless all clients trust this issuer"
            ),
            Fault::NotSigned(by) => write!(
                f,
                "was not signed by certificate {by}, which has the name of its issuer: put the right one in its place"
            ),
            Fault::Weak(algorithm) => write!(f, "is weak ({algorithm}), and clients refuse it: get another one"),
            Fault::NoNames => {
                f.write_str("is for no name (it has no subjectAltName), so no client accepts it: get another one")
            }
            Fault::NoAuthority(Some(issuer)) => write!(
                f,
                "is no authority (it has no CA:TRUE): clients that have it as their certificate are refused; take its \
                 issuer ({issuer}) instead"
            ),
            Fault::NoAuthority(None) => f.write_str(
                "is no authority (it has no CA:TRUE): it verifies only itself, and certificates that its key has signed",
            ),
        }
    }
}

/// A time in days, or in hours below a day.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = if self.0 < DAY_S { (self.0 / HOUR_S, "hour") } else { (self.0 / DAY_S, "day") };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

/// Returns the faults of a chain as in its file, the leaf first. Malformed certificates end it. `is_root`: true for the
/// name of a root that clients know, as it is encoded. `now_s`: the time in seconds since 1970.
pub fn examine<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    now_s: i64,
    is_root: impl Fn(&[u8]) -> bool,
) -> Vec<Finding> {
    let chain: Vec<Certificate<'_>> = chain.into_iter().map_while(|der| Certificate::read(der).ok()).collect();
    let mut findings = Vec::new();
    let Some(leaf) = chain.first() else { return findings };
    if leaf.names().next().is_none() {
        findings.push(Finding { number: 1, fault: Fault::NoNames });
    }
    let path = path(&chain, &mut findings);
    for (at, certificate) in chain.iter().enumerate() {
        let number = at + 1;
        if !path.contains(&at) {
            findings.push(Finding { number, fault: Fault::Unrelated });
            continue;
        }
        // Clients have roots of their own, so one in the file does not count.
        if at == 0 || !certificate.is_self_issued() {
            findings.extend(validity(certificate, now_s).map(|fault| Finding { number, fault }));
            findings.extend(certificate.weakness().map(|weak| Finding { number, fault: Fault::Weak(weak) }));
        }
    }
    let last = path.last().copied().unwrap_or_default();
    let end = &chain[last];
    if !end.is_self_issued() && !is_root(end.issuer_name()) {
        findings.push(Finding { number: last + 1, fault: Fault::NoIssuer(end.issuer()) });
    }
    order::sort_few(&mut findings, |one, other| one.number > other.number);
    findings
}

/// Returns the faults of authorities for clients. The library takes the name and the key of each of them and nothing
/// else, so one without CA:TRUE verifies the certificates that its key has signed.
pub fn examine_authorities<'a>(authorities: impl IntoIterator<Item = &'a [u8]>, now_s: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, der) in authorities.into_iter().enumerate() {
        let Ok(certificate) = Certificate::read(der) else { continue };
        let issuer = || (!certificate.is_self_issued()).then(|| certificate.issuer());
        let authority = (!certificate.is_authority()).then(|| Fault::NoAuthority(issuer()));
        let faults = [authority, validity(&certificate, now_s), certificate.weakness().map(Fault::Weak)];
        findings.extend(faults.into_iter().flatten().map(|fault| Finding { number: at + 1, fault }));
    }
    findings
}

/// Follows the issuers from the leaf on. Returns the places of the certificates, and adds the faults of their order.
fn path(chain: &[Certificate<'_>], findings: &mut Vec<Finding>) -> Vec<usize> {
    let mut path = vec![0];
    let mut at = 0;
    while !chain[at].is_self_issued() {
        let of = &chain[at];
        let is_issuer = |&place: &usize| !path.contains(&place) && of.names_issuer(&chain[place]);
        // Several certificates may have one name: that in its place counts, unless another one has signed.
        let candidates = (at + 1..chain.len()).chain(0..at).filter(is_issuer);
        let signed = candidates.clone().find(|&place| of.is_signed_by(&chain[place]) != Some(false));
        let Some(issuer) = signed.or_else(|| candidates.clone().next()) else { break };
        if signed.is_none() {
            findings.push(Finding { number: at + 1, fault: Fault::NotSigned(issuer + 1) });
        }
        // The first fault of the order says enough.
        if issuer != at + 1 && !findings.iter().any(|finding| matches!(finding.fault, Fault::OutOfOrder(_))) {
            findings.push(Finding { number: issuer + 1, fault: Fault::OutOfOrder(at + 1) });
        }
        path.push(issuer);
        at = issuer;
    }
    path
}

fn validity(certificate: &Certificate<'_>, now_s: i64) -> Option<Fault> {
    let left_s = certificate.not_after_s() - now_s;
    let until_s = certificate.not_before_s() - now_s;
    match (left_s, until_s) {
        (..0, _) => Some(Fault::Expired(-left_s)),
        (_, 1..) => Some(Fault::NotYetValid(until_s)),
        (..EXPIRY_WARNING_S, _) => Some(Fault::Expires(left_s)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::issue::{Authority, Spec, self_signed};

    /// 2026-01-01.
    const NOW_S: i64 = 1_767_225_600;

    fn told(chain: &[&[u8]], is_root: bool) -> Vec<String> {
        let findings = examine(chain.iter().copied(), NOW_S, |_| is_root);
        findings.iter().map(Finding::to_string).collect()
    }

    fn leaf<'a>() -> Spec<'a> {
        Spec { names: &["a.test"], ..Spec::new("a.test") }
    }

    #[test]
    fn a_chain_ends_at_a_root_or_at_an_issuer_that_clients_know() {
        let root = Authority::new("Root");
        let middle = root.intermediate("Middle");
        let issued = middle.issue(&leaf());
        let none: [&str; 0] = [];
        assert_eq!(told(&[&issued.der, &middle.der, &root.der], false), none);
        assert_eq!(told(&[&issued.der, &middle.der], true), none);
        assert_eq!(told(&[&issued.der], true), none);
        assert_eq!(told(&[&self_signed(&leaf()).der], false), none);
        let missing = |number: u8, name: &str| {
            vec![format!(
                "certificate {number} has an issuer that is neither in the file nor a root of this system (O=Tests, \
                 CN={name}): append the intermediate certificates, unless all clients trust this issuer"
            )]
        };
        assert_eq!(told(&[&issued.der], false), missing(1, "Middle"));
        assert_eq!(told(&[&issued.der, &middle.der], false), missing(2, "Root"));
        assert_eq!(told(&[], false), none);
    }

    #[test]
    fn a_certificate_out_of_its_place_is_named() {
        let root = Authority::new("Root");
        let (outer, other) = (root.intermediate("Outer"), Authority::new("Other"));
        let inner = outer.intermediate("Inner");
        let issued = inner.issue(&leaf());
        let out = "certificate 3 is out of order: it is the issuer of certificate 1; put it directly behind that";
        assert_eq!(told(&[&issued.der, &outer.der, &inner.der], true), [out]);
        assert_eq!(told(&[&issued.der, &outer.der, &inner.der, &root.der], true), [out]);
        let unrelated = "certificate 2 does not belong to the chain of certificate 1: remove it";
        assert_eq!(told(&[&issued.der, &other.der, &inner.der, &outer.der], true), [unrelated, out]);
        let findings = examine([&issued.der[..], &outer.der, &inner.der], NOW_S, |_| true);
        assert!(findings[0].is_urgent() && !findings[0].is_fatal());
        // Two certificates that name each other do not make it endless.
        let (one, two) = (Authority::new("One"), Authority::new("Two"));
        let (cross, back) = (one.intermediate("Two"), two.intermediate("One"));
        assert_eq!(told(&[&two.issue(&leaf()).der, &cross.der, &back.der], true).len(), 2);
    }

    #[test]
    fn an_issuer_with_the_right_name_and_another_key_is_named() {
        let (one, two) = (Authority::new("Middle"), Authority::new("Middle"));
        let issued = one.issue(&leaf());
        let wrong = "certificate 1 was not signed by certificate 2, which has the name of its issuer: put the right one in \
                     its place";
        assert_eq!(told(&[&issued.der, &two.der], true), [wrong]);
        let out = "certificate 3 is out of order: it is the issuer of certificate 1; put it directly behind that";
        let unrelated = "certificate 2 does not belong to the chain of certificate 1: remove it";
        assert_eq!(told(&[&issued.der, &two.der, &one.der], true), [unrelated, out]);
    }

    #[test]
    fn validity_is_counted_in_days_and_decides() {
        let issued = |not_before, not_after| {
            let spec = Spec { not_before, not_after, ..leaf() };
            let findings = examine([&self_signed(&spec).der[..]], NOW_S, |_| true);
            findings.first().map(|one| (one.to_string(), one.is_fatal(), one.is_urgent()))
        };
        let found = |text: &str, fatal, urgent| Some((format!("certificate 1 {text}"), fatal, urgent));
        assert_eq!(issued("20200101000000", "20260131000000"), None);
        assert_eq!(issued("20200101000000", "20260130235959"), found("expires in 29 days: renew it", false, false));
        assert_eq!(issued("20200101000000", "20260107235959"), found("expires in 6 days: renew it", false, true));
        assert_eq!(issued("20200101000000", "20260101010000"), found("expires in 1 hour: renew it", false, true));
        assert_eq!(issued("20200101000000", "20251231000000"), found("expired 1 day ago: renew it", true, true));
        let early = found("is not valid yet, but in 2 days: check the clock", true, true);
        assert_eq!(issued("20260103000000", "20270101000000"), early);
    }

    #[test]
    fn the_validity_of_an_intermediate_certificate_is_urgent_and_not_fatal() {
        let issued = |number| {
            let past = Finding { number, fault: Fault::Expired(1) };
            let future = Finding { number, fault: Fault::NotYetValid(1) };
            [past, future].map(|finding| (finding.is_fatal(), finding.is_urgent()))
        };
        assert_eq!((issued(1), issued(2)), ([(true, true); 2], [(false, true); 2]));
    }

    #[test]
    fn names_and_weak_algorithms_are_examined() {
        let none = "certificate 1 is for no name (it has no subjectAltName), so no client accepts it: get another one";
        assert_eq!(told(&[&self_signed(&Spec::new("a.test")).der], false), [none]);
        let weak = "certificate 1 is weak (RSA with 1024 bits), and clients refuse it: get another one";
        let told =
            told(&[include_bytes!("unverifiable/rsa1024.der"), include_bytes!("unverifiable/rsa1024-ca.der")], true);
        assert!(told.iter().any(|one| one == weak), "{told:?}");
    }

    #[test]
    fn an_authority_of_clients_has_to_be_one() {
        let root = Authority::new("Root");
        let (issued, own) = (root.issue(&Spec::new("client")), self_signed(&Spec::new("own")));
        let findings = examine_authorities([&root.der[..], &issued.der, &own.der], NOW_S);
        let texts = [
            "certificate 2 is no authority (it has no CA:TRUE): clients that have it as their certificate are refused; \
             take its issuer (O=Tests, CN=Root) instead",
            "certificate 3 is no authority (it has no CA:TRUE): it verifies only itself, and certificates that its key \
             has signed",
        ];
        assert_eq!(findings.iter().map(Finding::to_string).collect::<Vec<_>>(), texts);
        assert_eq!(findings.iter().map(Finding::is_urgent).collect::<Vec<_>>(), [true, false]);
    }
}

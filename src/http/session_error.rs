//! Failures of TLS sessions. Each is a fault of the peer or of its configuration, except `Internal`.
//!
//! A [`SessionError`] repeats nothing that the peer sent. It has a few bytes, and its text is made where it is shown.
//! The sessions themselves are in `tls`; this module is apart so that the proxy can explain a failure without them.

use std::fmt;

use super::proxy_error::ProxyError;

/// The reason for which a session failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The configured name is no host name and no address, so no certificate can have it.
    Name,
    /// There are no certificate authorities to verify a certificate with.
    NoAuthorities,
    /// The certificate was refused.
    Certificate(BadCertificate),
    /// The peer ended the session with this alert.
    Refused(Alert, During),
    /// The first bytes were not TLS.
    NotTls(Plain),
    /// The peer and the program have nothing in common of this.
    Incompatible(Lacking),
    /// There is no certificate for the name that a client asked for, or it asked for none (`--tls-strict-sni`).
    UnknownName,
    /// The peer sent too many records without content.
    Flood(Flood),
    /// A record was malformed, or was not made with this session's keys.
    BadRecord(During),
    /// The peer broke the protocol in another way.
    Protocol(During),
    /// The peer ended the connection within the handshake.
    Closed,
    /// The peer ended the connection without close_notify, so the content may be cut short (RFC 8446, section 6.1).
    Truncated,
    /// The system has no random numbers or no clock. This is no fault of the peer.
    Internal,
}

/// The fault of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCertificate {
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate is valid for other names only.
    OtherName,
    /// No trusted authority has signed the certificate or its issuers.
    UnknownIssuer,
    /// The certificate has signed itself and is not trusted.
    SelfSigned,
    /// A signature in the chain is wrong.
    Signature,
    /// A signature in the chain or in the handshake uses an algorithm that cannot be verified.
    Algorithm(Algorithm),
    /// The certificate is not for servers.
    Purpose,
    /// The certificate was revoked.
    Revoked,
    /// The certificate is malformed, has an unknown critical extension, or uses obsolete algorithms.
    Unusable,
    /// The peer sent no certificate.
    None,
}

/// An algorithm that cannot be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The algorithm with this name.
    Named(&'static str),
    /// RSA with this number of bits.
    Rsa(usize),
}

/// The kind of records of which a peer sent too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Changes of its keys, one after the other (RFC 8446, section 4.6.3).
    KeyUpdates,
    /// Empty records, one after the other.
    EmptyRecords,
    /// Warnings, which TLS 1.2 allows (RFC 5246, section 7.2).
    Warnings,
    /// The begin of another handshake, which only TLS 1.2 has, although it was refused once.
    Renegotiation,
    /// Records of any kinds, in any order.
    Records,
}

/// The part of a session in which an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// Before the end of the handshake.
    Handshake,
    /// After the handshake.
    Data,
}

/// The protocol of a peer that does not speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// A backend sent an HTTP/1 response.
    Response,
    /// A client sent an HTTP/1 request.
    Request,
    /// The peer sent the first bytes of HTTP/2: a frame of SETTINGS, or the preface.
    Http2,
    /// A client sent the first bytes of a PROXY header.
    ProxyHeader,
    /// The first bytes are those of no known protocol.
    Unknown,
}

/// A feature that the peer and the program do not have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// A version of TLS from 1.2 on.
    Version,
    /// A cipher suite.
    CipherSuite,
    /// A group for the key exchange.
    Group,
    /// An application protocol.
    Protocol,
    /// A signature algorithm. Clients name none below TLS 1.2.
    Signature,
    /// A signature algorithm for a key of the certificates.
    Key,
    /// Another required feature.
    Feature,
}

/// An alert by its number (RFC 8446, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(pub u8);

/// The cause if a listener without `,proxy` gets a PROXY header.
pub const PROXY_HEADER_HINT: &str = "the bytes look like a PROXY header, which ,proxy on --listen reads";

/// The names of alerts, by number.
const ALERTS: [(u8, &str); 35] = [
    (0, "close_notify"),
    (10, "unexpected_message"),
    (20, "bad_record_mac"),
    (21, "decryption_failed"),
    (22, "record_overflow"),
    (30, "decompression_failure"),
    (40, "handshake_failure"),
    (41, "no_certificate"),
    (42, "bad_certificate"),
    (43, "unsupported_certificate"),
    (44, "certificate_revoked"),
    (45, "certificate_expired"),
    (46, "certificate_unknown"),
    (47, "illegal_parameter"),
    (48, "unknown_ca"),
    (49, "access_denied"),
    (50, "decode_error"),
    (51, "decrypt_error"),
    (60, "export_restriction"),
    (70, "protocol_version"),
    (71, "insufficient_security"),
    (80, "internal_error"),
    (86, "inappropriate_fallback"),
    (90, "user_canceled"),
    (100, "no_renegotiation"),
    (109, "missing_extension"),
    (110, "unsupported_extension"),
    (111, "certificate_unobtainable"),
    (112, "unrecognized_name"),
    (113, "bad_certificate_status_response"),
    (114, "bad_certificate_hash_value"),
    (115, "unknown_psk_identity"),
    (116, "certificate_required"),
    (120, "no_application_protocol"),
    (121, "ech_required"),
];

impl Alert {
    const HANDSHAKE_FAILURE: Alert = Alert(40);
    const CERTIFICATE_REQUIRED: Alert = Alert(116);
    const NO_APPLICATION_PROTOCOL: Alert = Alert(120);
}

impl SessionError {
    /// Returns an alert that refuses the handshake as one within the handshake. In TLS 1.3 it may arrive after the end
    /// of the handshake (RFC 8446, section 4.4.2.4): a peer that requires a client certificate and gets none has
    /// processed nothing that was sent after that.
    pub fn as_refused_handshake(self) -> Option<SessionError> {
        (self == SessionError::Refused(Alert::CERTIFICATE_REQUIRED, During::Data))
            .then_some(SessionError::Refused(Alert::CERTIFICATE_REQUIRED, During::Handshake))
    }

    /// Returns the part of the reason that a client of the balancer may know.
    pub fn error(self) -> ProxyError {
        match self {
            SessionError::Name | SessionError::NoAuthorities | SessionError::Certificate(_) => {
                ProxyError::TlsCertificate
            }
            SessionError::Refused(..) => ProxyError::TlsAlert,
            SessionError::Internal => ProxyError::Internal,
            SessionError::NotTls(_)
            | SessionError::Incompatible(_)
            | SessionError::UnknownName
            | SessionError::Flood(_)
            | SessionError::BadRecord(_)
            | SessionError::Protocol(_)
            | SessionError::Closed
            | SessionError::Truncated => ProxyError::TlsProtocol,
        }
    }

    /// True if the peer speaks none of the application protocols that were offered (RFC 7301, 3.2).
    pub fn is_of_protocol(self) -> bool {
        matches!(self, SessionError::Refused(Alert::NO_APPLICATION_PROTOCOL, _))
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::Name => f.write_str("no certificate can be for this name"),
            SessionError::NoAuthorities => f.write_str("there are no certificate authorities to verify it with"),
            SessionError::Certificate(bad) => bad.fmt(f),
            SessionError::Refused(Alert::HANDSHAKE_FAILURE, During::Handshake) => f.write_str(
                "handshake failed: alert handshake_failure (perhaps a P-521, Ed448 or RSASSA-PSS certificate)",
            ),
            SessionError::Refused(alert, During::Handshake) => write!(f, "handshake failed: alert {alert}"),
            SessionError::Refused(alert, During::Data) => write!(f, "TLS alert {alert}"),
            SessionError::NotTls(Plain::Response) => f.write_str("not TLS: the peer answered plain HTTP"),
            SessionError::NotTls(Plain::Request) => f.write_str("not TLS: the peer requested plain HTTP"),
            SessionError::NotTls(Plain::Http2) => f.write_str("not TLS: the peer speaks plain HTTP/2"),
            SessionError::NotTls(Plain::ProxyHeader) => write!(f, "not TLS: {PROXY_HEADER_HINT}"),
            SessionError::NotTls(Plain::Unknown) => f.write_str("not TLS: the first bytes are no TLS record"),
            SessionError::Incompatible(lacking) => write!(f, "handshake failed: {lacking}"),
            SessionError::UnknownName => f.write_str("handshake failed: no certificate for the client's name"),
            SessionError::Flood(flood) => flood.fmt(f),
            SessionError::BadRecord(During::Handshake) => f.write_str("handshake failed: bad TLS record"),
            SessionError::BadRecord(During::Data) => f.write_str("bad TLS record"),
            SessionError::Protocol(During::Handshake) => f.write_str("handshake failed: protocol violated"),
            SessionError::Protocol(During::Data) => f.write_str("TLS protocol violated"),
            SessionError::Closed => f.write_str("handshake failed: connection closed"),
            SessionError::Truncated => f.write_str("connection closed without close_notify"),
            SessionError::Internal => f.write_str("handshake failed: no random numbers or no clock"),
        }
    }
}

/// The end of a handshake with a client, as a person reads it. `None`: the handshake took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedHandshake(pub Option<SessionError>);

impl fmt::Display for FailedHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PREFIX: &str = "handshake failed: ";
        match self.0 {
            None => write!(f, "{PREFIX}too slow"),
            Some(SessionError::Refused(alert, _)) => write!(f, "{PREFIX}the client sent alert {alert}"),
            Some(SessionError::Certificate(BadCertificate::None)) => write!(f, "{PREFIX}no client certificate"),
            Some(SessionError::Certificate(BadCertificate::Purpose)) => {
                write!(f, "{PREFIX}client certificate: not for clients")
            }
            Some(SessionError::Certificate(bad)) => {
                let text = bad.to_string();
                write!(f, "{PREFIX}client certificate: {}", text.strip_prefix("certificate ").unwrap_or(&text))
            }
            Some(error) => {
                let text = error.to_string();
                write!(f, "{PREFIX}{}", text.strip_prefix(PREFIX).unwrap_or(&text))
            }
        }
    }
}

impl fmt::Display for BadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadCertificate::Algorithm(algorithm) => {
                return write!(f, "certificate that cannot be verified here: {algorithm}");
            }
            BadCertificate::Expired => "certificate expired",
            BadCertificate::NotYetValid => "certificate not yet valid",
            BadCertificate::OtherName => "certificate is for another name",
            BadCertificate::UnknownIssuer => "certificate of unknown issuer",
            BadCertificate::SelfSigned => "self-signed certificate",
            BadCertificate::Signature => "certificate with a bad signature",
            BadCertificate::Purpose => "certificate not for servers",
            BadCertificate::Revoked => "certificate revoked",
            BadCertificate::Unusable => "unusable certificate",
            BadCertificate::None => "no certificate",
        })
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flood::KeyUpdates => "too many TLS key updates",
            Flood::EmptyRecords => "too many empty TLS records",
            Flood::Warnings => "too many TLS warnings",
            Flood::Renegotiation => "TLS renegotiation, which was refused before",
            Flood::Records => "too many TLS records without content",
        })
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lacking::Version => "no TLS version in common",
            Lacking::CipherSuite => "no cipher suite in common",
            Lacking::Group => "no key exchange group in common",
            Lacking::Protocol => "no application protocol in common",
            Lacking::Signature => "no signature algorithms are offered, as by clients below TLS 1.2",
            Lacking::Key => "no signature algorithm in common with the certificate, such as RSA for an ECDSA key",
            Lacking::Feature => "a required feature is missing",
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Algorithm::Named(name) => f.write_str(name),
            Algorithm::Rsa(bits) => write!(f, "RSA with {bits} bits"),
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ALERTS.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_of_a_client_has_one_form() {
        let text = |error| FailedHandshake(error).to_string();
        for (error, reason) in [
            (None, "too slow"),
            (Some(SessionError::Closed), "connection closed"),
            (Some(SessionError::Refused(Alert(48), During::Handshake)), "the client sent alert unknown_ca"),
            (Some(SessionError::Refused(Alert(46), During::Data)), "the client sent alert certificate_unknown"),
            (Some(SessionError::Certificate(BadCertificate::UnknownIssuer)), "client certificate: of unknown issuer"),
            (Some(SessionError::Incompatible(Lacking::CipherSuite)), "no cipher suite in common"),
            (Some(SessionError::NotTls(Plain::Unknown)), "not TLS: the first bytes are no TLS record"),
            (Some(SessionError::UnknownName), "no certificate for the client's name"),
        ] {
            assert_eq!(text(error), format!("handshake failed: {reason}"));
        }
    }

    #[test]
    fn names_alerts_as_the_rfc_does() {
        let names = [0, 40, 48, 20, 120, 200].map(|number| Alert(number).to_string());
        let expected =
            ["close_notify", "handshake_failure", "unknown_ca", "bad_record_mac", "no_application_protocol", "200"];
        assert_eq!(names, expected);
    }
}

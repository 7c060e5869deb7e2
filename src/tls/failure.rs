//! The reason why a session failed, in the wording of the log.
//!
//! All of them are faults of the backend or its configuration. Data of the peer is not repeated: a [`Failure`]
//! is a few bytes, and its text is made where it is shown.

use std::fmt;

use super::algorithm::Algorithm;
use crate::http::proxy_error::ProxyError;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// The reason why a session failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No certificate can be for the name that was asked for: it is no host name and no address.
    Name,
    /// The certificate was refused.
    Certificate(BadCertificate),
    /// The peer ended the session with this alert, before the handshake's end or after it.
    Refused(Alert, During),
    /// The first bytes were not TLS.
    NotTls(Plain),
    /// Peer and we have nothing in common of this.
    Incompatible(Lacking),
    /// A record that cannot be one, or that was not made with this session's keys.
    BadRecord(During),
    /// The peer broke the protocol in another way.
    Protocol(During),
    /// The peer ended the connection within the handshake.
    Closed,
    /// The peer ended the connection without close_notify: the data may be truncated (RFC 8446, 6.1).
    Truncated,
    /// Nothing that the peer did: no random numbers, no clock.
    Internal,
}

/// The fault in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCertificate {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is valid, but not for the name asked for.
    OtherName,
    /// No trusted CA has signed it or its issuers.
    UnknownIssuer,
    /// It has signed itself, and is not among those that we trust.
    SelfSigned,
    /// A signature in the chain is not right.
    Signature,
    /// A signature in the chain, or in the handshake, is by an algorithm that cannot be verified.
    Algorithm(Algorithm),
    /// It is not meant for servers.
    Purpose,
    /// It was revoked.
    Revoked,
    /// It is malformed, has an extension that must be understood and is not, or its algorithms are
    /// too old.
    Unusable,
    /// None was sent.
    None,
}

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum During {
    /// Before the handshake's end.
    Handshake,
    /// After it.
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
    /// The first bytes are those of no known protocol.
    Unknown,
}

/// A capability that the peer and we do not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// A version of TLS from 1.2.
    Version,
    /// A cipher suite.
    CipherSuite,
    /// A group for the key exchange.
    Group,
    /// Another required capability.
    Feature,
}

/// An alert, with the name that RFC 8446, section 6, gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(pub AlertDescription);

impl Failure {
    /// The same failure as one of the handshake, if it says that the peer refused the handshake. In TLS 1.3 it
    /// may arrive after our end of the handshake (RFC 8446, 4.4.2.4): a peer that requires a client certificate
    /// and gets none has ignored everything that we sent after it.
    pub fn as_refused_handshake(self) -> Option<Failure> {
        let wants_certificate = Alert(AlertDescription::CertificateRequired);
        (self == Failure::Refused(wants_certificate, During::Data))
            .then_some(Failure::Refused(wants_certificate, During::Handshake))
    }

    /// The part that a client of the balancer may know.
    pub fn error(self) -> ProxyError {
        match self {
            Failure::Name | Failure::Certificate(_) => ProxyError::TlsCertificate,
            Failure::Refused(..) => ProxyError::TlsAlert,
            Failure::Internal => ProxyError::Internal,
            Failure::NotTls(_)
            | Failure::Incompatible(_)
            | Failure::BadRecord(_)
            | Failure::Protocol(_)
            | Failure::Closed
            | Failure::Truncated => ProxyError::TlsProtocol,
        }
    }

    /// Converts an error of the library.
    pub(super) fn of(error: &Error, during: During) -> Failure {
        match error {
            Error::AlertReceived(alert) => Failure::Refused(Alert(*alert), during),
            Error::InvalidCertificate(error) => Failure::Certificate(BadCertificate::of(error)),
            Error::NoCertificatesPresented => Failure::Certificate(BadCertificate::None),
            Error::PeerIncompatible(why) => Failure::Incompatible(Lacking::of(why)),
            Error::UnsupportedNameType => Failure::Name,
            Error::DecryptError | Error::PeerSentOversizedRecord | Error::InvalidMessage(_) => {
                Failure::BadRecord(during)
            }
            Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes => Failure::Internal,
            _ => Failure::Protocol(during),
        }
    }

    /// True if the peer supports none of the offered application protocols (RFC 7301, 3.2).
    pub fn is_of_protocol(self) -> bool {
        matches!(self, Failure::Refused(Alert(AlertDescription::NoApplicationProtocol), _))
    }
}

impl BadCertificate {
    pub(super) fn of(error: &CertificateError) -> BadCertificate {
        use CertificateError as E;
        match error {
            E::Expired | E::ExpiredContext { .. } => BadCertificate::Expired,
            E::NotValidYet | E::NotValidYetContext { .. } => BadCertificate::NotYetValid,
            E::NotValidForName | E::NotValidForNameContext { .. } => BadCertificate::OtherName,
            E::UnknownIssuer => BadCertificate::UnknownIssuer,
            E::BadSignature => BadCertificate::Signature,
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => BadCertificate::Purpose,
            E::Revoked => BadCertificate::Revoked,
            _ => BadCertificate::Unusable,
        }
    }
}

impl Lacking {
    fn of(why: &PeerIncompatible) -> Lacking {
        use PeerIncompatible as P;
        match why {
            P::ServerDoesNotSupportTls12Or13
            | P::ServerTlsVersionIsDisabledByOurConfig
            | P::SupportedVersionsExtensionRequired
            | P::Tls12NotOffered
            | P::Tls12NotOfferedOrEnabled => Lacking::Version,
            P::NoCipherSuitesInCommon => Lacking::CipherSuite,
            P::NoKxGroupsInCommon => Lacking::Group,
            _ => Lacking::Feature,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Name => f.write_str("no certificate can be for this name"),
            Failure::Certificate(bad) => bad.fmt(f),
            Failure::Refused(Alert(AlertDescription::HandshakeFailure), During::Handshake) => f.write_str(
                "handshake failed: alert handshake_failure (perhaps a P-521, Ed448 or RSASSA-PSS certificate)",
            ),
            Failure::Refused(alert, During::Handshake) => write!(f, "handshake failed: alert {alert}"),
            Failure::Refused(alert, During::Data) => write!(f, "TLS alert {alert}"),
            Failure::NotTls(Plain::Response) => f.write_str("not TLS: the peer answered plain HTTP"),
            Failure::NotTls(Plain::Request) => f.write_str("not TLS: the peer requested plain HTTP"),
            Failure::NotTls(Plain::Http2) => f.write_str("not TLS: the peer speaks plain HTTP/2"),
            Failure::NotTls(Plain::Unknown) => f.write_str("not TLS: the first bytes are no TLS record"),
            Failure::Incompatible(lacking) => write!(f, "handshake failed: {lacking}"),
            Failure::BadRecord(During::Handshake) => f.write_str("handshake failed: bad TLS record"),
            Failure::BadRecord(During::Data) => f.write_str("bad TLS record"),
            Failure::Protocol(During::Handshake) => f.write_str("handshake failed: protocol violated"),
            Failure::Protocol(During::Data) => f.write_str("TLS protocol violated"),
            Failure::Closed => f.write_str("handshake failed: connection closed"),
            Failure::Truncated => f.write_str("connection closed without close_notify"),
            Failure::Internal => f.write_str("handshake failed: no random numbers or no clock"),
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

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lacking::Version => "no TLS version in common",
            Lacking::CipherSuite => "no cipher suite in common",
            Lacking::Group => "no key exchange group in common",
            Lacking::Feature => "a required feature is missing",
        })
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = self.0.as_str() else { return write!(f, "{}", u8::from(self.0)) };
        // The library writes `UnknownCA` for `unknown_ca` of the RFC.
        let mut before = 'A';
        for (n, c) in name.chars().enumerate() {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() && n > 0 {
                f.write_str("_")?;
            }
            write!(f, "{}", c.to_ascii_lowercase())?;
            before = c;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alerts_as_the_rfc_does() {
        let names: Vec<String> = [
            AlertDescription::CloseNotify,
            AlertDescription::HandshakeFailure,
            AlertDescription::UnknownCA,
            AlertDescription::BadRecordMac,
            AlertDescription::NoApplicationProtocol,
            AlertDescription::Unknown(200),
        ]
        .map(|alert| Alert(alert).to_string())
        .into();
        assert_eq!(
            names,
            ["close_notify", "handshake_failure", "unknown_ca", "bad_record_mac", "no_application_protocol", "200"]
        );
    }
}

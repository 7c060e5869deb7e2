//! The errors of rustls as errors of sessions.

use rustls::{CertificateError, Error, PeerIncompatible, PeerMisbehaved};

pub use crate::http::session_error::SessionError as Failure;
pub use crate::http::session_error::{Alert, BadCertificate, During, Flood, Lacking, Plain};

impl Failure {
    /// Converts an error of rustls.
    pub(super) fn of(error: &Error, during: During) -> Failure {
        match error {
            Error::AlertReceived(alert) => Failure::Refused(Alert(u8::from(*alert)), during),
            Error::InvalidCertificate(error) => Failure::Certificate(BadCertificate::of(error)),
            Error::NoCertificatesPresented => Failure::Certificate(BadCertificate::None),
            Error::PeerIncompatible(why) => Failure::Incompatible(Lacking::of(why)),
            Error::NoApplicationProtocol => Failure::Incompatible(Lacking::Protocol),
            Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests) => Failure::Flood(Flood::KeyUpdates),
            Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments) => Failure::Flood(Flood::EmptyRecords),
            Error::PeerMisbehaved(PeerMisbehaved::TooManyWarningAlertsReceived) => Failure::Flood(Flood::Warnings),
            Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => Failure::Flood(Flood::Renegotiation),
            Error::UnsupportedNameType => Failure::Name,
            Error::DecryptError | Error::PeerSentOversizedRecord | Error::InvalidMessage(_) => {
                Failure::BadRecord(during)
            }
            Error::FailedToGetCurrentTime | Error::FailedToGetRandomBytes => Failure::Internal,
            _ => Failure::Protocol(during),
        }
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
            P::SignatureAlgorithmsExtensionRequired => Lacking::Signature,
            P::NoSignatureSchemesInCommon => Lacking::Key,
            _ => Lacking::Feature,
        }
    }
}

//! The first bytes of a peer: TLS, or the name of another protocol.

use crate::http::proxy_header;
use crate::tls::failure::Plain;

/// The bytes that tell TLS from other protocols: the header of a TLS record, or of an HTTP/2 frame up to its flags.
pub(super) const FIRST_BYTES: usize = 5;
/// The record types of TLS, from change_cipher_spec to application_data.
const RECORD_TYPES: std::ops::RangeInclusive<u8> = 20..=23;

/// Names the protocol of the first bytes, unless it is TLS. Every version of TLS begins with a 3.
pub(super) fn not_tls(first: [u8; FIRST_BYTES], name: fn([u8; FIRST_BYTES]) -> Plain) -> Option<Plain> {
    match first {
        [kind, 3, ..] if RECORD_TYPES.contains(&kind) => None,
        _ => Some(name(first)),
    }
}

/// Names the protocol of a backend that does not speak TLS.
pub(super) fn response(first: [u8; FIRST_BYTES]) -> Plain {
    match first {
        [b'H', b'T', b'T', b'P', b'/'] => Plain::Response,
        // A short frame of the type SETTINGS without flags (RFC 9113, section 4.1).
        [0, 0, _, 4, 0] => Plain::Http2,
        _ => Plain::Unknown,
    }
}

/// Names the protocol of a client that does not speak TLS.
pub(super) fn request(first: [u8; FIRST_BYTES]) -> Plain {
    // A method of fewer bytes has its space in them.
    let method = first.split(|&byte| byte == b' ').next().unwrap_or_default();
    match first {
        // The preface of HTTP/2 (RFC 9113, section 3.4).
        [b'P', b'R', b'I', b' ', b'*'] => Plain::Http2,
        _ if proxy_header::may_begin(&first) => Plain::ProxyHeader,
        _ if !method.is_empty() && method.iter().all(u8::is_ascii_uppercase) => Plain::Request,
        _ => Plain::Unknown,
    }
}

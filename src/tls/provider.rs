//! The algorithms of sessions, for both roles.

use rustls::crypto::{CryptoProvider, ring};

/// Returns ring's provider with AES-128 before AES-256, as browsers have it. AES-128 is as strong as the key exchange,
/// costs a quarter less, and most servers follow the client's preference.
pub(super) fn provider() -> CryptoProvider {
    use ring::cipher_suite::*;
    let cipher_suites = vec![
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

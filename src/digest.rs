//! Hashes and message authentication, over ring. They are pure: random bytes come from `sys::entropy`.

use std::hint::black_box;

use ring::{digest, hmac};

/// The length of a SHA-256 hash and of an authentication code, in bytes.
pub const SHA256_LENGTH: usize = digest::SHA256_OUTPUT_LEN;

/// The length of a SHA-1 hash in bytes.
pub const SHA1_LENGTH: usize = digest::SHA1_OUTPUT_LEN;

/// The fewest bytes of an authentication code that are accepted. RFC 2104, section 5 asks for half of the hash.
pub const SHORTEST_CODE: usize = SHA256_LENGTH / 2;

/// Returns the SHA-256 hash of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; SHA256_LENGTH] {
    hash(&digest::SHA256, parts)
}

/// Returns the SHA-1 hash of the parts, one after the other. It is broken as a signature. Protocols that name it, such
/// as WebSocket (RFC 6455), use it as a check of understanding only.
pub fn sha1(parts: &[&[u8]]) -> [u8; SHA1_LENGTH] {
    hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts)
}

fn hash<const N: usize>(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> [u8; N] {
    let mut context = digest::Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("each algorithm has one length")
}

/// A key for authentication codes (HMAC-SHA-256, RFC 2104).
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// Makes a key of secret bytes of any length. This hashes them, so a key is made once and kept.
    pub fn new(secret: &[u8]) -> Key {
        Key(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Returns the authentication code of the parts, one after the other.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; SHA256_LENGTH] {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().try_into().expect("each algorithm has one length")
    }

    /// True if `code` is the authentication code of the parts, or its first half or more. The time of the comparison
    /// does not depend on the bytes, so it tells an attacker nothing about the right code.
    pub fn verify(&self, parts: &[&[u8]], code: &[u8]) -> bool {
        let right = self.sign(parts);
        (SHORTEST_CODE..=SHA256_LENGTH).contains(&code.len())
            && right.iter().zip(code).fold(0, |differences, (a, b)| black_box(differences | (a ^ b))) == 0
    }
}

/// Secrets are not printed.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base64::{Alphabet, encode};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// FIPS 180-4, examples.
    #[test]
    fn hashes_are_those_of_the_standard() {
        let abc: &[&[u8]] = &[b"a", b"", b"bc"];
        assert_eq!(hex(&sha1(abc)), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(&sha256(abc)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    /// RFC 6455, section 1.3.
    #[test]
    fn the_accept_of_a_websocket_key_is_that_of_the_standard() {
        let hash = sha1(&[b"dGhlIHNhbXBsZSBub25jZQ==", b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"]);
        assert_eq!(encode(Alphabet::Standard, &hash), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// RFC 4231, test case 2.
    #[test]
    fn codes_are_those_of_the_standard() {
        let code = Key::new(b"Jefe").sign(&[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex(&code), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_code_is_accepted_whole_or_by_half_and_only_unchanged() {
        let key = Key::new(&[7; 32]);
        let code = key.sign(&[b"one"]);
        for length in 0..=SHA256_LENGTH {
            let accepted = key.verify(&[b"on", b"e"], &code[..length]);
            assert_eq!(accepted, length >= SHORTEST_CODE, "{length}");
        }
        assert!(!key.verify(&[b"one"], &[&code[..], &[0]].concat()));
        for bit in 0..8 * SHA256_LENGTH {
            let mut changed = code;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(&[b"one"], &changed), "{bit}");
        }
        assert!(!key.verify(&[b"two"], &code) && !Key::new(&[8; 32]).verify(&[b"one"], &code));
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key::new(b"secret")), "Key");
    }
}

//! The value of the cookie that names the backend of a session.
//!
//! A token is the identity of a backend and half of its authentication code, in base64. The value has a token for each
//! group of backends that the client uses, because one cookie serves all paths of a host.

use crate::base64::{Alphabet, decode_into, encode_into};
use crate::digest::{Key, SHORTEST_CODE};
use crate::limits::STICKY_TOKENS;

const IDENTITY: usize = size_of::<u64>();
const TOKEN: usize = IDENTITY + SHORTEST_CODE;
/// The characters of a token. No character is a part of two tokens.
const TEXT: usize = TOKEN / 3 * 4;

const _: () = assert!(TOKEN.is_multiple_of(3));

/// Appends the token of a backend.
pub fn write(key: &Key, identity: u64, out: &mut Vec<u8>) {
    let identity = identity.to_be_bytes();
    let mut token = [0; TOKEN];
    token[..IDENTITY].copy_from_slice(&identity);
    token[IDENTITY..].copy_from_slice(&key.sign(&[&identity])[..SHORTEST_CODE]);
    encode_into(Alphabet::Url, &token, out);
}

/// Returns the identities of the backends in a value, up to a limit. Only those that `wanted` accepts are verified, and
/// others are passed over.
pub fn identities<'a>(key: &'a Key, value: &'a [u8], wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = u64> {
    value.chunks(TEXT).take(STICKY_TOKENS).filter_map(move |text| {
        let mut token = [0; TOKEN];
        let length = decode_into(Alphabet::Url, text, &mut token)?;
        let (identity, code) = token.split_first_chunk()?;
        let number = u64::from_be_bytes(*identity);
        (length == TOKEN && wanted(number) && key.verify(&[identity], code)).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &Key, identities: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        identities.iter().for_each(|&identity| write(key, identity, &mut out));
        out
    }

    fn read(key: &Key, value: &[u8]) -> Vec<u64> {
        identities(key, value, |_| true).collect()
    }

    #[test]
    fn a_token_is_read_again_with_the_same_key_alone() {
        let key = Key::new(&[1; 32]);
        let one = value(&key, &[7]);
        assert_eq!((one.len(), read(&key, &one)), (32, vec![7]));
        assert!(one.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_eq!(read(&Key::new(&[2; 32]), &one), []);
        assert_eq!(read(&key, &value(&key, &[7, u64::MAX, 0])), [7, u64::MAX, 0]);
        assert_eq!(identities(&key, &value(&key, &[7, 8]), |identity| identity != 7).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn a_changed_or_cut_token_is_none() {
        let key = Key::new(&[1; 32]);
        let one = value(&key, &[7]);
        for at in 0..one.len() {
            let mut changed = one.clone();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(read(&key, &changed), [], "{at}");
            assert_eq!(read(&key, &one[..at]), [], "{at}");
        }
        assert_eq!(read(&key, b"\"quoted\""), []);
        // The tokens beside a changed one are valid.
        let mut several = value(&key, &[1, 2, 3]);
        several[40] ^= 1;
        assert_eq!(read(&key, &several), [1, 3]);
    }

    #[test]
    fn a_long_value_costs_a_bounded_number_of_verifications() {
        let key = Key::new(&[1; 32]);
        let many: Vec<u64> = (0..100).collect();
        assert_eq!(read(&key, &value(&key, &many)), many[..STICKY_TOKENS]);
    }
}

//! The id of a request, sent as `X-Request-Id`: generated here, or accepted from a trusted peer.
//!
//! A generated id is a UUID of version 7 (RFC 9562, 5.7): 48 bits of Unix time in milliseconds, then random
//! bits, as hexadecimal digits with dashes. Ids sort by time. They are not secret.

use super::fields::{Name, Span};
use super::head::HeadRef;
use crate::collections::random::Random;
use crate::limits::REQUEST_ID_BYTES;

/// The length of a UUID in text form.
const TEXT_BYTES: usize = 36;

/// A UUID as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid([u8; TEXT_BYTES]);

impl Uuid {
    /// Creates an id for a request that arrived at `unix_us`, in microseconds since 1970.
    pub fn new(unix_us: u64, random: &mut Random) -> Uuid {
        let milliseconds = unix_us / 1000;
        let (high, low) = (random.any(), random.any());
        // The version (7) and the variant (binary 10) occupy the first bits of the third and fourth group.
        let high = milliseconds << 16 | 0x7000 | high & 0x0fff;
        let low = 1 << 63 | low >> 2;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        let mut text = [b'-'; TEXT_BYTES];
        for (byte, at) in bytes.into_iter().zip(PLACES) {
            text[at..at + 2].copy_from_slice(&HEX[usize::from(byte)]);
        }
        Uuid(text)
    }

    /// The id in text form.
    pub fn text(&self) -> &[u8] {
        &self.0
    }
}

/// The offset of each byte's digits in the text.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The two hexadecimal digits of each byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// The id that the peer sent, if it is acceptable: exactly one field, visible ASCII without quotation marks, at
/// most `REQUEST_ID_BYTES` long.
pub fn given(head: HeadRef<'_>) -> Option<Span> {
    let mut fields = head.head.fields.iter().filter(|field| field.name == Name::XRequestId);
    let span = fields.next().filter(|_| fields.next().is_none())?.value_span;
    is_accepted(head.get(span)).then_some(span)
}

fn is_accepted(id: &[u8]) -> bool {
    // A quotation mark would end a quoted string in a log.
    let is_clean = id.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES && is_clean
}

#[cfg(test)]
mod tests {
    use super::super::fields::Field;
    use super::super::head::Head;
    use super::*;

    const PATTERN: &str = "xxxxxxxx-xxxx-7xxx-yxxx-xxxxxxxxxxxx";

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        let mut random = Random::new(7);
        for _ in 0..1000 {
            let id = Uuid::new(1_767_323_045_678_999, &mut random);
            let text = std::str::from_utf8(id.text()).unwrap();
            for (got, wanted) in text.chars().zip(PATTERN.chars()) {
                match wanted {
                    'x' => assert!(got.is_ascii_digit() || ('a'..='f').contains(&got), "{text}"),
                    'y' => assert!("89ab".contains(got), "{text}"),
                    other => assert_eq!(got, other, "{text}"),
                }
            }
            assert_eq!(text.len(), PATTERN.len());
            let milliseconds = u64::from_str_radix(&text.replace('-', "")[..12], 16).unwrap();
            assert_eq!(milliseconds, 1_767_323_045_678);
        }
    }

    #[test]
    fn ids_of_one_millisecond_differ() {
        let mut random = Random::new(1);
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| Uuid::new(5000, &mut random).0).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn accepts_visible_bounded_ids() {
        let longest = [b'a'; REQUEST_ID_BYTES];
        assert!(is_accepted(b"Root=1-5/a;b") && is_accepted(&longest));
        let refused = [&b""[..], b"a b", b"\"", b"\xc3\xa9", b"a\x01", b"\x7f", &[b'a'; REQUEST_ID_BYTES + 1]];
        assert!(refused.into_iter().all(|id| !is_accepted(id)));
    }

    #[test]
    fn one_of_two_ids_is_not_chosen() {
        let field = Field { name: Name::XRequestId, name_span: Span::new(0, 1), value_span: Span::new(1, 2) };
        let mut head = Head { fields: vec![field], ..Head::default() };
        assert_eq!(given(HeadRef { bytes: b"na", head: &head }), Some(Span::new(1, 2)));
        head.fields.push(field);
        assert_eq!(given(HeadRef { bytes: b"na", head: &head }), None);
        head.fields.clear();
        assert_eq!(given(HeadRef { bytes: b"na", head: &head }), None);
    }
}

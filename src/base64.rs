//! Base64 (RFC 4648): binary data as text, in two alphabets. Decoding is strict: bytes have exactly one text.

/// The characters, and whether `=` fills the last group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Section 4: `+` and `/`, filled with `=`.
    Standard,
    /// Section 5: `-` and `_`, not filled, so that the text needs no quotes in a URL or a cookie.
    Url,
}

impl Alphabet {
    /// The characters for 62 and 63.
    fn last_two(self) -> [u8; 2] {
        if self == Alphabet::Standard { *b"+/" } else { *b"-_" }
    }

    fn character(self, six_bits: u8) -> u8 {
        match six_bits {
            0..26 => b'A' + six_bits,
            26..52 => b'a' + six_bits - 26,
            52..62 => b'0' + six_bits - 52,
            _ => self.last_two()[usize::from(six_bits & 1)],
        }
    }

    fn six_bits(self, character: u8) -> Option<u8> {
        match character {
            b'A'..=b'Z' => Some(character - b'A'),
            b'a'..=b'z' => Some(character - b'a' + 26),
            b'0'..=b'9' => Some(character - b'0' + 52),
            _ => self.last_two().iter().position(|&last| last == character).map(|at| 62 + at as u8),
        }
    }
}

/// Returns the text of the bytes.
pub fn encode(alphabet: Alphabet, bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    encode_into(alphabet, bytes, &mut out);
    // The characters are ASCII, so none is replaced.
    out.into_iter().map(char::from).collect()
}

/// Appends the text of the bytes.
pub fn encode_into(alphabet: Alphabet, bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let characters = [18, 12, 6, 0].map(|shift| alphabet.character((bits >> shift & 63) as u8));
        out.extend_from_slice(&characters[..group.len() + 1]);
        if alphabet == Alphabet::Standard {
            out.extend_from_slice(&b"=="[..3 - group.len()]);
        }
    }
}

/// Returns the bytes of a text. `None`: the text is malformed, or another text is the right one for these bytes.
pub fn decode(alphabet: Alphabet, text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 4 * 3 + 2];
    let length = decode_into(alphabet, text, &mut bytes)?;
    bytes.truncate(length);
    Some(bytes)
}

/// Writes the bytes of a text, and returns how many there are. `None`: as for `decode`, or there is not enough room.
pub fn decode_into(alphabet: Alphabet, text: &[u8], out: &mut [u8]) -> Option<usize> {
    let text = match alphabet {
        Alphabet::Url => text,
        Alphabet::Standard if !text.len().is_multiple_of(4) => return None,
        Alphabet::Standard => {
            let filling = text.iter().rev().take(2).take_while(|&&character| character == b'=').count();
            &text[..text.len() - filling]
        }
    };
    let mut length = 0;
    for group in text.chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            let six_bits = group.get(at).map_or(Some(0), |&character| alphabet.six_bits(character))?;
            bits = bits << 6 | u32::from(six_bits);
        }
        let bytes = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        let (whole, rest) = bytes.split_at(group.len() - 1);
        if group.len() == 1 || rest.iter().any(|&byte| byte != 0) {
            return None;
        }
        out.get_mut(length..length + whole.len())?.copy_from_slice(whole);
        length += whole.len();
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Alphabet::{Standard, Url};

    /// RFC 4648, section 10.
    #[test]
    fn texts_are_those_of_the_standard() {
        let texts = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in texts.into_iter().enumerate() {
            let bytes = &b"foobar"[..length];
            assert_eq!(encode(Standard, bytes), text);
            assert_eq!(decode(Standard, text.as_bytes()).as_deref(), Some(bytes));
            let text = text.trim_end_matches('=');
            assert_eq!(encode(Url, bytes), text);
            assert_eq!(decode(Url, text.as_bytes()).as_deref(), Some(bytes));
        }
    }

    #[test]
    fn every_byte_is_itself_again_in_its_alphabet() {
        let bytes: Vec<u8> = (0..=255).rev().chain(0..=255).collect();
        for alphabet in [Standard, Url] {
            let text = encode(alphabet, &bytes);
            assert_eq!(decode(alphabet, text.as_bytes()).as_deref(), Some(&bytes[..]));
        }
        assert_eq!((encode(Standard, &[0xfb, 0xff]), encode(Url, &[0xfb, 0xff])), ("+/8=".into(), "-_8".into()));
    }

    #[test]
    fn malformed_texts_are_refused() {
        for text in ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "=", "====", "Z===", "Zm9v\n", "Zm-v", "Zm9v="] {
            assert_eq!(decode(Standard, text.as_bytes()), None, "{text}");
        }
        for text in ["Z", "Zh", "Zm9", "Zg==", "Zm9vZ", "Zm+v", "Z g"] {
            assert_eq!(decode(Url, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_has_no_room_is_refused() {
        let mut room = [9; 4];
        assert_eq!(decode_into(Url, b"Zm9vYg", &mut room[..3]), None);
        assert_eq!(decode_into(Url, b"Zm9vYg", &mut room), Some(4));
        assert_eq!(&room, b"foob");
    }
}

//! Integers with a prefix (RFC 7541, 5.1).

use super::Error;

/// The maximum of continuation bytes of an integer: 28 bits are more than any value needs.
const CONTINUATIONS: u32 = 4;

/// Reads an integer from the front of `bytes`. Its first byte uses the last `prefix` bits.
pub(super) fn read(bytes: &mut &[u8], prefix: u32) -> Result<usize, Error> {
    let (&first, mut rest) = bytes.split_first().ok_or(Error::Short)?;
    let most = (1 << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (&byte, behind) = rest.split_first().ok_or(Error::Short)?;
            rest = behind;
            if shift == 7 * CONTINUATIONS {
                return Err(Error::Integer);
            }
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *bytes = rest;
    Ok(value)
}

/// Writes an integer with `first` in the bits before its prefix.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1 << prefix) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_the_rfc() {
        // RFC 7541, C.1.
        for (value, prefix, wire) in
            [(10, 5, &[0b1110_1010][..]), (1337, 5, &[0b1111_1111, 0b1001_1010, 0b0000_1010]), (42, 8, &[42])]
        {
            let mut out = Vec::new();
            write(&mut out, if prefix == 8 { 0 } else { 0b1110_0000 }, prefix, value);
            assert_eq!(out, wire);
            assert_eq!(read(&mut &out[..], prefix), Ok(value));
        }
        for value in (0..70_000).step_by(7) {
            for prefix in 1..=8 {
                let mut out = Vec::new();
                write(&mut out, 0, prefix, value);
                let mut rest = &out[..];
                assert_eq!((read(&mut rest, prefix), rest.len()), (Ok(value), 0));
                assert_eq!(read(&mut &out[..out.len() - 1], prefix), Err(Error::Short));
            }
        }
    }

    #[test]
    fn endless_integers_are_refused() {
        assert_eq!(read(&mut &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00][..], 7), Err(Error::Integer));
        assert_eq!(read(&mut &[0x7f, 0xff, 0xff, 0xff, 0x7f][..], 7), Ok((1 << 28) - 1 + 127));
    }
}

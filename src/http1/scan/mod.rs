//! (stand-in until the scanners land)
#![allow(missing_docs)]
fn tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
pub fn token_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| !tchar(b)).unwrap_or(bytes.len())
}
pub fn target_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| b <= 0x20 || b == 0x7f || b == b'#').unwrap_or(bytes.len())
}
pub fn value_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| b < 0x20 && b != 9 || b == 0x7f).unwrap_or(bytes.len())
}

//! Seeded random numbers: equal seeds give equal bodies on every machine.

/// A xorshift64* generator.
pub struct Random(u64);

impl Random {
    /// Creates a generator. The seed may be 0.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound as u64) as usize
    }

    /// A body of `len` random bytes.
    pub fn body(&mut self, len: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(len + 8);
        while body.len() < len {
            body.extend_from_slice(&self.word().to_le_bytes());
        }
        body.truncate(len);
        body
    }

    /// Splits `body` into pieces of up to `largest` bytes.
    pub fn pieces<'a>(&mut self, mut body: &'a [u8], largest: usize) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !body.is_empty() {
            let (piece, rest) = body.split_at((1 + self.below(largest)).min(body.len()));
            pieces.push(piece);
            body = rest;
        }
        pieces
    }
}

//! Field blocks. Any bytes are decoded or refused within the limits, twice with the same result, and decoded
//! fields survive encoding and decoding.

use zzz_lb::hpack::{self, Decoder, Error};

/// The limit of the field list.
const LIST_BYTES: usize = 4096;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> (Fields, Result<(), Error>) {
    let mut fields = Fields::new();
    let result = decoder.decode(block, LIST_BYTES, |name, value| fields.push((name.to_vec(), value.to_vec())));
    let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    assert!(size <= LIST_BYTES, "{size} bytes of fields");
    (fields, result)
}

/// Panics if a limit is exceeded, or if the second decoding differs.
pub fn run(data: &[u8]) {
    let (mut one, mut other) = (Decoder::new(4096), Decoder::new(4096));
    // Two blocks, so that the second can refer to fields of the first.
    let (first, second) = data.split_at(data.len() / 2);
    for block in [first, second, data] {
        let (fields, result) = decode(&mut one, block);
        assert_eq!(decode(&mut other, block), (fields.clone(), result), "it is decoded the same twice");
        let mut encoded = Vec::new();
        for (name, value) in &fields {
            hpack::encode(&mut encoded, name, value);
        }
        let small = fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        assert_eq!(decode(&mut Decoder::new(0), &encoded), (small.collect(), Ok(())), "it comes back");
        if !matches!(result, Ok(()) | Err(Error::ListTooLarge)) {
            return;
        }
    }
}

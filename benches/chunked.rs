//! Benchmarks the chunked transfer coding: decoding, and writing the lines around a chunk.

mod timer;

use std::hint::black_box;
use std::process::ExitCode;

use timer::Timer;
use zzz_lb::http1::chunked::{Decoder, SizeLine, Step};

/// A body in chunks of `size` bytes as on the wire, without the last chunk.
fn coded(size: usize, chunks: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..chunks {
        wire.extend_from_slice(SizeLine::new(size as u64).bytes());
        wire.extend(std::iter::repeat_n(b'x', size));
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// Decodes everything and returns the number of content bytes.
fn decode(wire: &[u8]) -> usize {
    let (mut decoder, mut at, mut content) = (Decoder::new(), 0, 0);
    loop {
        match decoder.step(&wire[at..]) {
            Ok(Step::Data { skip, length }) => {
                at += skip + length;
                content += length;
            }
            _ => return content,
        }
    }
}

fn main() -> ExitCode {
    let mut timer = Timer::new();
    for (name, size, chunks) in [("decode/16B", 16, 64), ("decode/1KiB", 1024, 16), ("decode/64KiB", 65_536, 1)] {
        let wire = coded(size, chunks);
        assert_eq!(decode(&wire), size * chunks);
        timer.row(&format!("chunked/{name}"), chunks, wire.len(), || decode(black_box(&wire)));
    }
    timer.row("chunked/size_line", 1, 0, || SizeLine::new(black_box(0x1_0000)).bytes().len());
    timer.finish()
}

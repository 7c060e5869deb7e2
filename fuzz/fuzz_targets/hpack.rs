//! The libFuzzer entry of the target `hpack`.

#![no_main]

#[path = "../targets/hpack.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

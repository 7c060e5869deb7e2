//! The libFuzzer entry of the target `args`.

#![no_main]

#[path = "../targets/args.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

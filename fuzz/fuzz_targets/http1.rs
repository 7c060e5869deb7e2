//! The libFuzzer entry of the target `http1`.

#![no_main]

#[path = "../targets/http1.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

//! The libFuzzer entry of the target `proxy`.

#![no_main]

#[path = "../targets/proxy/mod.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

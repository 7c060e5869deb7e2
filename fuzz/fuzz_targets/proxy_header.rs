//! The libFuzzer entry of the target `proxy_header`.

#![no_main]

#[path = "../targets/proxy_header.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

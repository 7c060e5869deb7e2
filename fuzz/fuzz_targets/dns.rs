//! The libFuzzer entry of the target `dns`.

#![no_main]

#[path = "../targets/dns.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

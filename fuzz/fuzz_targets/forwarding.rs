//! The libFuzzer entry of the target `forwarding`.

#![no_main]

#[path = "../targets/forwarding.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

//! The libFuzzer entry of the target `handover`.

#![no_main]

#[path = "../targets/handover.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

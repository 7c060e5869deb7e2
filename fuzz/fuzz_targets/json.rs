//! The libFuzzer entry of the target `json`.

#![no_main]

#[path = "../targets/json.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

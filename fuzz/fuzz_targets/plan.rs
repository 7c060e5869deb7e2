//! The libFuzzer entry of the target `plan`.

#![no_main]

#[path = "../targets/plan.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

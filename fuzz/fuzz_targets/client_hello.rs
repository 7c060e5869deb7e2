//! The libFuzzer entry of the target `client_hello`.

#![no_main]

#[path = "../targets/client_hello.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));

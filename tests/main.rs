//! The only test binary: one module for each behaviour.

mod fuzz_smoke;

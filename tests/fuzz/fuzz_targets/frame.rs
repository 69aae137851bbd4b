//! Any bytes, taken for what comes over a connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoin::wire::fuzz::fuzz_frame(bytes));

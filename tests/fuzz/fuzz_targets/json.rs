//! Any bytes, taken for the body of a call through the JSON gateway.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoin::etcd::fuzz::fuzz_json(bytes));

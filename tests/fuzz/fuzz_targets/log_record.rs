//! Any bytes, taken for a log segment.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoin_storage::log::fuzz_record(bytes));

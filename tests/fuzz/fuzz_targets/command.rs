//! Any bytes, taken for the data of a log entry.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoin::propose::command::fuzz_batch(bytes));

//! Any bytes, taken for a page of the tree file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoin_storage::page::fuzz_page(bytes));

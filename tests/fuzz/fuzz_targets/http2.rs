//! Any bytes, taken for what comes on a connection of HTTP/2.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoin::etcd::fuzz::fuzz_frames(bytes));

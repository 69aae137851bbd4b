//! Any bytes, taken for what comes on a stream of gRPC.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoin::etcd::fuzz::fuzz_message(bytes));

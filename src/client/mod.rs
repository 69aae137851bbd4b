//! The client library over [`crate::wire`].

pub mod raw;

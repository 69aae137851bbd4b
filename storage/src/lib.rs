//! quoin's storage: files and bytes, no network.
//!
//! `disk` is the seam to the machine, real or simulated. Above it stand the log, which makes
//! a write durable, and the tree, which keeps the data; `mvcc` gives the tree revisions.
//! `snapshot` is a whole store as a stream of bytes.

pub mod disk;

pub mod log;

pub mod page;

pub mod tree;

pub mod mvcc;

pub mod snapshot;

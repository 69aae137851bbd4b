//! The mmapped copy-on-write B+tree.

mod api;

#[cfg(any(test, feature = "sim"))]
pub mod model;

pub use api::{Interval, TREES, TreeError, TreeId, TreeRead, TreeWrite};

/// The pages that a checkpoint must write, pinned.
#[derive(Debug)]
pub struct CheckpointJob {}

/// What a finished checkpoint tells the writer.
#[derive(Debug)]
pub struct CheckpointDone {}

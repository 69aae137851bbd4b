//! What the order actor asks of the store beside transactions.

use crate::apply::Store;
use quoin_storage::tree::{CheckpointDone, CheckpointJob, Writer};

/// A store that checkpoints make durable: the tree.
pub trait Durable: Store {
    /// Begins a checkpoint of what is committed; `None` if nothing has changed since the last,
    /// or if one is under way.
    fn checkpoint(&mut self) -> Option<CheckpointJob>;
    /// Takes note of a finished one; `false` if the disk was too full for it.
    fn checkpointed(&mut self, done: CheckpointDone) -> bool;
    /// Something was committed since the last checkpoint began, or that one failed.
    fn changed(&self) -> bool;
    /// One is under way.
    fn checkpointing(&self) -> bool;
    /// The disk is full: nothing more is to be added.
    fn full(&self) -> bool;
    /// Bytes of pages that exist in memory alone.
    fn young_bytes(&self) -> u64;
    /// With how many of them a checkpoint should begin, at most `most`.
    fn checkpoint_bytes(&self, most: u64) -> u64;
    /// What the oldest state to which a damaged file may fall back said of itself: what that one
    /// covers the log may forget, and no more.
    fn safe_user(&self) -> &[u8];
}

impl Durable for Writer {
    fn checkpoint(&mut self) -> Option<CheckpointJob> {
        Writer::checkpoint(self)
    }

    fn checkpointed(&mut self, done: CheckpointDone) -> bool {
        Writer::checkpointed(self, done)
    }

    fn changed(&self) -> bool {
        Writer::changed(self)
    }

    fn checkpointing(&self) -> bool {
        Writer::checkpointing(self)
    }

    fn full(&self) -> bool {
        Writer::full(self)
    }

    fn young_bytes(&self) -> u64 {
        Writer::young_bytes(self)
    }

    fn checkpoint_bytes(&self, most: u64) -> u64 {
        Writer::checkpoint_bytes(self, most)
    }

    fn safe_user(&self) -> &[u8] {
        Writer::safe_user(self)
    }
}

//! The log: pre-zeroed, recycled segments of checksummed records.

/// What Raft must never forget, besides its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// The member voted for in that term; 0 is none.
    pub vote: u64,
    /// The newest index known to be committed.
    pub commit: u64,
}

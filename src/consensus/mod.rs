//! Consensus: the raft crate behind one narrow module.
//!
//! [`Core`] drives it: it is the only code that calls the crate, and it keeps the crate's rules
//! on order and durability (each is stated where it is kept). [`tail`] is the in-memory end of
//! the log that the crate reads. [`gateway`] checks what comes from other members before the
//! crate sees it, because the crate trusts its peers. Nothing here knows files, sockets or clocks.
#![forbid(unsafe_code)]

mod config;
mod core;

pub mod confchange;
pub mod gateway;
pub mod tail;

pub use self::config::{CoreConfig, Start, StartError};
pub use self::core::{
    Committed, CommittedData, Core, Handled, MemberChange, ProposeError, ReadConfirmed, Role,
};
pub use self::gateway::{PeerError, PeerMessage};

#[cfg(test)]
mod tests;

use bytes::Bytes;

/// One durable write of the log.
#[derive(Debug)]
pub struct AppendRequest {
    /// Grows by one with each request.
    pub number: u64,
    /// The Raft hard state, if it changed.
    pub hard_state: Option<quoin_storage::log::HardState>,
    /// New entries; the first may replace a suffix of the log.
    pub entries: Vec<LogEntry>,
}

/// A Raft entry on its way to the log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Position in the log.
    pub index: u64,
    /// The leader's term.
    pub term: u64,
    /// The Raft entry type (0 normal, 1 and 2 configuration changes).
    pub kind: u8,
    /// The payload.
    pub data: Bytes,
    /// The configuration change's context.
    pub context: Bytes,
}

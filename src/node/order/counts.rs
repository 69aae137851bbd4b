//! What the order actor has and has done, for whoever watches the server.
#![forbid(unsafe_code)]

use super::{Durable, Order};
use crate::apply::Counts;

/// Counts since the start of the process, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderCounts {
    /// What was applied.
    pub applied: Counts,
    /// The newest entry that is applied.
    pub applied_index: u64,
    /// Renewals of leases, since the start.
    pub renewals: u64,
    /// Leases.
    pub leases: u64,
    /// Commands that are proposed, or about to be, and not applied.
    pub pending: u64,
    /// Commands that were refused before they reached the log, since the start.
    pub refused: u64,
    /// Changes of leadership that this member has seen, since the start.
    pub leader_changes: u64,
    /// Bytes of the store's pages that are in memory alone.
    pub young_bytes: u64,
}

impl<S: Durable> Order<S> {
    /// What there is, and what was done. Takes no time, whatever there is.
    pub fn counts(&self) -> OrderCounts {
        let (leases, renewals) = self.leases.counts();
        OrderCounts {
            applied: *self.applier.counts(),
            applied_index: self.applier.meta().applied_index,
            renewals,
            leases: leases as u64,
            pending: self.flights.commands() as u64,
            refused: self.refused,
            leader_changes: self.leader_changes,
            young_bytes: self.applier.store().young_bytes(),
        }
    }
}

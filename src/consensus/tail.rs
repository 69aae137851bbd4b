//! The end of the log, in memory: what the raft crate reads.
//!
//! Every entry that is not yet applied is here, and of the applied ones as many as the bound
//! allows, for followers that are a little behind. The log on disk keeps more; a follower that
//! needs what is no longer here gets a snapshot.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::util::entry_approximate_size;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// The in-memory end of the log.
///
/// Invariant: `entries` is contiguous and starts at `base_index + 1`; `bytes` is the sum of the
/// approximate sizes of its entries.
#[derive(Debug)]
pub struct Tail {
    base_index: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// What the crate reads once, when it starts.
    initial_hard_state: HardState,
    initial_conf_state: ConfState,
}

impl Tail {
    /// A log that continues an entry of the given index and term.
    pub(super) fn new(
        base_index: u64,
        base_term: u64,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Tail {
        Tail {
            base_index,
            base_term,
            entries: VecDeque::new(),
            bytes: 0,
            initial_hard_state: hard_state,
            initial_conf_state: conf_state,
        }
    }

    /// The index of the newest entry.
    pub fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    /// The index just before the oldest entry held.
    pub fn base(&self) -> u64 {
        self.base_index
    }

    /// What the entries held amount to.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds entries; the first may replace a suffix.
    ///
    /// # Panics
    /// If they would leave a gap, or replace what has been dropped. The crate never asks for it.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        assert!(
            first.index > self.base_index && first.index <= self.last() + 1,
            "entry {} does not continue the log ({}, {}]",
            first.index,
            self.base_index,
            self.last()
        );
        let keep = (first.index - self.base_index - 1) as usize;
        for replaced in self.entries.drain(keep..) {
            self.bytes -= entry_approximate_size(&replaced);
        }
        for entry in entries {
            self.bytes += entry_approximate_size(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Drops entries from the front while they exceed the bounds, but none beyond `applied`.
    pub(super) fn shrink(&mut self, applied: u64, max_entries: usize, max_bytes: usize) {
        while self.base_index < applied
            && (self.entries.len() > max_entries || self.bytes > max_bytes)
        {
            let Some(dropped) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= entry_approximate_size(&dropped);
            self.base_index = dropped.index;
            self.base_term = dropped.term;
        }
    }

    /// Bytes of entries with an index beyond `index`.
    pub fn bytes_after(&self, index: u64) -> usize {
        let skip = index.saturating_sub(self.base_index) as usize;
        self.entries
            .iter()
            .skip(skip)
            .map(entry_approximate_size)
            .sum()
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.base_index + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.initial_hard_state.clone(),
            self.initial_conf_state.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::with_capacity((high.saturating_sub(low)).min(64) as usize);
        let mut size = 0u64;
        for index in low..high {
            let Some(entry) = self.at(index) else {
                return Err(StorageError::Unavailable.into());
            };
            size = size.saturating_add(entry_approximate_size(entry) as u64);
            // At least one, as the trait asks.
            if !taken.is_empty() && size > max {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        if index < self.base_index {
            return Err(StorageError::Compacted.into());
        }
        match self.at(index) {
            Some(entry) => Ok(entry.term),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Snapshots travel out of band and are prepared by the order actor; until one is ready
        // the crate asks again.
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, len: usize) -> Entry {
        Entry {
            index,
            term,
            data: vec![0; len].into(),
            ..Entry::default()
        }
    }

    fn tail(from: u64, to: u64) -> Tail {
        let mut tail = Tail::new(from - 1, 1, HardState::default(), ConfState::default());
        let entries: Vec<_> = (from..=to).map(|index| entry(index, 2, 100)).collect();
        tail.append(&entries);
        tail
    }

    fn indices(tail: &Tail, low: u64, high: u64, max: u64) -> raft::Result<Vec<u64>> {
        let entries = tail.entries(low, high, max, GetEntriesContext::empty(false))?;
        Ok(entries.into_iter().map(|entry| entry.index).collect())
    }

    #[test]
    fn reads_within_and_refuses_without() {
        let tail = tail(5, 9);
        assert_eq!(
            (tail.first_index().unwrap(), tail.last_index().unwrap()),
            (5, 9)
        );
        assert_eq!(indices(&tail, 5, 10, u64::MAX).unwrap(), [5, 6, 7, 8, 9]);
        assert_eq!(indices(&tail, 6, 9, 0).unwrap(), [6], "at least one");
        assert_eq!(indices(&tail, 6, 9, 250).unwrap(), [6, 7]);
        assert_eq!(indices(&tail, 4, 6, 0), Err(StorageError::Compacted.into()));
        assert_eq!(
            indices(&tail, 9, 11, 0),
            Err(StorageError::Unavailable.into())
        );
        assert_eq!(
            tail.term(4).unwrap(),
            1,
            "the term of the entry before the first is known"
        );
        assert_eq!(tail.term(5).unwrap(), 2);
        assert_eq!(tail.term(3), Err(StorageError::Compacted.into()));
        assert_eq!(tail.term(10), Err(StorageError::Unavailable.into()));
    }

    #[test]
    fn a_suffix_is_replaced_and_its_bytes_forgotten() {
        let mut tail = tail(5, 9);
        tail.append(&[entry(7, 3, 10)]);
        assert_eq!(tail.last(), 7);
        assert_eq!(tail.term(7).unwrap(), 3);
        assert_eq!(tail.bytes(), 2 * 112 + 22);
        assert_eq!(tail.bytes_after(6), 22);
        assert_eq!(tail.bytes_after(7), 0);
    }

    #[test]
    fn only_applied_entries_are_dropped() {
        let mut tail = tail(5, 9);
        tail.shrink(7, 0, 0);
        assert_eq!((tail.base(), tail.last()), (7, 9));
        assert_eq!(tail.term(7).unwrap(), 2);
        tail.shrink(9, 1, usize::MAX);
        assert_eq!(tail.base(), 8);
        tail.shrink(9, usize::MAX, 0);
        assert_eq!((tail.base(), tail.bytes()), (9, 0));
        tail.append(&[entry(10, 4, 1)]);
        assert_eq!(tail.last(), 10);
    }

    #[test]
    #[should_panic(expected = "does not continue the log")]
    fn a_gap_is_a_broken_invariant() {
        tail(5, 9).append(&[entry(11, 2, 0)]);
    }
}

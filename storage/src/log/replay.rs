//! Puts the records of the live segments together, in their order.

use super::format::{Cut, SegmentHeader, State};
use super::scan::Record;
use super::{Entry, EntryRef, HardState};
use std::collections::VecDeque;

/// The log as far as it was read.
pub(super) struct Replay {
    pub(super) hard_state: HardState,
    /// The newest cut seen.
    pub(super) cut: Cut,
    pub(super) last_index: u64,
    pub(super) last_term: u64,
    /// Entries after `keep_after`, without a gap.
    pub(super) entries: VecDeque<Entry>,
    /// The final cut: entries up to it are counted, not kept.
    keep_after: u64,
}

impl Replay {
    /// Begins with the oldest segment.
    pub(super) fn new(oldest: &SegmentHeader, keep_after: u64) -> Replay {
        Replay {
            hard_state: oldest.hard_state,
            cut: oldest.cut,
            last_index: oldest.last_index,
            last_term: oldest.last_term,
            entries: VecDeque::new(),
            keep_after,
        }
    }

    /// Goes on with a segment, whose header says what the segments before it held.
    pub(super) fn segment(&mut self, header: &SegmentHeader) -> Result<(), &'static str> {
        if (header.last_index, header.last_term) != (self.last_index, self.last_term) {
            return Err("the last entry before this segment is another than its header says");
        }
        if header.hard_state != self.hard_state {
            return Err("the hard state before this segment is another than its header says");
        }
        self.advance_cut(header.cut)
    }

    pub(super) fn record(&mut self, record: Record<'_>) -> Result<(), &'static str> {
        match record {
            Record::State(state) => self.state(&state),
            Record::Entry(entry) => self.entry(entry),
        }
    }

    fn state(&mut self, state: &State) -> Result<(), &'static str> {
        self.hard_state = state.hard_state;
        self.advance_cut(state.cut)?;
        if state.reset {
            self.entries.clear();
            self.last_index = state.cut.index;
            self.last_term = state.cut.term;
        }
        Ok(())
    }

    fn advance_cut(&mut self, cut: Cut) -> Result<(), &'static str> {
        if cut.index < self.cut.index {
            return Err("the place where the log was cut went back");
        }
        self.cut = cut;
        Ok(())
    }

    fn entry(&mut self, entry: EntryRef<'_>) -> Result<(), &'static str> {
        if entry.index > self.last_index + 1 {
            return Err("entries are missing before this one");
        }
        if entry.index <= self.cut.index {
            return Err("an entry that was cut is written again");
        }
        // An entry that is not the next one replaces a suffix.
        while self
            .entries
            .back()
            .is_some_and(|last| last.index >= entry.index)
        {
            self.entries.pop_back();
        }
        self.last_index = entry.index;
        self.last_term = entry.term;
        if entry.index > self.keep_after {
            self.entries.push_back(Entry {
                index: entry.index,
                term: entry.term,
                kind: entry.kind,
                data: entry.data.to_vec(),
                context: entry.context.to_vec(),
            });
        }
        Ok(())
    }

    /// What must hold once everything is read.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        if self.hard_state.commit > self.last_index {
            return Err("entries are missing that were committed");
        }
        let next = self
            .entries
            .front()
            .map_or(self.last_index + 1, |first| first.index);
        if next != self.cut.index + 1 {
            return Err("entries are missing after the place where the log was cut");
        }
        Ok(())
    }
}

//! Free page numbers, and which pages have blocks in the file.
//!
//! A free page without blocks costs nothing: it is a hole, or lies beyond the end of the file.
#![forbid(unsafe_code)]

use super::ids::IdSet;
use std::ops::Range;

/// Longer holes part two stretches.
const HOLE: u64 = 32;

pub(super) struct Free {
    ids: IdSet,
    /// Pages with blocks, free or not.
    backed: IdSet,
    /// Pages of `ids` with blocks.
    idle: u64,
}

impl Free {
    pub(super) fn new(ids: IdSet, backed: IdSet) -> Free {
        let idle = ids.common(&backed);
        Free { ids, backed, idle }
    }

    /// Free pages.
    pub(super) fn len(&self) -> u64 {
        self.ids.len()
    }

    /// Free pages with blocks.
    pub(super) fn idle(&self) -> u64 {
        self.idle
    }

    /// Pages with blocks that are not free.
    pub(super) fn busy(&self) -> u64 {
        self.backed.len() - self.idle
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ids.runs()
    }

    /// Stretches of free pages with blocks, with no more than short holes between these, and how
    /// many pages with blocks each has.
    pub(super) fn idle_stretches(&self, from: u64) -> impl Iterator<Item = (u64, Range<u64>)> + '_ {
        let idle_from = |from| self.ids.common_run_from(&self.backed, from);
        let mut next = idle_from(from);
        std::iter::from_fn(move || {
            let mut stretch = next.take()?;
            let mut idle = stretch.end - stretch.start;
            // All between two runs of one stretch is free.
            let free = self.ids.run_from(stretch.start)?;
            loop {
                next = idle_from(stretch.end);
                match &next {
                    Some(run) if run.start < free.end && run.start - stretch.end <= HOLE => {
                        idle += run.end - run.start;
                        stretch.end = run.end;
                    }
                    _ => return Some((idle, stretch)),
                }
            }
        })
    }

    pub(super) fn insert_run(&mut self, run: Range<u64>) {
        for id in run {
            let new = self.ids.insert(id);
            self.idle += u64::from(new && self.backed.contains(id));
        }
    }

    pub(super) fn remove_run(&mut self, run: Range<u64>) {
        for id in run {
            let had = self.ids.remove(id);
            self.idle -= u64::from(had && self.backed.contains(id));
        }
    }

    /// The first run of at least `pages` free pages in `within`.
    pub(super) fn find_run(&self, within: Range<u64>, pages: u64) -> Option<Range<u64>> {
        self.ids.find_run(within, pages)
    }

    /// As [`Free::find_run`], of pages with blocks.
    pub(super) fn find_idle(&self, within: Range<u64>, pages: u64) -> Option<Range<u64>> {
        self.ids.find_common_run(&self.backed, within, pages)
    }

    /// As [`Free::find_run`], in which at least every second page has blocks.
    pub(super) fn find_mostly_idle(&self, within: Range<u64>, pages: u64) -> Option<Range<u64>> {
        let mut stretches = self.idle_stretches(within.start);
        let found = stretches.find(|(idle, run)| {
            run.start >= within.end
                || run.end - run.start >= pages && idle * 2 >= run.end - run.start
        });
        found
            .map(|(_, run)| run)
            .filter(|run| run.start < within.end)
    }

    pub(super) fn is_backed(&self, id: u64) -> bool {
        self.backed.contains(id)
    }

    /// These pages have blocks now.
    pub(super) fn set_backed(&mut self, pages: &IdSet) {
        self.backed.union(pages);
        self.idle = self.ids.common(&self.backed);
    }

    /// These pages, which are not free, have none any more, or nobody knows.
    pub(super) fn set_unbacked(&mut self, run: Range<u64>) {
        self.backed.remove_run(run);
    }
}

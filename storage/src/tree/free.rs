//! Free page numbers, and which pages have blocks in the file.
//!
//! A free page without blocks costs nothing: it is a hole, or lies beyond the end of the file.
#![forbid(unsafe_code)]

use super::ids::IdSet;
use super::zones::{LONGEST, Zones};
use std::ops::Range;

/// Longer holes part two stretches.
const HOLE: u64 = 32;

fn len(run: &Range<u64>) -> u64 {
    run.end - run.start
}

fn longest(runs: impl Iterator<Item = Range<u64>>) -> u64 {
    runs.map(|run| len(&run)).max().unwrap_or(0)
}

/// The runs of these ids in a zone.
fn free_runs(ids: &IdSet, zone: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
    let mut from = zone.start;
    std::iter::from_fn(move || {
        let run = ids.first_run(from..zone.end)?;
        from = run.end;
        Some(run)
    })
}

/// The runs in a zone that are worth filling before the file grows: those of free pages at least
/// every second of which has blocks, and of any other the parts in which every one has.
fn idle_runs<'a>(
    ids: &'a IdSet,
    backed: &'a IdSet,
    zone: Range<u64>,
) -> impl Iterator<Item = Range<u64>> + 'a {
    let backed_in = move |run: Range<u64>| {
        let mut from = run.start;
        std::iter::from_fn(move || {
            let part = ids.first_common_run(backed, from..run.end)?;
            from = part.end;
            Some(part)
        })
    };
    free_runs(ids, zone).flat_map(move |run| {
        let idle: u64 = backed_in(run.clone()).map(|part| len(&part)).sum();
        let whole = (idle * 2 >= len(&run)).then(|| run.clone());
        let parts = whole.is_none().then(|| backed_in(run));
        whole.into_iter().chain(parts.into_iter().flatten())
    })
}

pub(super) struct Free {
    ids: IdSet,
    /// Pages with blocks, free or not.
    backed: IdSet,
    /// Pages of `ids` with blocks.
    idle: u64,
    /// Where runs of `ids` lie.
    free_zones: Zones,
    /// Where such of pages with blocks lie.
    idle_zones: Zones,
}

impl Free {
    pub(super) fn new(ids: IdSet, backed: IdSet) -> Free {
        let idle = ids.common(&backed);
        let mut free = Free {
            ids,
            backed,
            idle,
            free_zones: Zones::new(),
            idle_zones: Zones::new(),
        };
        if let Some(last) = free.ids.last() {
            free.changed(0..last + 1);
        }
        free
    }

    fn changed(&mut self, ids: Range<u64>) {
        self.free_zones.changed(ids.clone());
        self.idle_zones.changed(ids);
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
    pub(super) fn idle_stretches(&self) -> impl Iterator<Item = (u64, Range<u64>)> + '_ {
        let idle_from = |from| self.ids.common_run_from(&self.backed, from);
        let mut next = idle_from(0);
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
        self.changed(run.clone());
        for id in run {
            let new = self.ids.insert(id);
            self.idle += u64::from(new && self.backed.contains(id));
        }
    }

    pub(super) fn remove_run(&mut self, run: Range<u64>) {
        self.changed(run.clone());
        for id in run {
            let had = self.ids.remove(id);
            self.idle -= u64::from(had && self.backed.contains(id));
        }
    }

    /// The first run of at least `pages` free pages in `within`.
    pub(super) fn find_run(&self, within: Range<u64>, pages: u64) -> Option<Range<u64>> {
        self.ids.find_run(within, pages)
    }

    /// A run of at least `pages` free pages in one zone, or of as many as the last shelf is for; not
    /// every run of fewer than the next power of two is found.
    pub(super) fn find_free(&mut self, pages: u64) -> Option<Range<u64>> {
        let ids = &self.ids;
        let zone = self
            .free_zones
            .find(pages, |zone| longest(free_runs(ids, zone)))?;
        let least = pages.min(LONGEST);
        free_runs(ids, zone).find(|run| len(run) >= least)
    }

    /// As [`Free::find_free`], of pages at least every second of which has blocks.
    pub(super) fn find_idle(&mut self, pages: u64) -> Option<Range<u64>> {
        let (ids, backed) = (&self.ids, &self.backed);
        let runs = |zone| idle_runs(ids, backed, zone);
        let zone = self.idle_zones.find(pages, |zone| longest(runs(zone)))?;
        let least = pages.min(LONGEST);
        runs(zone).find(|run| len(run) >= least)
    }

    pub(super) fn is_backed(&self, id: u64) -> bool {
        self.backed.contains(id)
    }

    /// These pages have blocks now.
    pub(super) fn set_backed(&mut self, pages: &IdSet) {
        for run in pages.runs() {
            self.idle_zones.changed(run);
        }
        self.backed.union(pages);
        self.idle = self.ids.common(&self.backed);
    }

    /// These pages, which are not free, have none any more, or nobody knows.
    pub(super) fn set_unbacked(&mut self, run: Range<u64>) {
        self.idle_zones.changed(run.clone());
        self.backed.remove_run(run);
    }
}

//! Which page numbers are in use, which are free, and which must wait.
//!
//! A page number is *live* (the newest committed state or the open transaction reaches it),
//! *free*, or *pending*: dead, but still reachable for a pinned reader or from a durable meta
//! page. A page that no checkpoint has taken is *young*; when it dies it waits only for readers.
//! Any other waits until both meta pages are of checkpoints that began after its death.
#![forbid(unsafe_code)]

use super::free::Free;
use super::ids::IdSet;
use super::zones::LONGEST;
use std::collections::VecDeque;
use std::ops::Range;

/// Free runs of so many pages or more are used before the file grows as soon as the free pages
/// that have blocks are more than so many eighths of the [`Space::slack`]. A checkpoint in short
/// runs costs time, and what is taken in short runs is given back in short runs: a run is left
/// alone until its neighbours have died, too, as long as there is space for it.
const SHORT_RUNS: [(u64, u64); 6] = [(LONGEST, 0), (16, 1), (8, 2), (4, 4), (2, 6), (1, 8)];
/// The same for pages that are appended: they stay where they are put, and in a short run they
/// would keep it from ever being part of a longer one.
const SHORT_RUNS_APPENDED: [(u64, u64); 3] = [(LONGEST, 0), (RUN_APPENDED, 1), (1, 8)];
/// See [`SHORT_RUNS_APPENDED`].
const RUN_APPENDED: u64 = 16;

/// Free pages, with blocks or without, are no more than so many times the live ones before short
/// runs of them are used rather than the file is made longer.
const HOLES: u64 = 4;

/// Consecutive pages.
pub(super) type Extent = (u64, u32);

/// What a page is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// For the last pages of a tree, and for keys and values that are too long for a page. Where
    /// keys only grow, as revisions do, they stay as they are when others follow.
    Append,
    /// For any other pages: they change again, each in its time.
    Change,
}

impl Use {
    pub(super) fn of(append: bool) -> Use {
        match append {
            true => Use::Append,
            false => Use::Change,
        }
    }

    fn other(self) -> Use {
        match self {
            Use::Append => Use::Change,
            Use::Change => Use::Append,
        }
    }
}

/// Free pages of one use; not in [`Space::free`].
#[derive(Default)]
struct Lot {
    /// From which single ones are taken next.
    extent: Range<u64>,
    /// Those that died young; used first, so that the generation stays compact.
    recycled: Vec<u64>,
}

impl Lot {
    fn extent_len(&self) -> u64 {
        self.extent.end - self.extent.start
    }

    fn pop(&mut self) -> Option<u64> {
        self.recycled.pop().or_else(|| self.extent.next())
    }
}

struct Pending {
    /// Checkpoints begun before the deaths.
    generation: u64,
    /// The newest version that died.
    version: u64,
    ids: Vec<Extent>,
}

pub(super) struct Space {
    /// Pages 0 to `end` exist; the file may be shorter until the next checkpoint.
    end: u64,
    /// `end` never exceeds this.
    limit: u64,
    /// Pages taken at a time for single allocations, so that a checkpoint writes long runs. Free
    /// runs of at least a quarter of it are used before the file grows.
    extent_pages: u64,
    /// Young pages at most: so many may be in the file twice.
    young_most: u64,
    live: IdSet,
    young: IdSet,
    free: Free,
    /// By [`Use`].
    lots: [Lot; 2],
    /// Single pages taken to be appended since the last checkpoint began.
    appended: IdSet,
    /// Where the search for runs of several pages goes on.
    cursor: u64,
    /// Since pages were last freed, a whole round has found no free run of so many or more.
    no_run_of: u64,
    /// The disk is full: free pages with blocks are used before any others.
    tight: bool,
    /// Young deaths: (the version that no longer reaches it, pages).
    pending_young: VecDeque<(u64, Extent)>,
    pending_durable: VecDeque<Pending>,
    /// Pages in both queues.
    pending: u64,
    /// Free runs that a checkpoint is punching; in no other set.
    punching: Vec<Range<u64>>,
}

impl Space {
    /// The space of a file whose newest state uses `live` and whose pages below `end` are free
    /// unless in `live` or in `older`, the state of the other meta page (of checkpoint
    /// `generation - 1` at the latest).
    pub(super) fn new(
        live: IdSet,
        older: &IdSet,
        end: u64,
        limit: u64,
        extent_pages: u64,
        young_most: u64,
        generation: u64,
    ) -> Space {
        let mut used = live.clone();
        used.union(older);
        let free = Free::new(used.complement(end), used);
        let waiting: Vec<Range<u64>> = older.minus(&live).runs().collect();
        let mut space = Space {
            end,
            limit,
            extent_pages: extent_pages.max(4),
            young_most,
            live,
            young: IdSet::new(),
            free,
            lots: Default::default(),
            appended: IdSet::new(),
            cursor: 2,
            no_run_of: u64::MAX,
            tight: false,
            pending_young: VecDeque::new(),
            pending_durable: VecDeque::new(),
            pending: 0,
            punching: Vec::new(),
        };
        for id in waiting.into_iter().flatten() {
            // Only the older meta reaches them: they died before checkpoint `generation` began.
            space.push_durable((id, 1), generation.saturating_sub(1), 0);
        }
        space
    }

    /// Whether the disk is full.
    pub(super) fn set_tight(&mut self, tight: bool) {
        self.tight = tight;
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn live(&self) -> &IdSet {
        &self.live
    }

    pub(super) fn live_pages(&self) -> u64 {
        self.live.len()
    }

    /// Pages that could be allocated without more addresses.
    pub(super) fn available(&self) -> u64 {
        let growth = self.limit.saturating_sub(self.end);
        let in_lots = self
            .lots
            .iter()
            .map(|lot| lot.recycled.len() as u64 + lot.extent_len());
        self.free.len() + in_lots.sum::<u64>() + growth
    }

    /// Whether so little is available that what remains should be left to deletes.
    pub(super) fn is_nearly_used(&self) -> bool {
        self.available() < self.limit / 64
    }

    pub(super) fn pending_pages(&self) -> u64 {
        self.pending
    }

    /// Free pages whose blocks may be kept for the sake of longer runs. With those in use and those
    /// that wait for a checkpoint they are less than twice the live ones.
    pub(super) fn slack(&self) -> u64 {
        let live = self.live.len();
        let room = (live / 4 * 3).saturating_sub(2 * self.young_most);
        room.clamp(live / 16, live / 2)
    }

    /// Takes one page; `None` if the file's limit is reached.
    #[inline]
    pub(super) fn take(&mut self, usage: Use) -> Option<u64> {
        let id = match self.lots[usage as usize].pop() {
            Some(id) => id,
            None => self.take_anew(usage)?,
        };
        if usage == Use::Append {
            self.appended.insert(id);
        }
        Some(id)
    }

    fn take_anew(&mut self, usage: Use) -> Option<u64> {
        match self.next_extent(usage) {
            Some(mut extent) => {
                let id = extent.next();
                self.lots[usage as usize].extent = extent;
                id
            }
            None => self.lots[usage.other() as usize].pop(),
        }
    }

    /// For which use a page was taken, as far as that is known: see [`Space::appended`].
    pub(super) fn use_of(&self, id: u64) -> Use {
        Use::of(self.appended.contains(id))
    }

    /// Free pages with blocks, but for an extent.
    fn idle(&self) -> u64 {
        self.free.idle().saturating_sub(self.extent_pages)
    }

    /// Whether any free run is to be used before the file grows.
    fn cramped(&self) -> bool {
        self.tight || self.idle() > self.slack()
    }

    fn next_extent(&mut self, usage: Use) -> Option<Range<u64>> {
        // Many free pages in short runs: better shorter runs than a file that grows. How short
        // depends on how many there are.
        let idle = self.idle();
        let slack = self.slack();
        let short_runs = match usage {
            Use::Append => &SHORT_RUNS_APPENDED[..],
            Use::Change => &SHORT_RUNS[..],
        };
        for &(least, eighths) in short_runs {
            if (self.tight || eighths == 0 || idle > slack / 8 * eighths)
                && let Some(run) = self.free.find_idle(least)
            {
                return Some(self.take_run(run, 1));
            }
        }
        if let Some(run) = self.free.find_free(self.extent_pages / 4) {
            return Some(self.take_run(run, 1));
        }
        // Short holes are filled before numbers run out.
        let many = self.free.len() > HOLES * self.live.len() + 2 * self.extent_pages;
        if (many || self.end >= self.limit)
            && let Some(run) = self.free.find_free(1)
        {
            return Some(self.take_run(run, 1));
        }
        self.grow(1).map(|run| run.start..run.end)
    }

    /// A free run of at least `pages`, searching on from the last one.
    fn find_long(&mut self, pages: u64) -> Option<Range<u64>> {
        if self.free.len() < pages || pages >= self.no_run_of {
            return None;
        }
        let cursor = self.cursor;
        let run = (self.free.find_run(cursor..u64::MAX, pages))
            .or_else(|| self.free.find_run(0..cursor + pages, pages));
        match &run {
            Some(run) => self.cursor = run.start + pages,
            None => self.no_run_of = pages,
        }
        run
    }

    /// Pages have become free: there may be longer runs than before.
    fn freed(&mut self) {
        self.no_run_of = u64::MAX;
    }

    /// Takes an extent, at least `least` pages, or as much of one as this free run has.
    fn take_run(&mut self, run: Range<u64>, least: u64) -> Range<u64> {
        let run = run.start..run.end.min(run.start + self.extent_pages.max(least));
        self.free.remove_run(run.clone());
        run
    }

    /// New pages at the end: an extent if the limit allows, but at least `least`.
    fn grow(&mut self, least: u64) -> Option<Range<u64>> {
        let room = self.limit.saturating_sub(self.end);
        if room < least {
            return None;
        }
        let run = self.end..self.end + self.extent_pages.max(least).min(room);
        self.end = run.end;
        Some(run)
    }

    /// Takes consecutive pages.
    pub(super) fn take_pages(&mut self, pages: u32) -> Option<u64> {
        if pages == 1 {
            return self.take(Use::Append);
        }
        let pages = u64::from(pages);
        let lot = Use::Append as usize;
        if self.lots[lot].extent_len() < pages {
            if let Some(run) = self.find_long(pages.max(RUN_APPENDED)) {
                let extent = self.take_run(run, pages);
                self.append_to(extent);
            } else if self.cramped()
                && let Some(id) = self.take_any_run(pages)
            {
                return Some(id);
            } else if !self.lengthen(pages) {
                return self.take_any_run(pages);
            }
        }
        let extent = &mut self.lots[lot].extent;
        let id = extent.start;
        extent.start += pages;
        Some(id)
    }

    /// Makes the file longer for so many pages to be appended; `false` if its limit is reached.
    fn lengthen(&mut self, pages: u64) -> bool {
        let Range { start, end } = self.lots[Use::Append as usize].extent;
        // The extent at the end of the file grows in place.
        let had = if end == self.end { end - start } else { 0 };
        let Some(more) = self.grow(pages - had) else {
            return false;
        };
        match had {
            0 => self.append_to(more),
            _ => self.lots[Use::Append as usize].extent.end = more.end,
        }
        true
    }

    /// From now on pages are appended to this extent; the rest of the last one is free.
    fn append_to(&mut self, extent: Range<u64>) {
        let rest = std::mem::replace(&mut self.lots[Use::Append as usize].extent, extent);
        self.free.insert_run(rest);
        self.freed();
    }

    /// Takes the first free run that is long enough.
    fn take_any_run(&mut self, pages: u64) -> Option<u64> {
        let run = self.find_long(pages)?;
        self.free.remove_run(run.start..run.start + pages);
        Some(run.start)
    }

    /// Gives back pages that nobody can reach.
    pub(super) fn give(&mut self, (id, pages): Extent) {
        if pages == 1 {
            self.lots[self.use_of(id) as usize].recycled.push(id);
        } else {
            self.free.insert_run(id..id + u64::from(pages));
            self.freed();
        }
    }

    /// The transaction that took the pages is committed.
    pub(super) fn born(&mut self, (id, pages): Extent) {
        for id in id..id + u64::from(pages) {
            let new = self.live.insert(id);
            assert!(new, "page {id} is in use twice");
            self.young.insert(id);
        }
    }

    /// Pages that the committed transaction took and gave up again.
    pub(super) fn unborn(&mut self, (id, pages): Extent) {
        for id in id..id + u64::from(pages) {
            let had = self.live.remove(id) && self.young.remove(id);
            assert!(had, "page {id} was not the transaction's");
        }
        self.give((id, pages));
    }

    /// Takes pages for a checkpoint's own use: they live, but are not young. They die with the next
    /// one, so any free run will do.
    pub(super) fn take_live(&mut self, pages: u32) -> Option<u64> {
        let id = match pages {
            1 => self.take(Use::Change)?,
            _ => (self.take_any_run(u64::from(pages))).or_else(|| self.take_pages(pages))?,
        };
        for id in id..id + u64::from(pages) {
            let new = self.live.insert(id);
            assert!(new, "page {id} is in use twice");
        }
        Some(id)
    }

    /// Gives such pages back after the checkpoint failed.
    pub(super) fn untake_live(&mut self, (id, pages): Extent) {
        for id in id..id + u64::from(pages) {
            let had = self.live.remove(id);
            assert!(had, "page {id} is not in use");
        }
        self.give((id, pages));
    }

    /// The pages are not reached from `version` on. `generation` checkpoints have begun.
    pub(super) fn died(&mut self, (id, pages): Extent, version: u64, generation: u64) {
        let mut young = false;
        for id in id..id + u64::from(pages) {
            let had = self.live.remove(id);
            assert!(had, "page {id} died twice");
            young = self.young.remove(id);
        }
        if young {
            self.pending += u64::from(pages);
            self.pending_young.push_back((version, (id, pages)));
        } else {
            self.push_durable((id, pages), generation, version);
        }
    }

    fn push_durable(&mut self, extent: Extent, generation: u64, version: u64) {
        self.pending += u64::from(extent.1);
        match self.pending_durable.back_mut() {
            Some(last) if last.generation == generation => {
                last.version = last.version.max(version);
                last.ids.push(extent);
            }
            _ => self.pending_durable.push_back(Pending {
                generation,
                version,
                ids: vec![extent],
            }),
        }
    }

    /// The oldest young death that every reader has passed.
    pub(super) fn pop_young(&mut self, oldest_pinned: u64) -> Option<Extent> {
        let &(version, extent) = self.pending_young.front()?;
        if version > oldest_pinned {
            return None;
        }
        self.pending_young.pop_front();
        self.pending -= u64::from(extent.1);
        Some(extent)
    }

    /// Deaths that neither a reader nor a meta page reaches; both metas are of checkpoints at or
    /// above `older_meta`.
    pub(super) fn pop_durable(&mut self, oldest_pinned: u64, older_meta: u64) -> Vec<Extent> {
        match self.pending_durable.front() {
            Some(first) if first.generation < older_meta && first.version <= oldest_pinned => {}
            _ => return Vec::new(),
        }
        let first = self.pending_durable.pop_front().expect("looked at above");
        for &(id, pages) in &first.ids {
            self.pending -= u64::from(pages);
            self.free.insert_run(id..id + u64::from(pages));
        }
        self.freed();
        first.ids
    }

    /// A checkpoint begins: the young pages are its pages, and what dies from now on waits for
    /// the checkpoints after it.
    pub(super) fn take_young(&mut self) -> IdSet {
        for lot in &mut self.lots {
            for id in lot.recycled.drain(..) {
                self.free.insert_run(id..id + 1);
            }
        }
        self.appended = IdSet::new();
        self.freed();
        std::mem::take(&mut self.young)
    }

    /// The checkpoint failed: its pages that still live are young again. Those that died
    /// meanwhile wait as if it had not failed.
    pub(super) fn put_back_young(&mut self, young: &IdSet) {
        for run in young.runs() {
            for id in run {
                if self.live.contains(id) {
                    self.young.insert(id);
                }
            }
        }
    }

    /// The parts of `pages` that have no blocks in the file yet.
    pub(super) fn unbacked(&self, pages: &IdSet) -> Vec<Range<u64>> {
        let mut missing = IdSet::new();
        for run in pages.runs() {
            for id in run {
                if !self.free.is_backed(id) {
                    missing.insert(id);
                }
            }
        }
        missing.runs().collect()
    }

    /// The pages have blocks.
    pub(super) fn set_backed(&mut self, pages: &IdSet) {
        self.free.set_backed(pages);
    }

    /// Sets runs of free pages with blocks aside, to be punched: no more than `most`, the longest
    /// first, and no more than it takes to leave `kept` free pages blocks.
    pub(super) fn start_punch(&mut self, most: usize, kept: u64) -> Vec<Range<u64>> {
        let surplus = self.free.idle().saturating_sub(kept);
        if surplus <= self.slack() / 16 {
            return Vec::new();
        }
        let mut runs: Vec<(u64, Range<u64>)> = self.free.idle_stretches().collect();
        runs.sort_by_key(|(idle, run)| std::cmp::Reverse((*idle, run.start)));
        runs.truncate(most);
        let mut pages = 0;
        runs.retain(|(idle, _)| {
            let wanted = pages < surplus;
            pages += idle;
            wanted
        });
        let runs: Vec<Range<u64>> = runs.into_iter().map(|(_, run)| run).collect();
        for run in &runs {
            self.free.remove_run(run.clone());
        }
        self.punching = runs.clone();
        runs
    }

    /// Pages in use or waiting that have blocks.
    pub(super) fn busy_blocks(&self) -> u64 {
        self.free.busy()
    }

    /// The punching is over; whether or not it worked, nothing is known of the blocks.
    pub(super) fn end_punch(&mut self) {
        for run in std::mem::take(&mut self.punching) {
            self.free.set_unbacked(run.clone());
            self.free.insert_run(run);
        }
        self.freed();
    }

    /// Free pages.
    pub(super) fn free_pages(&self) -> u64 {
        self.free.len()
    }

    /// Asserts that live, free and pending pages are disjoint and are all pages, `open` being
    /// those of the open transaction.
    pub(super) fn audit(&self, open: &[Extent]) {
        let mut seen = IdSet::new();
        let mut add = |run: Range<u64>, what: &str| {
            for id in run {
                assert!(seen.insert(id), "page {id} is twice in use ({what})");
            }
        };
        add(0..2, "meta");
        self.live.runs().for_each(|run| add(run, "live"));
        self.free.runs().for_each(|run| add(run, "free"));
        for lot in &self.lots {
            add(lot.extent.clone(), "extent");
            let recycled = lot.recycled.iter();
            recycled.for_each(|&id| add(id..id + 1, "recycled"));
        }
        for run in &self.punching {
            add(run.clone(), "punching");
        }
        let durable = self.pending_durable.iter().flat_map(|p| &p.ids);
        let young = self.pending_young.iter().map(|(_, extent)| extent);
        for &(id, pages) in durable.chain(young).chain(open) {
            add(id..id + u64::from(pages), "pending");
        }
        assert_eq!(seen.len(), self.end, "pages were lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is available is there for either use: a change whose room was checked never finds none.
    #[test]
    fn all_that_is_available_can_be_taken_for_either_use() {
        for usage in [Use::Append, Use::Change] {
            let mut space = Space::new(IdSet::new(), &IdSet::new(), 2, 1000, 16, 10, 1);
            // Something remains in both lots, of both kinds.
            let taken = [usage.other(), usage].map(|usage| {
                let ids = [(); 5].map(|()| space.take(usage).expect("room"));
                space.give((ids[1], 1));
                space.give((ids[3], 1));
                [ids[0], ids[2], ids[4]]
            });
            let mut ids = taken.concat();
            let available = space.available();
            assert_eq!(available, 998 - ids.len() as u64);
            ids.extend((0..available).map(|_| space.take(usage).expect("available")));
            assert_eq!((space.take(usage), space.available()), (None, 0));
            ids.sort();
            assert_eq!(ids, Vec::from_iter(2..1000));
        }
    }
}

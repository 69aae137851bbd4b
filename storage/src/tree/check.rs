//! The whole-file checker.
#![forbid(unsafe_code)]

use super::api::TreeError;
use super::ids::IdSet;
use super::open::{Loaded, State, open_shared};
use super::read::{Source, child_page, key_of, root_page, value_of};
use super::writer::Writer;
use crate::disk::Disk;
use crate::page::{COUNTED, HEADER, PAGE, Page, Root, Run, as_bytes};

/// What the checker found in a sound file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Number of the newest checkpoint.
    pub generation: u64,
    /// Entries of each tree.
    pub entries: [u64; 3],
    /// Counted entries of each tree.
    pub counted: [u64; 3],
    /// Levels of each tree; 0 if empty.
    pub levels: [u64; 3],
    /// Leaf pages of each tree.
    pub leaves: [u64; 3],
    /// Bytes in use in these leaf pages.
    pub leaf_bytes: [u64; 3],
    /// Branch pages of all trees.
    pub branches: u64,
    /// Pages of long keys and values.
    pub run_pages: u64,
    /// Pages in use, with the bitmap but without the meta pages.
    pub live_pages: u64,
    /// Pages that nothing reaches.
    pub free_pages: u64,
    /// Both meta pages are valid.
    pub both_metas: bool,
}

/// Addresses for the file under check.
pub(super) const RESERVE: u64 = if cfg!(miri) { 1 << 22 } else { 1 << 40 };

fn corrupt(page: u64, what: &'static str) -> TreeError {
    TreeError::Corrupt { page, what }
}

/// Checks the tree file `name`: both meta pages, every page and every long value that the newest
/// state reaches, the order of keys, levels and counts, and that the pages reached are exactly
/// those that the free-space bitmap leaves out. If the other meta page names an older state, that
/// is checked in the same way. Changes nothing.
pub fn check(disk: &dyn Disk, name: &str) -> Result<CheckReport, TreeError> {
    if !disk.list()?.iter().any(|present| present == name) {
        return Err(corrupt(0, "there is no such file"));
    }
    let file = disk.open_pages(name, RESERVE)?;
    let (
        shared,
        Loaded {
            newest,
            older,
            both,
            ..
        },
    ) = open_shared(file)?;
    let reader = shared.reader().expect("the first reader");
    let snapshot = reader.pin();
    if let Some(older) = &older {
        check_state(&snapshot, older)?;
    }
    let mut report = check_state(&snapshot, &newest)?;
    report.both_metas = both;
    Ok(report)
}

fn check_state(source: &impl Source, state: &State) -> Result<CheckReport, TreeError> {
    let mut walk = Walk::new(source);
    for (tree, root) in state.meta.roots.iter().enumerate() {
        walk.tree(tree, root)?;
    }
    if state.meta.bitmap.len > 0 {
        walk.reach(state.meta.bitmap.id, state.meta.bitmap.pages())?;
    }
    walk.compare(&state.live)?;
    let mut report = walk.report;
    report.generation = state.meta.generation;
    report.live_pages = state.live.len();
    report.free_pages = state.meta.end - 2 - state.live.len();
    Ok(report)
}

impl Writer {
    /// Checks the newest committed state in memory and file as [`check`] does a file, and that
    /// every page is live, free or pending.
    pub fn check(&self) -> Result<CheckReport, TreeError> {
        self.audit();
        let mut walk = Walk::new(&self.owner);
        for (tree, root) in self.roots().iter().enumerate() {
            walk.tree(tree, root)?;
        }
        if let Some((id, pages)) = self.bitmap() {
            walk.reach(id, pages)?;
        }
        walk.compare(self.space.live())?;
        let mut report = walk.report;
        report.live_pages = self.space.live_pages();
        report.free_pages = self.space.end() - 2 - report.live_pages;
        Ok(report)
    }
}

struct Walk<'s, S> {
    source: &'s S,
    reached: IdSet,
    report: CheckReport,
}

impl<'s, S: Source> Walk<'s, S> {
    fn new(source: &'s S) -> Walk<'s, S> {
        Walk {
            source,
            reached: IdSet::new(),
            report: CheckReport::default(),
        }
    }

    fn reach(&mut self, id: u64, pages: u32) -> Result<(), TreeError> {
        for id in id..id + u64::from(pages) {
            if id < 2 || !self.reached.insert(id) {
                return Err(corrupt(id, "it is in use twice"));
            }
        }
        Ok(())
    }

    /// The pages reached are the pages in use.
    fn compare(&self, live: &IdSet) -> Result<(), TreeError> {
        if let Some(run) = self.reached.minus(live).run_from(0) {
            return Err(corrupt(
                run.start,
                "it is in use, but the bitmap says that it is free",
            ));
        }
        if let Some(run) = live.minus(&self.reached).run_from(0) {
            return Err(corrupt(
                run.start,
                "nothing reaches it, but the bitmap says it is in use",
            ));
        }
        Ok(())
    }

    fn tree(&mut self, tree: usize, root: &Root) -> Result<(), TreeError> {
        let Some(page) = root_page(self.source, root)? else {
            if root.counted != 0 {
                return Err(corrupt(0, "an empty tree that counts entries"));
            }
            return Ok(());
        };
        self.report.levels[tree] = u64::from(root.level) + 1;
        let counted = self.page(tree, page, root.crc, None, None)?;
        if counted != root.counted {
            return Err(corrupt(page.id(), "the root's count is wrong"));
        }
        self.report.counted[tree] = counted;
        Ok(())
    }

    /// Checks a page and what is below it; keys lie in `low..high`. Returns its counted entries.
    /// Recursion is bounded by the level.
    fn page(
        &mut self,
        tree: usize,
        page: &Page,
        crc: u32,
        low: Option<&[u8]>,
        high: Option<&[u8]>,
    ) -> Result<u64, TreeError> {
        let id = page.id();
        self.reach(id, 1)?;
        if crc32fast::hash(as_bytes(page)) != crc {
            return Err(corrupt(
                id,
                "its checksum does not match its parent's pointer",
            ));
        }
        crate::page::verify(as_bytes(page), id).map_err(|what| corrupt(id, what))?;
        self.keys(page, low, high)?;
        if page.is_leaf() {
            return self.leaf(tree, page);
        }
        self.report.branches += 1;
        let mut sum = 0u64;
        for index in 0..page.count() {
            let child = page.child(index);
            let below = child_page(self.source, page, index)?;
            let low = match index {
                0 => low,
                _ => Some(key_of(self.source, page, index)?),
            };
            let high = match index + 1 {
                next if next < page.count() => Some(key_of(self.source, page, next)?),
                _ => high,
            };
            let counted = self.page(tree, below, child.crc, low, high)?;
            if counted != child.counted {
                return Err(corrupt(id, "the count of a child pointer is wrong"));
            }
            sum += counted;
        }
        Ok(sum)
    }

    fn keys(
        &mut self,
        page: &Page,
        low: Option<&[u8]>,
        high: Option<&[u8]>,
    ) -> Result<(), TreeError> {
        let mut before: Option<&[u8]> = None;
        for index in 0..page.count() {
            if let Some(run) = page.key_run(index) {
                self.run(run)?;
            }
            if !page.is_leaf() && index == 0 {
                if !page.stored_key(0).is_empty() {
                    return Err(corrupt(page.id(), "its first child has a key"));
                }
                continue;
            }
            let key = key_of(self.source, page, index)?;
            if let Some(stored) = page.key_run(index).map(|_| page.stored_key(index))
                && !key.starts_with(&stored[crate::page::RUN_BYTES..])
            {
                return Err(corrupt(page.id(), "the prefix of a long key is wrong"));
            }
            if before.is_some_and(|before| before >= key) {
                return Err(corrupt(page.id(), "its keys are out of order"));
            }
            if low.is_some_and(|low| key < low) || high.is_some_and(|high| key >= high) {
                return Err(corrupt(page.id(), "a key lies outside the parent's bounds"));
            }
            before = Some(key);
        }
        Ok(())
    }

    fn leaf(&mut self, tree: usize, page: &Page) -> Result<u64, TreeError> {
        self.report.leaves[tree] += 1;
        self.report.leaf_bytes[tree] += (HEADER + page.used()) as u64;
        let mut counted = 0;
        for index in 0..page.count() {
            self.report.entries[tree] += 1;
            counted += u64::from(page.flags(index) & COUNTED);
            if let Some(run) = page.value_run(index) {
                self.run(run)?;
                value_of(self.source, page, index)?;
            }
        }
        Ok(counted)
    }

    fn run(&mut self, run: Run) -> Result<(), TreeError> {
        self.reach(run.id, run.pages())?;
        self.report.run_pages += u64::from(run.pages());
        if crc32fast::hash(self.source.run(run)?) != run.crc {
            return Err(corrupt(
                run.id,
                "the checksum of a long value does not match",
            ));
        }
        Ok(())
    }
}

const _: () = assert!(HEADER < PAGE);

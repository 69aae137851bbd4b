//! The open transaction.
#![forbid(unsafe_code)]

use super::api::{Interval, TreeError, TreeId, TreeRead, TreeWrite};
use super::change::{Found, Path};
use super::pack::PackBuffers;
use super::read;
use super::space::Extent;
use super::writer::Writer;
use crate::page::{
    CellBuf, DIRTY, KEY_INLINE_MAX, KEY_PREFIX, PAGE, Root, Run, StoredKey, VALUE_INLINE_MAX,
};
use std::collections::BTreeSet;

/// Page numbers that must be left before an insert begins: for the copies and splits of one path
/// and the separators that they make, and for the next checkpoint's bitmap.
const PAGES_LEFT_MIN: u64 = 256;

/// What the open transaction has done so far.
#[derive(Default)]
pub(super) struct Work {
    pub(super) open: bool,
    pub(super) roots: [Root; 3],
    /// Pages taken from the free space.
    pub(super) taken: Vec<Extent>,
    /// Single pages of `taken` that died again, by their use; used first.
    pub(super) reuse: [Vec<u64>; 2],
    /// Runs of `taken` that died again.
    pub(super) dropped: Vec<Extent>,
    /// Published pages that this transaction no longer reaches.
    pub(super) freed: Vec<Extent>,
    /// Runs of this transaction that are alive.
    pub(super) fresh_runs: BTreeSet<u64>,
    pub(super) cell: CellBuf,
    /// For each tree, where its last look-up ended.
    pub(super) found: [Found; 3],
    pub(super) separator: Vec<u8>,
    pub(super) pack: PackBuffers,
    /// Bytes of frames after the last time that pages were spilled.
    pub(super) spill_floor: u64,
    /// Index in `taken` up to which pages were spilled.
    pub(super) spilled: usize,
}

impl Work {
    pub(super) fn start(&mut self, roots: [Root; 3]) {
        self.open = true;
        self.roots = roots;
        self.spill_floor = 0;
        self.spilled = 0;
        self.found.iter_mut().for_each(Found::forget);
    }

    pub(super) fn close(&mut self) {
        self.open = false;
        self.taken.clear();
        self.reuse.iter_mut().for_each(Vec::clear);
        self.dropped.clear();
        self.freed.clear();
        self.fresh_runs.clear();
    }
}

/// Changes that become visible together, at [`Txn::commit`]; dropped without it, they are gone.
///
/// After an error of an insert or a removal the transaction must be dropped.
pub struct Txn<'w> {
    pub(super) writer: &'w mut Writer,
    use_reserve: bool,
    keep: bool,
}

impl<'w> Txn<'w> {
    pub(super) fn new(writer: &'w mut Writer) -> Txn<'w> {
        Txn {
            writer,
            use_reserve: false,
            keep: false,
        }
    }

    /// Lets inserts go on while the disk is full, from the space held in reserve: for deletes and
    /// compaction, which write a little to free more.
    pub fn use_reserve(&mut self) {
        self.use_reserve = true;
    }

    /// Whether the disk is full: see [`Writer::full`].
    pub fn full(&self) -> bool {
        self.writer.full()
    }

    /// The user's bytes of the newest commit.
    pub fn user(&self) -> &[u8] {
        self.writer.user()
    }

    /// Publishes the changes together with the user's bytes (at most
    /// [`crate::page::USER_MAX`]).
    pub fn commit(mut self, user: &[u8]) {
        self.keep = true;
        self.writer.commit(user);
    }

    /// Leaves the transaction open; the next [`Writer::begin`] goes on with it. Nothing of it is
    /// visible meanwhile, and checkpoints may come and go.
    pub fn suspend(mut self) {
        self.keep = true;
    }

    fn root(&self, tree: TreeId) -> &Root {
        &self.writer.work.roots[tree as usize]
    }

    fn check_space(&mut self, pages: u64) -> Result<(), TreeError> {
        if self.writer.space.available() < PAGES_LEFT_MIN + pages {
            return Err(TreeError::NoSpace);
        }
        self.writer.spill_if_full(self.use_reserve)
    }

    fn write_run(&mut self, parts: &[&[u8]], len: usize) -> Result<Run, TreeError> {
        let len = u32::try_from(len).map_err(|_| TreeError::NoSpace)?;
        let pages = Run { id: 0, crc: 0, len }.pages();
        let id = self.writer.take_run(pages).ok_or(TreeError::NoSpace)?;
        let bytes = self.writer.owner.new_run(id, pages);
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let crc = crc32fast::hash(&bytes[..at]);
        Ok(Run { id, crc, len })
    }

    fn write_key_run(&mut self, key: &[u8]) -> Result<Option<Run>, TreeError> {
        if key.len() <= KEY_INLINE_MAX {
            return Ok(None);
        }
        debug_assert!(key.len() > KEY_PREFIX);
        self.write_run(&[key], key.len()).map(Some)
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.writer.abort();
        }
    }
}

impl TreeRead for Txn<'_> {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        read::get(&self.writer.owner, self.root(tree), key)
    }

    fn scan<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        read::scan(&self.writer.owner, self.root(tree), interval, false, visit)
    }

    fn scan_back<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        read::scan(&self.writer.owner, self.root(tree), interval, true, visit)
    }

    fn count(&self, tree: TreeId, interval: Interval<'_>) -> Result<u64, TreeError> {
        read::count(&self.writer.owner, self.root(tree), interval)
    }

    fn warm(&self, tree: TreeId, keys: &[&[u8]]) {
        read::warm(&self.writer.owner, self.root(tree), keys);
    }
}

impl TreeWrite for Txn<'_> {
    fn insert(
        &mut self,
        tree: TreeId,
        key: &[u8],
        value: &[&[u8]],
        counted: bool,
    ) -> Result<(), TreeError> {
        if self.writer.full() && !self.use_reserve {
            return Err(TreeError::NoSpace);
        }
        let len: usize = value.iter().map(|part| part.len()).sum();
        // A separator may need as many pages as the longest key that it parts.
        self.check_space(((len + 3 * key.len()) / PAGE) as u64)?;
        let value_run = if len > VALUE_INLINE_MAX {
            Some(self.write_run(value, len)?)
        } else {
            None
        };
        let mut found = std::mem::take(&mut self.writer.work.found[tree as usize]);
        let changed = self.insert_found(tree, key, &mut found, value, value_run, counted);
        // After an error or a split the way there is another.
        match &changed {
            Ok(Some(index)) => found.settle(key, *index),
            _ => found.forget(),
        }
        self.writer.work.found[tree as usize] = found;
        changed.map(|_| ())
    }

    fn get_to_change(&mut self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        let mut found = std::mem::take(&mut self.writer.work.found[tree as usize]);
        let place = self.writer.seek(tree, key, &mut found);
        let leaf = place.is_ok().then(|| found.path.leaf_step());
        self.writer.work.found[tree as usize] = found;
        let (Ok(index), Some(Some(leaf))) = (place?, leaf) else {
            return Ok(None);
        };
        let owner = &self.writer.owner;
        let page = owner.page(leaf.id, leaf.crc, 0)?;
        read::value_of(owner, page, index).map(Some)
    }

    fn remove(&mut self, tree: TreeId, key: &[u8]) -> Result<bool, TreeError> {
        self.check_space(0)?;
        let mut found = std::mem::take(&mut self.writer.work.found[tree as usize]);
        let place = self.writer.seek(tree, key, &mut found);
        let removed = place.and_then(|place| {
            let Ok(index) = place else { return Ok(false) };
            self.writer.freshen(tree, &mut found.path)?;
            self.writer.remove_entry(tree, &mut found.path, index)?;
            Ok(true)
        });
        if !matches!(removed, Ok(false)) {
            found.forget();
        }
        self.writer.work.found[tree as usize] = found;
        removed
    }
}

impl Txn<'_> {
    /// Puts an entry where `key` belongs; returns its place in the leaf of `found`, or `None` if
    /// the tree has another shape now.
    fn insert_found(
        &mut self,
        tree: TreeId,
        key: &[u8],
        found: &mut Found,
        value: &[&[u8]],
        value_run: Option<Run>,
        counted: bool,
    ) -> Result<Option<usize>, TreeError> {
        let place = self.writer.seek(tree, key, found)?;
        self.writer.freshen(tree, &mut found.path)?;
        match place {
            Ok(index) => {
                let same = self.overwrite(tree, &found.path, index, value, value_run, counted)?;
                Ok(same.then_some(index))
            }
            Err(index) => {
                let key_run = self.write_key_run(key)?;
                let key = StoredKey::new(key, key_run);
                let cell = &mut self.writer.work.cell;
                match value_run {
                    None => cell.leaf(key, value, counted),
                    Some(run) => cell.leaf_run(key, run, counted),
                };
                self.writer
                    .add_counts(tree, &found.path, i64::from(counted));
                let same = self.writer.insert_cell(tree, &mut found.path, index)?;
                Ok(same.then_some(index))
            }
        }
    }

    /// Gives the entry at `index` of the path's leaf another value; says whether the tree has kept
    /// its shape.
    fn overwrite(
        &mut self,
        tree: TreeId,
        path: &Path,
        index: usize,
        value: &[&[u8]],
        value_run: Option<Run>,
        counted: bool,
    ) -> Result<bool, TreeError> {
        let writer = &mut *self.writer;
        let leaf = path.leaf();
        let page = writer.owner.change(leaf);
        let was_counted = page.flags(index) & crate::page::COUNTED != 0;
        let old_run = page.value_run(index);
        let flags = page.flags(index);
        let key = page.stored_key(index);
        match value_run {
            None => writer.work.cell.leaf_stored(flags, key, value, counted),
            Some(run) => {
                let value: &[&[u8]] = &[&run.encode()];
                writer.work.cell.leaf_stored(flags, key, value, counted);
                writer.work.cell.mark_value_run()
            }
        };
        if let Some(run) = old_run {
            writer.free_run(run);
        }
        writer.add_counts(tree, path, i64::from(counted) - i64::from(was_counted));
        let page = writer.owner.change(leaf);
        if page.replace(index, writer.work.cell.bytes()) {
            return Ok(true);
        }
        page.remove(index);
        let mut path = path.clone();
        writer.insert_cell(tree, &mut path, index)
    }
}

/// Whether a root or child pointer leads to a page of the open transaction.
pub(super) fn is_dirty(id: u64) -> bool {
    id & DIRTY != 0
}

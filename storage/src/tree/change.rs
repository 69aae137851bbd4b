//! Changing a tree: path copies, splits and merges.
#![forbid(unsafe_code)]

use super::api::{TreeError, TreeId};
use super::read::{child_page, key_of, root_page};
use super::space::Use;
use super::txn::is_dirty;
use super::writer::Writer;
use crate::page::{
    BRANCH_HEAD, Between, Child, DIRTY, HEADER, KEY_INLINE_MAX, LEVEL_MAX, PAGE, PageBytes, Root,
    Run, StoredKey, as_bytes, page_mut, page_ref,
};

/// Bytes of cells and slots that a page can hold.
const BODY: usize = PAGE - HEADER;
/// A page that holds less after a removal looks for a neighbour to merge with.
const SPARSE: usize = BODY * 2 / 3;
/// Two neighbours merge if their cells fill no more than this, so that the next insert need not
/// split the page again.
const MERGED_MAX: usize = BODY * 15 / 16;

/// One page on the way from the root to a leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) id: u64,
    /// The page's checksum, if it is not one of the open transaction.
    pub(super) crc: u32,
    /// The cell of a branch that the way goes through.
    slot: usize,
    /// Cells of the page.
    count: usize,
}

/// The pages from the root to a leaf; empty for an empty tree.
#[derive(Debug, Clone, Default)]
pub(super) struct Path {
    steps: Vec<Step>,
}

impl Path {
    pub(super) fn leaf(&self) -> u64 {
        self.steps.last().expect("a path into a tree").id
    }

    /// The leaf; `None` in an empty tree.
    pub(super) fn leaf_step(&self) -> Option<Step> {
        self.steps.last().copied()
    }

    /// Whether the leaf is the tree's last.
    fn is_last(&self) -> bool {
        let branches = self.steps.len().saturating_sub(1);
        self.steps[..branches]
            .iter()
            .all(|step| step.slot + 1 == step.count)
    }
}

/// Where a look-up of the open transaction ended. Good for the next one as long as nothing of the
/// tree's shape has changed since.
#[derive(Debug)]
pub(super) struct Found {
    good: bool,
    key: Vec<u8>,
    pub(super) path: Path,
    place: Result<usize, usize>,
}

impl Default for Found {
    fn default() -> Found {
        Found {
            good: false,
            key: Vec::new(),
            path: Path::default(),
            place: Err(0),
        }
    }
}

impl Found {
    /// The tree has changed.
    pub(super) fn forget(&mut self) {
        self.good = false;
    }

    /// The entry of `key` lies at `index` of the path's leaf now.
    pub(super) fn settle(&mut self, key: &[u8], index: usize) {
        self.hold(key, Ok(index));
    }

    fn hold(&mut self, key: &[u8], place: Result<usize, usize>) {
        if self.key != key {
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        self.place = place;
        self.good = true;
    }
}

impl Writer {
    /// A page number for the open transaction.
    pub(super) fn take_page(&mut self, usage: Use) -> u64 {
        if let Some(id) = self.work.reuse[usage as usize].pop() {
            return id;
        }
        let id = self
            .space
            .take(usage)
            .expect("room was checked before the change");
        self.work.taken.push((id, 1));
        id
    }

    pub(super) fn take_run(&mut self, pages: u32) -> Option<u64> {
        let id = self.space.take_pages(pages)?;
        self.work.taken.push((id, pages));
        self.work.fresh_runs.insert(id);
        Some(id)
    }

    /// The open transaction no longer reaches this page.
    pub(super) fn free_page(&mut self, id: u64, fresh: bool) {
        if fresh {
            self.owner.forget(id, 1);
            self.work.reuse[self.space.use_of(id) as usize].push(id);
        } else {
            self.work.freed.push((id, 1));
        }
    }

    /// The open transaction no longer reaches this run.
    pub(super) fn free_run(&mut self, run: Run) {
        if self.work.fresh_runs.remove(&run.id) {
            self.owner.forget(run.id, run.pages());
            self.work.dropped.push((run.id, run.pages()));
        } else {
            self.work.freed.push((run.id, run.pages()));
        }
    }

    /// Finds the place of `key`, as [`Writer::descend`] does, with as little search as what is
    /// known of the last one allows.
    pub(super) fn seek(
        &self,
        tree: TreeId,
        key: &[u8],
        found: &mut Found,
    ) -> Result<Result<usize, usize>, TreeError> {
        if found.good && found.key == key {
            return Ok(found.place);
        }
        // Keys that only grow: behind the last entry of the last leaf there is nothing.
        if found.good
            && let Ok(index) = found.place
            && key > &*found.key
            && let Some(leaf) = found.path.leaf_step()
            && found.path.is_last()
            && index + 1 == self.owner.page(leaf.id, leaf.crc, 0)?.count()
        {
            found.hold(key, Err(index + 1));
            return Ok(found.place);
        }
        found.good = false;
        let place = self.descend(tree, key, &mut found.path)?;
        found.hold(key, place);
        Ok(place)
    }

    /// Finds the place of `key`: the way there in `path`, and its cell in the leaf, or where it
    /// would go.
    fn descend(
        &self,
        tree: TreeId,
        key: &[u8],
        path: &mut Path,
    ) -> Result<Result<usize, usize>, TreeError> {
        path.steps.clear();
        let load = |run| self.owner.run(run);
        let root = &self.work.roots[tree as usize];
        let Some(mut page) = root_page(&self.owner, root)? else {
            return Ok(Err(0));
        };
        let (mut id, mut crc) = (root.id & !DIRTY, root.crc);
        let mut between = Between::default();
        while !page.is_leaf() {
            let slot = page.route(key, between, &load)?;
            between = page.between(slot, between);
            let count = page.count();
            path.steps.push(Step {
                id,
                crc,
                slot,
                count,
            });
            let child = page.child(slot);
            (id, crc) = (child.page(), child.crc);
            page = child_page(&self.owner, page, slot)?;
        }
        let count = page.count();
        path.steps.push(Step {
            id,
            crc,
            slot: 0,
            count,
        });
        page.find(key, between, &load)
    }

    /// Makes every page of the path one of the open transaction.
    pub(super) fn freshen(&mut self, tree: TreeId, path: &mut Path) -> Result<(), TreeError> {
        let root = self.work.roots[tree as usize];
        let usage = Use::of(path.is_last());
        if root.id == 0 {
            let id = self.take_page(usage);
            self.owner.new_page(id, 0);
            self.work.roots[tree as usize] = Root {
                id: id | DIRTY,
                ..Root::default()
            };
            path.steps.push(Step {
                id,
                crc: 0,
                slot: 0,
                count: 0,
            });
            return Ok(());
        }
        if !is_dirty(root.id) {
            let id = self.take_page(usage);
            self.owner.copy_page((root.id, root.crc, root.level), id)?;
            self.free_page(root.id, false);
            self.work.roots[tree as usize].id = id | DIRTY;
            path.steps[0].id = id;
        }
        for depth in 1..path.steps.len() {
            let parent = path.steps[depth - 1];
            path.steps[depth].id = self.freshen_child(parent.id, parent.slot, usage)?;
        }
        Ok(())
    }

    /// Makes a child of a fresh branch fresh; returns its number.
    fn freshen_child(&mut self, parent: u64, slot: usize, usage: Use) -> Result<u64, TreeError> {
        let page = self.owner.change(parent);
        let child = page.child(slot);
        if child.dirty() {
            return Ok(child.page());
        }
        let level = page.level() - 1;
        let id = self.take_page(usage);
        self.owner.copy_page((child.id, child.crc, level), id)?;
        self.free_page(child.id, false);
        let fresh = Child {
            id: id | DIRTY,
            crc: 0,
            counted: child.counted,
        };
        self.owner.change(parent).set_child(slot, fresh);
        Ok(id)
    }

    /// Adds to the counts on the way to the path's leaf.
    pub(super) fn add_counts(&mut self, tree: TreeId, path: &Path, delta: i64) {
        if delta == 0 {
            return;
        }
        let root = &mut self.work.roots[tree as usize];
        root.counted = root.counted.wrapping_add_signed(delta);
        let branches = path.steps.len() - 1;
        for step in &path.steps[..branches] {
            let page = self.owner.change(step.id);
            let mut child = page.child(step.slot);
            child.counted = child.counted.wrapping_add_signed(delta);
            page.set_child(step.slot, child);
        }
    }

    /// Puts the cell in `work.cell` into the path's leaf at `index`, splitting upwards as needed;
    /// says whether nothing was split.
    pub(super) fn insert_cell(
        &mut self,
        tree: TreeId,
        path: &mut Path,
        index: usize,
    ) -> Result<bool, TreeError> {
        let leaf = path.steps.len() - 1;
        let mut depth = leaf;
        let mut index = index;
        loop {
            let step = path.steps[depth];
            if self
                .owner
                .change(step.id)
                .insert(index, self.work.cell.bytes())
            {
                return Ok(depth == leaf);
            }
            let last = |step: &Step| step.slot + 1 == step.count;
            let append =
                index == self.owner.change(step.id).count() && path.steps[..depth].iter().all(last);
            if depth == leaf && depth > 0 && !append {
                let parent = path.steps[depth - 1];
                if self.spread_leaves(parent.id, parent.slot, index)? {
                    return Ok(false);
                }
            }
            let (right, counted) = self.split(step.id, index, append)?;
            if depth == 0 {
                self.grow_root(tree, step.id, right)?;
                return Ok(false);
            }
            depth -= 1;
            let parent = path.steps[depth];
            let page = self.owner.change(parent.id);
            let mut left = page.child(parent.slot);
            left.counted = counted;
            page.set_child(parent.slot, left);
            self.branch_cell(right);
            index = parent.slot + 1;
        }
    }

    /// Splits a page around the cell in `work.cell`, which comes in at `index`. The separator is
    /// left in `work.separator` or in the returned pointer; also returns what the left side counts.
    fn split(
        &mut self,
        left: u64,
        index: usize,
        append: bool,
    ) -> Result<(NewChild, u64), TreeError> {
        let level = self.owner.change(left).level();
        assert!(level < LEVEL_MAX, "a tree of {level} levels");
        let right = self.take_page(Use::of(append));
        self.owner.new_page(right, level);
        let cell = self.work.cell.bytes();
        self.owner.change_two(left, right, |left, right| {
            if append {
                // Keys that only grow leave full pages behind.
                let done = page_mut(right).insert(0, cell);
                assert!(done, "one cell fits an empty page");
            } else {
                let split = left.split_point(index, cell.len());
                left.split_into(right, split, index, cell);
            }
        });
        let separator = if level == 0 {
            self.leaf_separator(left, right)?
        } else {
            self.branch_separator(right)
        };
        let counted = self.owner.change(right).counted();
        let child = Child {
            id: right | DIRTY,
            crc: 0,
            counted,
        };
        let left_counted = self.owner.change(left).counted();
        Ok((NewChild { separator, child }, left_counted))
    }

    /// The shortest key that parts two leaves.
    fn leaf_separator(&mut self, left: u64, right: u64) -> Result<Separator, TreeError> {
        let mut bytes = std::mem::take(&mut self.work.separator);
        bytes.clear();
        {
            let left = self.owner.page(left, 0, 0)?;
            let right = self.owner.page(right, 0, 0)?;
            let below = key_of(&self.owner, left, left.count() - 1)?;
            let above = key_of(&self.owner, right, 0)?;
            let same = below.iter().zip(above).take_while(|(a, b)| a == b).count();
            bytes.extend_from_slice(&above[..same + 1]);
        }
        let run = if bytes.len() > KEY_INLINE_MAX {
            let pages = (bytes.len().div_ceil(PAGE)) as u32;
            let id = self.take_run(pages).ok_or(TreeError::NoSpace)?;
            self.owner.new_run(id, pages)[..bytes.len()].copy_from_slice(&bytes);
            Some(Run {
                id,
                crc: crc32fast::hash(&bytes),
                len: bytes.len() as u32,
            })
        } else {
            None
        };
        self.work.separator = bytes;
        Ok(Separator::Made(run))
    }

    /// A branch's first key parts it from its left neighbour: it moves up.
    fn branch_separator(&mut self, right: u64) -> Separator {
        let page = self.owner.change(right);
        let flags = page.flags(0);
        self.work.separator.clear();
        self.work.separator.extend_from_slice(page.stored_key(0));
        page.strip_first_key();
        Separator::Stored(flags)
    }

    /// Puts the branch cell for a new right child together in `work.cell`.
    fn branch_cell(&mut self, new: NewChild) {
        let key = &self.work.separator;
        match new.separator {
            Separator::Made(run) => self.work.cell.branch(StoredKey::new(key, run), new.child),
            Separator::Stored(flags) => self.work.cell.branch_stored(flags, key, new.child),
        };
    }

    fn grow_root(&mut self, tree: TreeId, left: u64, right: NewChild) -> Result<(), TreeError> {
        let level = self.owner.change(left).level() + 1;
        let total = self.work.roots[tree as usize].counted;
        let left = Child {
            id: left | DIRTY,
            crc: 0,
            counted: total.wrapping_sub(right.child.counted),
        };
        self.branch_cell(right);
        let id = self.take_page(Use::Change);
        let second = self.work.cell.bytes();
        let page = self.owner.new_page(id, level);
        let mut first = crate::page::CellBuf::default();
        let done =
            page.insert(0, first.branch(StoredKey::new(&[], None), left)) && page.insert(1, second);
        assert!(done, "two cells fit an empty page");
        self.work.roots[tree as usize].id = id | DIRTY;
        self.work.roots[tree as usize].level = level;
        Ok(())
    }

    /// Removes the entry at `index` of the fresh path's leaf.
    pub(super) fn remove_entry(
        &mut self,
        tree: TreeId,
        path: &mut Path,
        index: usize,
    ) -> Result<(), TreeError> {
        let page = self.owner.change(path.leaf());
        let counted = page.flags(index) & crate::page::COUNTED != 0;
        let runs = [page.key_run(index), page.value_run(index)];
        page.remove(index);
        for run in runs.into_iter().flatten() {
            self.free_run(run);
        }
        self.add_counts(tree, path, -i64::from(counted));
        self.rebalance(tree, path)
    }

    /// Takes empty pages of the path out of their parents and merges sparse ones, upwards.
    fn rebalance(&mut self, tree: TreeId, path: &Path) -> Result<(), TreeError> {
        for depth in (1..path.steps.len()).rev() {
            let step = path.steps[depth];
            let parent = path.steps[depth - 1];
            let page = self.owner.change(step.id);
            if page.count() == 0 {
                self.free_page(step.id, true);
                self.remove_child(parent.id, parent.slot);
                continue;
            }
            let (leaf, sparse) = (page.is_leaf(), page.used() < SPARSE);
            let packed = leaf && self.pack_leaves(tree, parent.id, parent.slot)?;
            let fewer = packed || sparse && self.merge(parent.id, parent.slot)?;
            if !fewer {
                return Ok(());
            }
        }
        self.shrink_root(tree)
    }

    /// Takes the cell at `slot` out of a branch; its child is gone.
    fn remove_child(&mut self, branch: u64, slot: usize) {
        let page = self.owner.change(branch);
        let mut gone = page.key_run(slot);
        page.remove(slot);
        if slot == 0 && page.count() > 0 {
            debug_assert!(gone.is_none());
            gone = page.key_run(0);
            page.strip_first_key();
        }
        if let Some(run) = gone {
            self.free_run(run);
        }
    }

    /// Merges the child at `slot` with a neighbour, if one has room.
    fn merge(&mut self, branch: u64, slot: usize) -> Result<bool, TreeError> {
        let parent = self.owner.page(branch, 0, self.level_of(branch))?;
        let used = child_page(&self.owner, parent, slot)?.used();
        let rights = [slot + 1, slot];
        for right in rights {
            if right == 0 || right >= parent.count() {
                continue;
            }
            let other = if right == slot { slot - 1 } else { right };
            let page = child_page(&self.owner, parent, other)?;
            // The separator becomes the key of the right branch's first cell.
            let separator = if page.is_leaf() {
                0
            } else {
                parent.stored_key(right).len()
            };
            if used + page.used() + separator <= MERGED_MAX {
                self.merge_into_left(branch, right)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn level_of(&self, fresh: u64) -> u8 {
        let bytes = self.owner.frame_bytes(fresh);
        page_ref(bytes.expect("branches are not spilled")).level()
    }

    /// Moves all cells of the child at `right` to the child before it.
    fn merge_into_left(&mut self, branch: u64, right: usize) -> Result<(), TreeError> {
        let left_id = self.freshen_child(branch, right - 1, Use::Change)?;
        let parent = self.owner.page(branch, 0, self.level_of(branch))?;
        let right_child = parent.child(right);
        let flags = parent.flags(right);
        let separator_run = parent.key_run(right);
        self.work.separator.clear();
        self.work
            .separator
            .extend_from_slice(parent.stored_key(right));
        let right_page: PageBytes = *as_bytes(child_page(&self.owner, parent, right)?);
        let right_page = page_ref(&right_page);
        let left = self.owner.change(left_id);
        if right_page.is_leaf() {
            left.append_all(right_page);
        } else {
            let first = right_page.child(0);
            self.work
                .cell
                .branch_stored(flags, &self.work.separator, first);
            for index in 0..right_page.count() {
                let cell = if index == 0 {
                    self.work.cell.bytes()
                } else {
                    right_page.cell(index)
                };
                let done = left.insert(left.count(), cell);
                assert!(done, "the room was measured");
            }
        }
        let page = self.owner.change(branch);
        let mut merged = page.child(right - 1);
        merged.counted = merged.counted.wrapping_add(right_child.counted);
        page.set_child(right - 1, merged);
        page.remove(right);
        if right_page.is_leaf()
            && let Some(run) = separator_run
        {
            self.free_run(run);
        }
        self.free_page(right_child.page(), right_child.dirty());
        Ok(())
    }

    /// An empty root leaves an empty tree; a branch with one child gives way to it.
    fn shrink_root(&mut self, tree: TreeId) -> Result<(), TreeError> {
        loop {
            let root = self.work.roots[tree as usize];
            if !is_dirty(root.id) {
                return Ok(());
            }
            let id = root.id & !DIRTY;
            let page = self.owner.change(id);
            if page.count() == 0 {
                self.free_page(id, true);
                self.work.roots[tree as usize] = Root::default();
                return Ok(());
            }
            if page.is_leaf() || page.count() > 1 {
                return Ok(());
            }
            let child = page.child(0);
            self.free_page(id, true);
            self.work.roots[tree as usize] = Root {
                id: child.id,
                crc: child.crc,
                level: root.level - 1,
                counted: root.counted,
            };
        }
    }

    /// Whether young pages exceed their bound because of the open transaction, and if so writes
    /// its leaves and runs to their places in the file.
    pub(super) fn spill_if_full(&mut self, keep_on_full_disk: bool) -> Result<(), TreeError> {
        let most = self.options.young_bytes_max;
        let bytes = self.owner.bytes();
        if bytes <= most || bytes < self.work.spill_floor + most / 4 {
            return Ok(());
        }
        match self.spill() {
            Err(TreeError::NoSpace) if keep_on_full_disk => {}
            other => other?,
        }
        self.work.spill_floor = self.owner.bytes();
        Ok(())
    }

    fn spill(&mut self) -> Result<(), TreeError> {
        let mut ids = super::ids::IdSet::new();
        for &(id, pages) in &self.work.taken {
            let leaf = |bytes: &PageBytes| page_ref(bytes).is_leaf();
            let run = self.owner.run_pages(id).is_some();
            if run || (pages == 1 && self.owner.frame_bytes(id).is_some_and(leaf)) {
                ids.insert_run(id..id + u64::from(pages));
            }
        }
        let file = std::sync::Arc::clone(self.owner.frames().file());
        let mut buffer = Vec::new();
        for run in ids.runs() {
            let at = run.start * PAGE as u64;
            file.allocate(at, (run.end - run.start) * PAGE as u64)?;
            self.owner.frames().file_grew(run.end);
            for start in run.clone().step_by(256) {
                let end = run.end.min(start + 256);
                buffer.clear();
                for id in start..end {
                    let bytes = self.owner.frame_bytes(id).expect("found above");
                    buffer.extend_from_slice(bytes);
                }
                file.write(start * PAGE as u64, &buffer)?;
            }
        }
        self.space.set_backed(&ids);
        for index in 0..self.work.taken.len() {
            let (id, _) = self.work.taken[index];
            if ids.contains(id) && self.owner.has_frame(id) {
                self.owner.spilled(id);
            }
        }
        Ok(())
    }
}

/// Where the key of a new branch cell is.
enum Separator {
    /// In `work.separator`, whole; a long one also in this run.
    Made(Option<Run>),
    /// In `work.separator`, as it was stored, with these flags.
    Stored(u8),
}

/// A right page that came out of a split.
struct NewChild {
    separator: Separator,
    child: Child,
}

const _: () = assert!(BRANCH_HEAD + KEY_INLINE_MAX + 2 <= BODY / 4);

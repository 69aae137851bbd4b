//! Changing a page. Whoever calls must own the page: no reader may see it.
#![forbid(unsafe_code)]

use super::cast::{as_bytes, page_mut, page_ref};
use super::cell::Child;
use super::layout::{BRANCH, BRANCH_HEAD, DIRTY, HEADER, KEY_RUN, LEAF, PAGE, Page, PageBytes};

/// Where to cut a page that is too full: the cells, the new one among them, from `at` on go to
/// the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Index of the first cell of the right page, with the new cell counted in.
    pub at: usize,
}

impl Page {
    /// Makes this an empty page.
    pub fn init(&mut self, id: u64, txn: u64, level: u8) {
        self.kind = if level == 0 { LEAF } else { BRANCH };
        self.level = level;
        self.count = 0.into();
        self.heap = (PAGE as u16).into();
        self.dead = 0.into();
        self.id = id.into();
        self.txn = txn.into();
        self.body.fill(0);
    }

    /// Gives a copied page its new number and transaction.
    pub fn adopt(&mut self, id: u64, txn: u64) {
        self.id = id.into();
        self.txn = txn.into();
    }

    fn set_slot(&mut self, index: usize, offset: usize) {
        self.body[2 * index..2 * index + 2].copy_from_slice(&(offset as u16).to_le_bytes());
    }

    /// Puts `cell` before the cell at `index`. Says `false`, and changes nothing, if there is no
    /// room.
    #[must_use]
    pub fn insert(&mut self, index: usize, cell: &[u8]) -> bool {
        let count = self.count();
        debug_assert!(index <= count);
        let need = cell.len() + 2;
        if need > self.gap() {
            if need > self.room() {
                return false;
            }
            self.compact();
        }
        let heap = self.heap() - cell.len();
        self.body[heap - HEADER..heap - HEADER + cell.len()].copy_from_slice(cell);
        self.body.copy_within(2 * index..2 * count, 2 * index + 2);
        self.set_slot(index, heap);
        self.count = ((count + 1) as u16).into();
        self.heap = (heap as u16).into();
        true
    }

    /// Puts `cell` in the place of the cell at `index`. Says `false`, and changes nothing, if
    /// there is no room.
    #[must_use]
    pub fn replace(&mut self, index: usize, cell: &[u8]) -> bool {
        let old = self.cell_size(index);
        if cell.len() <= old {
            let start = self.slot(index) - HEADER;
            self.body[start..start + cell.len()].copy_from_slice(cell);
            self.dead = ((self.dead() + old - cell.len()) as u16).into();
            return true;
        }
        if cell.len() > self.room() + old {
            return false;
        }
        self.remove(index);
        let done = self.insert(index, cell);
        assert!(done, "the room was measured");
        true
    }

    /// Takes the cell at `index` out.
    pub fn remove(&mut self, index: usize) {
        let count = self.count();
        let size = self.cell_size(index);
        let offset = self.slot(index);
        self.body.copy_within(2 * index + 2..2 * count, 2 * index);
        self.count = ((count - 1) as u16).into();
        if offset == self.heap() {
            self.heap = ((offset + size) as u16).into();
        } else {
            self.dead = ((self.dead() + size) as u16).into();
        }
        if count == 1 {
            self.heap = (PAGE as u16).into();
            self.dead = 0.into();
        }
    }

    /// Moves the cells together, so that no byte of the heap is dead.
    pub fn compact(&mut self) {
        let old: PageBytes = *as_bytes(self);
        let old = page_ref(&old);
        let mut heap = PAGE;
        for index in 0..old.count() {
            let cell = old.cell(index);
            heap -= cell.len();
            self.body[heap - HEADER..heap - HEADER + cell.len()].copy_from_slice(cell);
            self.set_slot(index, heap);
        }
        self.heap = (heap as u16).into();
        self.dead = 0.into();
    }

    /// Sets the child pointer of a branch's cell.
    pub fn set_child(&mut self, index: usize, child: Child) {
        debug_assert!(!self.is_leaf());
        let start = self.slot(index) - HEADER + 3;
        self.body[start..start + BRANCH_HEAD - 3].copy_from_slice(&child.encode());
    }

    /// Marks the children that are clean again: their CRCs are given.
    pub fn clean_child(&mut self, index: usize, crc: u32) {
        let child = self.child(index);
        debug_assert!(child.dirty());
        self.set_child(
            index,
            Child {
                id: child.id & !DIRTY,
                crc,
                counted: child.counted,
            },
        );
    }

    /// Empties the key of a branch's first cell; whoever calls has taken care of its run.
    pub fn strip_first_key(&mut self) {
        debug_assert!(!self.is_leaf());
        let start = self.slot(0) - HEADER;
        let size = self.cell_size(0);
        self.body[start] &= !KEY_RUN;
        self.body[start + 1..start + 3].fill(0);
        self.dead = ((self.dead() + size - BRANCH_HEAD) as u16).into();
    }

    /// Where to cut this page if `cell_len` more bytes come in at `index`: near the middle in
    /// bytes, and so that both sides fit.
    pub fn split_point(&self, index: usize, cell_len: usize) -> Split {
        let count = self.count() + 1;
        let total = self.used() + cell_len + 2;
        let mut left = 0;
        for at in 0..count {
            let size = match at.cmp(&index) {
                std::cmp::Ordering::Less => self.cell_size(at),
                std::cmp::Ordering::Equal => cell_len,
                std::cmp::Ordering::Greater => self.cell_size(at - 1),
            } + 2;
            // The cell that crosses the middle goes to the side that it leaves smaller.
            if left + size > PAGE - HEADER || (at > 0 && 2 * left + size > total) {
                return Split { at };
            }
            left += size;
        }
        Split { at: count - 1 }
    }

    /// Moves the cells of `from` with `cell` put in at `index` to this page and `right`, which is
    /// empty.
    pub fn split_into(&mut self, right: &mut PageBytes, split: Split, index: usize, cell: &[u8]) {
        let old: PageBytes = *as_bytes(self);
        let old = page_ref(&old);
        let right = page_mut(right);
        self.init(old.id(), old.txn(), old.level());
        for at in 0..old.count() + 1 {
            let cell = match at.cmp(&index) {
                std::cmp::Ordering::Less => old.cell(at),
                std::cmp::Ordering::Equal => cell,
                std::cmp::Ordering::Greater => old.cell(at - 1),
            };
            let done = if at < split.at {
                self.insert(at, cell)
            } else {
                right.insert(at - split.at, cell)
            };
            assert!(done, "half of a page and one cell fit a page");
        }
    }

    /// Appends all cells of `right`. There must be room.
    pub fn append_all(&mut self, right: &Page) {
        for index in 0..right.count() {
            let done = self.insert(self.count(), right.cell(index));
            assert!(done, "the room was measured");
        }
    }
}

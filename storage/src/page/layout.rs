//! The layout of a tree page, and reading it.
//!
//! ```text
//!  0  u8   kind      'L' leaf, 'B' branch
//!  1  u8   level     0 for a leaf, else one more than the children's
//!  2  u16  count     cells
//!  4  u16  heap      offset of the lowest byte that belongs to a cell
//!  6  u16  dead      bytes between `heap` and the end that belong to no cell
//!  8  u64  id        the page's own number in the file
//! 16  u64  txn       the transaction that made the page
//! 24  u16 x count    slots: offsets of the cells, in ascending order of keys
//! ..  free
//! heap .. 4096       cells, in any order
//!
//! leaf cell           branch cell
//!  0  u8  flags        0  u8  flags
//!  1  u16 key bytes    1  u16 key bytes
//!  3  u16 value bytes  3  u64 child page
//!  5  key, value      11  u32 CRC32 of the child page
//!                     15  u64 counted entries below the child
//!                     23  key
//! ```
//!
//! A key of more than [`KEY_INLINE_MAX`] bytes is stored as a run pointer and its first
//! [`KEY_PREFIX`] bytes; a value of more than [`VALUE_INLINE_MAX`] as a run pointer alone. The
//! key of a branch's first cell is empty and stands for minus infinity.

use super::cell::{Child, RUN_BYTES, Run};
use rkyv::Portable;
use rkyv::bytecheck::CheckBytes;
use rkyv::primitive::{ArchivedU16, ArchivedU64};

/// Size of a page.
pub const PAGE: usize = 4096;
/// Size of a page's header.
pub const HEADER: usize = 24;
/// Bytes of a leaf cell before its key.
pub const LEAF_HEAD: usize = 5;
/// Bytes of a branch cell before its key.
pub const BRANCH_HEAD: usize = 23;
/// Longer keys go to a run.
pub const KEY_INLINE_MAX: usize = 512;
/// Bytes of a long key that stay in the cell, so that most comparisons need not follow the run.
pub const KEY_PREFIX: usize = 64;
/// Longer values go to a run.
pub const VALUE_INLINE_MAX: usize = 1024;
/// No tree is higher: even with two children per branch, more pages than can be addressed.
pub const LEVEL_MAX: u8 = 40;

/// Cell flag: the entry is counted.
pub const COUNTED: u8 = 1;
/// Cell flag: the key is a run.
pub const KEY_RUN: u8 = 2;
/// Cell flag: the value is a run.
pub const VALUE_RUN: u8 = 4;
/// Set in a child's page number while the child was changed in the open transaction and its CRC
/// is not known. Never in a published page.
pub const DIRTY: u64 = 1 << 63;

pub(super) const LEAF: u8 = b'L';
pub(super) const BRANCH: u8 = b'B';

// A split always succeeds: half a page takes the largest cell.
const _: () = assert!(LEAF_HEAD + KEY_INLINE_MAX + VALUE_INLINE_MAX + 2 <= (PAGE - HEADER) / 2);
const _: () = assert!(RUN_BYTES + KEY_PREFIX <= KEY_INLINE_MAX);
const _: () = assert!(size_of::<Page>() == PAGE);
const _: () = assert!(align_of::<Page>() == 1);

/// The bytes of a page.
pub type PageBytes = [u8; PAGE];

/// A tree page: an archive whose root is the whole page.
///
/// Any 4096 bytes are a valid value of this type; whether they are a well-formed page is
/// [`super::verify`]'s to say.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Page {
    pub(super) kind: u8,
    pub(super) level: u8,
    pub(super) count: ArchivedU16,
    pub(super) heap: ArchivedU16,
    pub(super) dead: ArchivedU16,
    pub(super) id: ArchivedU64,
    pub(super) txn: ArchivedU64,
    pub(super) body: [u8; PAGE - HEADER],
}

#[inline(always)]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

impl Page {
    /// The number of cells.
    #[inline(always)]
    pub fn count(&self) -> usize {
        usize::from(self.count.to_native())
    }

    /// 0 for a leaf.
    #[inline(always)]
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Whether this is a leaf.
    #[inline(always)]
    pub fn is_leaf(&self) -> bool {
        self.level == 0
    }

    /// The page's own number.
    #[inline(always)]
    pub fn id(&self) -> u64 {
        self.id.to_native()
    }

    /// The transaction that made it.
    #[inline(always)]
    pub fn txn(&self) -> u64 {
        self.txn.to_native()
    }

    /// Offset of the lowest cell.
    #[inline(always)]
    pub fn heap(&self) -> usize {
        usize::from(self.heap.to_native())
    }

    /// Bytes in the heap that belong to no cell.
    #[inline(always)]
    pub fn dead(&self) -> usize {
        usize::from(self.dead.to_native())
    }

    /// Bytes between the slots and the heap.
    #[inline(always)]
    pub fn gap(&self) -> usize {
        self.heap() - HEADER - 2 * self.count()
    }

    /// Bytes that a cell and its slot could still take, after compaction if need be.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.gap() + self.dead()
    }

    /// Bytes taken by cells and their slots.
    #[inline(always)]
    pub fn used(&self) -> usize {
        PAGE - HEADER - self.room()
    }

    #[inline(always)]
    pub(super) fn slot(&self, index: usize) -> usize {
        debug_assert!(index < self.count());
        u16_at(&self.body, 2 * index)
    }

    /// The cell's bytes from its head to the end of the page.
    #[inline(always)]
    pub(super) fn cell_on(&self, index: usize) -> &[u8] {
        &self.body[self.slot(index) - HEADER..]
    }

    #[inline(always)]
    pub(super) fn head(&self) -> usize {
        if self.is_leaf() {
            LEAF_HEAD
        } else {
            BRANCH_HEAD
        }
    }

    /// The cell's flags.
    #[inline(always)]
    pub fn flags(&self, index: usize) -> u8 {
        self.cell_on(index)[0]
    }

    /// The key as stored: itself, or a run pointer and a prefix.
    #[inline(always)]
    pub fn stored_key(&self, index: usize) -> &[u8] {
        let cell = self.cell_on(index);
        let head = self.head();
        &cell[head..head + u16_at(cell, 1)]
    }

    /// The run that holds the key, if it is a long one.
    #[inline(always)]
    pub fn key_run(&self, index: usize) -> Option<Run> {
        if self.flags(index) & KEY_RUN == 0 {
            return None;
        }
        Some(Run::decode(self.stored_key(index)))
    }

    /// The value as stored: itself, or a run pointer. Leaves only.
    #[inline(always)]
    pub fn stored_value(&self, index: usize) -> &[u8] {
        let cell = self.cell_on(index);
        let start = LEAF_HEAD + u16_at(cell, 1);
        &cell[start..start + u16_at(cell, 3)]
    }

    /// The run that holds the value, if it is a long one. Leaves only.
    #[inline(always)]
    pub fn value_run(&self, index: usize) -> Option<Run> {
        if self.flags(index) & VALUE_RUN == 0 {
            return None;
        }
        Some(Run::decode(self.stored_value(index)))
    }

    /// The child pointer. Branches only.
    #[inline(always)]
    pub fn child(&self, index: usize) -> Child {
        Child::decode(&self.cell_on(index)[3..])
    }

    /// The cell's size in bytes, without its slot.
    #[inline(always)]
    pub(super) fn cell_size(&self, index: usize) -> usize {
        let cell = self.cell_on(index);
        if self.is_leaf() {
            LEAF_HEAD + u16_at(cell, 1) + u16_at(cell, 3)
        } else {
            BRANCH_HEAD + u16_at(cell, 1)
        }
    }

    /// The whole cell.
    pub fn cell(&self, index: usize) -> &[u8] {
        &self.cell_on(index)[..self.cell_size(index)]
    }

    /// The number of counted entries below this page.
    pub fn counted(&self) -> u64 {
        self.counted_before(self.count())
    }

    /// The number of counted entries in or below the cells before `index`.
    pub fn counted_before(&self, index: usize) -> u64 {
        if self.is_leaf() {
            (0..index).map(|i| u64::from(self.flags(i) & COUNTED)).sum()
        } else {
            (0..index).fold(0, |sum: u64, i| sum.wrapping_add(self.child(i).counted))
        }
    }
}

//! Memory aligned for direct I/O.

use super::BLOCK;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A byte buffer whose address and length are multiples of [`BLOCK`].
///
/// The length may move below the capacity, so that one buffer serves writes of many sizes.
pub struct AlignedBuf {
    start: NonNull<u8>,
    /// Invariant: a multiple of [`BLOCK`], at least one block, at most `capacity`.
    len: usize,
    /// Invariant: a multiple of [`BLOCK`]; the size of the allocation.
    capacity: usize,
}

// SAFETY: the buffer owns its memory alone.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer of `blocks` zeroed blocks; at least one.
    pub fn new(blocks: usize) -> AlignedBuf {
        assert!(blocks > 0, "a buffer has at least one block");
        let layout = Self::layout(blocks.checked_mul(BLOCK).expect("a buffer fits memory"));
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => AlignedBuf {
                start,
                len: layout.size(),
                capacity: layout.size(),
            },
            None => handle_alloc_error(layout),
        }
    }

    /// How many blocks the allocation holds.
    pub fn capacity_blocks(&self) -> usize {
        self.capacity / BLOCK
    }

    /// Shortens or lengthens the visible part within the capacity; the bytes stay as they are.
    pub fn set_blocks(&mut self, blocks: usize) {
        assert!(
            blocks > 0 && blocks <= self.capacity_blocks(),
            "{blocks} blocks do not fit a buffer of {}",
            self.capacity_blocks()
        );
        self.len = blocks * BLOCK;
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK).expect("a buffer fits the address space")
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity` initialised bytes, owned by this buffer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_zeroed_and_keeps_bytes_when_its_length_moves() {
        let mut buf = AlignedBuf::new(3);
        assert_eq!(buf.as_ptr() as usize % BLOCK, 0);
        assert!(buf.iter().all(|b| *b == 0));
        buf[2 * BLOCK] = 7;
        buf.set_blocks(1);
        assert_eq!(buf.len(), BLOCK);
        buf.set_blocks(3);
        assert_eq!(buf[2 * BLOCK], 7);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn never_exceeds_its_capacity() {
        AlignedBuf::new(1).set_blocks(2);
    }
}

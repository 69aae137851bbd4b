//! The published root, and the slots in which readers pin it.
//!
//! A reader stores the newest version that it knows in its slot, then loads the root: the root is
//! of that version or newer. The writer publishes a root, then looks at the slots. Both sides use
//! sequentially consistent operations, so either the writer sees the slot or the reader sees the
//! new root: what a pinned reader can reach is never taken away.

use super::api::{TreeError, TreeId};
use super::frames::Frames;
use super::read::Ahead;
use crate::page::{Child, Page, Root, Run};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Most readers at a time.
pub const READERS_MAX: usize = 128;

const UNPINNED: u64 = u64::MAX;

#[repr(align(64))]
struct Slot {
    taken: AtomicBool,
    pinned: AtomicU64,
}

/// One published state.
pub(super) struct Published {
    pub(super) version: u64,
    pub(super) roots: [Root; 3],
    pub(super) user: Vec<u8>,
}

/// The slots and the root.
pub(super) struct Readers {
    slots: Box<[Slot]>,
    /// Slots below this were taken at some time.
    used: AtomicUsize,
    version: AtomicU64,
    root: AtomicPtr<Published>,
}

impl Readers {
    pub(super) fn new(first: Published) -> Readers {
        let slot = || Slot {
            taken: AtomicBool::new(false),
            pinned: AtomicU64::new(UNPINNED),
        };
        Readers {
            slots: (0..READERS_MAX).map(|_| slot()).collect(),
            used: AtomicUsize::new(0),
            version: AtomicU64::new(first.version),
            root: AtomicPtr::new(Box::into_raw(Box::new(first))),
        }
    }

    /// The lowest version that a reader has pinned; `u64::MAX` if none has.
    pub(super) fn oldest_pinned(&self) -> u64 {
        let used = self.used.load(Ordering::SeqCst);
        self.slots[..used]
            .iter()
            .map(|slot| slot.pinned.load(Ordering::SeqCst))
            .min()
            .unwrap_or(UNPINNED)
    }

    fn take(&self) -> Option<usize> {
        let free = |slot: &Slot| {
            slot.taken
                .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        };
        let index = self.slots.iter().position(free)?;
        self.used.fetch_max(index + 1, Ordering::SeqCst);
        Some(index)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`; nobody is left to read it.
        drop(unsafe { Box::from_raw(*self.root.get_mut()) });
    }
}

/// The writer's side of [`Readers`].
pub(super) struct Publisher {
    readers: Arc<Readers>,
    /// Replaced roots with the version that replaced them.
    replaced: VecDeque<(u64, NonNull<Published>)>,
}

// SAFETY: the pointers lead to memory that only readers with a pin and this publisher touch.
unsafe impl Send for Publisher {}

impl Publisher {
    pub(super) fn new(readers: Arc<Readers>) -> Publisher {
        Publisher {
            readers,
            replaced: VecDeque::new(),
        }
    }

    pub(super) fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Shows `next` to all readers that pin from now on.
    pub(super) fn publish(&mut self, next: Published) {
        let version = next.version;
        assert!(version > self.readers.version.load(Ordering::SeqCst));
        let next = Box::into_raw(Box::new(next));
        let old = self.readers.root.swap(next, Ordering::SeqCst);
        self.readers.version.store(version, Ordering::SeqCst);
        let old = NonNull::new(old).expect("there is always a root");
        self.replaced.push_back((version, old));
        let oldest = self.readers.oldest_pinned();
        while let Some(&(at, root)) = self.replaced.front() {
            // A reader pinned at `at` or later has loaded the root after its replacement.
            if oldest < at {
                break;
            }
            // SAFETY: made by `Box::into_raw`; no reader holds it, by the line above.
            drop(unsafe { Box::from_raw(root.as_ptr()) });
            self.replaced.pop_front();
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let oldest = self.readers.oldest_pinned();
        for (at, root) in self.replaced.drain(..) {
            // What a reader still holds is left to it; this happens once in a process's life.
            if oldest >= at {
                // SAFETY: as in `publish`.
                drop(unsafe { Box::from_raw(root.as_ptr()) });
            }
        }
    }
}

/// A reader's slot; made by [`super::Shared::reader`]. It may move between threads but is used by
/// one at a time.
pub struct Reader {
    frames: Arc<Frames>,
    readers: Arc<Readers>,
    slot: usize,
    /// Snapshots alive.
    pins: Cell<usize>,
    /// For each tree the keys that were looked up together, to be asked for one by one.
    ahead: [Ahead; 3],
}

impl Reader {
    pub(super) fn new(frames: &Arc<Frames>, readers: &Arc<Readers>) -> Option<Reader> {
        Some(Reader {
            frames: Arc::clone(frames),
            readers: Arc::clone(readers),
            slot: readers.take()?,
            pins: Cell::new(0),
            ahead: Default::default(),
        })
    }

    /// Pins the newest published state. Cheap: two stores and two loads. A second snapshot while
    /// the first lives shares its pin and may be newer.
    pub fn pin(&self) -> Snapshot<'_> {
        let pins = self.pins.get();
        if pins == 0 {
            let version = self.readers.version.load(Ordering::SeqCst);
            self.readers.slots[self.slot]
                .pinned
                .store(version, Ordering::SeqCst);
        }
        self.pins.set(pins + 1);
        let root = self.readers.root.load(Ordering::SeqCst);
        // SAFETY: the root was loaded after the slot was set, so the publisher keeps it until the
        // slot is released, which needs this snapshot's end.
        let root = unsafe { &*root };
        Snapshot {
            reader: self,
            root,
            near: Default::default(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let slot = &self.readers.slots[self.slot];
        slot.pinned.store(UNPINNED, Ordering::SeqCst);
        slot.taken.store(false, Ordering::SeqCst);
    }
}

/// One immutable state of the trees.
pub struct Snapshot<'r> {
    reader: &'r Reader,
    root: &'r Published,
    /// For each tree the leaf in which a key was looked up last.
    pub(super) near: [Cell<Child>; 3],
}

impl Snapshot<'_> {
    /// The user's bytes, as given to the commit that made this state.
    pub fn user(&self) -> &[u8] {
        &self.root.user
    }

    /// The version of this state; grows with each commit.
    pub fn version(&self) -> u64 {
        self.root.version
    }

    pub(super) fn ahead(&self, tree: TreeId) -> &Ahead {
        &self.reader.ahead[tree as usize]
    }

    pub(super) fn roots(&self) -> &[Root; 3] {
        &self.root.roots
    }

    #[inline(always)]
    pub(super) fn page(&self, id: u64, crc: u32, level: u8) -> Result<&Page, TreeError> {
        // SAFETY: pinned, and the page is reached from the pinned root.
        unsafe { self.reader.frames.page(id, crc, level) }
    }

    #[inline(always)]
    pub(super) fn prefetch_entry(&self, id: u64) {
        self.reader.frames.prefetch_entry(id);
    }

    pub(super) fn run(&self, run: Run) -> Result<&[u8], TreeError> {
        // SAFETY: as in `page`.
        unsafe { self.reader.frames.run(run) }
    }

    /// Checks a page's bytes in the file, even if they were checked before; `false` if it is in
    /// memory alone.
    pub(super) fn check_again(&self, id: u64, crc: u32) -> Result<bool, TreeError> {
        // SAFETY: as in `page`.
        unsafe { self.reader.frames.check_again(id, crc) }
    }

    /// Has the device begin to read those of the pages that are not in memory. Sorts them.
    pub(super) fn will_need(&self, ids: &mut [u64]) {
        self.reader.frames.will_need(ids);
    }

    /// As [`Snapshot::check_again`], of a run.
    pub(super) fn check_run_again(&self, run: Run) -> Result<bool, TreeError> {
        // SAFETY: as in `page`.
        unsafe { self.reader.frames.check_run_again(run) }
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let pins = self.reader.pins.get() - 1;
        self.reader.pins.set(pins);
        if pins == 0 {
            self.reader.readers.slots[self.reader.slot]
                .pinned
                .store(UNPINNED, Ordering::SeqCst);
        }
    }
}

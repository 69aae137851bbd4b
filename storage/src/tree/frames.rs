//! Young pages in memory, found by page number without a lock, before the file's map.
//!
//! Every page number has one entry in a table: a pointer to the page's frame while the page is
//! younger than the last checkpoint; else whether the bytes in the file were checked since the
//! file was opened. Readers load the entry; only the writer stores frames in it.
//!
//! The unsafe code here rests on three rules that the writer keeps:
//! 1. A frame is changed only while its page belongs to the open transaction, whose pages no
//!    reader can reach.
//! 2. A frame leaves memory only when no reader can hold a reference to it: at once if it was
//!    never published, else when every pinned reader is at a version that cannot reach the page,
//!    or, for a page that moved to the file, has pinned after the move.
//! 3. The file's bytes of a page are written only while no reader can reach that page number, or
//!    while it has a frame.

use super::api::TreeError;
use super::publish::Readers;
use crate::disk::{AlignedBuf, BLOCK, Map, PageFile};
use crate::page::{self, PAGE, Page, PageBytes, Run};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, VecDeque};
use std::ptr::{NonNull, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Pages for which one call has the device read: some devices take no longer requests, and the
/// kernel reads no more than one for a call.
const READ_PAGES: usize = 32;

/// The entry of a page whose bytes in the file were checked.
const VERIFIED: *mut u8 = without_provenance_mut(1);

/// Frames are carved from chunks of this many.
const CHUNK_FRAMES: usize = if cfg!(miri) { 16 } else { 512 };

fn corrupt(page: u64, what: &'static str) -> TreeError {
    TreeError::Corrupt { page, what }
}

/// A long zeroed array of entries; memory is committed where it is touched.
struct Table {
    start: NonNull<AtomicPtr<u8>>,
    len: usize,
}

// SAFETY: the table owns its memory, and its entries are atomics.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    #[cfg(not(miri))]
    fn new(len: usize) -> Table {
        let bytes = len * size_of::<AtomicPtr<u8>>();
        // SAFETY: a fresh private anonymous mapping touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(
            start != libc::MAP_FAILED,
            "no address space for {bytes} bytes of page table"
        );
        let start = NonNull::new(start.cast()).expect("a mapping is not at address zero");
        Table { start, len }
    }

    #[cfg(miri)]
    fn new(len: usize) -> Table {
        let layout = Layout::array::<AtomicPtr<u8>>(len).expect("a small table");
        // SAFETY: the layout has a size above zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start.cast()).expect("memory for a small table");
        Table { start, len }
    }

    #[inline(always)]
    fn entry(&self, id: u64) -> Option<&AtomicPtr<u8>> {
        if id >= self.len as u64 {
            return None;
        }
        // SAFETY: inside the table by the check above; zeroed memory is a null pointer.
        Some(unsafe { self.start.add(id as usize).as_ref() })
    }
}

impl Drop for Table {
    #[cfg(not(miri))]
    fn drop(&mut self) {
        let bytes = self.len * size_of::<AtomicPtr<u8>>();
        // SAFETY: mapped in `new` with this very length, and nobody borrows it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
        assert_eq!(result, 0, "unmapping the page table");
    }

    #[cfg(miri)]
    fn drop(&mut self) {
        let layout = Layout::array::<AtomicPtr<u8>>(self.len).expect("a small table");
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.start.as_ptr().cast(), layout) }
    }
}

/// Memory that lives until the last reader's handle is gone.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory, freed once.
unsafe impl Send for Memory {}

impl Memory {
    fn new(layout: Layout) -> Memory {
        // SAFETY: no caller asks for zero bytes.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Memory { start, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// What readers and the writer share.
pub(super) struct Frames {
    file: Arc<dyn PageFile>,
    /// Of `file`, at hand.
    map: Map,
    table: Table,
    /// Pages that the file is known to have; reading the map below this cannot fault.
    file_pages: AtomicU64,
    /// Chunks of frames, and runs that outlived the writer.
    memory: Mutex<Vec<Memory>>,
}

impl Frames {
    pub(super) fn new(file: Arc<dyn PageFile>, file_pages: u64) -> Frames {
        let pages = file.map().reserve() / PAGE;
        // SAFETY: it lives beside the file, which is dropped with it.
        let map = unsafe { file.map().alias() };
        Frames {
            file,
            map,
            table: Table::new(pages),
            file_pages: AtomicU64::new(file_pages),
            memory: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn file(&self) -> &Arc<dyn PageFile> {
        &self.file
    }

    /// Page numbers that the table has entries for.
    pub(super) fn limit(&self) -> u64 {
        self.table.len as u64
    }

    /// The file has grown to at least this many pages.
    pub(super) fn file_grew(&self, pages: u64) {
        self.file_pages.fetch_max(pages, Ordering::AcqRel);
    }

    /// The file was cut; only at open.
    pub(super) fn set_file_pages(&self, pages: u64) {
        self.file_pages.store(pages, Ordering::Release);
    }

    /// The bytes of a meta page of a file that has both, as the device has them: after a sync that
    /// failed the map may go on showing one that was never written.
    pub(super) fn meta_page(&self, slot: u64) -> Result<AlignedBuf, TreeError> {
        assert!(slot < 2);
        let mut bytes = AlignedBuf::new(PAGE / BLOCK);
        self.file.read_device(slot * PAGE as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of any page of a file that nobody writes to; only in the inspector.
    pub(super) fn idle_page(&self, id: u64) -> Option<&PageBytes> {
        let inside = id < self.file_pages() && id < self.limit();
        inside.then(|| page::as_bytes(self.mapped(id)))
    }

    /// The bytes of a run of a durable state, checked; only at open and in the checker.
    pub(super) fn read_durable(&self, run: Run) -> Result<&[u8], TreeError> {
        // SAFETY: no page of a durable state is written while the file is being opened or checked.
        unsafe { self.run(run) }
    }

    pub(super) fn file_pages(&self) -> u64 {
        self.file_pages.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn entry(&self, id: u64) -> Result<&AtomicPtr<u8>, TreeError> {
        self.table
            .entry(id)
            .ok_or_else(|| corrupt(id, "a pointer beyond the end of the file"))
    }

    /// Has the processor fetch what [`Frames::page`] will look at first. Steers nothing else.
    #[inline(always)]
    pub(super) fn prefetch_entry(&self, id: u64) {
        if let Some(entry) = self.table.entry(id) {
            page::prefetch(std::ptr::from_ref(entry).cast());
        }
    }

    /// The page `id`, which its parent says has `crc` and `level`.
    ///
    /// # Safety
    /// For as long as the reference lives, the caller is pinned at a version that reaches the
    /// page, or is the writer and neither changes nor drops it.
    #[inline(always)]
    pub(super) unsafe fn page(&self, id: u64, crc: u32, level: u8) -> Result<&Page, TreeError> {
        let entry = self.entry(id)?;
        // Most pages are read from the map. Its line is on the way while the entry is.
        page::prefetch(self.map.hint(id * PAGE as u64));
        let at = entry.load(Ordering::Acquire);
        let page = if at.addr() > VERIFIED.addr() {
            // SAFETY: a frame is a whole page of initialised bytes; by rules 1 and 2 it is
            // neither changed nor freed while the caller keeps its promise.
            page::page_ref(unsafe { &*at.cast::<PageBytes>() })
        } else if at == VERIFIED {
            self.mapped(id)
        } else {
            self.verify_page(id, crc, entry)?
        };
        if page.level() != level {
            return Err(corrupt(id, "its level does not fit its parent's"));
        }
        Ok(page)
    }

    #[inline(always)]
    fn mapped(&self, id: u64) -> &Page {
        // SAFETY: called only for pages below `file_pages`; by rule 3 nobody writes to them while
        // they can be reached.
        let bytes = unsafe { self.map.bytes(id * PAGE as u64, PAGE) };
        page::page_ref(bytes.try_into().expect("a page long"))
    }

    #[cold]
    fn verify_page(&self, id: u64, crc: u32, entry: &AtomicPtr<u8>) -> Result<&Page, TreeError> {
        if id < 2 || id >= self.file_pages() {
            return Err(corrupt(id, "a pointer beyond the end of the file"));
        }
        let page = self.mapped(id);
        if crc32fast::hash(page::as_bytes(page)) != crc {
            return Err(corrupt(
                id,
                "its checksum does not match its parent's pointer",
            ));
        }
        page::verify(page::as_bytes(page), id).map_err(|what| corrupt(id, what))?;
        mark_verified(entry);
        Ok(page)
    }

    /// Checks a page's bytes in the file, even if they were checked before; `false` if it has a
    /// frame.
    ///
    /// # Safety
    /// As for [`Frames::page`].
    pub(super) unsafe fn check_again(&self, id: u64, crc: u32) -> Result<bool, TreeError> {
        let entry = self.entry(id)?;
        let in_file = entry.load(Ordering::Acquire).addr() <= VERIFIED.addr();
        if in_file {
            self.verify_page(id, crc, entry)?;
        }
        Ok(in_file)
    }

    /// Has the device begin to read those of the pages that are not in memory. Sorts them.
    pub(super) fn will_need(&self, ids: &mut [u64]) {
        ids.sort_unstable();
        let in_file = |&id: &u64| {
            let entry = self.entry(id).ok();
            let frame = entry.is_some_and(|e| e.load(Ordering::Relaxed).addr() > VERIFIED.addr());
            id < self.file_pages() && !frame
        };
        let runs = ids.chunk_by(|a, b| a + 1 == *b);
        for run in runs.flat_map(|run| run.chunks(READ_PAGES)) {
            if run.iter().any(in_file) {
                let len = run.len() * PAGE;
                self.file.will_need(run[0] * PAGE as u64, len as u64);
            }
        }
    }

    /// As [`Frames::check_again`], of a run.
    ///
    /// # Safety
    /// As for [`Frames::page`].
    pub(super) unsafe fn check_run_again(&self, run: Run) -> Result<bool, TreeError> {
        let entry = self.entry(run.id)?;
        let in_file = entry.load(Ordering::Acquire).addr() <= VERIFIED.addr();
        if in_file {
            self.verify_run(run, entry)?;
        }
        Ok(in_file)
    }

    /// The bytes of a run.
    ///
    /// # Safety
    /// As for [`Frames::page`].
    pub(super) unsafe fn run(&self, run: Run) -> Result<&[u8], TreeError> {
        let entry = self.entry(run.id)?;
        let at = entry.load(Ordering::Acquire);
        let len = run.len as usize;
        if at.addr() > VERIFIED.addr() {
            // SAFETY: the frame of a run's first page begins one allocation of all its pages; the
            // pointer that names the run was made for it. Rules 1 and 2 as in `page`.
            return Ok(unsafe { std::slice::from_raw_parts(at, len) });
        }
        match at == VERIFIED {
            true => self.mapped_run(run),
            false => self.verify_run(run, entry),
        }
    }

    fn mapped_run(&self, run: Run) -> Result<&[u8], TreeError> {
        let end = run.id.saturating_add(u64::from(run.pages()));
        if run.id < 2 || end > self.file_pages() {
            return Err(corrupt(run.id, "a run pointer beyond the end of the file"));
        }
        // SAFETY: inside the file by the check above; rule 3, as the callers are pinned.
        Ok(unsafe { self.map.bytes(run.id * PAGE as u64, run.len as usize) })
    }

    fn verify_run(&self, run: Run, entry: &AtomicPtr<u8>) -> Result<&[u8], TreeError> {
        let bytes = self.mapped_run(run)?;
        if crc32fast::hash(bytes) != run.crc {
            return Err(corrupt(
                run.id,
                "the checksum of a long value does not match",
            ));
        }
        mark_verified(entry);
        Ok(bytes)
    }

    /// Copies the frame of a published page into `into`; `false` if the page has none. For the
    /// checkpoint, which holds the writer's promise that the frame stays until it is done.
    pub(super) fn copy_published(&self, id: u64, into: &mut [u8]) -> bool {
        let entry = self.table.entry(id).expect("a page that the writer named");
        let at = entry.load(Ordering::Acquire);
        if at.addr() <= VERIFIED.addr() {
            return false;
        }
        // SAFETY: a page in flight to the file is published, thus unchanged (rule 1), and keeps
        // its frame until the checkpoint is reported done (`Owner::moved_to_file`).
        into.copy_from_slice(unsafe { &*at.cast::<PageBytes>() });
        true
    }
}

fn mark_verified(entry: &AtomicPtr<u8>) {
    // Only from "unchecked": another reader may have been faster.
    let _ = entry.compare_exchange(null_mut(), VERIFIED, Ordering::AcqRel, Ordering::Acquire);
}

struct Retired {
    /// The version current when the page moved to the file.
    stamp: u64,
    start: NonNull<u8>,
    pages: u32,
}

/// The writer's side: the only one to make, change and drop frames.
pub(super) struct Owner {
    frames: Arc<Frames>,
    readers: Arc<Readers>,
    /// The open transaction: pages that bear this number may be changed.
    txn: u64,
    free: Vec<NonNull<u8>>,
    /// Runs in memory by first page.
    runs: BTreeMap<u64, (NonNull<u8>, u32)>,
    retired: VecDeque<Retired>,
    bytes: u64,
}

// SAFETY: the pointers lead to memory that the owner alone changes, wherever it lives.
unsafe impl Send for Owner {}

impl Owner {
    pub(super) fn new(frames: Arc<Frames>, readers: Arc<Readers>) -> Owner {
        Owner {
            frames,
            readers,
            txn: 0,
            free: Vec::new(),
            runs: BTreeMap::new(),
            retired: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    /// Bytes of frames in use.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From now on pages of this transaction may be changed. All earlier ones are published or
    /// dropped.
    pub(super) fn open_txn(&mut self, txn: u64) {
        assert!(txn > self.txn || self.txn == txn, "transactions only grow");
        self.txn = txn;
    }

    /// Reads a page; see [`Frames::page`].
    #[inline(always)]
    pub(super) fn page(&self, id: u64, crc: u32, level: u8) -> Result<&Page, TreeError> {
        // SAFETY: changing and dropping need `&mut self`, so not while the reference lives.
        unsafe { self.frames.page(id, crc, level) }
    }

    /// Reads a run.
    pub(super) fn run(&self, run: Run) -> Result<&[u8], TreeError> {
        // SAFETY: as in `page`.
        unsafe { self.frames.run(run) }
    }

    fn take_frame(&mut self) -> NonNull<u8> {
        if self.free.is_empty() {
            self.add_chunk();
        }
        self.bytes += PAGE as u64;
        self.free.pop().expect("a chunk was just added")
    }

    fn add_chunk(&mut self) {
        let bytes = CHUNK_FRAMES * PAGE;
        let align = if cfg!(miri) { PAGE } else { bytes };
        let layout = Layout::from_size_align(bytes, align).expect("a chunk has a layout");
        let memory = Memory::new(layout);
        #[cfg(not(miri))]
        // SAFETY: advice on memory that we own; its failure changes nothing.
        unsafe {
            libc::madvise(memory.start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        }
        for index in (0..CHUNK_FRAMES).rev() {
            // SAFETY: inside the chunk.
            let frame = unsafe { memory.start.add(index * PAGE) };
            // SAFETY: in bounds; frames hold initialised bytes from the beginning.
            unsafe { frame.as_ptr().write_bytes(0, PAGE) };
            self.free.push(frame);
        }
        self.frames
            .memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(memory);
    }

    fn entry(&self, id: u64) -> &AtomicPtr<u8> {
        self.frames
            .table
            .entry(id)
            .expect("the allocator stays within the table")
    }

    /// A frame for a page number that nobody can reach. The bytes are those of an earlier page.
    fn install(&mut self, id: u64) -> &mut Page {
        let frame = self.take_frame();
        let old = self.entry(id).swap(frame.as_ptr(), Ordering::Release);
        debug_assert!(old.addr() <= VERIFIED.addr(), "page {id} had a frame");
        // SAFETY: a frame of our own that no reader can reach yet (rule 1); `&mut self` keeps us
        // from making a second reference.
        page::page_mut(unsafe { &mut *frame.as_ptr().cast::<PageBytes>() })
    }

    /// Makes an empty page.
    pub(super) fn new_page(&mut self, id: u64, level: u8) -> &mut Page {
        let txn = self.txn;
        let page = self.install(id);
        page.init(id, txn, level);
        page
    }

    /// Makes a copy of the page `from` under the number `id`.
    pub(super) fn copy_page(
        &mut self,
        from: (u64, u32, u8),
        id: u64,
    ) -> Result<&mut Page, TreeError> {
        let txn = self.txn;
        let source: *const PageBytes = page::as_bytes(self.page(from.0, from.1, from.2)?);
        debug_assert_ne!(from.0, id);
        let frame = self.take_frame();
        // SAFETY: the source page stays as it is (nothing was dropped since it was looked up),
        // and the new frame is another one.
        unsafe {
            frame
                .as_ptr()
                .copy_from_nonoverlapping(source.cast::<u8>(), PAGE);
        }
        self.entry(id).store(frame.as_ptr(), Ordering::Release);
        // SAFETY: as in `install`.
        let page = page::page_mut(unsafe { &mut *frame.as_ptr().cast::<PageBytes>() });
        page.adopt(id, txn);
        Ok(page)
    }

    /// A page of the open transaction, for changing.
    #[inline]
    pub(super) fn change(&mut self, id: u64) -> &mut Page {
        let at = self.entry(id).load(Ordering::Relaxed);
        if at.addr() <= VERIFIED.addr() {
            return self.unspill(id);
        }
        // SAFETY: the frame is ours; the check below makes sure that its page belongs to the open
        // transaction, which no reader can reach (rule 1).
        let page = page::page_mut(unsafe { &mut *at.cast::<PageBytes>() });
        assert_eq!(page.txn(), self.txn, "page {id} is published");
        page
    }

    /// Brings a spilled page of the open transaction back into memory.
    #[cold]
    fn unspill(&mut self, id: u64) -> &mut Page {
        let copy = *page::as_bytes(self.frames.mapped(id));
        assert_eq!(
            page::page_ref(&copy).txn(),
            self.txn,
            "page {id} is published"
        );
        let frame = self.take_frame();
        self.entry(id).store(frame.as_ptr(), Ordering::Release);
        // SAFETY: as in `install`.
        let bytes = unsafe { &mut *frame.as_ptr().cast::<PageBytes>() };
        *bytes = copy;
        page::page_mut(bytes)
    }

    /// Splits a page of the open transaction: `right` gets a frame, and `edit` gets both.
    pub(super) fn change_two<T>(
        &mut self,
        left: u64,
        right: u64,
        edit: impl FnOnce(&mut Page, &mut PageBytes) -> T,
    ) -> T {
        assert_ne!(left, right);
        let right: *mut Page = self.change(right);
        let left = self.change(left);
        // SAFETY: two different frames, both ours and unpublished by `change`; bringing `left`
        // back into memory does not move or drop the frame of `right`.
        edit(left, unsafe { &mut *right.cast::<PageBytes>() })
    }

    /// Memory for a run of `pages` pages; zeroed.
    pub(super) fn new_run(&mut self, id: u64, pages: u32) -> &mut [u8] {
        let layout = run_layout(pages);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        for index in 0..u64::from(pages) {
            // SAFETY: inside the allocation.
            let at = unsafe { start.add(index as usize * PAGE) };
            self.entry(id + index).store(at.as_ptr(), Ordering::Release);
        }
        self.runs.insert(id, (start, pages));
        self.bytes += layout.size() as u64;
        // SAFETY: fresh zeroed memory that no reader can reach yet.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), layout.size()) }
    }

    /// Forgets pages that nobody can reach, and that nobody reaches before they are made anew:
    /// never published, or dead in the eyes of every pinned reader.
    pub(super) fn forget(&mut self, id: u64, pages: u32) {
        let first = self.entry(id).swap(null_mut(), Ordering::Release);
        if let Some((start, had)) = self.runs.remove(&id) {
            assert_eq!(had, pages, "the run at page {id}");
            for index in 1..u64::from(pages) {
                self.entry(id + index).store(null_mut(), Ordering::Release);
            }
            self.free_memory(start, had, true);
        } else if first.addr() > VERIFIED.addr() {
            assert_eq!(pages, 1, "page {id} is not a run");
            let frame = NonNull::new(first).expect("above the marks");
            self.free_memory(frame, 1, false);
        } else {
            for index in 1..u64::from(pages) {
                self.entry(id + index).store(null_mut(), Ordering::Release);
            }
        }
    }

    fn free_memory(&mut self, start: NonNull<u8>, pages: u32, run: bool) {
        self.bytes -= u64::from(pages) * PAGE as u64;
        if run {
            // SAFETY: allocated by `new_run` with this layout; nobody can reach it any more.
            unsafe { dealloc(start.as_ptr(), run_layout(pages)) }
        } else {
            self.free.push(start);
        }
    }

    /// The page is durable in the file: from now on readers find it there, and on first touch
    /// check what the disk made of it. `stamp` is the newest published version; the frame goes
    /// when all readers pinned up to it are gone.
    pub(super) fn moved_to_file(&mut self, id: u64, stamp: u64) {
        let at = self.entry(id).swap(null_mut(), Ordering::Release);
        if at.addr() <= VERIFIED.addr() {
            return;
        }
        let start = NonNull::new(at).expect("above the marks");
        match self.runs.remove(&id) {
            Some((run, pages)) => {
                debug_assert_eq!(run, start);
                self.retire(stamp, start, pages);
            }
            // A later page of a run: it goes with the first, which has the lower number and thus
            // came before.
            None if self.in_retired_run(start) => {}
            None => self.retire(stamp, start, 1),
        }
    }

    fn retire(&mut self, stamp: u64, start: NonNull<u8>, pages: u32) {
        self.retired.push_back(Retired {
            stamp,
            start,
            pages,
        });
    }

    fn in_retired_run(&self, at: NonNull<u8>) -> bool {
        self.retired.back().is_some_and(|last| {
            let start = last.start.addr().get();
            let end = start + last.pages as usize * PAGE;
            last.pages > 1 && (start..end).contains(&at.addr().get())
        })
    }

    /// Frees what no reader holds any more.
    pub(super) fn release_retired(&mut self) {
        let Some(first) = self.retired.front() else {
            return;
        };
        let oldest = self.readers.oldest_pinned();
        if oldest <= first.stamp {
            return;
        }
        while let Some(front) = self.retired.front() {
            if oldest <= front.stamp {
                break;
            }
            let gone = self.retired.pop_front().expect("looked at above");
            self.free_memory(gone.start, gone.pages, gone.pages > 1);
        }
    }

    /// Whether the page has a frame.
    pub(super) fn has_frame(&self, id: u64) -> bool {
        self.entry(id).load(Ordering::Relaxed).addr() > VERIFIED.addr()
    }

    /// The bytes of an unpublished page's frame.
    pub(super) fn frame_bytes(&self, id: u64) -> Option<&PageBytes> {
        let at = self.entry(id).load(Ordering::Relaxed);
        if at.addr() <= VERIFIED.addr() {
            return None;
        }
        // SAFETY: the writer's own frame; changes need `&mut self`.
        Some(unsafe { &*at.cast::<PageBytes>() })
    }

    /// The unpublished page was written to the file at its place: drops its frame.
    pub(super) fn spilled(&mut self, id: u64) {
        assert!(
            id < self.frames.file_pages(),
            "page {id} is not in the file"
        );
        let pages = self.runs.get(&id).map_or(1, |&(_, pages)| pages);
        self.forget(id, pages);
        self.entry(id).store(VERIFIED, Ordering::Release);
    }

    /// The pages of the run in memory that begins at `id`, if one does.
    pub(super) fn run_pages(&self, id: u64) -> Option<u32> {
        self.runs.get(&id).map(|&(_, pages)| pages)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Readers may outlive the writer: the runs that they may look at live as long as they.
        let mut memory = self
            .frames
            .memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let retired = self.retired.drain(..).filter(|r| r.pages > 1);
        let runs = std::mem::take(&mut self.runs).into_values();
        for (start, pages) in runs.chain(retired.map(|r| (r.start, r.pages))) {
            memory.push(Memory {
                start,
                layout: run_layout(pages),
            });
        }
    }
}

fn run_layout(pages: u32) -> Layout {
    Layout::from_size_align(pages as usize * PAGE, PAGE).expect("a run fits the address space")
}

//! The writer: commits, publishes, takes checkpoints, and gets dead pages back.
#![forbid(unsafe_code)]

use super::api::TreeError;
use super::checkpoint::{CheckpointDone, CheckpointJob, Named, Plan};
use super::frames::Owner;
use super::ids::IdSet;
use super::open::{Spare, TreeOptions};
use super::publish::{Published, Publisher};
use super::space::{Extent, Space};
use super::txn::{Txn, Work};
use crate::disk::PageFile;
use crate::page::{DIRTY, Meta, PAGE, Root, Run, USER_MAX, as_bytes};
use std::sync::Arc;

/// No more than so many free runs go back to the file system at a checkpoint: each is a change of
/// the file system's own.
const PUNCHES: usize = 512;
/// Free pages whose blocks are kept beside a part of the live ones, so that checkpoints need not
/// allocate what the one before has given back.
const KEPT_FREE: u64 = 256;
/// So many are kept in any case.
const KEPT_FREE_MIN: u64 = 32;

/// What the two meta pages in the file say.
pub(super) struct Durable {
    /// The newest meta page's generation.
    pub(super) newest: u64,
    /// The other's, if it is valid: the same but between two writes of a checkpoint, where a crash,
    /// or a full disk, may have left them.
    pub(super) older: u64,
    /// The meta page that the next checkpoint writes first.
    pub(super) next_slot: u64,
    /// The user's bytes of the oldest state to which a damaged file may fall back.
    pub(super) safe_user: Vec<u8>,
}

/// A checkpoint under way.
struct Flight {
    generation: u64,
    pages: IdSet,
    bitmap: Extent,
    user: Vec<u8>,
}

/// Sizes of a tree file and of its pages in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeStats {
    /// Bytes of pages that the newest committed state uses.
    pub live_bytes: u64,
    /// Bytes of pages up to the end of the file, once the next checkpoint has grown it.
    pub file_bytes: u64,
    /// Bytes of free pages.
    pub free_bytes: u64,
    /// Bytes of dead pages that a reader or a meta page still reaches.
    pub pending_bytes: u64,
    /// Bytes of pages in memory.
    pub young_bytes: u64,
    /// Checkpoints written in the file's life.
    pub checkpoints: u64,
}

/// The one writer of a tree file.
pub struct Writer {
    pub(super) owner: Owner,
    pub(super) space: Space,
    pub(super) work: Work,
    pub(super) options: TreeOptions,
    publisher: Publisher,
    /// The newest published version; counts from 1 at each open.
    version: u64,
    /// The newest transaction begun; pages bear it.
    txn: u64,
    /// The newest transaction committed.
    committed: u64,
    roots: [Root; 3],
    user: Vec<u8>,
    durable: Durable,
    /// The newest checkpoint begun.
    begun: u64,
    /// The pages of the newest checkpoint's bitmap.
    bitmap: Option<Extent>,
    flight: Option<Flight>,
    changed: bool,
    spare: Spare,
}

impl Writer {
    pub(super) fn new(
        owner: Owner,
        publisher: Publisher,
        space: Space,
        durable: Durable,
        meta: Meta,
        spare: Spare,
        options: TreeOptions,
    ) -> Writer {
        let bitmap = (meta.bitmap.len > 0).then(|| (meta.bitmap.id, meta.bitmap.pages()));
        Writer {
            owner,
            space,
            work: Work::default(),
            options,
            publisher,
            version: 1,
            txn: meta.txn,
            committed: meta.txn,
            roots: meta.roots,
            user: meta.user,
            begun: durable.newest,
            durable,
            bitmap,
            flight: None,
            changed: false,
            spare,
        }
    }

    /// Begins a transaction, or goes on with the one that was suspended.
    pub fn begin(&mut self) -> Txn<'_> {
        if !self.work.open {
            self.txn += 1;
            self.owner.open_txn(self.txn);
            self.work.start(self.roots);
        }
        Txn::new(self)
    }

    /// The user's bytes of the newest commit.
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// The user's bytes of the oldest state that the file may fall back to if its newest meta page
    /// is damaged: the log may be cut up to what they name, and no further.
    pub fn safe_user(&self) -> &[u8] {
        &self.durable.safe_user
    }

    /// The file, for the thread that runs checkpoints.
    pub fn page_file(&self) -> Arc<dyn PageFile> {
        Arc::clone(self.owner.frames().file())
    }

    /// Bytes of pages in memory. Whoever writes begins a checkpoint well before they reach
    /// [`TreeOptions::young_bytes_max`], and waits for it there.
    pub fn young_bytes(&self) -> u64 {
        self.owner.bytes()
    }

    /// Bytes of pages in memory at which a checkpoint should begin, at most `most`.
    ///
    /// While it is written, the file holds what has changed twice. A tree that is larger than
    /// `most`, but not by much, would be rewritten nearly as a whole between two checkpoints, page
    /// by page in between those that stay: it is written more often.
    pub fn checkpoint_bytes(&self, most: u64) -> u64 {
        let live = self.space.live_pages() * PAGE as u64;
        match live <= most {
            true => most,
            false => (live / 20 * 9).clamp(most / 2, most),
        }
    }

    /// Whether anything was committed since the last checkpoint began.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Whether a checkpoint is under way.
    pub fn checkpointing(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether the disk is full, or nearly all that the file may grow to is used: ordinary
    /// inserts fail until a checkpoint finds space again, or deletes have made some.
    pub fn full(&self) -> bool {
        !self.spare.is_whole() || self.space.is_nearly_used()
    }

    /// Sizes.
    pub fn stats(&self) -> TreeStats {
        let bytes = |pages: u64| pages * PAGE as u64;
        TreeStats {
            live_bytes: bytes(self.space.live_pages()),
            file_bytes: bytes(self.space.end()),
            free_bytes: bytes(self.space.free_pages()),
            pending_bytes: bytes(self.space.pending_pages()),
            young_bytes: self.owner.bytes(),
            checkpoints: self.durable.newest - 1,
        }
    }

    pub(super) fn bitmap(&self) -> Option<Extent> {
        self.bitmap
    }

    pub(super) fn roots(&self) -> &[Root; 3] {
        &self.roots
    }

    pub(super) fn commit(&mut self, user: &[u8]) {
        assert!(user.len() <= USER_MAX, "{} user bytes", user.len());
        let mut roots = self.work.roots;
        for root in &mut roots {
            if root.id & DIRTY != 0 {
                root.id &= !DIRTY;
                root.crc = seal(&mut self.owner, root.id, root.level);
            }
        }
        self.roots = roots;
        self.user.clear();
        self.user.extend_from_slice(user);
        self.committed = self.txn;
        self.changed = true;
        for &extent in &self.work.taken {
            self.space.born(extent);
        }
        let reuse = self.work.reuse.iter().flatten().map(|&id| (id, 1));
        for extent in reuse.chain(self.work.dropped.iter().copied()) {
            self.space.unborn(extent);
        }
        self.publish();
        for &extent in &self.work.freed {
            self.space.died(extent, self.version, self.begun);
        }
        self.work.close();
        self.reclaim();
    }

    pub(super) fn abort(&mut self) {
        let mut gone = IdSet::new();
        for &id in self.work.reuse.iter().flatten() {
            gone.insert(id);
        }
        for &(id, _) in &self.work.dropped {
            gone.insert(id);
        }
        for &(id, pages) in self.work.taken.iter().rev() {
            if !gone.contains(id) {
                self.owner.forget(id, pages);
            }
            self.space.give((id, pages));
        }
        self.work.close();
    }

    fn publish(&mut self) {
        self.version += 1;
        self.publisher.publish(Published {
            version: self.version,
            roots: self.roots,
            user: self.user.clone(),
        });
    }

    /// Gets back what nobody reaches any more.
    fn reclaim(&mut self) {
        let oldest = self.publisher.readers().oldest_pinned();
        while let Some(extent) = self.space.pop_young(oldest) {
            self.owner.forget(extent.0, extent.1);
            self.space.give(extent);
        }
        loop {
            let gone = self.space.pop_durable(oldest, self.durable.older);
            if gone.is_empty() {
                break;
            }
            for (id, pages) in gone {
                self.owner.forget(id, pages);
            }
        }
        self.owner.release_retired();
    }

    /// Begins a checkpoint of the newest committed state; `None` if nothing was committed since
    /// the last one, or if one is under way. The job is run on another thread and comes back
    /// through [`Writer::checkpointed`].
    pub fn checkpoint(&mut self) -> Option<CheckpointJob> {
        if self.flight.is_some() || !self.changed {
            return None;
        }
        if let Some(extent) = self.bitmap.take() {
            self.space.died(extent, 0, self.begun);
        }
        let generation = self.durable.newest + 1;
        let pages = self.space.take_young();
        let (bitmap, bytes) = self.take_bitmap();
        self.begun = generation;
        self.changed = false;
        self.bitmap = Some((bitmap.id, bitmap.pages()));
        let mut all = pages.clone();
        all.insert_run(bitmap.id..bitmap.id + u64::from(bitmap.pages()));
        let meta = Meta {
            generation,
            txn: self.committed,
            end: self.space.end(),
            live: self.space.live_pages(),
            roots: self.roots,
            bitmap,
            user: self.user.clone(),
        };
        let allocate = self.space.unbacked(&all);
        let more = allocate.iter().map(|run| run.end - run.start).sum();
        let plan = Plan {
            punch: self.runs_to_punch(more),
            allocate,
            meta,
            first_slot: self.durable.next_slot,
            bitmap: bytes,
            spare: self.spare.clone(),
        };
        let frames = Arc::clone(self.owner.frames());
        let job = CheckpointJob::new(frames, pages.clone(), plan);
        self.flight = Some(Flight {
            generation,
            pages: all,
            bitmap: (bitmap.id, bitmap.pages()),
            user: self.user.clone(),
        });
        Some(job)
    }

    /// Takes pages for the bitmap of live pages, which they are themselves part of.
    fn take_bitmap(&mut self) -> (Run, Vec<u8>) {
        // Taking the pages may grow the file by an extent or by the pages themselves.
        let end = self.space.end() + 2 * self.options.extent_bytes.div_ceil(PAGE as u64).max(4);
        let len = end.div_ceil(8) + end.div_ceil(8 * 8 * PAGE as u64);
        let pages = len.div_ceil(PAGE as u64);
        let id = self
            .space
            .take_live(u32::try_from(pages).expect("a bitmap of less than 16 TiB"))
            .expect("inserts leave room for a bitmap");
        let mut bytes = self.space.live().to_bytes(self.space.end());
        bytes.resize(bytes.len().max((pages as usize - 1) * PAGE + 1), 0);
        assert_eq!(bytes.len().div_ceil(PAGE) as u64, pages);
        let run = Run {
            id,
            crc: crc32fast::hash(&bytes),
            len: u32::try_from(bytes.len()).expect("less than 4 GiB"),
        };
        (run, bytes)
    }

    /// The free runs that go back to the file system before `more` pages get blocks. A tree that
    /// is rewritten as a whole between two checkpoints takes its space twice; there is no third.
    fn runs_to_punch(&mut self, more: u64) -> Vec<std::ops::Range<u64>> {
        let live = self.space.live_pages();
        let used = self.space.busy_blocks() + more;
        let spare = (live / 4 * 7).saturating_sub(used).max(KEPT_FREE_MIN);
        let kept = spare.min(self.space.slack().max(live / 8) + KEPT_FREE);
        self.space.start_punch(PUNCHES, kept)
    }

    /// Takes note of a finished checkpoint; says whether it is durable. It is not if the disk was
    /// full: then [`Writer::full`] says so, and a later checkpoint tries again.
    pub fn checkpointed(&mut self, done: CheckpointDone) -> bool {
        let flight = self.flight.take().expect("a checkpoint is under way");
        assert_eq!(
            flight.generation, done.generation,
            "of this very checkpoint"
        );
        let (durable, named) = (done.durable(), done.named);
        self.space.end_punch();
        self.spare = done.spare;
        self.space.set_tight(!self.spare.is_whole());
        if durable {
            self.space.set_backed(&flight.pages);
            for run in flight.pages.runs() {
                for id in run {
                    self.owner.moved_to_file(id, self.version);
                }
            }
            let before = std::mem::replace(&mut self.durable.newest, flight.generation);
            if named == Named::Twice {
                // Nothing leads to any other state.
                self.durable.older = flight.generation;
                self.durable.safe_user = flight.user;
            } else {
                // The page that the next one writes first is the one that still names the state
                // before; and there should be a next one.
                self.durable.older = before;
                self.durable.next_slot = 1 - self.durable.next_slot;
                self.changed = true;
            }
        } else {
            self.changed = true;
            self.bitmap = None;
            self.space.untake_live(flight.bitmap);
            self.space.put_back_young(&flight.pages);
        }
        // A version of its own for the moved frames: readers that pin it find the file.
        self.publish();
        self.reclaim();
        durable
    }

    /// Runs a checkpoint here and now, without pauses: at start and at the end of a process, and
    /// in tests.
    pub fn checkpoint_now(&mut self) -> Result<bool, TreeError> {
        let Some(job) = self.checkpoint() else {
            return Ok(false);
        };
        let file = Arc::clone(self.owner.frames().file());
        let done = job.run(&*file, &mut |_| ())?;
        Ok(self.checkpointed(done))
    }

    /// Asserts that every page below the end is live, free or pending, and only one of these.
    pub fn audit(&self) {
        self.space.audit(&self.work.taken);
    }
}

/// Computes the checksums of the open transaction's pages from the leaves up. Recursion is bounded
/// by the level.
fn seal(owner: &mut Owner, id: u64, level: u8) -> u32 {
    if level > 0 {
        let count = owner.change(id).count();
        for index in 0..count {
            let child = owner.change(id).child(index);
            if child.dirty() {
                let crc = seal(owner, child.page(), level - 1);
                owner.change(id).clean_child(index, crc);
            }
        }
    }
    let page = owner
        .page(id, 0, level)
        .expect("a page of the open transaction needs no check");
    crc32fast::hash(as_bytes(page))
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.work.open {
            self.abort();
        }
    }
}

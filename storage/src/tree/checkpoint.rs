//! Checkpoints: making one published state durable.
//!
//! Free pages that are too many go back to the file system. Then blocks for all pages are
//! allocated, so that a full disk changes nothing; then the pages are written in the order of their
//! numbers, runs of them, many at a time; then a sync; then one meta page and a sync, then the
//! other and a sync.
#![forbid(unsafe_code)]

use super::api::TreeError;
use super::frames::Frames;
use super::ids::IdSet;
use super::open::Spare;
use crate::disk::PageFile;
use crate::page::{Meta, PAGE};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Most pages that are written at a time.
const WRITE_PAGES: u64 = 256;

/// After so many pages the device is told to take them. The final sync then has little to do:
/// left to itself it would push out the whole checkpoint at once, and a sync of the log would wait
/// a hundred milliseconds behind it.
const BEHIND_PAGES: u64 = 256;

/// The widest range that one call names; only its dirty pages cost anything.
const SPAN_PAGES_MAX: u64 = 1 << 18;

/// Written and not yet on its way to the device: from the first page to behind the last.
#[derive(Default)]
struct Behind {
    span: Range<u64>,
    pages: u64,
}

impl Behind {
    /// Pages were written, above all earlier ones.
    fn wrote(&mut self, file: &dyn PageFile, pages: Range<u64>) -> Result<(), TreeError> {
        if self.pages == 0 || pages.end - self.span.start > SPAN_PAGES_MAX {
            self.flush(file)?;
            self.span.start = pages.start;
        }
        self.pages += pages.end - pages.start;
        self.span.end = pages.end;
        if self.pages >= BEHIND_PAGES {
            self.flush(file)?;
        }
        Ok(())
    }

    fn flush(&mut self, file: &dyn PageFile) -> Result<(), TreeError> {
        if self.pages > 0 {
            self.pages = 0;
            file.begin_sync(
                offset(self.span.start),
                offset(self.span.end - self.span.start),
            )?;
        }
        Ok(())
    }
}

/// Copies of pages that are to be written together.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Whose they are, one after the other.
    runs: Vec<Range<u64>>,
}

impl Gathered {
    /// The last page of the bytes is this one.
    fn add(&mut self, id: u64) {
        match self.runs.last_mut() {
            Some(run) if run.end == id => run.end += 1,
            _ => self.runs.push(id..id + 1),
        }
    }

    fn write(
        &mut self,
        file: &dyn PageFile,
        behind: &mut Behind,
        pace: &mut dyn FnMut(u64),
    ) -> Result<(), TreeError> {
        let mut rest = &self.bytes[..];
        let mut writes = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            let (bytes, others) = rest.split_at((run.end - run.start) as usize * PAGE);
            writes.push((offset(run.start), bytes));
            rest = others;
        }
        file.write_runs(&writes)?;
        for run in self.runs.drain(..) {
            behind.wrote(file, run)?;
        }
        pace(self.bytes.len() as u64);
        self.bytes.clear();
        Ok(())
    }
}

/// What the writer decided when the checkpoint began.
pub(super) struct Plan {
    pub(super) allocate: Vec<Range<u64>>,
    pub(super) punch: Vec<Range<u64>>,
    pub(super) meta: Meta,
    /// The meta page to write first.
    pub(super) first_slot: u64,
    pub(super) bitmap: Vec<u8>,
    pub(super) spare: Spare,
}

/// The pages that a checkpoint must write, pinned until the writer hears that it is done.
pub struct CheckpointJob {
    frames: Arc<Frames>,
    pages: IdSet,
    plan: Plan,
}

/// How many meta pages name a checkpoint's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// None: the disk was full, and nothing has changed.
    Nowhere,
    /// The one that was written first. There was no space for the other, as a file system may say
    /// that writes nothing in place: it names the state before, whose pages are not free yet.
    Once,
    /// Both: no older state can come back.
    Twice,
}

/// What a finished checkpoint tells the writer.
pub struct CheckpointDone {
    pub(super) generation: u64,
    pub(super) named: Named,
    pub(super) spare: Spare,
}

impl CheckpointDone {
    /// Whether the state is durable; `false` if the disk was full.
    pub fn durable(&self) -> bool {
        self.named != Named::Nowhere
    }
}

impl fmt::Debug for CheckpointJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointJob")
            .field("generation", &self.plan.meta.generation)
            .field("pages", &self.pages.len())
            .finish()
    }
}

impl fmt::Debug for CheckpointDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointDone")
            .field("generation", &self.generation)
            .field("named", &self.named)
            .finish()
    }
}

fn offset(page: u64) -> u64 {
    page * PAGE as u64
}

impl CheckpointJob {
    pub(super) fn new(frames: Arc<Frames>, pages: IdSet, plan: Plan) -> CheckpointJob {
        CheckpointJob {
            frames,
            pages,
            plan,
        }
    }

    /// Bytes of pages to write.
    pub fn bytes(&self) -> u64 {
        offset(self.pages.len())
    }

    /// Makes the state durable. `pace` is called after each write with its bytes, and may sleep.
    ///
    /// A full disk is no error but an outcome, see [`CheckpointDone::durable`]. After an error the
    /// process must stop: nothing is known of the file any more.
    pub fn run(
        mut self,
        file: &dyn PageFile,
        pace: &mut dyn FnMut(u64),
    ) -> Result<CheckpointDone, TreeError> {
        // Free pages first: what they give back may be what the new ones need.
        for run in &self.plan.punch {
            file.punch(offset(run.start), offset(run.end - run.start))?;
        }
        let named = match self.write(file, pace) {
            Ok(named) => named,
            Err(TreeError::NoSpace) => Named::Nowhere,
            Err(e) => return Err(e),
        };
        match named {
            Named::Twice => self.plan.spare.hold()?,
            Named::Once | Named::Nowhere => self.plan.spare.refuse(),
        }
        Ok(CheckpointDone {
            generation: self.plan.meta.generation,
            named,
            spare: self.plan.spare,
        })
    }

    fn write(
        &mut self,
        file: &dyn PageFile,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Named, TreeError> {
        self.allocate(file)?;
        self.write_pages(file, pace)?;
        self.write_bitmap(file, pace)?;
        file.sync()?;
        // One meta page after the other, so that one is always whole. When both are written, no
        // older state can come back: its pages are free at once, and rot in one of the two pages
        // costs nothing.
        let meta = self.plan.meta.encode();
        let name = |slot| -> Result<(), TreeError> {
            file.write(offset(slot), &meta[..])?;
            Ok(file.sync()?)
        };
        name(self.plan.first_slot)?;
        // The state is durable from here on, whatever happens.
        match name(1 - self.plan.first_slot) {
            Ok(()) => Ok(Named::Twice),
            Err(TreeError::NoSpace) => Ok(Named::Once),
            Err(e) => Err(e),
        }
    }

    /// Makes sure of the blocks, with the spare space if need be.
    fn allocate(&mut self, file: &dyn PageFile) -> Result<(), TreeError> {
        for run in std::mem::take(&mut self.plan.allocate) {
            let (at, len) = (offset(run.start), offset(run.end - run.start));
            loop {
                match file.allocate(at, len).map_err(TreeError::from) {
                    // The log may be faster to take what is given: then there is more, to the end.
                    Err(TreeError::NoSpace) if self.plan.spare.give(len)? => {}
                    other => break other?,
                }
            }
            self.frames.file_grew(run.end);
        }
        Ok(())
    }

    fn write_pages(&self, file: &dyn PageFile, pace: &mut dyn FnMut(u64)) -> Result<(), TreeError> {
        let mut gathered = Gathered::default();
        let mut behind = Behind::default();
        for id in self.pages.runs().flatten() {
            let at = gathered.bytes.len();
            gathered.bytes.resize(at + PAGE, 0);
            if !self.frames.copy_published(id, &mut gathered.bytes[at..]) {
                // A page without a frame was spilled: it lies in the file already.
                gathered.bytes.truncate(at);
                continue;
            }
            gathered.add(id);
            if gathered.bytes.len() == WRITE_PAGES as usize * PAGE {
                gathered.write(file, &mut behind, pace)?;
            }
        }
        gathered.write(file, &mut behind, pace)?;
        behind.flush(file)
    }

    fn write_bitmap(
        &mut self,
        file: &dyn PageFile,
        pace: &mut dyn FnMut(u64),
    ) -> Result<(), TreeError> {
        let mut bytes = std::mem::take(&mut self.plan.bitmap);
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        let mut page = self.plan.meta.bitmap.id;
        for chunk in bytes.chunks(WRITE_PAGES as usize * PAGE) {
            file.write(offset(page), chunk)?;
            pace(chunk.len() as u64);
            page += (chunk.len() / PAGE) as u64;
        }
        Ok(())
    }
}

//! Creating and opening a tree file.
#![forbid(unsafe_code)]

use super::api::{Interval, TreeError, TreeId, TreeRead};
use super::frames::{Frames, Owner};
use super::ids::IdSet;
use super::publish::{Published, Publisher, Reader, Readers, Snapshot};
use super::read;
use super::space::Space;
use super::writer::{Durable, Writer};
use crate::disk::{Disk, PageFile};
use crate::page::{Meta, MetaFault, PAGE, Root, Run};
use std::sync::Arc;

/// How a tree file is opened.
#[derive(Debug, Clone)]
pub struct TreeOptions {
    /// Addresses set aside for the file's map; the file cannot grow beyond them.
    pub reserve_bytes: u64,
    /// Above this many bytes of young pages a transaction writes its unpublished pages to the
    /// file. Whoever writes starts checkpoints and slows down well before.
    pub young_bytes_max: u64,
    /// Disk space held back in a file of its own, so that a checkpoint can be written after the
    /// disk is full. At least `young_bytes_max` to be of full use.
    pub spare_bytes: u64,
    /// The file grows by this much, and single pages are taken from free stretches of this length,
    /// so that checkpoints write long runs.
    pub extent_bytes: u64,
}

impl Default for TreeOptions {
    fn default() -> TreeOptions {
        TreeOptions {
            reserve_bytes: 1 << 40,
            young_bytes_max: 64 << 20,
            spare_bytes: 80 << 20,
            extent_bytes: 1 << 20,
        }
    }
}

/// What readers on any core need.
#[derive(Clone)]
pub struct Shared {
    frames: Arc<Frames>,
    readers: Arc<Readers>,
}

impl Shared {
    /// Takes a reader's slot; `None` if all are taken.
    pub fn reader(&self) -> Option<Reader> {
        Reader::new(&self.frames, &self.readers)
    }

    /// The file, for the thread that runs checkpoints.
    pub fn page_file(&self) -> Arc<dyn PageFile> {
        Arc::clone(self.frames.file())
    }
}

impl TreeRead for Snapshot<'_> {
    fn get(&self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        let ahead = (self.version(), self.ahead(tree));
        read::get_ahead(self, &self.roots()[tree as usize], key, ahead)
    }

    fn get_near(&self, tree: TreeId, key: &[u8]) -> Result<Option<&[u8]>, TreeError> {
        let near = &self.near[tree as usize];
        read::get_near(self, &self.roots()[tree as usize], key, near)
    }

    fn scan<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        read::scan(self, &self.roots()[tree as usize], interval, false, visit)
    }

    fn scan_back<'v>(
        &'v self,
        tree: TreeId,
        interval: Interval<'_>,
        visit: &mut dyn FnMut(&'v [u8], &'v [u8]) -> bool,
    ) -> Result<(), TreeError> {
        read::scan(self, &self.roots()[tree as usize], interval, true, visit)
    }

    fn count(&self, tree: TreeId, interval: Interval<'_>) -> Result<u64, TreeError> {
        read::count(self, &self.roots()[tree as usize], interval)
    }

    fn warm(&self, tree: TreeId, keys: &[&[u8]]) {
        let root = &self.roots()[tree as usize];
        (self.ahead(tree)).look_up(self.version(), self, root, keys);
    }
}

/// The name of the file that holds spare space for `name`.
pub(super) fn spare_name(name: &str) -> String {
    format!("{name}.spare")
}

/// One durable state and the pages that it uses.
pub(super) struct State {
    pub(super) meta: Meta,
    pub(super) live: IdSet,
}

/// What the two meta pages of a file say.
pub(super) struct Loaded {
    pub(super) newest: State,
    /// The other meta page's state, if that page is valid and names another one.
    pub(super) older: Option<State>,
    /// Both meta pages are valid.
    pub(super) both: bool,
    /// The meta page to be written first: never the only one that names the newest state.
    pub(super) next_slot: u64,
}

fn corrupt(page: u64, what: &'static str) -> TreeError {
    TreeError::Corrupt { page, what }
}

/// Copies bytes of the file that nothing is being written to: only at open and in the checker.
fn read_file(frames: &Frames, run: Run) -> Result<Vec<u8>, TreeError> {
    if run.len == 0 {
        return Ok(Vec::new());
    }
    frames.read_durable(run).map(<[u8]>::to_vec)
}

fn decode_slot(bytes: &[u8]) -> Result<Meta, MetaFault> {
    let meta = Meta::decode(bytes.try_into().expect("a page long"))?;
    if meta.end < 2 || meta.end > u64::MAX / PAGE as u64 {
        return Err(MetaFault::Damaged);
    }
    Ok(meta)
}

fn state(frames: &Frames, meta: Meta, slot: u64) -> Result<State, TreeError> {
    let bytes = read_file(frames, meta.bitmap)?;
    let live = IdSet::from_bytes(&bytes);
    if live.len() != meta.live || live.last().is_some_and(|last| last >= meta.end) {
        return Err(corrupt(
            meta.bitmap.id,
            "the free-space bitmap does not fit its meta page",
        ));
    }
    if live.last().is_some_and(|last| last >= frames.file_pages()) {
        return Err(corrupt(slot, "the file is shorter than its meta page says"));
    }
    Ok(State { meta, live })
}

/// Reads both meta pages and the bitmaps that they name.
pub(super) fn load(frames: &Frames) -> Result<Loaded, TreeError> {
    if frames.file_pages() < 2 {
        return Err(corrupt(0, "the file has no meta pages"));
    }
    let metas = [frames.meta_page(0)?, frames.meta_page(1)?].map(|bytes| decode_slot(&bytes));
    for (page, meta) in metas.iter().enumerate() {
        if let Err(MetaFault::Version(_)) = meta {
            return Err(corrupt(
                page as u64,
                "a format version that this program does not know",
            ));
        }
    }
    let both = metas.iter().all(Result::is_ok);
    let (newest, older, next_slot) = match metas {
        [Ok(first), Ok(second)] if first.generation > second.generation => (first, Some(second), 1),
        [Ok(first), Ok(second)] if first.generation < second.generation => (second, Some(first), 0),
        [Ok(first), Ok(second)] if first == second => (first, None, 0),
        [Ok(_), Ok(_)] => {
            return Err(corrupt(
                0,
                "the meta pages name two states of one checkpoint",
            ));
        }
        // A meta page that a power cut tore is not an error: the other one is whole.
        [Ok(meta), Err(_)] => (meta, None, 1),
        [Err(_), Ok(meta)] => (meta, None, 0),
        [Err(_), Err(_)] => return Err(corrupt(0, "neither meta page is valid")),
    };
    let newest = state(frames, newest, 1 - next_slot)?;
    let older = older
        .map(|meta| state(frames, meta, next_slot))
        .transpose()?;
    Ok(Loaded {
        newest,
        older,
        both,
        next_slot,
    })
}

/// Creates the file under another name first, so that a file of this name always has whole meta
/// pages.
fn create(disk: &dyn Disk, name: &str) -> Result<(), TreeError> {
    let fresh = format!("{name}.new");
    let file = disk.open_pages(&fresh, 16 * PAGE as u64)?;
    file.truncate(0)?;
    file.allocate(0, 2 * PAGE as u64)?;
    let meta = Meta {
        generation: 1,
        txn: 0,
        end: 2,
        live: 0,
        roots: [Root::default(); 3],
        bitmap: Run {
            id: 0,
            crc: 0,
            len: 0,
        },
        user: Vec::new(),
    };
    for slot in 0..2 {
        file.write(slot * PAGE as u64, &meta.encode()[..])?;
    }
    file.sync()?;
    drop(file);
    disk.rename(&fresh, name)?;
    disk.sync_dir()?;
    Ok(())
}

/// The parts that readers need of a file's newest durable state.
pub(super) fn open_shared(file: Arc<dyn PageFile>) -> Result<(Shared, Loaded), TreeError> {
    let file_pages = file.len()? / PAGE as u64;
    let frames = Arc::new(Frames::new(file, file_pages));
    let loaded = load(&frames)?;
    let readers = Arc::new(Readers::new(Published {
        version: 1,
        roots: loaded.newest.meta.roots,
        user: loaded.newest.meta.user.clone(),
    }));
    Ok((Shared { frames, readers }, loaded))
}

/// Opens the tree file, creating an empty one if there is none, at its newest durable state.
pub fn open(
    disk: Arc<dyn Disk>,
    name: &str,
    options: TreeOptions,
) -> Result<(Writer, Shared), TreeError> {
    if disk.list()?.iter().any(|present| present == name) {
        // An earlier process may have ended between giving the name and making it durable.
        disk.sync_dir()?;
    } else {
        create(&*disk, name)?;
    }
    let file = disk.open_pages(name, options.reserve_bytes)?;
    // What an earlier process left in the page cache becomes durable before it is believed.
    file.sync()?;
    let (shared, loaded) = open_shared(Arc::clone(&file))?;
    let Loaded {
        newest,
        older,
        next_slot,
        ..
    } = loaded;
    let last = |state: &State| state.live.last().unwrap_or(1);
    let end = last(&newest).max(older.as_ref().map_or(1, last)) + 1;
    if shared.frames.file_pages() > end {
        file.truncate(end * PAGE as u64)?;
        shared.frames.set_file_pages(end);
    }
    let spare = Spare::open(&*disk, name, options.spare_bytes)?;
    let durable = Durable {
        newest: newest.meta.generation,
        older: older
            .as_ref()
            .map_or(newest.meta.generation, |older| older.meta.generation),
        next_slot,
        safe_user: older
            .as_ref()
            .map_or_else(|| newest.meta.user.clone(), |older| older.meta.user.clone()),
    };
    let no_pages = IdSet::new();
    let space = Space::new(
        newest.live,
        older.as_ref().map_or(&no_pages, |older| &older.live),
        end,
        shared.frames.limit(),
        options.extent_bytes / PAGE as u64,
        options.young_bytes_max / PAGE as u64,
        newest.meta.generation,
    );
    let owner = Owner::new(Arc::clone(&shared.frames), Arc::clone(&shared.readers));
    let publisher = Publisher::new(Arc::clone(&shared.readers));
    let writer = Writer::new(
        owner,
        publisher,
        space,
        durable,
        newest.meta,
        spare,
        options,
    );
    Ok((writer, shared))
}

/// Disk space held back in a file of its own: its first `held` bytes have blocks.
#[derive(Clone)]
pub(super) struct Spare {
    file: Option<Arc<dyn PageFile>>,
    bytes: u64,
    held: u64,
    /// A checkpoint found no space, in spite of what was held.
    refused: bool,
}

/// What is taken and given of the spare space at a time, if not more is asked for.
const SPARE_PIECE: u64 = 16 * PAGE as u64;

impl Spare {
    fn open(disk: &dyn Disk, name: &str, bytes: u64) -> Result<Spare, TreeError> {
        let bytes = bytes / PAGE as u64 * PAGE as u64;
        let mut spare = Spare {
            file: None,
            bytes,
            held: 0,
            refused: false,
        };
        if bytes > 0 {
            spare.file = Some(disk.open_pages(&spare_name(name), bytes)?);
        }
        spare.hold()?;
        Ok(spare)
    }

    /// Whether all of it is held, and was enough.
    pub(super) fn is_whole(&self) -> bool {
        self.held == self.bytes && !self.refused
    }

    /// A checkpoint found no space.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    /// Tries to hold all of the space, or as much as there is; a full disk is no error.
    pub(super) fn hold(&mut self) -> Result<(), TreeError> {
        self.refused = false;
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut len = self.bytes - self.held;
        while len > 0 {
            match file.allocate(self.held, len).map_err(TreeError::from) {
                Ok(()) => {
                    self.held += len;
                    len = len.min(self.bytes - self.held);
                }
                // Half of it, in whole pages, until even a small piece finds no room.
                Err(TreeError::NoSpace) if len > SPARE_PIECE => {
                    len = (len / 2).next_multiple_of(PAGE as u64);
                }
                Err(TreeError::NoSpace) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Gives up so much of the space, or what is left of it, and no more: others, too, take what
    /// becomes free on a full disk. Says whether there was any.
    pub(super) fn give(&mut self, bytes: u64) -> Result<bool, TreeError> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let len = bytes.max(SPARE_PIECE).min(self.held);
        if len > 0 {
            self.held -= len;
            file.punch(self.held, len)?;
        }
        Ok(len > 0)
    }
}

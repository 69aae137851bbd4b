//! Everything a simulated disk knows: files, names, faults to come, and its chance.

use super::super::{BLOCK, DiskError, DiskErrorKind};
use super::file::SimFile;
use super::{Fault, cut, error, fault_error};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A seeded generator (splitmix64).
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if the limit is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    /// One of the versions, or none of them.
    pub(super) fn pick<'v, T>(&mut self, versions: &'v [T]) -> Option<&'v T> {
        versions.get(self.below(versions.len() as u64 + 1) as usize)
    }
}

/// A change to the directory.
#[derive(Clone)]
pub(super) enum DirChange {
    /// A name gets a file.
    Bind(String, u64),
    /// A file gets another name, which may have had a file.
    Rename(String, String),
    /// A name goes.
    Remove(String),
}

/// What happens to the operation that begins.
pub(super) enum Step {
    /// It is done.
    Go,
    /// The power goes while it is under way.
    Cut,
    /// It fails.
    Fault(Fault),
}

pub(super) struct State {
    random: Random,
    pub(super) capacity: u64,
    pub(super) operations: u64,
    pub(super) reads: u64,
    pub(super) off: bool,
    pub(super) cut_at: Option<u64>,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) read_faults: BTreeSet<u64>,
    files: BTreeMap<u64, SimFile>,
    files_made: u64,
    /// The directory as calls see it.
    pub(super) names: BTreeMap<String, u64>,
    /// The directory as of its last sync.
    durable_names: BTreeMap<String, u64>,
    /// What changed since, in order.
    changes: Vec<DirChange>,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            random: Random(seed),
            capacity: u64::MAX,
            operations: 0,
            reads: 0,
            off: false,
            cut_at: None,
            faults: BTreeMap::new(),
            read_faults: BTreeSet::new(),
            files: BTreeMap::new(),
            files_made: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    pub(super) fn power_check(&self, name: &str, call: &'static str) -> Result<(), DiskError> {
        if self.off {
            Err(cut(name, call))
        } else {
            Ok(())
        }
    }

    /// Begins an operation that changes something.
    pub(super) fn step(
        &mut self,
        name: &str,
        call: &'static str,
        _offset: Option<u64>,
    ) -> Result<Step, DiskError> {
        self.power_check(name, call)?;
        self.operations += 1;
        if self.cut_at == Some(self.operations) {
            self.off = true;
            return Ok(Step::Cut);
        }
        Ok(match self.faults.get(&self.operations) {
            Some(fault) => Step::Fault(*fault),
            None => Step::Go,
        })
    }

    /// An operation of which nothing is left if it does not succeed.
    pub(super) fn simple_step(&mut self, name: &str, call: &'static str) -> Result<(), DiskError> {
        match self.step(name, call, None)? {
            Step::Go => Ok(()),
            Step::Cut => Err(cut(name, call)),
            Step::Fault(fault) => Err(fault_error(name, call, None, fault)),
        }
    }

    /// As `simple_step`, at an offset.
    pub(super) fn fallible_step(
        &mut self,
        name: &str,
        call: &'static str,
        offset: u64,
    ) -> Result<(), DiskError> {
        match self.step(name, call, Some(offset))? {
            Step::Go => Ok(()),
            Step::Cut => Err(cut(name, call)),
            Step::Fault(fault) => Err(fault_error(name, call, Some(offset), fault)),
        }
    }

    /// Begins a read.
    pub(super) fn read_step(&mut self, name: &str, offset: Option<u64>) -> Result<(), DiskError> {
        self.power_check(name, "read")?;
        self.reads += 1;
        if self.read_faults.contains(&self.reads) {
            return Err(fault_error(name, "read", offset, Fault::Eio));
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str, call: &'static str) -> Result<u64, DiskError> {
        self.names.get(name).copied().ok_or_else(|| {
            let kind = DiskErrorKind::Io(io::ErrorKind::NotFound.into());
            error(name, call, None, kind)
        })
    }

    pub(super) fn file(&self, id: u64) -> &SimFile {
        self.files
            .get(&id)
            .expect("files live as long as their disk")
    }

    pub(super) fn file_mut(&mut self, id: u64) -> &mut SimFile {
        self.file_and_random(id).0
    }

    pub(super) fn file_and_random(&mut self, id: u64) -> (&mut SimFile, &mut Random) {
        let file = self.files.get_mut(&id);
        let file = file.expect("files live as long as their disk");
        (file, &mut self.random)
    }

    pub(super) fn new_file(&mut self, bytes: Vec<u8>, durable: bool) -> u64 {
        self.files_made += 1;
        let id = self.files_made;
        self.files.insert(id, SimFile::new(bytes, durable));
        id
    }

    pub(super) fn put_durable(&mut self, name: &str, bytes: Vec<u8>) {
        let id = self.new_file(bytes, true);
        self.names.insert(name.to_owned(), id);
        self.durable_names.insert(name.to_owned(), id);
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.capacity.saturating_sub(self.used_bytes())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        // Files that lost their last name take no space.
        let blocks: usize = self
            .names
            .values()
            .map(|id| self.file(*id).blocks.len())
            .sum();
        (blocks * BLOCK) as u64
    }

    /// Gives the range its blocks, or nothing if there is no room for all of them.
    pub(super) fn allocate(
        &mut self,
        name: &str,
        id: u64,
        call: &'static str,
        offset: u64,
        len: u64,
    ) -> Result<(), DiskError> {
        let block = BLOCK as u64;
        let range = offset / block..(offset + len) / block;
        let present = self.file(id).blocks.range(range.clone()).count() as u64;
        let missing = range.end - range.start - present;
        if missing * block > self.free_bytes() {
            return Err(error(name, call, Some(offset), DiskErrorKind::NoSpace));
        }
        let file = self.file_mut(id);
        file.blocks.extend(range);
        file.grow(offset + len);
        Ok(())
    }

    pub(super) fn sync_file(&mut self, name: &str, id: u64) -> Result<(), DiskError> {
        let step = self.step(name, "sync", None)?;
        let (file, random) = self.file_and_random(id);
        match step {
            Step::Go => {
                file.settle();
                Ok(())
            }
            Step::Cut => Err(cut(name, "sync")),
            Step::Fault(fault) => {
                file.lose(random);
                Err(fault_error(name, "sync", None, fault))
            }
        }
    }

    pub(super) fn change_names(&mut self, change: DirChange) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    pub(super) fn sync_names(&mut self, name: &str) -> Result<(), DiskError> {
        self.simple_step(name, "sync of the directory")?;
        self.durable_names = self.names.clone();
        self.changes.clear();
        Ok(())
    }

    pub(super) fn crash(&mut self) -> State {
        self.off = true;
        let mut names = self.durable_names.clone();
        let mood = self.random.below(4);
        for change in &self.changes {
            if mood == 1 || (mood > 1 && self.random.below(2) == 0) {
                apply(&mut names, change);
            }
        }
        let mut files = BTreeMap::new();
        for id in names.values() {
            let file = self
                .files
                .get(id)
                .expect("files live as long as their disk");
            files.insert(*id, file.crash(&mut self.random));
        }
        let crashed = self.successor(names, files);
        match crashed.used_bytes() <= self.capacity {
            true => crashed,
            // No file system gives away blocks before it is certain that they were given back.
            false => self.crash_without_loss(crashed),
        }
    }

    /// A crash after which files take no more space than before.
    fn crash_without_loss(&mut self, mut crashed: State) -> State {
        crashed.names = self.names.clone();
        crashed.durable_names = self.names.clone();
        for id in self.names.values() {
            let before = &self.files[id];
            let file = crashed.files.entry(*id);
            file.or_insert_with(|| before.crash(&mut self.random))
                .give_back(before);
        }
        crashed
    }

    pub(super) fn kill(&mut self) -> State {
        let mut files = BTreeMap::new();
        for (id, file) in &self.files {
            files.insert(*id, file.kill());
        }
        let mut next = self.successor(self.names.clone(), files);
        next.durable_names = self.durable_names.clone();
        next.changes = self.changes.clone();
        next
    }

    fn successor(&mut self, names: BTreeMap<String, u64>, files: BTreeMap<u64, SimFile>) -> State {
        let seed = self.random.next();
        State {
            capacity: self.capacity,
            files,
            files_made: self.files_made,
            durable_names: names.clone(),
            names,
            ..State::new(seed)
        }
    }
}

/// Changes a directory; a change whose premise was lost has no effect.
fn apply(names: &mut BTreeMap<String, u64>, change: &DirChange) {
    match change {
        DirChange::Bind(name, id) => {
            names.insert(name.clone(), *id);
        }
        DirChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        DirChange::Remove(name) => {
            names.remove(name);
        }
    }
}

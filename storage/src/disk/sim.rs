//! The simulated disk: in memory, seeded, and as unkind as a real one may be.
//!
//! What was not synced when the power fails is kept, lost or torn sector by sector, in any
//! order; names are durable only after `sync_dir`. Every operation that changes something has a
//! number, so that a test can cut the power, or inject a fault, at each in turn. The same seed
//! and the same calls give the same bytes.

#![forbid(unsafe_code)]

mod file;

mod state;

use super::mmap::Mapping;
use super::{AlignedBuf, BLOCK, Disk, DiskError, DiskErrorKind, LogFile, Map, PageFile};
use super::{assert_blocks, latch_check};
use state::{DirChange, State, Step};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A fault to inject into one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error; of a write, any part may have happened.
    Eio,
    /// The file system is full.
    NoSpace,
    /// Only the front part of a write is done, then the device reports an error.
    ShortWrite,
    /// Everything is written, and the sync fails: the cache shows all of it, the device has any
    /// part, and a later sync reports success without writing it.
    FailedSync,
}

/// A directory of files in memory. Clones are handles to the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk without a limit on its size.
    pub fn new(seed: u64) -> SimDisk {
        Self::with_state(State::new(seed))
    }

    fn with_state(state: State) -> SimDisk {
        SimDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Limits the blocks that files may occupy together, in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The bytes of the blocks that files occupy.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// How many operations that change something were begun so far. The first has number 1.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// How many reads of log files, small files and pages (not through the map) were begun.
    pub fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Cuts the power in the middle of operation `number`: a part of it may happen, and it and
    /// all later calls fail.
    pub fn cut_at(&self, number: u64) {
        self.state().cut_at = Some(number);
    }

    /// Cuts the power now, between two operations.
    pub fn cut(&self) {
        self.state().off = true;
    }

    /// Whether the power has been cut.
    pub fn is_cut(&self) -> bool {
        self.state().off
    }

    /// Lets operation `number` fail.
    pub fn fail_at(&self, number: u64, fault: Fault) {
        self.state().faults.insert(number, fault);
    }

    /// Lets read `number` fail with an error of the device.
    pub fn fail_read_at(&self, number: u64) {
        self.state().read_faults.insert(number);
    }

    /// Cuts the power if it is still on, and returns what a machine finds that starts again.
    /// Called again, it may return another of the possible outcomes.
    pub fn crash(&self) -> SimDisk {
        Self::with_state(self.state().crash())
    }

    /// What a process finds that starts after this one was killed: everything written so far,
    /// in the page cache or on the device. Later calls through old handles do not show there.
    pub fn kill(&self) -> SimDisk {
        Self::with_state(self.state().kill())
    }

    /// The bytes of a file as a read finds them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let id = *state.names.get(name)?;
        Some(state.file(id).contents.to_vec())
    }

    /// Puts a file there, durable, as if it had always been there.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        self.state().put_durable(name, bytes);
    }

    /// Turns one bit of a file over, in the cache and on the device: rot.
    pub fn flip_bit(&self, name: &str, byte: u64, bit: u8) {
        assert!(bit < 8, "a byte has eight bits");
        let mut state = self.state();
        let id = *state.names.get(name).expect("the file to damage exists");
        state.file_mut(id).flip(byte, bit);
    }
}

impl Disk for SimDisk {
    fn create_log(&self, name: &str, len: u64) -> Result<Box<dyn LogFile>, DiskError> {
        assert_blocks(0, len);
        let mut state = self.state();
        // As on the real disk: a temporary file, its zeros, a sync, the rename, the directory.
        state.simple_step(name, "create")?;
        let free = state.free_bytes();
        state.simple_step(name, "write")?;
        if free < len {
            return Err(error(name, "write", None, DiskErrorKind::NoSpace));
        }
        state.simple_step(name, "sync")?;
        let id = state.new_file(vec![0; len as usize], true);
        let change = DirChange::Bind(name.to_owned(), id);
        match state.step(name, "rename", None)? {
            Step::Go => state.change_names(change),
            Step::Cut => {
                state.change_names(change);
                return Err(cut(name, "rename"));
            }
            Step::Fault(fault) => return Err(fault_error(name, "rename", None, fault)),
        }
        state.sync_names(name)?;
        Ok(Box::new(self.log(name, id)))
    }

    fn open_log(&self, name: &str) -> Result<Box<dyn LogFile>, DiskError> {
        let state = self.state();
        state.power_check(name, "open")?;
        let id = state.find(name, "open")?;
        Ok(Box::new(self.log(name, id)))
    }

    fn open_pages(&self, name: &str, reserve: u64) -> Result<Arc<dyn PageFile>, DiskError> {
        let mut state = self.state();
        state.power_check(name, "open")?;
        let id = match state.names.get(name) {
            Some(id) => *id,
            None => {
                state.simple_step(name, "create")?;
                let id = state.new_file(Vec::new(), false);
                state.change_names(DirChange::Bind(name.to_owned(), id));
                state.sync_names(name)?;
                id
            }
        };
        let file = state.file_mut(id);
        let len = file.contents.len();
        if len > reserve {
            return Err(error(name, "map", None, DiskErrorKind::BadSize(len)));
        }
        let mapping = file.map(reserve as usize);
        let mapping = mapping.map_err(|e| DiskError::from_io(name, "map", None, e))?;
        Ok(Arc::new(SimPages {
            disk: self.clone(),
            name: name.to_owned(),
            id,
            mapping,
            latched: AtomicBool::new(false),
        }))
    }

    fn read_small(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, DiskError> {
        let mut state = self.state();
        state.read_step(name, None)?;
        let Some(id) = state.names.get(name).copied() else {
            return Ok(None);
        };
        let bytes = state.file(id).contents.to_vec();
        if bytes.len() > max {
            let kind = DiskErrorKind::BadSize(bytes.len() as u64);
            return Err(error(name, "read", None, kind));
        }
        Ok(Some(bytes))
    }

    fn write_small(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        state.simple_step(name, "write")?;
        if state.free_bytes() < bytes.len() as u64 {
            return Err(error(name, "write", None, DiskErrorKind::NoSpace));
        }
        state.simple_step(name, "sync")?;
        let id = state.new_file(bytes.to_vec(), true);
        let change = DirChange::Bind(name.to_owned(), id);
        match state.step(name, "rename", None)? {
            Step::Go => state.change_names(change),
            Step::Cut => {
                state.change_names(change);
                return Err(cut(name, "rename"));
            }
            Step::Fault(fault) => return Err(fault_error(name, "rename", None, fault)),
        }
        state.sync_names(name)
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let state = self.state();
        state.power_check(".", "list")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let change = DirChange::Rename(from.to_owned(), to.to_owned());
        self.change_dir(from, "rename", change)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.change_dir(name, "remove", DirChange::Remove(name.to_owned()))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.state().sync_names(".")
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.state().free_bytes())
    }
}

impl SimDisk {
    fn log(&self, name: &str, id: u64) -> SimLog {
        SimLog {
            disk: self.clone(),
            name: name.to_owned(),
            id,
            latched: false,
        }
    }

    fn change_dir(
        &self,
        name: &str,
        call: &'static str,
        change: DirChange,
    ) -> Result<(), DiskError> {
        let mut state = self.state();
        state.find(name, call)?;
        match state.step(name, call, None)? {
            Step::Go => {
                state.change_names(change);
                Ok(())
            }
            Step::Cut => {
                state.change_names(change);
                Err(cut(name, call))
            }
            Step::Fault(fault) => Err(fault_error(name, call, None, fault)),
        }
    }
}

/// A log segment on a simulated disk.
struct SimLog {
    disk: SimDisk,
    name: String,
    id: u64,
    latched: bool,
}

impl SimLog {
    fn end_check(&self, state: &State, call: &'static str, end: u64) -> Result<(), DiskError> {
        let len = state.file(self.id).contents.len();
        if end <= len {
            return Ok(());
        }
        Err(error(
            &self.name,
            call,
            Some(end),
            DiskErrorKind::BadSize(len),
        ))
    }
}

impl LogFile for SimLog {
    fn write_durable(&mut self, offset: u64, blocks: &AlignedBuf) -> Result<(), DiskError> {
        assert_blocks(offset, blocks.len() as u64);
        latch_check(&self.name, "write", self.latched)?;
        let mut state = self.disk.state();
        self.end_check(&state, "write", offset + blocks.len() as u64)?;
        let step = state.step(&self.name, "write", Some(offset))?;
        let (file, random) = state.file_and_random(self.id);
        let fault = match step {
            Step::Go => {
                file.write(offset, blocks);
                // A write with RWF_DSYNC makes its own range durable, nothing else.
                file.settle_range(offset, blocks.len() as u64);
                return Ok(());
            }
            Step::Cut => {
                file.write(offset, blocks);
                self.latched = true;
                return Err(cut(&self.name, "write"));
            }
            Step::Fault(fault) => fault,
        };
        match fault {
            Fault::NoSpace => {}
            Fault::ShortWrite => {
                let keep = random.below(blocks.len() as u64 / 512) as usize * 512;
                file.write(offset, &blocks[..keep]);
            }
            Fault::Eio | Fault::FailedSync => file.write_some(offset, blocks, random),
        }
        self.latched = true;
        Err(fault_error(&self.name, "write", Some(offset), fault))
    }

    fn read(&self, offset: u64, into: &mut AlignedBuf) -> Result<(), DiskError> {
        assert_blocks(offset, into.len() as u64);
        let mut state = self.disk.state();
        state.read_step(&self.name, Some(offset))?;
        self.end_check(&state, "read", offset + into.len() as u64)?;
        state.file(self.id).contents.read(offset, into);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        latch_check(&self.name, "sync", self.latched)?;
        let result = self.disk.state().sync_file(&self.name, self.id);
        self.latched = result.is_err();
        result
    }

    fn len(&self) -> Result<u64, DiskError> {
        let state = self.disk.state();
        state.power_check(&self.name, "stat")?;
        Ok(state.file(self.id).contents.len())
    }
}

/// The page file on a simulated disk.
struct SimPages {
    disk: SimDisk,
    name: String,
    id: u64,
    mapping: Arc<Mapping>,
    latched: AtomicBool,
}

impl SimPages {
    fn latch_check(&self, call: &'static str) -> Result<(), DiskError> {
        latch_check(&self.name, call, self.latched.load(Ordering::Relaxed))
    }

    fn latch(&self) {
        self.latched.store(true, Ordering::Relaxed);
    }

    fn inside(&self, offset: u64, len: u64) {
        let end = offset.checked_add(len).expect("a range of a file");
        let reserve = self.mapping.map().reserve() as u64;
        assert!(
            end <= reserve,
            "{end} lies outside the {reserve} bytes of addresses"
        );
    }

    fn begin(&self, call: &'static str, offset: u64, len: u64) -> Result<(), DiskError> {
        assert_blocks(offset, len);
        self.inside(offset, len);
        self.latch_check(call)
    }
}

impl PageFile for SimPages {
    fn map(&self) -> &Map {
        self.mapping.map()
    }

    fn len(&self) -> Result<u64, DiskError> {
        let state = self.disk.state();
        state.power_check(&self.name, "stat")?;
        Ok(state.file(self.id).contents.len())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.begin("allocate", offset, len)?;
        let mut state = self.disk.state();
        state.fallible_step(&self.name, "allocate", offset)?;
        state.allocate(&self.name, self.id, "allocate", offset, len)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.begin("write", offset, bytes.len() as u64)?;
        let mut state = self.disk.state();
        let step = state.step(&self.name, "write", Some(offset))?;
        // Blocks that nobody allocated before cost space now.
        state.allocate(&self.name, self.id, "write", offset, bytes.len() as u64)?;
        let (file, random) = state.file_and_random(self.id);
        let fault = match step {
            Step::Go => {
                file.write(offset, bytes);
                return Ok(());
            }
            Step::Cut => {
                file.write(offset, bytes);
                self.latch();
                return Err(cut(&self.name, "write"));
            }
            Step::Fault(fault) => fault,
        };
        match fault {
            Fault::NoSpace => {}
            Fault::ShortWrite => {
                let keep = random.below(bytes.len() as u64 / 512) as usize * 512;
                file.write(offset, &bytes[..keep]);
            }
            Fault::Eio | Fault::FailedSync => file.write_some(offset, bytes, random),
        }
        if fault != Fault::NoSpace {
            self.latch();
        }
        Err(fault_error(&self.name, "write", Some(offset), fault))
    }

    fn read_device(&self, offset: u64, into: &mut AlignedBuf) -> Result<(), DiskError> {
        self.inside(offset, into.len() as u64);
        assert_blocks(offset, into.len() as u64);
        let mut state = self.disk.state();
        state.read_step(&self.name, Some(offset))?;
        let file = state.file(self.id);
        let len = file.contents.len();
        if offset + into.len() as u64 > len {
            let kind = DiskErrorKind::Io(io::ErrorKind::UnexpectedEof.into());
            return Err(error(&self.name, "read", Some(offset), kind));
        }
        file.read_device(offset, into);
        Ok(())
    }

    /// Changes nothing: at a power cut any of the writes since the last sync may be there or not,
    /// begun or not.
    fn begin_sync(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.begin("begin sync", offset, len)?;
        self.disk.state().power_check(&self.name, "begin sync")
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.latch_check("sync")?;
        let result = self.disk.state().sync_file(&self.name, self.id);
        if result.is_err() {
            self.latch();
        }
        result
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.begin("punch", offset, len)?;
        let mut state = self.disk.state();
        let step = state.step(&self.name, "punch", Some(offset))?;
        let (file, _) = state.file_and_random(self.id);
        match step {
            Step::Go => {
                file.punch(offset, len);
                Ok(())
            }
            Step::Cut => {
                file.punch(offset, len);
                Err(cut(&self.name, "punch"))
            }
            Step::Fault(fault) => Err(fault_error(&self.name, "punch", Some(offset), fault)),
        }
    }

    fn truncate(&self, len: u64) -> Result<(), DiskError> {
        self.inside(0, len);
        self.latch_check("truncate")?;
        let mut state = self.disk.state();
        state.fallible_step(&self.name, "truncate", len)?;
        state.file_mut(self.id).truncate(len);
        Ok(())
    }

    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        let state = self.disk.state();
        state.power_check(&self.name, "stat")?;
        Ok(state.file(self.id).blocks.len() as u64 * BLOCK as u64)
    }
}

fn error(name: &str, call: &'static str, offset: Option<u64>, kind: DiskErrorKind) -> DiskError {
    DiskError {
        file: name.to_owned(),
        call,
        offset,
        kind,
    }
}

/// The error of every call once the power is gone.
fn cut(name: &str, call: &'static str) -> DiskError {
    let kind = DiskErrorKind::Io(io::Error::other("the power is cut"));
    error(name, call, None, kind)
}

fn fault_error(name: &str, call: &'static str, offset: Option<u64>, fault: Fault) -> DiskError {
    let kind = match fault {
        Fault::NoSpace => DiskErrorKind::NoSpace,
        Fault::Eio | Fault::FailedSync => {
            DiskErrorKind::Io(io::Error::from_raw_os_error(libc::EIO))
        }
        Fault::ShortWrite => DiskErrorKind::Io(io::ErrorKind::WriteZero.into()),
    };
    error(name, call, offset, kind)
}

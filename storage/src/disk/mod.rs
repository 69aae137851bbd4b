//! The seam between storage and the machine.
//!
//! Everything above it works on these traits; a real disk and a simulated one are equal tenants.
//! All calls block: they are made from the log thread, the checkpoint thread and at start-up,
//! never from an executor, except for reads through [`Map`], which are plain memory accesses.

mod aligned;

mod mmap;

mod uring;

mod real;

#[cfg(any(test, feature = "sim"))]
pub mod sim;

#[cfg(test)]
mod tests;

pub use aligned::AlignedBuf;
pub use real::RealDisk;
pub use uring::{UringRefused, probe_io_uring};

use std::fmt;
use std::io;
use std::sync::Arc;

/// The unit in which files are written, and the alignment of offsets, lengths and buffers.
pub const BLOCK: usize = 4096;

/// One directory that holds the files of one node. Names are plain file names.
pub trait Disk: Send + Sync + 'static {
    /// Creates a log segment of `len` bytes, every block written with zeros and durable,
    /// its directory entry included.
    fn create_log(&self, name: &str, len: u64) -> Result<Box<dyn LogFile>, DiskError>;
    /// Opens a log segment for direct reads and durable direct writes.
    fn open_log(&self, name: &str) -> Result<Box<dyn LogFile>, DiskError>;
    /// Opens the page file, creating it empty if absent, and maps `reserve` bytes of addresses.
    /// The map keeps its place for the life of the file, however the file grows below `reserve`.
    fn open_pages(&self, name: &str, reserve: u64) -> Result<Arc<dyn PageFile>, DiskError>;
    /// Reads a small file whole; `None` if there is none. Refuses files over `max` bytes.
    fn read_small(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, DiskError>;
    /// Replaces a small file atomically and durably (temporary file, sync, rename, sync of the
    /// directory).
    fn write_small(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError>;
    /// The names present, sorted.
    fn list(&self) -> Result<Vec<String>, DiskError>;
    /// Renames a file, replacing the target; durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file; durable only after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> Result<(), DiskError>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> Result<(), DiskError>;
    /// Bytes that the file system still has for this node.
    fn free_bytes(&self) -> Result<u64, DiskError>;
}

/// A preallocated segment of the log.
#[expect(
    clippy::len_without_is_empty,
    reason = "asking can fail, and nobody asks that"
)]
pub trait LogFile: Send {
    /// Writes `blocks` at `offset`, both multiples of [`BLOCK`], and returns when all of it is
    /// durable. After an error nothing may be assumed of the range, and the file refuses further
    /// writes: a failed sync is never retried.
    fn write_durable(&mut self, offset: u64, blocks: &AlignedBuf) -> Result<(), DiskError>;
    /// Fills `into` from `offset`, both multiples of [`BLOCK`], from the device itself.
    fn read(&self, offset: u64, into: &mut AlignedBuf) -> Result<(), DiskError>;
    /// Makes durable whatever an earlier process left in the page cache. Called once, at open,
    /// before anything is read.
    fn sync(&mut self) -> Result<(), DiskError>;
    /// Size in bytes.
    fn len(&self) -> Result<u64, DiskError>;
}

/// The file of the tree: written by one thread, read through its map by all.
#[expect(
    clippy::len_without_is_empty,
    reason = "asking can fail, and nobody asks that"
)]
pub trait PageFile: Send + Sync {
    /// The read-only view of the file.
    fn map(&self) -> &Map;
    /// Size in bytes.
    fn len(&self) -> Result<u64, DiskError>;
    /// Makes sure that the blocks of the range exist, growing the file if needed, so that
    /// neither a write nor a read through the map can fail later for want of space.
    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError>;
    /// Writes a run of bytes; visible through the map on return, durable only after `sync`.
    /// Offset and length are multiples of [`BLOCK`].
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Writes several runs of bytes, each as [`PageFile::write`] does, in any order.
    fn write_runs(&self, runs: &[(u64, &[u8])]) -> Result<(), DiskError> {
        runs.iter()
            .try_for_each(|(offset, bytes)| self.write(*offset, bytes))
    }
    /// Has the device begin to take what was written to the range, so that a later `sync` finds
    /// little left to do and the syncs of other files do not queue behind it. Promises nothing.
    fn begin_sync(&self, offset: u64, len: u64) -> Result<(), DiskError>;
    /// Fills `into` from the device itself, not from the page cache: after a failed sync the
    /// cache goes on showing bytes that the device never got, even to a restarted process.
    /// Whoever decides at open which checkpoint is durable syncs, then reads its meta pages so.
    fn read_device(&self, offset: u64, into: &mut AlignedBuf) -> Result<(), DiskError>;
    /// Has the device begin to read what of the range is not in memory, and does not wait for it. A
    /// hint: promises nothing, and does nothing with what lies outside the file.
    fn will_need(&self, _offset: u64, _len: u64) {}
    /// Makes all earlier writes durable. After an error the file refuses everything.
    fn sync(&self) -> Result<(), DiskError>;
    /// Gives the blocks of the range back to the file system; they read as zeros.
    fn punch(&self, offset: u64, len: u64) -> Result<(), DiskError>;
    /// Cuts the file; only at open, before any page above `len` was read.
    fn truncate(&self, len: u64) -> Result<(), DiskError>;
    /// Bytes of blocks that the file really occupies.
    fn allocated_bytes(&self) -> Result<u64, DiskError>;
}

/// Addresses that show the contents of a page file.
///
/// The bytes of a range may be read only while no write to that range is under way. The tree
/// keeps this: a page that a reader can reach is never written.
pub struct Map {
    start: *const u8,
    len: usize,
}

// SAFETY: the map is read-only memory that lives as long as the file that owns it; see the
// type's rule on concurrent writes.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Describes `len` bytes of addresses at `start`.
    ///
    /// # Safety
    /// The range stays mapped and readable for as long as the `Map` exists. Bytes beyond the end
    /// of the file need not be accessible.
    pub unsafe fn new(start: *const u8, len: usize) -> Map {
        Map { start, len }
    }

    /// A second description of the same addresses.
    ///
    /// # Safety
    /// It is not used after the file that owns the map is gone.
    pub unsafe fn alias(&self) -> Map {
        Map {
            start: self.start,
            len: self.len,
        }
    }

    /// Where the byte at `offset` would be; good for a hint and nothing else.
    #[inline(always)]
    pub fn hint(&self, offset: u64) -> *const u8 {
        self.start.wrapping_add(offset as usize)
    }

    /// Where the range starts, as a number: to tell whether a fault lies inside.
    pub fn address(&self) -> usize {
        self.start as usize
    }

    /// Size of the address range in bytes (not of the file).
    pub fn reserve(&self) -> usize {
        self.len
    }

    /// The bytes at `offset`.
    ///
    /// # Safety
    /// The range lies inside the file, and nothing writes to it while the slice lives.
    #[inline(always)]
    pub unsafe fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let offset = usize::try_from(offset).expect("the map is in the address space");
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{offset} + {len} lies outside the map of {} bytes",
            self.len
        );
        // SAFETY: inside the mapped range by the check above; the caller keeps writers away.
        unsafe { std::slice::from_raw_parts(self.start.add(offset), len) }
    }
}

/// What went wrong at the seam, and where.
#[derive(Debug)]
pub struct DiskError {
    /// The file, or the directory for calls that name none.
    pub file: String,
    /// The call: "write", "sync", "read", ...
    pub call: &'static str,
    /// The byte offset, where the call has one.
    pub offset: Option<u64>,
    /// What kind of failure it was.
    pub kind: DiskErrorKind,
}

/// Kinds of failure that callers tell apart.
#[derive(Debug)]
pub enum DiskErrorKind {
    /// The file system is full; nothing was changed.
    NoSpace,
    /// The file system does not support direct I/O.
    NoDirectIo,
    /// io_uring is missing or forbidden here.
    NoIoUring(UringRefused),
    /// The file would become larger than the process or the file system lets any be.
    FileLimit,
    /// The operating system's error.
    Io(io::Error),
    /// An earlier failed write or sync closed this file.
    Latched,
    /// A file that is larger or smaller than the format allows.
    BadSize(u64),
    /// Other users may read or change the file or directory; the mode found.
    TooOpen(u32),
}

impl DiskError {
    /// An error of the operating system, sorted into the kinds that callers tell apart.
    fn from_io(file: &str, call: &'static str, offset: Option<u64>, error: io::Error) -> DiskError {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::NoSpace,
            io::ErrorKind::FileTooLarge => DiskErrorKind::FileLimit,
            _ => DiskErrorKind::Io(error),
        };
        DiskError {
            file: file.to_owned(),
            call,
            offset,
            kind,
        }
    }
}

fn latch_check(name: &str, call: &'static str, latched: bool) -> Result<(), DiskError> {
    if !latched {
        return Ok(());
    }
    Err(DiskError {
        file: name.to_owned(),
        call,
        offset: None,
        kind: DiskErrorKind::Latched,
    })
}

/// The offset and length of a call on whole blocks.
fn assert_blocks(offset: u64, len: u64) {
    let block = BLOCK as u64;
    assert!(
        offset.is_multiple_of(block) && len.is_multiple_of(block) && len > 0,
        "{offset} + {len} is not a run of whole blocks"
    );
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.call, self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        match &self.kind {
            DiskErrorKind::NoSpace => f.write_str(": no space left on the file system"),
            DiskErrorKind::FileLimit => f.write_str(
                ": the file may not grow so far, by the limit on the size of files (ulimit -f) or \
                 the file system's own",
            ),
            DiskErrorKind::NoDirectIo => {
                f.write_str(": the file system does not support direct I/O (O_DIRECT)")
            }
            DiskErrorKind::NoIoUring(e) => write!(f, ": io_uring is not available ({e})"),
            DiskErrorKind::Io(e) => write!(f, ": {e}"),
            DiskErrorKind::Latched => f.write_str(": refused, an earlier write or sync failed"),
            DiskErrorKind::BadSize(len) => write!(f, ": unexpected size of {len} bytes"),
            DiskErrorKind::TooOpen(mode) => write!(
                f,
                ": other users have access (mode {mode:o}); take it away with chmod go-rwx"
            ),
        }
    }
}

impl std::error::Error for DiskError {}

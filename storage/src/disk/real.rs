//! The real disk: one directory of a Linux file system, written through io_uring.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use super::mmap::{self, Mapping};
use super::uring::{IN_FLIGHT_MAX, Ring, Write};
use super::{AlignedBuf, BLOCK, Disk, DiskError, DiskErrorKind, LogFile, Map, PageFile};
use super::{assert_blocks, latch_check};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is being written lies under its name with this ending until it is complete.
const TEMPORARY: &str = ".tmp";
/// Blocks of zeros that go to a new log segment in one write.
const ZERO_BLOCKS: usize = 256;
/// The most bytes of pages that one write carries. What comes in one write, newer kernels keep in
/// the page cache as one piece of that length, and every later write of a page walks over all of
/// the piece that it is in.
const PIECE_BYTES: usize = 4 * BLOCK;

/// A directory of a real file system.
pub struct RealDisk {
    path: PathBuf,
    /// Keeps the directory, and syncs it.
    directory: File,
    /// The ring of the log files: they are written by one thread, one at a time.
    log_ring: Arc<Mutex<Ring>>,
}

impl RealDisk {
    /// Opens the directory, creating it with mode 0700 if it is absent.
    pub fn open(path: &Path) -> Result<RealDisk, DiskError> {
        let exists = path
            .try_exists()
            .map_err(|e| directory_error(path, "open", e))?;
        if !exists {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|e| directory_error(path, "create", e))?;
        }
        Self::open_existing(path)
    }

    /// Opens a directory that must be there.
    pub fn open_existing(path: &Path) -> Result<RealDisk, DiskError> {
        let directory = File::open(path).map_err(|e| directory_error(path, "open", e))?;
        let metadata = directory
            .metadata()
            .map_err(|e| directory_error(path, "open", e))?;
        if !metadata.is_dir() {
            let error = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(directory_error(path, "open", error));
        }
        let name = path.display().to_string();
        check_mode(&name, &metadata)?;
        Ok(RealDisk {
            path: path.to_owned(),
            directory,
            log_ring: Arc::new(Mutex::new(new_ring(&name)?)),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: &str) -> PathBuf {
        assert!(
            !name.is_empty() && !name.contains('/') && !name.ends_with(TEMPORARY),
            "{name:?} is not a plain file name"
        );
        self.path.join(name)
    }

    fn open_checked(&self, name: &str, flags: i32) -> Result<File, DiskError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(self.at(name));
        let file = opened.map_err(|e| open_error(name, flags, e))?;
        let metadata = file
            .metadata()
            .map_err(|e| DiskError::from_io(name, "open", None, e))?;
        check_mode(name, &metadata)?;
        Ok(file)
    }

    /// A temporary file of its own for `name`; what an earlier attempt left is emptied.
    fn create_temporary(&self, name: &str, flags: i32) -> Result<(File, PathBuf), DiskError> {
        let mut path = self.at(name).into_os_string();
        path.push(TEMPORARY);
        let path = PathBuf::from(path);
        let created = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(&path);
        match created {
            Ok(file) => Ok((file, path)),
            Err(e) => Err(open_error(name, flags, e)),
        }
    }

    /// Gives a complete, synced temporary file its name.
    fn publish(&self, temporary: &Path, name: &str) -> Result<(), DiskError> {
        fs::rename(temporary, self.at(name))
            .map_err(|e| DiskError::from_io(name, "rename", None, e))?;
        self.sync_dir()
    }

    fn log_file(&self, name: &str, file: File) -> RealLog {
        RealLog {
            name: name.to_owned(),
            file,
            ring: Arc::clone(&self.log_ring),
            latched: false,
        }
    }
}

impl Disk for RealDisk {
    fn create_log(&self, name: &str, len: u64) -> Result<Box<dyn LogFile>, DiskError> {
        assert_blocks(0, len);
        let (file, temporary) = self.create_temporary(name, libc::O_DIRECT)?;
        let mut log = self.log_file(name, file);
        // In a ring of its own: the log is being written meanwhile, and must not wait.
        log.ring = Arc::new(Mutex::new(new_ring(name)?));
        let filled = log.fill_with_zeros(len).and_then(|()| log.sync());
        log.ring = Arc::clone(&self.log_ring);
        if let Err(e) = filled {
            // Gives the blocks back; a leftover would be emptied by the next attempt anyway.
            drop(fs::remove_file(&temporary));
            return Err(e);
        }
        self.publish(&temporary, name)?;
        Ok(Box::new(log))
    }

    fn open_log(&self, name: &str) -> Result<Box<dyn LogFile>, DiskError> {
        let file = self.open_checked(name, libc::O_DIRECT)?;
        Ok(Box::new(self.log_file(name, file)))
    }

    fn open_pages(&self, name: &str, reserve: u64) -> Result<Arc<dyn PageFile>, DiskError> {
        let error = |call, e| DiskError::from_io(name, call, None, e);
        let created = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.at(name));
        let file = match created {
            Ok(file) => {
                self.sync_dir()?;
                file
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.open_checked(name, 0)?,
            Err(e) => return Err(error("create", e)),
        };
        let direct = self.open_checked(name, libc::O_DIRECT)?;
        let len = file.metadata().map_err(|e| error("open", e))?.len();
        let addresses = usize::try_from(reserve)
            .ok()
            .filter(|_| len <= reserve)
            .ok_or_else(|| DiskError {
                file: name.to_owned(),
                call: "map",
                offset: None,
                kind: DiskErrorKind::BadSize(len),
            })?;
        let mapping = Mapping::of_file(&file, addresses).map_err(|e| error("map", e))?;
        Ok(Arc::new(RealPages {
            name: name.to_owned(),
            file,
            direct,
            mapping,
            writer: Mutex::new(PageWriter {
                ring: new_ring(name)?,
                latched: false,
            }),
        }))
    }

    fn read_small(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, DiskError> {
        let error = |e| DiskError::from_io(name, "read", None, e);
        let file = match File::open(self.at(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(e)),
        };
        check_mode(name, &file.metadata().map_err(error)?)?;
        let mut bytes = Vec::new();
        let limit = (max as u64).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() > max {
            return Err(DiskError {
                file: name.to_owned(),
                call: "read",
                offset: None,
                kind: DiskErrorKind::BadSize(bytes.len() as u64),
            });
        }
        Ok(Some(bytes))
    }

    fn write_small(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let (mut file, temporary) = self.create_temporary(name, 0)?;
        file.write_all(bytes)
            .map_err(|e| DiskError::from_io(name, "write", None, e))?;
        file.sync_all()
            .map_err(|e| DiskError::from_io(name, "sync", None, e))?;
        self.publish(&temporary, name)
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let error = |e| directory_error(&self.path, "list", e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(error)? {
            let entry = entry.map_err(error)?;
            if !entry.file_type().map_err(error)?.is_file() {
                continue;
            }
            // Names that are no text, and unfinished files, are none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && !name.ends_with(TEMPORARY)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.at(from), self.at(to))
            .map_err(|e| DiskError::from_io(from, "rename", None, e))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        fs::remove_file(self.at(name)).map_err(|e| DiskError::from_io(name, "remove", None, e))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.directory
            .sync_all()
            .map_err(|e| directory_error(&self.path, "sync", e))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        mmap::free_bytes(&self.path).map_err(|e| directory_error(&self.path, "statvfs", e))
    }
}

/// A log segment, open for direct I/O.
struct RealLog {
    name: String,
    file: File,
    ring: Arc<Mutex<Ring>>,
    latched: bool,
}

impl RealLog {
    fn error(&self, call: &'static str, offset: Option<u64>, error: io::Error) -> DiskError {
        let mut error = DiskError::from_io(&self.name, call, offset, error);
        if let DiskErrorKind::Io(e) = &error.kind
            && e.raw_os_error() == Some(libc::EINVAL)
        {
            error.kind = DiskErrorKind::NoDirectIo;
        }
        error
    }

    fn latch_check(&self, call: &'static str) -> Result<(), DiskError> {
        latch_check(&self.name, call, self.latched)
    }

    fn write(&mut self, offset: u64, bytes: &[u8], durable: bool) -> Result<(), DiskError> {
        self.latch_check("write")?;
        let mut ring = lock(&self.ring);
        let result = write_fully(bytes.len(), |from| {
            let write = Write {
                offset: offset + from as u64,
                bytes: &bytes[from..],
            };
            Ok(ring.write(&self.file, &[write], durable)?[0])
        });
        let result = match result {
            // A write in pieces is made durable as a whole.
            Ok(pieces) if durable && pieces > 1 => ring.sync(&self.file),
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        drop(ring);
        result.map_err(|e| {
            self.latched = true;
            self.error("write", Some(offset), e)
        })
    }

    fn fill_with_zeros(&mut self, len: u64) -> Result<(), DiskError> {
        let zeros = AlignedBuf::new(ZERO_BLOCKS);
        let mut offset = 0;
        while offset < len {
            let count = (zeros.len() as u64).min(len - offset) as usize;
            self.write(offset, &zeros[..count], false)?;
            offset += count as u64;
        }
        Ok(())
    }
}

impl LogFile for RealLog {
    fn write_durable(&mut self, offset: u64, blocks: &AlignedBuf) -> Result<(), DiskError> {
        assert_blocks(offset, blocks.len() as u64);
        self.write(offset, blocks, true)
    }

    fn read(&self, offset: u64, into: &mut AlignedBuf) -> Result<(), DiskError> {
        assert_blocks(offset, into.len() as u64);
        self.file
            .read_exact_at(into, offset)
            .map_err(|e| self.error("read", Some(offset), e))
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.latch_check("sync")?;
        let result = lock(&self.ring).sync(&self.file);
        result.map_err(|e| {
            self.latched = true;
            self.error("sync", None, e)
        })
    }

    fn len(&self) -> Result<u64, DiskError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|e| self.error("stat", None, e))?.len())
    }
}

/// The page file.
struct RealPages {
    name: String,
    file: File,
    /// The same file, open for direct reads.
    direct: File,
    mapping: Mapping,
    writer: Mutex<PageWriter>,
}

struct PageWriter {
    ring: Ring,
    latched: bool,
}

impl RealPages {
    fn error(&self, call: &'static str, offset: Option<u64>, error: io::Error) -> DiskError {
        DiskError::from_io(&self.name, call, offset, error)
    }

    fn writer(&self, call: &'static str) -> Result<MutexGuard<'_, PageWriter>, DiskError> {
        let writer = lock(&self.writer);
        latch_check(&self.name, call, writer.latched)?;
        Ok(writer)
    }

    fn write_pieces(&self, writes: &[Write<'_>]) -> Result<(), DiskError> {
        let mut writer = self.writer("write")?;
        let written = writer.ring.write(&self.file, writes, false);
        let result = written.and_then(|written| {
            // What was cut short goes on where it broke off.
            for (Write { offset, bytes }, written) in writes.iter().zip(written) {
                write_fully(bytes.len(), |from| match from {
                    0 => Ok(written),
                    _ => {
                        let rest = Write {
                            offset: offset + from as u64,
                            bytes: &bytes[from..],
                        };
                        Ok(writer.ring.write(&self.file, &[rest], false)?[0])
                    }
                })?;
            }
            Ok(())
        });
        result.map_err(|e| {
            let error = self.error("write", Some(writes[0].offset), e);
            // A full file system changed nothing that counts; anything else is final.
            writer.latched = !matches!(error.kind, DiskErrorKind::NoSpace);
            error
        })
    }

    fn inside(&self, offset: u64, len: u64) {
        let end = offset.checked_add(len).expect("a range of a file");
        let reserve = self.mapping.map().reserve() as u64;
        assert!(
            end <= reserve,
            "{end} lies outside the {reserve} bytes of addresses"
        );
    }
}

impl PageFile for RealPages {
    fn map(&self) -> &Map {
        self.mapping.map()
    }

    fn len(&self) -> Result<u64, DiskError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|e| self.error("stat", None, e))?.len())
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        assert_blocks(offset, len);
        self.inside(offset, len);
        let result = self
            .writer("allocate")?
            .ring
            .allocate(&self.file, offset, len, false);
        result.map_err(|e| self.error("allocate", Some(offset), e))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write_runs(&[(offset, bytes)])
    }

    /// Many at a time: each write goes through a thread of the kernel's, which takes longer to wake
    /// than to write a page.
    fn write_runs(&self, runs: &[(u64, &[u8])]) -> Result<(), DiskError> {
        let mut pieces = runs.iter().flat_map(|&(offset, bytes)| {
            assert_blocks(offset, bytes.len() as u64);
            self.inside(offset, bytes.len() as u64);
            let offsets = (offset..).step_by(PIECE_BYTES);
            let pieces = offsets.zip(bytes.chunks(PIECE_BYTES));
            pieces.map(|(offset, bytes)| Write { offset, bytes })
        });
        loop {
            let writes: Vec<Write<'_>> = pieces.by_ref().take(IN_FLIGHT_MAX).collect();
            if writes.is_empty() {
                return Ok(());
            }
            self.write_pieces(&writes)?;
        }
    }

    fn begin_sync(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        assert_blocks(offset, len);
        let mut writer = self.writer("begin sync")?;
        let result = writer.ring.begin_sync(&self.file, offset, len);
        result.map_err(|e| {
            writer.latched = true;
            self.error("begin sync", Some(offset), e)
        })
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.mapping.will_need(offset, len);
    }

    fn read_device(&self, offset: u64, into: &mut AlignedBuf) -> Result<(), DiskError> {
        assert_blocks(offset, into.len() as u64);
        self.direct
            .read_exact_at(into, offset)
            .map_err(|e| self.error("read", Some(offset), e))
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut writer = self.writer("sync")?;
        let result = writer.ring.sync(&self.file);
        result.map_err(|e| {
            writer.latched = true;
            self.error("sync", None, e)
        })
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        assert_blocks(offset, len);
        self.inside(offset, len);
        let result = self
            .writer("punch")?
            .ring
            .allocate(&self.file, offset, len, true);
        result.map_err(|e| self.error("punch", Some(offset), e))
    }

    fn truncate(&self, len: u64) -> Result<(), DiskError> {
        self.inside(0, len);
        let _writer = self.writer("truncate")?;
        self.file
            .set_len(len)
            .map_err(|e| self.error("truncate", Some(len), e))
    }

    fn allocated_bytes(&self) -> Result<u64, DiskError> {
        let metadata = self.file.metadata();
        // The unit of `blocks` is 512 bytes whatever the file system.
        Ok(metadata.map_err(|e| self.error("stat", None, e))?.blocks() * 512)
    }
}

/// Repeats `issue(from) -> written` until `len` bytes are written; returns how often it took.
/// What follows a short write starts on the block where it broke off.
fn write_fully(len: usize, mut issue: impl FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut from = 0;
    let mut pieces = 0;
    while from < len {
        let written = issue(from)?;
        assert!(written <= len - from, "more was written than was asked for");
        pieces += 1;
        let end = from + written;
        let next = if end == len { end } else { end - end % BLOCK };
        if next <= from {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        from = next;
    }
    Ok(pieces)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done between two calls, so a panic elsewhere is no reason to stop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_ring(name: &str) -> Result<Ring, DiskError> {
    Ring::new().map_err(|e| DiskError {
        file: name.to_owned(),
        call: "set-up of io_uring for the files",
        offset: None,
        kind: match e.error.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => DiskErrorKind::NoIoUring(e),
            _ => DiskErrorKind::Io(e.error),
        },
    })
}

fn open_error(name: &str, flags: i32, error: io::Error) -> DiskError {
    // File systems have two ways to say so.
    let direct = flags & libc::O_DIRECT != 0
        && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP));
    let mut error = DiskError::from_io(name, "open", None, error);
    if direct {
        error.kind = DiskErrorKind::NoDirectIo;
    }
    error
}

fn directory_error(path: &Path, call: &'static str, error: io::Error) -> DiskError {
    DiskError::from_io(&path.display().to_string(), call, None, error)
}

/// Refuses files and directories that other users have access to.
fn check_mode(name: &str, metadata: &fs::Metadata) -> Result<(), DiskError> {
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(DiskError {
        file: name.to_owned(),
        call: "open",
        offset: None,
        kind: DiskErrorKind::TooOpen(mode),
    })
}

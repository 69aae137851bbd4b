//! Mapped addresses, and the one call about a file system that the standard library lacks.

use super::Map;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A range of addresses that is given back when this is dropped.
pub(super) struct Mapping {
    map: Map,
    start: *mut libc::c_void,
    #[cfg(any(test, feature = "sim"))]
    writable: bool,
}

// SAFETY: the range belongs to this value until it is dropped; what may be read when is the
// contract of `Map`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A shared, read-only view of a file; addresses beyond the end of the file fault.
    pub(super) fn of_file(file: &File, len: usize) -> io::Result<Mapping> {
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        Self::new(len, libc::PROT_READ, flags, file.as_raw_fd())
    }

    /// Zeroed memory that costs nothing until it is touched.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn anonymous(len: usize) -> io::Result<Mapping> {
        let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if !cfg!(miri) {
            flags |= libc::MAP_NORESERVE;
        }
        Self::new(len, libc::PROT_READ | libc::PROT_WRITE, flags, -1)
    }

    fn new(len: usize, protection: i32, flags: i32, fd: i32) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range stays mapped until `drop`, and the `Map` goes with it.
        let map = unsafe { Map::new(start.cast_const().cast(), len) };
        Ok(Mapping {
            map,
            start,
            #[cfg(any(test, feature = "sim"))]
            writable: protection & libc::PROT_WRITE != 0,
        })
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Has the kernel begin to read what of the range is not in memory. Ranges outside the mapping
    /// are left alone.
    pub(super) fn will_need(&self, offset: u64, len: u64) {
        let reserve = self.map.reserve() as u64;
        if offset.checked_add(len).is_some_and(|end| end <= reserve) {
            // SAFETY: inside the mapping; the advice changes nothing that can be seen.
            unsafe {
                let start = self.start.cast::<u8>().add(offset as usize);
                libc::madvise(start.cast(), len as usize, libc::MADV_WILLNEED);
            }
        }
    }

    /// Copies bytes into writable memory. Two writers are kept apart by the caller's lock, and
    /// readers by the contract of [`Map::bytes`].
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(self.writable, "this mapping shows a file and is read-only");
        assert!(
            offset
                .checked_add(bytes.len())
                .is_some_and(|end| end <= self.map.reserve()),
            "{offset} + {} lies outside the mapping",
            bytes.len()
        );
        // SAFETY: inside the mapping by the check above; whoever reads through `Map::bytes`
        // promised that no write to those bytes is under way.
        unsafe {
            let to = self.start.cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Copies bytes out; the caller's lock keeps writers away.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: writable mappings are memory to their end, and writers hold the same lock.
        into.copy_from_slice(unsafe { self.map.bytes(offset as u64, into.len()) });
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nothing borrows it any more.
        let result = unsafe { libc::munmap(self.start, self.map.reserve()) };
        debug_assert_eq!(result, 0, "a mapping could not be given back");
    }
}

/// Bytes that the file system of `path` still gives to ordinary users.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a NUL-terminated path, and room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled in by the successful call.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

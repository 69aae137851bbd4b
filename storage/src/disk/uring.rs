//! One ring of io_uring, used by one thread at a time: submit, wait for every completion, report
//! each result exactly as the kernel gave it.

use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The most operations that one call puts in flight.
pub(super) const IN_FLIGHT_MAX: usize = 32;

/// Which call of io_uring this process may not make, and what the kernel, or a filter in its name,
/// answered.
#[derive(Debug)]
pub struct UringRefused {
    /// The system call.
    pub call: &'static str,
    /// The answer.
    pub error: io::Error,
}

impl fmt::Display for UringRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.error)
    }
}

impl std::error::Error for UringRefused {}

/// Makes each of the three calls of io_uring once, as the server will: a filter may let some of
/// them pass and forbid others.
pub fn probe_io_uring() -> Result<(), UringRefused> {
    let ring = Ring::new()?;
    // What an executor registers first of all.
    let registered = ring.ring.submitter().register_probe(&mut Probe::new());
    registered.map_err(|error| UringRefused {
        call: "io_uring_register",
        error,
    })
}

/// A submission and completion queue.
pub(super) struct Ring {
    ring: IoUring,
}

/// One write: where, and what.
pub(super) struct Write<'a> {
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
}

impl Ring {
    /// A ring that has carried an operation: one that cannot be entered is refused here, while
    /// the kernel holds no memory of a caller's.
    pub(super) fn new() -> Result<Ring, UringRefused> {
        let refused = |call, error| UringRefused { call, error };
        let mut ring =
            IoUring::new(IN_FLIGHT_MAX as u32).map_err(|e| refused("io_uring_setup", e))?;
        // SAFETY: the operation does nothing, and names neither memory nor a file.
        let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
        assert!(pushed.is_ok(), "a new queue is empty");
        while ring.completion().next().is_none() {
            match ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(refused("io_uring_enter", e)),
            }
        }
        Ok(Ring { ring })
    }

    /// Issues up to [`IN_FLIGHT_MAX`] writes together and returns how many bytes each wrote.
    /// With `durable`, each is on stable storage when its result says so.
    pub(super) fn write(
        &mut self,
        file: &File,
        writes: &[Write<'_>],
        durable: bool,
    ) -> io::Result<[usize; IN_FLIGHT_MAX]> {
        assert!(
            writes.len() <= IN_FLIGHT_MAX,
            "the ring is sized for its caller"
        );
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let mut entries: [Option<squeue::Entry>; IN_FLIGHT_MAX] = Default::default();
        for (entry, write) in entries.iter_mut().zip(writes) {
            let len = u32::try_from(write.bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            let write = opcode::Write::new(types::Fd(file.as_raw_fd()), write.bytes.as_ptr(), len)
                .offset(write.offset)
                .rw_flags(flags);
            *entry = Some(write.build());
        }
        // SAFETY: file and bytes are borrowed for this call, and `run` returns only after the
        // kernel has completed every operation.
        let results = unsafe { self.run(&entries[..writes.len()]) }?;
        let mut written = [0; IN_FLIGHT_MAX];
        for (written, result) in written.iter_mut().zip(&results[..writes.len()]) {
            *written = done(*result)?;
        }
        Ok(written)
    }

    /// Makes what was written to the file durable, and the metadata needed to read it.
    pub(super) fn sync(&mut self, file: &File) -> io::Result<()> {
        let sync = opcode::Fsync::new(types::Fd(file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.one(sync)
    }

    /// Has the kernel start writing the dirty pages of a range to the device, without waiting for
    /// them. Their errors, if any, are `sync`'s to report.
    pub(super) fn begin_sync(&mut self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        let len = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let begin = opcode::SyncFileRange::new(types::Fd(file.as_raw_fd()), len)
            .offset(offset)
            .flags(libc::SYNC_FILE_RANGE_WRITE)
            .build();
        self.one(begin)
    }

    /// Allocates blocks (`punch` false), growing the file, or gives them back (`punch` true).
    pub(super) fn allocate(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        punch: bool,
    ) -> io::Result<()> {
        let mode = if punch {
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE
        } else {
            0
        };
        let allocate = opcode::Fallocate::new(types::Fd(file.as_raw_fd()), len)
            .offset(offset)
            .mode(mode)
            .build();
        self.one(allocate)
    }

    fn one(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: the operation names no memory, and the file outlives this call.
        let results = unsafe { self.run(&[Some(entry)]) }?;
        match done(results[0])? {
            0 => Ok(()),
            other => Err(io::Error::other(format!(
                "io_uring answered {other}, not 0"
            ))),
        }
    }

    /// Submits the entries and waits until all of them are complete.
    ///
    /// # Safety
    /// Descriptors and memory that the entries name stay valid during the call.
    unsafe fn run(
        &mut self,
        entries: &[Option<squeue::Entry>],
    ) -> io::Result<[i32; IN_FLIGHT_MAX]> {
        for (number, entry) in entries.iter().enumerate() {
            let entry = entry.clone().expect("the caller filled in every entry");
            // SAFETY: handed on to this function's caller.
            let pushed = unsafe { self.ring.submission().push(&entry.user_data(number as u64)) };
            assert!(pushed.is_ok(), "the queue is empty between calls");
        }
        let mut results = [0; IN_FLIGHT_MAX];
        let mut complete = 0;
        while complete < entries.len() {
            match self.ring.submit_and_wait(entries.len() - complete) {
                Ok(_) => {}
                Err(e) if is_passing(&e) => {}
                Err(e) => {
                    // The kernel may still own the caller's buffers: returning would let them
                    // be freed or changed under its hands.
                    eprintln!("io_uring failed with operations in flight: {e}");
                    std::process::abort();
                }
            }
            for completion in self.ring.completion() {
                results[completion.user_data() as usize] = completion.result();
                complete += 1;
            }
        }
        Ok(results)
    }
}

/// Whether the same call may succeed at once: a signal came, or the kernel was short of memory.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

/// A completion's count, or its error.
fn done(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

#[cfg(test)]
mod speed {
    //! What registered buffers would be worth to the log's writes. Run it alone, on a real disk:
    //! `cargo test --release -p quoin-storage registered_over_plain -- --ignored --nocapture`.
    //! `QUOIN_SPEED_DIR` names the directory to use.

    use super::Ring;
    use crate::disk::AlignedBuf;
    use io_uring::{opcode, squeue, types};
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    use std::time::{Duration, Instant};

    const WRITES: u64 = 300;

    fn timed(ring: &mut Ring, write: squeue::Entry, len: usize) -> Duration {
        let start = Instant::now();
        // SAFETY: file and buffer outlive the ring in the only caller.
        let results = unsafe { ring.run(&[Some(write)]) }.expect("the ring works");
        assert_eq!(usize::try_from(results[0]).ok(), Some(len), "a short write");
        start.elapsed()
    }

    fn median(times: &mut [Duration]) -> f64 {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }

    fn compare(file: &File, blocks: usize) {
        let mut buffer = AlignedBuf::new(blocks);
        buffer.fill(0x5a);
        let mut ring = Ring::new().expect("io_uring is here");
        let memory = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: the ring is dropped before the buffer.
        unsafe { ring.ring.submitter().register_buffers(&[memory]) }.expect("registered");
        let (fd, len) = (types::Fd(file.as_raw_fd()), buffer.len());
        let (mut plain, mut registered) = (Vec::new(), Vec::new());
        for place in 0..2 * WRITES {
            let offset = place % 64 * len as u64;
            if place % 2 == 0 {
                let write = opcode::Write::new(fd, buffer.as_ptr(), len as u32).offset(offset);
                let write = write.rw_flags(libc::RWF_DSYNC).build();
                plain.push(timed(&mut ring, write, len));
            } else {
                let write = opcode::WriteFixed::new(fd, buffer.as_ptr(), len as u32, 0);
                let write = write.offset(offset).rw_flags(libc::RWF_DSYNC).build();
                registered.push(timed(&mut ring, write, len));
            }
        }
        let ratio = median(&mut registered) / median(&mut plain);
        println!("{blocks:>4} blocks: registered/plain {ratio:.3}");
    }

    #[test]
    #[ignore = "a measurement"]
    fn registered_over_plain() {
        let dir = match std::env::var_os("QUOIN_SPEED_DIR") {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        };
        let dir = dir.expect("a temporary directory");
        let file = File::options()
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT)
            .open(dir.path().join("raw"))
            .expect("opened");
        // As the log's segments: written before, so that a write changes no metadata.
        let zeros = AlignedBuf::new(128);
        for place in 0..64 {
            file.write_all_at(&zeros, place * zeros.len() as u64)
                .expect("written");
        }
        file.sync_all().expect("synced");
        for round in 0..5 {
            println!("round {round}");
            for blocks in [1, 16, 128] {
                compare(&file, blocks);
            }
        }
    }
}

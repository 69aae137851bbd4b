//! The log: pre-zeroed, recycled segments of checksummed records, one durable write at a time.
//!
//! `docs/FORMAT.md` describes the bytes. The calling order of a [`LogWriter`]:
//!
//! 1. [`LogWriter::open`] recovers, and returns what the log held.
//! 2. [`LogWriter::stage`] any number of times, then [`LogWriter::flush`]: everything staged
//!    becomes durable in one write (group commit). [`LogWriter::append`] is both in one call.
//! 3. In a quiet moment [`LogWriter::idle`], which confirms the newest write on disk.
//! 4. When a checkpoint made entries unnecessary, [`LogWriter::cut`].
//! 5. When [`LogWriter::spare`] hands out a job, run it, best on another thread, and give its
//!    result to [`LogWriter::spare_made`]; without a spare the writer makes a segment itself in
//!    the middle of a `flush`.

#![forbid(unsafe_code)]

mod format;

mod batch;

mod scan;

mod decide;

mod replay;

mod recover;

mod segments;

mod writer;

mod inspect;

mod check;

mod fuzz;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use check::check;
pub use format::{BATCH_BYTES_MAX, ENTRY_BYTES_MAX, SEGMENT_BYTES_MAX, VERSION};
pub use fuzz::fuzz_record;
pub use inspect::{Inspected, inspect};
pub use recover::Report;
pub use segments::{Spare, SpareJob};
pub use writer::LogWriter;

use crate::disk::{BLOCK, DiskError, DiskErrorKind};
use std::fmt;

/// What Raft must never forget, besides its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term seen.
    pub term: u64,
    /// The member voted for in that term; 0 is none.
    pub vote: u64,
    /// The newest index known to be committed.
    pub commit: u64,
}

/// An entry to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Its place in the log, counted from 1.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// What Raft calls its type; the log only keeps it.
    pub kind: u8,
    /// Its payload.
    pub data: &'a [u8],
    /// What the proposer adds to the payload.
    pub context: &'a [u8],
}

/// An entry that was recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log, counted from 1.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// What Raft calls its type.
    pub kind: u8,
    /// Its payload.
    pub data: Vec<u8>,
    /// What the proposer added to the payload.
    pub context: Vec<u8>,
}

impl Entry {
    /// A view of the entry.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            index: self.index,
            term: self.term,
            kind: self.kind,
            data: &self.data,
            context: &self.context,
        }
    }
}

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Identifies the log; segments of another log are refused.
    pub log_id: u64,
    /// Chance from outside, other at each start: it seeds the checksums of new segments, so that
    /// nobody can prepare bytes that look like a record.
    pub seed: u64,
    /// The size of new segments.
    pub segment_bytes: u64,
    /// How many segments that are not in use are kept; more are removed.
    pub free_segments_max: usize,
    /// What file names of segments start with.
    pub prefix: &'static str,
}

impl LogOptions {
    /// The options of a server.
    pub fn new(log_id: u64, seed: u64) -> LogOptions {
        LogOptions {
            log_id,
            seed,
            segment_bytes: 32 << 20,
            free_segments_max: 4,
            prefix: "log-",
        }
    }
}

/// What a log held when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// The newest hard state.
    pub hard_state: HardState,
    /// The index before the first entry: everything up to it was cut.
    pub base_index: u64,
    /// The term of the entry at `base_index`; 0 if there was none.
    pub base_term: u64,
    /// The entries from `base_index + 1` on, without a gap.
    pub entries: Vec<Entry>,
    /// How it was found.
    pub report: Report,
}

/// Why a call of the log failed.
#[derive(Debug)]
pub enum LogError {
    /// No space for another segment. Nothing was written and nothing is lost: what was staged
    /// stays, and may be flushed once a cut has freed a segment.
    NoSpace,
    /// An acknowledged part of the log is not as it was written, or not there.
    Corrupt {
        /// The file.
        file: String,
        /// The byte in it.
        byte: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A live segment is not there.
    Missing {
        /// The number of the segment.
        sequence: u64,
        /// A file whose header cannot be read, which may have been the segment.
        damaged: Option<String>,
    },
    /// A segment belongs to another log.
    Foreign {
        /// The file.
        file: String,
        /// The id found in it.
        found: u64,
    },
    /// A segment was written by a version that is not known here.
    UnknownVersion {
        /// The file.
        file: String,
        /// The version found.
        version: u32,
    },
    /// An entry that does not fit a batch.
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most that fits.
        max: usize,
    },
    /// The disk failed: the process has to stop.
    Disk(DiskError),
    /// An earlier call failed; nothing is written any more.
    Latched,
}

impl From<DiskError> for LogError {
    fn from(error: DiskError) -> LogError {
        match error.kind {
            DiskErrorKind::NoSpace => LogError::NoSpace,
            _ => LogError::Disk(error),
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::NoSpace => f.write_str("no space for another log segment"),
            LogError::Corrupt { file, byte, what } => {
                write!(f, "the log is damaged: {file} at byte {byte}: {what}")
            }
            LogError::Missing { sequence, damaged } => {
                write!(
                    f,
                    "the log is damaged: segment number {sequence} is missing"
                )?;
                match damaged {
                    Some(file) => write!(f, "; {file} has an unreadable header"),
                    None => Ok(()),
                }
            }
            LogError::Foreign { file, found } => {
                write!(f, "{file} belongs to another log (id {found:016x})")
            }
            LogError::UnknownVersion { file, version } => write!(
                f,
                "{file} has log format {version}; this program reads format {VERSION}"
            ),
            LogError::TooLarge { bytes, max } => {
                write!(
                    f,
                    "an entry of {bytes} bytes does not fit the log ({max} at most)"
                )
            }
            LogError::Disk(error) => error.fmt(f),
            LogError::Latched => f.write_str("the log is closed, an earlier write failed"),
        }
    }
}

impl std::error::Error for LogError {}

/// `bytes` rounded up to whole blocks.
fn round_up(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK)
}

//! The files of a log: names, opening, making.

use super::format::{FIRST_BATCH, HEADER_COPIES, HeaderCopy, SegmentHeader, is_segment_size};
use super::{LogError, LogOptions};
use crate::disk::{AlignedBuf, BLOCK, Disk, DiskError, LogFile};
use std::sync::Arc;

const ENDING: &str = ".seg";

/// An open segment file.
pub(super) struct SegmentFile {
    pub(super) slot: u32,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) file: Box<dyn LogFile>,
}

pub(super) fn file_name(prefix: &str, slot: u32) -> String {
    format!("{prefix}{slot:06}{ENDING}")
}

/// The slot of a name, if it is the name of a segment of this log.
pub(super) fn slot_of(prefix: &str, name: &str) -> Option<u32> {
    let slot = name
        .strip_prefix(prefix)?
        .strip_suffix(ENDING)?
        .parse()
        .ok()?;
    (file_name(prefix, slot) == name).then_some(slot)
}

/// A segment file as found, before anything is decided.
pub(super) struct Candidate {
    pub(super) file: SegmentFile,
    pub(super) copies: [HeaderCopy; HEADER_COPIES],
    /// The bytes where the first batch starts.
    pub(super) first_batch: Vec<u8>,
}

impl Candidate {
    /// The header, if a copy of it can be read: the newer one if a crash left two.
    pub(super) fn header(&self) -> Option<&SegmentHeader> {
        let readable = self.copies.iter().filter_map(|copy| match copy {
            HeaderCopy::Valid(header) => Some(header),
            HeaderCopy::Zeros | HeaderCopy::Damaged | HeaderCopy::Version(_) => None,
        });
        readable.max_by_key(|header| header.sequence)
    }
}

/// Opens every segment file of the log, in the order of their slots, and reads their heads.
/// With `sync`, first makes durable what an earlier process wrote.
pub(super) fn candidates(
    disk: &dyn Disk,
    prefix: &str,
    sync: bool,
) -> Result<Vec<Candidate>, DiskError> {
    let mut candidates = Vec::new();
    for name in disk.list()? {
        let Some(slot) = slot_of(prefix, &name) else {
            continue;
        };
        let mut file = disk.open_log(&name)?;
        if sync {
            file.sync()?;
        }
        let bytes = file.len()?;
        let mut copies = [HeaderCopy::Damaged, HeaderCopy::Damaged];
        let mut first_batch = Vec::new();
        if is_segment_size(bytes) {
            let mut head = AlignedBuf::new(HEADER_COPIES + 1);
            file.read(0, &mut head)?;
            for (number, copy) in copies.iter_mut().enumerate() {
                *copy = SegmentHeader::decode(&head[number * BLOCK..]);
            }
            first_batch.extend_from_slice(&head[FIRST_BATCH as usize..]);
        }
        candidates.push(Candidate {
            file: SegmentFile {
                slot,
                name,
                bytes,
                file,
            },
            copies,
            first_batch,
        });
    }
    Ok(candidates)
}

/// Reads a whole segment.
pub(super) fn read_image(file: &SegmentFile) -> Result<AlignedBuf, DiskError> {
    // The size was checked against the format's limit before.
    let mut image = AlignedBuf::new(file.bytes as usize / BLOCK);
    file.file.read(0, &mut image)?;
    Ok(image)
}

/// A segment to be made: it may be run on any thread.
pub struct SpareJob {
    disk: Arc<dyn Disk>,
    slot: u32,
    name: String,
    bytes: u64,
}

/// A segment that was made, ready for use.
pub struct Spare {
    pub(super) file: SegmentFile,
}

impl SpareJob {
    pub(super) fn new(disk: &Arc<dyn Disk>, options: &LogOptions, slot: u32) -> SpareJob {
        SpareJob {
            disk: Arc::clone(disk),
            slot,
            name: file_name(options.prefix, slot),
            bytes: options.segment_bytes,
        }
    }

    /// Makes the file: writes its zeros, syncs it, names it durably.
    pub fn run(self) -> Result<Spare, LogError> {
        let file = self.disk.create_log(&self.name, self.bytes)?;
        Ok(Spare {
            file: SegmentFile {
                slot: self.slot,
                name: self.name,
                bytes: self.bytes,
                file,
            },
        })
    }
}

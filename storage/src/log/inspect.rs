//! Shows what is in the files of a log, sound or not, and changes nothing.

use super::format::{FIRST_BATCH, HeaderCopy, Position, is_segment_size};
use super::scan::{Record, scan};
use super::segments::{candidates, read_image};
use super::{EntryRef, HardState, LogError};
use crate::disk::Disk;

/// One thing found in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspected<'a> {
    /// A file with a readable header.
    Segment {
        /// The file.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// The log it belongs to.
        log_id: u64,
        /// The number of the segment.
        sequence: u64,
        /// The lowest number still needed when it was put to use.
        oldest: u64,
        /// The last entry before it.
        last_index: u64,
        /// Its hard state when it was put to use.
        hard_state: HardState,
        /// How many of the two header copies are not readable or not the same.
        damaged_copies: usize,
    },
    /// A file without a readable header: a spare one, if `zeros`.
    NoSegment {
        /// The file.
        file: &'a str,
        /// Its length.
        bytes: u64,
        /// The header was never written.
        zeros: bool,
    },
    /// A batch that is whole.
    Batch {
        /// The file.
        file: &'a str,
        /// Where it starts.
        byte: u64,
        /// Its length without padding.
        bytes: u32,
        /// How many records it has.
        records: u32,
    },
    /// A hard state.
    State {
        /// The file.
        file: &'a str,
        /// Where the record starts.
        byte: u64,
        /// The state.
        hard_state: HardState,
        /// Entries up to this index were cut.
        cut_index: u64,
    },
    /// An entry.
    Entry {
        /// The file.
        file: &'a str,
        /// Where the record starts.
        byte: u64,
        /// The entry.
        entry: EntryRef<'a>,
    },
    /// Where reading a segment stopped.
    End {
        /// The file.
        file: &'a str,
        /// Where the next batch would start.
        byte: u64,
        /// The exact place of what is no batch; `byte`, if it is its start.
        bad: u64,
        /// What lies there.
        found: &'static str,
        /// Everything before is durable, by what the segment itself says of its watermark.
        acknowledged: bool,
        /// Where more batches of the segment lie further behind.
        behind: &'a [u64],
    },
}

/// Calls `visit` with everything in the log files with this prefix, file by file.
pub fn inspect(
    disk: &dyn Disk,
    prefix: &str,
    visit: &mut dyn FnMut(Inspected<'_>),
) -> Result<(), LogError> {
    for candidate in candidates(disk, prefix, false)? {
        let file = &candidate.file.name;
        let bytes = candidate.file.bytes;
        let Some(header) = candidate.header() else {
            let zeros = candidate
                .copies
                .iter()
                .all(|copy| *copy == HeaderCopy::Zeros);
            visit(Inspected::NoSegment { file, bytes, zeros });
            continue;
        };
        let same = |copy: &&HeaderCopy| matches!(copy, HeaderCopy::Valid(other) if other == header);
        visit(Inspected::Segment {
            file,
            bytes,
            log_id: header.log_id,
            sequence: header.sequence,
            oldest: header.oldest,
            last_index: header.last_index,
            hard_state: header.hard_state,
            damaged_copies: candidate.copies.len() - candidate.copies.iter().filter(same).count(),
        });
        if !is_segment_size(bytes) || bytes < FIRST_BATCH {
            continue;
        }
        let image = read_image(&candidate.file)?;
        let scan = scan(header, &image, bytes);
        for batch in &scan.batches {
            visit(Inspected::Batch {
                file,
                byte: batch.header.offset.into(),
                bytes: batch.header.bytes,
                records: batch.header.records,
            });
            for (byte, record) in batch.records() {
                visit(match record {
                    Record::Entry(entry) => Inspected::Entry { file, byte, entry },
                    Record::State(state) => Inspected::State {
                        file,
                        byte,
                        hard_state: state.hard_state,
                        cut_index: state.cut.index,
                    },
                });
            }
        }
        visit(Inspected::End {
            file,
            byte: scan.end,
            bad: scan.bad,
            found: scan.found.describe(),
            acknowledged: Position::new(header.sequence, scan.end) < scan.watermark,
            behind: &scan.behind,
        });
    }
    Ok(())
}

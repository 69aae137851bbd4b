//! The bytes of the log. `docs/FORMAT.md` says the same in prose; a test compares golden bytes.
//!
//! All numbers are little-endian.
//!
//! ```text
//! segment   block 0        block 1             block 2 ...
//!           header copy A  header copy B       batch | batch | ... | (free)      last block: reserve
//! batch     batch header 40 | record | record | ... | padding to a whole block
//! record    record header 40 | data | context | padding to 8 bytes
//! ```

use super::HardState;
use crate::disk::BLOCK;

/// The version of the format that is written here.
pub const VERSION: u32 = 1;
/// A batch is never longer, padding included; one write carries one batch.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// The largest payload (data and context together) of an entry in a segment that is large enough.
pub const ENTRY_BYTES_MAX: usize =
    BATCH_BYTES_MAX - BATCH_HEADER - 2 * (RECORD_HEADER + STATE_BODY) - RECORD_HEADER - 8;
/// A segment is never longer. Offsets in it fit 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Header copies, one batch and the reserve.
pub(super) const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK as u64;

const _: () = assert!(SEGMENT_BYTES_MAX < u32::MAX as u64);
const _: () = assert!(BATCH_BYTES_MAX.is_multiple_of(BLOCK));

/// The two copies of the segment header, a block each.
pub(super) const HEADER_COPIES: usize = 2;
/// Where the first batch of a segment lies.
pub(super) const FIRST_BATCH: u64 = (HEADER_COPIES * BLOCK) as u64;
/// The used part of a segment header.
pub(super) const SEGMENT_HEADER: usize = 128;
pub(super) const BATCH_HEADER: usize = 40;
pub(super) const RECORD_HEADER: usize = 40;
pub(super) const STATE_BODY: usize = 56;

const SEGMENT_MAGIC: [u8; 8] = *b"QUOINLOG";
const BATCH_MAGIC: [u8; 4] = *b"QBAT";

/// Record kinds.
pub(super) const KIND_STATE: u8 = 1;
pub(super) const KIND_ENTRY: u8 = 2;

// Offsets in the segment header: each follows from the field before it.
const H_MAGIC: usize = 0;
const H_VERSION: usize = H_MAGIC + 8;
const H_CRC: usize = H_VERSION + 4;
const H_LOG_ID: usize = H_CRC + 4;
const H_BYTES: usize = H_LOG_ID + 8;
const H_SEQUENCE: usize = H_BYTES + 8;
const H_OLDEST: usize = H_SEQUENCE + 8;
const H_SALT: usize = H_OLDEST + 8;
const H_SLOT: usize = H_SALT + 8;
const H_PREVIOUS_END: usize = H_SLOT + 4;
const H_LAST_INDEX: usize = H_PREVIOUS_END + 4;
const H_LAST_TERM: usize = H_LAST_INDEX + 8;
const H_TERM: usize = H_LAST_TERM + 8;
const H_VOTE: usize = H_TERM + 8;
const H_COMMIT: usize = H_VOTE + 8;
const H_CUT_INDEX: usize = H_COMMIT + 8;
const H_CUT_TERM: usize = H_CUT_INDEX + 8;
const H_RESERVED: usize = H_CUT_TERM + 8;
const _: () = assert!(H_RESERVED + 8 == SEGMENT_HEADER);

// Offsets in the batch header.
const B_MAGIC: usize = 0;
const B_CRC: usize = B_MAGIC + 4;
const B_EPOCH: usize = B_CRC + 4;
const B_OFFSET: usize = B_EPOCH + 8;
const B_BYTES: usize = B_OFFSET + 4;
const B_WATERMARK: usize = B_BYTES + 4;
const B_RECORDS: usize = B_WATERMARK + 8;
const B_RESERVED: usize = B_RECORDS + 4;
const _: () = assert!(B_RESERVED + 4 == BATCH_HEADER);

// Offsets in the record header.
const R_CRC: usize = 0;
const R_BODY_CRC: usize = R_CRC + 4;
const R_EPOCH: usize = R_BODY_CRC + 4;
const R_BYTES: usize = R_EPOCH + 4;
const R_INDEX: usize = R_BYTES + 4;
const R_TERM: usize = R_INDEX + 8;
const R_KIND: usize = R_TERM + 8;
const R_ENTRY_KIND: usize = R_KIND + 1;
const R_RESERVED: usize = R_ENTRY_KIND + 1;
const R_CONTEXT: usize = R_RESERVED + 2;
const _: () = assert!(R_CONTEXT + 4 == RECORD_HEADER);

/// A place in the life of a log: the number of a segment and an offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64);

impl Position {
    pub(super) fn new(sequence: u64, offset: u64) -> Position {
        assert!(
            sequence <= u32::MAX.into() && offset <= SEGMENT_BYTES_MAX,
            "segment {sequence}, offset {offset} is no position"
        );
        Position(sequence << 32 | offset)
    }
}

/// What was cut off the front of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cut {
    /// Entries up to this index are not needed any more.
    pub(super) index: u64,
    /// The term of the entry there.
    pub(super) term: u64,
}

/// The head of a segment: written once, when the segment is put to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) log_id: u64,
    /// The length of the file.
    pub(super) bytes: u64,
    /// The number of this use of the file, ever growing; the epoch of its batches and records.
    pub(super) sequence: u64,
    /// The lowest number of a segment that the log still needed then.
    pub(super) oldest: u64,
    /// Seeds the checksums of batches and records.
    pub(super) salt: u64,
    /// The number in the name of the file.
    pub(super) slot: u32,
    /// Where the batches of the segment before this one end, all of them durable; 0 if none.
    pub(super) previous_end: u32,
    /// The last entry before this segment.
    pub(super) last_index: u64,
    pub(super) last_term: u64,
    pub(super) hard_state: HardState,
    pub(super) cut: Cut,
}

/// What a header copy turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderCopy {
    /// Never written.
    Zeros,
    /// Not readable.
    Damaged,
    /// Complete, and of a version that is not known here.
    Version(u32),
    /// Complete.
    Valid(SegmentHeader),
}

impl SegmentHeader {
    /// Writes the header to the front of a block.
    pub(super) fn encode(&self, block: &mut [u8]) {
        let to = &mut block[..SEGMENT_HEADER];
        to.fill(0);
        to[H_MAGIC..][..8].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(to, H_VERSION, VERSION);
        put_u64(to, H_LOG_ID, self.log_id);
        put_u64(to, H_BYTES, self.bytes);
        put_u64(to, H_SEQUENCE, self.sequence);
        put_u64(to, H_OLDEST, self.oldest);
        put_u64(to, H_SALT, self.salt);
        put_u32(to, H_SLOT, self.slot);
        put_u32(to, H_PREVIOUS_END, self.previous_end);
        put_u64(to, H_LAST_INDEX, self.last_index);
        put_u64(to, H_LAST_TERM, self.last_term);
        put_u64(to, H_TERM, self.hard_state.term);
        put_u64(to, H_VOTE, self.hard_state.vote);
        put_u64(to, H_COMMIT, self.hard_state.commit);
        put_u64(to, H_CUT_INDEX, self.cut.index);
        put_u64(to, H_CUT_TERM, self.cut.term);
        let crc = header_crc(to);
        put_u32(to, H_CRC, crc);
    }

    /// Reads a block that should hold a header.
    pub(super) fn decode(block: &[u8]) -> HeaderCopy {
        let Some(from) = block.get(..SEGMENT_HEADER) else {
            return HeaderCopy::Damaged;
        };
        if from.iter().all(|byte| *byte == 0) {
            return HeaderCopy::Zeros;
        }
        if from[H_MAGIC..][..8] != SEGMENT_MAGIC || u32_at(from, H_CRC) != header_crc(from) {
            return HeaderCopy::Damaged;
        }
        let version = u32_at(from, H_VERSION);
        if version != VERSION {
            return HeaderCopy::Version(version);
        }
        let header = SegmentHeader {
            log_id: u64_at(from, H_LOG_ID),
            bytes: u64_at(from, H_BYTES),
            sequence: u64_at(from, H_SEQUENCE),
            oldest: u64_at(from, H_OLDEST),
            salt: u64_at(from, H_SALT),
            slot: u32_at(from, H_SLOT),
            previous_end: u32_at(from, H_PREVIOUS_END),
            last_index: u64_at(from, H_LAST_INDEX),
            last_term: u64_at(from, H_LAST_TERM),
            hard_state: HardState {
                term: u64_at(from, H_TERM),
                vote: u64_at(from, H_VOTE),
                commit: u64_at(from, H_COMMIT),
            },
            cut: Cut {
                index: u64_at(from, H_CUT_INDEX),
                term: u64_at(from, H_CUT_TERM),
            },
        };
        if header.is_sane() {
            HeaderCopy::Valid(header)
        } else {
            HeaderCopy::Damaged
        }
    }

    fn is_sane(&self) -> bool {
        (1..=u32::MAX.into()).contains(&self.sequence)
            && (1..=self.sequence).contains(&self.oldest)
            && is_segment_size(self.bytes)
            && u64::from(self.previous_end).is_multiple_of(BLOCK as u64)
            && u64::from(self.previous_end) <= SEGMENT_BYTES_MAX
            && self.last_index < u64::MAX
            && self.cut.index < u64::MAX
    }

    /// What the checksums of this segment's batches and records start from.
    pub(super) fn checks(&self) -> Checks {
        Checks::new(self.salt, self.sequence)
    }
}

/// Whether a segment file may have this length.
pub(super) fn is_segment_size(bytes: u64) -> bool {
    bytes.is_multiple_of(BLOCK as u64) && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes)
}

/// The CRC of a segment header, its own field taken as zeros.
fn header_crc(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..H_CRC]);
    crc.update(&[0; 4]);
    crc.update(&header[H_LOG_ID..]);
    crc.finalize()
}

/// Makes the checksums of one segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checks {
    initial: u32,
    epoch: u64,
}

impl Checks {
    pub(super) fn new(salt: u64, epoch: u64) -> Checks {
        Checks {
            initial: crc32fast::hash(&salt.to_le_bytes()),
            epoch,
        }
    }

    /// CRC32 of the salt followed by the bytes.
    fn crc(&self, bytes: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new_with_initial(self.initial);
        crc.update(bytes);
        crc.finalize()
    }
}

/// The head of a batch: of everything that one write made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Where the batch lies in its segment.
    pub(super) offset: u32,
    /// Its length without padding, this header included.
    pub(super) bytes: u32,
    /// How many records follow.
    pub(super) records: u32,
    /// Everything before this was durable when the batch was issued.
    pub(super) watermark: Position,
}

/// What a block turned out to be that should start a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BatchStart {
    Zeros,
    /// Of an earlier use of the file.
    Stale,
    /// Not readable.
    Damaged,
    Valid(BatchHeader),
}

impl BatchHeader {
    pub(super) fn encode(&self, checks: Checks, to: &mut [u8]) {
        let to = &mut to[..BATCH_HEADER];
        to.fill(0);
        to[B_MAGIC..][..4].copy_from_slice(&BATCH_MAGIC);
        put_u64(to, B_EPOCH, checks.epoch);
        put_u32(to, B_OFFSET, self.offset);
        put_u32(to, B_BYTES, self.bytes);
        put_u64(to, B_WATERMARK, self.watermark.0);
        put_u32(to, B_RECORDS, self.records);
        let crc = checks.crc(&to[B_EPOCH..]);
        put_u32(to, B_CRC, crc);
    }

    pub(super) fn decode(checks: Checks, from: &[u8]) -> BatchStart {
        let Some(from) = from.get(..BATCH_HEADER) else {
            return BatchStart::Damaged;
        };
        if from.iter().all(|byte| *byte == 0) {
            return BatchStart::Zeros;
        }
        match batch_epoch(from) {
            Some(epoch) if epoch < checks.epoch => return BatchStart::Stale,
            Some(epoch) if epoch == checks.epoch => {}
            _ => return BatchStart::Damaged,
        }
        if u32_at(from, B_CRC) != checks.crc(&from[B_EPOCH..]) {
            return BatchStart::Damaged;
        }
        BatchStart::Valid(BatchHeader {
            offset: u32_at(from, B_OFFSET),
            bytes: u32_at(from, B_BYTES),
            records: u32_at(from, B_RECORDS),
            watermark: Position(u64_at(from, B_WATERMARK)),
        })
    }
}

/// The epoch that a block claims which looks like the start of a batch; nothing is verified.
pub(super) fn batch_epoch(from: &[u8]) -> Option<u64> {
    let from = from.get(..BATCH_HEADER)?;
    (from[B_MAGIC..][..4] == BATCH_MAGIC).then(|| u64_at(from, B_EPOCH))
}

/// The head of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) entry_kind: u8,
    /// Length of the body: data, then context.
    pub(super) bytes: u32,
    /// How much of the body is context.
    pub(super) context: u32,
}

impl RecordHeader {
    /// Writes everything but the checksums and the epoch, which [`seal_record`] adds.
    pub(super) fn encode(&self, to: &mut [u8]) {
        let to = &mut to[..RECORD_HEADER];
        to.fill(0);
        put_u32(to, R_BYTES, self.bytes);
        put_u64(to, R_INDEX, self.index);
        put_u64(to, R_TERM, self.term);
        to[R_KIND] = self.kind;
        to[R_ENTRY_KIND] = self.entry_kind;
        put_u32(to, R_CONTEXT, self.context);
    }
}

/// What a record takes up, padding included.
pub(super) fn record_bytes(body: usize) -> usize {
    RECORD_HEADER + body.next_multiple_of(8)
}

/// Adds epoch and checksums to the record at the front, and returns its length with padding.
pub(super) fn seal_record(checks: Checks, bytes: &mut [u8]) -> usize {
    let body = u32_at(bytes, R_BYTES) as usize;
    let crc = checks.crc(&bytes[RECORD_HEADER..RECORD_HEADER + body]);
    put_u32(bytes, R_BODY_CRC, crc);
    put_u32(bytes, R_EPOCH, checks.epoch as u32);
    let crc = checks.crc(&bytes[R_BODY_CRC..RECORD_HEADER]);
    put_u32(bytes, R_CRC, crc);
    record_bytes(body)
}

/// Reads the record at the front of `bytes`: its header, its body and its length with padding.
/// `None` if it is not one of this segment, or not complete.
pub(super) fn open_record(checks: Checks, bytes: &[u8]) -> Option<(RecordHeader, &[u8], usize)> {
    let head = bytes.get(..RECORD_HEADER)?;
    if u32_at(head, R_CRC) != checks.crc(&head[R_BODY_CRC..])
        || u32_at(head, R_EPOCH) != checks.epoch as u32
    {
        return None;
    }
    let header = RecordHeader {
        kind: head[R_KIND],
        index: u64_at(head, R_INDEX),
        term: u64_at(head, R_TERM),
        entry_kind: head[R_ENTRY_KIND],
        bytes: u32_at(head, R_BYTES),
        context: u32_at(head, R_CONTEXT),
    };
    let len = record_bytes(header.bytes as usize);
    let body = &bytes.get(..len)?[RECORD_HEADER..RECORD_HEADER + header.bytes as usize];
    let complete = u32_at(head, R_BODY_CRC) == checks.crc(body) && header.context <= header.bytes;
    complete.then_some((header, body, len))
}

/// The body of a state record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) hard_state: HardState,
    pub(super) cut: Cut,
    /// The lowest number of a segment that is still needed.
    pub(super) oldest: u64,
    /// Entries after the cut are dropped as well: a snapshot took the place of the log.
    pub(super) reset: bool,
}

impl State {
    pub(super) fn encode(&self) -> [u8; STATE_BODY] {
        let mut to = [0; STATE_BODY];
        let fields = [
            self.hard_state.term,
            self.hard_state.vote,
            self.hard_state.commit,
            self.cut.index,
            self.cut.term,
            self.oldest,
            u64::from(self.reset),
        ];
        for (number, field) in fields.into_iter().enumerate() {
            put_u64(&mut to, number * 8, field);
        }
        to
    }

    /// Changes the cut in an encoded state.
    pub(super) fn set_cut(body: &mut [u8], cut: Cut, oldest: u64) {
        put_u64(body, 24, cut.index);
        put_u64(body, 32, cut.term);
        put_u64(body, 40, oldest);
    }

    pub(super) fn decode(body: &[u8]) -> Option<State> {
        let from: &[u8; STATE_BODY] = body.try_into().ok()?;
        let reset = match u64_at(from, 48) {
            0 => false,
            1 => true,
            _ => return None,
        };
        let state = State {
            hard_state: HardState {
                term: u64_at(from, 0),
                vote: u64_at(from, 8),
                commit: u64_at(from, 16),
            },
            cut: Cut {
                index: u64_at(from, 24),
                term: u64_at(from, 32),
            },
            oldest: u64_at(from, 40),
            reset,
        };
        (state.cut.index < u64::MAX).then_some(state)
    }
}

// The callers checked that the field lies inside.
fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(from[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(from[at..at + 8].try_into().expect("eight bytes"))
}

fn put_u32(to: &mut [u8], at: usize, value: u32) {
    to[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(to: &mut [u8], at: usize, value: u64) {
    to[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

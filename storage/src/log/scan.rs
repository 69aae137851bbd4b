//! Reads the image of a segment batch by batch, until something is not a batch.

use super::format::{
    BATCH_BYTES_MAX, BATCH_HEADER, BatchHeader, BatchStart, Checks, FIRST_BATCH, KIND_ENTRY,
    KIND_STATE, Position, RecordHeader, STATE_BODY, SegmentHeader, State, open_record,
};
use super::{EntryRef, round_up};
use crate::disk::BLOCK;

/// What was found where reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The end of the readable range.
    Full,
    /// A block that was never written.
    Zeros,
    /// A batch of an earlier use of the file.
    Stale,
    /// Something that is no batch.
    NoBatch,
    /// A batch of this segment, written for another place.
    Misplaced,
    /// A batch whose head is whole and whose records are not.
    BadRecord,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record<'a> {
    State(State),
    Entry(EntryRef<'a>),
}

/// A whole batch that was verified.
pub(super) struct WholeBatch<'a> {
    pub(super) header: BatchHeader,
    records: &'a [u8],
    checks: Checks,
}

impl<'a> WholeBatch<'a> {
    /// The records, each with its offset in the segment.
    pub(super) fn records(&self) -> impl Iterator<Item = (u64, Record<'a>)> + use<'a> {
        let mut at = 0;
        let (records, checks) = (self.records, self.checks);
        let start = u64::from(self.header.offset) + BATCH_HEADER as u64;
        std::iter::from_fn(move || {
            let rest = records.get(at..).filter(|rest| !rest.is_empty())?;
            // Verified when the batch was opened.
            let (header, body, len) = open_record(checks, rest)?;
            let offset = start + at as u64;
            at += len;
            Some((offset, parse_record(&header, body)?))
        })
    }

    /// Where the next batch lies.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.header.offset) + round_up(self.header.bytes as usize) as u64
    }
}

fn parse_record<'a>(header: &RecordHeader, body: &'a [u8]) -> Option<Record<'a>> {
    let plain = header.index == 0 && header.term == 0 && header.entry_kind == 0;
    match header.kind {
        KIND_STATE if body.len() == STATE_BODY && plain && header.context == 0 => {
            Some(Record::State(State::decode(body)?))
        }
        KIND_ENTRY if (1..u64::MAX).contains(&header.index) => {
            let data = body.len().checked_sub(header.context as usize)?;
            let (data, context) = body.split_at_checked(data)?;
            Some(Record::Entry(EntryRef {
                index: header.index,
                term: header.term,
                kind: header.entry_kind,
                data,
                context,
            }))
        }
        _ => None,
    }
}

/// Opens the batch at `offset` of an image that is readable up to `limit`. If it cannot be read,
/// says why, and at which offset.
pub(super) fn open_batch(
    checks: Checks,
    image: &[u8],
    offset: u64,
    limit: u64,
) -> Result<WholeBatch<'_>, (Found, u64)> {
    let at = offset as usize;
    let limit = (limit as usize).min(image.len());
    if at.checked_add(BLOCK).is_none_or(|end| end > limit) {
        return Err((Found::Full, offset));
    }
    let header = match BatchHeader::decode(checks, &image[at..limit]) {
        BatchStart::Zeros => return Err((Found::Zeros, offset)),
        BatchStart::Stale => return Err((Found::Stale, offset)),
        BatchStart::Damaged => return Err((Found::NoBatch, offset)),
        BatchStart::Valid(header) => header,
    };
    if u64::from(header.offset) != offset {
        return Err((Found::Misplaced, offset));
    }
    let bytes = header.bytes as usize;
    let fits = (BATCH_HEADER..=BATCH_BYTES_MAX).contains(&bytes) && bytes <= limit - at;
    if !fits || round_up(bytes) > limit - at {
        return Err((Found::BadRecord, offset));
    }
    let records = &image[at + BATCH_HEADER..at + bytes];
    let mut from = 0;
    let mut count = 0;
    while from < records.len() {
        let bad = (Found::BadRecord, offset + (BATCH_HEADER + from) as u64);
        let (header, body, len) = open_record(checks, &records[from..]).ok_or(bad)?;
        parse_record(&header, body).ok_or(bad)?;
        from += len;
        count += 1;
    }
    if count != header.records {
        return Err((Found::BadRecord, offset));
    }
    Ok(WholeBatch {
        header,
        records,
        checks,
    })
}

/// The result of reading a segment.
pub(super) struct Scan<'a> {
    pub(super) batches: Vec<WholeBatch<'a>>,
    /// Where the next batch should be.
    pub(super) end: u64,
    pub(super) found: Found,
    /// The exact place of the damage, at or after `end`.
    pub(super) bad: u64,
    /// The highest watermark of the whole batches and of those behind.
    pub(super) watermark: Position,
    /// Blocks after `end` that start a batch of this segment.
    pub(super) behind: Vec<u64>,
}

/// Reads the batches of a segment up to `limit`.
pub(super) fn scan<'a>(header: &SegmentHeader, image: &'a [u8], limit: u64) -> Scan<'a> {
    let checks = header.checks();
    let mut batches = Vec::new();
    let mut end = FIRST_BATCH;
    let mut watermark = Position::new(header.sequence, FIRST_BATCH);
    let (found, bad) = loop {
        match open_batch(checks, image, end, limit) {
            Ok(batch) => {
                watermark = watermark.max(batch.header.watermark);
                end = batch.end();
                batches.push(batch);
            }
            Err(stop) => break stop,
        }
    };
    let mut behind = Vec::new();
    let mut at = end + BLOCK as u64;
    while let Some(block) = image.get(at as usize..at as usize + BLOCK) {
        if let BatchStart::Valid(header) = BatchHeader::decode(checks, block)
            && u64::from(header.offset) == at
        {
            watermark = watermark.max(header.watermark);
            behind.push(at);
        }
        at += BLOCK as u64;
    }
    Scan {
        batches,
        end,
        found,
        bad,
        watermark,
        behind,
    }
}

impl Found {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Found::Full => "the end of the segment",
            Found::Zeros => "zeros",
            Found::Stale => "a batch of an earlier use of the file",
            Found::NoBatch => "no batch",
            Found::Misplaced => "a batch that belongs elsewhere",
            Found::BadRecord => "a damaged record",
        }
    }
}

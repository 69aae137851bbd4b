//! Long answers to ranges over the native protocol: one frame, whose length and checksum stand
//! before it, so it is written aside, slice by slice, and joins the output when it is whole.
#![forbid(unsafe_code)]

use super::Slice;
use crate::api::{self, Header, KvSink as _, RangeSummary};
use crate::apply::{Failure, RangeParts, Stand};
use crate::limits;
use crate::wire::{RangeDraft, RangeEncoder};
use quoin_storage::mvcc::View;
use quoin_storage::tree::TreeRead;

/// A range whose answer is being written.
#[derive(Debug)]
pub struct DraftedRange {
    header: Header,
    parts: RangeParts<'static>,
    draft: RangeDraft,
    /// What its client is told if it grows too long.
    too_long: api::Error,
}

/// Writes the pairs of one slice; what closes the answer, once it is whole. An error means that
/// the answer has grown too long.
pub fn write<T: TreeRead>(
    parts: &mut RangeParts<'_>,
    view: &View<'_, T>,
    encoder: &mut RangeEncoder<'_>,
) -> Result<Option<RangeSummary>, Failure> {
    let before = encoder.body_bytes();
    let stand = parts.give(view, limits::SLICE_ENTRIES, &mut |kv| {
        if encoder.body_bytes() - before >= limits::PIECE_BYTES {
            return false;
        }
        encoder.push(*kv);
        !encoder.full()
    })?;
    match stand {
        _ if encoder.full() => Err(Failure::Refused(api::Error::ResponseTooLarge)),
        Stand::Pause | Stand::Full => Ok(None),
        Stand::End | Stand::Limit => parts.summary(view, limits::SLICE_ENTRIES as u64),
    }
}

impl DraftedRange {
    /// Goes on with an answer of which a slice is written.
    pub fn new(
        parts: RangeParts<'static>,
        header: Header,
        draft: RangeDraft,
        too_long: api::Error,
    ) -> DraftedRange {
        DraftedRange {
            header,
            parts,
            draft,
            too_long,
        }
    }

    /// The revision that it reads.
    pub fn revision(&self) -> i64 {
        self.parts.revision()
    }

    /// Works on.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        // It began before any compaction that has come since.
        let view = &view.unpurged();
        let mut encoder = self.draft.go_on();
        let written = write(&mut self.parts, view, &mut encoder);
        let summary = match written {
            Err(Failure::Refused(api::Error::ResponseTooLarge)) => {
                return Err(Failure::Refused(self.too_long));
            }
            written => written?,
        };
        encoder.pause();
        let Some(summary) = summary else {
            return Ok(Slice::Working);
        };
        let draft = std::mem::take(&mut self.draft);
        let finished = draft.finish(&self.header, summary, out);
        finished.map_err(|_| Failure::Refused(self.too_long))?;
        Ok(Slice::Last)
    }

    /// Bytes of memory that it takes: what is written and does not stand in the output yet, and
    /// what its order needs.
    pub fn bytes(&self) -> usize {
        self.draft.bytes() + self.parts.bytes()
    }
}

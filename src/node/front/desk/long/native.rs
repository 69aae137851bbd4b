//! Long answers to ranges over the native protocol: one frame, whose length and checksum stand
//! before it, so it is written aside, slice by slice, and joins the output when it is whole.
#![forbid(unsafe_code)]

use super::Slice;
use crate::api::{self, Header, KvSink as _};
use crate::apply::{self, Failure, RangeWalk, Stand};
use crate::limits;
use crate::wire::{RangeDraft, RangeEncoder};
use quoin_storage::mvcc::View;
use quoin_storage::tree::TreeRead;

/// A range whose answer is being written.
#[derive(Debug)]
pub struct DraftedRange {
    header: Header,
    walk: RangeWalk<'static>,
    draft: RangeDraft,
    /// What its client is told if it grows too long.
    too_long: api::Error,
}

/// Writes the pairs of one slice; an error means that the answer has grown too long.
pub fn write<T: TreeRead>(
    walk: &mut RangeWalk<'_>,
    view: &View<'_, T>,
    encoder: &mut RangeEncoder<'_>,
) -> Result<Stand, Failure> {
    let (keys_only, before) = (walk.is_keys_only(), encoder.body_bytes());
    let stand = walk.step(view, limits::SLICE_ENTRIES, &mut |item| {
        if encoder.body_bytes() - before >= limits::PIECE_BYTES {
            return Ok(false);
        }
        encoder.push(apply::pair(keys_only, item)?);
        Ok(!encoder.full())
    })?;
    match encoder.full() {
        true => Err(Failure::Refused(api::Error::ResponseTooLarge)),
        false => Ok(stand),
    }
}

impl DraftedRange {
    /// Goes on with an answer of which a slice is written.
    pub fn new(
        walk: RangeWalk<'static>,
        header: Header,
        draft: RangeDraft,
        too_long: api::Error,
    ) -> DraftedRange {
        DraftedRange {
            header,
            walk,
            draft,
            too_long,
        }
    }

    /// Works on.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        let mut encoder = self.draft.go_on();
        let written = write(&mut self.walk, view, &mut encoder);
        let stand = match written {
            Err(Failure::Refused(api::Error::ResponseTooLarge)) => {
                return Err(Failure::Refused(self.too_long));
            }
            written => written?,
        };
        encoder.pause();
        if matches!(stand, Stand::Pause | Stand::Full) {
            return Ok(Slice::Working);
        }
        let summary = self.walk.summary(view)?;
        let draft = std::mem::take(&mut self.draft);
        let finished = draft.finish(&self.header, summary, out);
        finished.map_err(|_| Failure::Refused(self.too_long))?;
        Ok(Slice::Last)
    }

    /// Bytes that are written and do not stand in the output yet.
    pub fn bytes(&self) -> usize {
        self.draft.bytes()
    }
}

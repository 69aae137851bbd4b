//! A batch in the making: records are encoded straight into the buffer that will be written.

use super::format::{
    BATCH_HEADER, BatchHeader, Checks, Cut, KIND_ENTRY, KIND_STATE, Position, RECORD_HEADER,
    RecordHeader, STATE_BODY, State, record_bytes, seal_record,
};
use super::{EntryRef, round_up};
use crate::disk::{AlignedBuf, BLOCK};

/// The first allocation; it grows by doubling.
const BLOCKS_MIN: usize = 16;

pub(super) struct Batch {
    buf: AlignedBuf,
    /// Bytes in use; at least the room for the batch header.
    used: usize,
    records: u32,
    /// Where the bodies of state records lie.
    states: Vec<usize>,
}

impl Batch {
    pub(super) fn new() -> Batch {
        Batch {
            buf: AlignedBuf::new(BLOCKS_MIN),
            used: BATCH_HEADER,
            records: 0,
            states: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes in use, batch header included.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn clear(&mut self) {
        self.used = BATCH_HEADER;
        self.records = 0;
        self.states.clear();
    }

    pub(super) fn push_state(&mut self, state: &State) {
        let header = RecordHeader {
            kind: KIND_STATE,
            index: 0,
            term: 0,
            entry_kind: 0,
            bytes: STATE_BODY as u32,
            context: 0,
        };
        self.states.push(self.used + RECORD_HEADER);
        self.push(&header, &state.encode(), &[]);
    }

    pub(super) fn push_entry(&mut self, entry: &EntryRef<'_>) {
        let bytes = entry.data.len() + entry.context.len();
        let header = RecordHeader {
            kind: KIND_ENTRY,
            index: entry.index,
            term: entry.term,
            entry_kind: entry.kind,
            bytes: u32::try_from(bytes).expect("checked against the limit by the writer"),
            context: entry.context.len() as u32,
        };
        self.push(&header, entry.data, entry.context);
    }

    fn push(&mut self, header: &RecordHeader, data: &[u8], context: &[u8]) {
        let end = self.used + record_bytes(data.len() + context.len());
        self.reserve(end);
        let to = &mut self.buf[self.used..end];
        header.encode(to);
        let body = &mut to[RECORD_HEADER..];
        body[..data.len()].copy_from_slice(data);
        body[data.len()..][..context.len()].copy_from_slice(context);
        body[data.len() + context.len()..].fill(0);
        self.used = end;
        self.records += 1;
    }

    fn reserve(&mut self, bytes: usize) {
        let blocks = bytes.div_ceil(BLOCK);
        let capacity = self.buf.capacity_blocks();
        if blocks > capacity {
            let mut larger = AlignedBuf::new(blocks.max(2 * capacity));
            larger[..self.used].copy_from_slice(&self.buf[..self.used]);
            self.buf = larger;
        } else {
            self.buf.set_blocks(capacity);
        }
    }

    /// Brings the cut in the state records up to date: it may have moved since they were staged.
    pub(super) fn set_cut(&mut self, cut: Cut, oldest: u64) {
        for at in &self.states {
            State::set_cut(&mut self.buf[*at..*at + STATE_BODY], cut, oldest);
        }
    }

    /// Completes the batch for its place, and returns the blocks to write.
    pub(super) fn seal(&mut self, checks: Checks, offset: u64, watermark: Position) -> &AlignedBuf {
        self.reserve(self.used);
        let header = BatchHeader {
            offset: u32::try_from(offset).expect("a segment's offsets fit 32 bits"),
            bytes: u32::try_from(self.used).expect("a batch is bounded"),
            records: self.records,
            watermark,
        };
        header.encode(checks, &mut self.buf);
        let mut at = BATCH_HEADER;
        while at < self.used {
            at += seal_record(checks, &mut self.buf[at..self.used]);
        }
        assert_eq!(at, self.used, "the records fill the batch exactly");
        let end = round_up(self.used);
        self.buf[self.used..end].fill(0);
        self.buf.set_blocks(end / BLOCK);
        &self.buf
    }
}

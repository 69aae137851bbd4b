//! The entry point of the fuzzer: any bytes, taken for a segment.

use super::format::{Checks, FIRST_BATCH, HeaderCopy, SegmentHeader};
use super::scan::{Record, open_batch, scan};
use crate::disk::BLOCK;

/// Reads any bytes as a segment and as a lone batch: no panic, no memory beyond their size.
pub fn fuzz_record(bytes: &[u8]) {
    let header = match SegmentHeader::decode(bytes) {
        HeaderCopy::Valid(header) => header,
        // Bytes seldom carry a right checksum: let what follows be read all the same.
        HeaderCopy::Zeros | HeaderCopy::Damaged | HeaderCopy::Version(_) => SegmentHeader {
            log_id: 1,
            bytes: 4 * BLOCK as u64,
            sequence: 1,
            oldest: 1,
            salt: 0,
            slot: 1,
            previous_end: 0,
            last_index: 0,
            last_term: 0,
            hard_state: super::HardState::default(),
            cut: super::format::Cut::default(),
        },
    };
    let found = scan(&header, bytes, bytes.len() as u64);
    let mut records = 0;
    for batch in &found.batches {
        let mut in_batch = 0;
        for (offset, record) in batch.records() {
            assert!(offset < bytes.len() as u64, "a record lies in the image");
            if let Record::Entry(entry) = record {
                assert!(entry.data.len() + entry.context.len() < bytes.len());
            }
            in_batch += 1;
        }
        assert_eq!(
            in_batch, batch.header.records,
            "every record of a batch is readable"
        );
        records += in_batch;
    }
    assert!(records as usize * super::format::RECORD_HEADER <= bytes.len());
    assert!(found.end >= FIRST_BATCH && found.bad >= found.end);
    let _ = open_batch(Checks::new(0, 1), bytes, 0, bytes.len() as u64);
}

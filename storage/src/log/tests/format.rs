//! Golden bytes: `docs/FORMAT.md` describes these very numbers.

use super::super::batch::Batch;
use super::super::format::*;
use super::*;
use crate::log::{EntryRef, fuzz_record};

fn header() -> SegmentHeader {
    SegmentHeader {
        log_id: 0x0102_0304_0506_0708,
        bytes: 0x0200_0000,
        sequence: 9,
        oldest: 7,
        salt: 0x1111_2222_3333_4444,
        slot: 3,
        previous_end: 0x0001_3000,
        last_index: 100,
        last_term: 5,
        hard_state: state(6, 2, 99),
        cut: Cut { index: 42, term: 4 },
    }
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(8).map(|line| {
        let line: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        line.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

const HEADER: &str = "\
51 55 4f 49 4e 4c 4f 47
01 00 00 00 3f b8 23 5b
08 07 06 05 04 03 02 01
00 00 00 02 00 00 00 00
09 00 00 00 00 00 00 00
07 00 00 00 00 00 00 00
44 44 33 33 22 22 11 11
03 00 00 00 00 30 01 00
64 00 00 00 00 00 00 00
05 00 00 00 00 00 00 00
06 00 00 00 00 00 00 00
02 00 00 00 00 00 00 00
63 00 00 00 00 00 00 00
2a 00 00 00 00 00 00 00
04 00 00 00 00 00 00 00
00 00 00 00 00 00 00 00";

const BATCH: &str = "\
51 42 41 54 b3 f0 5b 46
09 00 00 00 00 00 00 00
00 30 00 00 c0 00 00 00
00 30 00 00 09 00 00 00
02 00 00 00 00 00 00 00
66 21 9d be 7b 35 bc ba
09 00 00 00 38 00 00 00
00 00 00 00 00 00 00 00
00 00 00 00 00 00 00 00
01 00 00 00 00 00 00 00
06 00 00 00 00 00 00 00
02 00 00 00 00 00 00 00
63 00 00 00 00 00 00 00
2a 00 00 00 00 00 00 00
04 00 00 00 00 00 00 00
07 00 00 00 00 00 00 00
00 00 00 00 00 00 00 00
9c 99 a0 7f b6 16 a9 11
09 00 00 00 09 00 00 00
65 00 00 00 00 00 00 00
06 00 00 00 00 00 00 00
02 01 00 00 04 00 00 00
68 65 6c 6c 6f 63 74 78
21 00 00 00 00 00 00 00";

fn batch() -> Vec<u8> {
    let mut batch = Batch::new();
    batch.push_state(&State {
        hard_state: state(6, 2, 99),
        cut: Cut { index: 42, term: 4 },
        oldest: 7,
        reset: false,
    });
    batch.push_entry(&EntryRef {
        index: 101,
        term: 6,
        kind: 1,
        data: b"hello",
        context: b"ctx!",
    });
    let used = batch.used();
    let blocks = batch.seal(header().checks(), 0x3000, Position::new(9, 0x3000));
    assert!(
        blocks[used..].iter().all(|byte| *byte == 0),
        "padded with zeros"
    );
    assert_eq!(blocks.len(), 4096);
    blocks[..used].to_vec()
}

#[test]
fn the_segment_header_has_its_golden_bytes() {
    let mut bytes = [0xaa; SEGMENT_HEADER];
    header().encode(&mut bytes);
    assert_eq!(hex(&bytes), HEADER);
    assert_eq!(SegmentHeader::decode(&bytes), HeaderCopy::Valid(header()));
}

#[test]
fn a_batch_has_its_golden_bytes() {
    assert_eq!(hex(&batch()), BATCH);
}

#[test]
fn a_checksum_is_the_crc32_of_the_salt_and_the_bytes() {
    let bytes = batch();
    let mut salted = 0x1111_2222_3333_4444_u64.to_le_bytes().to_vec();
    salted.extend_from_slice(&bytes[8..40]);
    assert_eq!(bytes[4..8], crc32fast::hash(&salted).to_le_bytes());
    salted.truncate(8);
    salted.extend_from_slice(&bytes[44..80]);
    assert_eq!(bytes[40..44], crc32fast::hash(&salted).to_le_bytes());
    salted.truncate(8);
    salted.extend_from_slice(&bytes[80..136]);
    assert_eq!(bytes[44..48], crc32fast::hash(&salted).to_le_bytes());
}

#[test]
fn a_header_of_another_version_is_told_apart_from_damage() {
    let mut bytes = [0; SEGMENT_HEADER];
    header().encode(&mut bytes);
    bytes[8] = 2;
    assert_eq!(SegmentHeader::decode(&bytes), HeaderCopy::Damaged);
    bytes[12..16].fill(0);
    let crc = crc32fast::hash(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&bytes), HeaderCopy::Version(2));
    assert_eq!(
        SegmentHeader::decode(&[0; SEGMENT_HEADER]),
        HeaderCopy::Zeros
    );
    assert_eq!(SegmentHeader::decode(&bytes[1..]), HeaderCopy::Damaged);
}

#[test]
fn mutated_segments_never_panic_the_reader() {
    let mut random = super::model::Random(11);
    let disk = SimDisk::new(3);
    let (mut log, _) = opened(&disk);
    for index in 1..=12 {
        append(&mut log, Some(state(3, 2, index)), &[entry(index, 3, 300)]);
    }
    let name = disk.list().expect("listed").remove(0);
    let mut seeds = vec![disk.bytes(&name).expect("there"), batch(), Vec::new()];
    // A lone batch with the checksums of salt 0, which reading without a header assumes.
    let mut lone = vec![0; 2 * 4096];
    let mut sealed = Batch::new();
    sealed.push_entry(&entry(1, 1, 100).as_ref());
    let checks = Checks::new(0, 1);
    lone.extend_from_slice(sealed.seal(checks, FIRST_BATCH, Position::new(1, FIRST_BATCH)));
    seeds.push(lone);
    for seed in &seeds {
        fuzz_record(seed);
        for _ in 0..3000 {
            let mut bytes = seed.clone();
            for _ in 0..1 + random.below(4) {
                match random.below(4) {
                    0 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
                    1 => {
                        let from = random.below(bytes.len() as u64 + 1) as usize;
                        let piece = bytes[from..].to_vec();
                        bytes.extend_from_slice(&piece[..piece.len().min(5000)]);
                    }
                    _ if bytes.is_empty() => bytes.push(random.next() as u8),
                    _ => {
                        let at = random.below(bytes.len() as u64) as usize;
                        bytes[at] = random.next() as u8;
                    }
                }
            }
            fuzz_record(&bytes);
        }
    }
}

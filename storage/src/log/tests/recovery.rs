//! Recovery case by case: each row of the decision tables, made with real files.

use super::super::batch::Batch;
use super::super::decide::{AT_END, FILES, Head, Use, Verdict, at_end, file_use};
use super::super::format::{FIRST_BATCH, HeaderCopy, Position, SegmentHeader};
use super::super::scan::Found;
use super::super::segments::file_name;
use super::*;

const BLOCK: u64 = 4096;

#[test]
fn the_tables_have_every_case_once() {
    let found = [
        Found::Full,
        Found::Zeros,
        Found::Stale,
        Found::NoBatch,
        Found::Misplaced,
        Found::BadRecord,
    ];
    let heads = [
        Head::Zeros,
        Head::Damaged,
        Head::OtherVersion,
        Head::Foreign,
        Head::Live,
        Head::Dead,
    ];
    for below in [false, true] {
        for found in found {
            let rows = AT_END.iter().filter(|row| row.0 == found && row.1 == below);
            assert_eq!(rows.count(), 1, "{found:?} {below}");
            // What lies below the watermark was acknowledged: whatever is found, it is refused.
            let refused = matches!(at_end(found, below), Verdict::Refuse(_));
            assert_eq!(refused, below, "{found:?}");
        }
        for head in heads {
            for form in [false, true] {
                let row =
                    |row: &&(Head, bool, bool, Use)| (row.0, row.1, row.2) == (head, below, form);
                assert_eq!(
                    FILES.iter().filter(row).count(),
                    1,
                    "{head:?} {below} {form}"
                );
                let used = matches!(file_use(head, below, form), Use::Live);
                assert_eq!(
                    used,
                    head == Head::Live && form,
                    "only whole segments are read"
                );
            }
        }
    }
    assert_eq!((AT_END.len(), FILES.len()), (12, 24));
}

/// A log with three batches of one entry each, in blocks 2, 3 and 4 of its only live segment.
/// Nothing confirms the third.
fn three_batches() -> (SimDisk, String) {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    for index in 1..=3 {
        append(&mut log, None, &[entry(index, 1, 100)]);
    }
    (copy(&disk), file_name("log-", 1))
}

fn patch(disk: &SimDisk, name: &str, byte: u64, with: &[u8]) {
    let mut bytes = disk.bytes(name).expect("the file to patch");
    bytes[byte as usize..byte as usize + with.len()].copy_from_slice(with);
    disk.set_bytes(name, bytes);
}

fn header_of(disk: &SimDisk, name: &str) -> SegmentHeader {
    match SegmentHeader::decode(&disk.bytes(name).expect("there")) {
        HeaderCopy::Valid(header) => header,
        other => panic!("{other:?}"),
    }
}

/// Blocks of a batch with one entry, sealed for a place.
fn batch(header: &SegmentHeader, entry: &Entry, place: u64, watermark: u64) -> Vec<u8> {
    let mut batch = Batch::new();
    batch.push_entry(&entry.as_ref());
    let watermark = Position::new(header.sequence, watermark);
    batch.seal(header.checks(), place, watermark).to_vec()
}

/// What is put over a block so that reading stops there with `found`.
fn stop_with(found: Found, disk: &SimDisk, name: &str, block: u64) {
    let header = header_of(disk, name);
    let place = block * BLOCK;
    let stale = SegmentHeader {
        sequence: header.sequence - 1,
        ..header.clone()
    };
    match found {
        Found::Full => panic!("made in other ways"),
        Found::Zeros => patch(disk, name, place, &[0; BLOCK as usize]),
        Found::Stale => patch(
            disk,
            name,
            place,
            &batch(&stale, &entry(9, 1, 9), place, place),
        ),
        Found::NoBatch => patch(disk, name, place, &[0xee; 4]),
        Found::Misplaced => {
            let other = place + BLOCK;
            patch(
                disk,
                name,
                place,
                &batch(&header, &entry(9, 1, 9), other, place),
            );
        }
        Found::BadRecord => disk.flip_bit(name, place + 90, 3),
    }
}

const FOUND: [Found; 5] = [
    Found::Zeros,
    Found::Stale,
    Found::NoBatch,
    Found::Misplaced,
    Found::BadRecord,
];

fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index).collect()
}

#[test]
fn above_the_watermark_the_log_ends_and_what_was_there_never_comes_back() {
    for found in FOUND {
        let (disk, name) = three_batches();
        stop_with(found, &disk, &name, 4);
        let (mut log, recovered) = opened(&disk);
        assert_eq!(indexes(&recovered), [1, 2], "{found:?}");
        let cut = at_end(found, false) == Verdict::Cut;
        assert_eq!(recovered.report.cut.is_some(), cut, "{found:?}");
        append(&mut log, None, &[entry(3, 7, 10)]);
        let (_, recovered) = opened(&disk.crash());
        assert_eq!(recovered.entries[2], entry(3, 7, 10), "{found:?}");
        assert_eq!(recovered.entries.len(), 3);
    }
}

#[test]
fn below_the_watermark_recovery_refuses_and_names_the_place() {
    for found in FOUND {
        let (disk, name) = three_batches();
        stop_with(found, &disk, &name, 3);
        let before = disk.operations();
        match open(&disk).err() {
            Some(LogError::Corrupt { file, byte, what }) => {
                assert_eq!(file, name);
                assert!(
                    (3 * BLOCK..4 * BLOCK).contains(&byte),
                    "{found:?} at {byte}"
                );
                assert_eq!(at_end(found, true), Verdict::Refuse(what));
            }
            other => panic!("{found:?}: {other:?}"),
        }
        assert_eq!(
            disk.operations(),
            before + 1 + files(&disk),
            "only syncs of the directory and of each file, nothing is written"
        );
    }
}

fn files(disk: &SimDisk) -> u64 {
    disk.list().expect("listed").len() as u64
}

#[test]
fn valid_batches_behind_a_cut_that_confirm_nothing_are_wiped_out() {
    let (disk, name) = three_batches();
    let header = header_of(&disk, &name);
    // As a writer with several writes in flight may leave it: the third batch lost, the fourth
    // and the fifth there, all issued when only the second was durable.
    stop_with(Found::NoBatch, &disk, &name, 4);
    for block in [5, 6] {
        let lost = batch(&header, &entry(block - 1, 1, 10), block * BLOCK, 4 * BLOCK);
        patch(&disk, &name, block * BLOCK, &lost);
    }
    // The power fails at each write of the recovery in turn, and then it runs to its end.
    for cut in 1..20 {
        let disk = copy(&disk);
        disk.cut_at(cut);
        drop(open(&disk));
        let disk = if disk.is_cut() {
            disk.crash()
        } else {
            copy(&disk)
        };
        let (mut log, recovered) = opened(&disk);
        assert_eq!(indexes(&recovered), [1, 2], "cut at {cut}");
        append(&mut log, None, &[entry(3, 7, 10)]);
        let (_, recovered) = opened(&disk.crash());
        assert_eq!(indexes(&recovered), [1, 2, 3], "cut at {cut}");
        assert_eq!(recovered.entries[2].term, 7);
    }
}

#[test]
fn a_batch_behind_damage_that_was_issued_after_it_proves_it_acknowledged() {
    let (disk, name) = three_batches();
    let header = header_of(&disk, &name);
    stop_with(Found::NoBatch, &disk, &name, 4);
    let behind = batch(&header, &entry(4, 1, 10), 9 * BLOCK, 5 * BLOCK);
    patch(&disk, &name, 9 * BLOCK, &behind);
    let error = open(&disk).err().expect("refused");
    assert!(
        matches!(error, LogError::Corrupt { byte, .. } if byte == 4 * BLOCK),
        "{error}"
    );
}

/// A log of several live segments, oldest first.
fn many_segments() -> (SimDisk, Vec<String>) {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    for index in 1..=40 {
        append(&mut log, Some(state(1, 1, index)), &[entry(index, 1, 3000)]);
    }
    let disk = copy(&disk);
    let mut live: Vec<_> = disk.list().expect("listed");
    live.retain(|name| disk.bytes(name).expect("there")[..8] == *b"QUOINLOG");
    live.sort_by_key(|name| header_of(&disk, name).sequence);
    assert!(live.len() >= 3, "{live:?}");
    (disk, live)
}

fn refusal(disk: &SimDisk) -> String {
    match open(disk) {
        Ok(_) => panic!("not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_missing_segment_is_refused_by_its_number() {
    let (disk, live) = many_segments();
    let disk = copy(&disk);
    disk.remove(&live[1]).expect("removed");
    assert_eq!(
        refusal(&disk),
        "the log is damaged: segment number 2 is missing"
    );
    let disk = copy(&disk);
    patch(&disk, &live[0], 20, b"rot");
    patch(&disk, &live[0], 4096 + 20, b"rot");
    let message = refusal(&disk);
    assert!(
        message.contains("number 1 is missing; log-000001.seg has an unreadable"),
        "{message}"
    );
}

#[test]
fn the_newest_segment_with_an_unreadable_header_is_refused_if_it_holds_a_batch() {
    let (disk, live) = many_segments();
    let newest = live.last().expect("some");
    for copy_at in [0, 4096] {
        patch(&disk, newest, copy_at, &[0; 128]);
    }
    let message = refusal(&disk);
    assert!(
        message.contains(newest) && message.contains("at byte 0"),
        "{message}"
    );
    // Without a batch it was never put to use: the power failed while it should have been.
    patch(&disk, newest, FIRST_BATCH, &[0; 4]);
    let (_, recovered) = opened(&disk);
    assert!(recovered.entries.len() < 40);
}

#[test]
fn one_of_two_header_copies_is_enough_and_the_other_is_written_again() {
    for lost in [0, 4096] {
        let (disk, live) = many_segments();
        for name in &live {
            patch(&disk, name, lost, &[0; 512]);
        }
        let (_, recovered) = opened(&disk);
        assert_eq!(recovered.entries.len(), 40);
        assert_eq!(recovered.report.healed.len(), live.len());
        let (_, recovered) = opened(&disk.crash());
        assert_eq!(recovered.report.healed.len(), 0);
    }
}

#[test]
fn a_file_that_was_cut_short_or_renamed_is_refused() {
    for name in [0, 1, 2] {
        for keep in [0, 100, 4096, 5 * 4096] {
            let (disk, live) = many_segments();
            let mut bytes = disk.bytes(&live[name]).expect("there");
            bytes.truncate(keep);
            disk.set_bytes(&live[name], bytes);
            let message = refusal(&disk);
            assert!(message.contains(&live[name]), "{message}");
        }
    }
    let (disk, live) = many_segments();
    disk.rename(&live[1], &file_name("log-", 77))
        .expect("renamed");
    let message = refusal(&disk);
    assert!(message.contains("log-000077.seg"), "{message}");
}

#[test]
fn the_same_segment_twice_is_refused() {
    let (disk, live) = many_segments();
    let other = file_name("log-", 77);
    let header = SegmentHeader {
        slot: 77,
        ..header_of(&disk, &live[1])
    };
    let mut bytes = disk.bytes(&live[1]).expect("there");
    header.encode(&mut bytes);
    header.encode(&mut bytes[4096..]);
    disk.set_bytes(&other, bytes);
    let message = refusal(&disk);
    assert!(
        message.contains("another file has the same segment"),
        "{message}"
    );
}

#[test]
fn another_log_and_another_version_are_refused() {
    let (disk, live) = many_segments();
    let mut options = options();
    options.log_id = 5;
    let error = LogWriter::open(Arc::new(copy(&disk)), options)
        .err()
        .expect("refused");
    assert!(
        matches!(
            error,
            LogError::Foreign {
                found: 0x1122_3344_5566_7788,
                ..
            }
        ),
        "{error}"
    );

    let mut bytes = disk.bytes(&live[1]).expect("there");
    for at in [0, 4096] {
        bytes[at + 8] = 2;
        bytes[at + 12..at + 16].fill(0);
        let crc = crc32fast::hash(&bytes[at..at + 128]);
        bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
    }
    disk.set_bytes(&live[1], bytes);
    let message = refusal(&disk);
    let expected = format!("{} has log format 2; this program reads format 1", live[1]);
    assert_eq!(message, expected);
}

#[test]
fn a_damaged_older_segment_is_refused_even_in_its_last_batch() {
    let (disk, live) = many_segments();
    let header = header_of(&disk, &live[1]);
    let last = u64::from(header.previous_end) - BLOCK;
    disk.flip_bit(&live[0], last + 60, 0);
    let message = refusal(&disk);
    assert!(message.contains(&live[0]), "{message}");
}

#[test]
fn an_unreadable_disk_is_an_error_and_not_an_empty_log() {
    let (disk, _) = many_segments();
    let reads = {
        let disk = copy(&disk);
        drop(opened(&disk));
        disk.reads()
    };
    for read in 1..=reads {
        let disk = copy(&disk);
        disk.fail_read_at(read);
        let error = open(&disk).err().expect("fails");
        assert!(matches!(error, LogError::Disk(_)), "{error}");
        assert_eq!(opened(&disk).1.entries.len(), 40);
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = SimDisk::new(1);
    for name in ["log-1.seg", "log-000001.seg.old", "tree", "identity"] {
        disk.set_bytes(name, b"not a segment".to_vec());
    }
    let (mut log, recovered) = opened(&disk);
    assert!(recovered.report.fresh);
    append(&mut log, None, &[entry(1, 1, 1)]);
    assert_eq!(disk.bytes("log-1.seg").expect("there"), b"not a segment");
}

#[test]
fn segments_of_another_size_are_read_and_then_replaced() {
    let (disk, live) = many_segments();
    let mut larger = options();
    larger.segment_bytes = 32 * 4096;
    let (mut log, recovered) =
        LogWriter::open(Arc::new(disk.clone()), larger.clone()).expect("opened");
    assert_eq!(recovered.entries.len(), 40);
    for index in 41..=80 {
        append(&mut log, Some(state(1, 1, index)), &[entry(index, 1, 3000)]);
    }
    log.cut(78).expect("cut");
    for name in &live {
        assert!(disk.bytes(name).is_none(), "{name} is still there");
    }
    let (_, recovered) = LogWriter::open(Arc::new(disk.crash()), larger).expect("opened");
    assert_eq!(indexes(&recovered), [79, 80]);
}

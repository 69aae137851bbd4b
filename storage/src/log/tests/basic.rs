//! What a log does on a disk that works.

use super::*;
use crate::disk::RealDisk;
use crate::log::{Inspected, inspect};

#[test]
fn a_fresh_log_is_empty_and_stays_so() {
    let disk = SimDisk::new(1);
    let (_, recovered) = opened(&disk);
    assert!(recovered.report.fresh);
    let (_, recovered) = opened(&disk.kill());
    assert!(!recovered.report.fresh);
    assert_eq!(recovered.hard_state, HardState::default());
    assert_eq!((recovered.base_index, recovered.entries.len()), (0, 0));
}

#[test]
fn what_was_appended_comes_back() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    let entries: Vec<_> = (1..=40)
        .map(|index| entry(index, 2, index as usize * 20))
        .collect();
    for some in entries.chunks(3) {
        append(&mut log, Some(state(2, 1, some[0].index)), some);
    }
    assert_eq!(log.last_index(), 40);
    let (_, recovered) = opened(&disk.crash());
    assert_eq!(recovered.entries, entries);
    assert_eq!(recovered.hard_state, state(2, 1, 40));
    assert_eq!(recovered.base_index, 0);
}

#[test]
fn staged_requests_become_durable_in_one_write() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    let before = disk.operations();
    let entries: Vec<_> = (1..=9).map(|index| entry(index, 1, 100)).collect();
    log.stage(Some(&state(1, 1, 0)), std::iter::empty())
        .expect("staged");
    for some in entries.chunks(3) {
        log.stage(None, some.iter().map(Entry::as_ref))
            .expect("staged");
    }
    assert_eq!(disk.operations(), before);
    assert_eq!(opened(&disk.crash()).1.entries, []);
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    log.stage(Some(&state(1, 1, 0)), std::iter::empty())
        .expect("staged");
    for some in entries.chunks(3) {
        log.stage(None, some.iter().map(Entry::as_ref))
            .expect("staged");
    }
    let before = disk.operations();
    log.flush().expect("flushed");
    assert_eq!(disk.operations(), before + 1);
    assert_eq!(opened(&disk.crash()).1.entries, entries);
}

#[test]
fn later_entries_replace_a_suffix() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    let first: Vec<_> = (1..=10).map(|index| entry(index, 1, 50)).collect();
    append(&mut log, Some(state(1, 1, 4)), &first);
    let second: Vec<_> = (6..=8).map(|index| entry(index, 2, 60)).collect();
    append(&mut log, Some(state(2, 2, 5)), &second);
    let (_, recovered) = opened(&disk.crash());
    assert_eq!(recovered.entries[..5], first[..5]);
    assert_eq!(recovered.entries[5..], second);
}

#[test]
fn a_cut_recycles_segments_and_keeps_the_hard_state() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    append(&mut log, Some(state(5, 3, 0)), &[]);
    let mut files_max = 0;
    for index in 1..=400 {
        append(&mut log, None, &[entry(index, 5, 3000)]);
        if index % 20 == 0 {
            log.cut(index - 5).expect("cut");
        }
        files_max = files_max.max(disk.list().expect("listed").len());
    }
    assert!(files_max <= 6, "{files_max} files");
    let (mut log, recovered) = opened(&disk.crash());
    assert_eq!(recovered.hard_state, state(5, 3, 0));
    // A cut inside a segment is durable with the next hard state.
    assert!(recovered.base_index >= 375, "{}", recovered.base_index);
    assert_eq!(recovered.base_term, 5);
    let indexes: Vec<_> = recovered.entries.iter().map(|entry| entry.index).collect();
    assert_eq!(
        indexes,
        (recovered.base_index + 1..=400).collect::<Vec<_>>()
    );
    assert!(log.live_bytes() < 3 * options().segment_bytes);
    append(&mut log, None, &[entry(401, 5, 10)]);
}

#[test]
fn everything_may_be_cut() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    for index in 1..=40 {
        append(&mut log, Some(state(1, 1, index)), &[entry(index, 1, 3000)]);
    }
    log.cut(40).expect("cut");
    let disk = disk.crash();
    let (mut log, recovered) = opened(&disk);
    assert_eq!((recovered.base_index, recovered.base_term), (40, 1));
    assert_eq!(recovered.entries, []);
    append(&mut log, None, &[entry(41, 2, 10)]);
    let (_, recovered) = opened(&disk.crash());
    assert_eq!(recovered.entries, [entry(41, 2, 10)]);
}

#[test]
fn a_snapshot_takes_the_place_of_the_log() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    for index in 1..=40 {
        append(&mut log, Some(state(1, 1, 0)), &[entry(index, 1, 3000)]);
    }
    log.reset(&state(7, 0, 30), 30, 6).expect("reset");
    assert_eq!(log.last_index(), 30);
    append(&mut log, None, &[entry(31, 7, 100)]);
    let (_, recovered) = opened(&disk.crash());
    assert_eq!((recovered.base_index, recovered.base_term), (30, 6));
    assert_eq!(recovered.entries, [entry(31, 7, 100)]);
    assert_eq!(recovered.hard_state, state(7, 0, 30));
}

#[test]
fn more_than_a_batch_goes_in_several_and_too_large_an_entry_is_refused() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    let entries: Vec<_> = (1..=20).map(|index| entry(index, 3, 20_000)).collect();
    append(&mut log, Some(state(3, 1, 20)), &entries);
    let largest = entry(21, 3, log.entry_bytes_max() - 1);
    append(
        &mut log,
        Some(state(3, 1, 21)),
        std::slice::from_ref(&largest),
    );
    let larger = entry(22, 3, log.entry_bytes_max());
    let error = log
        .append(None, std::iter::once(larger.as_ref()))
        .expect_err("too large");
    assert!(matches!(error, LogError::TooLarge { .. }), "{error}");
    let (_, recovered) = opened(&disk.crash());
    assert_eq!(recovered.entries[..20], entries);
    assert_eq!(recovered.entries[20], largest);
    assert_eq!(recovered.hard_state, state(3, 1, 21));
}

#[test]
fn a_cut_between_stage_and_flush_is_not_undone_by_the_flush() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    for index in 1..=60 {
        append(&mut log, Some(state(1, 1, index)), &[entry(index, 1, 3000)]);
    }
    let next = entry(61, 1, 10);
    log.stage(Some(&state(1, 1, 61)), std::iter::once(next.as_ref()))
        .expect("staged");
    log.cut(60).expect("cut");
    log.flush().expect("flushed");
    let (_, recovered) = opened(&disk.crash());
    assert_eq!(recovered.base_index, 60);
    assert_eq!(recovered.entries, [next]);
    assert_eq!(recovered.hard_state, state(1, 1, 61));
}

#[test]
fn a_quiet_log_confirms_its_newest_write_once() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    assert!(!log.idle().expect("nothing to confirm"));
    append(&mut log, None, &[entry(1, 1, 10)]);
    assert!(log.idle().expect("written"));
    assert!(!log.idle().expect("nothing left"));
}

#[test]
fn the_real_disk_carries_the_log_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("data");
    let entries: Vec<_> = (1..=60).map(|index| entry(index, 1, 4000)).collect();
    {
        let disk = Arc::new(RealDisk::open(&path).expect("opened"));
        let (mut log, _) = LogWriter::open(disk, options()).expect("opened");
        for some in entries.chunks(4) {
            append(&mut log, Some(state(1, 1, some[0].index)), some);
        }
        log.cut(20).expect("cut");
    }
    let disk = Arc::new(RealDisk::open(&path).expect("opened"));
    let (_, recovered) = LogWriter::open(disk, options()).expect("opened");
    assert_eq!(recovered.entries.last(), entries.last());
    assert_eq!(recovered.hard_state, state(1, 1, 57));
    assert!(recovered.base_index <= 20);
}

#[test]
fn the_inspector_shows_what_is_there_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let (mut log, _) = opened(&disk);
    let written: Vec<_> = (1..=30).map(|index| entry(index, 1, 2000)).collect();
    for some in written.chunks(2) {
        append(&mut log, Some(state(1, 1, 0)), some);
    }
    let before = (disk.operations(), disk.list().expect("listed"));
    let mut seen = Vec::new();
    let mut segments = 0;
    let mut ends = 0;
    inspect(&disk, "log-", &mut |found| match found {
        Inspected::Entry { entry, .. } => seen.push(entry.index),
        Inspected::Segment { .. } => segments += 1,
        Inspected::End { acknowledged, .. } => {
            assert!(!acknowledged);
            ends += 1;
        }
        _ => {}
    })
    .expect("inspected");
    seen.sort();
    assert_eq!(seen, (1..=30).collect::<Vec<_>>());
    assert!(segments > 1 && segments == ends, "{segments} {ends}");
    assert_eq!(before, (disk.operations(), disk.list().expect("listed")));
}

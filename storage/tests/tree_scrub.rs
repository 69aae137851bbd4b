//! Scrubs: all of a file is read, in steps of any size, and what is damaged is named.

mod tree_support;

use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::tree::{CheckReport, Scrub, Snapshot, TreeError, TreeWrite, check};
use std::collections::BTreeSet;
use std::sync::Arc;
use tree_support::*;

/// The bytes of a file of a few hundred pages, and what the checker says of it.
fn file() -> (Vec<u8>, CheckReport) {
    let disk = SimDisk::new(3);
    let mut random = Random::new(3);
    let shape = Shape {
        keys: 3000,
        long_keys: true,
        large_values: true,
        removes: 10,
    };
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut writer, _shared) = open_at(&handle, options()).expect("a new file");
    let mut model = Model::default();
    for _ in 0..40 {
        let mut txn = writer.begin();
        for _ in 0..50 {
            step(&mut txn, &mut model, &shape, &mut random).expect("a step");
        }
        txn.commit(b"");
        writer.checkpoint_now().expect("a checkpoint");
    }
    // Of one tree nothing but a long key.
    let mut txn = writer.begin();
    txn.insert(IDS[2], &[7; 9000], &[b"value"], true)
        .expect("a step");
    txn.commit(b"");
    writer.checkpoint_now().expect("a checkpoint");
    drop(writer);
    let report = check(&*handle, NAME).expect("a sound file");
    (disk.bytes(NAME).expect("the file"), report)
}

/// One pass, in steps of so many pages: how many were read, what is damaged, and the steps.
fn pass(snapshot: &Snapshot<'_>, pages: u64) -> (u64, Vec<TreeError>, usize) {
    let (mut scrub, mut read, mut damage) = (Scrub::default(), 0, Vec::new());
    for steps in 1..100_000 {
        let step = scrub.step(snapshot, pages);
        read += step.pages;
        damage.extend(step.damage);
        if step.whole {
            return (read, damage, steps);
        }
    }
    panic!("a pass without an end");
}

fn damaged_at(damage: &[TreeError]) -> BTreeSet<u64> {
    damage
        .iter()
        .map(|error| match error {
            TreeError::Corrupt { page, .. } => *page,
            other => panic!("{other}"),
        })
        .collect()
}

#[test]
fn a_pass_reads_every_page_once() {
    let (bytes, report) = file();
    let disk = SimDisk::new(1);
    disk.set_bytes(NAME, bytes);
    let handle: Arc<dyn Disk> = Arc::new(disk);
    let (_writer, shared) = open_at(&handle, options()).expect("a sound file");
    let reader = shared.reader().expect("a slot");
    let snapshot = reader.pin();
    let pages = report.leaves.iter().sum::<u64>() + report.branches + report.run_pages;
    assert!(report.levels[0] >= 2 && report.run_pages > 10, "{report:?}");
    for step in [1, 2, 7, 1000] {
        let (read, damage, steps) = pass(&snapshot, step);
        // What a step begins with is read again: the way from the root.
        let again = steps as u64 * report.levels.iter().max().expect("a tree");
        assert!(
            read >= pages && read <= pages + again,
            "{read} of {pages}, steps of {step}"
        );
        assert!(damage.is_empty(), "{damage:?}");
        // A step is as long as it should be: a leaf's long values belong to it.
        assert!(step < 1000 || steps == 3, "{steps}");
        assert!(step > 1 || steps as u64 > report.leaves[0] / 2, "{steps}");
    }
}

#[test]
fn a_damaged_page_is_named_and_hides_no_other() {
    let (bytes, report) = file();
    let sound = {
        let disk = SimDisk::new(1);
        disk.set_bytes(NAME, bytes.clone());
        let handle: Arc<dyn Disk> = Arc::new(disk);
        let (_writer, shared) = open_at(&handle, options()).expect("a sound file");
        pass(&shared.reader().expect("a slot").pin(), 10).0
    };
    let mut found = 0;
    let mut unread = 0;
    for page in 2..(bytes.len() / 4096) as u64 {
        let mut damaged = bytes.clone();
        damaged[page as usize * 4096 + 2000] ^= 4;
        let disk = SimDisk::new(1);
        disk.set_bytes(NAME, damaged);
        let handle: Arc<dyn Disk> = Arc::new(disk);
        // The bitmap is read at open.
        let Ok((_writer, shared)) = open_at(&handle, options()) else {
            continue;
        };
        let reader = shared.reader().expect("a slot");
        let (read, damage, _) = pass(&reader.pin(), 10);
        match &damage[..] {
            [] => unread += 1,
            [TreeError::Corrupt { .. }] => found += 1,
            several => {
                // One step may begin where another ended, at the same page.
                assert_eq!(damaged_at(several).len(), 1, "{several:?}");
                found += 1;
            }
        }
        // A leaf or a long value hides itself alone, a branch what is below it.
        if damaged_at(&damage).contains(&page) {
            assert!(read < sound);
        }
    }
    // All pages in use are read; of a page's bytes, the rest of a long value's last means nothing.
    let in_use = report.leaves.iter().sum::<u64>() + report.branches;
    assert!(found >= in_use, "{found} of {in_use}");
    assert!(unread > 0, "free pages are not read");
}

#[test]
fn what_is_in_memory_alone_is_passed_over() {
    let handle: Arc<dyn Disk> = Arc::new(SimDisk::new(9));
    let (mut writer, shared) = open_at(&handle, options()).expect("a new file");
    let reader = shared.reader().expect("a slot");
    assert_eq!(pass(&reader.pin(), 5).0, 0, "an empty tree");
    let mut txn = writer.begin();
    for n in 0..2000u32 {
        txn.insert(IDS[0], &n.to_be_bytes(), &[&[1; 100]], true)
            .expect("a step");
    }
    txn.commit(b"");
    assert_eq!(pass(&reader.pin(), 5).0, 0);
    writer.checkpoint_now().expect("a checkpoint");
    let (read, damage, _) = pass(&reader.pin(), 5);
    assert!(read > 50 && damage.is_empty(), "{read} {damage:?}");
}

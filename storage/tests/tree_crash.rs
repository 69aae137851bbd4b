//! The tree on a disk that loses power: the state after reopening is always one that was
//! committed and checkpointed, the newest that was reported durable or the one being written.

mod tree_support;

use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::{Fault, SimDisk};
use quoin_storage::tree::{TreeError, TreeOptions, check};
use std::sync::Arc;
use tree_support::*;

/// The states that a crash may leave: the one reported durable last, and those of checkpoints
/// begun since.
#[derive(Default)]
struct Possible {
    durable: Model,
    begun: Vec<Model>,
    /// The file itself may not exist yet.
    created: bool,
}

fn small() -> TreeOptions {
    TreeOptions {
        young_bytes_max: 128 << 10,
        spare_bytes: 16 << 10,
        ..options()
    }
}

/// What finds no space has changed nothing, and the history goes on without it.
fn go_on(step: Result<(), TreeError>) -> Result<(), TreeError> {
    match step {
        Err(TreeError::NoSpace) => Ok(()),
        other => other,
    }
}

/// Runs a random history until it ends or the disk fails.
fn history(seed: u64, disk: &SimDisk, possible: &mut Possible) -> Result<(), TreeError> {
    let shape = Shape {
        keys: 300,
        long_keys: seed.is_multiple_of(3),
        large_values: seed.is_multiple_of(2),
        removes: 30,
    };
    let mut random = Random::new(seed);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut committed = possible.durable.clone();
    let (mut writer, shared) = open_at(&disk, small())?;
    possible.created = true;
    assert_eq!(writer.user(), committed.user);
    let reader = shared.reader().expect("a slot");
    for _ in 0..6 {
        // Without a reader what dies is used again at once.
        let pin = random.chance(50).then(|| reader.pin());
        let pinned = committed.clone();
        for _ in 0..1 + random.below(3) {
            let mut txn = writer.begin();
            let mut model = committed.clone();
            for _ in 0..random.below(60) {
                go_on(step(&mut txn, &mut model, &shape, &mut random))?;
            }
            model.user = random.next().to_le_bytes().to_vec();
            txn.commit(&model.user);
            committed = model;
        }
        let job = writer.checkpoint().expect("something changed");
        possible.begun.push(committed.clone());
        let file = writer.page_file();
        // The writer goes on while the checkpoint runs.
        let mut txn = writer.begin();
        let mut model = committed.clone();
        for _ in 0..20 {
            go_on(step(&mut txn, &mut model, &shape, &mut random))?;
        }
        model.user = random.next().to_le_bytes().to_vec();
        txn.commit(&model.user);
        let at_checkpoint = std::mem::replace(&mut committed, model);
        let done = job.run(&*file, &mut |_| ())?;
        if writer.checkpointed(done) {
            possible.durable = at_checkpoint;
            possible.begun.clear();
        }
        if let Some(pin) = pin {
            compare_snapshot(&pin, &pinned)?;
        }
    }
    Ok(())
}

/// Opens what a crash left and says which of the possible states it is.
fn reopen(disk: &SimDisk, possible: &Possible) -> Result<Model, TreeError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (writer, shared) = open_at(&disk, small())?;
    let reader = shared.reader().expect("a slot");
    let snapshot = reader.pin();
    let mut candidates = std::iter::once(&possible.durable).chain(&possible.begun);
    let found = candidates
        .rfind(|model| model.user == snapshot.user())
        .unwrap_or_else(|| panic!("a state that was never written: {:?}", snapshot.user()));
    compare_snapshot(&snapshot, found)?;
    writer.check()?;
    check(&*disk, NAME)?;
    Ok(found.clone())
}

/// Cuts the power at an operation, again and again while opening what is left, then goes on with
/// the history on it.
fn cut(seed: u64, at: u64) -> bool {
    let disk = SimDisk::new(seed);
    disk.cut_at(at);
    let mut possible = Possible::default();
    let finished = history(seed, &disk, &mut possible).is_ok();
    let mut left = disk.crash();
    let mut random = Random::new(seed ^ at);
    for _ in 0..random.below(3) {
        // A second crash while the first is being recovered from.
        left.cut_at(1 + random.below(6));
        match reopen(&left, &possible) {
            Ok(_) | Err(TreeError::Disk(_)) => {}
            Err(e) => panic!("seed {seed}, cut at {at}: {e}"),
        }
        left = left.crash();
    }
    let found =
        reopen(&left, &possible).unwrap_or_else(|e| panic!("seed {seed}, cut at {at}: {e}"));
    let mut possible = Possible {
        durable: found,
        begun: Vec::new(),
        created: true,
    };
    if at.is_multiple_of(5) {
        let more = SimDisk::crash(&left);
        reopen(&more, &possible).expect("the same state again");
        history(seed + 1000, &more, &mut possible).expect("a sound file");
    }
    finished
}

#[test]
fn power_cut_at_every_operation() {
    for seed in 0..if cfg!(miri) { 0 } else { 12 } {
        let mut at = 1;
        while !cut(seed, at) {
            at += 1;
        }
        assert!(at > 20, "a history of {at} operations");
    }
}

#[test]
fn failing_writes_and_syncs_stop_the_tree_and_lose_nothing() {
    for seed in 0..4 {
        for fault in [Fault::Eio, Fault::ShortWrite, Fault::FailedSync] {
            for at in 1..80 {
                let disk = SimDisk::new(seed);
                disk.fail_at(at, fault);
                let mut possible = Possible::default();
                if history(seed, &disk, &mut possible).is_ok() {
                    continue;
                }
                reopen(&disk.crash(), &possible)
                    .unwrap_or_else(|e| panic!("seed {seed}, {fault:?} at {at}: {e}"));
            }
        }
    }
}

#[test]
fn a_full_disk_at_any_operation_loses_nothing() {
    for seed in 0..4 {
        for at in 1..80 {
            let disk = SimDisk::new(seed);
            disk.fail_at(at, Fault::NoSpace);
            let mut possible = Possible::default();
            let result = history(seed, &disk, &mut possible);
            if let Err(e) = &result {
                // A sync that found no space has failed, and is not tried again.
                let ended = matches!(e, TreeError::NoSpace | TreeError::Disk(_));
                assert!(ended, "seed {seed}, no space at {at}: {e}");
            }
            reopen(&disk.crash(), &possible)
                .unwrap_or_else(|e| panic!("seed {seed}, no space at {at}: {e}"));
        }
    }
}

/// A checkpoint that finds no space may have come as far as one of the meta pages.
#[test]
fn power_cut_soon_after_a_full_disk_loses_nothing() {
    for seed in 0..4 {
        for at in 1..100 {
            for later in [1, 2, 5, 9, 14, 20] {
                let disk = SimDisk::new(seed);
                disk.fail_at(at, Fault::NoSpace);
                disk.cut_at(at + later);
                let mut possible = Possible::default();
                // Whatever ends it.
                let _ = history(seed, &disk, &mut possible);
                reopen(&disk.crash(), &possible).unwrap_or_else(|e| {
                    panic!("seed {seed}, no space at {at}, cut {later} later: {e}")
                });
            }
        }
    }
}

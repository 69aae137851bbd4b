//! The tree on a disk that loses power, fails or is full, at every operation of random histories:
//! the state after reopening is always one that was committed and checkpointed, the newest that
//! was reported durable or the one being written. `QUOIN_HISTORIES` sets how many histories are
//! tried.

mod tree_support;

use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::{Fault, SimDisk};
use quoin_storage::tree::{TreeError, TreeOptions, check};
use std::ops::Range;
use std::sync::Arc;
use tree_support::*;

/// The states that a crash may leave: the one reported durable last, and those of checkpoints
/// begun since.
#[derive(Default)]
struct Possible {
    durable: Model,
    begun: Vec<Model>,
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

/// The seeds of the histories to be tried, one for so many that were asked for.
fn seeds(one_for: u64) -> Range<u64> {
    let histories = std::env::var("QUOIN_HISTORIES").ok();
    let histories: Option<u64> = histories.and_then(|value| value.parse().ok());
    0..histories.unwrap_or(40).div_ceil(one_for)
}

/// How many operations a history takes that nothing disturbs: each of them is to be disturbed.
fn undisturbed(seed: u64) -> u64 {
    let disk = SimDisk::new(seed);
    history(seed, &disk, &mut Possible::default())
        .unwrap_or_else(|e| panic!("seed {seed}, undisturbed: {e}"));
    let operations = disk.operations();
    assert!(operations > 20, "a history of {operations} operations");
    operations
}

/// Opens what is left, with the power cut at each operation of that, one after the other, each
/// time on what the cut before left, until an opening ends before the cut. What that one finds
/// must stay.
fn recover(mut left: SimDisk, possible: &mut Possible) -> Result<SimDisk, TreeError> {
    let mut at = 1;
    loop {
        left.cut_at(at);
        let opened = reopen(&left, possible);
        match (opened, left.is_cut()) {
            (Ok(found), false) => {
                possible.durable = found;
                possible.begun.clear();
                break;
            }
            (Err(TreeError::Disk(_)), true) => {}
            (Ok(_), true) => panic!("it opened, cut at operation {at}"),
            (Err(e), _) => return Err(e),
        }
        left = left.crash();
        at += 1;
    }
    assert!(at > 1, "opening asks nothing of the disk");
    let left = left.crash();
    reopen(&left, possible)?;
    Ok(left)
}

/// Cuts the power at an operation, and at each of opening what is left; then goes on with another
/// history there, and cuts somewhere in that.
fn cut(seed: u64, at: u64, length: u64) -> Result<(), TreeError> {
    let mut random = Random::new(seed ^ (at << 32));
    let mut possible = Possible::default();
    let disk = SimDisk::new(seed);
    disk.cut_at(at);
    let ended = history(seed, &disk, &mut possible);
    assert!(ended.is_err() && disk.is_cut(), "a history repeats itself");
    let left = recover(disk.crash(), &mut possible)?;
    left.cut_at(left.operations() + 1 + random.below(length));
    match history(random.next(), &left, &mut possible) {
        Err(e) if !left.is_cut() => return Err(e),
        _ => {}
    }
    recover(left.crash(), &mut possible)?;
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn power_cut_at_every_operation() {
    for seed in seeds(4) {
        let length = undisturbed(seed);
        for at in 1..=length {
            cut(seed, at, length).unwrap_or_else(|e| panic!("seed {seed}, cut at {at}: {e}"));
        }
    }
}

/// After a fault the process ends, and half of the time the machine does, too.
fn fault(seed: u64, at: u64, fault: Fault) -> Result<(), TreeError> {
    let disk = SimDisk::new(seed);
    disk.fail_at(at, fault);
    let mut possible = Possible::default();
    let ended = history(seed, &disk, &mut possible);
    assert!(disk.operations() >= at, "a history repeats itself");
    match (&ended, fault) {
        (Err(TreeError::Disk(_)), _) => {}
        // A sync that found no space has failed, and is not tried again.
        (Ok(()) | Err(TreeError::NoSpace), Fault::NoSpace) => {}
        _ => panic!("it ended so: {ended:?}"),
    }
    let mut random = Random::new(seed ^ (at << 32));
    let mut left = disk;
    if random.chance(50) {
        left = left.kill();
        // What the next process finds, in the page cache and in the directory, it takes for
        // durable only if it is.
        possible.durable = reopen(&left, &possible)?;
        possible.begun.clear();
        if random.chance(50) {
            history(random.next(), &left, &mut possible)?;
        }
    }
    recover(left.crash(), &mut possible)?;
    Ok(())
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn a_fault_at_every_operation_stops_the_tree_and_loses_nothing() {
    for seed in seeds(10) {
        for kind in [
            Fault::Eio,
            Fault::ShortWrite,
            Fault::FailedSync,
            Fault::NoSpace,
        ] {
            for at in 1..=undisturbed(seed) {
                fault(seed, at, kind)
                    .unwrap_or_else(|e| panic!("seed {seed}, {kind:?} at {at}: {e}"));
            }
        }
    }
}

/// A checkpoint that finds no space may have come as far as one of the meta pages.
#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn power_cut_soon_after_a_full_disk_loses_nothing() {
    for seed in seeds(10) {
        let mut random = Random::new(seed);
        for at in 1..=undisturbed(seed) {
            for later in [1 + random.below(4), 5 + random.below(20)] {
                let disk = SimDisk::new(seed);
                disk.fail_at(at, Fault::NoSpace);
                disk.cut_at(at + later);
                let mut possible = Possible::default();
                // Whatever ends it.
                let _ = history(seed, &disk, &mut possible);
                assert!(disk.operations() >= at, "a history repeats itself");
                recover(disk.crash(), &mut possible).unwrap_or_else(|e| {
                    panic!("seed {seed}, no space at {at}, cut {later} later: {e}")
                });
            }
        }
    }
}

/// A process that is killed between giving the file its name and making that durable leaves the
/// name to the next one, which must not rely on it.
#[test]
fn a_name_that_an_earlier_process_left_is_durable_before_a_checkpoint_is() {
    let options = TreeOptions {
        spare_bytes: 0,
        ..small()
    };
    for seed in 0..20 {
        let broken_off = (1..100).find_map(|at| {
            let disk = SimDisk::new(seed);
            disk.fail_at(at, Fault::Eio);
            let handle: Arc<dyn Disk> = Arc::new(disk.clone());
            let failed = open_at(&handle, options.clone()).is_err();
            (failed && disk.bytes(NAME).is_some()).then_some(disk)
        });
        let disk = broken_off.expect("the name comes last but one").kill();
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let (mut writer, _shared) = open_at(&handle, options.clone()).expect("a whole file");
        writer.begin().commit(b"kept");
        assert!(writer.checkpoint_now().expect("no fault"));
        let handle: Arc<dyn Disk> = Arc::new(disk.crash());
        let (writer, _shared) = open_at(&handle, options.clone()).expect("a whole file");
        assert_eq!(writer.user(), b"kept", "seed {seed}");
    }
}

//! The tree against a plain map: random histories of inserts, removals, aborts, checkpoints,
//! pinned readers and reopening.

mod tree_support;

use quoin_storage::disk::{Disk, sim::SimDisk};
use quoin_storage::tree::{TreeOptions, Writer, check};
use std::sync::Arc;
use tree_support::*;

struct History {
    shape: Shape,
    txns: u64,
    ops: u64,
    options: TreeOptions,
}

fn run(seed: u64, history: &History) {
    let mut random = Random::new(seed);
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(seed));
    let (mut writer, mut shared) = open_at(&disk, history.options.clone()).expect("a new file");
    let mut committed = Model::default();
    let mut durable = committed.clone();
    let mut readers: Vec<_> = (0..3).map(|_| shared.reader().expect("a slot")).collect();
    let mut in_flight = None;
    for txn in 0..history.txns {
        // One reader stays pinned over a few commits, checkpoints among them.
        let reader = &readers[(txn % 3) as usize];
        let pinned = (reader.pin(), committed.clone());
        let ahead = 1 + random.below(3);
        for _ in 0..ahead {
            one_txn(&mut writer, &mut committed, history, &mut random);
            match random.below(6) {
                0 => {
                    if let Some(job) = writer.checkpoint() {
                        in_flight = Some((job, committed.clone()));
                    }
                }
                1 | 2 => finish(&mut writer, &mut in_flight, &mut durable),
                _ => {}
            }
        }
        compare_snapshot(&pinned.0, &pinned.1).expect("an old state");
        drop(pinned);
        let newest = readers[0].pin();
        compare_snapshot(&newest, &committed).expect("the newest state");
        drop(newest);
        if random.chance(20) {
            writer.check().expect("a sound tree");
        }
        if random.chance(8) {
            finish(&mut writer, &mut in_flight, &mut durable);
            drop((writer, shared, readers));
            check(&*disk, NAME).expect("a sound file");
            (writer, shared) = open_at(&disk, history.options.clone()).expect("a sound file");
            readers = (0..3).map(|_| shared.reader().expect("a slot")).collect();
            committed = durable.clone();
            assert_eq!(writer.user(), committed.user);
            compare_snapshot(&readers[0].pin(), &committed).expect("the durable state");
        }
    }
    finish(&mut writer, &mut in_flight, &mut durable);
    writer.check().expect("a sound tree");
}

fn one_txn(writer: &mut Writer, committed: &mut Model, history: &History, random: &mut Random) {
    let mut model = committed.clone();
    let mut txn = writer.begin();
    for op in 0..1 + random.below(history.ops) {
        step(&mut txn, &mut model, &history.shape, random).expect("a step");
        if op % 16 == 0 {
            probe(&txn, &model, &history.shape, random).expect("reads of the open transaction");
        }
        if random.chance(1) {
            txn.suspend();
            txn = writer.begin();
        }
    }
    if random.chance(10) {
        drop(txn);
        writer.audit();
        return;
    }
    model.user = random.next().to_le_bytes().to_vec();
    txn.commit(&model.user);
    *committed = model;
}

type InFlight = Option<(quoin_storage::tree::CheckpointJob, Model)>;

fn finish(writer: &mut Writer, in_flight: &mut InFlight, durable: &mut Model) {
    let Some((job, model)) = in_flight.take() else {
        return;
    };
    let file = writer.page_file();
    let done = job.run(&*file, &mut |_| ()).expect("a disk without faults");
    assert!(writer.checkpointed(done));
    *durable = model;
}

const SMALL: u64 = if cfg!(miri) { 1 } else { 40 };

#[test]
fn short_keys() {
    for seed in 0..SMALL {
        let shape = Shape {
            keys: 3000,
            long_keys: false,
            large_values: false,
            removes: 20 + seed % 60,
        };
        run(
            seed,
            &History {
                shape,
                txns: if cfg!(miri) { 2 } else { 30 },
                ops: if cfg!(miri) { 20 } else { 300 },
                options: options(),
            },
        );
    }
}

#[test]
fn long_keys_and_large_values() {
    for seed in 0..SMALL / 2 + 1 {
        let shape = Shape {
            keys: 600,
            long_keys: true,
            large_values: true,
            removes: 20 + seed % 50,
        };
        run(
            seed,
            &History {
                shape,
                txns: if cfg!(miri) { 3 } else { 20 },
                ops: if cfg!(miri) { 30 } else { 120 },
                options: options(),
            },
        );
    }
}

#[test]
fn transactions_beyond_young_memory_spill() {
    for seed in 0..if cfg!(miri) { 1 } else { 6 } {
        let shape = Shape {
            keys: 20_000,
            long_keys: seed % 2 == 0,
            large_values: true,
            removes: 20,
        };
        let options = TreeOptions {
            young_bytes_max: 64 << 10,
            ..options()
        };
        run(
            seed,
            &History {
                shape,
                txns: if cfg!(miri) { 2 } else { 6 },
                ops: if cfg!(miri) { 60 } else { 3000 },
                options,
            },
        );
    }
}

//! Random histories over the real tree on a simulated disk, whose power is cut at every
//! operation: what comes back is the state of a finished checkpoint, and playing the log from
//! its applied index on leads to where the history would have led.

use super::history::{Model, Step, check, compact_both, steps, transact};
use crate::disk::sim::SimDisk;
use crate::mvcc::{Error, Meta, compact_step};
use crate::tree::{self, Shared, TreeError, TreeOptions, TreeWrite, Writer};
use proptest::prelude::*;
use std::sync::Arc;

const FILE: &str = "tree";

fn options() -> TreeOptions {
    TreeOptions {
        reserve_bytes: 64 << 20,
        young_bytes_max: 1 << 20,
        spare_bytes: 1 << 20,
        ..TreeOptions::default()
    }
}

/// A store in the making, with what a log would give it.
struct Machine {
    writer: Writer,
    shared: Shared,
    meta: Meta,
}

impl Machine {
    fn open(disk: &SimDisk) -> Result<Machine, TreeError> {
        let (writer, shared) = tree::open(Arc::new(disk.clone()), FILE, options())?;
        let reader = shared.reader().expect("the first reader");
        let snapshot = reader.pin();
        let meta = Meta::open(&snapshot, snapshot.user()).expect("the store is whole");
        drop(snapshot);
        drop(reader);
        Ok(Machine {
            writer,
            shared,
            meta,
        })
    }

    /// Plays the log from the applied index on, and ends with a checkpoint. `models[n]` is the
    /// state after `n` entries.
    fn play(&mut self, log: &[Step], models: &[Model]) -> Result<(), TreeError> {
        let mut at = usize::try_from(self.meta.applied_index).unwrap();
        assert!(at <= log.len());
        while at < log.len() {
            at = self.batch(log, models, at)?;
        }
        self.writer.checkpoint_now()?;
        Ok(())
    }

    /// One transaction of the tree: all entries up to the next that ends it.
    fn batch(&mut self, log: &[Step], models: &[Model], from: usize) -> Result<usize, TreeError> {
        let ends = |step: &Step| matches!(step, Step::Commit | Step::Abort | Step::Restart);
        let len = log[from..]
            .iter()
            .position(ends)
            .map_or(log.len() - from, |at| at + 1);
        let to = from + len;
        if matches!(log[to - 1], Step::Abort) {
            // A first attempt that comes to nothing, as after an insert without space.
            let mut meta = self.meta.clone();
            let mut txn = self.writer.begin();
            for (at, step) in (from..).zip(&log[from..to]) {
                apply(&mut txn, &mut meta, &models[at], step)?;
            }
            drop(txn);
        }
        let mut txn = self.writer.begin();
        for (at, step) in (from..).zip(&log[from..to]) {
            apply(&mut txn, &mut self.meta, &models[at], step)?;
        }
        check(&txn, &self.meta, &models[to]);
        self.meta.applied_index = to as u64;
        txn.commit(&self.meta.encode());
        if matches!(log[to - 1], Step::Restart) {
            self.writer.checkpoint_now()?;
        }
        Ok(to)
    }

    fn check(&self, models: &[Model]) {
        let reader = self.shared.reader().expect("a slot");
        let snapshot = reader.pin();
        let meta = Meta::open(&snapshot, snapshot.user()).expect("the store is whole");
        assert_eq!(meta, self.meta);
        check(
            &snapshot,
            &meta,
            &models[usize::try_from(meta.applied_index).unwrap()],
        );
    }
}

fn apply<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    before: &Model,
    step: &Step,
) -> Result<(), TreeError> {
    let mut model = before.clone();
    match step {
        Step::Txn(ops) => transact(tree, meta, &mut model, ops),
        Step::Compact(part) => compact_both(meta, &mut model, *part),
        Step::Purge(events) => match compact_step(tree, meta, usize::from(*events)) {
            Ok(_) => {}
            Err(Error::Tree(e)) => return Err(e),
            Err(e) => panic!("{e}"),
        },
        Step::Commit | Step::Abort | Step::Restart => {}
    }
    Ok(())
}

/// The model's state before the first entry and after each.
fn models(log: &[Step]) -> Vec<Model> {
    let mut tree = crate::tree::model::ModelTree::new();
    let mut meta = Meta::default();
    let mut models = vec![Model::default()];
    for step in log {
        let mut model = models.last().expect("the first").clone();
        match step {
            Step::Txn(ops) => transact(&mut tree, &mut meta, &mut model, ops),
            Step::Compact(part) => compact_both(&mut meta, &mut model, *part),
            _ => {}
        }
        models.push(model);
    }
    models
}

/// Plays until the power fails or the log ends; returns what the machine finds afterwards.
fn until_cut(disk: &SimDisk, log: &[Step], models: &[Model]) -> SimDisk {
    let played = Machine::open(disk).and_then(|mut machine| machine.play(log, models));
    assert!(
        played.is_ok() != disk.is_cut(),
        "only a cut stops it: {played:?}"
    );
    disk.crash()
}

fn whole(disk: &SimDisk, log: &[Step], models: &[Model]) {
    let mut machine = Machine::open(disk).expect("the tree opens");
    machine.check(models);
    machine.play(log, models).expect("nothing fails any more");
    machine.check(models);
    while machine.meta.purge_pending() {
        let mut txn = machine.writer.begin();
        compact_step(&mut txn, &mut machine.meta, 5).expect("a sound tree");
        txn.commit(&machine.meta.encode());
    }
    machine.check(models);
    machine
        .writer
        .checkpoint_now()
        .expect("nothing fails any more");
    drop(machine);
    tree::check(disk, FILE).expect("a sound file");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_real_tree_answers_as_the_model(log in steps(80)) {
        let models = models(&log);
        whole(&SimDisk::new(1), &log, &models);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn no_cut_loses_a_checkpoint_or_tears_a_revision(log in steps(40), seed: u64) {
        let models = models(&log);
        let calm = SimDisk::new(seed);
        until_cut(&calm, &log, &models);
        for number in 1..=calm.operations() {
            let disk = SimDisk::new(seed ^ number);
            disk.cut_at(number);
            let mut found = until_cut(&disk, &log, &models);
            if number % 3 == 0 {
                // And again, on the way back.
                found.cut_at(found.operations() + 1 + number % 5);
                found = until_cut(&found, &log, &models);
            }
            whole(&found, &log, &models);
        }
    }
}

/// Keys and values beyond a page, from the log to the file and back.
#[test]
fn large_keys_and_values_come_back() {
    let key = |n: usize| vec![n as u8; [1, 600, 5000, 70_000][n % 4]];
    let value = |n: usize| vec![!n as u8; [0, 3000, 300_000][n % 3]];
    let disk = SimDisk::new(9);
    let mut machine = Machine::open(&disk).unwrap();
    let mut txn = machine.writer.begin();
    for n in 0..24 {
        let mut command = crate::mvcc::WriteTxn::begin(&mut txn, &mut machine.meta);
        command.put(&key(n), &value(n), 0).unwrap();
        if n % 5 == 0 {
            command.put_keep_value(&key(n), 0).unwrap();
        }
        command.finish();
    }
    txn.commit(&machine.meta.encode());
    machine.writer.checkpoint_now().unwrap();
    drop(machine);
    let machine = Machine::open(&disk.kill()).unwrap();
    let reader = machine.shared.reader().unwrap();
    let snapshot = reader.pin();
    let view = crate::mvcc::View::new(&snapshot, machine.meta.horizon());
    for n in 0..24 {
        let pair = view.get(&key(n)).unwrap().unwrap();
        assert_eq!((pair.key, pair.value), (&key(n)[..], &value(n)[..]));
    }
}

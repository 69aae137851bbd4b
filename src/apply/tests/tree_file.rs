//! The same histories on the tree file, through checkpoints and power cuts.

use super::batches::{entries, finish, open};
use super::random::request;
use super::*;
use proptest::prelude::*;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::tree::{self, Shared, TreeOptions, Writer};
use std::sync::Arc;

fn open_file(disk: &SimDisk) -> (Applier<Writer, u64>, Shared) {
    let options = TreeOptions {
        reserve_bytes: 16 << 20,
        young_bytes_max: 1 << 20,
        spare_bytes: 1 << 20,
        ..TreeOptions::default()
    };
    let (writer, shared) = tree::open(Arc::new(disk.clone()), "tree", options).unwrap();
    (
        Applier::open(
            writer,
            BatchLimits {
                commands: 7,
                ..Default::default()
            },
        )
        .unwrap(),
        shared,
    )
}

fn checkpoint(applier: &mut Applier<Writer, u64>) {
    let writer = applier.store_mut();
    let Some(job) = writer.checkpoint() else {
        return;
    };
    let file = writer.page_file();
    let done = job.run(&*file, &mut |_| {}).unwrap();
    assert!(writer.checkpointed(done));
}

/// Every pair at every readable revision.
fn contents<T: TreeRead>(tree: &T, meta: &quoin_storage::mvcc::Meta) -> Vec<RangeResponse> {
    let view = View::new(tree, meta.horizon());
    (meta.compacted.max(1)..=meta.revision)
        .map(|revision| {
            let mut response = RangeResponse::default();
            let request = RangeRequest { revision, ..all() };
            let summary = range(&view, &request, &mut response).unwrap();
            RangeResponse {
                count: summary.count,
                ..response
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_tree_file_answers_as_the_map_and_loses_nothing_that_is_logged(
        history in prop::collection::vec(request(), 1..80),
        sizes in prop::collection::vec(1..6usize, 1..4),
        turns in prop::collection::vec((1..6usize, 0..6u8), 1..8),
        seed: u64,
    ) {
        let entries = entries(&history, &sizes);
        let mut model = open(MapStore::default(), 5);
        let mut expected = Vec::new();
        model.apply(&entries, &mut { usize::MAX }, &mut expected).unwrap();
        let expected = finish(&mut model, expected);

        let mut disk = SimDisk::new(seed);
        let (mut applier, mut shared) = open_file(&disk);
        // By waiter, since a replay gives outcomes again; they must be the same.
        let mut outcomes = std::collections::BTreeMap::new();
        let mut at = 0;
        // Crashes must not keep a history from its end.
        let events = turns.iter().chain(std::iter::repeat(&(3, 0)));
        for (turn, event) in events {
            let mut fresh = Vec::new();
            let end = entries.len().min(at + turn);
            applier.apply(&entries[at..end], &mut { usize::MAX }, &mut fresh).unwrap();
            at = end;
            match event {
                0 => checkpoint(&mut applier),
                1 => applier.background(2, &mut fresh).unwrap(),
                2 if at < entries.len() => {
                    drop((applier, shared));
                    disk = disk.crash();
                    (applier, shared) = open_file(&disk);
                    at = usize::try_from(applier.meta().applied_index).unwrap();
                }
                _ => {}
            }
            if at == entries.len() {
                fresh = finish(&mut applier, fresh);
            }
            for (waiter, outcome) in fresh {
                if let Some(before) = outcomes.insert(waiter, outcome.clone()) {
                    prop_assert_eq!(before, outcome, "command {}", waiter);
                }
            }
            if at == entries.len() {
                break;
            }
        }
        // Only the answer that waited for a purge can be lost with the process.
        let physical = |waiter: u64| {
            matches!(&history[waiter as usize], Request::Compact(compact) if compact.physical)
        };
        let expected = expected
            .into_iter()
            .filter(|(waiter, _)| !physical(*waiter) || outcomes.contains_key(waiter));
        prop_assert_eq!(outcomes.clone().into_iter().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        prop_assert_eq!(applier.meta(), model.meta());
        let reader = shared.reader().unwrap();
        let want = contents(&model.store().tree, model.meta());
        prop_assert_eq!(contents(&reader.pin(), applier.meta()), want);
        applier.store().check().unwrap();
    }
}

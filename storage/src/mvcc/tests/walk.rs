//! The way into the past is logarithmic.

use crate::mvcc::read::{entry, event_at};
use crate::mvcc::{Meta, WriteTxn, compact, compact_step};
use crate::tree::model::ModelTree;

/// Steps from the newest of `versions` events to any older one. At most two steps in each tree
/// size, up and down.
fn steps_max(versions: i64) -> u64 {
    2 * u64::from(versions.ilog2()) + 2
}

/// Reads the key at every readable revision; returns the longest walk.
fn longest(tree: &ModelTree, meta: &Meta) -> u64 {
    let entry = entry(tree, b"k").unwrap().unwrap();
    let mut longest = 0;
    for revision in meta.compacted.max(1)..=meta.revision {
        let mut steps = 0;
        let found = event_at(tree, b"k", &entry, revision, &mut steps).unwrap();
        assert_eq!(found.map_or(1, |(at, _)| at.main), revision);
        longest = longest.max(steps);
    }
    longest
}

#[test]
fn any_of_many_versions_is_a_few_steps_away() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    for version in 1..=3000 {
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        txn.put(b"k", b"v", 0).unwrap();
        txn.finish();
        if version < 70 || version % 331 == 0 {
            let longest = longest(&tree, &meta);
            assert!(
                longest <= steps_max(version),
                "{longest} steps among {version} versions"
            );
        }
    }
}

#[test]
fn also_after_compactions_and_deletes() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    for version in 1..=2000i64 {
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        if version % 97 == 0 {
            // Delete and put in one transaction: two events with one main revision.
            txn.delete(b"k").unwrap().unwrap();
        }
        txn.put(b"k", b"v", 0).unwrap();
        txn.finish();
        if version % 500 == 0 {
            let revision = meta.revision - 300;
            compact(&mut meta, revision).unwrap();
            while !compact_step(&mut tree, &mut meta, 64).unwrap() {}
        }
        if version % 250 == 0 {
            let longest = longest(&tree, &meta);
            assert!(
                longest <= steps_max(850),
                "{longest} steps after {version} versions"
            );
        }
    }
}

#[test]
fn a_key_younger_than_the_revision_costs_nothing() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    for key in [&b"old"[..], b"k", b"k", b"k"] {
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        txn.put(key, b"v", 0).unwrap();
        txn.finish();
    }
    let entry = entry(&tree, b"k").unwrap().unwrap();
    let mut steps = 0;
    assert!(
        event_at(&tree, b"k", &entry, 2, &mut steps)
            .unwrap()
            .is_none()
    );
    assert_eq!(steps, 0);
}

//! Single stories.

use crate::mvcc::{CountWalk, Error, Meta, Revision, View, WriteTxn, compact, compact_step};
use crate::tree::model::ModelTree;
use crate::tree::{Interval, TreeId, TreeRead, TreeWrite};

const ALL: Interval<'static> = Interval {
    start: b"",
    end: None,
};

#[test]
fn the_empty_store_is_at_revision_one_and_can_be_compacted() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    assert_eq!(
        View::new(&tree, meta.horizon()).count_at(ALL, 1).unwrap(),
        0
    );
    assert!(matches!(
        compact(&mut meta, -1),
        Err(Error::Compacted { compacted: -1 })
    ));
    assert!(matches!(
        compact(&mut meta, 2),
        Err(Error::FutureRevision { current: 1 })
    ));
    compact(&mut meta, 1).unwrap();
    assert!(compact_step(&mut tree, &mut meta, 10).unwrap());
    assert!(!meta.purge_pending());
    assert_eq!(WriteTxn::begin(&mut tree, &mut meta).finish(), 1);
}

#[test]
fn a_transaction_that_has_written_nothing_leaves_no_trace() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    let mut txn = WriteTxn::begin(&mut tree, &mut meta);
    assert!(txn.delete(b"k").unwrap().is_none());
    assert!(txn.put_keep_value(b"k", 0).unwrap().is_none());
    assert_eq!(txn.delete_interval(ALL, &mut |_| Ok(())).unwrap(), 0);
    assert!(!txn.changed());
    assert_eq!(txn.view().horizon().revision, 1);

    assert_eq!((tree, meta), (ModelTree::new(), Meta::default()));
}

/// More keys than one slice holds, of which each is deleted once and none beyond the interval.
#[test]
fn an_interval_of_many_keys_is_deleted_in_order() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    let key = |n: u32| n.to_be_bytes().repeat(1 + (n as usize % 100) * 8);
    let mut txn = WriteTxn::begin(&mut tree, &mut meta);
    for n in 0..1500 {
        txn.put(&key(n), b"v", 0).unwrap();
    }
    txn.finish();
    let mut txn = WriteTxn::begin(&mut tree, &mut meta);
    let interval = Interval {
        start: &key(100),
        end: Some(&key(1400)),
    };
    assert_eq!(
        txn.delete_interval(interval, &mut |_| Ok(())).unwrap(),
        1300
    );
    assert_eq!(txn.view().count_at(ALL, 0).unwrap(), 200);
    assert_eq!(txn.view().count_at(ALL, 2).unwrap(), 1500);
    assert_eq!(txn.finish(), 3);
    let mut expected = 100;
    View::new(&tree, meta.horizon())
        .events(Revision::first(3), &mut |event| {
            assert_eq!(
                event.revision,
                Revision {
                    main: 3,
                    sub: expected - 100
                }
            );
            assert!(event.tombstone && event.key == key(expected));
            expected += 1;
            Ok(true)
        })
        .unwrap();
    assert_eq!(expected, 1400);
}

/// A delete at the compacted revision is seen by readers from there; the next compaction takes
/// it, and with it the last trace of the key.
#[test]
fn a_delete_at_the_compacted_revision_stays_until_the_next() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    for step in 0..3 {
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        match step {
            0 => txn.put(b"k", b"v", 0).unwrap(),
            1 => txn.delete(b"k").unwrap(),
            _ => txn.put(b"other", b"v", 0).unwrap(),
        };
        txn.finish();
    }
    compact(&mut meta, 3).unwrap();
    while !compact_step(&mut tree, &mut meta, 1).unwrap() {}
    let view = View::new(&tree, meta.horizon());
    assert!(view.event(Revision::first(2)).unwrap().is_none());
    assert!(view.event(Revision::first(3)).unwrap().unwrap().tombstone);
    assert_eq!(tree.len(TreeId::Key), 2);

    compact(&mut meta, 4).unwrap();
    while !compact_step(&mut tree, &mut meta, 1).unwrap() {}
    assert!(
        View::new(&tree, meta.horizon())
            .event(Revision::first(3))
            .unwrap()
            .is_none()
    );
    assert_eq!(tree.len(TreeId::Key), 1);
    assert_eq!(tree.len(TreeId::Revision), 1);
}

/// A key that was deleted before the compacted revision and is written again: members whose purge
/// is slower or faster must write the same event.
#[test]
fn what_is_written_does_not_depend_on_how_far_the_purge_is() {
    let trees = [true, false].map(|purge_first| {
        let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
        for step in 0..4 {
            if step == 3 {
                compact(&mut meta, 4).unwrap();
                while purge_first && !compact_step(&mut tree, &mut meta, 1).unwrap() {}
            }
            let mut txn = WriteTxn::begin(&mut tree, &mut meta);
            match step {
                1 => txn.delete(b"k").unwrap(),
                2 => txn.put(b"other", b"", 0).unwrap(),
                _ => txn.put(b"k", b"v", 0).unwrap(),
            };
            txn.finish();
        }
        while !compact_step(&mut tree, &mut meta, 1).unwrap() {}
        (tree, meta)
    });
    assert_eq!(trees[0], trees[1]);
}

/// The revision does not come from the newest event: a compaction may remove that.
#[test]
fn the_revision_does_not_fall_when_every_event_is_gone() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    for value in [Some(b"v"), None] {
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        match value {
            Some(value) => txn.put(b"k", value, 0).unwrap(),
            None => txn.delete(b"k").unwrap(),
        };
        txn.finish();
    }
    let mut txn = WriteTxn::begin(&mut tree, &mut meta);
    txn.put(b"x", b"", 0).unwrap();
    txn.delete(b"x").unwrap();
    txn.finish();
    compact(&mut meta, 4).unwrap();
    while !compact_step(&mut tree, &mut meta, 8).unwrap() {}
    assert_eq!(tree.len(TreeId::Revision), 1);
    assert_eq!(Meta::open(&tree, &meta.encode()).unwrap().revision, 4);
}

/// Damaged links are reported, and never followed in a circle.
#[test]
fn damaged_history_is_an_error_value() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    for _ in 0..9 {
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        txn.put(b"k", b"v", 0).unwrap();
        txn.finish();
    }
    let good = tree.clone();
    for main in 2..=10 {
        let at = Revision::first(main).to_key();
        let event = good.get(TreeId::Revision, &at).unwrap().unwrap();
        for byte in 0..event.len() {
            for flip in [1, 2, 0x10, 0x80, 0xff] {
                let mut bad = event.to_vec();
                bad[byte] ^= flip;
                tree.insert(TreeId::Revision, &at, &[&bad], true).unwrap();
                let view = View::new(&tree, meta.horizon());
                for revision in 1..=10 {
                    let _ = view.get_at(b"k", revision);
                }
            }
        }
        tree.remove(TreeId::Revision, &at).unwrap();
        let missing = View::new(&tree, meta.horizon()).get_at(b"k", main);
        assert!(matches!(
            missing,
            Err(Error::Corrupt {
                tree: TreeId::Revision,
                ..
            })
        ));
        tree = good.clone();
    }
}

/// Each part may look at a later root; what has changed since the first does not count.
#[test]
fn a_count_in_parts_is_of_its_revision() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    let write = |meta: &mut Meta, tree: &mut ModelTree, n: u8, lives: bool| {
        let mut txn = WriteTxn::begin(tree, meta);
        match lives {
            true => drop(txn.put(&[n], b"v", 0).unwrap()),
            false => drop(txn.delete(&[n]).unwrap()),
        }
        txn.finish();
    };
    (0..40).for_each(|n| write(&mut meta, &mut tree, n, true));
    let revision = meta.revision;
    (0..20).for_each(|n| write(&mut meta, &mut tree, n, false));
    (50..60).for_each(|n| write(&mut meta, &mut tree, n, true));
    let begin = CountWalk::new(&View::new(&tree, meta.horizon()), ALL, revision).unwrap();
    for by_keys in [true, false] {
        let mut walk = begin.clone();
        match by_keys {
            true => walk.go_by_keys(ALL, u64::MAX),
            false => walk.go_by_events(),
        }
        let mut parts = 1;
        let count = loop {
            let view = View::new(&tree, meta.horizon());
            if let Some(count) = walk.step(&view, ALL, 4).unwrap() {
                break count;
            }
            parts += 1;
            let n = 100 + parts;
            write(&mut meta, &mut tree, n, true);
            write(&mut meta, &mut tree, 20 + n % 20, false);
        };
        assert_eq!(count, 40);
        assert!(parts >= 30 / 4, "{parts}");
    }
    // Once the revision is compacted there is nothing to count.
    let mut walk = begin;
    let newest = meta.revision;
    compact(&mut meta, newest).unwrap();
    let view = View::new(&tree, meta.horizon());
    assert!(matches!(
        walk.step(&view, ALL, 4),
        Err(Error::Compacted { .. })
    ));
    // The purge has not come, so that who began before may go on.
    assert_eq!(
        walk.step(&view.unpurged(), ALL, u64::MAX).unwrap(),
        Some(40)
    );
}

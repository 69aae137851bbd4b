//! What is written is read, whatever the store went through; and no damage passes.

use super::*;
use crate::mvcc::lease::{self, LeaseRecord};
use crate::mvcc::state::{self, Space};
use crate::mvcc::{Event, Meta, Revision, View, WriteTxn, compact, compact_step, restore_event};
use crate::tree::model::ModelTree;
use proptest::prelude::*;

/// A store with all that a snapshot holds.
fn store() -> (ModelTree, Meta) {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    let record = LeaseRecord {
        ttl: 60,
        remaining: 5,
        granted_at: 9,
    };
    lease::grant(&mut tree, &mut meta, 77, &record).unwrap();
    state::put(&mut tree, Space::ALARM, &[1, 0, 0, 0, 0, 0, 0, 0, 2], b"").unwrap();
    meta.extra = vec![1];
    for n in 0..40u8 {
        let mut txn = WriteTxn::begin(&mut tree, &mut meta);
        let lease = if n % 7 == 0 { 77 } else { 0 };
        txn.put(&[n % 5], &vec![n; usize::from(n) * 300], lease)
            .unwrap();
        if n % 9 == 8 {
            txn.delete(&[(n + 1) % 5]).unwrap();
        }
        txn.finish();
    }
    compact(&mut meta, 20).unwrap();
    compact_step(&mut tree, &mut meta, 7).unwrap();
    (tree, meta)
}

/// The whole file, in steps of the least size.
fn written(tree: &ModelTree, meta: &Meta) -> Vec<u8> {
    let mut writer = SnapshotWriter::begin(tree, meta, 3, 4).unwrap();
    let view = View::new(tree, meta.horizon());
    let mut out = Vec::new();
    while writer.remaining() > 0 {
        writer.step(&view, meta, (1, 3), &mut out).unwrap();
        assert_eq!(
            writer.header().file_bytes() - out.len() as u64,
            writer.remaining()
        );
    }
    out
}

fn restored(file: &[u8]) -> Result<(ModelTree, Meta, Vec<Vec<u8>>), SnapshotError> {
    let mut reader = SnapshotReader::open(file)?;
    let header = *reader.header();
    let (mut tree, mut meta) = (ModelTree::new(), Meta::to_restore(header.compacted));
    let mut alarms = Vec::new();
    while let Some(record) = reader.next_record()? {
        match record {
            Record::Lease { id, ttl, remaining } => {
                let record = LeaseRecord {
                    ttl,
                    remaining,
                    granted_at: 0,
                };
                lease::grant(&mut tree, &mut meta, id, &record).unwrap();
            }
            Record::Alarm(name) => alarms.push(name.to_vec()),
            Record::Event(event) => restore_event(&mut tree, &mut meta, &event).unwrap(),
        }
    }
    meta.revision = header.revision;
    Ok((tree, meta, alarms))
}

/// All events, without what they followed, and the pairs at a revision.
fn history(tree: &ModelTree, meta: &Meta) -> Vec<String> {
    let view = View::new(tree, meta.horizon());
    let mut all = Vec::new();
    let mut note = |event: &Event<'_>| {
        let event = Event {
            prev: Revision::NONE,
            ..*event
        };
        all.push(format!("{event:?}"));
        Ok(true)
    };
    view.history_part(Revision::NONE, i64::MAX - 1, usize::MAX, &mut note)
        .unwrap();
    for revision in meta.compacted..=meta.revision {
        for key in 0..5u8 {
            all.push(format!("{:?}", view.get_at(&[key], revision).unwrap()));
        }
    }
    all
}

#[test]
fn a_restored_store_has_the_same_history() {
    let (tree, meta) = store();
    let file = written(&tree, &meta);
    assert_eq!(file.len() % 512, 0);
    let (other, other_meta, alarms) = restored(&file).unwrap();
    assert_eq!(history(&other, &other_meta), history(&tree, &meta));
    assert_eq!(alarms, [[1, 0, 0, 0, 0, 0, 0, 0, 2]]);
    assert_eq!(
        (
            other_meta.revision,
            other_meta.compacted,
            other_meta.live_bytes
        ),
        (meta.revision, meta.compacted, meta.live_bytes)
    );
    let left = lease::get(&other, 77).unwrap().map(|lease| lease.left());
    assert_eq!(left, Some(5));
    let keys = |tree| {
        let mut keys = Vec::new();
        lease::keys(tree, 77, b"", &mut |key| {
            keys.push(key.to_vec());
            true
        })
        .unwrap();
        keys
    };
    assert_eq!(keys(&other), keys(&tree));

    // What the purge had not come to is purged there, too, and then both are alike again.
    let purged = |mut tree: ModelTree, mut meta: Meta| {
        while !compact_step(&mut tree, &mut meta, 10).unwrap() {}
        (history(&tree, &meta), meta.live_bytes)
    };
    assert_eq!(purged(other, other_meta), purged(tree, meta));
}

#[test]
fn an_empty_store_has_a_snapshot() {
    let file = written(&ModelTree::new(), &Meta::default());
    assert_eq!(file.len(), 512);
    let (tree, meta, _) = restored(&file).unwrap();
    assert_eq!((tree, meta), (ModelTree::new(), Meta::to_restore(-1)));
}

#[test]
fn a_purge_that_goes_on_ends_a_snapshot() {
    let (mut tree, mut meta) = store();
    let mut writer = SnapshotWriter::begin(&tree, &meta, 3, 4).unwrap();
    let mut out = Vec::new();
    let step = |writer: &mut SnapshotWriter, tree: &ModelTree, meta: &Meta, out: &mut Vec<u8>| {
        writer.step(&View::new(tree, meta.horizon()), meta, (1, 3), out)
    };
    step(&mut writer, &tree, &meta, &mut out).unwrap();
    // Writes and another compaction do not matter as long as nothing is purged.
    let mut txn = WriteTxn::begin(&mut tree, &mut meta);
    txn.put(b"new", b"value", 0).unwrap();
    txn.finish();
    compact(&mut meta, 30).unwrap();
    step(&mut writer, &tree, &meta, &mut out).unwrap();
    compact_step(&mut tree, &mut meta, 1).unwrap();
    let ended = step(&mut writer, &tree, &meta, &mut out);
    assert!(matches!(
        ended,
        Err(crate::mvcc::Error::Compacted { compacted: 30 })
    ));
}

#[test]
fn the_format_is_what_it_was() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    let record = LeaseRecord {
        ttl: 2,
        remaining: 1,
        granted_at: 3,
    };
    lease::grant(&mut tree, &mut meta, 5, &record).unwrap();
    let mut txn = WriteTxn::begin(&mut tree, &mut meta);
    txn.put(b"k", b"vv", 5).unwrap();
    txn.finish();
    let file = written(&tree, &meta);
    let records = [
        // The lease.
        &[
            5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        ][..],
        // The event: its place, flags, creation, version, lease, lengths, key and value.
        &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
        b"kvv",
    ]
    .concat();
    let mut expected = b"quoinsnp\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
    expected.extend_from_slice(&[0xff; 8]);
    for number in [1, 1, 0, records.len() as u64, 3, 4] {
        expected.extend_from_slice(&number.to_le_bytes());
    }
    expected.resize(124, 0);
    expected.extend_from_slice(&crc32fast::hash(&expected.clone()).to_le_bytes());
    expected.extend_from_slice(&(records.len() as u32).to_le_bytes());
    let numbered = [&[0; 8], &records[..]].concat();
    expected.extend_from_slice(&crc32fast::hash(&numbered).to_le_bytes());
    expected.extend_from_slice(&records);
    expected.resize(512, 0);
    assert_eq!(file, expected);
}

proptest! {
    #[test]
    fn no_flipped_bit_passes(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (tree, meta) = store();
        let mut file = written(&tree, &meta);
        let at = place.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(restored(&file).is_err(), "byte {at}");
        file[at] ^= 1 << bit;
        prop_assert!(restored(&file[..at]).is_err(), "cut at {at}");
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(restored(&bytes).is_err());
    }
}

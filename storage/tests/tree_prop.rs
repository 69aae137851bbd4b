//! The tree against a plain map, with histories that shrink to the shortest that fails.

mod tree_support;

use proptest::collection::vec;
use proptest::prelude::*;
use quoin_storage::disk::Disk;
use quoin_storage::disk::sim::SimDisk;
use quoin_storage::tree::{Interval, TreeId, TreeRead, TreeWrite, check};
use std::sync::Arc;
use tree_support::*;

#[derive(Debug, Clone)]
enum Op {
    Insert {
        key: Vec<u8>,
        len: usize,
        counted: bool,
    },
    /// A key above all others of its kind.
    Append {
        len: usize,
    },
    /// A look at a key that the next operation may change.
    Look {
        key: Vec<u8>,
    },
    Remove {
        key: Vec<u8>,
    },
    RemoveRange {
        start: Vec<u8>,
        most: usize,
    },
    Commit,
    Abort,
    Checkpoint,
    Reopen,
    Read {
        start: Vec<u8>,
        end: Vec<u8>,
    },
}

/// Few different keys, close to each other, of all lengths.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(0u8..4, 0..6),
        2 => (0u8..3, 0usize..1200).prop_map(|(byte, len)| vec![byte; len]),
        1 => (vec(0u8..3, 3), 500usize..9000).prop_map(|(end, len)| {
            let mut key = vec![1; len];
            key.extend_from_slice(&end);
            key
        }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![4 => 0usize..300, 2 => 900usize..1100, 1 => 0usize..20_000];
    prop_oneof![
        12 => (key(), len, any::<bool>())
            .prop_map(|(key, len, counted)| Op::Insert { key, len, counted }),
        4 => (0usize..300).prop_map(|len| Op::Append { len }),
        4 => key().prop_map(|key| Op::Look { key }),
        5 => key().prop_map(|key| Op::Remove { key }),
        2 => (key(), 1usize..40).prop_map(|(start, most)| Op::RemoveRange { start, most }),
        2 => Just(Op::Commit),
        1 => Just(Op::Abort),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Reopen),
        2 => (key(), key()).prop_map(|(start, end)| Op::Read { start, end }),
    ]
}

fn run(ops: &[Op]) {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut writer, mut shared) = open_at(&disk, options()).expect("a new file");
    let mut durable = Model::default();
    let mut committed = Model::default();
    let mut model = Model::default();
    let tree = TreeId::Key;
    for (number, op) in ops.iter().enumerate() {
        let mut txn = writer.begin();
        match op {
            Op::Insert { key, len, counted } => {
                let value: Vec<u8> = (0..*len).map(|i| (i + number) as u8).collect();
                txn.insert(tree, key, &[&value], *counted).expect("room");
                model.maps[0].insert(key.clone(), (value, *counted));
            }
            Op::Append { len } => {
                let key = [&[9], &(number as u32).to_be_bytes()[..]].concat();
                txn.insert(tree, &key, &[&vec![7; *len]], true)
                    .expect("room");
                model.maps[0].insert(key, (vec![7; *len], true));
            }
            Op::Look { key } => {
                txn.warm(tree, &[key, &[1, 2], &[9, 9]]);
                assert_eq!(
                    txn.get_to_change(tree, key).expect("sound"),
                    model.maps[0].get(key).map(|(value, _)| &value[..])
                );
            }
            Op::Remove { key } => {
                let had = txn.remove(tree, key).expect("sound");
                assert_eq!(had, model.maps[0].remove(key).is_some());
            }
            Op::RemoveRange { start, most } => {
                let inside = model.maps[0].range(start.clone()..).take(*most);
                let keys: Vec<Vec<u8>> = inside.map(|(key, _)| key.clone()).collect();
                for key in keys {
                    assert!(txn.remove(tree, &key).expect("sound"));
                    model.maps[0].remove(&key);
                }
            }
            Op::Read { start, end } => {
                assert_eq!(
                    txn.get(tree, start).expect("sound"),
                    model.maps[0].get(start).map(|(value, _)| &value[..])
                );
                if start <= end {
                    let end = Some(&end[..]);
                    let interval = Interval { start, end };
                    compare_interval(&txn, &model, tree, interval).expect("sound");
                }
            }
            Op::Commit => {
                txn.commit(b"");
                committed = model.clone();
                writer.check().expect("sound");
                continue;
            }
            Op::Abort => {
                drop(txn);
                model = committed.clone();
                writer.audit();
                continue;
            }
            Op::Checkpoint => {
                txn.suspend();
                writer.checkpoint_now().expect("no fault");
                durable = committed.clone();
                continue;
            }
            Op::Reopen => {
                drop(txn);
                drop((writer, shared));
                check(&*disk, NAME).expect("sound");
                (writer, shared) = open_at(&disk, options()).expect("sound");
                committed = durable.clone();
                model = durable.clone();
                continue;
            }
        }
        txn.suspend();
    }
    let reader = shared.reader().expect("a slot");
    compare_snapshot(&reader.pin(), &committed).expect("sound");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_history_reads_like_a_map(ops in vec(op(), 1..150)) {
        run(&ops);
    }
}

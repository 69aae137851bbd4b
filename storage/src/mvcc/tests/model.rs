//! Random histories over the tree's plain model.

use super::history::{Model, Step, check, compact_both, steps, transact};
use crate::mvcc::{Meta, compact_step};
use crate::tree::model::ModelTree;
use proptest::prelude::*;

fn run(steps: &[Step]) {
    let mut working = (ModelTree::new(), Meta::default(), Model::default());
    let mut committed = working.clone();
    for step in steps {
        let (tree, meta, model) = &mut working;
        match step {
            Step::Txn(ops) => transact(tree, meta, model, ops),
            Step::Compact(part) => compact_both(meta, model, *part),
            Step::Purge(events) => {
                let done = compact_step(tree, meta, *events as usize).unwrap();
                assert_eq!(done, !meta.purge_pending());
                check(tree, meta, model);
            }
            Step::Commit => committed = working.clone(),
            Step::Abort => working = committed.clone(),
            Step::Restart => {
                let blob = committed.1.encode();
                working = committed.clone();
                working.1 = Meta::open(&working.0, &blob).unwrap();
                assert_eq!(working.1, committed.1);
            }
        }
    }
    let (tree, meta, model) = &mut working;
    check(tree, meta, model);
    while !compact_step(tree, meta, 3).unwrap() {
        check(tree, meta, model);
    }
    check(tree, meta, model);
    let before = tree.clone();
    assert!(compact_step(tree, meta, 3).unwrap());
    assert_eq!(*tree, before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_store_answers_as_the_model(steps in steps(60)) {
        run(&steps);
    }
}

//! A store that runs full.

use super::model::Model;
use super::random::{delete_range, put};
use super::*;
use proptest::prelude::*;

fn entry<'e>(index: u64, requests: &[Request<'e>]) -> Entry<'e, u64> {
    let commands = requests
        .iter()
        .enumerate()
        .map(|(at, request)| Command {
            waiter: at as u64,
            request: request.clone(),
        })
        .collect();
    Entry {
        index,
        term: 1,
        bytes: 0,
        conf_state: None,
        commands,
    }
}

fn write() -> impl Strategy<Value = Request<'static>> {
    let txn = (
        prop::collection::vec(put(), 0..3),
        prop::collection::vec(delete_range(), 0..3),
    );
    let txn = txn.prop_map(|(puts, deletes)| TxnRequest {
        success: puts
            .into_iter()
            .map(RequestOp::Put)
            .chain(deletes.into_iter().map(RequestOp::DeleteRange))
            .collect(),
        ..Default::default()
    });
    prop_oneof![
        4 => put().prop_map(Request::Put),
        1 => delete_range().prop_map(Request::DeleteRange),
        1 => txn.prop_map(Request::Txn),
        1 => (0..20i64).prop_map(|revision| {
            Request::Compact(CompactRequest { revision, physical: false })
        }),
    ]
}

proptest! {
    /// Wherever space ends, in the reserve or in the middle of a command: a command happens or
    /// is refused, and what is refused has left no trace.
    #[test]
    fn what_is_refused_has_not_happened(
        history in prop::collection::vec(write(), 1..50),
        left in 0..6_000usize,
        reserve in 0..1_500usize,
        batch in 1..60usize,
    ) {
        let store = MapStore { left: Some(left), reserve, ..Default::default() };
        let mut applier = Applier::open(store, BatchLimits::default()).unwrap();
        let mut model = Model::new();
        for (index, requests) in history.chunks(batch).enumerate() {
            let mut outcomes = Vec::new();
            applier.apply(&[entry(index as u64 + 1, requests)], &mut outcomes).unwrap();
            prop_assert_eq!(outcomes.len(), requests.len());
            for (request, (_, outcome)) in requests.iter().zip(outcomes) {
                match outcome {
                    Outcome::Failed { error: Error::NoSpace, revision } => {
                        prop_assert_eq!(revision, model.revision());
                    }
                    Outcome::Failed { error, .. } => {
                        prop_assert_eq!(model.serve(request), Err(error));
                    }
                    Outcome::Put { revision } | Outcome::Done { revision, .. } => {
                        prop_assert!(model.serve(request).is_ok());
                        prop_assert_eq!(revision, model.revision());
                    }
                }
            }
        }
        let view = View::new(&applier.store().tree, applier.meta().horizon());
        let mut response = RangeResponse::default();
        range(&view, &all(), &mut response).unwrap();
        let expected: Vec<_> = model.now().values().cloned().collect();
        prop_assert_eq!(response.kvs, expected);
    }
}

#[test]
fn with_only_the_reserve_left_deletes_and_compaction_go_on() {
    let mut server = Server::new();
    server.put("a", "1");
    let store = MapStore {
        left: Some(500),
        reserve: 500,
        ..server.applier.store().clone()
    };
    server.applier = Applier::open(store, BatchLimits::default()).unwrap();
    let put = PutRequest {
        key: b"b",
        value: b"2",
        ..Default::default()
    };
    assert_eq!(
        server.serve(&Request::Put(put.clone())),
        Err(Error::NoSpace)
    );
    let txn = TxnRequest {
        success: vec![RequestOp::Put(put)],
        ..Default::default()
    };
    assert_eq!(server.txn(txn), Err(Error::NoSpace));
    assert_eq!(server.revision(), 2);
    assert_eq!(server.delete("a", ""), 1);
    assert_eq!(server.compact(3), Ok(()));
    server.purge(10);
    assert_eq!(server.range(all()).unwrap().count, 0);
}

#[test]
fn a_command_larger_than_the_reserve_fails_alone() {
    let mut server = Server::new();
    for key in 0..20 {
        server.put(&format!("many{key}"), "v");
    }
    server.put("one", "v");
    let store = MapStore {
        left: Some(1_000),
        reserve: 900,
        ..server.applier.store().clone()
    };
    server.applier = Applier::open(store, BatchLimits::default()).unwrap();
    let delete = |key, range_end| {
        Request::DeleteRange(DeleteRangeRequest {
            key,
            range_end,
            prev_kv: false,
        })
    };
    let index = server.applier.meta().applied_index + 1;
    let requests = [delete(b"many", b"n"), delete(b"one", b"")];
    let mut outcomes = Vec::new();
    server
        .applier
        .apply(&[entry(index, &requests)], &mut outcomes)
        .unwrap();
    assert!(matches!(
        outcomes[0].1,
        Outcome::Failed {
            error: Error::NoSpace,
            revision: 22
        }
    ));
    assert!(matches!(outcomes[1].1, Outcome::Done { revision: 23, .. }));
    assert_eq!(server.range(all()).unwrap().count, 20);
}

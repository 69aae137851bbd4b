//! etcd's rules for puts, deletes, transactions and compactions, one by one.

use super::*;
use quoin_storage::mvcc::Revision;

fn get(server: &mut Server, key: &str) -> OwnedKeyValue {
    server.range(span(key, "")).unwrap().kvs.remove(0)
}

#[test]
fn versions_count_from_the_creation() {
    let mut server = Server::new();
    assert_eq!(server.revision(), 1, "an empty store");
    assert_eq!(server.put("k", "1"), 2);
    assert_eq!(server.put("k", "2"), 3);
    let kv = get(&mut server, "k");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    server.delete("k", "");
    server.put("k", "3");
    let kv = get(&mut server, "k");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn a_put_that_keeps_something_needs_the_key() {
    let mut server = Server::new();
    let keep = PutRequest {
        key: b"k",
        ignore_value: true,
        prev_kv: true,
        ..Default::default()
    };
    let lease = PutRequest {
        key: b"k",
        value: b"v",
        ignore_lease: true,
        ..Default::default()
    };
    for request in [&keep, &lease] {
        assert_eq!(
            server.serve(&Request::Put(request.clone())),
            Err(Error::KeyNotFound)
        );
    }
    assert_eq!(server.revision(), 1);
    server.put("k", "old");
    let answer = server.serve(&Request::Put(keep)).unwrap();
    let Response::Put(PutResponse {
        prev_kv: Some(prev),
    }) = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!((prev.value, prev.version), (b"old".to_vec(), 1));
    let kv = get(&mut server, "k");
    assert_eq!(
        (kv.value, kv.version, kv.mod_revision),
        (b"old".to_vec(), 2, 3)
    );
    server.serve(&Request::Put(lease)).unwrap();
    assert_eq!(get(&mut server, "k").value, b"v");
}

#[test]
fn an_unknown_lease_is_noticed_before_a_missing_key() {
    let mut server = Server::new();
    let put = PutRequest {
        key: b"k",
        lease: 7,
        ignore_value: true,
        ..Default::default()
    };
    assert_eq!(
        server.serve(&Request::Put(put.clone())),
        Err(Error::LeaseNotFound)
    );
    let txn = always(vec![RequestOp::Put(put.clone())]);
    assert_eq!(server.txn(txn), Err(Error::LeaseNotFound));
}

#[test]
fn a_delete_of_nothing_makes_no_revision() {
    let mut server = four();
    assert_eq!(server.delete("x", ""), 0);
    assert_eq!(server.delete("x", "\0"), 0);
    assert_eq!(server.delete("d", "a"), 0, "an empty interval");
    assert_eq!(server.revision(), 5);
    let request = DeleteRangeRequest {
        key: b"b",
        range_end: b"d",
        prev_kv: true,
    };
    let (answer, revision) = server.serve_with_revision(&Request::DeleteRange(request));
    let Ok(Response::DeleteRange(response)) = answer else {
        panic!("{answer:?}")
    };
    let values: Vec<_> = response.prev_kvs.iter().map(|kv| kv.value[0]).collect();
    assert_eq!(
        (response.deleted, values, revision),
        (2, vec![b'3', b'2'], 6)
    );
}

/// Whether a condition holds.
fn holds(server: &mut Server, compare: Compare<'_>) -> bool {
    server
        .txn(TxnRequest {
            compare: vec![compare],
            ..Default::default()
        })
        .unwrap()
        .succeeded
}

#[test]
fn a_missing_key_has_zeros_but_no_value() {
    use CompareResult::*;
    use CompareTarget::*;
    let mut server = four();
    for target in [Version(0), Create(0), Mod(0), Lease(0)] {
        assert!(
            holds(&mut server, compare("x", Equal, target)),
            "{target:?}"
        );
        assert!(
            !holds(&mut server, compare("x", Greater, target)),
            "{target:?}"
        );
        let none = Compare {
            range_end: b"y",
            ..compare("x", Equal, target)
        };
        assert!(holds(&mut server, none), "an interval without keys");
        let none = Compare {
            range_end: b"a",
            ..compare("x", Equal, target)
        };
        assert!(
            holds(&mut server, none),
            "an interval that ends before it starts"
        );
    }
    for result in [Equal, NotEqual, Greater, Less] {
        assert!(
            !holds(&mut server, compare("x", result, Value(b""))),
            "{result:?}"
        );
        let none = Compare {
            range_end: b"y",
            ..compare("x", result, Value(b""))
        };
        assert!(!holds(&mut server, none), "{result:?}");
    }
    assert!(holds(&mut server, compare("x", Greater, Mod(-1))));
    assert!(holds(&mut server, compare("x", Less, Version(1))));
}

#[test]
fn a_compare_of_an_interval_is_of_every_key() {
    use CompareResult::*;
    use CompareTarget::*;
    let mut server = four();
    let every = |result, target| Compare {
        range_end: b"\0",
        ..compare("b", result, target)
    };
    assert!(holds(&mut server, every(Greater, Mod(2))));
    assert!(!holds(&mut server, every(Greater, Mod(3))));
    assert!(holds(&mut server, every(Less, Value(b"4"))));
    assert!(holds(&mut server, every(NotEqual, Value(b"4"))));
    assert!(!holds(&mut server, every(NotEqual, Value(b"1"))));
    assert!(holds(&mut server, every(Equal, Version(1))));
}

#[test]
fn no_condition_holds() {
    let mut server = Server::new();
    let response = server.txn(always(vec![put_op("k", "v")])).unwrap();
    assert!(response.succeeded);
    assert_eq!(server.revision(), 2);
}

#[test]
fn every_condition_sees_the_state_before_the_txn() {
    let mut server = Server::new();
    let missing = || vec![compare("k", CompareResult::Equal, CompareTarget::Mod(0))];
    let inner = TxnRequest {
        compare: missing(),
        success: vec![put_op("inner", "was missing")],
        failure: vec![put_op("inner", "was there")],
    };
    let txn = TxnRequest {
        compare: missing(),
        success: vec![put_op("k", "v"), RequestOp::Txn(inner)],
        failure: vec![],
    };
    let response = server.txn(txn).unwrap();
    let [_, Response::Txn(inner)] = &response.responses[..] else {
        panic!("{response:?}")
    };
    assert!(
        inner.succeeded,
        "although k was put before the nested one ran"
    );
    assert_eq!(get(&mut server, "inner").value, b"was missing");
}

#[test]
fn reads_see_the_writes_before_them_in_the_txn() {
    let mut server = four();
    let in_txn = RequestOp::Range(span("a", "\0"));
    let at = |revision| {
        RequestOp::Range(RangeRequest {
            revision,
            ..span("a", "\0")
        })
    };
    let txn = always(vec![
        in_txn.clone(),
        put_op("x", "new"),
        in_txn.clone(),
        delete_op("a", "c"),
        in_txn,
        at(5),
        at(3),
    ]);
    let response = server.txn(txn).unwrap();
    let seen: Vec<_> = response
        .responses
        .iter()
        .filter_map(|response| match response {
            Response::Range(range) => Some(keys(range).concat()),
            _ => None,
        })
        .collect();
    assert_eq!(seen, ["abcd", "abcdx", "cdx", "abcd", "ab"]);
    assert_eq!(server.revision(), 6);
}

#[test]
fn a_txn_is_one_revision_with_its_changes_in_order() {
    let mut server = four();
    server
        .txn(always(vec![
            put_op("z", "1"),
            nested(vec![delete_op("c", "\0")], vec![]),
            put_op("a", "2"),
        ]))
        .unwrap();
    let view = View::new(
        &server.applier.store().tree,
        server.applier.meta().horizon(),
    );
    let mut changes = Vec::new();
    view.events(Revision::first(6), &mut |event| {
        assert_eq!(event.revision.main, 6);
        changes.push((
            event.revision.sub,
            String::from_utf8(event.key.to_vec()).unwrap(),
            event.tombstone,
        ));
        Ok(true)
    })
    .unwrap();
    let changes: Vec<_> = changes
        .iter()
        .map(|(sub, key, gone)| (*sub, &key[..], *gone))
        .collect();
    // Also z, which the transaction itself has put: a delete from a key on clashes with nothing.
    assert_eq!(
        changes,
        [
            (0, "z", false),
            (1, "c", true),
            (2, "d", true),
            (3, "z", true),
            (4, "a", false)
        ]
    );
}

#[test]
fn a_txn_that_changes_nothing_makes_no_revision() {
    let mut server = four();
    let (answer, revision) = server.serve_with_revision(&Request::Txn(TxnRequest {
        compare: vec![compare("a", CompareResult::Equal, CompareTarget::Mod(9))],
        success: vec![put_op("a", "1")],
        failure: vec![range_op("a"), delete_op("x", "y"), nested(vec![], vec![])],
    }));
    let Ok(Response::Txn(response)) = answer else {
        panic!("{answer:?}")
    };
    assert!(!response.succeeded);
    assert_eq!(
        (response.responses.len(), revision, server.revision()),
        (3, 5, 5)
    );
}

#[test]
fn a_txn_is_refused_whole_for_what_its_path_holds_and_for_nothing_else() {
    let mut server = four();
    let bad = [
        (
            RequestOp::Range(RangeRequest {
                revision: 6,
                ..all()
            }),
            Error::FutureRevision,
        ),
        (
            RequestOp::Put(PutRequest {
                key: b"x",
                ignore_value: true,
                ..Default::default()
            }),
            Error::KeyNotFound,
        ),
        (
            RequestOp::Put(PutRequest {
                key: b"a",
                lease: 9,
                ..Default::default()
            }),
            Error::LeaseNotFound,
        ),
    ];
    for (op, error) in bad {
        for op in [op.clone(), nested(vec![op], vec![])] {
            let ops = vec![put_op("k", "v"), op];
            assert_eq!(server.txn(always(ops.clone())), Err(error));
            assert_eq!(server.revision(), 5);
            // In the branch that is not taken it does no harm.
            let failure = TxnRequest {
                failure: ops,
                ..Default::default()
            };
            assert_eq!(
                server.txn(failure).map(|response| response.succeeded),
                Ok(true)
            );
        }
    }
    server.compact(3).unwrap();
    let old = RequestOp::Range(RangeRequest {
        revision: 2,
        ..all()
    });
    assert_eq!(server.txn(always(vec![old.clone()])), Err(Error::Compacted));
    assert_eq!(
        server.txn(always(vec![put_op("k", "v"), old])),
        Err(Error::Compacted)
    );
}

#[test]
fn a_negative_revision_means_the_newest_alone_but_is_compacted_in_a_txn() {
    let mut server = four();
    let read = || RangeRequest {
        revision: -1,
        ..all()
    };
    let in_txn = || always(vec![RequestOp::Range(read())]);
    assert_eq!(
        server.txn(in_txn()).map(|_| ()),
        Ok(()),
        "nothing is compacted yet"
    );
    server.compact(2).unwrap();
    assert_eq!(server.txn(in_txn()), Err(Error::Compacted));
    assert_eq!(server.range(read()).unwrap().count, 4);
}

#[test]
fn a_put_cannot_keep_the_value_of_a_key_that_its_txn_has_deleted() {
    let mut server = four();
    let keep = |key| {
        RequestOp::Put(PutRequest {
            key,
            ignore_value: true,
            ..Default::default()
        })
    };
    assert_eq!(
        server.txn(always(vec![delete_op("b", "\0"), keep(b"c")])),
        Err(Error::KeyNotFound)
    );
    assert_eq!(server.revision(), 5);
    assert!(
        server
            .txn(always(vec![delete_op("b", "\0"), keep(b"a")]))
            .is_ok()
    );
    assert!(
        server
            .txn(always(vec![keep(b"a"), delete_op("a", "\0")]))
            .is_ok()
    );
}

#[test]
fn which_txns_need_no_log_entry() {
    let range = |serializable| {
        RequestOp::Range(RangeRequest {
            serializable,
            ..span("a", "")
        })
    };
    let compares = TxnRequest {
        compare: vec![compare("a", CompareResult::Equal, CompareTarget::Mod(0))],
        ..Default::default()
    };
    assert!(is_read_only(&compares));
    assert!(
        !is_serializable(&compares),
        "unlike etcd's, it sees the newest state"
    );
    let mixed = always(vec![range(true), range(false)]);
    assert!(is_read_only(&mixed) && !is_serializable(&mixed));
    let local = TxnRequest {
        failure: vec![range(true)],
        ..always(vec![range(true)])
    };
    assert!(is_read_only(&local) && is_serializable(&local));
    assert!(
        !is_read_only(&always(vec![nested(vec![], vec![])])),
        "nesting is for writes"
    );
    assert!(!is_read_only(&TxnRequest {
        failure: vec![put_op("a", "")],
        ..local
    }));
}

#[test]
fn a_read_only_txn_must_not_write() {
    let server = four();
    let view = View::new(
        &server.applier.store().tree,
        server.applier.meta().horizon(),
    );
    let failure = read_txn(&view, &always(vec![put_op("a", "")]), usize::MAX).unwrap_err();
    assert_eq!(failure.to_api(), Error::Unimplemented);
}

#[test]
fn which_revisions_can_be_compacted() {
    let mut server = four();
    assert_eq!(server.compact(-1), Err(Error::Compacted));
    assert_eq!(server.compact(6), Err(Error::FutureRevision));
    assert_eq!(server.compact(0), Ok(()));
    assert_eq!(server.compact(0), Err(Error::Compacted));
    assert_eq!(server.compact(5), Ok(()), "the newest");
    assert_eq!(server.compact(5), Err(Error::Compacted));
    assert_eq!(server.compact(4), Err(Error::Compacted));
    assert_eq!(server.revision(), 5, "a compaction makes no revision");
}

#[test]
fn a_delete_at_the_compacted_revision_stays() {
    let mut server = four();
    server.delete("a", "");
    server.delete("b", "");
    server.compact(6).unwrap();
    server.purge(1);
    let view = View::new(
        &server.applier.store().tree,
        server.applier.meta().horizon(),
    );
    let mut deletes = Vec::new();
    view.events(Revision::first(6), &mut |event| {
        deletes.push((event.revision.main, event.key.to_vec()));
        Ok(true)
    })
    .unwrap();
    assert_eq!(deletes, [(6, b"a".to_vec()), (7, b"b".to_vec())]);
    let at = |revision| RangeRequest { revision, ..all() };
    assert_eq!(server.range(at(6)).unwrap().count, 3);
    assert_eq!(server.range(at(7)).unwrap().count, 2);
}

#[test]
fn everything_deleted_and_compacted_the_revision_stands() {
    let mut server = four();
    server.delete("\0", "\0");
    server.compact(6).unwrap();
    server.purge(100);
    let store = server.applier.store().clone();
    server.applier = Applier::open(store, BatchLimits::default()).unwrap();
    assert_eq!(server.revision(), 6);
    assert_eq!(server.put("a", "1"), 7);
}

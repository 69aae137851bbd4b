//! What is refused before the store is asked.

use super::*;

#[test]
fn an_empty_key_is_refused_everywhere() {
    assert_eq!(
        admit(Request::Range(RangeRequest::default())),
        Err(Error::EmptyKey)
    );
    assert_eq!(
        admit(Request::Put(PutRequest::default())),
        Err(Error::EmptyKey)
    );
    assert_eq!(
        admit(Request::DeleteRange(DeleteRangeRequest::default())),
        Err(Error::EmptyKey)
    );
    for op in [put_op("", ""), range_op(""), delete_op("", "")] {
        let deep = nested(vec![], vec![op.clone()]);
        for op in [op, deep] {
            assert_eq!(admit_txn(always(vec![op.clone()])), Err(Error::EmptyKey));
            let failure = vec![op];
            assert_eq!(
                admit_txn(TxnRequest {
                    failure,
                    ..Default::default()
                }),
                Err(Error::EmptyKey)
            );
        }
    }
    let on_nothing = compare("", CompareResult::Equal, CompareTarget::Mod(0));
    let txn = TxnRequest {
        compare: vec![on_nothing],
        ..Default::default()
    };
    assert_eq!(admit_txn(txn), Err(Error::EmptyKey));
}

#[test]
fn what_is_ignored_must_not_be_given() {
    let value = PutRequest {
        key: b"k",
        value: b"v",
        ignore_value: true,
        ..Default::default()
    };
    assert_eq!(
        admit(Request::Put(value.clone())),
        Err(Error::ValueProvided)
    );
    let lease = PutRequest {
        key: b"k",
        lease: 1,
        ignore_lease: true,
        ..Default::default()
    };
    assert_eq!(admit(Request::Put(lease)), Err(Error::LeaseProvided));
    assert_eq!(
        admit_txn(always(vec![RequestOp::Put(value)])),
        Err(Error::ValueProvided)
    );
}

#[test]
fn each_list_of_a_txn_may_have_128_entries() {
    let ops = |n| vec![range_op("k"); n];
    let compares = |n| vec![compare("k", CompareResult::Equal, CompareTarget::Mod(0)); n];
    let full = TxnRequest {
        compare: compares(128),
        success: ops(128),
        failure: ops(128),
    };
    assert_eq!(admit_txn(full.clone()), Ok(()));
    for over in [
        TxnRequest {
            compare: compares(129),
            ..full.clone()
        },
        TxnRequest {
            success: ops(129),
            ..full.clone()
        },
        TxnRequest {
            failure: ops(129),
            ..full
        },
    ] {
        assert_eq!(admit_txn(over.clone()), Err(Error::TooManyOps));
        assert_eq!(
            validate::replicated(&Request::Txn(over)),
            Ok(()),
            "a limit of one member"
        );
    }
}

#[test]
fn a_nested_txn_may_use_what_the_longest_list_around_it_leaves() {
    let with = |around: usize, inside: usize| {
        let mut success = vec![range_op("k"); around - 1];
        success.push(nested(vec![range_op("k"); inside], vec![]));
        always(success)
    };
    assert_eq!(admit_txn(with(100, 28)), Ok(()));
    assert_eq!(admit_txn(with(100, 29)), Err(Error::TooManyOps));
    // The other branch counts too: only the longest list matters.
    let failure = vec![range_op("k"); 120];
    assert_eq!(
        admit_txn(TxnRequest {
            failure,
            ..with(1, 9)
        }),
        Err(Error::TooManyOps)
    );
}

#[test]
fn the_count_is_refused_before_the_keys_are_looked_at() {
    assert_eq!(
        admit_txn(always(vec![put_op("", ""); 129])),
        Err(Error::TooManyOps)
    );
}

#[test]
fn nesting_has_an_end() {
    let mut txn = always(vec![]);
    for _ in 1..crate::limits::TXN_DEPTH_MAX {
        txn = always(vec![RequestOp::Txn(txn)]);
    }
    assert_eq!(validate::replicated(&Request::Txn(txn.clone())), Ok(()));
    let deeper = Request::Txn(always(vec![RequestOp::Txn(txn)]));
    assert_eq!(validate::replicated(&deeper), Err(Error::TooManyOps));
}

#[test]
fn a_write_over_the_size_limit_is_refused() {
    let limits = validate::Limits {
        request_bytes: 10,
        lease_ttl_min: 2,
        ..Default::default()
    };
    let put = |value| {
        Request::Put(PutRequest {
            key: b"12345",
            value,
            ..Default::default()
        })
    };
    assert_eq!(validate::admit(&put(b"12345"), &limits), Ok(()));
    assert_eq!(
        validate::admit(&put(b"123456"), &limits),
        Err(Error::RequestTooLarge)
    );
    let txn = always(vec![
        put_op("12345", "123"),
        nested(vec![], vec![range_op("123")]),
    ]);
    assert_eq!(
        validate::admit(&Request::Txn(txn), &limits),
        Err(Error::RequestTooLarge)
    );
}

/// Whether one branch of a transaction may do all of this.
fn clashes(ops: Vec<RequestOp<'_>>) -> bool {
    let refused = admit_txn(always(ops.clone()));
    let in_else = admit_txn(TxnRequest {
        failure: ops,
        ..Default::default()
    });
    assert_eq!(refused, in_else);
    match refused {
        Ok(()) => false,
        Err(Error::DuplicateKey) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_key_may_be_put_once() {
    assert!(clashes(vec![put_op("a", "1"), put_op("a", "1")]));
    assert!(!clashes(vec![put_op("a", "1"), put_op("b", "1")]));
    let both = TxnRequest {
        compare: vec![],
        success: vec![put_op("a", "1")],
        failure: vec![put_op("a", "2")],
    };
    assert_eq!(admit_txn(both), Ok(()), "only one branch runs");
}

#[test]
fn a_put_must_not_meet_a_delete() {
    assert!(clashes(vec![put_op("a", "1"), delete_op("a", "")]));
    assert!(clashes(vec![delete_op("a", ""), put_op("a", "1")]));
    assert!(clashes(vec![put_op("b", "1"), delete_op("a", "c")]));
    assert!(!clashes(vec![put_op("c", "1"), delete_op("a", "c")]));
    assert!(!clashes(vec![put_op("a\0", "1"), delete_op("a", "")]));
    assert!(
        !clashes(vec![put_op("b", "1"), delete_op("c", "a")]),
        "an empty interval"
    );
}

#[test]
fn deletes_may_overlap() {
    assert!(!clashes(vec![
        delete_op("a", ""),
        delete_op("a", ""),
        delete_op("a", "c")
    ]));
    assert!(!clashes(vec![
        delete_op("a", "c"),
        nested(vec![delete_op("b", "d")], vec![])
    ]));
}

#[test]
fn the_branches_of_a_nested_txn_may_share_keys_with_each_other_only() {
    let one = |op: RequestOp<'static>| vec![op];
    assert!(!clashes(one(nested(
        one(put_op("a", "1")),
        one(put_op("a", "2"))
    ))));
    assert!(!clashes(one(nested(
        one(put_op("a", "1")),
        one(delete_op("a", ""))
    ))));
    let shared = nested(one(put_op("a", "1")), one(put_op("a", "2")));
    assert!(clashes(vec![shared.clone(), put_op("a", "3")]));
    assert!(clashes(vec![put_op("a", "3"), shared.clone()]));
    assert!(clashes(vec![
        shared.clone(),
        nested(vec![], one(put_op("a", "3")))
    ]));
    assert!(clashes(vec![delete_op("a", ""), shared.clone()]));
    assert!(clashes(vec![shared, delete_op("a", "")]));
}

#[test]
fn a_nested_delete_clashes_with_later_nested_puts_but_not_with_earlier_ones() {
    let put = || nested(vec![put_op("a", "1")], vec![]);
    let delete = || nested(vec![delete_op("a", "")], vec![]);
    assert!(clashes(vec![delete(), put()]));
    assert!(!clashes(vec![put(), delete()]));
    // What is let through runs in order.
    let mut server = Server::new();
    server.put("a", "0");
    let txn = always(vec![put(), range_op("a"), delete(), range_op("a")]);
    let response = server.txn(txn).unwrap();
    let counts: Vec<_> = [1, 3]
        .map(|at| match &response.responses[at] {
            Response::Range(range) => range.count,
            other => panic!("{other:?}"),
        })
        .into();
    assert_eq!(counts, [1, 0]);
    assert_eq!(server.revision(), 3, "all in one revision");
    assert_eq!(server.range(span("a", "")).unwrap().count, 0);
    assert_eq!(
        server
            .range(RangeRequest {
                revision: 2,
                ..span("a", "")
            })
            .unwrap()
            .count,
        1
    );
}

#[test]
fn a_delete_from_a_key_on_clashes_with_nothing() {
    assert!(!clashes(vec![put_op("b", "1"), delete_op("a", "\0")]));
    assert!(!clashes(vec![delete_op("\0", "\0"), put_op("b", "1")]));
    let mut server = four();
    server
        .txn(always(vec![delete_op("\0", "\0"), put_op("b", "new")]))
        .unwrap();
    let left = server.range(all()).unwrap();
    assert_eq!(keys(&left), ["b"]);
    assert_eq!(
        (left.kvs[0].version, left.kvs[0].create_revision),
        (1, 6),
        "created anew"
    );
    let old = server
        .range(RangeRequest {
            revision: 5,
            ..all()
        })
        .unwrap();
    assert_eq!(keys(&old), ["a", "b", "c", "d"]);
}

/// 2^16 lists that each hold all keys once more, and a chain of deletes: a check that copied or
/// compared everything at each level would not end.
#[test]
fn the_check_for_duplicates_takes_no_longer_than_reading_the_request() {
    let names: Vec<String> = (0..1 << 16).map(|at| format!("{at:06}")).collect();
    let mut level: Vec<RequestOp<'_>> = names.iter().map(|name| put_op(name, "")).collect();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| nested(pair.to_vec(), vec![]))
            .collect();
    }
    let txn = Request::Txn(always(level));
    assert_eq!(validate::replicated(&txn), Ok(()));

    let mut wide: Vec<RequestOp<'_>> = names.iter().map(|name| put_op(name, "")).collect();
    wide.extend(names.iter().map(|name| delete_op(&name[..5], "0")));
    let Request::Txn(_) = &txn else {
        unreachable!()
    };
    let mut deep = always(wide);
    for _ in 0..30 {
        deep = always(vec![RequestOp::Txn(deep), delete_op("x", "y")]);
    }
    assert_eq!(validate::replicated(&Request::Txn(deep)), Ok(()));
}

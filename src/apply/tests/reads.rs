//! etcd's rules for reading, one by one.

use super::*;
use crate::limits;

#[test]
fn the_forms_of_range_end() {
    let mut server = four();
    server.put("c\0", "x");
    server.put("\0", "first");
    let mut keys_of = |key, end| keys(&server.range(span(key, end)).unwrap()).concat();
    assert_eq!(keys_of("c", ""), "c");
    assert_eq!(keys_of("c", "\0"), "cc\0d");
    assert_eq!(keys_of("\0", "\0"), "\0abcc\0d");
    assert_eq!(
        keys_of("c", "d"),
        "cc\0",
        "a prefix: the last byte plus one"
    );
    assert_eq!(keys_of("a", "c"), "ab");
    assert_eq!(keys_of("c", "a"), "", "no error");
    assert_eq!(keys_of("c", "c"), "");
    let nothing = server.range(span("c", "a")).unwrap();
    assert_eq!(nothing, RangeResponse::default());
}

#[test]
fn count_is_of_all_keys_whatever_the_limit_and_the_filters() {
    let mut server = four();
    for sort_order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
        for sort_target in [SortTarget::Key, SortTarget::Mod, SortTarget::Value] {
            let request = RangeRequest {
                limit: 2,
                sort_order,
                sort_target,
                ..all()
            };
            let limited = server.range(request.clone()).unwrap();
            assert_eq!(
                (limited.kvs.len(), limited.more, limited.count),
                (2, true, 4)
            );
            let request = RangeRequest {
                min_mod_revision: 5,
                ..request
            };
            let filtered = server.range(request).unwrap();
            assert_eq!(
                (filtered.kvs.len(), filtered.more, filtered.count),
                (1, false, 4)
            );
        }
    }
    let one = RangeRequest {
        min_mod_revision: 3,
        ..span("a", "")
    };
    let filtered = server.range(one).unwrap();
    assert_eq!(
        (filtered.kvs.len(), filtered.count),
        (0, 1),
        "of one key, too"
    );
}

#[test]
fn more_is_said_only_if_there_is_more() {
    let mut server = four();
    for (limit, len, more) in [
        (4, 4, false),
        (3, 3, true),
        (5, 4, false),
        (0, 4, false),
        (-1, 4, false),
        (i64::MAX, 4, false),
    ] {
        let response = server.range(RangeRequest { limit, ..all() }).unwrap();
        assert_eq!(
            (response.kvs.len(), response.more),
            (len, more),
            "limit {limit}"
        );
    }
}

#[test]
fn more_is_relative_to_what_passes_the_filters() {
    let mut server = four();
    let request = RangeRequest {
        limit: 2,
        min_create_revision: 4,
        ..all()
    };
    let response = server.range(request).unwrap();
    assert_eq!((keys(&response), response.more), (vec!["c", "d"], false));
    let request = RangeRequest {
        limit: 2,
        max_mod_revision: 4,
        ..all()
    };
    let response = server.range(request).unwrap();
    assert_eq!((keys(&response), response.more), (vec!["a", "b"], true));
}

#[test]
fn count_only_returns_no_keys_and_never_more() {
    let mut server = four();
    let request = RangeRequest {
        limit: 1,
        count_only: true,
        min_mod_revision: 9,
        ..all()
    };
    let expected = RangeResponse {
        kvs: vec![],
        more: false,
        count: 4,
    };
    assert_eq!(server.range(request).unwrap(), expected);
}

#[test]
fn without_an_order_the_limit_cuts_before_the_values_are_sorted() {
    let mut server = four();
    let by_value = RangeRequest {
        limit: 2,
        sort_target: SortTarget::Value,
        ..all()
    };
    let response = server.range(by_value.clone()).unwrap();
    // The first three keys compete; d, with the least value, is not among them.
    assert_eq!(
        (keys(&response), response.more, response.count),
        (vec!["c", "b"], true, 4)
    );
    let ascending = RangeRequest {
        sort_order: SortOrder::Ascend,
        ..by_value.clone()
    };
    assert_eq!(keys(&server.range(ascending).unwrap()), ["d", "c"]);
    let filtered = RangeRequest {
        min_mod_revision: 1,
        ..by_value
    };
    assert_eq!(
        keys(&server.range(filtered).unwrap()),
        ["d", "c"],
        "a filter reads all"
    );
}

#[test]
fn every_target_sorts_both_ways() {
    let mut server = four();
    server.put("b", "3");
    for (target, ascending) in [
        (SortTarget::Key, "abcd"),
        (SortTarget::Version, "acdb"),
        (SortTarget::Create, "abcd"),
        (SortTarget::Mod, "acdb"),
        (SortTarget::Value, "dcba"),
    ] {
        for limit in [0, 3] {
            let request = RangeRequest {
                limit,
                sort_target: target,
                ..all()
            };
            let ask = |sort_order| RangeRequest {
                sort_order,
                ..request.clone()
            };
            let up = server.range(ask(SortOrder::Ascend)).unwrap();
            let down = server.range(ask(SortOrder::Descend)).unwrap();
            let cut = if limit == 0 { 4 } else { 3 };
            assert_eq!(keys(&up).concat(), ascending[..cut]);
            if target == SortTarget::Version {
                assert_eq!(
                    keys(&down).concat(),
                    "bacd"[..cut],
                    "equal ones stay in key order"
                );
            } else {
                let reversed: String = ascending.chars().rev().collect();
                assert_eq!(keys(&down).concat(), reversed[..cut]);
            }
        }
    }
}

#[test]
fn a_long_sorted_range_with_a_limit_keeps_only_what_it_needs() {
    let pairs: Vec<_> = (0..5_000)
        .map(|at| {
            (
                format!("{:05}", at * 7919 % 5_000),
                format!("{:04}", at % 10),
            )
        })
        .collect();
    let commands = pairs.iter().enumerate().map(|(at, (key, value))| {
        let put = PutRequest {
            key: key.as_bytes(),
            value: value.as_bytes(),
            ..Default::default()
        };
        Command {
            waiter: at as u64,
            request: Request::Put(put),
        }
    });
    let commands = commands.collect();
    let entry = Entry {
        index: 1,
        term: 1,
        bytes: 0,
        conf_state: None,
        commands,
    };
    let mut server = Server::new();
    server
        .applier
        .apply(&[entry], &mut { usize::MAX }, &mut Vec::new())
        .unwrap();
    let request = RangeRequest {
        limit: 3,
        sort_target: SortTarget::Mod,
        sort_order: SortOrder::Descend,
        keys_only: true,
        ..all()
    };
    let response = server.range(request).unwrap();
    let revisions: Vec<_> = response.kvs.iter().map(|kv| kv.mod_revision).collect();
    assert_eq!(
        (revisions, response.more, response.count),
        (vec![5_001, 5_000, 4_999], true, 5_000)
    );
}

#[test]
fn keys_only_leaves_out_the_value_and_nothing_else() {
    let mut server = four();
    for request in [
        all(),
        span("b", ""),
        RangeRequest {
            sort_target: SortTarget::Value,
            ..all()
        },
    ] {
        let whole = server.range(request.clone()).unwrap();
        let bare = server
            .range(RangeRequest {
                keys_only: true,
                ..request
            })
            .unwrap();
        let stripped = |kv: &OwnedKeyValue| OwnedKeyValue {
            value: vec![],
            ..kv.clone()
        };
        assert_eq!(bare.kvs, whole.kvs.iter().map(stripped).collect::<Vec<_>>());
        assert_eq!(bare.count, whole.count);
    }
}

#[test]
fn which_revisions_can_be_read() {
    let mut server = four();
    let mut count = |revision| {
        server
            .range(RangeRequest { revision, ..all() })
            .map(|r| r.count)
    };
    assert_eq!(count(0), Ok(4));
    assert_eq!(count(-3), Ok(4));
    assert_eq!(count(1), Ok(0));
    assert_eq!(count(3), Ok(2));
    assert_eq!(count(6), Err(Error::FutureRevision));
    server.compact(3).unwrap();
    let mut count = |revision| {
        server
            .range(RangeRequest { revision, ..all() })
            .map(|r| r.count)
    };
    assert_eq!(count(2), Err(Error::Compacted));
    assert_eq!(count(3), Ok(2), "the compacted revision itself is readable");
    assert_eq!(count(-3), Ok(4));
    // Refused even where nothing would be read.
    let empty = |revision| RangeRequest {
        revision,
        ..span("b", "a")
    };
    assert_eq!(server.range(empty(2)), Err(Error::Compacted));
    assert_eq!(server.range(empty(9)), Err(Error::FutureRevision));
    let (_, header) = server.serve_with_revision(&Request::Range(RangeRequest {
        revision: 3,
        ..all()
    }));
    assert_eq!(header, 5, "the header shows the newest");
}

/// Takes so many pairs and no more.
struct Few(usize);

impl KvSink for Few {
    fn push(&mut self, _: KeyValue<'_>) {
        self.0 -= 1;
    }

    fn full(&self) -> bool {
        self.0 == 0
    }
}

#[test]
fn a_sink_that_is_full_ends_the_read() {
    let server = four();
    let view = View::new(
        &server.applier.store().tree,
        server.applier.meta().horizon(),
    );
    for sort_target in [SortTarget::Key, SortTarget::Mod] {
        let request = RangeRequest {
            sort_target,
            ..all()
        };
        let failure = range(&view, &request, &mut Few(2)).unwrap_err();
        assert_eq!(failure.to_api(), Error::ResponseTooLarge);
        assert!(range(&view, &request, &mut Few(5)).is_ok());
    }
}

#[test]
fn a_read_only_txn_ends_where_its_room_ends() {
    let server = four();
    let view = View::new(
        &server.applier.store().tree,
        server.applier.meta().horizon(),
    );
    let txn = always(vec![RequestOp::Range(all()), RequestOp::Range(all())]);
    let whole = read_txn(&view, &txn, 1 << 20).unwrap();
    assert_eq!(whole.responses.len(), 2);
    let one_pair = 2 + size_of::<OwnedKeyValue>();
    assert!(read_txn(&view, &txn, 8 * one_pair).is_ok());
    let failure = read_txn(&view, &txn, 8 * one_pair - 1).unwrap_err();
    assert_eq!(failure.to_api(), Error::ResponseTooLarge);
}

/// What an order needs has a bound; a limit keeps it small.
#[test]
fn a_range_that_is_sorted_by_too_many_bytes_is_refused() {
    let (mut tree, mut meta) = (ModelTree::new(), Meta::default());
    let value = vec![b'v'; limits::SORTED_BYTES_MAX / 4];
    let mut txn = quoin_storage::mvcc::WriteTxn::begin(&mut tree, &mut meta);
    for key in [b"a", b"b", b"c", b"d"] {
        txn.put(key, &value, 0).unwrap();
    }
    txn.finish();
    let view = View::new(&tree, meta.horizon());
    let ask = |limit| RangeRequest {
        sort_target: SortTarget::Value,
        sort_order: SortOrder::Descend,
        keys_only: true,
        limit,
        ..all()
    };
    let failure = range(&view, &ask(0), &mut RangeResponse::default()).unwrap_err();
    assert_eq!(failure.to_api(), Error::ResponseTooLarge);
    let mut few = RangeResponse::default();
    range(&view, &ask(3), &mut few).unwrap();
    assert_eq!(few.kvs.len(), 3);
}

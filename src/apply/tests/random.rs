//! Random histories of every call, held against the model field by field.

use super::model::Model;
use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use quoin_storage::mvcc::lease::LeaseRecord;
use std::collections::BTreeMap;

/// Few, so that requests meet.
const KEYS: &[&[u8]] = &[
    b"a", b"aa", b"ab", b"b", b"ba", b"c", b"c\0", b"\xff", b"\0",
];
const ENDS: &[&[u8]] = &[b"", b"", b"\0", b"a", b"ab", b"b", b"c", b"d", b"\xff\xff"];
const VALUES: &[&[u8]] = &[b"", b"x", b"y", b"yy", b"z"];

pub fn key() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![
        12 => select(KEYS),
        1 => Just(&b""[..]),
    ]
}

fn range_end() -> impl Strategy<Value = &'static [u8]> {
    select(ENDS)
}

fn value() -> impl Strategy<Value = &'static [u8]> {
    select(VALUES)
}

/// Around the revisions that short histories have.
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 4 => 1..24i64, 1 => -2..0i64]
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![14 => Just(0i64), 3 => 1..4i64, 1 => Just(-1i64)]
}

fn filter() -> impl Strategy<Value = i64> {
    prop_oneof![5 => Just(0i64), 1 => 1..12i64]
}

fn flag() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn range() -> impl Strategy<Value = RangeRequest<'static>> {
    let orders = select(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend][..]);
    let targets = select(
        &[
            SortTarget::Key,
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ][..],
    );
    let limit = prop_oneof![2 => Just(0i64), 4 => 1..6i64, 1 => Just(i64::MAX), 1 => Just(-1i64)];
    let what = (key(), range_end(), limit, revision(), orders, targets);
    let how = (
        any::<bool>(),
        flag(),
        flag(),
        filter(),
        filter(),
        filter(),
        filter(),
    );
    (what, how).prop_map(
        |((key, range_end, limit, revision, sort_order, sort_target), how)| RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order,
            sort_target,
            serializable: how.0,
            keys_only: how.1,
            count_only: how.2,
            min_mod_revision: how.3,
            max_mod_revision: how.4,
            min_create_revision: how.5,
            max_create_revision: how.6,
        },
    )
}

pub fn put() -> impl Strategy<Value = PutRequest<'static>> {
    (key(), value(), lease(), flag(), flag(), flag()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            // Otherwise hardly any would keep its value and pass.
            value: if ignore_value && value == b"x" {
                b""
            } else {
                value
            },
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

pub fn delete_range() -> impl Strategy<Value = DeleteRangeRequest<'static>> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = Compare<'static>> {
    let results = select(
        &[
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
        ][..],
    );
    let target = prop_oneof![
        (0..4i64).prop_map(CompareTarget::Version),
        (0..12i64).prop_map(CompareTarget::Create),
        (0..12i64).prop_map(CompareTarget::Mod),
        (-1..3i64).prop_map(CompareTarget::Lease),
        value().prop_map(CompareTarget::Value),
    ];
    (key(), range_end(), results, target).prop_map(|(key, range_end, result, target)| Compare {
        key,
        range_end,
        result,
        target,
    })
}

fn txn() -> impl Strategy<Value = TxnRequest<'static>> {
    fn of(
        op: impl Strategy<Value = RequestOp<'static>> + Clone,
    ) -> impl Strategy<Value = TxnRequest<'static>> {
        let branch = prop::collection::vec(op, 0..4);
        (
            prop::collection::vec(compare(), 0..3),
            branch.clone(),
            branch,
        )
            .prop_map(|(compare, success, failure)| TxnRequest {
                compare,
                success,
                failure,
            })
    }
    let leaf = prop_oneof![
        range().prop_map(RequestOp::Range),
        put().prop_map(RequestOp::Put),
        delete_range().prop_map(RequestOp::DeleteRange),
    ];
    let op = leaf.prop_recursive(3, 16, 4, |op| of(op).prop_map(RequestOp::Txn));
    of(op)
}

pub fn request() -> impl Strategy<Value = Request<'static>> {
    prop_oneof![
        4 => range().prop_map(Request::Range),
        6 => put().prop_map(Request::Put),
        3 => delete_range().prop_map(Request::DeleteRange),
        6 => txn().prop_map(Request::Txn),
        1 => (-1..20i64, any::<bool>()).prop_map(|(revision, physical)| {
            Request::Compact(CompactRequest { revision, physical })
        }),
        3 => (0..4i64, -1..4i64).prop_map(|(id, ttl)| {
            let ttl = if ttl == 3 { 9_000_000_001 } else { ttl };
            Request::LeaseGrant(LeaseGrantRequest { ttl, id })
        }),
        1 => (0..4i64).prop_map(|id| Request::LeaseRevoke(LeaseRevokeRequest { id })),
        1 => prop::collection::vec(granted(), 0..4)
            .prop_map(|leases| Request::LeaseExpire(LeaseExpireRequest { leases })),
        1 => prop::collection::vec((granted(), -1..4i64), 0..4)
            .prop_map(|leases| Request::LeaseCheckpoint(LeaseCheckpointRequest { leases })),
    ]
}

/// Often one that is there: histories are short, and so are the indices of their entries.
fn granted() -> impl Strategy<Value = GrantedLease> {
    (0..4i64, 1..12u64).prop_map(|(id, granted_at)| GrantedLease { id, granted_at })
}

/// Runs a history on both. Physical compactions are answered late, which `batches` looks at.
fn check(history: &[Request<'static>], purge: usize) -> Result<(), TestCaseError> {
    let (mut server, mut model) = (Server::new(), Model::new());
    // What the model does not know: at which entry each lease was granted.
    let mut granted_at = BTreeMap::new();
    for (at, request) in history.iter().enumerate() {
        let mut request = request.clone();
        if let Request::Compact(compact) = &mut request {
            compact.physical = false;
        }
        let (answer, revision) = server.serve_with_revision(&request);
        let expected = match &request {
            Request::LeaseExpire(_) | Request::LeaseCheckpoint(_) => {
                upkeep(&mut model, &mut granted_at, &request);
                Ok(Response::Put(PutResponse::default()))
            }
            request => model.serve(request),
        };
        if let (Request::LeaseGrant(grant), Ok(_)) = (&request, &expected) {
            granted_at.insert(grant.id, server.applier.meta().applied_index);
        }
        prop_assert_eq!(&answer, &expected, "request {}: {:?}", at, request);
        prop_assert_eq!(revision, model.revision(), "request {}: {:?}", at, request);
        prop_assert_eq!(server.applier.meta().compacted, model.compacted());
        if at % 2 == 0 && server.applier.has_background() {
            server.applier.background(purge, &mut Vec::new()).unwrap();
        }
    }
    check_leases(&mut server, &model, &granted_at)?;
    // Every revision that must be readable is, whatever was purged.
    server.purge(purge);
    for revision in model.compacted().max(1)..=model.revision() {
        let request = Request::Range(RangeRequest { revision, ..all() });
        prop_assert_eq!(
            server.serve(&request),
            model.serve(&request),
            "at {}",
            revision
        );
    }
    Ok(())
}

/// The leader's own commands on the model.
fn upkeep(model: &mut Model, granted_at: &mut BTreeMap<i64, u64>, request: &Request<'_>) {
    match request {
        Request::LeaseExpire(expire) => {
            for lease in &expire.leases {
                let there = model.leases.contains_key(&lease.id);
                if there && granted_at[&lease.id] == lease.granted_at {
                    model.end(lease.id);
                }
            }
        }
        Request::LeaseCheckpoint(checkpoint) => {
            for (lease, left) in &checkpoint.leases {
                if let Some((ttl, remaining)) = model.leases.get_mut(&lease.id)
                    && granted_at[&lease.id] == lease.granted_at
                {
                    *remaining = if left > &0 && left < ttl { *left } else { 0 };
                }
            }
        }
        other => panic!("{other:?} is a client's"),
    }
}

/// Every lease has the times and the keys that it should.
fn check_leases(
    server: &mut Server,
    model: &Model,
    granted_at: &BTreeMap<i64, u64>,
) -> Result<(), TestCaseError> {
    let mut leases = BTreeMap::new();
    let visit = &mut |id, record: LeaseRecord| {
        leases.insert(id, (record.ttl, record.remaining, record.granted_at));
    };
    server.applier.leases(visit).unwrap();
    let expected: BTreeMap<_, _> = model
        .leases
        .iter()
        .map(|(id, (ttl, remaining))| (*id, (*ttl, *remaining, granted_at[id])))
        .collect();
    prop_assert_eq!(&leases, &expected);
    for id in -1..5 {
        let request = LeaseTimeToLiveRequest {
            id,
            keys: true,
            ..Default::default()
        };
        let answer = time_to_live(&server.applier.store().tree, &request, 5, 1 << 20).unwrap();
        let on_it = model.now().values().filter(|kv| kv.lease == id && id != 0);
        let keys: Vec<_> = on_it.map(|kv| kv.key.clone()).collect();
        prop_assert_eq!(answer.keys, keys);
        let there = model.leases.contains_key(&id);
        prop_assert_eq!(answer.ttl, if there { 5 } else { -1 });
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_answer_is_the_models(
        history in prop::collection::vec(request(), 1..40),
        purge in 1..5usize,
    ) {
        check(&history, purge)?;
    }

    #[test]
    fn validation_agrees_with_the_pairwise_rule(txn in txn()) {
        let mut model = Model::new();
        let request = Request::Txn(txn);
        let expected = model.serve(&request).err().filter(|e| {
            [Error::DuplicateKey, Error::EmptyKey, Error::ValueProvided, Error::LeaseProvided].contains(e)
        });
        prop_assert_eq!(validate::replicated(&request).err(), expected);
    }
}

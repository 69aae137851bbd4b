//! Sample messages, one of each shape, and strategies that make random ones.

use proptest::prelude::*;

use super::alarms;
use super::leases::{self, OwnedLeaseRequest};
use crate::api::{
    CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse,
    Header, OwnedKeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, Request,
    RequestOp, Response, SortOrder, SortTarget, TxnRequest, TxnResponse,
};

pub const HEADER: Header = Header {
    cluster_id: 0x0123_4567_89ab_cdef,
    member_id: 0xfedc_ba98_7654_3210,
    revision: 42,
    raft_term: 7,
};

pub fn put(value: &[u8]) -> PutRequest<'_> {
    PutRequest {
        key: b"key",
        value,
        lease: -2,
        prev_kv: true,
        ..PutRequest::default()
    }
}

pub fn range() -> RangeRequest<'static> {
    RangeRequest {
        key: b"a",
        range_end: b"bb",
        limit: 10,
        revision: 5,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        keys_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
        ..RangeRequest::default()
    }
}

pub fn txn() -> TxnRequest<'static> {
    let compare = |target| Compare {
        key: b"k",
        range_end: b"",
        result: CompareResult::Greater,
        target,
    };
    let delete = DeleteRangeRequest {
        key: b"d",
        range_end: b"\0",
        prev_kv: true,
    };
    let inner = TxnRequest {
        success: vec![RequestOp::Put(put(b"in"))],
        ..TxnRequest::default()
    };
    TxnRequest {
        compare: vec![
            compare(CompareTarget::Value(b"v")),
            compare(CompareTarget::Mod(9)),
        ],
        success: vec![RequestOp::Put(put(b"")), RequestOp::Range(range())],
        failure: vec![RequestOp::DeleteRange(delete), RequestOp::Txn(inner)],
    }
}

pub fn requests() -> Vec<Request<'static>> {
    let mut requests = vec![
        Request::Put(put(b"value")),
        Request::Put(PutRequest::default()),
        Request::Range(range()),
        Request::Range(RangeRequest {
            key: b"one",
            ..RangeRequest::default()
        }),
        Request::DeleteRange(DeleteRangeRequest {
            key: b"k",
            range_end: b"z",
            prev_kv: true,
        }),
        Request::Txn(txn()),
        Request::Txn(TxnRequest::default()),
        Request::Compact(CompactRequest {
            revision: 77,
            physical: true,
        }),
    ];
    requests.extend(leases::requests());
    requests.extend(alarms::requests());
    requests
}

fn kv(key: &[u8], value: &[u8]) -> OwnedKeyValue {
    OwnedKeyValue {
        key: key.to_vec(),
        create_revision: 2,
        mod_revision: 3,
        version: 4,
        value: value.to_vec(),
        lease: 5,
    }
}

pub fn responses() -> Vec<Response> {
    let kvs = vec![kv(b"a", b"first"), kv(b"b", b"")];
    let range = Response::Range(RangeResponse {
        kvs: kvs.clone(),
        more: true,
        count: 9,
    });
    let put = Response::Put(PutResponse {
        prev_kv: Some(kv(b"key", b"old")),
    });
    let plain = Response::Put(PutResponse::default());
    let delete = Response::DeleteRange(DeleteRangeResponse {
        deleted: 2,
        prev_kvs: kvs,
    });
    let inner = TxnResponse {
        succeeded: false,
        responses: vec![plain.clone()],
    };
    let txn = Response::Txn(TxnResponse {
        succeeded: true,
        responses: vec![
            range.clone(),
            put.clone(),
            delete.clone(),
            Response::Txn(inner),
        ],
    });
    let empty = Response::Range(RangeResponse::default());
    let mut responses = vec![range, empty, put, plain, delete, txn, Response::Compact];
    responses.extend(leases::responses());
    responses.extend(alarms::responses());
    responses
}

// ---- random messages, owned; `borrow` lends them as requests

#[derive(Debug, Clone)]
pub enum OwnedRequest {
    Range(Vec<u8>, Vec<u8>, [i64; 6], u8, u8, [bool; 3]),
    Put(Vec<u8>, Vec<u8>, i64, [bool; 3]),
    Delete(Vec<u8>, Vec<u8>, bool),
    Txn(Vec<OwnedCompare>, Vec<OwnedRequest>, Vec<OwnedRequest>),
    Compact(i64, bool),
    Lease(OwnedLeaseRequest),
}

pub type OwnedCompare = (Vec<u8>, Vec<u8>, Vec<u8>, i64, u8, u8);

impl OwnedRequest {
    pub fn borrow(&self) -> Request<'_> {
        match self {
            OwnedRequest::Compact(revision, physical) => Request::Compact(CompactRequest {
                revision: *revision,
                physical: *physical,
            }),
            OwnedRequest::Lease(lease) => leases::borrow(lease),
            OwnedRequest::Range(..) => match self.op() {
                RequestOp::Range(range) => Request::Range(range),
                _ => unreachable!("a range is a range"),
            },
            other => match other.op() {
                RequestOp::Put(put) => Request::Put(put),
                RequestOp::DeleteRange(delete) => Request::DeleteRange(delete),
                RequestOp::Txn(txn) => Request::Txn(txn),
                RequestOp::Range(range) => Request::Range(range),
            },
        }
    }

    fn op(&self) -> RequestOp<'_> {
        match self {
            OwnedRequest::Range(key, range_end, numbers, order, target, bits) => {
                RequestOp::Range(RangeRequest {
                    key,
                    range_end,
                    limit: numbers[0],
                    revision: numbers[1],
                    sort_order: [SortOrder::None, SortOrder::Ascend, SortOrder::Descend]
                        [usize::from(order % 3)],
                    sort_target: [
                        SortTarget::Key,
                        SortTarget::Version,
                        SortTarget::Create,
                        SortTarget::Mod,
                        SortTarget::Value,
                    ][usize::from(target % 5)],
                    serializable: bits[0],
                    keys_only: bits[1],
                    count_only: bits[2],
                    min_mod_revision: numbers[2],
                    max_mod_revision: numbers[3],
                    min_create_revision: numbers[4],
                    max_create_revision: numbers[5],
                })
            }
            OwnedRequest::Put(key, value, lease, bits) => RequestOp::Put(PutRequest {
                key,
                value,
                lease: *lease,
                prev_kv: bits[0],
                ignore_value: bits[1],
                ignore_lease: bits[2],
            }),
            OwnedRequest::Delete(key, range_end, prev_kv) => {
                RequestOp::DeleteRange(DeleteRangeRequest {
                    key,
                    range_end,
                    prev_kv: *prev_kv,
                })
            }
            OwnedRequest::Txn(compare, success, failure) => RequestOp::Txn(TxnRequest {
                compare: compare.iter().map(borrow_compare).collect(),
                success: success.iter().map(OwnedRequest::op).collect(),
                failure: failure.iter().map(OwnedRequest::op).collect(),
            }),
            OwnedRequest::Compact(..) | OwnedRequest::Lease(_) => {
                unreachable!("no operation of a transaction")
            }
        }
    }
}

fn borrow_compare(compare: &OwnedCompare) -> Compare<'_> {
    let (key, range_end, value, operand, target, result) = compare;
    Compare {
        key,
        range_end,
        result: [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ][usize::from(result % 4)],
        target: match target % 5 {
            0 => CompareTarget::Version(*operand),
            1 => CompareTarget::Create(*operand),
            2 => CompareTarget::Mod(*operand),
            3 => CompareTarget::Value(value),
            _ => CompareTarget::Lease(*operand),
        },
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> + Clone {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn op() -> impl Strategy<Value = OwnedRequest> {
    let range = (
        bytes(),
        bytes(),
        any::<[i64; 6]>(),
        any::<u8>(),
        any::<u8>(),
        any::<[bool; 3]>(),
    )
        .prop_map(|(key, end, numbers, order, target, bits)| {
            OwnedRequest::Range(key, end, numbers, order, target, bits)
        });
    let put = (bytes(), bytes(), any::<i64>(), any::<[bool; 3]>())
        .prop_map(|(key, value, lease, bits)| OwnedRequest::Put(key, value, lease, bits));
    let delete = (bytes(), bytes(), any::<bool>())
        .prop_map(|(key, end, prev)| OwnedRequest::Delete(key, end, prev));
    prop_oneof![range, put, delete].prop_recursive(3, 24, 4, |op| {
        let compare = (
            bytes(),
            bytes(),
            bytes(),
            any::<i64>(),
            any::<u8>(),
            any::<u8>(),
        );
        let compares = prop::collection::vec(compare, 0..4);
        let ops = prop::collection::vec(op, 0..4);
        (compares, ops.clone(), ops)
            .prop_map(|(compare, success, failure)| OwnedRequest::Txn(compare, success, failure))
    })
}

pub fn any_request() -> impl Strategy<Value = OwnedRequest> {
    let compact = (any::<i64>(), any::<bool>())
        .prop_map(|(revision, physical)| OwnedRequest::Compact(revision, physical));
    let lease = leases::any_request().prop_map(OwnedRequest::Lease);
    prop_oneof![8 => op(), 1 => compact, 2 => lease]
}

pub fn any_kv() -> impl Strategy<Value = OwnedKeyValue> {
    (bytes(), bytes(), any::<[i64; 4]>()).prop_map(|(key, value, numbers)| OwnedKeyValue {
        key,
        create_revision: numbers[0],
        mod_revision: numbers[1],
        version: numbers[2],
        value,
        lease: numbers[3],
    })
}

pub fn any_response() -> impl Strategy<Value = Response> {
    let kvs = || prop::collection::vec(any_kv(), 0..5);
    let range = (kvs(), any::<bool>(), any::<i64>())
        .prop_map(|(kvs, more, count)| Response::Range(RangeResponse { kvs, more, count }));
    let put = prop::option::of(any_kv()).prop_map(|prev_kv| Response::Put(PutResponse { prev_kv }));
    let delete = (kvs(), any::<i64>()).prop_map(|(prev_kvs, deleted)| {
        Response::DeleteRange(DeleteRangeResponse { deleted, prev_kvs })
    });
    let nested = prop_oneof![range, put, delete].prop_recursive(3, 24, 4, |response| {
        (any::<bool>(), prop::collection::vec(response, 0..4)).prop_map(|(succeeded, responses)| {
            Response::Txn(TxnResponse {
                succeeded,
                responses,
            })
        })
    });
    prop_oneof![8 => nested, 1 => Just(Response::Compact), 2 => leases::any_response()]
}

pub fn any_header() -> impl Strategy<Value = Header> {
    (any::<u64>(), any::<u64>(), any::<i64>(), any::<u64>()).prop_map(
        |(cluster_id, member_id, revision, raft_term)| Header {
            cluster_id,
            member_id,
            revision,
            raft_term,
        },
    )
}

//! Requests: `api` values to bodies and back. A body is what the log carries and apply reads.

#![forbid(unsafe_code)]

use rkyv::vec::ArchivedVec;

use super::archive::{
    ArchivedCompact, ArchivedCompare, ArchivedDeleteRange, ArchivedOp, ArchivedPut, ArchivedRange,
    ArchivedTxn,
};
use super::layout::{
    ALARM_ROOT, BODY_BYTES_MAX, COMPACT_PHYSICAL, COMPACT_ROOT, COMPARE, DELETE_PREV_KV,
    DELETE_RANGE_ROOT, FRAME_HEADER_BYTES, Kind, OP, PUT_IGNORE_LEASE, PUT_IGNORE_VALUE,
    PUT_PREV_KV, PUT_ROOT, RANGE_COUNT_ONLY, RANGE_KEYS_ONLY, RANGE_ROOT, RANGE_SERIALIZABLE,
    TXN_DEPTH_MAX, TXN_OPS_MAX, TXN_ROOT,
};
use super::walk::{Walk, options};
use super::writer::Root;
use super::{Malformed, Unencodable, alarm, frame, lease};
use crate::api::{
    CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    RangeRequest, Request, RequestOp, SortOrder, SortTarget, TxnRequest,
};

/// The kind of frame that carries this request.
pub fn request_kind(request: &Request<'_>) -> Kind {
    match request {
        Request::Range(_) => Kind::Range,
        Request::Put(_) => Kind::Put,
        Request::DeleteRange(_) => Kind::DeleteRange,
        Request::Txn(_) => Kind::Txn,
        Request::Compact(_) => Kind::Compact,
        Request::Alarm(_) => Kind::Alarm,
        other => lease::request_kind(other).expect("all others are about leases"),
    }
}

/// Appends a request's frame to `out`. `id` must not be 0. On an error `out` is as before.
#[inline]
pub fn encode_request(
    request: &Request<'_>,
    id: u64,
    out: &mut Vec<u8>,
) -> Result<(), Unencodable> {
    let bytes = body_bytes(request)?;
    out.reserve(FRAME_HEADER_BYTES + bytes);
    let start = frame::begin(out);
    write_body(request, out);
    debug_assert_eq!(
        out.len() - start,
        FRAME_HEADER_BYTES + bytes,
        "measured as written"
    );
    frame::finish(out, start, request_kind(request), id, BODY_BYTES_MAX)
}

/// Appends a request's body alone to `out`: what a front of another protocol proposes. On an
/// error `out` is as before.
pub fn encode_body(request: &Request<'_>, out: &mut Vec<u8>) -> Result<Kind, Unencodable> {
    out.reserve(body_bytes(request)?);
    write_body(request, out);
    Ok(request_kind(request))
}

/// Appends a ping's frame to `out`.
pub fn encode_ping(id: u64, out: &mut Vec<u8>) {
    encode_empty(Kind::Ping, id, out);
}

/// Appends the frame that asks for the server's status to `out`.
pub fn encode_status(id: u64, out: &mut Vec<u8>) {
    encode_empty(Kind::Status, id, out);
}

fn encode_empty(kind: Kind, id: u64, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    let closed = frame::finish(out, start, kind, id, BODY_BYTES_MAX);
    debug_assert!(closed.is_ok(), "an empty body is never too long");
}

/// Reads the body of a request; its bytes stay where they are. Only the kinds of [`Request`] have
/// one that means something: a ping's and a status request's must be empty, see
/// [`decode_empty`].
#[inline]
pub fn decode_request(kind: Kind, body: &[u8]) -> Result<Request<'_>, Malformed> {
    Ok(match kind {
        Kind::Put => Request::Put(decode_put(body)?),
        Kind::Range => Request::Range(decode_range(body)?),
        Kind::DeleteRange => Request::DeleteRange(decode_delete_range(body)?),
        Kind::Txn => {
            let mut budget = TXN_OPS_MAX;
            Request::Txn(decode_txn(body, TXN_DEPTH_MAX, &mut budget)?)
        }
        Kind::Compact => Request::Compact(decode_compact(body)?),
        Kind::Alarm => Request::Alarm(alarm::decode_request(body)?),
        other => return lease::decode_request(other, body),
    })
}

/// Checks the body of a request that has none.
pub fn decode_empty(body: &[u8]) -> Result<(), Malformed> {
    match body {
        [] => Ok(()),
        _ => Err(Malformed::NotCanonical),
    }
}

// ---- measuring

fn body_bytes(request: &Request<'_>) -> Result<usize, Unencodable> {
    let bytes = match request {
        Request::Range(range) => range_bytes(range),
        Request::Put(put) => put_bytes(put),
        Request::DeleteRange(delete) => delete_range_bytes(delete),
        Request::Txn(txn) => {
            let mut budget = TXN_OPS_MAX;
            txn_bytes(txn, TXN_DEPTH_MAX, &mut budget)?
        }
        Request::Compact(_) => COMPACT_ROOT,
        Request::Alarm(_) => ALARM_ROOT,
        other => lease::request_bytes(other),
    };
    match bytes <= BODY_BYTES_MAX {
        true => Ok(bytes),
        false => Err(Unencodable::TooLong),
    }
}

fn range_bytes(range: &RangeRequest<'_>) -> usize {
    sum(&[range.key.len(), range.range_end.len(), RANGE_ROOT])
}

fn put_bytes(put: &PutRequest<'_>) -> usize {
    sum(&[put.key.len(), put.value.len(), PUT_ROOT])
}

fn delete_range_bytes(delete: &DeleteRangeRequest<'_>) -> usize {
    sum(&[delete.key.len(), delete.range_end.len(), DELETE_RANGE_ROOT])
}

fn compare_bytes(compare: &Compare<'_>) -> usize {
    let value = match compare.target {
        CompareTarget::Value(value) => value,
        _ => &[],
    };
    sum(&[
        compare.key.len(),
        compare.range_end.len(),
        value.len(),
        COMPARE,
    ])
}

fn txn_bytes(txn: &TxnRequest<'_>, depth: usize, budget: &mut usize) -> Result<usize, Unencodable> {
    let depth = depth.checked_sub(1).ok_or(Unencodable::TooDeep)?;
    let ops = sum(&[txn.compare.len(), txn.success.len(), txn.failure.len()]);
    *budget = budget.checked_sub(ops).ok_or(Unencodable::TooManyOps)?;
    let mut bytes = TXN_ROOT;
    for compare in &txn.compare {
        bytes = sum(&[bytes, compare_bytes(compare)]);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        let body = match op {
            RequestOp::Range(range) => range_bytes(range),
            RequestOp::Put(put) => put_bytes(put),
            RequestOp::DeleteRange(delete) => delete_range_bytes(delete),
            RequestOp::Txn(txn) => txn_bytes(txn, depth, budget)?,
        };
        bytes = sum(&[bytes, body, OP]);
    }
    Ok(bytes)
}

/// The same bytes may be borrowed many times over, so that a sum could exceed the machine's.
pub(super) fn sum(parts: &[usize]) -> usize {
    parts
        .iter()
        .fold(0, |total, part| total.saturating_add(*part))
}

// ---- writing

#[inline]
fn write_body(request: &Request<'_>, out: &mut Vec<u8>) {
    match request {
        Request::Range(range) => write_range(range, out),
        Request::Put(put) => write_put(put, out),
        Request::DeleteRange(delete) => write_delete_range(delete, out),
        Request::Txn(txn) => write_txn(txn, out),
        Request::Compact(compact) => Root::<COMPACT_ROOT>::at_end_of(out)
            .i64(compact.revision)
            .u8(if compact.physical {
                COMPACT_PHYSICAL
            } else {
                0
            })
            .done(),
        Request::Alarm(request) => alarm::write_request(request, out),
        other => lease::write_request(other, out),
    }
}

#[inline]
fn write_put(put: &PutRequest<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(put.key);
    out.extend_from_slice(put.value);
    let bits = [
        (put.prev_kv, PUT_PREV_KV),
        (put.ignore_value, PUT_IGNORE_VALUE),
        (put.ignore_lease, PUT_IGNORE_LEASE),
    ];
    Root::<PUT_ROOT>::at_end_of(out)
        .vec(start, put.key.len())
        .vec(start + put.key.len(), put.value.len())
        .i64(put.lease)
        .u8(pack(bits))
        .done();
}

#[inline]
fn write_range(range: &RangeRequest<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(range.key);
    out.extend_from_slice(range.range_end);
    let order = match range.sort_order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    };
    let target = match range.sort_target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    };
    let bits = [
        (range.serializable, RANGE_SERIALIZABLE),
        (range.keys_only, RANGE_KEYS_ONLY),
        (range.count_only, RANGE_COUNT_ONLY),
    ];
    Root::<RANGE_ROOT>::at_end_of(out)
        .vec(start, range.key.len())
        .vec(start + range.key.len(), range.range_end.len())
        .i64(range.limit)
        .i64(range.revision)
        .i64(range.min_mod_revision)
        .i64(range.max_mod_revision)
        .i64(range.min_create_revision)
        .i64(range.max_create_revision)
        .u8(order)
        .u8(target)
        .u8(pack(bits))
        .done();
}

fn write_delete_range(delete: &DeleteRangeRequest<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(delete.key);
    out.extend_from_slice(delete.range_end);
    Root::<DELETE_RANGE_ROOT>::at_end_of(out)
        .vec(start, delete.key.len())
        .vec(start + delete.key.len(), delete.range_end.len())
        .u8(if delete.prev_kv { DELETE_PREV_KV } else { 0 })
        .done();
}

fn write_txn(txn: &TxnRequest<'_>, out: &mut Vec<u8>) {
    let compares = write_compares(&txn.compare, out);
    let success = write_ops(&txn.success, out);
    let failure = write_ops(&txn.failure, out);
    Root::<TXN_ROOT>::at_end_of(out)
        .vec(compares, txn.compare.len())
        .vec(success, txn.success.len())
        .vec(failure, txn.failure.len())
        .done();
}

/// Writes the vectors of all compares, then the compares; returns where those begin.
fn write_compares(compares: &[Compare<'_>], out: &mut Vec<u8>) -> usize {
    let mut at = out.len();
    for compare in compares {
        out.extend_from_slice(compare.key);
        out.extend_from_slice(compare.range_end);
        if let CompareTarget::Value(value) = compare.target {
            out.extend_from_slice(value);
        }
    }
    let begin = out.len();
    for compare in compares {
        let (target, operand, value) = match compare.target {
            CompareTarget::Version(operand) => (0, operand, &[] as &[u8]),
            CompareTarget::Create(operand) => (1, operand, &[] as &[u8]),
            CompareTarget::Mod(operand) => (2, operand, &[] as &[u8]),
            CompareTarget::Value(value) => (3, 0, value),
            CompareTarget::Lease(operand) => (4, operand, &[] as &[u8]),
        };
        let result = match compare.result {
            CompareResult::Equal => 0,
            CompareResult::Greater => 1,
            CompareResult::Less => 2,
            CompareResult::NotEqual => 3,
        };
        let range_end_at = at + compare.key.len();
        let value_at = range_end_at + compare.range_end.len();
        Root::<COMPARE>::at_end_of(out)
            .vec(at, compare.key.len())
            .vec(range_end_at, compare.range_end.len())
            .vec(value_at, value.len())
            .i64(operand)
            .u8(target)
            .u8(result)
            .done();
        at = value_at + value.len();
    }
    begin
}

/// Writes the bodies of all operations, then the operations; returns where those begin.
fn write_ops(ops: &[RequestOp<'_>], out: &mut Vec<u8>) -> usize {
    let mut at = out.len();
    let mut ends = Vec::with_capacity(ops.len());
    for op in ops {
        match op {
            RequestOp::Range(range) => write_range(range, out),
            RequestOp::Put(put) => write_put(put, out),
            RequestOp::DeleteRange(delete) => write_delete_range(delete, out),
            RequestOp::Txn(txn) => write_txn(txn, out),
        }
        ends.push(out.len());
    }
    let begin = out.len();
    for (op, end) in ops.iter().zip(ends) {
        let kind = match op {
            RequestOp::Range(_) => Kind::Range,
            RequestOp::Put(_) => Kind::Put,
            RequestOp::DeleteRange(_) => Kind::DeleteRange,
            RequestOp::Txn(_) => Kind::Txn,
        };
        Root::<OP>::at_end_of(out)
            .vec(at, end - at)
            .u8(kind.number())
            .done();
        at = end;
    }
    begin
}

fn pack<const N: usize>(bits: [(bool, u8); N]) -> u8 {
    bits.into_iter().fold(
        0,
        |packed, (set, bit)| if set { packed | bit } else { packed },
    )
}

// ---- reading

#[inline]
fn decode_put(body: &[u8]) -> Result<PutRequest<'_>, Malformed> {
    let (root, mut walk) = Walk::open::<ArchivedPut>(body)?;
    let key = walk.vec(&root.key)?;
    let value = walk.vec(&root.value)?;
    walk.close(root)?;
    let bits = options(
        root.options,
        PUT_PREV_KV | PUT_IGNORE_VALUE | PUT_IGNORE_LEASE,
    )?;
    Ok(PutRequest {
        key,
        value,
        lease: root.lease.to_native(),
        prev_kv: bits & PUT_PREV_KV != 0,
        ignore_value: bits & PUT_IGNORE_VALUE != 0,
        ignore_lease: bits & PUT_IGNORE_LEASE != 0,
    })
}

#[inline]
fn decode_range(body: &[u8]) -> Result<RangeRequest<'_>, Malformed> {
    let (root, mut walk) = Walk::open::<ArchivedRange>(body)?;
    let key = walk.vec(&root.key)?;
    let range_end = walk.vec(&root.range_end)?;
    walk.close(root)?;
    let bits = options(
        root.options,
        RANGE_SERIALIZABLE | RANGE_KEYS_ONLY | RANGE_COUNT_ONLY,
    )?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: root.limit.to_native(),
        revision: root.revision.to_native(),
        sort_order: match root.sort_order {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            _ => return Err(Malformed::BadValue("sort_order")),
        },
        sort_target: match root.sort_target {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            _ => return Err(Malformed::BadValue("sort_target")),
        },
        serializable: bits & RANGE_SERIALIZABLE != 0,
        keys_only: bits & RANGE_KEYS_ONLY != 0,
        count_only: bits & RANGE_COUNT_ONLY != 0,
        min_mod_revision: root.min_mod_revision.to_native(),
        max_mod_revision: root.max_mod_revision.to_native(),
        min_create_revision: root.min_create_revision.to_native(),
        max_create_revision: root.max_create_revision.to_native(),
    })
}

fn decode_delete_range(body: &[u8]) -> Result<DeleteRangeRequest<'_>, Malformed> {
    let (root, mut walk) = Walk::open::<ArchivedDeleteRange>(body)?;
    let key = walk.vec(&root.key)?;
    let range_end = walk.vec(&root.range_end)?;
    walk.close(root)?;
    let bits = options(root.options, DELETE_PREV_KV)?;
    Ok(DeleteRangeRequest {
        key,
        range_end,
        prev_kv: bits != 0,
    })
}

fn decode_compact(body: &[u8]) -> Result<CompactRequest, Malformed> {
    let (root, walk) = Walk::open::<ArchivedCompact>(body)?;
    walk.close(root)?;
    let bits = options(root.options, COMPACT_PHYSICAL)?;
    Ok(CompactRequest {
        revision: root.revision.to_native(),
        physical: bits != 0,
    })
}

fn decode_txn<'a>(
    body: &'a [u8],
    depth: usize,
    budget: &mut usize,
) -> Result<TxnRequest<'a>, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed::TooDeep)?;
    let (root, mut walk) = Walk::open::<ArchivedTxn>(body)?;
    // The lists lie inside the body, so their lengths cannot overflow when added up.
    let ops = root.compare.len() + root.success.len() + root.failure.len();
    *budget = budget.checked_sub(ops).ok_or(Malformed::TooManyOps)?;

    let mut compare = Vec::with_capacity(root.compare.len());
    for archived in root.compare.as_slice() {
        compare.push(decode_compare(archived, &mut walk)?);
    }
    walk.vec(&root.compare)?;
    let success = decode_ops(&root.success, &mut walk, depth, budget)?;
    let failure = decode_ops(&root.failure, &mut walk, depth, budget)?;
    walk.close(root)?;
    Ok(TxnRequest {
        compare,
        success,
        failure,
    })
}

fn decode_compare<'a>(
    archived: &'a ArchivedCompare,
    walk: &mut Walk,
) -> Result<Compare<'a>, Malformed> {
    let key = walk.vec(&archived.key)?;
    let range_end = walk.vec(&archived.range_end)?;
    let value = walk.vec(&archived.value)?;
    let operand = archived.operand.to_native();
    let target = match archived.target {
        0 => CompareTarget::Version(operand),
        1 => CompareTarget::Create(operand),
        2 => CompareTarget::Mod(operand),
        3 if operand != 0 => return Err(Malformed::BadValue("operand")),
        3 => CompareTarget::Value(value),
        4 => CompareTarget::Lease(operand),
        _ => return Err(Malformed::BadValue("target")),
    };
    if !value.is_empty() && archived.target != 3 {
        return Err(Malformed::BadValue("value"));
    }
    let result = match archived.result {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => return Err(Malformed::BadValue("result")),
    };
    Ok(Compare {
        key,
        range_end,
        result,
        target,
    })
}

fn decode_ops<'a>(
    archived: &'a ArchivedVec<ArchivedOp>,
    walk: &mut Walk,
    depth: usize,
    budget: &mut usize,
) -> Result<Vec<RequestOp<'a>>, Malformed> {
    let mut ops = Vec::with_capacity(archived.len());
    for op in archived.as_slice() {
        let body = walk.vec(&op.body)?;
        ops.push(match Kind::from_u8(op.kind) {
            Some(Kind::Range) => RequestOp::Range(decode_range(body)?),
            Some(Kind::Put) => RequestOp::Put(decode_put(body)?),
            Some(Kind::DeleteRange) => RequestOp::DeleteRange(decode_delete_range(body)?),
            Some(Kind::Txn) => RequestOp::Txn(decode_txn(body, depth, budget)?),
            _ => return Err(Malformed::UnknownKind(op.kind)),
        });
    }
    walk.vec(archived)?;
    Ok(ops)
}

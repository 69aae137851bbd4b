//! Transactions: choose the path, check it, run it.

use super::compare::{Path, Walk};
use super::intervals::{End, IntervalSet};
use super::range::range;
use super::write::{Answer, delete_range, put};
use super::{Failure, interval_end, lease};
use crate::api::{
    DeleteRangeRequest, Error, PutRequest, RangeRequest, RangeResponse, RequestOp, Response,
    TxnRequest, TxnResponse,
};
use quoin_storage::mvcc::{View, WriteTxn};
use quoin_storage::tree::{TreeRead, TreeWrite};

/// Whether a transaction only reads, so that it needs no log entry. One with a nested
/// transaction counts as a write, as in etcd.
pub fn is_read_only(txn: &TxnRequest<'_>) -> bool {
    ops(txn).all(|op| matches!(op, RequestOp::Range(_)))
}

/// Whether a read-only transaction may be served from this member's state as it is.
///
/// etcd says so, too, of a transaction that only compares; here that one is linearizable.
pub fn is_serializable(txn: &TxnRequest<'_>) -> bool {
    let serializable = |op: &RequestOp<'_>| match op {
        RequestOp::Range(range) => range.serializable,
        _ => false,
    };
    ops(txn).next().is_some() && ops(txn).all(serializable)
}

fn ops<'t, 'r>(txn: &'t TxnRequest<'r>) -> impl Iterator<Item = &'t RequestOp<'r>> {
    txn.success.iter().chain(&txn.failure)
}

/// Serves a read-only transaction from a view. The request has passed
/// [`super::validate::admit`] and [`is_read_only`]; anything else than a range in it is refused
/// as unimplemented. An answer of more than `room` bytes is refused as too large.
pub fn read_txn<T: TreeRead>(
    view: &View<'_, T>,
    txn: &TxnRequest<'_>,
    room: usize,
) -> Result<TxnResponse, Failure> {
    if !is_read_only(txn) {
        return Err(Failure::Refused(Error::Unimplemented));
    }
    let path = Path::of(view, txn)?;
    check(view, txn, &mut path.walk(), &mut IntervalSet::default())?;
    let (succeeded, ops) = path.walk().enter(txn);
    let mut answer = Answer::new(room);
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        if let RequestOp::Range(request) = op {
            responses.push(Response::Range(run_range(view, request, &mut answer)?));
        }
    }
    answer.finish()?;
    Ok(TxnResponse {
        succeeded,
        responses,
    })
}

/// Runs a transaction that may write. Refuses all of it or runs all of it.
pub(super) fn write_txn<T: TreeWrite>(
    store: &mut WriteTxn<'_, T>,
    txn: &TxnRequest<'_>,
    answer: &mut Answer,
) -> Result<TxnResponse, Failure> {
    let view = store.view();
    let path = Path::of(&view, txn)?;
    check(&view, txn, &mut path.walk(), &mut IntervalSet::default())?;
    run(store, txn, &mut path.walk(), answer)
}

/// Checks what could be refused on the path, against the state before the transaction: once it
/// has begun to write, nothing may fail any more. `gone` holds what the path has deleted so far.
fn check<'t, T: TreeRead>(
    view: &View<'_, T>,
    txn: &'t TxnRequest<'_>,
    walk: &mut Walk<'_>,
    gone: &mut IntervalSet<'t>,
) -> Result<(), Failure> {
    let (_, ops) = walk.enter(txn);
    for op in ops {
        match op {
            RequestOp::Range(range) => check_range(view, range)?,
            RequestOp::Put(put) => check_put(view, put, gone)?,
            RequestOp::DeleteRange(delete) => gone.insert(delete.key, end(delete)),
            RequestOp::Txn(nested) => check(view, nested, walk, gone)?,
        }
    }
    Ok(())
}

fn end<'k>(delete: &DeleteRangeRequest<'k>) -> End<'k> {
    match (delete.range_end, interval_end(delete.range_end)) {
        ([], _) => End::After(delete.key),
        (_, Some(end)) => End::Before(end),
        (_, None) => End::Open,
    }
}

/// In a transaction, unlike alone, a negative revision is compared as it is.
fn check_range<T: TreeRead>(view: &View<'_, T>, range: &RangeRequest<'_>) -> Result<(), Error> {
    let horizon = view.horizon();
    if range.revision == 0 {
        Ok(())
    } else if range.revision > horizon.revision {
        Err(Error::FutureRevision)
    } else if range.revision < horizon.compacted {
        Err(Error::Compacted)
    } else {
        Ok(())
    }
}

/// A put that keeps something needs a key that exists before the transaction, and that the path
/// has not deleted by then. (In the latter case, which only a delete from a key on or a nested
/// one can bring about, etcd panics.)
fn check_put<T: TreeRead>(
    view: &View<'_, T>,
    put: &PutRequest<'_>,
    gone: &IntervalSet<'_>,
) -> Result<(), Failure> {
    lease::check(view.tree(), put.lease)?;
    if (put.ignore_value || put.ignore_lease)
        && (gone.contains(put.key) || view.latest(put.key)?.is_none())
    {
        return Err(Failure::Refused(Error::KeyNotFound));
    }
    Ok(())
}

fn run<T: TreeWrite>(
    store: &mut WriteTxn<'_, T>,
    txn: &TxnRequest<'_>,
    walk: &mut Walk<'_>,
    answer: &mut Answer,
) -> Result<TxnResponse, Failure> {
    let (succeeded, ops) = walk.enter(txn);
    answer.take_bytes(ops.len() * size_of::<Response>());
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        responses.push(match op {
            RequestOp::Range(request) => {
                Response::Range(run_range(&store.view(), request, answer)?)
            }
            RequestOp::Put(request) => Response::Put(put(store, request, answer)?),
            RequestOp::DeleteRange(request) => {
                Response::DeleteRange(delete_range(store, request, answer)?)
            }
            RequestOp::Txn(nested) => Response::Txn(run(store, nested, walk, answer)?),
        });
    }
    Ok(TxnResponse {
        succeeded,
        responses,
    })
}

/// A range inside a transaction. Its answer may be cut off by what `answer` can still take;
/// `Answer::finish` tells.
fn run_range<T: TreeRead>(
    view: &View<'_, T>,
    request: &RangeRequest<'_>,
    answer: &mut Answer,
) -> Result<RangeResponse, Failure> {
    let mut response = RangeResponse::default();
    let read = range(view, request, &mut answer.sink(&mut response));
    match read {
        Ok(summary) => {
            response.more = summary.more;
            response.count = summary.count;
            Ok(response)
        }
        Err(Failure::Refused(Error::ResponseTooLarge)) => Ok(response),
        Err(failure) => Err(failure),
    }
}

//! What can be said about a request without the store: checked when it is admitted, and again
//! when it is applied, since what the log holds was admitted by some other member.
//!
//! At admission the member's own limits hold as well ([`admit`]). At apply only what is the same
//! on every member of one version counts ([`replicated`]): members must never differ about a
//! log entry.

use super::intervals::{End, IntervalSet};
use crate::api::{DeleteRangeRequest, Error, PutRequest, Request, RequestOp, TxnRequest};
use crate::limits::{
    ELECTION_MS_DEFAULT, HEARTBEAT_MS_DEFAULT, LEASE_TTL_MAX_S, REQUEST_BYTES_DEFAULT,
    TXN_DEPTH_MAX, TXN_OPS_DEFAULT,
};
use std::collections::BTreeSet;

/// The limits of this member, from its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Compares, or operations of a branch, in one transaction; nested ones share it.
    pub txn_ops: usize,
    /// Keys and values of one write together.
    pub request_bytes: usize,
    /// The least seconds that a lease is granted for; shorter wishes are raised to it.
    pub lease_ttl_min: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            txn_ops: TXN_OPS_DEFAULT,
            request_bytes: REQUEST_BYTES_DEFAULT,
            lease_ttl_min: lease_ttl_min(
                ELECTION_MS_DEFAULT / HEARTBEAT_MS_DEFAULT,
                HEARTBEAT_MS_DEFAULT,
            ),
        }
    }
}

/// The least seconds that a lease is granted for, given the election time-out in ticks and the
/// length of a tick: one and a half of it, in whole ticks, rounded up to seconds, as in etcd. A
/// lease should outlive a change of leader.
pub fn lease_ttl_min(election_ticks: u64, tick_ms: u64) -> i64 {
    let ms = (election_ticks * 3 / 2).saturating_mul(tick_ms);
    i64::try_from(ms.div_ceil(1000)).unwrap_or(LEASE_TTL_MAX_S)
}

/// Checks a request before it is proposed or served.
///
/// Sort options that do not exist cannot be expressed in [`crate::api`]: the fronts refuse them
/// while decoding.
pub fn admit(request: &Request<'_>, limits: &Limits) -> Result<(), Error> {
    check(request, limits.txn_ops)?;
    if is_write(request) && payload_bytes(request) > limits.request_bytes {
        return Err(Error::RequestTooLarge);
    }
    Ok(())
}

fn is_write(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::Put(_) | Request::DeleteRange(_) | Request::Txn(_)
    )
}

/// Checks a request that comes out of the log.
pub fn replicated(request: &Request<'_>) -> Result<(), Error> {
    check(request, usize::MAX)
}

#[inline]
fn check(request: &Request<'_>, txn_ops: usize) -> Result<(), Error> {
    match request {
        Request::Range(range) => check_key(range.key),
        Request::Put(put) => check_put(put),
        Request::DeleteRange(delete) => check_key(delete.key),
        Request::Txn(txn) => check_txn(txn, txn_ops),
        _ => Ok(()),
    }
}

fn check_txn(txn: &TxnRequest<'_>, txn_ops: usize) -> Result<(), Error> {
    check_shape(txn, txn_ops, 0)?;
    for branch in [&txn.success, &txn.failure] {
        if may_clash(branch) {
            branch_writes(branch)?;
        }
    }
    Ok(())
}

#[inline]
fn check_key(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() {
        Err(Error::EmptyKey)
    } else {
        Ok(())
    }
}

#[inline]
fn check_put(put: &PutRequest<'_>) -> Result<(), Error> {
    check_key(put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Each level may use `budget` operations, and what it uses its nested transactions may not.
fn check_shape(txn: &TxnRequest<'_>, budget: usize, depth: usize) -> Result<(), Error> {
    let used = txn
        .compare
        .len()
        .max(txn.success.len())
        .max(txn.failure.len());
    let left = budget.checked_sub(used).ok_or(Error::TooManyOps)?;
    if depth >= TXN_DEPTH_MAX {
        return Err(Error::TooManyOps);
    }
    txn.compare
        .iter()
        .try_for_each(|compare| check_key(compare.key))?;
    txn.success
        .iter()
        .chain(&txn.failure)
        .try_for_each(|op| match op {
            RequestOp::Range(range) => check_key(range.key),
            RequestOp::Put(put) => check_put(put),
            RequestOp::DeleteRange(delete) => check_key(delete.key),
            RequestOp::Txn(txn) => check_shape(txn, left, depth + 1),
        })
}

/// One write cannot clash with itself; this spares most transactions the sets below.
fn may_clash(branch: &[RequestOp<'_>]) -> bool {
    let writes = branch
        .iter()
        .filter(|op| !matches!(op, RequestOp::Range(_)))
        .count();
    writes > 1 || branch.iter().any(|op| matches!(op, RequestOp::Txn(_)))
}

/// What a branch and the transactions nested in it write.
#[derive(Default)]
struct Writes<'k> {
    puts: BTreeSet<&'k [u8]>,
    deletes: IntervalSet<'k>,
}

/// Refuses a branch that puts a key twice, or puts and deletes it, where both could run.
///
/// The rule is etcd's to the letter, because clients were written against it. It compares a put
/// with the deletes of its own list, of the lists around it, and of the nested transactions
/// before it, but not with those of nested transactions after it; and it takes the end of a
/// delete literally, so that a delete up to `[0]`, from a key on, clashes with nothing.
/// What it lets through runs in the order given.
///
/// Sets are merged the smaller into the larger: O(n log^2 n) for n operations of any shape.
fn branch_writes<'k>(ops: &'k [RequestOp<'k>]) -> Result<Writes<'k>, Error> {
    let mut all = Writes::default();
    for op in ops {
        if let RequestOp::DeleteRange(delete) = op {
            all.deletes.insert(delete.key, literal_end(delete));
        }
    }
    for op in ops {
        if let RequestOp::Txn(txn) = op {
            let branches = [branch_writes(&txn.success)?, branch_writes(&txn.failure)?];
            if branches.iter().any(|branch| clash(&all, branch)) {
                return Err(Error::DuplicateKey);
            }
            for branch in branches {
                absorb(&mut all.puts, branch.puts);
                all.deletes.absorb(branch.deletes);
            }
        }
    }
    for op in ops {
        if let RequestOp::Put(put) = op
            && (all.deletes.contains(put.key) || !all.puts.insert(put.key))
        {
            return Err(Error::DuplicateKey);
        }
    }
    Ok(all)
}

fn literal_end<'k>(delete: &DeleteRangeRequest<'k>) -> End<'k> {
    match delete.range_end {
        [] => End::After(delete.key),
        end => End::Before(end),
    }
}

fn clash(earlier: &Writes<'_>, nested: &Writes<'_>) -> bool {
    let (few, many) = if earlier.puts.len() < nested.puts.len() {
        (&earlier.puts, &nested.puts)
    } else {
        (&nested.puts, &earlier.puts)
    };
    few.iter().any(|key| many.contains(key)) || earlier.deletes.contains_any(&nested.puts)
}

fn absorb<'k>(all: &mut BTreeSet<&'k [u8]>, mut other: BTreeSet<&'k [u8]>) {
    if other.len() > all.len() {
        std::mem::swap(all, &mut other);
    }
    all.extend(other);
}

/// Keys and values of a request.
fn payload_bytes(request: &Request<'_>) -> usize {
    match request {
        Request::Range(range) => range.key.len() + range.range_end.len(),
        Request::Put(put) => put.key.len() + put.value.len(),
        Request::DeleteRange(delete) => delete.key.len() + delete.range_end.len(),
        Request::Txn(txn) => txn_bytes(txn),
        _ => 0,
    }
}

fn txn_bytes(txn: &TxnRequest<'_>) -> usize {
    let compares = txn.compare.iter().map(|compare| {
        let operand = match compare.target {
            crate::api::CompareTarget::Value(value) => value.len(),
            _ => 0,
        };
        compare.key.len() + compare.range_end.len() + operand
    });
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        RequestOp::Range(range) => range.key.len() + range.range_end.len(),
        RequestOp::Put(put) => put.key.len() + put.value.len(),
        RequestOp::DeleteRange(delete) => delete.key.len() + delete.range_end.len(),
        RequestOp::Txn(txn) => txn_bytes(txn),
    });
    compares.sum::<usize>() + ops.sum::<usize>()
}

/// Whether a request can make the store larger: it grants a lease, or puts something, in whichever
/// branch.
pub fn adds_data(request: &Request<'_>) -> bool {
    match request {
        Request::Put(_) | Request::LeaseGrant(_) => true,
        Request::Txn(txn) => txn_adds_data(txn),
        _ => false,
    }
}

fn txn_adds_data(txn: &TxnRequest<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        RequestOp::Put(_) => true,
        RequestOp::Txn(txn) => txn_adds_data(txn),
        RequestOp::Range(_) | RequestOp::DeleteRange(_) => false,
    })
}

//! The conditions of transactions, and the path that they choose.

use super::{Failure, interval_end, is_empty};
use crate::api::{Compare, CompareResult, CompareTarget, RequestOp, TxnRequest};
use quoin_storage::mvcc::{Latest, View};
use quoin_storage::tree::{Interval, TreeRead};
use std::cmp::Ordering;

/// Which branch each transaction takes that will run: the outermost first, then the nested ones
/// of the branch taken, in order, each followed by its own.
///
/// All conditions see the state before the whole transaction. What the operations then do
/// changes no path any more.
#[derive(Debug)]
pub(super) struct Path {
    taken: Vec<bool>,
}

/// Walks a path beside the transactions that it was computed from.
#[derive(Debug, Clone)]
pub(super) struct Walk<'p> {
    taken: std::slice::Iter<'p, bool>,
}

impl Path {
    pub fn of<T: TreeRead>(view: &View<'_, T>, txn: &TxnRequest<'_>) -> Result<Path, Failure> {
        let mut path = Path {
            taken: Vec::with_capacity(1),
        };
        path.choose(view, txn)?;
        Ok(path)
    }

    fn choose<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        txn: &TxnRequest<'_>,
    ) -> Result<(), Failure> {
        let mut holds = true;
        for compare in &txn.compare {
            holds = holds && self::holds(view, compare)?;
        }
        self.taken.push(holds);
        for op in branch(txn, holds) {
            if let RequestOp::Txn(nested) = op {
                self.choose(view, nested)?;
            }
        }
        Ok(())
    }

    pub fn walk(&self) -> Walk<'_> {
        Walk {
            taken: self.taken.iter(),
        }
    }
}

impl Walk<'_> {
    /// Whether the next transaction's conditions held, and so which of its branches runs. To be
    /// called in the order in which the path was made.
    pub fn enter<'t, 'r>(&mut self, txn: &'t TxnRequest<'r>) -> (bool, &'t [RequestOp<'r>]) {
        let taken = self
            .taken
            .next()
            .expect("the path was computed from these transactions");
        (*taken, branch(txn, *taken))
    }
}

fn branch<'t, 'r>(txn: &'t TxnRequest<'r>, succeeded: bool) -> &'t [RequestOp<'r>] {
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

/// Whether a condition holds: for the key, or for every key of the interval.
fn holds<T: TreeRead>(view: &View<'_, T>, compare: &Compare<'_>) -> Result<bool, Failure> {
    if compare.range_end.is_empty() {
        return single_holds(view, compare);
    }
    let interval = Interval {
        start: compare.key,
        end: interval_end(compare.range_end),
    };
    let (mut any, mut holds) = (false, true);
    if !is_empty(interval) {
        view.scan_at(interval, 0, &mut |item| {
            any = true;
            let ordering = match compare.target {
                CompareTarget::Value(operand) => item.value()?.cmp(operand),
                target => number_ordering(target, &item.latest),
            };
            holds = accepts(compare.result, ordering);
            Ok(holds)
        })?;
    }
    if any {
        Ok(holds)
    } else {
        Ok(missing_holds(compare))
    }
}

fn single_holds<T: TreeRead>(view: &View<'_, T>, compare: &Compare<'_>) -> Result<bool, Failure> {
    let ordering = match compare.target {
        CompareTarget::Value(operand) => view.get(compare.key)?.map(|kv| kv.value.cmp(operand)),
        target => view
            .latest(compare.key)?
            .map(|latest| number_ordering(target, &latest)),
    };
    match ordering {
        Some(ordering) => Ok(accepts(compare.result, ordering)),
        None => Ok(missing_holds(compare)),
    }
}

/// What does not exist has zeros for numbers, but no value, not even the empty one.
fn missing_holds(compare: &Compare<'_>) -> bool {
    match compare.target {
        CompareTarget::Value(_) => false,
        CompareTarget::Version(operand)
        | CompareTarget::Create(operand)
        | CompareTarget::Mod(operand)
        | CompareTarget::Lease(operand) => accepts(compare.result, 0.cmp(&operand)),
    }
}

fn number_ordering(target: CompareTarget<'_>, latest: &Latest) -> Ordering {
    match target {
        CompareTarget::Version(operand) => latest.version.cmp(&operand),
        CompareTarget::Create(operand) => latest.create_revision.cmp(&operand),
        CompareTarget::Mod(operand) => latest.revision.main.cmp(&operand),
        CompareTarget::Lease(operand) => latest.lease.cmp(&operand),
        CompareTarget::Value(_) => unreachable!("values are compared by the callers"),
    }
}

fn accepts(result: CompareResult, ordering: Ordering) -> bool {
    match result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

//! The meaning of the key-value calls, and their way from the committed log into the tree.
//!
//! A request is checked by [`validate`] when a front admits it. Reads ([`range`], [`read_txn`])
//! are then served by the front itself from a published root. Writes come back in the order of
//! the log, and the [`Applier`] runs them ([`execute`]), many to one transaction of the tree, and
//! publishes the result.
//!
//! The outcome of a write is a function of the request and of what the log holds before it, and
//! of nothing else; the one exception is space (see [`Applier`]).
#![forbid(unsafe_code)]

pub mod validate;

mod intervals;

mod range;

mod walk;

mod sorted;

mod parts;

mod compare;

mod txn;

mod write;

mod lease;

mod alarm;

mod applier;

mod counts;

mod store;

#[cfg(test)]
mod tests;

pub use alarm::{alarms, is_raised};
pub use applier::{AnswerRoom, Applier, BatchLimits, Command, Entry};
pub use counts::Counts;
pub use lease::{LeaseChange, time_to_live};
pub use parts::RangeParts;
pub use range::{key_only, range};
pub use store::{Store, StoreTxn};
pub use txn::{is_read_only, is_serializable, read_txn};
pub use walk::{RangeWalk, Stand};
pub use write::{Outcome, execute};

use crate::api;
use quoin_storage::mvcc;
use quoin_storage::tree::{Interval, TreeError};
use std::fmt;

/// What a pair takes in an answer, given all of it but its value, and the bytes of that.
pub type PairSize = fn(&api::KeyValue<'_>, usize) -> u64;

/// Why a request was not served.
#[derive(Debug)]
pub enum Failure {
    /// The request is to blame, or the moment; the client learns why.
    Refused(api::Error),
    /// The store is: its data or its disk. A reader refuses; the writer must stop.
    Broken(mvcc::Error),
}

impl Failure {
    /// What a client is told.
    pub fn to_api(&self) -> api::Error {
        match self {
            Failure::Refused(error) => *error,
            Failure::Broken(_) => api::Error::Corrupt,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => error.fmt(f),
            Failure::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<api::Error> for Failure {
    fn from(error: api::Error) -> Failure {
        Failure::Refused(error)
    }
}

impl From<mvcc::Error> for Failure {
    fn from(error: mvcc::Error) -> Failure {
        match error {
            mvcc::Error::Compacted { .. } => Failure::Refused(api::Error::Compacted),
            mvcc::Error::FutureRevision { .. } => Failure::Refused(api::Error::FutureRevision),
            mvcc::Error::Tree(TreeError::NoSpace) => Failure::Refused(api::Error::NoSpace),
            error => Failure::Broken(error),
        }
    }
}

/// What the `range_end` of a request means, if it is not empty: `[0]` is open.
fn interval_end(range_end: &[u8]) -> Option<&[u8]> {
    match range_end {
        [0] => None,
        end => Some(end),
    }
}

/// Whether an interval ends before it starts; to ask for one is no error.
fn is_empty(interval: Interval<'_>) -> bool {
    interval.end.is_some_and(|end| end <= interval.start)
}

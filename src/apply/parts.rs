//! Ranges that are read in parts, whatever they ask for.

use super::sorted::SortedWalk;
use super::walk::{RangeWalk, Stand, pair};
use super::{Failure, PairSize, interval_end, is_empty};
use crate::api::{KeyValue, RangeRequest, RangeSummary, SortTarget};
use quoin_storage::mvcc::View;
use quoin_storage::tree::{Interval, TreeRead};

/// A range of more than one key that is being read. Between two parts it pins nothing, and the
/// next part may look at a later root.
#[derive(Debug)]
pub enum RangeParts<'q> {
    /// In the order of the keys.
    Keys(RangeWalk<'q>),
    /// In another order.
    Sorted(SortedWalk<'q>),
    /// The count of the walk's interval alone.
    Count(RangeWalk<'q>),
}

impl<'q> RangeParts<'q> {
    /// Begins to read what a request asks for; `None` if that is one key, or none. `size` says
    /// what a pair takes in the answer, see [`RangeParts::totals`].
    pub fn new<T: TreeRead>(
        view: &View<'_, T>,
        request: &RangeRequest<'q>,
        size: PairSize,
    ) -> Result<Option<RangeParts<'q>>, Failure> {
        let interval = Interval {
            start: request.key,
            end: interval_end(request.range_end),
        };
        if request.range_end.is_empty() || is_empty(interval) {
            return Ok(None);
        }
        Ok(Some(match request.sort_target {
            _ if request.count_only => RangeParts::Count(RangeWalk::new(view, request)?),
            SortTarget::Key => RangeParts::Keys(RangeWalk::new(view, request)?),
            _ => RangeParts::Sorted(SortedWalk::new(view, request, size)?),
        }))
    }

    /// The same, for longer than the request lives.
    pub fn into_owned(self) -> RangeParts<'static> {
        match self {
            RangeParts::Keys(walk) => RangeParts::Keys(walk.into_owned()),
            RangeParts::Sorted(walk) => RangeParts::Sorted(walk.into_owned()),
            RangeParts::Count(walk) => RangeParts::Count(walk.into_owned()),
        }
    }

    fn walk(&self) -> &RangeWalk<'q> {
        match self {
            RangeParts::Keys(walk) | RangeParts::Count(walk) => walk,
            RangeParts::Sorted(sorted) => sorted.walk(),
        }
    }

    /// The revision that it reads.
    pub fn revision(&self) -> i64 {
        self.walk().revision()
    }

    /// About how many entries of the tree it has looked at.
    pub fn looked_at(&self) -> usize {
        self.walk().looked_at()
    }

    /// Bytes of the bounds of its interval.
    pub fn bound_bytes(&self) -> usize {
        self.walk().bytes()
    }

    /// Bytes of memory that it takes besides.
    pub fn bytes(&self) -> usize {
        match self {
            RangeParts::Keys(_) | RangeParts::Count(_) => 0,
            RangeParts::Sorted(sorted) => sorted.bytes(),
        }
    }

    /// Does what has to be done before a pair can be given, for about `entries_max` keys more;
    /// whether that is all.
    pub fn prepare<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        entries_max: usize,
    ) -> Result<bool, Failure> {
        match self {
            RangeParts::Keys(_) | RangeParts::Count(_) => Ok(true),
            RangeParts::Sorted(sorted) => sorted.prepare(view, entries_max),
        }
    }

    /// What all pairs take in the answer and how many there are, if that is known once
    /// [`RangeParts::prepare`] has come to an end: not for those in the order of the keys.
    pub fn totals(&self) -> Option<(u64, usize)> {
        match self {
            RangeParts::Keys(_) => None,
            RangeParts::Sorted(sorted) => Some(sorted.totals()),
            RangeParts::Count(_) => Some((0, 0)),
        }
    }

    /// Reads on: gives pairs to `visit` until it says `false`, which leaves the pair for the next
    /// part, or until `entries_max` entries were looked at.
    pub fn give<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        entries_max: usize,
        visit: &mut dyn FnMut(&KeyValue<'_>) -> bool,
    ) -> Result<Stand, Failure> {
        match self {
            RangeParts::Keys(walk) => {
                let keys_only = walk.is_keys_only();
                walk.step(view, entries_max, &mut |item| {
                    Ok(visit(&pair(keys_only, item)?))
                })
            }
            RangeParts::Sorted(sorted) => sorted.give(view, entries_max, visit),
            RangeParts::Count(_) => Ok(Stand::End),
        }
    }

    /// What closes the answer, once everything was given; `None` if it takes more than
    /// `steps_max` steps to find it.
    pub fn summary<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        steps_max: u64,
    ) -> Result<Option<RangeSummary>, Failure> {
        match self {
            RangeParts::Keys(walk) => walk.summary(view, steps_max),
            RangeParts::Sorted(sorted) => sorted.summary(view, steps_max),
            RangeParts::Count(walk) => {
                let count = walk.count(view, steps_max)?;
                Ok(count.map(|count| RangeSummary { more: false, count }))
            }
        }
    }
}

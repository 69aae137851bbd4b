//! Reading an interval in another order than that of its keys, in parts: first what the order goes
//! by is gathered from every key, then it is sorted, and then pair after pair is looked up.
//!
//! Of each key that may come into the answer some words are kept, and its value only if the order
//! goes by that: with a limit, of as many keys as it lets through, and never more than
//! [`limits::SORTED_BYTES_MAX`] in all. What is gathered lies in a heap, so that a part of any of
//! the three stages takes about as long whatever their number, but for its logarithm.

use super::range::{api_pair, has_filters, key_only};
use super::walk::{RangeWalk, Stand, limit};
use super::{Failure, PairSize};
use crate::api::{self, KeyValue, RangeRequest, RangeSummary, SortOrder, SortTarget};
use crate::limits;
use quoin_storage::mvcc::{self, Item, Latest, Revision, View};
use quoin_storage::tree::{TreeId, TreeRead};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What an order goes by, such that the lesser comes first. All of one range are of one kind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Number(i64),
    Value(Box<[u8]>),
    FallingValue(Reverse<Box<[u8]>>),
}

impl Field {
    fn number(number: i64, falling: bool) -> Field {
        // The complement turns the order round, and leaves no number out.
        Field::Number(if falling { !number } else { number })
    }

    fn value(value: &[u8], falling: bool) -> Field {
        match falling {
            true => Field::FallingValue(Reverse(value.into())),
            false => Field::Value(value.into()),
        }
    }

    /// Bytes beside the words that every field has.
    fn bytes(&self) -> usize {
        match self {
            Field::Number(_) => 0,
            Field::Value(value) | Field::FallingValue(Reverse(value)) => value.len(),
        }
    }
}

/// A key that may come into the answer. Equal fields stay in key order, whichever way the fields
/// are sorted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    field: Field,
    /// Its place in key order; no other has it, so that what follows does not matter.
    place: usize,
    at: Revision,
    /// What its pair takes in the answer.
    size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Gathering,
    Sorting,
    Giving,
}

/// A range in another order than that of its keys that is being read.
#[derive(Debug)]
pub struct SortedWalk<'q> {
    walk: RangeWalk<'q>,
    target: SortTarget,
    falling: bool,
    limit: usize,
    size: PairSize,
    stage: Stage,
    /// Keys that passed the filters.
    seen: usize,
    /// The first of them, as many as the limit lets through; the last on top.
    kept: BinaryHeap<Found>,
    /// Bytes of their values, and of their pairs in the answer.
    value_bytes: usize,
    pair_bytes: u64,
    /// What is still to be given, the next at the end.
    order: Vec<Revision>,
}

impl<'q> SortedWalk<'q> {
    /// A walk for a request whose target is not the key; `size` says what a pair takes in the
    /// answer.
    pub fn new<T: TreeRead>(
        view: &View<'_, T>,
        request: &RangeRequest<'q>,
        size: PairSize,
    ) -> Result<SortedWalk<'q>, Failure> {
        let mut walk = RangeWalk::new(view, request)?;
        let limit = limit(request);
        // Without an order (which then means ascending) and without filters only the first keys by
        // key compete, one more than the limit: etcd reads no more before it sorts.
        let unordered = request.sort_order == SortOrder::None && !has_filters(request);
        walk.allow(match unordered {
            true => limit.saturating_add(1),
            false => usize::MAX,
        });
        Ok(SortedWalk {
            walk,
            target: request.sort_target,
            falling: request.sort_order == SortOrder::Descend,
            limit,
            size,
            stage: Stage::Gathering,
            seen: 0,
            kept: BinaryHeap::new(),
            value_bytes: 0,
            pair_bytes: 0,
            order: Vec::new(),
        })
    }

    /// The walk, for longer than the request lives.
    pub fn into_owned(self) -> SortedWalk<'static> {
        SortedWalk {
            walk: self.walk.into_owned(),
            ..self
        }
    }

    /// The walk over the interval.
    pub fn walk(&self) -> &RangeWalk<'q> {
        &self.walk
    }

    /// Bytes of memory that it takes besides.
    pub fn bytes(&self) -> usize {
        self.kept.capacity() * size_of::<Found>()
            + self.order.capacity() * size_of::<Revision>()
            + self.value_bytes
    }

    /// Once [`SortedWalk::prepare`] has come to an end and before a pair is given: what the pairs
    /// take in the answer, and how many there are.
    pub fn totals(&self) -> (u64, usize) {
        (self.pair_bytes, self.order.len())
    }

    /// Gathers and sorts, about `entries_max` keys more; whether pairs can be given.
    pub fn prepare<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        entries_max: usize,
    ) -> Result<bool, Failure> {
        if self.stage == Stage::Gathering {
            if !self.gather(view, entries_max)? {
                return Ok(false);
            }
            self.order.reserve_exact(self.kept.len());
            self.stage = Stage::Sorting;
        }
        if self.stage == Stage::Sorting {
            self.sort(entries_max);
            if !self.kept.is_empty() {
                return Ok(false);
            }
            self.kept = BinaryHeap::new();
            self.stage = Stage::Giving;
        }
        Ok(true)
    }

    fn gather<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        entries_max: usize,
    ) -> Result<bool, Failure> {
        let SortedWalk {
            walk,
            seen,
            kept,
            value_bytes,
            pair_bytes,
            ..
        } = self;
        let (target, falling, limit, size) = (self.target, self.falling, self.limit, self.size);
        let (keys_only, mut read) = (walk.is_keys_only(), 0);
        let stand = walk.step(view, entries_max, &mut |item| {
            if read >= limits::SLICE_BYTES {
                return Ok(false);
            }
            let field = field(target, falling, item)?;
            read += item.key.len() + field.bytes();
            let value_len = if keys_only { 0 } else { item.latest.value_len };
            let found = Found {
                field,
                place: *seen,
                at: item.latest.revision,
                size: size(&key_only(item.key, &item.latest), value_len as usize),
            };
            *seen += 1;
            *value_bytes += found.field.bytes();
            *pair_bytes += found.size;
            kept.push(found);
            if kept.len() > limit
                && let Some(beyond) = kept.pop()
            {
                *value_bytes -= beyond.field.bytes();
                *pair_bytes -= beyond.size;
            }
            Ok(true)
        })?;
        let most = self.kept.len() * (size_of::<Found>() + size_of::<Revision>());
        if most + self.value_bytes > limits::SORTED_BYTES_MAX {
            return Err(Failure::Refused(api::Error::ResponseTooLarge));
        }
        Ok(matches!(stand, Stand::End | Stand::Limit))
    }

    /// Moves the last that are left from the heap to the order.
    fn sort(&mut self, entries_max: usize) {
        let mut moved = 0;
        for _ in 0..entries_max {
            let Some(found) = self.kept.pop() else {
                return;
            };
            moved += found.field.bytes();
            self.value_bytes -= found.field.bytes();
            self.order.push(found.at);
            // Each is compared with some others on its way out.
            if moved >= limits::SLICE_BYTES {
                return;
            }
        }
    }

    /// Gives pairs to `visit` until it says `false`, which leaves the pair for the next part, or
    /// until `entries_max` were given; works towards that if it has not come so far.
    pub fn give<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        entries_max: usize,
        visit: &mut dyn FnMut(&KeyValue<'_>) -> bool,
    ) -> Result<Stand, Failure> {
        if !self.prepare(view, entries_max)? {
            return Ok(Stand::Pause);
        }
        // What was found at the revision may have been purged since.
        view.resolve(self.walk.revision())?;
        let keys_only = self.walk.is_keys_only();
        for _ in 0..entries_max {
            let Some(at) = self.order.last() else {
                break;
            };
            let mut kv = api_pair(event(view, *at)?.key_value());
            if keys_only {
                kv.value = b"";
            }
            if !visit(&kv) {
                return Ok(Stand::Full);
            }
            self.order.pop();
        }
        Ok(match self.order.is_empty() {
            true => Stand::End,
            false => Stand::Pause,
        })
    }

    /// As [`RangeWalk::summary`], once everything is gathered.
    pub fn summary<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        steps_max: u64,
    ) -> Result<Option<RangeSummary>, Failure> {
        let more = self.seen > self.limit;
        let summary = self.walk.summary(view, steps_max)?;
        Ok(summary.map(|summary| RangeSummary { more, ..summary }))
    }
}

fn field(target: SortTarget, falling: bool, item: &Item<'_>) -> Result<Field, mvcc::Error> {
    let number = |number: fn(&Latest) -> i64| Ok(Field::number(number(&item.latest), falling));
    match target {
        // The place says the same, and is always there.
        SortTarget::Key => number(|_| 0),
        SortTarget::Version => number(|latest| latest.version),
        SortTarget::Create => number(|latest| latest.create_revision),
        SortTarget::Mod => number(|latest| latest.revision.main),
        SortTarget::Value => Ok(Field::value(item.value()?, falling)),
    }
}

/// The event that was found at this revision of the store.
fn event<'v, T: TreeRead>(
    view: &View<'v, T>,
    at: Revision,
) -> Result<mvcc::Event<'v>, mvcc::Error> {
    view.event(at)?.ok_or(mvcc::Error::Corrupt {
        tree: TreeId::Revision,
        key: at.to_string().into_bytes().into(),
        what: "an event is missing",
    })
}

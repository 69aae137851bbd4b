//! Reading an interval in key order, in parts: the walk remembers where it stands, by key and at
//! one revision, so that nothing is pinned between two parts.

use super::range::{api_pair, key_only, passes};
use super::{Failure, interval_end, is_empty};
use crate::api::{self, RangeRequest, RangeSummary, SortOrder, SortTarget};
use quoin_storage::mvcc::{self, CountWalk, Item, View};
use quoin_storage::tree::{Interval, TreeRead};
use std::borrow::Cow;

/// From a first key to the first key beyond; `None` is open.
type Bounds<'q> = (Cow<'q, [u8]>, Option<Cow<'q, [u8]>>);

/// An interval that is being read in key order.
#[derive(Debug, Clone)]
pub struct RangeWalk<'q> {
    whole: Bounds<'q>,
    /// What has not been read.
    rest: Bounds<'q>,
    revision: i64,
    back: bool,
    /// Of the request the filters and what is left out are looked at.
    request: RangeRequest<'static>,
    /// Pairs that may still be given.
    left: usize,
    /// Live keys seen.
    live: i64,
    /// The limit has kept a pair back.
    more: bool,
    /// How many keys the interval has, while that is being found.
    counting: Option<CountWalk>,
}

/// Where a walk stands after a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Everything is given.
    End,
    /// The limit is reached, and there is more.
    Limit,
    /// Enough was looked at for now.
    Pause,
    /// The next pair was not taken.
    Full,
}

fn borrow<'b>(bounds: &'b Bounds<'_>) -> Interval<'b> {
    Interval {
        start: &bounds.0,
        end: bounds.1.as_deref(),
    }
}

fn own(bounds: Bounds<'_>) -> Bounds<'static> {
    let (start, end) = bounds;
    (
        Cow::Owned(start.into_owned()),
        end.map(|end| Cow::Owned(end.into_owned())),
    )
}

impl<'q> RangeWalk<'q> {
    /// A walk over the interval of a request: in the order that it asks for if that is one of the
    /// keys, else ascending.
    pub fn new<T: TreeRead>(
        view: &View<'_, T>,
        request: &RangeRequest<'q>,
    ) -> Result<RangeWalk<'q>, Failure> {
        let by_key = request.sort_target == SortTarget::Key;
        let revision = view.resolve(request.revision)?;
        let start = Cow::Borrowed(request.key);
        let end = interval_end(request.range_end).map(Cow::Borrowed);
        let whole = (start, end);
        Ok(RangeWalk {
            rest: whole.clone(),
            whole,
            revision,
            back: by_key && request.sort_order == SortOrder::Descend,
            request: RangeRequest {
                key: &[],
                range_end: &[],
                ..*request
            },
            left: limit(request),
            live: 0,
            more: false,
            counting: None,
        })
    }

    /// The walk, for longer than the request lives.
    pub fn into_owned(self) -> RangeWalk<'static> {
        RangeWalk {
            whole: own(self.whole),
            rest: own(self.rest),
            ..self
        }
    }

    /// Bytes of its bounds.
    pub fn bytes(&self) -> usize {
        let (start, end) = &self.whole;
        start.len() + end.as_ref().map_or(0, |end| end.len())
    }

    /// The revision that it reads.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// About how many entries of the tree it has looked at.
    pub fn looked_at(&self) -> usize {
        let counted = self.counting.as_ref().map_or(0, CountWalk::steps);
        // Both are fewer than bytes in a file.
        self.live as usize + counted as usize
    }

    /// How many pairs may still be given.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Lets so many pairs pass from here on.
    pub fn allow(&mut self, pairs: usize) {
        self.left = pairs;
        self.more = false;
    }

    /// Reads on: gives pairs to `visit` until it says `false`, which leaves the pair for the next
    /// part, or until `entries_max` entries were looked at.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        entries_max: usize,
        visit: &mut dyn FnMut(&Item<'_>) -> Result<bool, mvcc::Error>,
    ) -> Result<Stand, Failure> {
        let interval = borrow(&self.rest);
        if is_empty(interval) {
            return Ok(Stand::End);
        }
        let (mut left, mut live, mut stand) = (self.left, self.live, Stand::Pause);
        let request = &self.request;
        let mut each = |item: &Item<'_>| {
            if !passes(request, &item.latest) {
                live += 1;
                return Ok(true);
            }
            stand = match left {
                0 => Stand::Limit,
                _ if visit(item)? => Stand::Pause,
                _ => Stand::Full,
            };
            if stand == Stand::Pause {
                left -= 1;
                live += 1;
            }
            Ok(stand == Stand::Pause)
        };
        let next = view.scan_part(interval, self.revision, self.back, entries_max, &mut each)?;
        (self.left, self.live) = (left, live);
        let Some(mut next) = next else {
            let end = self.rest.0.clone();
            self.rest.1 = Some(end);
            return Ok(Stand::End);
        };
        if self.back {
            next.push(0);
            self.rest.1 = Some(Cow::Owned(next));
        } else {
            self.rest.0 = Cow::Owned(next);
        }
        self.more |= stand == Stand::Limit;
        Ok(stand)
    }

    /// What closes the answer, once a part has come to the end or to the limit. Unless the limit
    /// has kept something back, the keys seen are the count; else see [`RangeWalk::count`].
    pub fn summary<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        steps_max: u64,
    ) -> Result<Option<RangeSummary>, Failure> {
        let more = self.more;
        let count = match more {
            true => self.count(view, steps_max)?,
            false => Some(self.live),
        };
        Ok(count.map(|count| RangeSummary { more, count }))
    }

    /// Counts all keys of the interval, in about so many steps; `None` if that takes more of them.
    pub fn count<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        steps_max: u64,
    ) -> Result<Option<i64>, Failure> {
        let interval = borrow(&self.whole);
        let counting = match &mut self.counting {
            Some(counting) => counting,
            none => none.insert(CountWalk::new(view, interval, self.revision)?),
        };
        let count = counting.step(view, interval, steps_max)?;
        Ok(count.map(|count| i64::try_from(count).expect("fewer keys than bytes in a file")))
    }

    /// Whether values are left out.
    pub fn is_keys_only(&self) -> bool {
        self.request.keys_only
    }
}

/// The most pairs that a request wants.
pub fn limit(request: &RangeRequest<'_>) -> usize {
    match usize::try_from(request.limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    }
}

/// The pair of an item, without its value if only keys are asked for.
pub fn pair<'i>(keys_only: bool, item: &Item<'i>) -> Result<api::KeyValue<'i>, mvcc::Error> {
    Ok(match keys_only {
        true => key_only(item.key, &item.latest),
        false => api_pair(item.key_value()?),
    })
}

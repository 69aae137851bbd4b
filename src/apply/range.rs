//! Reading an interval of keys, with all that a range request can ask for.
//!
//! Answers in key order are streamed from the tree to the sink. Other orders gather a few words
//! per key (never the value), at most twice the limit of them if there is one, and look each
//! pair up when its turn has come.

use super::walk::{RangeWalk, pair};
use super::{Failure, interval_end, is_empty};
use crate::api::{self, KvSink, RangeRequest, RangeSummary, SortOrder, SortTarget};
use quoin_storage::mvcc::{Item, Latest, Revision, View};
use quoin_storage::tree::{Interval, TreeRead};

/// Serves a range request from a view: a front's snapshot, or a transaction in progress.
///
/// The request has passed [`super::validate::admit`]. The sink receives the pairs in the order
/// asked for; if an error is returned it may have received some already.
///
/// With `keys_only` the lease stays in the answer, as in etcd 3.6; 3.7 leaves it out, which is
/// reported there as a defect.
pub fn range<T: TreeRead>(
    view: &View<'_, T>,
    request: &RangeRequest<'_>,
    sink: &mut dyn KvSink,
) -> Result<RangeSummary, Failure> {
    let revision = view.resolve(request.revision)?;
    if request.range_end.is_empty() {
        return single(view, request, revision, sink);
    }
    let interval = Interval {
        start: request.key,
        end: interval_end(request.range_end),
    };
    if is_empty(interval) {
        return Ok(RangeSummary::default());
    }
    if request.count_only {
        return Ok(RangeSummary {
            more: false,
            count: count(view, interval, revision)?,
        });
    }
    let read = Read {
        view,
        request,
        interval,
        revision,
    };
    match request.sort_target {
        SortTarget::Key => by_key(view, request, sink),
        SortTarget::Version => read.by_number(sink, |latest| latest.version),
        SortTarget::Create => read.by_number(sink, |latest| latest.create_revision),
        SortTarget::Mod => read.by_number(sink, |latest| latest.revision.main),
        SortTarget::Value => read.by_value(sink),
    }
}

/// In the order of the keys, either way.
fn by_key<T: TreeRead>(
    view: &View<'_, T>,
    request: &RangeRequest<'_>,
    sink: &mut dyn KvSink,
) -> Result<RangeSummary, Failure> {
    let Some(mut walk) = RangeWalk::new(view, request)? else {
        unreachable!("asked for in key order, and more than one key");
    };
    let mut failure = None;
    walk.step(view, usize::MAX, &mut |item| {
        failure = push(sink, pair(request.keys_only, item)?).err();
        Ok(failure.is_none())
    })?;
    match failure {
        Some(failure) => Err(failure),
        None => walk.summary(view),
    }
}

pub(super) fn count<T: TreeRead>(
    view: &View<'_, T>,
    interval: Interval<'_>,
    revision: i64,
) -> Result<i64, Failure> {
    let count = view.count_at(interval, revision)?;
    Ok(i64::try_from(count).expect("fewer keys than bytes in a file"))
}

/// The common case: one key.
fn single<T: TreeRead>(
    view: &View<'_, T>,
    request: &RangeRequest<'_>,
    revision: i64,
    sink: &mut dyn KvSink,
) -> Result<RangeSummary, Failure> {
    let newest = revision == view.horizon().revision;
    if newest && (request.keys_only || request.count_only) {
        // The key tree alone knows all but the value.
        let Some(latest) = view.latest(request.key)? else {
            return Ok(RangeSummary::default());
        };
        if !request.count_only && passes(request, &latest) {
            push(sink, key_only(request.key, &latest))?;
        }
    } else {
        let Some(kv) = view.get_at(request.key, revision)? else {
            return Ok(RangeSummary::default());
        };
        let passes = passes_filters(request, kv.mod_revision, kv.create_revision);
        if !request.count_only && passes {
            let value = if request.keys_only { b"" } else { kv.value };
            push(
                sink,
                api::KeyValue {
                    value,
                    ..api_pair(kv)
                },
            )?;
        }
    }
    Ok(RangeSummary {
        more: false,
        count: 1,
    })
}

/// A request for more than one key, with what follows from it.
struct Read<'q, 'v, T> {
    view: &'q View<'v, T>,
    request: &'q RangeRequest<'q>,
    interval: Interval<'q>,
    revision: i64,
}

impl<'v, T: TreeRead> Read<'_, 'v, T> {
    /// The most pairs to return.
    fn limit(&self) -> usize {
        match usize::try_from(self.request.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        }
    }

    /// `live` keys were seen; unless the scan ended early, that is the count.
    fn summary(&self, more: bool, live: i64) -> Result<RangeSummary, Failure> {
        let count = if more {
            count(self.view, self.interval, self.revision)?
        } else {
            live
        };
        Ok(RangeSummary { more, count })
    }

    fn by_number(
        &self,
        sink: &mut dyn KvSink,
        number: impl Fn(&Latest) -> i64,
    ) -> Result<RangeSummary, Failure> {
        self.sorted(sink, |item| Ok(number(&item.latest)))
    }

    fn by_value(&self, sink: &mut dyn KvSink) -> Result<RangeSummary, Failure> {
        self.sorted(sink, |item| {
            let at = item.latest.revision;
            Ok(self.event(at)?.value)
        })
    }

    /// Sorts by what `field` says of each key, then by key.
    fn sorted<F: Ord>(
        &self,
        sink: &mut dyn KvSink,
        field: impl Fn(&Item<'_>) -> Result<F, quoin_storage::mvcc::Error>,
    ) -> Result<RangeSummary, Failure> {
        let limit = self.limit();
        // Without an order (which then means ascending) and without filters, only the first keys
        // by key compete: etcd applies the limit before it sorts.
        let read_max = if self.request.sort_order == SortOrder::None && !has_filters(self.request) {
            limit.saturating_add(1)
        } else {
            usize::MAX
        };
        let mut first = First::new(limit, self.request.sort_order == SortOrder::Descend);
        let (mut live, mut cut) = (0, false);
        self.view
            .scan_at(self.interval, self.revision, &mut |item| {
                live += 1;
                if passes(self.request, &item.latest) {
                    first.add(field(item)?, item.latest.revision);
                }
                cut = first.seen == read_max;
                Ok(!cut)
            })?;
        let more = first.seen > limit;
        for at in first.finish() {
            let kv = api_pair(self.event(at)?.key_value());
            let value = if self.request.keys_only {
                b""
            } else {
                kv.value
            };
            push(sink, api::KeyValue { value, ..kv })?;
        }
        let summary = self.summary(cut, live)?;
        Ok(RangeSummary { more, ..summary })
    }

    /// The event that a scan of this very view has named.
    fn event(
        &self,
        at: Revision,
    ) -> Result<quoin_storage::mvcc::Event<'v>, quoin_storage::mvcc::Error> {
        self.view
            .event(at)?
            .ok_or(quoin_storage::mvcc::Error::Corrupt {
                tree: quoin_storage::tree::TreeId::Revision,
                key: at.to_string().into_bytes().into(),
                what: "an event is missing",
            })
    }
}

/// The first `limit` of many, in order, in memory for at most twice as many.
struct First<F> {
    limit: usize,
    descending: bool,
    /// (field, place in key order, event).
    kept: Vec<(F, usize, Revision)>,
    /// How many were added.
    seen: usize,
}

/// Below this many entries it is not worth while to throw some out.
const KEPT_MIN: usize = 1024;

impl<F: Ord> First<F> {
    fn new(limit: usize, descending: bool) -> First<F> {
        First {
            limit,
            descending,
            kept: Vec::new(),
            seen: 0,
        }
    }

    fn add(&mut self, field: F, at: Revision) {
        self.kept.push((field, self.seen, at));
        self.seen += 1;
        if self.kept.len() > KEPT_MIN && self.kept.len() / 2 >= self.limit {
            let descending = self.descending;
            self.kept
                .select_nth_unstable_by(self.limit, |a, b| order(a, b, descending));
            self.kept.truncate(self.limit);
        }
    }

    fn finish(mut self) -> impl Iterator<Item = Revision> {
        let descending = self.descending;
        self.kept.sort_unstable_by(|a, b| order(a, b, descending));
        self.kept.into_iter().take(self.limit).map(|(_, _, at)| at)
    }
}

/// Equal fields stay in key order, whichever way the fields are sorted.
fn order<F: Ord>(
    a: &(F, usize, Revision),
    b: &(F, usize, Revision),
    descending: bool,
) -> std::cmp::Ordering {
    let by_field = if descending {
        b.0.cmp(&a.0)
    } else {
        a.0.cmp(&b.0)
    };
    by_field.then(a.1.cmp(&b.1))
}

fn has_filters(r: &RangeRequest<'_>) -> bool {
    r.min_mod_revision != 0
        || r.max_mod_revision != 0
        || r.min_create_revision != 0
        || r.max_create_revision != 0
}

pub(super) fn passes(request: &RangeRequest<'_>, latest: &Latest) -> bool {
    passes_filters(request, latest.revision.main, latest.create_revision)
}

fn passes_filters(r: &RangeRequest<'_>, modified: i64, created: i64) -> bool {
    let within = |min: i64, at: i64, max: i64| (min == 0 || min <= at) && (max == 0 || at <= max);
    within(r.min_mod_revision, modified, r.max_mod_revision)
        && within(r.min_create_revision, created, r.max_create_revision)
}

#[inline]
fn push(sink: &mut dyn KvSink, kv: api::KeyValue<'_>) -> Result<(), Failure> {
    sink.push(kv);
    if sink.full() {
        Err(Failure::Refused(api::Error::ResponseTooLarge))
    } else {
        Ok(())
    }
}

/// A pair without its value.
pub fn key_only<'k>(key: &'k [u8], latest: &Latest) -> api::KeyValue<'k> {
    api::KeyValue {
        key,
        create_revision: latest.create_revision,
        mod_revision: latest.revision.main,
        version: latest.version,
        value: b"",
        lease: latest.lease,
    }
}

/// The pair as the fronts know it.
pub(super) fn api_pair(kv: quoin_storage::mvcc::KeyValue<'_>) -> api::KeyValue<'_> {
    api::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

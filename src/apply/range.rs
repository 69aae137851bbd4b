//! Reading what a range request asks for, at once.

use super::Failure;
use super::parts::RangeParts;
use super::walk::Stand;
use crate::api::{self, KvSink, RangeRequest, RangeSummary};
use quoin_storage::mvcc::{Latest, View};
use quoin_storage::tree::TreeRead;

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
    let Some(mut parts) = RangeParts::new(view, request, |_, _| 0)? else {
        return Ok(RangeSummary::default());
    };
    loop {
        let stand = parts.give(view, usize::MAX, &mut |kv| {
            sink.push(*kv);
            !sink.full()
        })?;
        match stand {
            Stand::Pause => {}
            Stand::Full => return Err(Failure::Refused(api::Error::ResponseTooLarge)),
            Stand::End | Stand::Limit => break,
        }
    }
    loop {
        if let Some(summary) = parts.summary(view, u64::MAX)? {
            return Ok(summary);
        }
    }
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

/// Whether a request asks for pairs of some revisions only.
pub(super) fn has_filters(r: &RangeRequest<'_>) -> bool {
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

//! The writes, one by one.

use super::txn::write_txn;
use super::{Failure, alarm, interval_end, is_empty, lease, validate};
use crate::api::{
    self, DeleteRangeRequest, DeleteRangeResponse, Error, KvSink, OwnedKeyValue, PutRequest,
    PutResponse, RangeResponse, Request, Response,
};
use crate::limits::{self, RESPONSE_BYTES_MAX};
use quoin_storage::mvcc::{self, Meta, WriteTxn};
use quoin_storage::tree::{Interval, TreeWrite};

/// How a command went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A put that asked for nothing back, or a command of the leader's own, for whose answer
    /// nobody waits.
    Put {
        /// The store's revision after it.
        revision: i64,
    },
    /// Any other success.
    Done {
        /// The store's revision after the command.
        revision: i64,
        /// The answer.
        response: Box<Response>,
    },
    /// Refused.
    Failed {
        /// The store's revision.
        revision: i64,
        /// Why.
        error: Error,
    },
}

/// Runs one command out of the log inside a transaction of the tree.
///
/// A refusal is an outcome, and a refused command has changed nothing. After an error (the store
/// is broken, or has no space left) the tree's transaction must be dropped, and `meta` put back
/// to what it was before it.
///
/// `room` is how many bytes of pairs the answer may hold, together with others that share the
/// room; what this one holds is taken off it. The last of it is kept for small answers. See
/// [`Answer`] for one that does not fit.
pub fn execute<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    request: &Request<'_>,
    room: &mut usize,
) -> Result<Outcome, Failure> {
    let large = room.saturating_sub(limits::ANSWER_BYTES_KEPT);
    let small = (*room).min(limits::ANSWER_BYTES_SMALL);
    let mut answer = Answer::new(large.max(small));
    let done = match validate::replicated(request) {
        Ok(()) => match alarm::check(meta, request) {
            Ok(()) => dispatch(tree, meta, request, &mut answer),
            // The cluster's word, not that of this member's disk.
            Err(error) => {
                return Ok(Outcome::Failed {
                    revision: meta.revision,
                    error,
                });
            }
        },
        Err(error) => Err(Failure::Refused(error)),
    };
    let revision = meta.revision;
    match done {
        Ok(None) => Ok(Outcome::Put { revision }),
        Ok(Some(response)) => Ok(match answer.finish() {
            Ok(taken) => {
                *room -= taken;
                let response = Box::new(response);
                Outcome::Done { revision, response }
            }
            Err(error) => Outcome::Failed { revision, error },
        }),
        Err(Failure::Refused(error)) if error != Error::NoSpace => {
            Ok(Outcome::Failed { revision, error })
        }
        Err(failure) => Err(failure),
    }
}

/// `None` is the answer to a put that asked for nothing, and to the leader's own commands.
#[inline]
fn dispatch<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    request: &Request<'_>,
    answer: &mut Answer,
) -> Result<Option<Response>, Failure> {
    if let Request::Compact(compact) = request {
        mvcc::compact(meta, compact.revision)?;
        return Ok(Some(Response::Compact));
    }
    if let Request::Alarm(request) = request {
        let response = alarm::execute(tree, meta, request)?;
        return Ok(Some(Response::Alarm(response)));
    }
    if is_of_leases(request) {
        return lease::dispatch(tree, meta, request);
    }
    let mut store = WriteTxn::begin(tree, meta);
    let written = write(&mut store, request, answer);
    match &written {
        Ok(_) => {
            store.finish();
        }
        // A command is atomic because whatever can refuse it is looked at before it writes.
        Err(Failure::Refused(error)) if *error != Error::NoSpace => {
            assert!(
                !store.changed(),
                "a command was refused after it had written: {error}"
            );
        }
        Err(_) => {}
    }
    written
}

#[inline]
fn write<T: TreeWrite>(
    store: &mut WriteTxn<'_, T>,
    request: &Request<'_>,
    answer: &mut Answer,
) -> Result<Option<Response>, Failure> {
    Ok(match request {
        Request::Put(request) => {
            lease::check(store.tree(), request.lease)?;
            let response = put(store, request, answer)?;
            request.prev_kv.then_some(Response::Put(response))
        }
        Request::DeleteRange(request) => {
            Some(Response::DeleteRange(delete_range(store, request, answer)?))
        }
        Request::Txn(request) => Some(Response::Txn(write_txn(store, request, answer)?)),
        // Reads are not logged; one that is there all the same is of no effect.
        Request::Range(_) => return Err(Failure::Refused(Error::Unimplemented)),
        _ => unreachable!("they make no revision, or revisions of their own"),
    })
}

fn is_of_leases(request: &Request<'_>) -> bool {
    !matches!(
        request,
        Request::Range(_)
            | Request::Put(_)
            | Request::DeleteRange(_)
            | Request::Txn(_)
            | Request::Compact(_)
    )
}

/// Writes a key. The lease, if any, has been checked.
#[inline]
pub(super) fn put<T: TreeWrite>(
    store: &mut WriteTxn<'_, T>,
    request: &PutRequest<'_>,
    answer: &mut Answer,
) -> Result<PutResponse, Failure> {
    let mut response = PutResponse::default();
    if request.prev_kv
        && let Some(kv) = store.view().get(request.key)?
    {
        response.prev_kv = answer.take(super::range::api_pair(kv));
    }
    let mut lease = request.lease;
    if request.ignore_lease {
        let latest = store.view().latest(request.key)?;
        lease = latest.ok_or(Error::KeyNotFound)?.lease;
    }
    if request.ignore_value {
        let kept = store.put_keep_value(request.key, lease)?;
        kept.ok_or(Error::KeyNotFound)?;
    } else {
        store.put(request.key, request.value, lease)?;
    }
    Ok(response)
}

/// Deletes a key or an interval.
pub(super) fn delete_range<T: TreeWrite>(
    store: &mut WriteTxn<'_, T>,
    request: &DeleteRangeRequest<'_>,
    answer: &mut Answer,
) -> Result<DeleteRangeResponse, Failure> {
    let mut response = DeleteRangeResponse::default();
    let mut keep = |kv: mvcc::KeyValue<'_>| {
        response
            .prev_kvs
            .extend(answer.take(super::range::api_pair(kv)));
    };
    if request.range_end.is_empty() {
        if request.prev_kv
            && let Some(kv) = store.view().get(request.key)?
        {
            keep(kv);
        }
        response.deleted = i64::from(store.delete(request.key)?.is_some());
        return Ok(response);
    }
    let interval = Interval {
        start: request.key,
        end: interval_end(request.range_end),
    };
    if !is_empty(interval) {
        let deleted = store.delete_interval(interval, &mut |item| {
            if request.prev_kv {
                keep(item.key_value()?);
            }
            Ok(())
        })?;
        response.deleted = i64::try_from(deleted).expect("fewer keys than bytes in a file");
    }
    Ok(response)
}

/// What the answer to one request may still hold.
///
/// What does not fit is left out, and the client gets `ResponseTooLarge` instead of the answer.
/// A write takes place all the same: how large answers may be must not decide what is written.
#[derive(Debug)]
pub(super) struct Answer {
    taken: usize,
    bytes_max: usize,
    /// Something was left out.
    over: bool,
}

impl Answer {
    pub fn new(room: usize) -> Answer {
        Answer {
            taken: 0,
            bytes_max: room.min(RESPONSE_BYTES_MAX),
            over: false,
        }
    }

    /// How many bytes were kept, if everything was.
    pub fn finish(&self) -> Result<usize, Error> {
        if self.over {
            Err(Error::ResponseTooLarge)
        } else {
            Ok(self.taken)
        }
    }

    /// Something was left out.
    pub fn is_over(&self) -> bool {
        self.over
    }

    pub fn take_key(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let fits = self.take_bytes(key.len() + size_of::<Vec<u8>>());
        fits.then(|| key.to_vec())
    }

    fn take(&mut self, kv: api::KeyValue<'_>) -> Option<OwnedKeyValue> {
        let fits = self.take_bytes(kv.key.len() + kv.value.len() + size_of::<OwnedKeyValue>());
        fits.then(|| kv.to_owned())
    }

    /// Whether so many bytes more could be kept, and everything before.
    pub fn take_bytes(&mut self, bytes: usize) -> bool {
        self.over |= bytes > self.bytes_max - self.taken;
        if !self.over {
            self.taken += bytes;
        }
        !self.over
    }

    /// Gathers the pairs of a range as long as they fit.
    pub fn sink<'a>(&'a mut self, response: &'a mut RangeResponse) -> impl KvSink + 'a {
        AnswerSink {
            answer: self,
            response,
        }
    }
}

struct AnswerSink<'a> {
    answer: &'a mut Answer,
    response: &'a mut RangeResponse,
}

impl KvSink for AnswerSink<'_> {
    fn push(&mut self, kv: api::KeyValue<'_>) {
        self.response.kvs.extend(self.answer.take(kv));
    }

    fn full(&self) -> bool {
        self.answer.over
    }
}

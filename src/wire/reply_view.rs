//! Replies, as a client reads them: views that borrow from the frame.

#![forbid(unsafe_code)]

use rkyv::vec::ArchivedVec;

use super::archive::{
    ArchivedDeleteRangeReply, ArchivedDeleteRangeResult, ArchivedErrorReply, ArchivedHeader,
    ArchivedKv, ArchivedPutReply, ArchivedPutResult, ArchivedRangeReply, ArchivedRangeResult,
    ArchivedStatusReply, ArchivedTxnReply, ArchivedTxnResult,
};
use super::layout::{Kind, TXN_DEPTH_MAX, TXN_OPS_MAX};
use super::walk::{Walk, flag};
use super::watch::{Events, WatchIds};
use super::{Frame, Malformed, alarm, lease};
use crate::api::{
    AlarmResponse, DeleteRangeResponse, Error, Header, KeyValue, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseTimeToLiveResponse, LeasesResponse, OwnedKeyValue, PutResponse,
    RangeResponse, Response, TxnResponse, WatchResponse,
};

/// A reply, read in place.
#[derive(Debug, Clone)]
pub enum Reply<'a> {
    /// To a range.
    Range {
        /// The pairs, in the order asked for.
        kvs: Kvs<'a>,
        /// There are more keys than the limit let through.
        more: bool,
        /// Live keys in the interval.
        count: i64,
    },
    /// To a put.
    Put {
        /// The pair before the put, if asked for and if there was one.
        prev_kv: Option<KeyValue<'a>>,
    },
    /// To a delete.
    DeleteRange {
        /// How many keys were deleted.
        deleted: i64,
        /// The deleted pairs, if asked for.
        prev_kvs: Kvs<'a>,
    },
    /// To a transaction.
    Txn {
        /// Every compare held.
        succeeded: bool,
        /// One answer per operation that ran: never `Compact` or one of those below it.
        responses: Vec<Reply<'a>>,
    },
    /// To a compaction.
    Compact,
    /// To a grant.
    LeaseGrant(LeaseGrantResponse),
    /// To a revocation.
    LeaseRevoke,
    /// To a renewal.
    LeaseKeepAlive(LeaseKeepAliveResponse),
    /// To a question about a lease.
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    /// To the question which leases there are.
    Leases(LeasesResponse),
    /// To a request about alarms.
    Alarm(AlarmResponse),
    /// To a ping.
    Ping,
    /// To a request for the status.
    Status {
        /// The server's version.
        version: &'a str,
    },
    /// A watch exists now.
    WatchCreated {
        /// Its id; -1 if it was refused.
        watch_id: i64,
        /// Why it was refused; empty if it was not.
        reason: &'a str,
    },
    /// A watch is over.
    WatchCancelled {
        /// Which.
        watch_id: i64,
        /// Not 0 if a compaction has overtaken it: the oldest revision to watch from.
        compact_revision: i64,
        /// Why, if the server ended it for another reason.
        reason: &'a str,
    },
    /// How far a watch stream has come.
    WatchProgress {
        /// The watches that this is about; empty: all of the stream.
        watch_ids: WatchIds<'a>,
    },
    /// A watch stream is over.
    WatchClosed,
    /// Something happened.
    WatchEvents {
        /// The watches that want to know.
        watch_ids: WatchIds<'a>,
        /// What happened.
        events: Events<'a>,
        /// More events of the last one's revision follow.
        fragment: bool,
    },
    /// The request was refused.
    Refused(Refusal<'a>),
}

impl Reply<'_> {
    /// A copy that owns its bytes; `None` for what is no [`Response`]: ping, status, refusal.
    pub fn to_response(&self) -> Option<Response> {
        Some(match self {
            Reply::Range { kvs, more, count } => Response::Range(RangeResponse {
                kvs: kvs.to_vec(),
                more: *more,
                count: *count,
            }),
            Reply::Put { prev_kv } => Response::Put(PutResponse {
                prev_kv: prev_kv.map(|kv| kv.to_owned()),
            }),
            Reply::DeleteRange { deleted, prev_kvs } => {
                Response::DeleteRange(DeleteRangeResponse {
                    deleted: *deleted,
                    prev_kvs: prev_kvs.to_vec(),
                })
            }
            Reply::Txn {
                succeeded,
                responses,
            } => {
                let responses = responses
                    .iter()
                    .map(Reply::to_response)
                    .collect::<Option<_>>()?;
                Response::Txn(TxnResponse {
                    succeeded: *succeeded,
                    responses,
                })
            }
            Reply::Compact => Response::Compact,
            Reply::LeaseGrant(grant) => Response::LeaseGrant(*grant),
            Reply::LeaseRevoke => Response::LeaseRevoke,
            Reply::LeaseKeepAlive(kept) => Response::LeaseKeepAlive(*kept),
            Reply::LeaseTimeToLive(answer) => Response::LeaseTimeToLive(answer.clone()),
            Reply::Leases(leases) => Response::Leases(leases.clone()),
            Reply::Alarm(alarms) => Response::Alarm(alarms.clone()),
            Reply::Ping
            | Reply::Status { .. }
            | Reply::WatchCreated { .. }
            | Reply::WatchCancelled { .. }
            | Reply::WatchProgress { .. }
            | Reply::WatchClosed
            | Reply::WatchEvents { .. }
            | Reply::Refused(_) => return None,
        })
    }
}

impl Reply<'_> {
    /// Whether a watch stream says it.
    pub fn is_watch(&self) -> bool {
        matches!(
            self,
            Reply::WatchCreated { .. }
                | Reply::WatchCancelled { .. }
                | Reply::WatchProgress { .. }
                | Reply::WatchClosed
                | Reply::WatchEvents { .. }
        )
    }

    /// What a watch stream says, with its own bytes; `None` for what is no [`WatchResponse`].
    pub fn to_watch(&self) -> Option<WatchResponse> {
        Some(match self {
            Reply::WatchCreated {
                watch_id,
                reason: "",
            } => {
                let watch_id = *watch_id;
                WatchResponse::Created { watch_id }
            }
            Reply::WatchCreated { reason, .. } => WatchResponse::Refused {
                reason: (*reason).to_owned(),
            },
            Reply::WatchCancelled {
                watch_id,
                compact_revision,
                reason,
            } => WatchResponse::Cancelled {
                watch_id: *watch_id,
                compact_revision: *compact_revision,
                reason: (*reason).to_owned(),
            },
            Reply::WatchProgress { watch_ids } => WatchResponse::Progress {
                watch_ids: watch_ids.iter().collect(),
            },
            Reply::WatchClosed => WatchResponse::Closed,
            Reply::WatchEvents {
                watch_ids,
                events,
                fragment,
            } => WatchResponse::Events {
                watch_ids: watch_ids.iter().collect(),
                events: events.to_vec(),
                fragment: *fragment,
            },
            _ => return None,
        })
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The number: an [`Error`]'s, or with the top bit set a [`Malformed`]'s.
    pub code: u16,
    /// The text.
    pub message: &'a str,
}

impl Refusal<'_> {
    /// The error with that number, if this version knows it.
    pub fn error(&self) -> Option<Error> {
        Error::from_code(self.code)
    }
}

/// Pairs, in place.
#[derive(Clone, Copy)]
pub struct Kvs<'a> {
    archived: &'a [ArchivedKv],
}

impl<'a> Kvs<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.archived.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.archived.is_empty()
    }

    /// The pairs, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = KeyValue<'a>> + use<'a> {
        self.archived.iter().map(view)
    }

    /// Copies that own their bytes.
    pub fn to_vec(&self) -> Vec<OwnedKeyValue> {
        self.iter().map(|kv| kv.to_owned()).collect()
    }
}

impl std::fmt::Debug for Kvs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

pub(super) fn view(kv: &ArchivedKv) -> KeyValue<'_> {
    KeyValue {
        key: kv.key.as_slice(),
        create_revision: kv.create_revision.to_native(),
        mod_revision: kv.mod_revision.to_native(),
        version: kv.version.to_native(),
        value: kv.value.as_slice(),
        lease: kv.lease.to_native(),
    }
}

/// Reads a reply; its bytes stay where they are.
#[inline]
pub fn decode_reply<'a>(frame: &Frame<'a>) -> Result<(Header, Reply<'a>), Malformed> {
    let body = frame.body;
    Ok(match frame.kind {
        Kind::PutReply => {
            let (root, mut walk) = Walk::open::<ArchivedPutReply>(body)?;
            let reply = put_result(&root.result, &mut walk)?;
            walk.close(root)?;
            (header(&root.header), reply)
        }
        Kind::RangeReply => {
            let (root, mut walk) = Walk::open::<ArchivedRangeReply>(body)?;
            let reply = range_result(&root.result, &mut walk)?;
            walk.close(root)?;
            (header(&root.header), reply)
        }
        Kind::DeleteRangeReply => {
            let (root, mut walk) = Walk::open::<ArchivedDeleteRangeReply>(body)?;
            let reply = delete_range_result(&root.result, &mut walk)?;
            walk.close(root)?;
            (header(&root.header), reply)
        }
        Kind::TxnReply => {
            let (root, mut walk) = Walk::open::<ArchivedTxnReply>(body)?;
            let mut budget = TXN_OPS_MAX;
            let reply = txn_result(&root.result, &mut walk, TXN_DEPTH_MAX, &mut budget)?;
            walk.close(root)?;
            (header(&root.header), reply)
        }
        Kind::CompactReply => (bare_header(body)?, Reply::Compact),
        Kind::PingReply => (bare_header(body)?, Reply::Ping),
        Kind::StatusReply => {
            let (root, mut walk) = Walk::open::<ArchivedStatusReply>(body)?;
            let version = text(&root.result.version, &mut walk, "version")?;
            walk.close(root)?;
            (header(&root.header), Reply::Status { version })
        }
        Kind::ErrorReply => {
            let (root, mut walk) = Walk::open::<ArchivedErrorReply>(body)?;
            let message = text(&root.result.message, &mut walk, "message")?;
            walk.close(root)?;
            let code = root.result.code.to_native();
            (
                header(&root.header),
                Reply::Refused(Refusal { code, message }),
            )
        }
        Kind::WatchCreated
        | Kind::WatchCancelled
        | Kind::WatchProgressed
        | Kind::WatchClosed
        | Kind::WatchEvents => super::watch::decode_reply(frame)?,
        Kind::AlarmReply => return alarm::decode_reply(body),
        kind => match lease::decode_reply(kind, body) {
            Some(read) => return read,
            None => return Err(Malformed::UnknownKind(kind.number())),
        },
    })
}

pub(super) fn header(archived: &ArchivedHeader) -> Header {
    Header {
        cluster_id: archived.cluster_id.to_native(),
        member_id: archived.member_id.to_native(),
        revision: archived.revision.to_native(),
        raft_term: archived.raft_term.to_native(),
    }
}

pub(super) fn bare_header(body: &[u8]) -> Result<Header, Malformed> {
    let (root, walk) = Walk::open::<ArchivedHeader>(body)?;
    walk.close(root)?;
    Ok(header(root))
}

pub(super) fn text<'a>(
    bytes: &'a ArchivedVec<u8>,
    walk: &mut Walk,
    field: &'static str,
) -> Result<&'a str, Malformed> {
    std::str::from_utf8(walk.vec(bytes)?).map_err(|_| Malformed::BadValue(field))
}

pub(super) fn kvs<'a>(
    archived: &'a ArchivedVec<ArchivedKv>,
    walk: &mut Walk,
) -> Result<Kvs<'a>, Malformed> {
    for kv in archived.as_slice() {
        walk.vec(&kv.key)?;
        walk.vec(&kv.value)?;
    }
    Ok(Kvs {
        archived: walk.vec(archived)?,
    })
}

fn put_result<'a>(result: &'a ArchivedPutResult, walk: &mut Walk) -> Result<Reply<'a>, Malformed> {
    let kvs = kvs(&result.prev_kvs, walk)?;
    match kvs.len() {
        0 | 1 => Ok(Reply::Put {
            prev_kv: kvs.iter().next(),
        }),
        _ => Err(Malformed::BadValue("prev_kvs")),
    }
}

fn range_result<'a>(
    result: &'a ArchivedRangeResult,
    walk: &mut Walk,
) -> Result<Reply<'a>, Malformed> {
    let kvs = kvs(&result.kvs, walk)?;
    let more = flag(result.more, "more")?;
    Ok(Reply::Range {
        kvs,
        more,
        count: result.count.to_native(),
    })
}

fn delete_range_result<'a>(
    result: &'a ArchivedDeleteRangeResult,
    walk: &mut Walk,
) -> Result<Reply<'a>, Malformed> {
    let prev_kvs = kvs(&result.prev_kvs, walk)?;
    Ok(Reply::DeleteRange {
        deleted: result.deleted.to_native(),
        prev_kvs,
    })
}

fn txn_result<'a>(
    result: &'a ArchivedTxnResult,
    walk: &mut Walk,
    depth: usize,
    budget: &mut usize,
) -> Result<Reply<'a>, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed::TooDeep)?;
    let archived = &result.responses;
    *budget = budget
        .checked_sub(archived.len())
        .ok_or(Malformed::TooManyOps)?;
    let mut responses = Vec::with_capacity(archived.len());
    for op in archived.as_slice() {
        let body = walk.vec(&op.body)?;
        responses.push(inner_reply(op.kind, body, depth, budget)?);
    }
    walk.vec(archived)?;
    let succeeded = flag(result.succeeded, "succeeded")?;
    Ok(Reply::Txn {
        succeeded,
        responses,
    })
}

/// An answer inside a transaction's: the same archives, without a header.
fn inner_reply<'a>(
    kind: u8,
    body: &'a [u8],
    depth: usize,
    budget: &mut usize,
) -> Result<Reply<'a>, Malformed> {
    match Kind::from_u8(kind) {
        Some(Kind::RangeReply) => {
            let (root, mut walk) = Walk::open::<ArchivedRangeResult>(body)?;
            let reply = range_result(root, &mut walk)?;
            walk.close(root)?;
            Ok(reply)
        }
        Some(Kind::PutReply) => {
            let (root, mut walk) = Walk::open::<ArchivedPutResult>(body)?;
            let reply = put_result(root, &mut walk)?;
            walk.close(root)?;
            Ok(reply)
        }
        Some(Kind::DeleteRangeReply) => {
            let (root, mut walk) = Walk::open::<ArchivedDeleteRangeResult>(body)?;
            let reply = delete_range_result(root, &mut walk)?;
            walk.close(root)?;
            Ok(reply)
        }
        Some(Kind::TxnReply) => {
            let (root, mut walk) = Walk::open::<ArchivedTxnResult>(body)?;
            let reply = txn_result(root, &mut walk, depth, budget)?;
            walk.close(root)?;
            Ok(reply)
        }
        _ => Err(Malformed::UnknownKind(kind)),
    }
}

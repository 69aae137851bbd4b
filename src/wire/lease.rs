//! Messages about leases: bodies of requests and replies, written and read.

#![forbid(unsafe_code)]

use rkyv::Portable;
use rkyv::api::low::LowValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;

use super::Malformed;
use super::archive::{
    ArchivedHeader, ArchivedLeaseCheckpoint, ArchivedLeaseExpire, ArchivedLeaseGrant,
    ArchivedLeaseGrantReply, ArchivedLeaseId, ArchivedLeaseKeepAliveReply, ArchivedLeaseTimeToLive,
    ArchivedLeaseTimeToLiveReply, ArchivedLeasesReply,
};
use super::layout::{
    GRANTED_LEASE, HEADER, Kind, LEASE_CHECKPOINT_ROOT, LEASE_EXPIRE_ROOT, LEASE_GRANT_RESULT,
    LEASE_GRANT_ROOT, LEASE_ID_ROOT, LEASE_KEEP_ALIVE_RESULT, LEASE_KEYS, LEASE_REMAINING,
    LEASE_TIME_TO_LIVE_RESULT, LEASE_TIME_TO_LIVE_ROOT, LEASES_RESULT, NAME,
};
use super::reply::{with_header, write_header};
use super::reply_view::{Reply, header};
use super::request::sum;
use super::walk::{Walk, flag, options};
use super::writer::Root;
use crate::api::{
    GrantedLease, Header, LeaseCheckpointRequest, LeaseExpireRequest, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, LeasesResponse, Request,
};

// ---- requests

/// The kind of frame that carries this request; `None` if it is not about leases.
pub(super) fn request_kind(request: &Request<'_>) -> Option<Kind> {
    Some(match request {
        Request::LeaseGrant(_) => Kind::LeaseGrant,
        Request::LeaseRevoke(_) => Kind::LeaseRevoke,
        Request::LeaseKeepAlive(_) => Kind::LeaseKeepAlive,
        Request::LeaseTimeToLive(_) => Kind::LeaseTimeToLive,
        Request::Leases => Kind::Leases,
        Request::LeaseExpire(_) => Kind::LeaseExpire,
        Request::LeaseCheckpoint(_) => Kind::LeaseCheckpoint,
        _ => return None,
    })
}

/// The length of such a request's body; 0 for any other.
pub(super) fn request_bytes(request: &Request<'_>) -> usize {
    match request {
        Request::LeaseGrant(_) => LEASE_GRANT_ROOT,
        Request::LeaseRevoke(_) | Request::LeaseKeepAlive(_) => LEASE_ID_ROOT,
        Request::LeaseTimeToLive(ask) => sum(&[ask.after.len(), LEASE_TIME_TO_LIVE_ROOT]),
        Request::LeaseExpire(expire) => {
            let leases = expire.leases.len().saturating_mul(GRANTED_LEASE);
            sum(&[leases, LEASE_EXPIRE_ROOT])
        }
        Request::LeaseCheckpoint(checkpoint) => {
            let leases = checkpoint.leases.len().saturating_mul(LEASE_REMAINING);
            sum(&[leases, LEASE_CHECKPOINT_ROOT])
        }
        _ => 0,
    }
}

/// Writes such a request's body; nothing for any other.
pub(super) fn write_request(request: &Request<'_>, out: &mut Vec<u8>) {
    match request {
        Request::LeaseGrant(grant) => Root::<LEASE_GRANT_ROOT>::at_end_of(out)
            .i64(grant.ttl)
            .i64(grant.id)
            .done(),
        Request::LeaseRevoke(LeaseRevokeRequest { id })
        | Request::LeaseKeepAlive(LeaseKeepAliveRequest { id }) => {
            Root::<LEASE_ID_ROOT>::at_end_of(out).i64(*id).done();
        }
        Request::LeaseTimeToLive(ask) => {
            let start = out.len();
            out.extend_from_slice(ask.after);
            Root::<LEASE_TIME_TO_LIVE_ROOT>::at_end_of(out)
                .vec(start, ask.after.len())
                .i64(ask.id)
                .i64(ask.limit)
                .u8(if ask.keys { LEASE_KEYS } else { 0 })
                .done();
        }
        Request::LeaseExpire(expire) => {
            let start = out.len();
            for lease in &expire.leases {
                Root::<GRANTED_LEASE>::at_end_of(out)
                    .i64(lease.id)
                    .u64(lease.granted_at)
                    .done();
            }
            Root::<LEASE_EXPIRE_ROOT>::at_end_of(out)
                .vec(start, expire.leases.len())
                .done();
        }
        Request::LeaseCheckpoint(checkpoint) => {
            let start = out.len();
            for (lease, remaining) in &checkpoint.leases {
                Root::<LEASE_REMAINING>::at_end_of(out)
                    .i64(lease.id)
                    .u64(lease.granted_at)
                    .i64(*remaining)
                    .done();
            }
            Root::<LEASE_CHECKPOINT_ROOT>::at_end_of(out)
                .vec(start, checkpoint.leases.len())
                .done();
        }
        _ => {}
    }
}

/// Reads the body of a request about leases.
pub(super) fn decode_request(kind: Kind, body: &[u8]) -> Result<Request<'_>, Malformed> {
    Ok(match kind {
        Kind::LeaseGrant => {
            let root = flat::<ArchivedLeaseGrant>(body)?;
            Request::LeaseGrant(LeaseGrantRequest {
                ttl: root.ttl.to_native(),
                id: root.id.to_native(),
            })
        }
        Kind::LeaseRevoke => Request::LeaseRevoke(LeaseRevokeRequest {
            id: flat::<ArchivedLeaseId>(body)?.id.to_native(),
        }),
        Kind::LeaseKeepAlive => Request::LeaseKeepAlive(LeaseKeepAliveRequest {
            id: flat::<ArchivedLeaseId>(body)?.id.to_native(),
        }),
        Kind::LeaseTimeToLive => {
            let (root, mut walk) = Walk::open::<ArchivedLeaseTimeToLive>(body)?;
            let after = walk.vec(&root.after)?;
            walk.close(root)?;
            Request::LeaseTimeToLive(LeaseTimeToLiveRequest {
                id: root.id.to_native(),
                keys: options(root.options, LEASE_KEYS)? != 0,
                limit: root.limit.to_native(),
                after,
            })
        }
        Kind::Leases => {
            super::decode_empty(body)?;
            Request::Leases
        }
        Kind::LeaseExpire => {
            let (root, mut walk) = Walk::open::<ArchivedLeaseExpire>(body)?;
            let leases = walk.vec(&root.leases)?.iter();
            let leases = leases.map(|lease| GrantedLease {
                id: lease.id.to_native(),
                granted_at: lease.granted_at.to_native(),
            });
            walk.close(root)?;
            Request::LeaseExpire(LeaseExpireRequest {
                leases: leases.collect(),
            })
        }
        Kind::LeaseCheckpoint => {
            let (root, mut walk) = Walk::open::<ArchivedLeaseCheckpoint>(body)?;
            let leases = walk.vec(&root.leases)?.iter().map(|lease| {
                let granted = GrantedLease {
                    id: lease.id.to_native(),
                    granted_at: lease.granted_at.to_native(),
                };
                (granted, lease.remaining.to_native())
            });
            walk.close(root)?;
            Request::LeaseCheckpoint(LeaseCheckpointRequest {
                leases: leases.collect(),
            })
        }
        other => return Err(Malformed::UnknownKind(other.number())),
    })
}

/// A body that is one struct without vectors.
fn flat<T>(body: &[u8]) -> Result<&T, Malformed>
where
    T: Portable + for<'c> CheckBytes<LowValidator<'c, Failure>>,
{
    let (root, walk) = Walk::open::<T>(body)?;
    walk.close(root)?;
    Ok(root)
}

// ---- replies: none of them is ever part of a transaction's, so each has a header

pub(super) fn write_grant_reply(header: &Header, grant: &LeaseGrantResponse, out: &mut Vec<u8>) {
    let root = Root::<{ HEADER + LEASE_GRANT_RESULT }>::at_end_of(out);
    with_header(root, header)
        .i64(grant.id)
        .i64(grant.ttl)
        .done();
}

pub(super) fn write_keep_alive_reply(
    header: &Header,
    kept: &LeaseKeepAliveResponse,
    out: &mut Vec<u8>,
) {
    let root = Root::<{ HEADER + LEASE_KEEP_ALIVE_RESULT }>::at_end_of(out);
    with_header(root, header).i64(kept.id).i64(kept.ttl).done();
}

pub(super) fn write_time_to_live_reply(
    header: &Header,
    answer: &LeaseTimeToLiveResponse,
    out: &mut Vec<u8>,
) {
    let mut at = out.len();
    for key in &answer.keys {
        out.extend_from_slice(key);
    }
    let names = out.len();
    for key in &answer.keys {
        Root::<NAME>::at_end_of(out).vec(at, key.len()).done();
        at += key.len();
    }
    write_header(header, out);
    Root::<LEASE_TIME_TO_LIVE_RESULT>::at_end_of(out)
        .vec(names, answer.keys.len())
        .i64(answer.id)
        .i64(answer.ttl)
        .i64(answer.granted_ttl)
        .u8(u8::from(answer.more))
        .done();
}

pub(super) fn write_leases_reply(header: &Header, leases: &LeasesResponse, out: &mut Vec<u8>) {
    let start = out.len();
    out.reserve(leases.ids.len() * 8 + HEADER + LEASES_RESULT);
    for id in &leases.ids {
        out.extend_from_slice(&id.to_le_bytes());
    }
    let root = Root::<{ HEADER + LEASES_RESULT }>::at_end_of(out);
    with_header(root, header)
        .vec(start, leases.ids.len())
        .done();
}

/// Reads a reply about leases; `None` if it is of another kind.
pub(super) fn decode_reply<'a>(
    kind: Kind,
    body: &'a [u8],
) -> Option<Result<(Header, Reply<'a>), Malformed>> {
    Some(match kind {
        Kind::LeaseGrantReply => flat::<ArchivedLeaseGrantReply>(body).map(|root| {
            let grant = LeaseGrantResponse {
                id: root.id.to_native(),
                ttl: root.ttl.to_native(),
            };
            (header(&root.header), Reply::LeaseGrant(grant))
        }),
        Kind::LeaseRevokeReply => {
            flat::<ArchivedHeader>(body).map(|root| (header(root), Reply::LeaseRevoke))
        }
        Kind::LeaseKeepAliveReply => flat::<ArchivedLeaseKeepAliveReply>(body).map(|root| {
            let kept = LeaseKeepAliveResponse {
                id: root.id.to_native(),
                ttl: root.ttl.to_native(),
            };
            (header(&root.header), Reply::LeaseKeepAlive(kept))
        }),
        Kind::LeaseTimeToLiveReply => decode_time_to_live(body),
        Kind::LeasesReply => decode_leases(body),
        _ => return None,
    })
}

fn decode_time_to_live(body: &[u8]) -> Result<(Header, Reply<'_>), Malformed> {
    let (root, mut walk) = Walk::open::<ArchivedLeaseTimeToLiveReply>(body)?;
    let names = &root.result.keys;
    let mut keys = Vec::with_capacity(names.len());
    for name in names.as_slice() {
        keys.push(walk.vec(&name.key)?.to_vec());
    }
    walk.vec(names)?;
    walk.close(root)?;
    let answer = LeaseTimeToLiveResponse {
        id: root.result.id.to_native(),
        ttl: root.result.ttl.to_native(),
        granted_ttl: root.result.granted_ttl.to_native(),
        keys,
        more: flag(root.result.more, "more")?,
    };
    Ok((header(&root.header), Reply::LeaseTimeToLive(answer)))
}

fn decode_leases(body: &[u8]) -> Result<(Header, Reply<'_>), Malformed> {
    let (root, mut walk) = Walk::open::<ArchivedLeasesReply>(body)?;
    let ids = walk.vec(&root.ids)?.iter().map(|id| id.to_native());
    walk.close(root)?;
    let leases = LeasesResponse { ids: ids.collect() };
    Ok((header(&root.header), Reply::Leases(leases)))
}

//! Leases: granted, revoked, expired, and their times written down.
//!
//! Whether a lease's time is over is for the leader to know (`crate::lease`); here time does not
//! pass. What enters the log names the lease by id and by the entry that granted it, so that an
//! expiry that was on its way can never hit a lease granted under the same id meanwhile.

use super::{Failure, write::Answer};
use crate::api::{
    Error, GrantedLease, LeaseCheckpointRequest, LeaseExpireRequest, LeaseGrantRequest,
    LeaseGrantResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, Request, Response,
};
use crate::limits::LEASE_TTL_MAX_S;
use quoin_storage::mvcc::lease::{self, LeaseRecord};
use quoin_storage::mvcc::{Meta, WriteTxn};
use quoin_storage::tree::{TreeRead, TreeWrite};

/// What has become of leases, for the leader's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// A lease was made.
    Granted {
        /// Which.
        lease: GrantedLease,
        /// For how many seconds.
        ttl: i64,
    },
    /// The lease of that id was ended by a client.
    Revoked {
        /// Its id.
        id: i64,
    },
    /// This lease, if it was still there, is gone.
    Expired(GrantedLease),
    /// Of this lease, if it was still there, the seconds left are written down; 0 stands for all.
    Written {
        /// Which.
        lease: GrantedLease,
        /// How many seconds.
        remaining: i64,
    },
}

/// Tells `changes` what a command has done that was applied at a log index.
pub(super) fn note_changes(request: &Request<'_>, index: u64, changes: &mut Vec<LeaseChange>) {
    match request {
        Request::LeaseGrant(grant) => changes.push(LeaseChange::Granted {
            lease: GrantedLease {
                id: grant.id,
                granted_at: index,
            },
            ttl: granted_ttl(grant),
        }),
        Request::LeaseRevoke(revoke) => changes.push(LeaseChange::Revoked { id: revoke.id }),
        Request::LeaseExpire(expire) => {
            changes.extend(expire.leases.iter().copied().map(LeaseChange::Expired));
        }
        Request::LeaseCheckpoint(checkpoint) => {
            let leases = checkpoint.leases.iter();
            changes.extend(
                leases.map(|&(lease, remaining)| LeaseChange::Written { lease, remaining }),
            );
        }
        _ => {}
    }
}

/// Runs a command about leases.
pub(super) fn dispatch<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    request: &Request<'_>,
) -> Result<Option<Response>, Failure> {
    match request {
        Request::LeaseGrant(grant) => {
            let granted = self::grant(tree, meta, grant)?;
            Ok(Some(Response::LeaseGrant(granted)))
        }
        Request::LeaseRevoke(revoke) => {
            lease::get(tree, revoke.id)?.ok_or(Error::LeaseNotFound)?;
            end(tree, meta, revoke.id)?;
            Ok(Some(Response::LeaseRevoke))
        }
        Request::LeaseExpire(expire) => {
            self::expire(tree, meta, expire)?;
            Ok(None)
        }
        Request::LeaseCheckpoint(checkpoint) => {
            self::checkpoint(tree, checkpoint)?;
            Ok(None)
        }
        // Renewals and questions are not logged; one that is there all the same is of no effect.
        _ => Err(Failure::Refused(Error::Unimplemented)),
    }
}

/// The least that is granted is settled before the log, as the id is; a lease without any time
/// would be none.
fn granted_ttl(grant: &LeaseGrantRequest) -> i64 {
    grant.ttl.clamp(1, LEASE_TTL_MAX_S)
}

fn grant<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    grant: &LeaseGrantRequest,
) -> Result<LeaseGrantResponse, Failure> {
    // etcd's answer to an id that is none.
    if grant.id == 0 {
        return Err(Failure::Refused(Error::LeaseNotFound));
    }
    // Looked at here and not before the log, as in etcd: alarms speak first.
    if grant.ttl > LEASE_TTL_MAX_S {
        return Err(Failure::Refused(Error::LeaseTtlTooLarge));
    }
    if lease::get(tree, grant.id)?.is_some() {
        return Err(Failure::Refused(Error::LeaseExists));
    }
    let record = LeaseRecord {
        ttl: granted_ttl(grant),
        remaining: 0,
        granted_at: meta.applied_index + 1,
    };
    lease::grant(tree, meta, grant.id, &record)?;
    Ok(LeaseGrantResponse {
        id: grant.id,
        ttl: record.ttl,
    })
}

/// Deletes the keys in one revision, which is made only if there are any, and the lease.
fn end<T: TreeWrite>(tree: &mut T, meta: &mut Meta, id: i64) -> Result<(), Failure> {
    let mut store = WriteTxn::begin(tree, meta);
    store.delete_lease_keys(id)?;
    store.finish();
    lease::remove(tree, meta, id)?;
    Ok(())
}

fn expire<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    expire: &LeaseExpireRequest,
) -> Result<(), Failure> {
    for lease in &expire.leases {
        if is_there(tree, *lease)?.is_some() {
            end(tree, meta, lease.id)?;
        }
    }
    Ok(())
}

fn checkpoint<T: TreeWrite>(
    tree: &mut T,
    checkpoint: &LeaseCheckpointRequest,
) -> Result<(), Failure> {
    for &(lease, remaining) in &checkpoint.leases {
        let Some(record) = is_there(tree, lease)? else {
            continue;
        };
        let remaining = if (1..record.ttl).contains(&remaining) {
            remaining
        } else {
            0
        };
        if remaining != record.remaining {
            lease::set(
                tree,
                lease.id,
                &LeaseRecord {
                    remaining,
                    ..record
                },
            )?;
        }
    }
    Ok(())
}

/// The record of that lease, unless it is gone or another has its id.
fn is_there(tree: &impl TreeRead, lease: GrantedLease) -> Result<Option<LeaseRecord>, Failure> {
    let record = lease::get(tree, lease.id)?;
    Ok(record.filter(|record| record.granted_at == lease.granted_at))
}

/// Refuses a put on a lease that does not exist.
#[inline]
pub(super) fn check(tree: &impl TreeRead, id: i64) -> Result<(), Failure> {
    if id == 0 || lease::get(tree, id)?.is_some() {
        Ok(())
    } else {
        Err(Failure::Refused(Error::LeaseNotFound))
    }
}

/// Answers a question about a lease that had so many seconds left a moment ago, from the state as
/// it is now. An answer of more than `room` bytes is refused as too large.
pub fn time_to_live(
    tree: &impl TreeRead,
    request: &LeaseTimeToLiveRequest<'_>,
    ttl: i64,
    room: usize,
) -> Result<LeaseTimeToLiveResponse, Failure> {
    let mut response = LeaseTimeToLiveResponse {
        id: request.id,
        ttl: -1,
        ..Default::default()
    };
    let Some(record) = lease::get(tree, request.id)? else {
        return Ok(response);
    };
    response.ttl = ttl;
    response.granted_ttl = record.ttl;
    if request.keys {
        let mut answer = Answer::new(room);
        let limit = match usize::try_from(request.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        lease::keys(tree, request.id, request.after, &mut |key| {
            response.more = response.keys.len() == limit;
            if !response.more {
                response.keys.extend(answer.take_key(key));
            }
            !response.more && !answer.is_over()
        })?;
        answer.finish()?;
    }
    Ok(response)
}

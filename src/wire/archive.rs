//! The bodies, as rkyv archives: structs of integers and byte vectors, alignment 1, no padding.
//!
//! A body is what `rkyv::to_bytes` makes of one of these, byte for byte: first the bytes of each
//! vector in the order of the fields, then the struct. The encoders write it straight from the
//! `api` types and the tests hold them to `to_bytes`; these structs serve the checked access.

#![allow(dead_code, reason = "only their archived forms are met outside tests")]

use rkyv::Archive;
#[cfg(test)]
use rkyv::Serialize;

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Range {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub limit: i64,
    pub revision: i64,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
    pub sort_order: u8,
    pub sort_target: u8,
    pub options: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Put {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub lease: i64,
    pub options: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct DeleteRange {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub options: u8,
}

/// A compare by value has `operand` 0; any other has an empty `value`.
#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Compare {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub value: Vec<u8>,
    pub operand: i64,
    pub target: u8,
    pub result: u8,
}

/// An operation of a transaction, or its answer: `body` is the archive that a frame of that
/// kind would carry (an answer's without the header).
#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Op {
    pub body: Vec<u8>,
    pub kind: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Compact {
    pub revision: i64,
    pub options: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseGrant {
    pub ttl: i64,
    pub id: i64,
}

/// Of a revocation, and of a renewal.
#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseId {
    pub id: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseTimeToLive {
    pub after: Vec<u8>,
    pub id: i64,
    pub limit: i64,
    pub options: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Granted {
    pub id: i64,
    pub granted_at: u64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseExpire {
    pub leases: Vec<Granted>,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Remaining {
    pub id: i64,
    pub granted_at: u64,
    pub remaining: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseCheckpoint {
    pub leases: Vec<Remaining>,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchCreate {
    pub key: Vec<u8>,
    pub range_end: Vec<u8>,
    pub start_revision: i64,
    pub watch_id: i64,
    pub options: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchCancel {
    pub watch_id: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Header {
    pub cluster_id: u64,
    pub member_id: u64,
    pub revision: i64,
    pub raft_term: u64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Kv {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct RangeResult {
    pub kvs: Vec<Kv>,
    pub count: i64,
    pub more: u8,
}

/// Holds one pair or none.
#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct PutResult {
    pub prev_kvs: Vec<Kv>,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct DeleteRangeResult {
    pub prev_kvs: Vec<Kv>,
    pub deleted: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct TxnResult {
    pub responses: Vec<Op>,
    pub succeeded: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct StatusResult {
    pub version: Vec<u8>,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct ErrorResult {
    pub message: Vec<u8>,
    pub code: u16,
}

/// A watch that was refused has id -1 and a reason.
#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchCreated {
    pub reason: Vec<u8>,
    pub watch_id: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchCancelled {
    pub reason: Vec<u8>,
    pub watch_id: i64,
    pub compact_revision: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchProgress {
    pub watch_ids: Vec<i64>,
}

/// `prev_kvs` holds one pair or none.
#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Event {
    pub kv: Kv,
    pub prev_kvs: Vec<Kv>,
    pub kind: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchEvents {
    pub events: Vec<Event>,
    pub watch_ids: Vec<i64>,
    pub fragment: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchCreatedReply {
    pub header: Header,
    pub result: WatchCreated,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchCancelledReply {
    pub header: Header,
    pub result: WatchCancelled,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchProgressReply {
    pub header: Header,
    pub result: WatchProgress,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct WatchEventsReply {
    pub header: Header,
    pub result: WatchEvents,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct RangeReply {
    pub header: Header,
    pub result: RangeResult,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct PutReply {
    pub header: Header,
    pub result: PutResult,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct DeleteRangeReply {
    pub header: Header,
    pub result: DeleteRangeResult,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct TxnReply {
    pub header: Header,
    pub result: TxnResult,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct StatusReply {
    pub header: Header,
    pub result: StatusResult,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct ErrorReply {
    pub header: Header,
    pub result: ErrorResult,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseGrantReply {
    pub header: Header,
    pub id: i64,
    pub ttl: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseKeepAliveReply {
    pub header: Header,
    pub id: i64,
    pub ttl: i64,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Name {
    pub key: Vec<u8>,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseTimeToLiveResult {
    pub keys: Vec<Name>,
    pub id: i64,
    pub ttl: i64,
    pub granted_ttl: i64,
    pub more: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeaseTimeToLiveReply {
    pub header: Header,
    pub result: LeaseTimeToLiveResult,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct LeasesReply {
    pub header: Header,
    pub ids: Vec<i64>,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Alarm {
    pub member_id: u64,
    pub action: u8,
    pub alarm: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct AlarmOf {
    pub member_id: u64,
    pub alarm: u8,
}

#[derive(Archive)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct AlarmReply {
    pub header: Header,
    pub alarms: Vec<AlarmOf>,
}

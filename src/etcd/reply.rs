//! Answers of the KV and Lease services, from `api` into protobuf, each behind its gRPC prefix.
#![forbid(unsafe_code)]

use super::message;
use super::pb::{self, begin_message, bytes_bytes, i64_bytes, put_bytes, put_i64, put_message};
use crate::api::{AlarmKind, Header, KeyValue, KvSink, OwnedKeyValue, RangeSummary, Response};

/// Appends the answer to a request.
pub fn encode_response(header: &Header, response: &Response, out: &mut Vec<u8>) {
    let start = message::begin(out);
    put_message(out, 1, |out| put_header(out, header));
    let mut inner = Inner {
        before: header.revision - i64::from(changes(response)),
        changed: false,
    };
    put_result(out, response, &mut inner);
    message::finish(out, start);
}

/// Appends the answer to a put that asked for nothing back.
#[inline]
pub fn encode_put_response(header: &Header, out: &mut Vec<u8>) {
    encode_header_alone(header, out);
}

/// Appends an answer that is a header and nothing else.
#[inline]
pub fn encode_header_alone(header: &Header, out: &mut Vec<u8>) {
    let start = message::begin(out);
    put_message(out, 1, |out| put_header(out, header));
    message::finish(out, start);
}

/// Appends the fields of a header.
#[inline]
pub fn put_header(out: &mut Vec<u8>, header: &Header) {
    pb::put_u64(out, 1, header.cluster_id);
    pb::put_u64(out, 2, header.member_id);
    put_i64(out, 3, header.revision);
    pb::put_u64(out, 4, header.raft_term);
}

/// Whether a transaction that gave this answer has made a revision.
fn changes(response: &Response) -> bool {
    match response {
        Response::Put(_) => true,
        Response::DeleteRange(delete) => delete.deleted > 0,
        Response::Txn(txn) => txn.responses.iter().any(changes),
        _ => false,
    }
}

/// The headers of the answers inside a transaction's: they hold a revision alone, and it is the
/// transaction's own only once it has changed something.
struct Inner {
    before: i64,
    changed: bool,
}

impl Inner {
    fn put_header(&self, out: &mut Vec<u8>) {
        let revision = self.before + i64::from(self.changed);
        put_message(out, 1, |out| put_i64(out, 3, revision));
    }
}

/// Appends the fields behind the header.
fn put_result(out: &mut Vec<u8>, response: &Response, inner: &mut Inner) {
    match response {
        Response::Range(range) => {
            range.kvs.iter().for_each(|kv| put_owned(out, 2, kv));
            put_summary(out, range.more, range.count);
        }
        Response::Put(put) => put.prev_kv.iter().for_each(|kv| put_owned(out, 2, kv)),
        Response::DeleteRange(delete) => {
            put_i64(out, 2, delete.deleted);
            delete.prev_kvs.iter().for_each(|kv| put_owned(out, 3, kv));
        }
        Response::Txn(txn) => {
            pb::put_bool(out, 2, txn.succeeded);
            for response in &txn.responses {
                put_message(out, 3, |out| put_op(out, response, inner));
            }
        }
        Response::LeaseGrant(grant) => {
            put_i64(out, 2, grant.id);
            put_i64(out, 3, grant.ttl);
        }
        Response::LeaseKeepAlive(renewed) => {
            put_i64(out, 2, renewed.id);
            put_i64(out, 3, renewed.ttl);
        }
        Response::LeaseTimeToLive(lease) => {
            put_i64(out, 2, lease.id);
            put_i64(out, 3, lease.ttl);
            put_i64(out, 4, lease.granted_ttl);
            for key in &lease.keys {
                begin_message(out, 5, key.len());
                out.extend_from_slice(key);
            }
        }
        Response::Leases(leases) => {
            for id in &leases.ids {
                put_message(out, 2, |out| put_i64(out, 1, *id));
            }
        }
        Response::Alarm(response) => {
            for alarm in &response.alarms {
                put_message(out, 2, |out| {
                    // As a varint both are the same.
                    put_i64(out, 1, alarm.member_id as i64);
                    put_i64(
                        out,
                        2,
                        match alarm.kind {
                            AlarmKind::NoSpace => 1,
                            AlarmKind::Corrupt => 2,
                        },
                    );
                });
            }
        }
        Response::Compact | Response::LeaseRevoke => {}
    }
}

fn put_op(out: &mut Vec<u8>, response: &Response, inner: &mut Inner) {
    let field = match response {
        Response::Put(_) => 2,
        Response::DeleteRange(_) => 3,
        Response::Txn(_) => 4,
        // Nothing else stands in a transaction.
        _ => 1,
    };
    put_message(out, field, |out| {
        match response {
            // etcd leaves the header of a nested transaction empty.
            Response::Txn(_) => put_message(out, 1, |_| {}),
            _ => {
                inner.changed |= changes(response);
                inner.put_header(out);
            }
        }
        put_result(out, response, inner);
    });
}

fn put_summary(out: &mut Vec<u8>, more: bool, count: i64) {
    pb::put_bool(out, 3, more);
    put_i64(out, 4, count);
}

fn put_owned(out: &mut Vec<u8>, field: u32, kv: &OwnedKeyValue) {
    put_kv(out, field, &kv.borrow());
}

/// Appends a pair as a field.
#[inline]
pub fn put_kv(out: &mut Vec<u8>, field: u32, kv: &KeyValue<'_>) {
    begin_message(out, field, kv_bytes(kv));
    put_bytes(out, 1, kv.key);
    put_i64(out, 2, kv.create_revision);
    put_i64(out, 3, kv.mod_revision);
    put_i64(out, 4, kv.version);
    put_bytes(out, 5, kv.value);
    put_i64(out, 6, kv.lease);
}

pub(super) fn kv_bytes(kv: &KeyValue<'_>) -> usize {
    bytes_bytes(kv.key)
        + i64_bytes(kv.create_revision)
        + i64_bytes(kv.mod_revision)
        + i64_bytes(kv.version)
        + bytes_bytes(kv.value)
        + i64_bytes(kv.lease)
}

/// Writes the answer to a range while the pairs are still being read: each goes from the tree's
/// pages into the output, once. Dropped unfinished, it leaves the output as it was.
#[derive(Debug)]
pub struct RangeEncoder<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    bytes_max: usize,
    overflowed: bool,
    finished: bool,
}

/// An answer grew beyond its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl<'o> RangeEncoder<'o> {
    /// Begins an answer at the end of `out`. If it would grow beyond `bytes_max`, the rest of the
    /// pairs is not copied and [`RangeEncoder::finish`] fails.
    #[inline]
    pub fn new(out: &'o mut Vec<u8>, header: &Header, bytes_max: usize) -> Self {
        let start = message::begin(out);
        put_message(out, 1, |out| put_header(out, header));
        RangeEncoder {
            out,
            start,
            bytes_max,
            overflowed: false,
            finished: false,
        }
    }

    /// Closes the answer. On an error the output is as before it was begun.
    #[inline]
    pub fn finish(mut self, summary: RangeSummary) -> Result<(), TooLong> {
        if self.overflowed {
            return Err(TooLong);
        }
        put_summary(self.out, summary.more, summary.count);
        message::finish(self.out, self.start);
        self.finished = true;
        Ok(())
    }

    /// Bytes of the answer so far.
    #[inline]
    pub fn body_bytes(&self) -> usize {
        self.out.len() - self.start
    }
}

impl KvSink for RangeEncoder<'_> {
    #[inline]
    fn push(&mut self, kv: KeyValue<'_>) {
        // A pair takes at most eleven bytes for each of its numbers and lengths.
        const OVERHEAD: usize = 7 * 11;
        let more = kv.key.len() + kv.value.len() + OVERHEAD;
        if self.overflowed || self.body_bytes() + more > self.bytes_max {
            self.overflowed = true;
            return;
        }
        put_kv(self.out, 2, &kv);
    }

    #[inline]
    fn full(&self) -> bool {
        self.overflowed
    }
}

impl Drop for RangeEncoder<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

//! Replies, as a server writes them.

#![forbid(unsafe_code)]

use super::layout::{
    BODY_BYTES_MAX, DELETE_RANGE_RESULT, ERROR_RESULT, FRAME_HEADER_BYTES, HEADER, KV, Kind, OP,
    PUT_RESULT, RANGE_RESULT, STATUS_RESULT, TXN_RESULT,
};
use super::writer::Root;
use super::{Malformed, Unencodable, alarm, frame, lease};
use crate::api::{Error, Header, KeyValue, KvSink, OwnedKeyValue, RangeSummary, Response};

/// Appends the reply to a request to `out`. On an error `out` is as before.
pub fn encode_response(
    header: &Header,
    response: &Response,
    id: u64,
    out: &mut Vec<u8>,
) -> Result<(), Unencodable> {
    let start = frame::begin(out);
    let kind = match response {
        Response::LeaseGrant(grant) => {
            lease::write_grant_reply(header, grant, out);
            Kind::LeaseGrantReply
        }
        Response::LeaseRevoke => {
            write_header(header, out);
            Kind::LeaseRevokeReply
        }
        Response::LeaseKeepAlive(kept) => {
            lease::write_keep_alive_reply(header, kept, out);
            Kind::LeaseKeepAliveReply
        }
        Response::LeaseTimeToLive(answer) => {
            lease::write_time_to_live_reply(header, answer, out);
            Kind::LeaseTimeToLiveReply
        }
        Response::Leases(leases) => {
            lease::write_leases_reply(header, leases, out);
            Kind::LeasesReply
        }
        Response::Alarm(alarms) => {
            alarm::write_reply(header, alarms, out);
            Kind::AlarmReply
        }
        response => write_response(Some(header), response, out),
    };
    frame::finish(out, start, kind, id, BODY_BYTES_MAX)
}

/// Appends the reply to a put that asked for nothing back.
#[inline]
pub fn encode_put_reply(header: &Header, id: u64, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    let end = out.len();
    let root = Root::<{ HEADER + PUT_RESULT }>::at_end_of(out);
    with_header(root, header).vec(end, 0).done();
    close_short(out, start, Kind::PutReply, id);
}

/// Appends the reply to a ping.
pub fn encode_ping_reply(header: &Header, id: u64, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    write_header(header, out);
    close_short(out, start, Kind::PingReply, id);
}

/// Appends the reply to a request for the status. `version` is the server's, such as `0.1.0`.
pub fn encode_status_reply(header: &Header, version: &str, id: u64, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    let text = out.len();
    out.extend_from_slice(version.as_bytes());
    let root = Root::<{ HEADER + STATUS_RESULT }>::at_end_of(out);
    with_header(root, header).vec(text, version.len()).done();
    close_short(out, start, Kind::StatusReply, id);
}

/// Appends the refusal of a request.
pub fn encode_error(header: &Header, error: Error, id: u64, out: &mut Vec<u8>) {
    encode_refusal(header, error.code(), error.message(), id, out);
}

/// Appends the answer to bytes that no rule allows, after which the server closes. `id` is the
/// request's, or 0 if the frame itself was malformed.
pub fn encode_malformed(header: &Header, malformed: Malformed, id: u64, out: &mut Vec<u8>) {
    encode_refusal(header, malformed.code(), &malformed.to_string(), id, out);
}

fn encode_refusal(header: &Header, code: u16, message: &str, id: u64, out: &mut Vec<u8>) {
    let start = frame::begin(out);
    let text = out.len();
    out.extend_from_slice(message.as_bytes());
    let root = Root::<{ HEADER + ERROR_RESULT }>::at_end_of(out);
    with_header(root, header)
        .vec(text, message.len())
        .u16(code)
        .done();
    close_short(out, start, Kind::ErrorReply, id);
}

/// Closes a frame whose body is bounded by what wrote it.
#[inline]
pub(super) fn close_short(out: &mut Vec<u8>, start: usize, kind: Kind, id: u64) {
    let closed = frame::finish(out, start, kind, id, BODY_BYTES_MAX);
    debug_assert!(closed.is_ok(), "a reply of bounded length fits a frame");
}

#[inline]
pub(super) fn with_header<'o, const N: usize>(root: Root<'o, N>, header: &Header) -> Root<'o, N> {
    root.u64(header.cluster_id)
        .u64(header.member_id)
        .i64(header.revision)
        .u64(header.raft_term)
}

pub(super) fn write_header(header: &Header, out: &mut Vec<u8>) {
    with_header(Root::<HEADER>::at_end_of(out), header).done();
}

/// Writes a body; inside a transaction's answer it has no header.
fn write_response(header: Option<&Header>, response: &Response, out: &mut Vec<u8>) -> Kind {
    // What stands before the result moves the result, so vectors are written first, then the
    // header, then the result; each struct knows its own position.
    match response {
        Response::Range(range) => {
            let (at, len) = write_kvs(&range.kvs, out);
            write_optional(header, out);
            let result = Root::<RANGE_RESULT>::at_end_of(out).vec(at, len);
            result.i64(range.count).u8(u8::from(range.more)).done();
            Kind::RangeReply
        }
        Response::Put(put) => {
            let (at, len) = write_kvs(put.prev_kv.as_slice(), out);
            write_optional(header, out);
            Root::<PUT_RESULT>::at_end_of(out).vec(at, len).done();
            Kind::PutReply
        }
        Response::DeleteRange(delete) => {
            let (at, len) = write_kvs(&delete.prev_kvs, out);
            write_optional(header, out);
            let result = Root::<DELETE_RANGE_RESULT>::at_end_of(out).vec(at, len);
            result.i64(delete.deleted).done();
            Kind::DeleteRangeReply
        }
        Response::Txn(txn) => {
            let mut at = out.len();
            let mut bodies = Vec::with_capacity(txn.responses.len());
            for response in &txn.responses {
                let kind = write_response(None, response, out);
                bodies.push((kind, out.len()));
            }
            let ops = out.len();
            for (kind, end) in bodies {
                Root::<OP>::at_end_of(out)
                    .vec(at, end - at)
                    .u8(kind.number())
                    .done();
                at = end;
            }
            write_optional(header, out);
            let result = Root::<TXN_RESULT>::at_end_of(out).vec(ops, txn.responses.len());
            result.u8(u8::from(txn.succeeded)).done();
            Kind::TxnReply
        }
        Response::Compact => {
            write_optional(header, out);
            Kind::CompactReply
        }
        Response::LeaseGrant(_)
        | Response::LeaseRevoke
        | Response::LeaseKeepAlive(_)
        | Response::LeaseTimeToLive(_)
        | Response::Leases(_)
        | Response::Alarm(_) => unreachable!("they are no part of a transaction"),
    }
}

fn write_optional(header: Option<&Header>, out: &mut Vec<u8>) {
    if let Some(header) = header {
        write_header(header, out);
    }
}

/// Writes the bytes of all pairs, then the pairs; returns where those begin, and how many.
fn write_kvs(kvs: &[OwnedKeyValue], out: &mut Vec<u8>) -> (usize, usize) {
    let mut at = out.len();
    for kv in kvs {
        out.extend_from_slice(&kv.key);
        out.extend_from_slice(&kv.value);
    }
    let begin = out.len();
    out.reserve(kvs.len() * KV + HEADER + RANGE_RESULT);
    for kv in kvs {
        let entry = Entry {
            key_at: at,
            key_len: kv.key.len(),
            value_len: kv.value.len(),
            numbers: [kv.create_revision, kv.mod_revision, kv.version, kv.lease],
        };
        at = entry.write(0, out);
    }
    (begin, kvs.len())
}

/// What is left to say of a pair whose bytes are written.
#[derive(Debug)]
struct Entry {
    key_at: usize,
    key_len: usize,
    value_len: usize,
    numbers: [i64; 4],
}

impl Entry {
    /// Writes the pair, its bytes counted from `base`; returns where they end.
    #[inline]
    fn write(&self, base: usize, out: &mut Vec<u8>) -> usize {
        let key_at = base + self.key_at;
        let value_at = key_at + self.key_len;
        let [create_revision, mod_revision, version, lease] = self.numbers;
        Root::<KV>::at_end_of(out)
            .vec(key_at, self.key_len)
            .vec(value_at, self.value_len)
            .i64(create_revision)
            .i64(mod_revision)
            .i64(version)
            .i64(lease)
            .done();
        value_at + self.value_len
    }
}

/// Memory that one [`RangeEncoder`] after another works in, so that none allocates.
#[derive(Debug, Default)]
pub struct RangeScratch {
    entries: Vec<Entry>,
}

/// Writes the reply to a range while the pairs are still being read: their bytes go from the
/// tree's pages into the output, once. Dropped unfinished, it leaves the output as it was.
#[derive(Debug)]
pub struct RangeEncoder<'o> {
    out: &'o mut Vec<u8>,
    scratch: &'o mut RangeScratch,
    start: usize,
    id: u64,
    body_max: usize,
    overflowed: bool,
    finished: bool,
}

impl<'o> RangeEncoder<'o> {
    /// Begins the reply to request `id` at the end of `out`. If its body would grow beyond
    /// `body_max` bytes (of which no more than [`BODY_BYTES_MAX`] count), the rest of the pairs
    /// is not copied and [`RangeEncoder::finish`] fails.
    #[inline]
    pub fn new(
        out: &'o mut Vec<u8>,
        scratch: &'o mut RangeScratch,
        id: u64,
        body_max: usize,
    ) -> Self {
        scratch.entries.clear();
        let start = frame::begin(out);
        let body_max = body_max.min(BODY_BYTES_MAX);
        RangeEncoder {
            out,
            scratch,
            start,
            id,
            body_max,
            overflowed: false,
            finished: false,
        }
    }

    /// Closes the reply. On an error the output is as before the reply was begun.
    #[inline]
    pub fn finish(mut self, header: &Header, summary: RangeSummary) -> Result<(), Unencodable> {
        if self.overflowed {
            return Err(Unencodable::TooLong);
        }
        let base = self.start + FRAME_HEADER_BYTES;
        let kvs = self.out.len();
        self.out
            .reserve(self.scratch.entries.len() * KV + HEADER + RANGE_RESULT);
        for entry in &self.scratch.entries {
            entry.write(base, self.out);
        }
        let root = Root::<{ HEADER + RANGE_RESULT }>::at_end_of(self.out);
        with_header(root, header)
            .vec(kvs, self.scratch.entries.len())
            .i64(summary.count)
            .u8(u8::from(summary.more))
            .done();
        self.finished = true;
        frame::finish(
            self.out,
            self.start,
            Kind::RangeReply,
            self.id,
            self.body_max,
        )
    }

    /// Takes what is written so far out of the output, to go on with it later.
    pub fn put_aside(mut self) -> RangeDraft {
        self.finished = true;
        RangeDraft {
            out: self.out.split_off(self.start),
            scratch: std::mem::take(self.scratch),
            id: self.id,
            body_max: self.body_max,
        }
    }

    /// Leaves what is written, for [`RangeDraft::go_on`].
    pub fn pause(mut self) {
        self.finished = true;
    }

    /// Bytes of the body if it were closed now.
    #[inline]
    pub fn body_bytes(&self) -> usize {
        let pairs = self.out.len() - self.start - FRAME_HEADER_BYTES;
        pairs + self.scratch.entries.len() * KV + HEADER + RANGE_RESULT
    }
}

/// The reply to a range that is being written apart from the output that it will join.
#[derive(Debug, Default)]
pub struct RangeDraft {
    out: Vec<u8>,
    scratch: RangeScratch,
    id: u64,
    body_max: usize,
}

impl RangeDraft {
    /// Goes on writing it. Dropped neither finished nor paused, the encoder leaves nothing of it.
    pub fn go_on(&mut self) -> RangeEncoder<'_> {
        RangeEncoder {
            out: &mut self.out,
            scratch: &mut self.scratch,
            start: 0,
            id: self.id,
            body_max: self.body_max,
            overflowed: false,
            finished: false,
        }
    }

    /// Closes the reply, and appends it to `out`.
    pub fn finish(
        mut self,
        header: &Header,
        summary: RangeSummary,
        out: &mut Vec<u8>,
    ) -> Result<(), Unencodable> {
        self.go_on().finish(header, summary)?;
        match out.is_empty() {
            true => *out = self.out,
            false => out.append(&mut self.out),
        }
        Ok(())
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.out.len() + self.scratch.entries.len() * size_of::<Entry>()
    }
}

impl KvSink for RangeEncoder<'_> {
    #[inline]
    fn push(&mut self, kv: KeyValue<'_>) {
        let more = kv
            .key
            .len()
            .saturating_add(kv.value.len())
            .saturating_add(KV);
        if self.overflowed || self.body_bytes().saturating_add(more) > self.body_max {
            self.overflowed = true;
            return;
        }
        let key_at = self.out.len() - self.start - FRAME_HEADER_BYTES;
        self.scratch.entries.push(Entry {
            key_at,
            key_len: kv.key.len(),
            value_len: kv.value.len(),
            numbers: [kv.create_revision, kv.mod_revision, kv.version, kv.lease],
        });
        self.out.extend_from_slice(kv.key);
        self.out.extend_from_slice(kv.value);
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

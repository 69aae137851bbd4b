//! Room for answers: what clients leave untaken takes memory, and so does what writes under way
//! will be answered.
//!
//! A read that has no room is refused. A write is refused before it is proposed, if it asks for
//! pairs and they would not fit. Room that is there then may be taken by others until the answer
//! comes; if it is, the answer is replaced by the error that says so. Some of the room large
//! answers never take: from it clients are served that read what they are sent.
#![forbid(unsafe_code)]

use super::super::connection::{Connection, ConnectionId};
use super::{Desk, Notice, Turn, Waiter};
use crate::api::{
    self, DeleteRangeRequest, KvSink, OwnedKeyValue, RangeRequest, Request, RequestOp, Response,
    TxnRequest,
};
use crate::apply::{self, Failure};
use crate::limits;
use quoin_storage::mvcc::View;
use quoin_storage::tree::Snapshot;

/// What every connection may have untaken, all together.
const LEAST_BYTES: usize = limits::CONNECTIONS_PER_FRONT * limits::OUTPUT_BYTES_LEAST;

impl Desk {
    /// How many bytes a connection may be given now; others may be given more, or less.
    pub(super) fn room(&self, connection: &Connection) -> usize {
        self.room_beside(connection.owed())
    }

    /// The same for one that has so many bytes untaken, or written aside.
    pub(super) fn room_beside(&self, owed: usize) -> usize {
        share_of(self.free(), owed)
    }

    /// What is free of the room of the front.
    fn free(&self) -> usize {
        limits::OUTPUT_BYTES_PER_FRONT.saturating_sub(self.output_bytes + self.long.drafted())
    }

    /// Sets room aside for the answer to a write, if it asks for pairs; returns how many bytes,
    /// for [`Waiter::answer_bytes`]. Refuses it if they would not fit.
    ///
    /// How long the answer will be is not known before the write is applied. While there is much
    /// room, some is set aside unseen. When there is not, what the answer would hold now is read.
    pub(super) fn reserve(
        &self,
        connection: &Connection,
        request: &Request<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<usize, api::Error> {
        let (points, intervals) = asked_back(request);
        if points + intervals == 0 {
            return Ok(0);
        }
        let free = self.free().saturating_sub(self.reserved);
        let room = share_of(free, connection.owed() + connection.reserved);
        let (unseen, plenty) = match intervals {
            0 => (
                points * limits::ANSWER_BYTES_SMALL,
                limits::RESPONSE_BYTES_MAX / 2,
            ),
            _ => (limits::RESPONSE_BYTES_MAX, limits::RESPONSE_BYTES_MAX),
        };
        if room >= unseen.max(plenty) {
            return Ok(unseen);
        }
        let view = turn.view().map_err(|error| Failure::from(error).to_api())?;
        let mut sizing = Sizing {
            bytes: 0,
            bytes_max: room.min(limits::RESPONSE_BYTES_MAX),
        };
        let sized = match request {
            Request::Put(put) => sizing.range(&view, put.key, b""),
            Request::DeleteRange(delete) => sizing.range(&view, delete.key, delete.range_end),
            Request::Txn(txn) => sizing.txn(&view, txn),
            _ => Ok(()),
        };
        turn.cost += sizing.bytes / 4096;
        match sized {
            Ok(()) => Ok(sizing.bytes),
            Err(Failure::Refused(_)) => Err(api::Error::TooManyRequests),
            Err(failure) => Err(failure.to_api()),
        }
    }

    /// Whether the answer to a write may be given.
    pub fn fits(&self, connection: &Connection, response: &Response) -> bool {
        let bytes = pair_bytes(response);
        bytes == 0 || bytes <= self.room(connection)
    }

    /// Gives back what a waiter was charged for.
    pub fn uncharge(&mut self, waiter: &Waiter) {
        self.request_bytes -= waiter.bytes;
        self.reserved -= waiter.answer_bytes;
    }

    /// Ends a connection that asks for more than it takes when the front has no room for anything;
    /// says whether it did.
    pub(super) fn ends_overdrawn(&mut self, connection: &mut Connection, id: ConnectionId) -> bool {
        let over = self.free() == 0 && connection.owed() >= limits::OUTPUT_BYTES_LEAST;
        if over {
            connection.abandon();
            self.touch(connection, id);
            self.notice(Notice::TooSlow(
                "answers were not taken, and there is no room",
            ));
        }
        over
    }
}

/// What may be given, of so much that is free, to one that has so many bytes untaken.
fn share_of(free: usize, owed: usize) -> usize {
    let large = free.saturating_sub(limits::OUTPUT_BYTES_KEPT);
    let share = free.saturating_sub(LEAST_BYTES) / limits::OUTPUT_PART;
    let least = share.max(limits::OUTPUT_BYTES_LEAST);
    large.max(least.saturating_sub(owed))
}

/// How many single keys, and how many intervals of them, a write asks the pairs of.
fn asked_back(request: &Request<'_>) -> (usize, usize) {
    match request {
        Request::Put(put) => (usize::from(put.prev_kv), 0),
        Request::DeleteRange(delete) => asked_by_delete(delete),
        Request::Txn(txn) => {
            let (points, intervals) = asked_by_branch(&txn.success);
            let (others, more) = asked_by_branch(&txn.failure);
            (points.max(others), intervals.max(more))
        }
        _ => (0, 0),
    }
}

fn asked_by_branch(ops: &[RequestOp<'_>]) -> (usize, usize) {
    let asked = ops.iter().map(|op| match op {
        RequestOp::Range(range) if range.count_only => (0, 0),
        RequestOp::Range(range) => one_or_many(range.range_end),
        RequestOp::Put(put) => (usize::from(put.prev_kv), 0),
        RequestOp::DeleteRange(delete) => asked_by_delete(delete),
        RequestOp::Txn(nested) => {
            let (points, intervals) = asked_by_branch(&nested.success);
            let (others, more) = asked_by_branch(&nested.failure);
            (points.max(others), intervals.max(more))
        }
    });
    asked.fold((0, 0), |sum, asked| (sum.0 + asked.0, sum.1 + asked.1))
}

fn asked_by_delete(delete: &DeleteRangeRequest<'_>) -> (usize, usize) {
    match delete.prev_kv {
        true => one_or_many(delete.range_end),
        false => (0, 0),
    }
}

fn one_or_many(range_end: &[u8]) -> (usize, usize) {
    match range_end {
        [] => (1, 0),
        _ => (0, 1),
    }
}

/// Adds up what pairs take in an answer.
struct Sizing {
    bytes: usize,
    bytes_max: usize,
}

impl Sizing {
    /// Adds what an interval holds now.
    fn range(
        &mut self,
        view: &View<'_, Snapshot<'_>>,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Failure> {
        let all = RangeRequest {
            key,
            range_end,
            ..RangeRequest::default()
        };
        apply::range(view, &all, self).map(|_| ())
    }

    /// Adds what the longer branch would be answered. What would be refused counts for nothing.
    fn txn(&mut self, view: &View<'_, Snapshot<'_>>, txn: &TxnRequest<'_>) -> Result<(), Failure> {
        let before = self.bytes;
        self.branch(view, &txn.success)?;
        let one = std::mem::replace(&mut self.bytes, before);
        self.branch(view, &txn.failure)?;
        self.bytes = self.bytes.max(one);
        Ok(())
    }

    fn branch(
        &mut self,
        view: &View<'_, Snapshot<'_>>,
        ops: &[RequestOp<'_>],
    ) -> Result<(), Failure> {
        for op in ops {
            match op {
                RequestOp::Range(range) if range.count_only => {}
                RequestOp::Range(range) => {
                    // Its order does not matter here.
                    let range = RangeRequest {
                        sort_order: api::SortOrder::None,
                        sort_target: api::SortTarget::Key,
                        ..range.clone()
                    };
                    match apply::range(view, &range, self) {
                        Err(Failure::Refused(error)) if error != api::Error::ResponseTooLarge => {}
                        read => drop(read?),
                    }
                }
                RequestOp::Put(put) if put.prev_kv => self.range(view, put.key, b"")?,
                RequestOp::DeleteRange(delete) if delete.prev_kv => {
                    self.range(view, delete.key, delete.range_end)?;
                }
                RequestOp::Put(_) | RequestOp::DeleteRange(_) => {}
                RequestOp::Txn(nested) => self.txn(view, nested)?,
            }
        }
        Ok(())
    }
}

impl KvSink for Sizing {
    fn push(&mut self, kv: api::KeyValue<'_>) {
        self.bytes += kv.key.len() + kv.value.len() + size_of::<OwnedKeyValue>();
    }

    fn full(&self) -> bool {
        self.bytes > self.bytes_max
    }
}

/// What the pairs of an answer take, in memory and, about, in the client's output.
fn pair_bytes(response: &Response) -> usize {
    let of = |kv: &OwnedKeyValue| kv.key.len() + kv.value.len() + size_of::<OwnedKeyValue>();
    match response {
        Response::Range(range) => range.kvs.iter().map(of).sum(),
        Response::Put(put) => put.prev_kv.as_ref().map_or(0, of),
        Response::DeleteRange(delete) => delete.prev_kvs.iter().map(of).sum(),
        Response::Txn(txn) => txn.responses.iter().map(pair_bytes).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_leave_room_and_whoever_reads_is_always_given_some() {
        let all = limits::OUTPUT_BYTES_PER_FRONT;
        assert_eq!(share_of(all, 0), all - limits::OUTPUT_BYTES_KEPT);
        let kept = limits::OUTPUT_BYTES_KEPT;
        let share = (kept - LEAST_BYTES) / limits::OUTPUT_PART;
        assert_eq!(share_of(kept, 0), share);
        assert_eq!(share_of(kept, share - 100), 100);
        assert_eq!(share_of(kept, share), 0);
        for free in [0, LEAST_BYTES] {
            assert_eq!(share_of(free, 0), limits::OUTPUT_BYTES_LEAST);
            assert_eq!(share_of(free, limits::OUTPUT_BYTES_LEAST), 0);
        }
    }
}

//! Answers that take more than one turn: read in slices, and given in pieces as the client takes
//! them.
//!
//! Between two slices nothing is pinned and nothing is held but where the work stands: each slice
//! goes on from there on the newest root, at the revision of the first. What a client leaves lying
//! is bounded by a piece, however long the answer is. The purge of a compaction that overtakes the
//! revision waits for the answer, for a bounded time: a client that takes nothing keeps nothing from
//! being freed for long. The purge ends the answer if it comes to that.
#![forbid(unsafe_code)]

mod hash;

pub(super) mod native;

mod range;

mod snapshot;

use super::super::answer;
use super::super::connection::{Connection, ConnectionId};
use super::{Desk, Turn};
use crate::api;
use crate::apply::Failure;
use crate::limits;
use quoin_storage::mvcc::View;
use quoin_storage::tree::{Reader, Snapshot};
use std::collections::{BTreeMap, VecDeque};

pub use hash::LongHash;
pub use native::DraftedRange;
pub use range::LongRange;
pub use snapshot::{Backups, LongSnapshot};

/// An answer that is not finished.
#[derive(Debug)]
pub struct Long {
    /// The call that it answers.
    stream: u64,
    /// Charged to the budgets until it is finished.
    bytes: usize,
    work: Work,
}

/// What is being worked at.
#[derive(Debug)]
pub enum Work {
    Range(Box<LongRange>),
    Drafted(Box<DraftedRange>),
    Hash(Box<LongHash>),
    Snapshot(Box<LongSnapshot>),
}

/// What a slice came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// There is nothing to say yet.
    Working,
    /// A piece is written, and there is more.
    Piece,
    /// The rest is written.
    Last,
}

impl Work {
    fn step(&mut self, view: &View<'_, Snapshot<'_>>, out: &mut Vec<u8>) -> Result<Slice, Failure> {
        match self {
            Work::Range(range) => range.step(view, out),
            Work::Drafted(range) => range.step(view, out),
            Work::Hash(hash) => hash.step(view, out),
            Work::Snapshot(snapshot) => snapshot.step(view, out),
        }
    }

    /// Bytes that wait until an answer is whole, or sorted.
    fn drafted(&self) -> usize {
        match self {
            Work::Range(range) => range.bytes(),
            Work::Drafted(range) => range.bytes(),
            Work::Hash(_) | Work::Snapshot(_) => 0,
        }
    }

    /// The revision that a range reads.
    fn reads(&self) -> Option<i64> {
        match self {
            Work::Range(range) => Some(range.revision()),
            Work::Drafted(range) => Some(range.revision()),
            Work::Hash(_) | Work::Snapshot(_) => None,
        }
    }
}

/// The unfinished answers of a front that can go on without their clients.
#[derive(Debug, Default)]
pub struct LongDesk {
    working: VecDeque<(ConnectionId, u64)>,
    /// Unfinished answers in all.
    open: usize,
    /// Bytes that wait until answers are whole, or sorted.
    drafted: usize,
    /// What concerns snapshots besides.
    pub backups: Backups,
    /// Revisions that unfinished ranges read, and how many of them each.
    revisions: BTreeMap<i64, usize>,
    /// The oldest of them, as the order actor last heard.
    told: Option<i64>,
}

impl LongDesk {
    pub fn has_work(&self) -> bool {
        !self.working.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Bytes that wait until answers are whole, or sorted.
    pub fn drafted(&self) -> usize {
        self.drafted
    }

    /// The oldest revision that is read here, if it has changed since the last call; there is none
    /// if no range is unfinished.
    pub fn take_oldest(&mut self) -> Option<Option<i64>> {
        let oldest = self.revisions.keys().next().copied();
        let told = std::mem::replace(&mut self.told, oldest);
        (told != oldest).then_some(oldest)
    }

    /// Those whose turn it is.
    pub fn take_working(&mut self) -> Vec<(ConnectionId, u64)> {
        let count = self.working.len().min(limits::LONG_SLICES_PER_TURN);
        self.working.drain(..count).collect()
    }
}

impl Desk {
    /// Takes up an answer that will take several turns.
    pub(super) fn begin_long(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        stream: u64,
        work: (Work, usize),
    ) -> Result<(), api::Error> {
        self.take_up(connection, stream, work)?;
        self.long.working.push_back((id, stream));
        Ok(())
    }

    /// The same for one that goes on when its client has taken what there is, or that has to wait
    /// before it can begin.
    pub(super) fn take_up(
        &mut self,
        connection: &mut Connection,
        stream: u64,
        (work, bytes): (Work, usize),
    ) -> Result<(), api::Error> {
        if self.request_bytes + bytes > limits::REQUEST_BYTES_PER_FRONT {
            return Err(api::Error::TooManyRequests);
        }
        self.request_bytes += bytes;
        connection.in_flight += 1;
        connection.in_flight_bytes += bytes;
        self.long.drafted += work.drafted();
        if let Some(revision) = work.reads() {
            *self.long.revisions.entry(revision).or_default() += 1;
        }
        let long = Long {
            stream,
            bytes,
            work,
        };
        connection.long.push(long);
        self.long.open += 1;
        Ok(())
    }

    /// Works at an answer for the length of a slice; what it cost of a turn.
    pub fn work(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        stream: u64,
        reader: &Reader,
        now_ns: u64,
    ) -> usize {
        let Some(mut long) = take(connection, stream) else {
            return 0;
        };
        let mut turn = Turn::new(reader, now_ns);
        let room = self.room_beside(connection.owed() + long.work.drafted());
        self.ready_output(connection, now_ns);
        let before = connection.output.len();
        self.long.drafted -= long.work.drafted();
        let sliced = match turn.view() {
            _ if room < limits::PIECE_BYTES => Err(api::Error::TooManyRequests.into()),
            Ok(view) => long.work.step(&view, &mut connection.output),
            Err(error) => Err(Failure::from(error)),
        };
        self.long.drafted += long.work.drafted();
        if sliced.is_err() {
            connection.output.truncate(before);
        }
        let written = connection.output.len() - before;
        self.output_bytes += written;
        if !matches!(sliced, Ok(Slice::Working)) {
            self.touch(connection, id);
        }
        match sliced {
            Ok(Slice::Working) => {
                self.long.working.push_back((id, stream));
                connection.long.push(long);
            }
            Ok(Slice::Piece) => {
                answer::close_piece(connection, stream);
                connection.long.push(long);
            }
            Ok(Slice::Last) => {
                answer::close(connection, stream, None);
                self.end(connection, id, &long);
            }
            Err(failure) => {
                self.end(connection, id, &long);
                let error = self.own_up(&failure, now_ns);
                self.served(connection, id, stream, Err(error), now_ns);
            }
        }
        // A slice without output has looked at as much as one with.
        (written / 256).max(limits::TURN_COST / 4)
    }

    fn end(&mut self, connection: &mut Connection, id: ConnectionId, long: &Long) {
        self.forget_one(long);
        self.answered(connection, id, long.bytes);
    }

    /// Nobody waits for an answer any more.
    pub fn end_long(&mut self, connection: &mut Connection, id: ConnectionId, stream: u64) {
        if let Some(long) = take(connection, stream) {
            self.end(connection, id, &long);
        }
    }

    /// The connection is gone, and with it whoever waited.
    pub(super) fn forget_long(&mut self, connection: &mut Connection) {
        for long in connection.long.drain(..) {
            self.forget_one(&long);
        }
    }

    fn forget_one(&mut self, long: &Long) {
        self.long.open -= 1;
        self.long.drafted -= long.work.drafted();
        if let Some(revision) = long.work.reads()
            && let Some(count) = self.long.revisions.get_mut(&revision)
        {
            *count -= 1;
            if *count == 0 {
                self.long.revisions.remove(&revision);
            }
        }
        self.long.backups.open -= usize::from(matches!(long.work, Work::Snapshot(_)));
        self.request_bytes -= long.bytes;
    }
}

fn take(connection: &mut Connection, stream: u64) -> Option<Long> {
    let at = connection
        .long
        .iter()
        .position(|long| long.stream == stream)?;
    Some(connection.long.swap_remove(at))
}

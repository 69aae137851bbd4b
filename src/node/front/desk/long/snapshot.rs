//! A snapshot of the whole store, streamed as a backup: its blobs, and the checksum that etcd's
//! tools keep beside them.
//!
//! While it is under way nothing may be purged: the order actor is asked to hold the purge, and
//! the snapshot begins when it says that it does. It holds it for a bounded time; what takes
//! longer is ended by the next compaction.
#![forbid(unsafe_code)]

use super::super::super::connection::{Connection, ConnectionId};
use super::super::Desk;
use super::{Slice, Work};
use crate::api;
use crate::apply::Failure;
use crate::etcd::maintenance;
use crate::limits;
use quoin_storage::mvcc::{Meta, View};
use quoin_storage::snapshot::SnapshotWriter;
use quoin_storage::tree::{Snapshot, TreeRead};
use sha2::{Digest as _, Sha256};

/// A snapshot that is being streamed.
#[derive(Debug)]
pub struct LongSnapshot {
    cluster_id: u64,
    member_id: u64,
    /// There once the purge is held.
    writer: Option<SnapshotWriter>,
    sum: Sha256,
    /// What was read for the next message.
    blob: Vec<u8>,
}

impl LongSnapshot {
    fn new(header: &api::Header) -> LongSnapshot {
        LongSnapshot {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            writer: None,
            sum: Sha256::new(),
            blob: Vec::new(),
        }
    }

    /// Works on.
    pub fn step(
        &mut self,
        view: &View<'_, Snapshot<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        let meta = Meta::decode(view.tree().user())?;
        self.go_on(view, &meta, out)
    }

    fn go_on<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        meta: &Meta,
        out: &mut Vec<u8>,
    ) -> Result<Slice, Failure> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(SnapshotWriter::begin(
                view.tree(),
                meta,
                self.cluster_id,
                self.member_id,
            )?),
        };
        if writer.remaining() == 0 {
            let sum = std::mem::take(&mut self.sum).finalize();
            maintenance::encode_snapshot_part(0, &sum, out);
            return Ok(Slice::Last);
        }
        let most = (limits::PIECE_BYTES / 2, limits::SLICE_ENTRIES);
        self.blob.clear();
        writer.step(view, meta, most, &mut self.blob)?;
        if self.blob.is_empty() {
            return Ok(Slice::Working);
        }
        self.sum.update(&self.blob);
        maintenance::encode_snapshot_part(writer.remaining(), &self.blob, out);
        Ok(Slice::Piece)
    }
}

/// The snapshots of a front, and what the order actor knows of them.
#[derive(Debug, Default)]
pub struct Backups {
    /// Those that wait until the purge is held.
    waiting: Vec<(ConnectionId, u64)>,
    /// Those that were begun and have not ended.
    pub open: usize,
    /// One was taken up since the order actor was asked last.
    new: bool,
    /// What it was asked last: to hold the purge, or no more.
    asked: bool,
}

impl Backups {
    /// What to ask the order actor, if anything has changed: to hold the purge (anew), or to let
    /// it go.
    pub fn take_hold(&mut self) -> Option<bool> {
        let hold = self.open > 0;
        if !std::mem::take(&mut self.new) && hold == self.asked {
            return None;
        }
        self.asked = hold;
        Some(hold)
    }
}

impl Desk {
    /// Takes up a call for a snapshot.
    pub(in super::super) fn snapshot_call(
        &mut self,
        connection: &mut Connection,
        id: ConnectionId,
        stream: u64,
        now_ns: u64,
    ) {
        let work = Work::Snapshot(Box::new(LongSnapshot::new(&self.header)));
        let taken = self.take_up(connection, stream, (work, limits::PIECE_BYTES));
        if taken.is_ok() {
            self.long.backups.open += 1;
            self.long.backups.new = true;
            self.long.backups.waiting.push((id, stream));
        }
        self.served(connection, id, stream, taken, now_ns);
    }

    /// The purge is held: what has waited for it may begin.
    pub fn purge_held(&mut self) {
        let waiting = std::mem::take(&mut self.long.backups.waiting);
        self.long.working.extend(waiting);
    }
}

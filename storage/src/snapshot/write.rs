//! Writing, in slices.

use super::{
    ALARM_BYTES, BLOCK_BYTES, BLOCK_HEAD, EVENT_BYTES, Header, LEASE_BYTES, TOMBSTONE, block_crc,
};
use crate::mvcc::lease::{self, LEASE_COST, LeaseRecord};
use crate::mvcc::state::{self, Space};
use crate::mvcc::{EVENT_COST, Error, Event, Meta, Revision, View};
use crate::tree::{Interval, TreeId, TreeRead};

/// A snapshot that is being written.
///
/// What it holds of the store is where it stands in history, and the leases and alarms of the
/// moment of its beginning. The store may go on meanwhile, but nothing may be purged: each step
/// sees to that.
#[derive(Debug)]
pub struct SnapshotWriter {
    header: Header,
    /// Where the purge stood.
    purge: Revision,
    leases: std::vec::IntoIter<(i64, LeaseRecord)>,
    alarms: std::vec::IntoIter<Vec<u8>>,
    next: Option<Revision>,
    /// Records that fill no block yet.
    pending: Vec<u8>,
    begun: bool,
    block: u64,
    /// Bytes of records in blocks.
    blocked: u64,
    written: u64,
}

impl SnapshotWriter {
    /// Begins a snapshot of what a root shows.
    pub fn begin<T: TreeRead>(
        tree: &T,
        meta: &Meta,
        cluster_id: u64,
        member_id: u64,
    ) -> Result<SnapshotWriter, Error> {
        let mut leases = Vec::new();
        lease::all(tree, &mut |id, record| leases.push((id, record)))?;
        let mut alarms = Vec::new();
        state::scan(tree, Space::ALARM, b"", &mut |name, _| {
            alarms.push(name.to_vec());
            true
        })?;
        if alarms.iter().any(|name| name.len() != ALARM_BYTES) {
            return Err(Error::corrupt(TreeId::State, b"", "the name of no alarm"));
        }
        let all = Interval {
            start: b"",
            end: None,
        };
        let events = tree.count(TreeId::Revision, all)?;
        let (lease_count, alarm_count) = (leases.len() as u64, alarms.len() as u64);
        let costs = events * EVENT_COST + lease_count * LEASE_COST;
        let contents = meta.live_bytes.checked_sub(costs);
        let contents = contents.ok_or_else(sizes)?;
        let mut header = Header {
            revision: meta.revision,
            compacted: meta.compacted,
            events,
            leases: lease_count,
            alarms: alarm_count,
            record_bytes: contents
                + events * EVENT_BYTES as u64
                + lease_count * LEASE_BYTES as u64
                + alarm_count * ALARM_BYTES as u64,
            cluster_id,
            member_id,
            ..Header::default()
        };
        if !header.set_extra(&meta.extra) {
            return Err(Error::corrupt(TreeId::State, b"", "too much small state"));
        }
        Ok(SnapshotWriter {
            header,
            purge: meta.purge_stands(),
            leases: leases.into_iter(),
            alarms: alarms.into_iter(),
            next: Some(Revision::NONE),
            pending: Vec::new(),
            begun: false,
            block: 0,
            blocked: 0,
            written: 0,
        })
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.header.file_bytes() - self.written
    }

    /// Appends more of the file: about `bytes` of it, of at most `events_max` events. The file is
    /// complete when nothing remains.
    pub fn step<T: TreeRead>(
        &mut self,
        view: &View<'_, T>,
        meta: &Meta,
        (bytes, events_max): (usize, usize),
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let again = Revision::first(self.header.compacted.max(0));
        let stands = meta.purge_stands();
        if stands != self.purge && stands != self.purge.min(again) {
            let compacted = meta.compacted;
            return Err(Error::Compacted { compacted });
        }
        let before = out.len();
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(&self.header.encode());
        }
        let enough = bytes.max(BLOCK_BYTES);
        while self.pending.len() < enough
            && let Some((id, lease)) = self.leases.next()
        {
            for number in [id, lease.ttl, lease.remaining] {
                self.pending.extend_from_slice(&number.to_le_bytes());
            }
        }
        while self.pending.len() < enough
            && let Some(name) = self.alarms.next()
        {
            self.pending.extend_from_slice(&name);
        }
        if self.pending.len() < enough
            && let Some(from) = self.next
        {
            let (pending, through) = (&mut self.pending, self.header.revision);
            self.next = view.history_part(from, through, events_max, &mut |event| {
                if pending.len() >= enough {
                    return Ok(false);
                }
                put_event(pending, event);
                Ok(true)
            })?;
        }
        self.put_blocks(out);
        if self.next.is_none() && self.pending.is_empty() {
            if self.blocked != self.header.record_bytes {
                return Err(sizes());
            }
            let length = (out.len() - before) as u64 + self.written;
            let padding = self.header.file_bytes() - length;
            out.resize(out.len() + padding as usize, 0);
        }
        self.written += (out.len() - before) as u64;
        if self.written > self.header.file_bytes() {
            return Err(sizes());
        }
        Ok(())
    }

    /// Writes the blocks that are full, and at the end the rest.
    fn put_blocks(&mut self, out: &mut Vec<u8>) {
        let mut used = 0;
        loop {
            let rest = &self.pending[used..];
            let last = self.next.is_none() && !rest.is_empty();
            if rest.len() < BLOCK_BYTES && !last {
                break;
            }
            let payload = &rest[..rest.len().min(BLOCK_BYTES)];
            out.reserve(BLOCK_HEAD + payload.len());
            out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            out.extend_from_slice(&block_crc(self.block, payload).to_le_bytes());
            out.extend_from_slice(payload);
            used += payload.len();
            self.block += 1;
        }
        self.blocked += used as u64;
        self.pending.drain(..used);
    }
}

fn sizes() -> Error {
    Error::corrupt(
        TreeId::Revision,
        b"",
        "history has another size than the store knows of",
    )
}

fn put_event(out: &mut Vec<u8>, event: &Event<'_>) {
    out.extend_from_slice(&event.revision.main.to_le_bytes());
    out.extend_from_slice(&event.revision.sub.to_le_bytes());
    out.push(if event.tombstone { TOMBSTONE } else { 0 });
    for number in [event.create_revision, event.version, event.lease] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    // Records are limited far below 4 GiB.
    out.extend_from_slice(&(event.key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(event.value.len() as u32).to_le_bytes());
    out.extend_from_slice(event.key);
    out.extend_from_slice(event.value);
}

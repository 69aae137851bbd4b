//! Dropping history.
//!
//! A compaction takes effect at once: reads below its revision fail. What it made unreadable is
//! purged later, in slices. The purge is driven by the events up to the compacted revision, each
//! of which says what it has superseded:
//! - the event before it of the same key is removed;
//! - a delete before the compacted revision is removed too, and with it the key's entry, if
//!   nothing came after;
//! - a delete exactly at the compacted revision stays, so that watchers and readers at that
//!   revision find it, until the next compaction, which therefore looks at the events of the
//!   previous compacted revision once more.
//!
//! Every step can be repeated without harm, and where it stands is part of [`Meta`], so a purge
//! goes on after a restart where the last durable root left it.

use super::read::{Direction, entry, try_scan};
use super::record::EventView;
use super::write::event_bytes;
use super::{Error, Meta, Revision};
use crate::tree::{Interval, TreeId, TreeWrite};

/// Bytes of keys that one slice holds in memory.
const SLICE_BYTES: usize = 64 << 10;

/// Makes `revision` the oldest readable one.
pub fn compact(meta: &mut Meta, revision: i64) -> Result<(), Error> {
    if revision <= meta.compacted {
        return Err(Error::Compacted {
            compacted: meta.compacted,
        });
    }
    if revision > meta.revision {
        return Err(Error::FutureRevision {
            current: meta.revision,
        });
    }
    // Deletes at the revision that was the oldest so far were kept, also by a purge that has
    // passed some of its events already.
    meta.purge = meta.purge.min(Revision::first(meta.compacted.max(0)));
    meta.compacted = revision;
    Ok(())
}

/// What one event leaves to be removed.
struct Purge {
    at: Revision,
    prev: Revision,
    prev_bytes: u64,
    /// The event itself goes too: a delete. Its key.
    deleted: Option<Vec<u8>>,
}

/// Purges what the next `events_max` events (at least one) have superseded; says whether nothing
/// is left to do.
pub fn compact_step<T: TreeWrite>(
    tree: &mut T,
    meta: &mut Meta,
    events_max: usize,
) -> Result<bool, Error> {
    if !meta.purge_pending() {
        return Ok(true);
    }
    let beyond = Revision::first(meta.compacted + 1);
    let (slice, done) = next_slice(tree, meta.purge, meta.compacted, events_max)?;
    for purge in &slice {
        if !purge.prev.is_none() && tree.remove(TreeId::Revision, &purge.prev.to_key())? {
            forget(meta, purge.prev_bytes)?;
        }
        let Some(key) = &purge.deleted else {
            continue;
        };
        if tree.remove(TreeId::Revision, &purge.at.to_key())? {
            forget(meta, event_bytes(key.len(), 0))?;
        }
        let entry = entry(tree, key)?;
        if entry.is_some_and(|entry| entry.fields.latest == purge.at) {
            tree.remove(TreeId::Key, key)?;
        }
    }
    meta.purge = match slice.last() {
        Some(last) if !done => last.at.next(),
        _ => beyond,
    };
    Ok(done)
}

/// Reads the next events of the purge; says whether they are the last.
fn next_slice<T: TreeWrite>(
    tree: &T,
    from: Revision,
    compacted: i64,
    events_max: usize,
) -> Result<(Vec<Purge>, bool), Error> {
    let mut slice: Vec<Purge> = Vec::new();
    let (mut bytes, mut done) = (0, true);
    let (start, beyond) = (from.to_key(), Revision::first(compacted + 1).to_key());
    let events = Interval {
        start: &start,
        end: Some(&beyond),
    };
    try_scan(
        tree,
        TreeId::Revision,
        events,
        Direction::Ascending,
        |at, event| {
            if slice.len() >= events_max.max(1) || bytes >= SLICE_BYTES {
                done = false;
                return Ok(false);
            }
            let at = Revision::from_key(at)?;
            let event = EventView::decode(at, event)?;
            let goes = event.fields.tombstone && at.main < compacted;
            let deleted = goes.then(|| event.key.to_vec());
            bytes += deleted.as_ref().map_or(0, Vec::len);
            let prev_value_len = event.fields.prev_value_len as usize;
            let prev_bytes = event_bytes(event.key.len(), prev_value_len);
            slice.push(Purge {
                at,
                prev: event.fields.prev,
                prev_bytes,
                deleted,
            });
            Ok(true)
        },
    )?;
    Ok((slice, done))
}

fn forget(meta: &mut Meta, bytes: u64) -> Result<(), Error> {
    meta.live_bytes = meta.live_bytes.checked_sub(bytes).ok_or_else(|| {
        Error::corrupt(
            TreeId::Revision,
            b"",
            "more bytes purged than were ever written",
        )
    })?;
    Ok(())
}
